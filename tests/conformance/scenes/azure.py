"""Azure Blob Storage and Azure Files."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from conformance.scene import BESIDE, FILES, MODEL, PARTS, Listed, Scene
from fakes.fake_azure import FakeAzure, azure_settings
from fakes.faulty_http import FaultyServer
from fakes.trees import mapped_tree
from lading.settings.limits import Network


@contextmanager
def faults(server: FaultyServer, *, files: bool) -> Iterator[Scene]:
    azure = FakeAzure(server)
    for path, data in FILES.items():
        azure.put(f"model/{path}", data)
    settings = azure_settings(server, AZURE_SERVICE_URL=f"{server.url}/lading")
    yield Scene(
        server,
        "http://lading.file.core.windows.net/models/model" if files else f"{server.url}/lading/models/model",
        lists=lambda request: "comp=list" in request.query,
        reads=lambda request: request.path.endswith("/model/weights/big.bin") and request.method == "GET",
        put=lambda data: azure.put("model/weights/big.bin", data),
        settings=settings if files else settings | {"network": Network()},
        secret="SharedKey",
    )


@contextmanager
def tree(request, service):
    with FaultyServer() as server:
        azure = FakeAzure(server)
        for path, data in mapped_tree(request.getfixturevalue("tree")).items():
            azure.put(f"tree/{path}", data)
        for marker in ("tree/", "tree/deep/", "tree/nothing-but-a-marker/"):
            azure.blobs[marker] = azure.blobs["tree/empty"]
        yield f"http://lading.{service}.core.windows.net/models/tree", azure_settings(server)


@contextmanager
def pages(server, service, path):
    azure = FakeAzure(server)
    azure.page_size = 1
    for name, data in PARTS.items():
        azure.put(f"model/{name}", data)
    uri = f"http://lading.{service}.core.windows.net/models/model"
    yield Listed(uri, azure_settings(server), lambda request: "comp=list" in request.query, azure.answer, path)


@contextmanager
def strays(server, tmp_path, stray, service):
    azure = FakeAzure(server)
    for path in (*MODEL, stray):
        azure.put(f"llm/{path}", MODEL.get(path, b""))
    yield f"http://lading.{service}.core.windows.net/models/llm", azure_settings(server), f"llm/{stray}"


@contextmanager
def empty_container(server):
    azure = FakeAzure(server)
    azure.put("model/", b"")
    azure.put(f"{BESIDE}/a", b"a")
    base = "http://lading.blob.core.windows.net/models"
    yield [f"{base}/model", f"{base}/model/"], azure_settings(server)


@contextmanager
def empty_share(server):
    azure = FakeAzure(server)
    azure.folders.add("model")
    azure.put(f"{BESIDE}/a", b"a")
    base = "http://lading.file.core.windows.net/models"
    yield [f"{base}/model", f"{base}/model/"], azure_settings(server)


FAULTS = {"azure-blob": partial(faults, files=False), "azure-files": partial(faults, files=True)}
TREES = {"azure-blob": partial(tree, service="blob"), "azure-files": partial(tree, service="file")}
PAGES = {
    "azure-blob": partial(pages, service="blob", path="/models"),
    "azure-files": partial(pages, service="file", path="/models/model"),
}
STRAY_KEYS = {"azure-blob": partial(strays, service="blob")}
STRAY_NAMES = {"azure-files": partial(strays, service="file")}
EMPTY = {"azure-blob": empty_container, "azure-files": empty_share}
