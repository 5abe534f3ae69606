"""The Hugging Face Hub, and a mirror of it."""

from collections.abc import Iterator
from contextlib import contextmanager

from conformance.scene import BESIDE, FILES, MODEL, PARTS, Listed, Scene, says
from fakes.fake_hub import FakeHub
from fakes.faulty_http import FaultyServer
from fakes.trees import mapped_tree


@contextmanager
def faults(server: FaultyServer) -> Iterator[Scene]:
    hub = FakeHub(server)
    # Large files come from another host, as they do.
    hub.content_url = server.url.replace("127.0.0.1", "localhost")
    model = hub.repository("owner/model", private=True, readers=frozenset({"hf_secret"}))
    model.commit(FILES)
    yield Scene(
        server,
        "hf://owner/model",
        lists=lambda request: request.path.startswith("/api/models/owner/model/"),
        reads=lambda request: request.path.startswith("/signed/"),
        put=lambda data: model.put("weights/big.bin", data),
        settings={"variables": {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_secret"}},
        secret="hf_secret",
    )


@contextmanager
def tree(request):
    with FaultyServer() as server, FaultyServer(host="localhost") as content_network:
        FakeHub(server, content_network).repository("owner/tree").commit(mapped_tree(request.getfixturevalue("tree")))
        yield "hf://owner/tree", {"variables": {"HF_ENDPOINT": server.url}}


@contextmanager
def pages(server):
    hub = FakeHub(server)
    hub.page_entries = 1
    commit = hub.repository("owner/name").commit(PARTS)
    path = f"/api/models/owner/name/tree/{commit}"
    settings = {"variables": {"HF_ENDPOINT": server.url}}
    yield Listed("hf://owner/name", settings, lambda request: request.path == path, hub.answer, path)


@contextmanager
def strays(server, tmp_path, stray):
    FakeHub(server).repository("owner/name").commit(MODEL | {stray: b""})
    yield "hf://owner/name", {"variables": {"HF_ENDPOINT": server.url}}, stray


@contextmanager
def strays_of_a_mirror(server, tmp_path, stray):
    hub = FakeHub(server)
    hub.tree = hub.blobs = False
    hub.repository("owner/name").commit(MODEL | {stray: b""})
    yield "hf://owner/name", {"variables": {"HF_ENDPOINT": server.url}}, stray


@contextmanager
def empty(server):
    commit = FakeHub(server).repository("owner/name").commit({f"{BESIDE}/a": b"a"})
    place = f"/api/models/owner/name/tree/{commit}"
    server.misbehave(place, says([{"type": "directory", "path": "model"}, {"type": "directory", "path": BESIDE}]))
    server.misbehave(f"{place}/model", says([]))
    yield ["hf://owner/name@main/model", "hf://owner/name@main/model/"], {"variables": {"HF_ENDPOINT": server.url}}


FAULTS = {"hugging-face": faults}
TREES = {"hugging-face": tree}
PAGES = {"hugging-face": pages}
STRAY_KEYS = {"hugging-face": strays, "mirror": strays_of_a_mirror}
EMPTY = {"hugging-face": empty}
