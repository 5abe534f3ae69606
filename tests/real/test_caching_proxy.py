"""Many nodes behind one cache, each with a store of its own: the origin is read once.

The configurations are recipes of docs/scale.md.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.fake_oci import FakeRegistry
from fakes.fake_s3 import FakeS3
from fakes.nginx import free_port, nginx
from fakes.trees import MIB, content, read_tree
from lading.settings.limits import Limits, Network
from lading.settings.store import StoreSettings
from real.test_docker_registry import serve

NODES = 6
FILES = {"weights.bin": content(24 * MIB), "config.json": b"{}", "tokenizer.json": content(100_000, seed=1)}
MODEL_BYTES = sum(map(len, FILES.values()))
LIMITS = Limits(stall_s=60.0, connect_s=20.0, workers=2)
NGINX = """
  # What lists must be of now; what a reader pins to a version by If-Match may be kept.
  map $http_if_match $unpinned {{ default 0; "" 1; }}
  proxy_cache_path {folder}/cache keys_zone=models:1m max_size=1g;
  server {{
    listen 127.0.0.1:{port};
    proxy_cache models;
    proxy_cache_valid 200 206 1h;
    proxy_cache_lock on;
    proxy_cache_lock_timeout 60s;
    # Whoever asks with a login may read what others may not.
    proxy_cache_bypass $http_authorization;
    proxy_no_cache $http_authorization;
    proxy_set_header Range $slice_range;
    slice 1m;
    location / {{
      proxy_pass {origin};
      proxy_set_header If-Match $http_if_match;
      proxy_cache_key $uri$is_args$args$slice_range$http_if_match;
      proxy_cache_bypass $unpinned $http_authorization;
      proxy_no_cache $unpinned $http_authorization;
    }}
    # Of an OCI registry: a blob is named by its digest, and a tag must be of now.
    location ~ ^/v2/.+/blobs/sha256: {{
      proxy_pass {origin};
      proxy_cache_key $uri$slice_range;
    }}
    location ~ ^/v2/ {{
      proxy_pass {origin};
      proxy_cache off;
      proxy_set_header Range $http_range;
    }}
  }}
"""
SQUID = """
http_port 127.0.0.1:{port}
cache_dir ufs {folder}/cache 10000 16 256
maximum_object_size 1000 GB
# A file is fetched whole, whichever range is asked for first, and once for all who ask meanwhile.
range_offset_limit none
quick_abort_min -1 KB
collapsed_forwarding on
# What is kept is asked about each time, and sent again only if it has changed.
refresh_pattern . 0 0% 0
http_access allow localhost
pid_filename {folder}/squid.pid
cache_log {folder}/cache.log
access_log none
cache_store_log none
shutdown_lifetime 0 seconds
"""


@pytest.fixture
def proxy(program, server, tmp_path):
    """nginx in front of ``server``; gives its URL."""
    port = free_port()
    folder = tmp_path / "nginx"
    folder.mkdir()
    with nginx(program("nginx"), folder, port, NGINX.format(folder=folder, port=port, origin=server.url)):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def squid(program: str) -> Iterator[str]:
    """Squid in a folder that its own user may enter; gives its URL."""
    port = free_port()
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        shutil.chown(folder, "proxy", "proxy")
    (folder / "squid.conf").write_text(SQUID.format(folder=folder, port=port))
    subprocess.run([program, "-N", "-z", "-f", folder / "squid.conf"], check=True, capture_output=True)
    with subprocess.Popen([program, "-N", "-f", folder / "squid.conf"]) as process:
        try:
            while not listens(port):
                assert process.poll() is None, (folder / "cache.log").read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(folder)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def put(bucket: FakeS3, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        bucket.put(f"llm/{path}", data)


def fill(tmp_path, pull, uri: str, files: dict[str, bytes], nodes=range(NODES), **settings) -> None:
    """Let every node bring the model at the same time, each to its own store."""

    def node(number: int) -> None:
        destination = tmp_path / f"node-{number}" / "model"
        store = StoreSettings(path=str(tmp_path / f"node-{number}" / "store"), high="100%", low="100%")
        pull(uri, destination, store=store, **({"limits": LIMITS} | settings))
        assert read_tree(destination) == files

    with ThreadPoolExecutor(NODES) as pool:
        list(pool.map(node, nodes))


def test_nginx_reads_a_bucket_once_for_all_nodes(proxy, server, tmp_path, pull):
    bucket = FakeS3(server, "models")
    # Unsigned: a signature is over the host's name, and the origin would have to answer to the proxy's.
    variables = {"AWS_ENDPOINT_URL": proxy, "awsAnonymousCredential": "true", "AWS_REGION": "us-east-1"}
    # The second time, a file has changed under its name: the cache does not stand in its way.
    for files in (FILES, FILES | {"weights.bin": content(24 * MIB, seed=2)}):
        put(bucket, files)
        server.behave()
        fill(tmp_path, pull, "s3://models/llm", files, variables=variables)
        assert 24 * MIB <= server.sent_bytes <= 1.1 * MODEL_BYTES


def artifact(server) -> FakeRegistry:
    """A registry with the model, a blob for each file."""
    registry = FakeRegistry(server)
    registry.put_files(FILES)
    return registry


def test_nginx_reads_an_artifact_of_an_oci_registry_once_for_all_nodes(proxy, server, tmp_path, pull):
    registry = artifact(server)
    uri = f"oci://{proxy.removeprefix('http://')}/{registry.repository}:latest"
    fill(tmp_path, pull, uri, FILES, variables={"KSERVE_OCI_INSECURE_REGISTRY": "true"})
    assert 24 * MIB <= server.sent_bytes <= 1.1 * MODEL_BYTES


def test_squid_reads_a_bucket_once_for_all_nodes(program, server, tmp_path, pull):
    bucket = FakeS3(server, "models")
    variables = {"AWS_ENDPOINT_URL": server.url, "awsAnonymousCredential": "true", "AWS_REGION": "us-east-1"}
    with squid(program("squid")) as proxy:
        for files in (FILES, FILES | {"weights.bin": content(24 * MIB, seed=2)}):
            put(bucket, files)
            server.behave()
            fill(tmp_path, pull, "s3://models/llm", files, variables=variables, network=Network(http_proxy=proxy))
            assert 24 * MIB <= server.sent_bytes <= 1.1 * MODEL_BYTES


def test_a_registry_that_pulls_through_is_read_by_one_node_first(program, server, tmp_path, pull):
    """docker-registry fetches a blob that it lacks for each request, and once more to keep it."""
    registry = artifact(server)
    with serve(program, tmp_path, tmp_path / "storage", proxy={"remoteurl": server.url}) as host:
        uri = f"oci://{host}/{registry.repository}:latest"
        settings = {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}}
        fill(tmp_path, pull, uri, FILES, nodes=[0], **settings)
        assert server.sent_bytes <= 3.1 * MODEL_BYTES
        server.behave()
        fill(tmp_path, pull, uri, FILES, nodes=range(1, NODES), **settings)
        assert server.sent_bytes <= 0.1 * MODEL_BYTES
