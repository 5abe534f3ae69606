"""Many nodes behind a caching HTTP proxy (nginx here, Dragonfly elsewhere): the origin is read once.

Each node has its own store.  nginx caches slices, so that ranges of one file that nodes ask for in any order are
fetched once; see docs/agent.md for the settings.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fakes.fake_s3 import FakeS3
from fakes.nginx import free_port, nginx
from fakes.trees import MIB, content, read_tree
from lading.settings.limits import Limits
from lading.settings.store import StoreSettings

NODES = 6
FILES = {"weights.bin": content(24 * MIB), "config.json": b"{}", "tokenizer.json": content(100_000, seed=1)}
SITE = """
  # What lists must be of now; what a reader pins to a version by If-Match may be kept.
  map $http_if_match $unpinned {{ default 0; "" 1; }}
  proxy_cache_path {folder}/cache keys_zone=models:1m max_size=1g;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {origin};
      proxy_set_header Range $slice_range;
      proxy_set_header If-Match $http_if_match;
      slice 1m;
      proxy_cache models;
      proxy_cache_key $uri$is_args$args$slice_range$http_if_match;
      proxy_cache_valid 200 206 1h;
      proxy_cache_bypass $unpinned;
      proxy_no_cache $unpinned;
      proxy_cache_lock on;
      proxy_cache_lock_timeout 60s;
    }}
  }}
"""


@pytest.fixture
def proxy(program, server, tmp_path):
    """A cache in front of ``server``; gives its URL."""
    port = free_port()
    folder = tmp_path / "nginx"
    folder.mkdir()
    with nginx(program("nginx"), folder, port, SITE.format(folder=folder, port=port, origin=server.url)):
        yield f"http://127.0.0.1:{port}"


def fill(tmp_path, pull, uri: str, files: dict[str, bytes], **settings) -> None:
    """Let every node bring the model at the same time, each to its own store."""

    def node(number: int) -> None:
        destination = tmp_path / f"node-{number}" / "model"
        pull(
            uri,
            destination,
            store=StoreSettings(path=str(tmp_path / f"node-{number}" / "store")),
            limits=Limits(stall_s=60.0, connect_s=20.0, workers=2),
            **settings,
        )
        assert read_tree(destination) == files

    with ThreadPoolExecutor(NODES) as pool:
        list(pool.map(node, range(NODES)))


def test_a_bucket_is_read_once_for_all_nodes_by_its_endpoint(proxy, server, tmp_path, pull):
    bucket = FakeS3(server, "models")
    # Unsigned: a signature is over the host's name, and the origin would have to answer to the proxy's.
    variables = {"AWS_ENDPOINT_URL": proxy, "awsAnonymousCredential": "true", "AWS_REGION": "us-east-1"}
    # The second time, a file has changed under its name: the cache does not stand in its way.
    for files in (FILES, FILES | {"weights.bin": content(24 * MIB, seed=2)}):
        for path, data in files.items():
            bucket.put(f"llm/{path}", data)
        server.behave()
        fill(tmp_path, pull, "s3://models/llm", files, variables=variables)
        assert 24 * MIB <= server.sent_bytes <= 1.1 * sum(map(len, files.values()))
