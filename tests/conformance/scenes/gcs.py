"""Cloud Storage."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from conformance.scene import BESIDE, FILES, MODEL, PARTS, Listed, Scene
from fakes.fake_gcs import FakeGcs
from fakes.fake_google import FakeGoogle
from fakes.faulty_http import FaultyServer
from fakes.trees import mapped_tree


@contextmanager
def faults(server: FaultyServer) -> Iterator[Scene]:
    bucket, google = FakeGcs(server), FakeGoogle(server)
    for path, data in FILES.items():
        bucket.put(f"model/{path}", data)
    key = json.dumps(google.document("service_account"))
    yield Scene(
        server,
        "gs://models/model",
        lists=lambda request: request.path == bucket.listing,
        reads=lambda request: request.path == bucket.media("model/weights/big.bin"),
        put=lambda data: bucket.put("model/weights/big.bin", data),
        settings={"variables": {"API_ENDPOINT_OVERRIDE": server.url, "gcloud-application-credentials.json": key}},
        secret="se-cret-",
    )


@contextmanager
def tree(request):
    with FaultyServer() as server:
        bucket = FakeGcs(server)
        for path, data in mapped_tree(request.getfixturevalue("tree")).items():
            bucket.put(f"tree/{path}", data)
        for marker in ("tree/", "tree/deep/", "tree/nothing-but-a-marker/"):
            bucket.put(marker, b"")
        yield "gs://models/tree", {"variables": {"STORAGE_EMULATOR_HOST": server.url}}


@contextmanager
def pages(server):
    bucket = FakeGcs(server)
    bucket.page_names = 1
    for path, data in PARTS.items():
        bucket.put(f"model/{path}", data)
    settings = {"variables": {"STORAGE_EMULATOR_HOST": server.url}}
    path = "/storage/v1/b/models/o"
    yield Listed("gs://models/model", settings, lambda request: request.path == path, bucket.answer, path)


@contextmanager
def strays(server, tmp_path, stray):
    bucket = FakeGcs(server)
    for path in (*MODEL, stray):
        bucket.put(f"llm/{path}", MODEL.get(path, b""))
    yield "gs://models/llm", {"variables": {"STORAGE_EMULATOR_HOST": server.url}}, f"llm/{stray}"


@contextmanager
def empty(server):
    bucket = FakeGcs(server)
    bucket.put("model/", b"")
    bucket.put(f"{BESIDE}/a", b"a")
    yield ["gs://models/model", "gs://models/model/"], {"variables": {"STORAGE_EMULATOR_HOST": server.url}}


FAULTS = {"gcs": faults}
TREES = {"gcs": tree}
PAGES = {"gcs": pages}
STRAY_KEYS = {"gcs": strays}
EMPTY = {"gcs": empty}
