"""The scrub: every file of a store is hashed again, bit by bit, and what has rotted is set aside."""

import errno
import itertools
import os
import threading
from pathlib import Path

import pytest

from fakes.trees import content, read_tree, write_tree
from lading.agent.metrics import Metrics
from lading.agent.scrubber import Scrubber
from lading.errors import Interrupted
from lading.events import Failed, SetAside
from lading.settings.store import StoreSettings
from lading.store import scrub as scrubs
from lading.store.scrub import due_in_s, read_pass, scrub
from lading.store.store import Store
from lading.system.threads import become_idle

FILES = {"a.bin": content(30_000, seed=1), "b/c.bin": content(20_000, seed=2), "d.bin": content(10_000, seed=3)}
WEEK_S = 7 * 24 * 3600.0


@pytest.fixture
def settings(tmp_path) -> StoreSettings:
    return StoreSettings(path=str(tmp_path / "store"), high="100%", low="100%")


@pytest.fixture
def store(settings) -> Store:
    return Store(settings)


@pytest.fixture
def delivered(pull, settings, tmp_path):
    """Deliver a folder by way of the store; its name, its files and the destination are given."""

    def deliver(name: str = "one", files: dict[str, bytes] = FILES, to: str = "") -> Path:
        origin = tmp_path / f"origin-{name}"
        if not origin.exists():
            write_tree(origin, files)
        pull(str(origin), tmp_path / (to or name), store=settings)
        return tmp_path / (to or name)

    return deliver


def now(store: Store) -> float:
    return read_pass(store).begun_s + WEEK_S


def rot(place: Path) -> None:
    """Turn one bit, as a disk does: size and times stay."""
    status = place.stat()
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.chmod(0o644)
    place.write_bytes(data)
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))


def in_store(store: Store, path: str) -> Path:
    """The file at this path of the store's only model."""
    [key] = store.keys()
    return store.folder(key) / path


class Heard:
    """Counts bytes, and stops the scrub after so many."""

    def __init__(self, most: int = 1 << 60) -> None:
        self.size_bytes, self._most = 0, most

    def __call__(self, count: int) -> None:
        if self.size_bytes + count > self._most:
            raise Interrupted("stopped")
        self.size_bytes += count


def test_each_file_is_hashed_once_however_many_models_have_it(delivered, store):
    delivered()
    delivered("two", FILES | {"e.bin": b"more"})
    heard = Heard()
    assert list(scrub(store, now(store), heard)) == []
    assert heard.size_bytes == sum(map(len, FILES.values())) + len(b"more")


def test_a_turned_bit_is_found_and_the_next_delivery_is_whole_again(delivered, store, tmp_path):
    delivered()
    rot(in_store(store, "b/c.bin"))
    [found] = scrub(store, now(store), Heard())
    assert (found.uri, found.paths) == (str(tmp_path / "origin-one"), ("b/c.bin",))
    assert store.keys() == []
    assert [uri for uri, _ in store.damaged()] == [found.uri]
    assert read_tree(delivered(to="again")) == FILES
    assert list(scrub(store, now(store), Heard())) == []


def test_a_damaged_file_of_several_models_is_found_once_and_all_of_them_are_set_aside(delivered, store):
    delivered()
    delivered("two", {"other.bin": FILES["a.bin"], "e.bin": b"more"})
    delivered("three", {"e.bin": b"more"})
    rot(next(path for path in store.blobs.all() if path.read_bytes() == FILES["a.bin"]))
    found = sorted(scrub(store, now(store), Heard()), key=lambda each: each.uri)
    assert [each.paths for each in found] == [("a.bin",), ("other.bin",)]
    assert [model.requested.rpartition("-")[2] for model in store.models()] == ["three"]


def test_it_goes_on_where_it_was_stopped(delivered, store):
    delivered()
    sizes = [path.stat().st_size for path in sorted(store.blobs.all(), key=lambda path: path.name)]
    first, second = Heard(most=sizes[0] + sizes[1]), Heard()
    with pytest.raises(Interrupted):
        list(scrub(store, now(store), first))
    assert due_in_s(store, WEEK_S, 0.0) == 0.0
    assert list(scrub(Store(store.settings), 2e9, second)) == []
    assert [first.size_bytes, second.size_bytes] == [sizes[0] + sizes[1], sizes[2]]


def test_a_pass_is_due_a_week_after_the_one_before_has_begun(delivered, store):
    delivered()
    begun_s = now(store)
    made_s = begun_s - WEEK_S
    assert due_in_s(store, WEEK_S, made_s) == pytest.approx(WEEK_S)
    list(scrub(store, begun_s, Heard()))
    assert read_pass(store).whole_s == begun_s
    assert due_in_s(store, WEEK_S, begun_s + 1) == pytest.approx(WEEK_S - 1)
    heard = Heard()
    list(scrub(store, begun_s + WEEK_S, heard))
    assert heard.size_bytes == sum(map(len, FILES.values()))


def test_a_record_that_cannot_be_read_is_no_reason_to_hash_less(delivered, store):
    delivered()
    list(scrub(store, now(store), Heard()))
    for text in ("", "{", "[]", '{"begun_s": "x"}', "null"):
        (store.root / "scrub").write_text(text)
        heard = Heard()
        list(scrub(store, now(store), heard))
        assert heard.size_bytes == sum(map(len, FILES.values()))


def test_a_file_that_somebody_put_in_the_place_of_another_is_found(delivered, store):
    delivered()
    place = in_store(store, "d.bin")
    place.unlink()
    place.write_bytes(FILES["d.bin"])
    assert list(scrub(store, now(store), Heard())) == []
    rot(place)
    [found] = scrub(store, now(store), Heard())
    assert found.paths == ("d.bin",)


def test_a_missing_file_is_found(delivered, store):
    delivered()
    in_store(store, "b/c.bin").unlink()
    [found] = scrub(store, now(store), Heard())
    assert found.paths == ("b/c.bin",)


def test_a_file_that_the_disk_cannot_read_is_damaged(delivered, store, monkeypatch):
    delivered()
    hashed = itertools.count()

    def failing(path: Path, hear) -> str:
        if next(hashed) == 0:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return path.name.partition("-")[0]

    monkeypatch.setattr(scrubs, "sha256_of", failing)
    assert len(list(scrub(store, now(store), Heard()))) == 1


def test_what_no_model_needs_is_removed_without_a_word(delivered, store):
    delivered()
    place = in_store(store, "a.bin")
    blob = next(path for path in store.blobs.all() if path.samefile(place))
    [key] = store.keys()
    store.blobs.folder.joinpath("zz").mkdir()
    stray = store.blobs.folder / "zz" / f"{'f' * 64}-00000000"
    stray.write_bytes(b"not what its name says")
    assert list(scrub(store, now(store), Heard())) == []
    assert blob.exists()
    assert not stray.exists()
    assert store.has(key)


# ---- in an agent -------------------------------------------------------------------------------


class Place:
    """A scrubber of an agent, and what it tells."""

    def __init__(self, settings: StoreSettings, clock) -> None:
        self.metrics, self.events, self.hurried = Metrics(), [], 0
        self.settings, self.clock, self.unix_s = settings, clock, 0.0
        self.scrubber = Scrubber(
            lambda: self.settings, self.metrics, self.events.append, self._hurry, clock, lambda: self.unix_s
        )

    def _hurry(self) -> None:
        self.hurried += 1

    def metric(self, name: str) -> float:
        lines = [line.split() for line in self.metrics.text().splitlines()]
        return sum(float(value) for key, *_, value in lines if key == name)


@pytest.fixture
def place(settings, clock) -> Place:
    return Place(settings, clock)


def test_an_agent_tells_of_rot_and_reads_no_faster_than_it_may(delivered, store, place, tmp_path):
    delivered()
    rot(in_store(store, "a.bin"))
    place.settings = place.settings._replace(scrub_bytes_s=1000)
    place.unix_s = now(store)
    place.scrubber.look()
    assert place.events == [SetAside(str(tmp_path / "origin-one"), "a.bin", 1)]
    assert place.hurried == place.metric("lading_store_damaged_total") == 1
    assert place.metric("lading_store_scrubbed_bytes_total") == 60_000
    assert place.metric("lading_store_scrubbed_timestamp_seconds") == place.unix_s
    assert place.clock.seconds == pytest.approx(60)


@pytest.mark.parametrize("lacks", [{"scrub_s": 0.0}, {"path": ""}])
def test_it_is_left_out_where_nobody_wants_it(delivered, store, place, lacks):
    delivered()
    place.unix_s = now(store)
    place.settings = place.settings._replace(**lacks)
    place.scrubber.look()
    assert place.metrics.text().strip() == ""
    assert not (store.root / "scrub").exists()


def test_a_store_that_fails_is_told_and_ends_nothing(place, tmp_path):
    (tmp_path / "store").write_text("no folder")
    place.scrubber.look()
    [event] = place.events
    assert isinstance(event, Failed)
    assert event.why.startswith("the scrub of the store: ")


def test_its_thread_ends_with_the_agent_in_the_middle_of_a_pass(delivered, store, settings):
    delivered()
    reading = threading.Event()

    class Clock:
        """Each wait lasts until it is stopped, but for the first one."""

        def now(self) -> float:
            return 0.0

        def wait(self, stop: threading.Event, seconds: float) -> bool:
            if seconds:
                reading.set()
                return stop.wait(60)
            return stop.is_set()

    place = Place(settings._replace(scrub_bytes_s=1), Clock())
    place.unix_s = now(store)
    with place.scrubber.running():
        assert reading.wait(30)
        [thread] = [each for each in threading.enumerate() if each.name == "lading-scrub"]
    thread.join(30)
    assert not thread.is_alive()
    assert not read_pass(store).is_over


def test_a_thread_that_becomes_idle_lets_all_others_go_first():
    niceness = []

    def run() -> None:
        become_idle()
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    thread = threading.Thread(target=run, name="idle")
    thread.start()
    thread.join()
    assert niceness == [19]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < 19 or os.nice(0) == 19
