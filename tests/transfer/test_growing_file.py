"""Readers of a file that is landing: they wait, they hold back what is too far ahead, and what all have read is gone."""

import os
import random
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from fakes.trees import MIB
from lading.errors import Interrupted
from lading.model.byte_range import ByteRange
from lading.transfer.growing_file import GrowingFile

RANGE_BYTES = 32 * MIB


class Scene:
    """A file of which every MiB begins with its own number; it lands range by range, and is sparse but for that."""

    def __init__(self, folder: Path, size_bytes: int, hashed: int | None = None) -> None:
        self.place = folder / "archive"
        self.place.touch()
        os.truncate(self.place, size_bytes)
        self.changed = threading.Condition()
        self.stopped = False
        self.growing = GrowingFile(
            str(self.place), size_bytes, self.changed, self._check, lambda: size_bytes if hashed is None else hashed
        )
        self.left = [ByteRange(start, start + RANGE_BYTES) for start in range(0, size_bytes, RANGE_BYTES)]

    def _check(self) -> None:
        if self.stopped:
            raise Interrupted("stopped")

    def admitted(self) -> list[ByteRange]:
        return [byte_range for byte_range in self.left if self.growing.admits(byte_range)]

    def land(self, byte_range: ByteRange) -> None:
        self.left.remove(byte_range)
        with self.place.open("rb+") as file:
            for start in range(byte_range.start, byte_range.end, MIB):
                file.seek(start)
                file.write(start.to_bytes(8, "big"))
        self.growing.arrived(byte_range.start, byte_range.end)

    def land_all(self) -> None:
        for byte_range in list(self.left):
            self.land(byte_range)

    @property
    def on_disk_bytes(self) -> int:
        """The data's blocks, and some that the file system needs for its map of them: when depends on its write-back."""
        return self.place.stat().st_blocks * 512


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path, 1024 * MIB)
    with made.growing:
        yield made


def test_what_is_near_a_reader_is_admitted_and_nothing_else(scene: Scene) -> None:
    first, second = scene.growing.open(), scene.growing.open()
    scene.growing.read_in_order()
    second.seek(512 * MIB)
    starts = [byte_range.start // MIB for byte_range in scene.admitted()]
    assert starts == [0, 32, 64, 96, 512, 544, 576, 608]
    first.close()
    assert [byte_range.start // MIB for byte_range in scene.admitted()][-1] == 608
    assert 0 in [byte_range.start for byte_range in scene.admitted()]  # behind the only reader: a digest still needs it


def test_before_it_reads_in_order_a_reader_has_only_the_range_it_is_in(scene: Scene) -> None:
    reader = scene.growing.open()
    reader.seek(-10, os.SEEK_END)
    assert scene.admitted() == [ByteRange(992 * MIB, 1024 * MIB)]


def test_only_what_all_readers_have_passed_is_forgotten(scene: Scene) -> None:
    scene.land_all()
    first, second = scene.growing.open(), scene.growing.open()
    scene.growing.read_in_order()
    second.seek(512 * MIB)
    before = scene.on_disk_bytes
    assert second.read(8) == (512 * MIB).to_bytes(8, "big")
    assert scene.on_disk_bytes == before
    first.seek(400 * MIB)
    first.read(1)
    assert scene.on_disk_bytes <= before - 390 * 4096
    first.close()
    second.seek(600 * MIB)
    assert second.read(8) == (600 * MIB).to_bytes(8, "big")
    assert scene.on_disk_bytes <= before - 590 * 4096


def test_what_a_digest_still_needs_is_not_forgotten(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 256 * MIB, hashed=64 * MIB)
    scene.land_all()
    with scene.growing, scene.growing.open() as reader:
        scene.growing.read_in_order()
        reader.seek(200 * MIB)
        reader.read(1)
        with scene.place.open("rb") as file:
            file.seek(64 * MIB)
            assert file.read(8) == (64 * MIB).to_bytes(8, "big")
            file.seek(63 * MIB)
            assert file.read(8) == bytes(8)


def test_a_reader_that_waits_is_told_that_the_transfer_is_over(scene: Scene) -> None:
    reader = scene.growing.open()
    scene.stopped = True
    with pytest.raises(Interrupted):
        reader.read(1)


def test_it_is_gone_in_the_end_and_holds_nothing_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1024 * MIB)
    with scene.growing:
        pass
    assert not scene.place.exists()
    assert scene.admitted() == scene.left


@pytest.mark.parametrize("readers", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_members_that_are_read_beside_each_other_all_arrive(tmp_path: Path, readers: int, seed: int) -> None:
    dice = random.Random(seed)
    scene = Scene(tmp_path, 768 * MIB)
    bounds = sorted(dice.sample(range(1, 768), 6))
    members = iter(pairwise([0, *bounds, 768]))
    lock = threading.Lock()
    read: list[int] = []

    def work() -> None:
        with scene.growing.open() as stream:
            while True:
                with lock:
                    member = next(members, None)
                if member is None:
                    return
                for number in range(*member):
                    stream.seek(number * MIB)
                    assert int.from_bytes(stream.read(8), "big") == number * MIB
                    read.append(number)

    threads = [threading.Thread(target=work) for _ in range(readers)]
    with scene.growing:
        scene.growing.read_in_order()
        for thread in threads:
            thread.start()
        with scene.changed:
            while scene.left:
                assert scene.changed.wait_for(scene.admitted, timeout=30), "nobody can go on"
                scene.land(dice.choice(scene.admitted()))
        for thread in threads:
            thread.join(30)
    assert sorted(read) == list(range(768))
