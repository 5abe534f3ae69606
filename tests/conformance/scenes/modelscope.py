"""ModelScope."""

from collections.abc import Iterator
from contextlib import contextmanager

from conformance.scene import FILES, MODEL, Scene
from fakes.fake_modelscope import FakeModelScope
from fakes.faulty_http import FaultyServer
from fakes.trees import mapped_tree


@contextmanager
def faults(server: FaultyServer) -> Iterator[Scene]:
    scope = FakeModelScope(server)
    scope.content_url = server.url.replace("127.0.0.1", "localhost")
    model = scope.model("owner/model", readers=frozenset({"ms-secret"}))
    model.commit(FILES)
    yield Scene(
        server,
        "modelscope://owner/model",
        lists=lambda request: request.path.endswith("/repo/files"),
        reads=lambda request: request.path.startswith("/signed/"),
        put=lambda data: model.put("weights/big.bin", data),
        settings={"variables": {"MODELSCOPE_ENDPOINT": server.url, "MODELSCOPE_API_TOKEN": "ms-secret"}},
        secret="ms-secret",
    )


@contextmanager
def tree(request):
    with FaultyServer() as server, FaultyServer(host="localhost") as content_network:
        FakeModelScope(server, content_network).model("owner/tree").commit(mapped_tree(request.getfixturevalue("tree")))
        yield "modelscope://owner/tree", {"variables": {"MODELSCOPE_ENDPOINT": server.url}}


@contextmanager
def strays(server, tmp_path, stray):
    FakeModelScope(server).model("owner/name").commit(MODEL | {stray: b""})
    yield "modelscope://owner/name", {"variables": {"MODELSCOPE_ENDPOINT": server.url}}, stray


FAULTS = {"modelscope": faults}
TREES = {"modelscope": tree}
STRAY_KEYS = {"modelscope": strays}
