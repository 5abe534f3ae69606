"""What a destination already holds: decided by place and validator, or by a strong digest."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

import lading
from command_line import write_model
from fakes.faulty_http import MODIFIED, Answer
from fakes.real_s3 import s3_anonymous
from fakes.trees import read_tree, whole_manifest
from lading import events as told
from lading.destination.audit import audit
from lading.errors import DeadlineExceeded
from lading.model.checks import VerifyMode
from lading.model.compare import is_delivered, unchanged
from lading.model.digest import Digest
from lading.model.listing import Layer, ListedFile, Listing
from lading.model.manifest import File, Manifest
from lading.settings.limits import Limits
from lading.settings.store import StoreSettings

SHA = Digest("sha256", "a" * 64)
OTHER_SHA = Digest("sha256", "b" * 64)
MD5 = Digest("md5", "a" * 32)


def manifest(*files: File, resolved: str = "s3://b/m", **notes: object) -> Manifest:
    return Manifest.of(files)._replace(resolved=resolved, origin=resolved, **notes)


def listing(*files: ListedFile, resolved: str = "s3://b/m", **notes: object) -> Listing:
    return Listing.of(files)._replace(resolved=resolved, origin=resolved, **notes)


def on_disk(size: int | None = 10):
    return lambda file: file.size_bytes == size


OLD = File("f", 10, Digest("crc32", "0" * 8), "v1", verified=(MD5,))
OLD_STRONG = OLD._replace(verified=(SHA,))
NEW = ListedFile("f", 10, "v1")


@pytest.mark.parametrize(
    ("new", "old", "same_place", "expected", "verify", "size", "kept"),
    [
        (NEW, OLD, True, (), "auto", 10, True),
        (NEW, OLD, True, (), "auto", 9, False),
        (NEW, OLD, True, (), "auto", None, False),
        (NEW._replace(validator="v2"), OLD, True, (), "auto", 10, False),
        (NEW._replace(validator=None), OLD._replace(validator=None), True, (), "auto", 10, False),
        (NEW._replace(size_bytes=11), OLD, True, (), "auto", 10, False),
        (NEW._replace(size_bytes=None), OLD, True, (), "auto", 10, False),
        # From elsewhere the validator says nothing; a strong digest does.
        (NEW, OLD, False, (), "auto", 10, False),
        (NEW._replace(declared=(SHA,)), OLD_STRONG, False, (), "auto", 10, True),
        (NEW._replace(declared=(MD5,)), OLD, False, (), "auto", 10, False),
        (NEW._replace(declared=(OTHER_SHA,)), OLD_STRONG, False, (), "auto", 10, False),
        # What must hold now must have been checked then.
        (NEW, OLD, True, (SHA,), "auto", 10, False),
        (NEW, OLD_STRONG, True, (SHA,), "auto", 10, True),
        (NEW, OLD_STRONG, True, (OTHER_SHA,), "auto", 10, False),
        (NEW._replace(validator="v2"), OLD_STRONG, False, (SHA,), "auto", 10, True),
        (NEW, OLD, True, (), "strict", 10, True),
        (NEW, OLD._replace(verified=()), True, (), "strict", 10, False),
        (NEW, OLD._replace(verified=()), True, (), "auto", 10, True),
    ],
)
def test_a_file_is_kept_only_if_it_is_surely_the_listed_one(
    new: ListedFile,
    old: File,
    same_place: bool,
    expected: tuple[Digest, ...],
    verify: VerifyMode,
    size: int | None,
    kept: bool,
) -> None:
    before = manifest(old, resolved="s3://b/m" if same_place else "s3://b/elsewhere")
    found = unchanged(listing(new), before, {"f": expected}, verify, on_disk(size))
    assert (found.keys() == {"f"}) is kept
    if kept:
        assert found["f"].digest == old.digest
        assert found["f"].verified == old.verified
        assert found["f"].validator == new.validator


def test_only_the_files_that_are_listed_now_are_kept() -> None:
    before = manifest(OLD, File("gone", 10, OLD.digest, "v1"))
    assert unchanged(listing(NEW, ListedFile("new", 10, "v1")), before, {}, "auto", lambda _: True).keys() == {"f"}


ARCHIVE = ListedFile("m.tar", 100, "v1", layer=Layer())
SECOND = ARCHIVE._replace(path="n.tar", layer=Layer(1))
FETCHED = File("m.tar", 100, OLD.digest, "v1", verified=(MD5,))
UNPACKED = OLD._replace(validator=None)


@pytest.mark.parametrize(
    ("listed", "old", "delivered"),
    [
        (listing(NEW), manifest(OLD), True),
        (listing(NEW), manifest(OLD, File("g", 10, OLD.digest, "v")), False),
        (listing(NEW, ListedFile("g", 10, "v")), manifest(OLD), False),
        (listing(NEW), manifest(OLD, resolved="s3://b/elsewhere"), False),
        (listing(NEW, version="2"), manifest(OLD, version="1"), False),
        (listing(NEW, registry="r"), manifest(OLD), False),
        (listing(NEW, metadata={"a": 1}), manifest(OLD), True),
        # An archive, and the tree that came of it.
        (listing(ARCHIVE), manifest(UNPACKED, archives=(FETCHED,)), True),
        (listing(ARCHIVE._replace(validator="v2")), manifest(UNPACKED, archives=(FETCHED,)), False),
        (listing(ARCHIVE._replace(path="n.tar")), manifest(UNPACKED, archives=(FETCHED,)), False),
        (listing(ARCHIVE, ListedFile("more", 1, "v")), manifest(UNPACKED, archives=(FETCHED,)), False),
        (listing(NEW), manifest(UNPACKED, archives=(FETCHED,)), False),
        # Layers, and files beside them.
        (listing(ARCHIVE, NEW), manifest(UNPACKED._replace(path="t"), OLD, archives=(FETCHED,)), True),
        (listing(ARCHIVE, NEW), manifest(UNPACKED, archives=(FETCHED,)), False),
        (listing(ARCHIVE), manifest(UNPACKED._replace(path="t"), OLD, archives=(FETCHED,)), False),
        (listing(ARCHIVE, SECOND), manifest(UNPACKED, archives=(FETCHED,)), False),
        (listing(ARCHIVE, SECOND), manifest(UNPACKED, archives=(FETCHED, FETCHED._replace(path="n.tar"))), True),
        # Other patterns may choose other files of a layer; of plain files the listing tells.
        (listing(ARCHIVE, patterns=("+*.x",)), manifest(UNPACKED, archives=(FETCHED,)), False),
        (listing(ARCHIVE, patterns=("-b",)), manifest(UNPACKED, archives=(FETCHED,), patterns=("-b",)), True),
        (listing(NEW, patterns=("+f",)), manifest(OLD), True),
    ],
)
def test_a_destination_is_done_only_if_it_holds_exactly_the_listing(
    listed: Listing, old: Manifest, delivered: bool
) -> None:
    assert is_delivered(listed, old, {}, "auto", lambda _: True) is delivered


def test_a_file_that_vanished_from_the_destination_is_not_delivered() -> None:
    assert not is_delivered(listing(NEW), manifest(OLD), {}, "auto", on_disk(None))
    assert not is_delivered(listing(ARCHIVE), manifest(UNPACKED, archives=(FETCHED,)), {}, "auto", on_disk(9))


def test_another_file_behind_the_same_path_is_not_taken_for_the_one_that_is_there(server, tmp_path: Path) -> None:
    # Two files of one size, told apart by the query only; the validator is the same for both.
    def download(request) -> Answer:
        name = request.query.removeprefix("file=")
        return Answer(200, {"Last-Modified": MODIFIED}, name.upper().encode() * 10)

    server.routes["/download"] = download
    for name in "ab":
        lading.pull(f"{server.url}/download?file={name}", tmp_path / "model")
        assert (tmp_path / "model/download").read_bytes() == name.upper().encode() * 10


# ---- files that were changed in the destination ------------------------------------------------

MODEL = {"a.bin": b"aaaa", "b.bin": b"bbbb", "d/c.bin": b"cccc"}


@pytest.fixture
def again(bucket, pull, tmp_path, events):
    """Deliver the model to a folder; returns the bytes that were fetched and the events that matter here."""
    for path, data in MODEL.items():
        bucket.put(f"m/{path}", data)

    def deliver(folder: Path = tmp_path / "model", **settings):
        bucket.server.asked_bytes = 0
        events.clear()
        pull("s3://models/m", folder, **{**s3_anonymous(bucket.server.url), **settings})
        return bucket.server.asked_bytes, [e for e in events if isinstance(e, told.Rehashing | told.Modified)]

    deliver()
    return deliver


def change(place: Path) -> None:
    """Write other bytes of the same number, some time after the delivery."""
    place.chmod(0o644)
    place.write_bytes(place.read_bytes().upper())
    os.utime(place)


def test_what_nobody_touched_is_not_hashed_again(again) -> None:
    assert again() == (0, [])


@pytest.mark.parametrize("foreign", [False, True])
def test_a_file_that_was_changed_is_fetched_again_and_no_other(again, tmp_path: Path, foreign: bool) -> None:
    model = tmp_path / "model"
    change(model / "a.bin")
    if foreign:
        (model / "mine").touch()
    fetched, heard = again()
    assert fetched == 4
    assert heard == [told.Rehashing(str(model)), told.Modified(str(model), 1, "a.bin")]
    assert audit(model).changed == ()
    assert again() == (0, [])


def test_a_changed_file_is_found_when_another_is_missing(again, tmp_path: Path) -> None:
    change(tmp_path / "model/a.bin")
    (tmp_path / "model/b.bin").unlink()
    assert again()[0] == 8
    assert read_tree(tmp_path / "model") == MODEL
    whole_manifest(tmp_path / "model")


def test_an_older_file_in_the_place_of_one_is_found(again, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"AAAA")
    os.utime(other, (1e9, 1e9))
    other.rename(tmp_path / "model/a.bin")
    assert again()[0] == 4
    assert read_tree(tmp_path / "model") == MODEL


@pytest.mark.parametrize("seconds", [0, 1])
def test_what_was_touched_or_copied_is_hashed_once_and_not_fetched(again, tmp_path: Path, seconds: int) -> None:
    shutil.copytree(tmp_path / "model", tmp_path / "copy", copy_function=shutil.copy)
    os.utime(tmp_path / "copy/a.bin", (seconds, seconds))
    assert again(tmp_path / "copy") == (0, [told.Rehashing(str(tmp_path / "copy"))])
    assert again(tmp_path / "copy") == (0, [])
    whole_manifest(tmp_path / "copy")


def test_a_copy_that_keeps_times_is_not_hashed(again, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    assert again(tmp_path / "copy") == (0, [])


def test_a_manifest_of_an_older_lading_is_not_believed_before_its_files_are_hashed(again, tmp_path: Path) -> None:
    place = tmp_path / "model/.lading.manifest"
    manifest = json.loads(place.read_text())
    for file in manifest["files"]:
        del file["mtime_ns"]
    place.write_text(json.dumps(manifest))
    assert again() == (0, [told.Rehashing(str(tmp_path / "model"))])
    assert again() == (0, [])


def test_hashing_ends_with_the_time_that_is_allowed(again, clock, tmp_path: Path) -> None:
    os.utime(tmp_path / "model/a.bin")

    def listener(event: told.Event) -> None:
        if isinstance(event, told.Rehashing):
            clock.seconds += 100

    with pytest.raises(DeadlineExceeded, match="hashing"):
        again(listener=listener, limits=Limits(deadline_s=50))


@pytest.mark.parametrize("locks", [True, False])
def test_a_changed_file_comes_again_out_of_the_store(again, tmp_path: Path, locks: bool) -> None:
    store = StoreSettings(path=str(tmp_path / "store"), locks=locks)
    model = tmp_path / "by-store"
    again(model, store=store)
    assert again(model, store=store) == (0, [])
    os.utime(model / "b.bin")
    assert again(model, store=store) == (0, [told.Rehashing(str(model))])
    assert again(model, store=store) == (0, [])
    change(model / "a.bin")
    assert again(model, store=store)[0] == 0
    assert read_tree(model) == MODEL
    assert again(model, store=store) == (0, [])


def test_of_an_archive_whose_file_was_changed_all_is_fetched_again(server, pull, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "m.tar", "w") as tar:
        tar.add(write_model(tmp_path / "files", **MODEL), ".")
    uri = server.put("/m.tar", (tmp_path / "m.tar").read_bytes())
    for _ in range(2):
        pull(uri, tmp_path / "model")
    assert server.asked_bytes == (tmp_path / "m.tar").stat().st_size
    change(tmp_path / "model/a.bin")
    pull(uri, tmp_path / "model")
    assert read_tree(tmp_path / "model") == MODEL
