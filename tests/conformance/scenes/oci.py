"""OCI registries: files, and images whose layers are a tree."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from conformance.scene import BESIDE, BIG, FILES, MODEL, Scene
from fakes.fake_oci import INDEX, FakeRegistry, basic_only, digest_of, tar
from fakes.faulty_http import ALWAYS, FaultyServer, probes, status


@contextmanager
def faults(server: FaultyServer, *, layers: bool) -> Iterator[Scene]:
    registry = FakeRegistry(server)
    registry.authorize = basic_only

    def put(data: bytes) -> None:
        files = FILES | {"weights/big.bin": data}
        if layers:
            registry.put_image(*(tar((f"models/{path}", content)) for path, content in files.items()))
        else:
            registry.put_files(files)

    put(BIG)
    blobs = f"/v2/{registry.repository}/blobs/"
    login = {"OCI_USERNAME": "user", "OCI_PASSWORD": "password", "KSERVE_OCI_INSECURE_REGISTRY": "true"}
    yield Scene(
        server,
        registry.uri(),
        lists=lambda request: "/manifests/" in request.path,
        reads=lambda request: request.path.startswith(blobs) and not probes(request),
        put=put,
        settings={"variables": login},
        secret="dXNlcjpwYXNzd29yZA==",
    )


@contextmanager
def tree(request):
    with request.getfixturevalue("tar").open("rb") as file, FaultyServer() as server:
        registry = FakeRegistry(server)
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        registry.put_artifact(registry.put_blob(content, "application/vnd.kitops.modelkit.model.v1.tar"))
        yield registry.uri(), {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}}


@contextmanager
def strays(server, tmp_path, stray):
    registry = FakeRegistry(server)
    registry.put_files(MODEL | {stray: b"stray"})
    yield registry.uri(), {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}}, stray


@contextmanager
def strays_in_layers(server, tmp_path, stray):
    registry = FakeRegistry(server)
    registry.put_image(tar(*((f"models/{path}", MODEL.get(path, b"stray")) for path in (*MODEL, stray))))
    yield registry.uri(), {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}}, stray


@contextmanager
def tag_without_a_manifest(server):
    registry = FakeRegistry(server)
    for tag in ("model", BESIDE):
        registry.put_files({"a": b"a"}, tag=tag)
    server.misbehave(registry.path("manifests", "model"), status(404, times=ALWAYS))
    yield [registry.uri("model")], {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}}


@contextmanager
def index_without_its_manifest(server):
    registry = FakeRegistry(server)
    entry = {"mediaType": INDEX, "digest": digest_of(b"deleted"), "size": 1}
    registry.put_manifest("model", {"mediaType": INDEX, "manifests": [entry]})
    yield [registry.uri("model")], {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}}


FAULTS = {"oci-files": partial(faults, layers=False), "oci-layers": partial(faults, layers=True)}
TREES = {"oci": tree}
STRAY_KEYS = {"oci": strays}
STRAY_NAMES = {"oci-layers": strays_in_layers}
EMPTY = {"oci-tag": tag_without_a_manifest, "oci-index": index_without_its_manifest}
