"""One file behind a URL, and an archive."""

import hashlib
import mmap
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager

from conformance.scene import BIG, Scene
from fakes.certificates import Authority
from fakes.faulty_http import FaultyServer, probes
from lading.settings.limits import Network


@contextmanager
def faults(server: FaultyServer) -> Iterator[Scene]:

    def put(data: bytes) -> str:
        sha256 = hashlib.sha256(data)
        digest = {"Repr-Digest": f"sha-256=:{b64encode(sha256.digest()).decode()}:"}
        return server.put("/big.bin", data, etag=f'"{sha256.hexdigest()}"', headers=digest)

    yield Scene(
        server,
        put(BIG),
        lists=probes,
        reads=lambda request: not probes(request),
        put=put,
        files={"big.bin": BIG},
        settings={"variables": {"127.0.0.1-headers": '{"X-Token": "se-cret"}'}},
        secret="se-cret",
    )


@contextmanager
def tree(request, tls=None, settings=None):
    with request.getfixturevalue("tar").open("rb") as file, FaultyServer(tls) as server:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        yield server.put("/tree.tar", content), settings or {}


@contextmanager
def tree_over_tls(request):
    authority = Authority(request.getfixturevalue("tmp_path"))
    network = Network(ca_files=(authority.bundle,))
    with tree(request, authority.server_context("127.0.0.1"), {"network": network}) as found:
        yield found


FAULTS = {"http": faults}
TREES = {"tar-over-http": tree, "tar-over-https": tree_over_tls}
