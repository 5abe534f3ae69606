"""The store on real file systems, each in a file on a loop device: what is shared, and what is not."""

import os
import subprocess

import pytest

from fakes.trees import MIB, content, read_tree, whole_manifest
from lading import events as told
from lading.settings.store import StoreSettings
from lading.store.inspection import verify
from lading.store.store import Store

MODEL = {f"weights-{number}.bin": content(16 * MIB, seed=number) for number in range(4)}
MODEL_BYTES = sum(map(len, MODEL.values()))
KINDS = {
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q"),
    "ext4": ("mkfs.ext4", "-q"),
}


@pytest.fixture
def new_volume(tmp_path, program):
    """Make a file system of a kind, of 512 MiB, and mount it."""
    mounted = []

    def make(kind: str):
        assert os.geteuid() == 0, "mounting needs root"
        image, place = tmp_path / f"{kind}.img", tmp_path / kind
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(512 * MIB)
        command, *options = KINDS[kind]
        subprocess.run([program(command), *options, image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, place], check=True)
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def uri(bucket) -> str:
    for path, data in MODEL.items():
        bucket.put(f"model/{path}", data)
    return "s3://models/model"


@pytest.fixture
def pull_by(uri, pull, server):
    variables = {"AWS_ENDPOINT_URL": server.url, "awsAnonymousCredential": "true"}
    return lambda destination, store: pull(uri, destination, store=store, variables=variables)


def used_bytes(place) -> int:
    subprocess.run(["sync", "-f", place], check=True)
    stat = os.statvfs(place)
    return (stat.f_blocks - stat.f_bfree) * stat.f_frsize


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_reflink_takes_no_space_and_what_a_reader_writes_stays_with_it(kind, new_volume, pull_by, events, server):
    place = new_volume(kind)
    by = StoreSettings(path=str(place / "store"))
    assert Store(by).shares_with(place)
    pull_by(place / "first", by)
    filled = used_bytes(place)
    server.asked_bytes = 0
    pull_by(place / "second", by)
    assert server.asked_bytes == 0
    assert used_bytes(place) < filled + MODEL_BYTES // 10
    assert {event.ways for event in events if isinstance(event, told.Materialized)} == {"4 by reflink"}
    whole_manifest(place / "second")
    with (place / "second/weights-0.bin").open("r+b") as file:
        file.write(b"altered")
    assert verify(Store(by)).rotten == ()
    assert read_tree(place / "first") == MODEL


def test_a_link_takes_no_space_where_it_may_be_made_and_a_copy_does(new_volume, pull_by, events):
    place = new_volume("ext4")
    by = StoreSettings(path=str(place / "store"), hard_links=True)
    pull_by(place / "linked", by)
    filled = used_bytes(place)
    pull_by(place / "again", by)
    assert used_bytes(place) < filled + MODEL_BYTES // 10
    assert not Store(by._replace(hard_links=False)).shares_with(place)
    pull_by(place / "copied", by._replace(hard_links=False))
    assert used_bytes(place) > filled + MODEL_BYTES * 9 // 10
    ways = [event.ways for event in events if isinstance(event, told.Materialized)]
    assert ways == ["4 by link", "4 by link", "4 by copy"]
    whole_manifest(place / "again")


def test_between_two_file_systems_files_are_copied(new_volume, pull_by, events):
    there, here = new_volume("xfs"), new_volume("ext4")
    pull_by(here / "model", StoreSettings(path=str(there / "store"), hard_links=True))
    whole_manifest(here / "model")
    [placed] = [event for event in events if isinstance(event, told.Materialized)]
    assert placed.ways == "4 by copy"


def test_space_that_is_given_back_late_evicts_no_more_than_it_must(new_volume, server, pull):
    """btrfs tells what was freed only with its next transaction."""
    place = new_volume("btrfs")
    by = StoreSettings(path=str(place / "store"), high="100%", low="100%")
    for number in range(8):
        uri = server.put(f"/{number}.bin", content(40 * MIB, seed=number))
        pull(uri, place.parent / str(number), store=by)
    assert len(Store(by).models()) >= 6
