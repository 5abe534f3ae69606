"""Disks that are too small, that fill up, and that may not be written."""

import os
import threading

import pytest

from fakes.faulty_http import claimed_size, framed
from fakes.trees import MIB, content, read_tree, told, write_tree
from lading.deliver import deliver
from lading.delivery.request import Request
from lading.errors import NoSpace, NotAllowed
from lading.system.disk import free_bytes

PATH = "/model.bin"
RANGE_BYTES = 256 * 1024
CONTENT = content(4 * MIB)
DELIVERED = {"model.bin": CONTENT}
TOO_LARGE = 1 << 59


def test_a_file_that_cannot_fit_is_refused_before_its_first_byte(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, claimed_size(TOO_LARGE))
    with pytest.raises(NoSpace) as caught:
        pull(uri, destination.path)
    assert caught.value.exit_code == 7
    assert len(server.requests) == 1
    destination.assert_untouched()
    assert not (destination.path / ".lading").exists()


def test_a_tree_that_cannot_fit_is_refused_before_its_first_byte(server, bucket, anonymous, destination, pull):
    bucket.put("model/a", b"a")
    bucket.put("model/b", b"b", claimed_bytes=TOO_LARGE)
    with pytest.raises(NoSpace):
        pull("s3://models/model", destination.path, **anonymous)
    assert {request.path for request in server.requests} == {"/models/"}
    destination.assert_untouched()


def test_models_that_fit_only_one_by_one_are_refused_together(server, tmp_path, new_session):
    size_bytes = free_bytes(tmp_path) * 6 // 10
    uris = [server.put(f"/{name}.bin", CONTENT) for name in "ab"]
    for name in "ab":
        server.misbehave(f"/{name}.bin", claimed_size(size_bytes))
    requests = [Request(uri, tmp_path / str(number)) for number, uri in enumerate(uris)]
    with pytest.raises(NoSpace):
        deliver(requests, new_session())
    assert read_tree(tmp_path) == {}
    assert server.asked_bytes == 0


def test_a_disk_too_small_is_refused_before_the_first_byte(server, new_disk, new_destination, pull):
    disk = new_disk(2 * MIB)
    destination = new_destination(disk.path / "model")
    with pytest.raises(NoSpace):
        pull(server.put(PATH, CONTENT), destination.path)
    assert server.asked_bytes == 0
    destination.assert_untouched()
    disk.remount(f"size={16 * MIB}")
    pull(server.url + PATH, destination.path)
    destination.assert_holds(DELIVERED)


def test_a_disk_that_is_too_small_for_a_file_of_unknown_size_leaves_the_destination(
    server, new_disk, new_destination, pull
):
    disk = new_disk(2 * MIB)
    destination = new_destination(disk.path / "model")
    uri = server.put(PATH, CONTENT, ranges=False)
    server.misbehave(PATH, framed("chunked"))
    with pytest.raises(NoSpace) as caught:
        pull(uri, destination.path)
    assert caught.value.exit_code == 7
    destination.assert_untouched()


def test_a_disk_that_somebody_fills_meanwhile_leaves_the_destination_and_is_resumed(
    server, new_disk, new_destination, pull
):
    disk = new_disk(16 * MIB)
    destination = new_destination(disk.path / "model")
    uri = server.put(PATH, CONTENT)
    filling, filled = threading.Lock(), threading.Event()

    def fill(_, total: int) -> None:
        # Every answer waits here, so that bytes are left which the disk cannot take.
        with filling:
            if total >= 2 * MIB and not filled.is_set():
                disk.fill()
                filled.set()

    server.on_sent = fill
    with pytest.raises(NoSpace) as caught:
        pull(uri, destination.path, range_bytes=RANGE_BYTES)
    assert caught.value.exit_code == 7
    destination.assert_untouched()
    disk.remount(f"size={32 * MIB}")
    received = destination.received_bytes()
    server.behave()
    pull(uri, destination.path, range_bytes=RANGE_BYTES)
    destination.assert_holds(DELIVERED)
    assert server.asked_bytes == len(CONTENT) - received


def test_a_limit_on_the_size_of_files_leaves_the_destination(server, destination, processes):
    uri = server.put(PATH, CONTENT)
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({MIB}, {MIB}))"
    assert processes.run("pull", uri, destination.path, code=limit).returncode == 7
    destination.assert_untouched()
    assert processes.run("pull", uri, destination.path).returncode == 0
    destination.assert_holds(DELIVERED)


@pytest.fixture
def make_read_only(new_disk, tmp_path):
    """Forbid writing to a folder: as root by the file system, else by its mode."""
    if os.geteuid() == 0:
        disk = new_disk(16 * MIB)
        return disk.path, lambda: disk.remount("ro")
    folder = tmp_path / "read-only"
    folder.mkdir()
    return folder, lambda: [folder.chmod(0o555), (folder / "model").exists() and (folder / "model").chmod(0o555)]


def test_a_destination_that_may_not_be_written_is_refused(server, make_read_only, new_destination, pull):
    folder, forbid = make_read_only
    destination = new_destination(folder / "model")
    forbid()
    with pytest.raises(NotAllowed) as caught:
        pull(server.put(PATH, CONTENT), destination.path)
    assert caught.value.exit_code == 4
    said = "mounted read-only" if "Read-only" in caught.value.message else f"user {os.geteuid()}"
    assert said in caught.value.hint
    assert server.asked_bytes == 0
    destination.assert_untouched()


def test_a_mount_point_is_delivered_to_by_renames(server, new_disk, new_destination, pull):
    disk = new_disk(32 * MIB)
    destination = new_destination(disk.path)
    inode = disk.path.stat().st_ino
    pull(server.put(PATH, CONTENT), disk.path)
    destination.assert_holds(DELIVERED)
    assert os.path.ismount(disk.path)
    assert disk.path.stat().st_ino == inode


def test_a_mount_point_that_is_read_is_replaced_file_by_file(tmp_path, new_disk, pull):
    disk = new_disk(32 * MIB)
    old, new = ({"a": b"%d" % version, f"only-{version}": b"x", "same": b"same"} for version in (1, 2))
    pull(str(write_tree(tmp_path / "old", old)), disk.path)
    with (disk.path / "a").open("rb") as reader:
        manifest = pull(str(write_tree(tmp_path / "new", new)), disk.path)
        assert reader.read() == b"1"
    assert read_tree(disk.path) == new
    assert set(told(manifest)) == set(new)
