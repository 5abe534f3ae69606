"""An archive that suffers on its way: its tree comes whole or not at all."""

import hashlib
import io
import tarfile
import zipfile
from base64 import b64encode

import pytest

from fakes.faulty_http import ALWAYS, cut, framed, reset, status, wrong_byte
from fakes.trees import MIB, content
from lading.errors import IntegrityError, Unavailable

FILES = {"config.json": b"{}", "weights/a.bin": content(MIB), "weights/b.bin": content(2 * MIB, seed=1)}
RANGE_BYTES = 512 * 1024


def tar(compression: str = "") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{compression}") as archive:
        for path, data in FILES.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, data in FILES.items():
            archive.writestr(path, data)
    return packed.getvalue()


ARCHIVES = {"/model.tar": tar(), "/model.tar.gz": tar("gz"), "/model.zip": zipped()}
EVERY_ARCHIVE = pytest.mark.parametrize("path", ARCHIVES)


def vouched(data: bytes) -> dict[str, str]:
    return {"Repr-Digest": f"sha-256=:{b64encode(hashlib.sha256(data).digest()).decode()}:"}


@EVERY_ARCHIVE
@pytest.mark.parametrize(
    "fault", [lambda: reset(at=300_000, times=5), lambda: cut(at=300_000), lambda: status(503, times=2)]
)
def test_an_archive_arrives_as_its_tree_whatever_the_network_does(server, destination, pull, path, fault):
    uri = server.put(path, ARCHIVES[path], headers=vouched(ARCHIVES[path]))
    server.misbehave(path, fault())
    pull(uri, destination.path, range_bytes=RANGE_BYTES)
    manifest = destination.assert_holds(FILES)
    assert [archive.path for archive in manifest.archives] == [path.removeprefix("/")]


@EVERY_ARCHIVE
@pytest.mark.parametrize("range_bytes", [RANGE_BYTES, 8 * MIB], ids=["ranges", "whole"])
def test_a_wrong_byte_in_an_archive_is_refused_and_the_next_run_delivers(server, destination, pull, path, range_bytes):
    # Its tree is made while it lands: that cannot be taken back and begun again half-way.
    uri = server.put(path, ARCHIVES[path], headers=vouched(ARCHIVES[path]))
    server.misbehave(path, wrong_byte(2 * MIB, times=ALWAYS))
    with pytest.raises(IntegrityError) as caught:
        pull(uri, destination.path, range_bytes=range_bytes)
    assert caught.value.exit_code == 6
    destination.assert_untouched()
    server.behave()
    pull(uri, destination.path, range_bytes=range_bytes)
    destination.assert_holds(FILES)


@EVERY_ARCHIVE
@pytest.mark.parametrize("lost_bytes", [2000, 2 * MIB])
def test_an_archive_that_is_truncated_at_its_origin_is_refused(server, destination, pull, path, lost_bytes):
    archive = ARCHIVES[path].rstrip(b"\0") if path.endswith(".tar") else ARCHIVES[path]
    with pytest.raises(IntegrityError):
        pull(server.put(path, archive[:-lost_bytes]), destination.path)
    destination.assert_untouched()


@EVERY_ARCHIVE
def test_an_archive_of_unknown_length_arrives_as_its_tree(server, destination, pull, path):
    uri = server.put(path, ARCHIVES[path], ranges=False)
    server.misbehave(path, framed("chunked"), cut(at=MIB, after=1))
    pull(uri, destination.path)
    destination.assert_holds(FILES)


@EVERY_ARCHIVE
def test_an_archive_that_is_interrupted_is_delivered_by_the_next_run(server, destination, pull, path):
    uri = server.put(path, ARCHIVES[path], headers=vouched(ARCHIVES[path]))
    server.misbehave(path, reset(at=0, after=4, times=ALWAYS))
    with pytest.raises(Unavailable):
        pull(uri, destination.path, range_bytes=RANGE_BYTES)
    destination.assert_untouched()
    server.behave()
    pull(uri, destination.path, range_bytes=RANGE_BYTES)
    destination.assert_holds(FILES)
