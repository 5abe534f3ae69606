"""The story, told with a source in memory: whole or not at all, whatever happens on the way."""

import hashlib
import os

import pytest

from fakes.destination import OLD_MODEL, Destination
from fakes.fake_source import FakeSource
from fakes.trees import content, read_tree, whole_manifest, write_tree
from lading.deliver import deliver
from lading.delivery.request import Request
from lading.errors import IntegrityError, LadingError, NotAllowed, NotFound, Unavailable, Unsupported
from lading.events import FileFailed
from lading.model.digest import Digest
from lading.settings.families import SCHEMES
from lading.settings.limits import Limits
from lading.settings.store import StoreSettings

BIG = content(600_000)
MODEL = {"config.json": b"{}", "weights/big.bin": BIG, "weights/empty": b""}
RANGE_BYTES = 256 * 1024


@pytest.fixture
def origin(monkeypatch) -> dict[str, bytes]:
    """The files of fake:///model, which a test may change."""
    files = dict(MODEL)
    monkeypatch.setitem(SCHEMES, "fake", "fakes.fake_source:FakeSource")
    monkeypatch.setattr(FakeSource, "models", {"model": files})
    monkeypatch.setattr(FakeSource, "declared", {})
    monkeypatch.setattr(FakeSource, "reads", [])
    return files


@pytest.fixture
def destination(tmp_path, pull) -> Destination:
    pull(str(write_tree(tmp_path / "old", OLD_MODEL)), tmp_path / "model")
    return Destination(tmp_path / "model")


def on_read(monkeypatch, call) -> None:
    monkeypatch.setattr(FakeSource, "on_read", staticmethod(call))


def test_a_model_is_delivered_whole(origin, pull, tmp_path):
    pull("fake:///model", tmp_path / "model", range_bytes=RANGE_BYTES)
    assert read_tree(tmp_path / "model") == MODEL
    whole_manifest(tmp_path / "model")
    assert sorted(end - start for path, start, end in FakeSource.reads if path == "weights/big.bin") == [
        len(BIG) - 2 * RANGE_BYTES,
        RANGE_BYTES,
        RANGE_BYTES,
    ]


def test_only_what_is_chosen_is_read(origin, pull, tmp_path):
    pull("fake:///model", tmp_path / "model", allow=("*.json",))
    assert read_tree(tmp_path / "model") == {"config.json": b"{}"}
    assert {path for path, _, _ in FakeSource.reads} == {"config.json"}


def test_what_is_there_already_is_not_read_again(origin, pull, tmp_path):
    pull("fake:///model", tmp_path / "model")
    FakeSource.reads.clear()
    pull("fake:///model", tmp_path / "model")
    assert FakeSource.reads == []
    origin["config.json"] = b"{1}"
    pull("fake:///model", tmp_path / "model")
    assert [path for path, _, _ in FakeSource.reads] == ["config.json"]
    assert read_tree(tmp_path / "model") == MODEL | {"config.json": b"{1}"}


def test_a_model_that_is_not_there_leaves_the_destination_untouched(origin, pull, destination):
    origin.clear()
    with pytest.raises(NotFound):
        pull("fake:///model", destination.path)
    destination.assert_untouched()


def test_a_file_that_is_not_what_was_declared_is_refused(origin, pull, destination):
    FakeSource.declared["config.json"] = (Digest("sha256", hashlib.sha256(b"other").hexdigest()),)
    with pytest.raises(IntegrityError):
        pull("fake:///model", destination.path)
    destination.assert_untouched()


@pytest.mark.parametrize("path", ["../out", ".lading/x", "weights"])
def test_a_name_that_cannot_be_delivered_is_refused(origin, pull, destination, path):
    origin[path] = b"stray"
    with pytest.raises(IntegrityError):
        pull("fake:///model", destination.path)
    destination.assert_untouched()


def test_an_origin_that_is_busy_is_waited_for(origin, pull, tmp_path, monkeypatch, clock):
    answers = iter([Unavailable("busy", retry_after_s=7.0), Unavailable("busy", retry_after_s=7.0)])

    def busy(path):
        for error in answers:
            raise error

    on_read(monkeypatch, busy)
    pull("fake:///model", tmp_path / "model", range_bytes=RANGE_BYTES)
    assert read_tree(tmp_path / "model") == MODEL
    assert sum(clock.waits) >= 7.0


def test_an_origin_that_stays_away_leaves_what_landed_for_the_next_run(origin, pull, destination, monkeypatch):
    def away(path):
        if path == "weights/big.bin":
            raise Unavailable("away")

    on_read(monkeypatch, away)
    with pytest.raises(Unavailable):
        pull("fake:///model", destination.path)
    destination.assert_untouched()
    monkeypatch.setattr(FakeSource, "on_read", None)
    pull("fake:///model", destination.path)
    destination.assert_holds(MODEL)
    assert [path for path, _, _ in FakeSource.reads].count("config.json") == 1


def test_a_model_that_changes_while_it_is_read_is_listed_again(origin, pull, tmp_path, monkeypatch):
    def change(path):
        if path == "weights/big.bin":
            origin["weights/big.bin"] = BIG[::-1]

    on_read(monkeypatch, change)
    pull("fake:///model", tmp_path / "model", range_bytes=RANGE_BYTES)
    assert read_tree(tmp_path / "model") == MODEL | {"weights/big.bin": BIG[::-1]}


# ---- files that are wrong --------------------------------------------------------------------

SHARDS = {f"model-{number:02}.bin": b"%d" % number for number in range(30)}
WRONG = ("model-03.bin", "model-11.bin", "model-29.bin")


@pytest.fixture
def shards(origin) -> dict[str, bytes]:
    """fake:///model as thirty shards and what describes them."""
    origin.clear()
    origin.update({"config.json": b"{}", **SHARDS})
    return origin


def damage(*paths: str) -> None:
    """Let the origin declare what these files have not."""
    FakeSource.declared |= dict.fromkeys(paths, (Digest("sha256", hashlib.sha256(b"other").hexdigest()),))


def failing(monkeypatch, errors: dict[str, LadingError]) -> None:
    def fail(path: str) -> None:
        if path in errors:
            raise errors[path]

    on_read(monkeypatch, fail)


@pytest.mark.parametrize("limits", [Limits(workers=1), Limits(workers=4)], ids=["one worker", "four"])
def test_one_run_names_all_files_that_are_wrong_and_brings_the_others(shards, pull, destination, events, limits):
    damage(*WRONG)
    with pytest.raises(IntegrityError) as caught:
        pull("fake:///model", destination.path, limits=limits)
    named = "damaged model-03.bin; damaged model-11.bin; damaged model-29.bin (model-03.bin has sha256:"
    assert caught.value.message.startswith(named)
    assert "damaged or was replaced" in caught.value.hint or "--verify=off" in caught.value.hint
    assert {event.path for event in events if isinstance(event, FileFailed)} == set(WRONG)
    destination.assert_untouched()
    FakeSource.declared.clear()
    FakeSource.reads.clear()
    pull("fake:///model", destination.path, limits=limits)
    destination.assert_holds(shards)
    assert {path for path, _, _ in FakeSource.reads} == set(WRONG)


def test_what_is_wrong_with_each_file_is_said_and_the_worst_is_the_code(shards, pull, destination, monkeypatch):
    damage("model-11.bin")
    failing(monkeypatch, {"model-03.bin": NotFound("no such key"), "model-20.bin": NotAllowed("forbidden")})
    with pytest.raises(IntegrityError) as caught:
        pull("fake:///model", destination.path)
    named = "damaged model-11.bin; missing model-03.bin; not allowed model-20.bin (model-11.bin has "
    assert caught.value.message.startswith(named)
    destination.assert_untouched()


def test_a_file_of_several_ranges_fails_once(shards, pull, destination, monkeypatch, events):
    shards["big.bin"] = BIG
    failing(monkeypatch, {"big.bin": NotFound("no such key")})
    with pytest.raises(NotFound, match=r"^no such key$"):
        pull("fake:///model", destination.path, range_bytes=RANGE_BYTES)
    assert [event.path for event in events if isinstance(event, FileFailed)] == ["big.bin"]
    destination.assert_untouched()


@pytest.mark.parametrize(("known", "failures"), [(True, 10), (False, 3)])
def test_a_model_that_is_wrong_as_a_whole_is_not_read_to_its_end(shards, pull, destination, known, failures):
    damage(*SHARDS, *(() if known else ["config.json"]))
    with pytest.raises(IntegrityError) as caught:
        pull("fake:///model", destination.path, limits=Limits(workers=1))
    assert caught.value.message.count("damaged model-") + caught.value.message.count("damaged config") == failures
    # Each is read twice: the wire may have damaged it.
    assert len(FakeSource.reads) == 2 * failures + known
    destination.assert_untouched()


@pytest.mark.parametrize(
    ("error", "reads"), [(Unavailable("away"), 5), (NotAllowed("expired"), 6), (Unsupported("no"), 5)], ids=str
)
def test_an_error_of_the_whole_origin_ends_the_transfer(shards, pull, destination, monkeypatch, error, reads):
    asked: list[str] = []

    def fail(path: str) -> None:
        asked.append(path)
        if len(asked) >= 5:
            raise error

    on_read(monkeypatch, fail)
    retry_once = Limits(workers=1, attempts=1)
    with pytest.raises(type(error), match=str(error)):
        pull("fake:///model", destination.path, limits=retry_once)
    assert len(asked) == reads
    destination.assert_untouched()


def test_of_several_models_a_wrong_file_is_named_with_its_model(origin, new_session, tmp_path):
    FakeSource.models["second"] = {"config.json": b"{}", "a": b"a"}
    damage("a", "weights/big.bin")
    requests = [Request(f"fake:///{name}", tmp_path / name) for name in ("model", "second")]
    with pytest.raises(IntegrityError, match=r"^damaged fake:///model: weights/big\.bin; damaged fake:///second: a "):
        deliver(requests, new_session())
    assert {name for path in ("model", "second") for name in os.listdir(tmp_path / path)} == {".lading"}


# ---- several models --------------------------------------------------------------------------


def test_of_several_models_all_come_or_none(origin, new_session, tmp_path):
    FakeSource.models["second"] = {"a": b"a"}
    requests = [Request(f"fake:///{name}", tmp_path / name) for name in ("model", "second")]
    deliver([*requests], new_session())
    assert read_tree(tmp_path / "second") == {"a": b"a"}
    third = Request("fake:///third", tmp_path / "third")
    FakeSource.models["fourth"] = {"b": b"b"}
    with pytest.raises(NotFound):
        deliver([Request("fake:///fourth", tmp_path / "fourth"), third], new_session())
    assert not (tmp_path / "third").exists()
    assert not (tmp_path / "fourth").exists()


def test_a_store_is_filled_once_for_all_destinations(origin, pull, tmp_path):
    store = StoreSettings(path=str(tmp_path / "store"))
    for name in ("one", "two"):
        pull("fake:///model", tmp_path / name, store=store)
        assert read_tree(tmp_path / name) == MODEL
    assert [path for path, _, _ in FakeSource.reads].count("config.json") == 1
