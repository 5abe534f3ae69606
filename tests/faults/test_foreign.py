"""What lading did not bring to a destination stays where it is, and a model that is in place is a success."""

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import lading
from fakes.killer import run_and_kill_at
from fakes.trees import read_tree, write_tree
from lading import events as told
from lading.destination.audit import audit
from lading.errors import LadingError, NotAllowed, UsageError
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings
from lading.store.eviction import clean_up
from lading.store.pointers import References
from lading.store.store import Store

NOBODY = 65534
OLD = {"config.json": b"old", "weights/a.bin": b"A", "gone/x": b"x"}
NEW = {"config.json": b"new", "weights/b.bin": b"B"}


@pytest.fixture
def folder():
    """One that every user can reach, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture(scope="module", autouse=True)
def _loaded(tmp_path_factory):
    """Whatever a delivery loads on its way: who is not root may not be able to read this Python's files."""
    folder = tmp_path_factory.mktemp("loaded")
    for name, tree in (("old", OLD), ("new", NEW)):
        lading.pull(str(write_tree(folder / name, tree)), folder / "model", settings=Settings(remove_strays=True))
    with pytest.raises(LadingError):
        lading.pull(str(folder / "nothing"), folder / "model")


def as_nobody(action: Callable[[], object]) -> None:
    """Run ``action`` in a process that is not root."""

    def run() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        action()

    assert run_and_kill_at(1 << 60, run)


def unreadable(place: Path) -> None:
    """A folder of root's, as a volume's lost+found, or of one's own that nobody may look into."""
    write_tree(place, {"precious": b"data"})
    place.chmod(0o700 if os.geteuid() == 0 else 0o000)


def places(folder: Path) -> dict[str, int]:
    """The inode of everything below a folder, as root or with all modes lifted."""
    if os.geteuid():
        for below, names, _ in os.walk(folder):
            for name in names:
                if not os.path.islink(os.path.join(below, name)):
                    os.chmod(os.path.join(below, name), 0o755)
    return {
        os.path.relpath(os.path.join(below, name), folder): os.lstat(os.path.join(below, name)).st_ino
        for below, names, files in os.walk(folder)
        for name in (*names, *files)
    }


FOREIGN: dict[str, Callable[[Path], object]] = {
    "an empty folder": lambda at: (at / "empty").mkdir(),
    "an empty folder in an empty folder": lambda at: (at / "empty/inner").mkdir(parents=True),
    "an empty folder in one of the model": lambda at: (at / "weights/mine").mkdir(parents=True),
    "a folder that cannot be read": lambda at: unreadable(at / "theirs"),
    "one that cannot be read in one of the model": lambda at: unreadable(at / "weights/theirs"),
    "lost+found": lambda at: unreadable(at / "lost+found"),
    "a file": lambda at: write_tree(at, {"notes/readme": b"mine"}),
    "a link to a folder": lambda at: (at / "link").symlink_to("/usr"),
    "a link to nothing": lambda at: (at / "link").symlink_to("nowhere"),
    "a pipe": lambda at: os.mkfifo(at / "pipe"),
}


@pytest.mark.parametrize("update", [False, True], ids=["a first delivery", "an update"])
@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_lading_did_not_bring_keeps_its_place(folder: Path, make: Callable[[Path], object], update: bool) -> None:
    destination = folder / "model"
    old, new = (write_tree(folder / name, tree) for name, tree in (("old", OLD), ("new", NEW)))
    destination.mkdir(mode=0o777)
    os.chown(destination, NOBODY, NOBODY) if os.geteuid() == 0 else None
    if update:
        as_nobody(lambda: lading.pull(str(old), destination))
    before = places(destination)
    make(destination)
    if (destination / "weights").exists() and os.geteuid() == 0:
        os.chown(destination / "weights", NOBODY, NOBODY)
    theirs = places(destination).items() - before.items()

    def deliver() -> None:
        heard: list[told.Event] = []
        for _ in range(2):
            lading.pull(str(new), destination, listener=heard.append)
        assert not [event for event in heard if isinstance(event, told.NotRemoved)]

    as_nobody(deliver)
    assert theirs <= places(destination).items()
    assert {path: (destination / path).read_bytes() for path in NEW} == NEW
    assert not (destination / "gone").exists()
    assert not (folder / ".model.lading").exists()
    assert not (destination / ".lading").exists()


@pytest.mark.parametrize(("name", "shown"), [("theirs", ["theirs"]), ("lost+found", [])])
def test_a_folder_that_cannot_be_read_is_warned_of_unless_it_is_of_every_volume(
    folder: Path, name: str, shown: list[str]
) -> None:
    source, destination = write_tree(folder / "source", NEW), folder / "model"
    destination.mkdir()
    unreadable(destination / name)
    os.chown(destination, NOBODY, NOBODY) if os.geteuid() == 0 else None

    def deliver() -> None:
        heard: list[told.Event] = []
        lading.pull(str(source), destination, listener=heard.append)
        assert [event.example for event in heard if isinstance(event, told.StraysFound)] == shown
        assert list(audit(destination).extra) == shown
        if shown:
            with pytest.raises(NotAllowed, match=str(destination / name)):
                lading.pull(str(source), destination, settings=Settings(remove_strays=True))
        else:
            lading.pull(str(source), destination, settings=Settings(remove_strays=True))

    as_nobody(deliver)
    assert (destination / name).exists()


STANDING = {
    "an empty folder": (lambda at: (at / "config.json").mkdir(), "config.json"),
    "a folder with an empty one": (lambda at: (at / "config.json/in").mkdir(parents=True), "config.json/in"),
    "a folder with a file": (lambda at: write_tree(at, {"config.json/x": b"mine"}), "config.json/x"),
    "a folder that cannot be read": (lambda at: unreadable(at / "config.json"), "config.json"),
    "a file in the place of a folder": (lambda at: write_tree(at, {"weights": b"mine"}), "weights"),
}


@pytest.mark.parametrize(("make", "named"), STANDING.values(), ids=STANDING.keys())
def test_what_stands_in_the_way_of_the_model_is_named_and_stays(
    folder: Path, make: Callable[[Path], object], named: str
) -> None:
    source, destination = write_tree(folder / "source", NEW), folder / "model"
    destination.mkdir()
    make(destination)
    before = places(destination)
    os.chown(destination, NOBODY, NOBODY) if os.geteuid() == 0 else None

    def deliver() -> None:
        with pytest.raises(UsageError, match=f"{named}.* which lading did not deliver"):
            lading.pull(str(source), destination)

    as_nobody(deliver)
    assert before.items() <= places(destination).items()
    assert not (destination / ".lading.manifest").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_a_folder_of_the_model_that_may_not_be_written_is_named_before_anything_changes(folder: Path) -> None:
    old, new = (write_tree(folder / name, tree) for name, tree in (("old", OLD), ("new", NEW)))
    destination = folder / "model"
    lading.pull(str(old), destination)
    write_tree(destination, {"mine": b""})
    os.chown(destination, NOBODY, NOBODY)
    before = read_tree(destination)

    def deliver() -> None:
        with pytest.raises(NotAllowed, match=f"{destination}/(weights|gone): Permission denied"):
            lading.pull(str(new), destination)

    as_nobody(deliver)
    assert read_tree(destination) == before
    assert (destination / ".lading.manifest").exists()


@pytest.mark.parametrize("way", ["weights", "config.json", "gone"])
def test_a_mount_in_the_place_of_the_model_is_named_before_anything_changes(
    folder: Path, new_disk: Callable[[int], object], way: str
) -> None:
    old, new = (write_tree(folder / name, tree) for name, tree in (("old", OLD), ("new", NEW)))
    destination = folder / "model"
    lading.pull(str(old), destination)
    # Skips where nothing may be mounted.
    new_disk(1 << 20)
    mine = folder / "mine"
    mine.write_bytes(b"mine") if way == "config.json" else write_tree(mine, {"x": b"mine"})
    subprocess.run(["mount", "--bind", mine, destination / way], check=True)
    try:
        before = read_tree(destination)
        with pytest.raises(UsageError, match=f"{destination}/{way}: Invalid cross-device link"):
            lading.pull(str(new), destination)
        assert read_tree(destination) == before
        assert (destination / ".lading.manifest").exists()
    finally:
        subprocess.run(["umount", destination / way], check=True)
    lading.pull(str(new), destination)
    assert read_tree(destination) == NEW


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_a_model_in_place_is_a_success_though_the_one_before_cannot_be_removed(folder: Path) -> None:
    old, new = (write_tree(folder / name, tree) for name, tree in (("old", OLD), ("new", NEW)))
    destination = folder / "model"
    lading.pull(str(old), destination)
    os.chown(destination, NOBODY, NOBODY)
    heard: list[told.Event] = []

    def deliver() -> None:
        for _ in range(2):
            lading.pull(str(new), destination, listener=heard.append)
        left = [event for event in heard if isinstance(event, told.NotRemoved)]
        assert len(left) == 2
        assert all(f"{folder}/.model.lading/" in event.why for event in left)

    as_nobody(deliver)
    assert read_tree(destination) == NEW
    # Who may, removes it.
    lading.pull(str(new), destination)
    assert not (folder / ".model.lading").exists()


@pytest.mark.parametrize("store", [False, True], ids=["alone", "by way of a store"])
@pytest.mark.parametrize("mine", [False, True], ids=["by exchange", "by renames"])
def test_an_empty_folder_of_an_archive_comes_and_goes_with_it(tmp_path: Path, mine: bool, store: bool) -> None:
    settings = Settings(store=StoreSettings(path=str(tmp_path / "store") if store else ""))
    destination = tmp_path / "model"

    def deliver(*empty: str) -> None:
        tree = write_tree(tmp_path / "tree", {"config.json": str(empty).encode()})
        with tarfile.open(tmp_path / "model.tar", "w") as tar:
            tar.add(tree, arcname=".")
            for name in empty:
                info = tarfile.TarInfo(name)
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
        lading.pull(str(tmp_path / "model.tar"), destination, settings=settings)

    def empty() -> list[str]:
        return sorted(
            os.path.relpath(below, destination)
            for below, names, files in os.walk(destination)
            if not names and not files
        )

    deliver("ensemble/1", "old")
    assert empty() == ["ensemble/1", "old"]
    if mine:
        (destination / "mine").mkdir()
    deliver("ensemble/1", "ensemble/2")
    assert empty() == sorted(["ensemble/1", "ensemble/2", *(["mine"] if mine else [])])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_what_another_user_left_in_a_store_neither_goes_nor_ends_a_delivery(folder: Path) -> None:
    store = Store(StoreSettings(path=str(folder / "store")))
    for at in (store.root, *(place for place in store.root.rglob("*") if place.is_dir())):
        at.chmod(0o777)
    left = {
        "stale": write_tree(store.incoming("stale"), {"half": b""}),
        "hidden": write_tree(store.incoming("hidden"), {"deep/half": b""}) / "deep",
        "doomed": write_tree(store.incoming_folder / "key.removed.1", {"x": b""}),
    }
    for place in left.values():
        place.chmod(0o700)
    heard: list[told.Event] = []

    def look() -> None:
        clean_up(Store(store.settings, heard.append), now_s=1e12)
        assert sorted(Path(event.path).name for event in heard) == ["key.removed.1"]

    as_nobody(look)
    assert all(place.exists() for place in left.values())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_a_reference_that_cannot_be_read_keeps_every_model(folder: Path) -> None:
    references = References(folder / "references")
    references.folder.mkdir()
    references.folder.chmod(0o777)
    references.keep("mine", "key")
    [place] = references.folder.iterdir()
    place.chmod(0o600)

    def look() -> None:
        with pytest.raises(PermissionError):
            references.by_key()
        references.remove_dangling([], 1e12)

    as_nobody(look)
    assert references.by_key() == {"key": ["mine"]}


def test_an_error_within_a_tree_names_the_whole_path(folder: Path) -> None:
    destination = write_tree(folder / "model", {"mine/deep/x": b""})
    (destination / "mine/deep").chmod(0o500)
    for place in (destination, destination / "mine", destination / "mine/deep"):
        os.chown(place, NOBODY, NOBODY) if os.geteuid() == 0 else None

    def deliver() -> None:
        with pytest.raises(LadingError, match=f"{destination}/mine/deep/x: "):
            lading.pull(str(write_tree(folder / "source", NEW)), destination, settings=Settings(remove_strays=True))

    as_nobody(deliver)
    (destination / "mine/deep").chmod(0o755)
