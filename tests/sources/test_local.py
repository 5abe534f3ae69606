"""A folder on this machine: what is in it, what is not a file, and what changes while it is read."""

import errno
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import lading
from lading.errors import LadingError, NotAllowed, NotFound, OriginChanged, Unavailable, Unsupported, UsageError
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.paths import FILE_NAME
from lading.model.uri import ModelURI
from lading.settings.settings import Settings
from lading.sources.local import LocalSource

HTTP = None  # a local source never asks it


def source(place: object) -> LocalSource:
    return LocalSource(ModelURI.parse(str(place)), Settings(), HTTP)


class Collected:
    """A sink that does something at its first piece."""

    def __init__(self, happening: Callable[[], object] = lambda: None) -> None:
        self.happening = happening
        self.data = bytearray()

    def on_digests(self, declared: Sequence[Digest]) -> None:
        raise AssertionError("a local source declares nothing")

    def write(self, piece: memoryview) -> None:
        if not self.data:
            self.happening()
        self.data += piece


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    (root / "d").mkdir(parents=True)
    (root / "a").write_bytes(b"a" * 1_000_000)
    (root / "d" / "b").write_bytes(b"b")
    (root / "empty").touch()
    (root / "no files").mkdir()
    return root


def paths(listed: Listing) -> list[str]:
    return [file.path for file in listed.files]


def test_a_folder_lists_its_files_with_sizes(model: Path) -> None:
    listed = source(model).list()
    assert [(file.path, file.size_bytes) for file in listed.files] == [("a", 1_000_000), ("d/b", 1), ("empty", 0)]
    assert all(file.validator for file in listed.files)


@pytest.mark.parametrize("form", ["{}", "file://{}", "file:{}", "file://localhost{}", "{}/"])
def test_a_path_and_a_file_uri_are_the_same(model: Path, form: str) -> None:
    assert paths(source(form.format(model)).list()) == ["a", "d/b", "empty"]


def test_a_file_uri_is_percent_decoded_and_a_path_is_not(tmp_path: Path) -> None:
    (tmp_path / "a b").write_text("decoded")
    (tmp_path / "a%20b").write_text("as it is")
    assert source(f"file://{tmp_path}/a%20b").list().files[0].path == "a b"
    assert source(tmp_path / "a%20b").list().files[0].path == "a%20b"


def test_a_single_file_lands_under_its_name(model: Path) -> None:
    assert paths(source(model / "a").list()) == ["a"]


def test_a_file_uri_with_a_host_is_refused() -> None:
    with pytest.raises(UsageError, match="names the host"):
        source("file://elsewhere/model")


def test_what_is_not_there_is_told_with_what_is_near(model: Path) -> None:
    with pytest.raises(NotFound) as caught:
        source(model.parent / "modle").list()
    assert caught.value.hint == "did you mean model?"
    with pytest.raises(NotFound):
        source("/nowhere/at/all").list()


def test_an_empty_folder_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is an empty folder"):
        source(tmp_path).list()


def test_links_are_followed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_text("x")
    (model / "link to a folder").symlink_to(tmp_path / "elsewhere")
    (model / "link to a file").symlink_to("a")
    assert paths(source(model).list()) == ["a", "d/b", "empty", "link to a file", "link to a folder/x"]
    lading.pull(str(model), tmp_path / "dest", settings=Settings())
    assert not (tmp_path / "dest" / "link to a file").is_symlink()
    assert (tmp_path / "dest" / "link to a folder/x").read_text() == "x"


@pytest.mark.parametrize("target", ["nowhere", "loop"])
def test_a_link_that_leads_nowhere_is_named_and_nothing_is_delivered(model: Path, tmp_path: Path, target: str) -> None:
    (model / "d" / "loop").symlink_to(target)
    with pytest.raises(LadingError, match="d/loop") as caught:
        lading.pull(str(model), tmp_path / "dest", settings=Settings())
    assert caught.value.code in ("not-found", "unsupported")
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize("target", [".", "..", "../d", "../../model"])
def test_a_link_to_a_folder_that_holds_it_is_refused(model: Path, target: str) -> None:
    (model / "d" / "loop").symlink_to(target)
    with pytest.raises(Unsupported, match="links to a folder that holds it"):
        source(model).list().refuse_faults()


def test_two_links_to_one_folder_beside_each_other_are_fine(model: Path) -> None:
    (model / "one").symlink_to("d")
    (model / "two").symlink_to("d")
    assert paths(source(model).list()) == ["a", "d/b", "empty", "one/b", "two/b"]


@pytest.mark.timeout(20)
def test_pipes_and_sockets_are_refused_and_not_opened(model: Path) -> None:
    os.mkfifo(model / "pipe")
    with pytest.raises(Unsupported, match="pipe is neither a file nor a folder"):
        source(model).list().refuse_faults()
    with pytest.raises(Unsupported):
        source(model / "pipe").list()
    (model / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(model / "socket"))
        with pytest.raises(Unsupported, match="socket"):
            source(model).list().refuse_faults()
    with pytest.raises(Unsupported):
        source("/dev/null").list()


def test_a_name_that_is_not_unicode_is_refused(model: Path) -> None:
    with open(os.fsencode(model) + b"/\xff", "wb"):
        pass
    with pytest.raises(LadingError, match="not valid Unicode") as caught:
        source(model).list().refuse_faults()
    assert caught.value.code == "integrity"


def test_a_folder_that_cannot_be_read_is_in_the_way_of_who_may_want_something_in_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "lost+found").mkdir()
    scandir = os.scandir

    def refusing(folder: object) -> object:
        if folder == model / "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    # Root may read everything.
    monkeypatch.setattr("lading.sources.local.os.scandir", refusing)
    for patterns in ({}, {"allow": ("*.json",)}, {"allow": ("a", "lost*")}, {"ignore": ("d/",)}):
        with pytest.raises(NotAllowed, match="lost\\+found") as caught:
            lading.pull(str(model), tmp_path / "dest", settings=Settings(**patterns))
        assert caught.value.hint.endswith("--ignore lost+found/ delivers the rest")
    for patterns in ({"ignore": ("lost+found/",)}, {"allow": ("a", "d/", "empty")}):
        lading.pull(str(model), tmp_path / "dest", settings=Settings(**patterns))
        assert sorted(os.listdir(tmp_path / "dest")) == [FILE_NAME, "a", "d", "empty"]


def test_a_delivery_can_itself_be_delivered_without_its_notes(model: Path, tmp_path: Path) -> None:
    lading.pull(str(model), tmp_path / "one", settings=Settings())
    (tmp_path / "one" / ".lading").mkdir()
    lading.pull(str(tmp_path / "one"), tmp_path / "two", settings=Settings())
    assert sorted(os.listdir(tmp_path / "two")) == [FILE_NAME, "a", "d", "empty"]


@pytest.mark.parametrize(("start", "end"), [(0, 1_000_000), (0, 1), (999_999, 1_000_000), (300_000, 700_001), (5, 5)])
def test_a_range_is_exactly_its_bytes(model: Path, start: int, end: int) -> None:
    content = os.urandom(1_000_000)
    (model / "a").write_bytes(content)
    here = source(model)
    sink = Collected()
    here.read(here.list().by_path()["a"], ByteRange(start, end), sink)
    assert sink.data == content[start:end]


@pytest.mark.parametrize(
    "change",
    [
        lambda place: place.write_bytes(b"b" * 1_000_000),
        lambda place: place.write_bytes(b"b" * 500_000),
        lambda place: os.truncate(place, 500_000),
        lambda place: place.write_bytes(place.read_bytes() + b"x"),
        lambda place: (place.with_name("new").write_bytes(b"n" * 1_000_000), place.with_name("new").rename(place)),
    ],
)
def test_a_file_that_changes_between_listing_and_reading_is_noticed(
    model: Path, change: Callable[[Path], object]
) -> None:
    here = source(model)
    file = here.list().by_path()["a"]
    change(model / "a")
    with pytest.raises(OriginChanged):
        here.read(file, ByteRange(0, 1_000_000), Collected())


def test_a_file_that_changes_while_it_is_read_is_noticed(model: Path) -> None:
    here = source(model)
    file = here.list().by_path()["a"]

    def change() -> None:
        with open(model / "a", "r+b") as writer:
            writer.seek(900_000)
            writer.write(b"changed")

    with pytest.raises(OriginChanged, match="changed while it was read"):
        here.read(file, ByteRange(0, 1_000_000), Collected(change))


def test_a_file_that_vanishes_is_noticed(model: Path) -> None:
    here = source(model)
    file = here.list().by_path()["a"]
    (model / "a").unlink()
    with pytest.raises(OriginChanged, match="vanished"):
        here.read(file, ByteRange(0, 1), Collected())


def test_a_file_that_becomes_a_folder_is_noticed(model: Path) -> None:
    here = source(model)
    file = here.list().by_path()["a"]
    (model / "a").unlink()
    (model / "a").mkdir()
    with pytest.raises(LadingError):
        here.read(file, ByteRange(0, 1), Collected())


def test_a_listing_that_promises_more_than_there_is_is_not_believed(model: Path) -> None:
    here = source(model)
    file: ListedFile = here.list().by_path()["a"]
    with pytest.raises(Unavailable, match="ends after 1000000 of 1000005"):
        here.read(file, ByteRange(0, 1_000_005), Collected())


@pytest.mark.parametrize("destination", ["", "below", "d", "../model", ".."])
def test_a_destination_within_the_source_or_around_it_is_refused(model: Path, destination: str) -> None:
    before = sorted(os.listdir(model))
    with pytest.raises(UsageError, match="one lies within the other"):
        lading.pull(str(model), model / destination, settings=Settings())
    assert sorted(os.listdir(model)) == before


def test_a_destination_within_the_source_is_seen_through_links(model: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(model)
    with pytest.raises(UsageError, match="one lies within the other"):
        lading.pull(str(model), tmp_path / "alias" / "dest", settings=Settings())
    with pytest.raises(UsageError, match="one lies within the other"):
        lading.pull(str(tmp_path / "alias"), model / "dest", settings=Settings())


def test_a_neighbour_with_a_longer_name_is_not_within(model: Path) -> None:
    lading.pull(str(model), model.parent / "model-v2", settings=Settings())
    assert (model.parent / "model-v2" / "d/b").read_bytes() == b"b"
