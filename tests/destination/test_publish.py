"""Publishing under fire: the process dies before every change that it makes to the file system."""

import os
import shutil
import stat
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import pytest

import lading
from fakes.killer import run_and_kill_at
from fakes.trees import read_tree, write_tree
from lading.destination import publish
from lading.destination.workspace import Workspace, open_workspace
from lading.errors import IntegrityError, Interrupted, LadingError, UsageError
from lading.model.checksums import new_hash
from lading.model.digest import Digest
from lading.model.manifest import File, Manifest
from lading.model.paths import FILE_NAME, WORKSPACE_NAME
from lading.retry import Run
from lading.settings.limits import Limits
from lading.settings.settings import Settings
from lading.system.disk import exchange

Tree = Mapping[str, bytes]

SETTINGS = Settings(limits=Limits(workers=2))

# Between the two: a changed file, a kept one, a new one, a vanished folder, a folder that becomes
# a file and a file that becomes a folder.
OLD: Tree = {
    "config.json": b"old",
    "same.txt": b"the same in both",
    "empty": b"",
    "weights/a.bin": b"A" * 1000,
    "weights/same.bin": b"S" * 1000,
    "gone/deep/x": b"x",
    "swap/x": b"folder becomes file",
    "turn": b"file becomes folder",
}
NEW: Tree = {
    "config.json": b"new!",
    "same.txt": b"the same in both",
    "empty": b"",
    "weights/a.bin": b"B" * 1000,
    "weights/b.bin": b"C" * 1000,
    "weights/same.bin": b"S" * 1000,
    "swap": b"folder became file",
    "turn/y": b"file became folder",
}
FOREIGN: Tree = {"lost+found": b"not ours", "notes/readme.txt": b"not ours either"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: hundreds of deliveries, each of them synced."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        yield Path(name)


def replace_tree(root: Path, tree: Tree) -> None:
    for path in list(read_tree(root)):
        if path not in tree:
            (root / path).unlink()
    for below, _, _ in os.walk(root, topdown=False):
        if not os.listdir(below):
            os.rmdir(below)
    write_tree(root, tree)


def pack(archive: Path, tree: Tree) -> None:
    with tempfile.TemporaryDirectory() as name:
        write_tree(Path(name), tree)
        with tarfile.open(archive, "w") as tar:
            for path in tree:
                tar.add(os.path.join(name, path), arcname=path)


@dataclass
class Case:
    """A destination's state before a delivery, and what is delivered to it."""

    old: Tree
    foreign: Tree
    archive: bool


CASES = {
    "a fresh folder": Case({}, {}, False),
    "an older delivery": Case(OLD, {}, False),
    "foreign files": Case({}, FOREIGN, False),
    "an older delivery with foreign files": Case(OLD, FOREIGN, False),
    "a fresh folder from an archive": Case({}, {}, True),
    "an older delivery from an archive": Case(OLD, {}, True),
    "an older delivery from an archive with foreign files": Case(OLD, FOREIGN, True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_process_killed_at_any_step_leaves_a_manifest_only_with_its_model(folder: Path, case: Case) -> None:
    source = folder / "source"
    before = folder / "before"
    before.mkdir()

    def offer(tree: Tree) -> str:
        source.mkdir(exist_ok=True)
        if not case.archive:
            replace_tree(source, tree)
            return str(source)
        pack(source / "model.tar", tree)
        return str(source / "model.tar")

    if case.old:
        lading.pull(offer(case.old), before, settings=SETTINGS)
    uri = offer(NEW)
    write_tree(before, case.foreign)

    for number in range(1000):
        destination = folder / str(number)
        shutil.copytree(before, destination)
        through = run_and_kill_at(number, lambda place=destination: lading.pull(uri, place, settings=SETTINGS))
        check_invariant(destination, case, f"killed before change {number}")
        lading.pull(uri, destination, settings=SETTINGS)
        assert read_tree(destination) == {**case.foreign, **NEW}, f"after the run that follows {number}"
        assert not (destination / WORKSPACE_NAME).exists()
        assert os.listdir(folder).count(f".{number}.lading") == 0
        shutil.rmtree(destination)
        if through:
            break
    else:
        pytest.fail("the delivery never came to its end")
    assert number > 10, "the kills did not reach the publication"


def check_invariant(destination: Path, case: Case, when: str) -> None:
    if not (destination / FILE_NAME).exists():
        return
    manifest = Manifest.loads((destination / FILE_NAME).read_text())
    model = {path: content for path, content in read_tree(destination).items() if path not in case.foreign}
    assert model in (case.old, NEW), when
    assert set(manifest.by_path()) == set(model), when
    for file in manifest.files:
        assert file.digest is not None
        running = new_hash(file.digest.algorithm)
        running.update(memoryview(model[file.path]))
        assert running.hexdigest() == file.digest.value, when


def test_a_reader_never_sees_a_mixture_while_folders_are_exchanged(folder: Path) -> None:
    source, destination = folder / "source", folder / "model"
    names = [f"{number}.bin" for number in range(20)]

    def offer(version: bytes) -> None:
        replace_tree(source, dict.fromkeys(names, version))

    source.mkdir()
    offer(b"0")
    lading.pull(str(source), destination, settings=SETTINGS)
    done = threading.Event()
    seen: list[set[bytes]] = []

    def read_for_ever() -> None:
        while not done.is_set():
            # One descriptor of the folder, as a server that has it as its working folder.
            root = os.open(destination, os.O_RDONLY)
            contents = set()
            for name in names:
                try:
                    with open(os.open(name, os.O_RDONLY, dir_fd=root), "rb") as file:
                        contents.add(file.read())
                except FileNotFoundError:
                    # The old model's folder is being removed.
                    break
            os.close(root)
            seen.append(contents)

    reader = threading.Thread(target=read_for_ever)
    reader.start()
    try:
        for version in range(1, 25):
            offer(b"%d" % version)
            lading.pull(str(source), destination, settings=SETTINGS)
    finally:
        done.set()
        reader.join()
    assert len(seen) > 10
    assert {len(contents) for contents in seen} <= {0, 1}


def test_the_folder_itself_stays_where_files_that_lading_did_not_bring_are_in_it(folder: Path) -> None:
    source, destination = folder / "source", folder / "model"
    write_tree(source, OLD)
    write_tree(destination, FOREIGN)
    inode = destination.stat().st_ino
    lading.pull(str(source), destination, settings=SETTINGS)
    assert destination.stat().st_ino == inode
    assert read_tree(destination) == {**OLD, **FOREIGN}


def test_an_older_delivery_is_exchanged_as_a_whole_and_keeps_its_mode(folder: Path) -> None:
    source, destination = folder / "source", folder / "model"
    write_tree(source, OLD)
    lading.pull(str(source), destination, settings=SETTINGS)
    destination.chmod(0o2750)
    inode = destination.stat().st_ino
    replace_tree(source, NEW)
    lading.pull(str(source), destination, settings=SETTINGS)
    assert destination.stat().st_ino != inode
    assert destination.stat().st_mode & 0o7777 == 0o2750
    assert read_tree(destination) == NEW
    assert sorted(os.listdir(folder)) == ["model", "source"]


def test_kept_files_are_not_fetched_again_and_keep_their_bytes(folder: Path) -> None:
    source, destination = folder / "source", folder / "model"
    write_tree(source, OLD)
    lading.pull(str(source), destination, settings=SETTINGS)
    kept = (destination / "weights/same.bin").stat().st_ino
    replace_tree(source, NEW)
    manifest = lading.pull(str(source), destination, settings=SETTINGS)
    assert (destination / "weights/same.bin").stat().st_ino == kept
    assert set(manifest.by_path()) == set(NEW)


def test_a_destination_that_is_a_link_keeps_being_one(folder: Path) -> None:
    source, real, destination = folder / "source", folder / "volume" / "model", folder / "model"
    write_tree(source, OLD)
    real.mkdir(parents=True)
    destination.symlink_to(real)
    lading.pull(str(source), destination, settings=SETTINGS)
    replace_tree(source, NEW)
    lading.pull(str(source), destination, settings=SETTINGS)
    assert destination.is_symlink()
    assert read_tree(real) == NEW
    assert sorted(os.listdir(folder)) == ["model", "source", "volume"]


def test_a_link_that_someone_put_into_the_destination_is_replaced_and_not_followed(folder: Path) -> None:
    source, destination, elsewhere = folder / "source", folder / "model", folder / "elsewhere"
    write_tree(source, OLD)
    write_tree(elsewhere, {"a.bin": b"precious", "same.bin": b"S" * 1000, "x": b"precious"})
    lading.pull(str(source), destination, settings=SETTINGS)
    shutil.rmtree(destination / "weights")
    (destination / "weights").symlink_to(elsewhere)
    shutil.rmtree(destination / "gone/deep")
    (destination / "gone/deep").symlink_to(elsewhere)
    replace_tree(source, NEW)
    lading.pull(str(source), destination, settings=SETTINGS)
    assert read_tree(elsewhere) == {"a.bin": b"precious", "same.bin": b"S" * 1000, "x": b"precious"}
    assert not (destination / "weights").is_symlink()
    assert (destination / "weights/a.bin").read_bytes() == NEW["weights/a.bin"]


@pytest.mark.parametrize("torn", ["", '{"format": 1', "\xff\xfe", "[]", "[" * 100_000])
def test_a_plan_of_publication_that_a_power_cut_tore_never_counted(folder: Path, torn: str) -> None:
    source, destination = folder / "source", folder / "model"
    write_tree(source, OLD)
    lading.pull(str(source), destination, settings=SETTINGS)
    (destination / WORKSPACE_NAME).mkdir()
    (destination / WORKSPACE_NAME / "next.json").write_bytes(torn.encode("latin-1"))
    replace_tree(source, NEW)
    lading.pull(str(source), destination, settings=SETTINGS)
    assert read_tree(destination) == NEW


def test_a_publication_that_a_signal_ends_is_finished_by_the_next_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An archive's tree cannot be unpacked again without the network: it must outlive the signal.
    archive, destination = folder / "model.tar", folder / "model"
    pack(archive, NEW)
    write_tree(destination, FOREIGN)
    rename = os.rename

    def interrupted(source: str | Path, target: str | Path) -> None:
        if str(target).endswith("model/weights"):
            raise Interrupted("stopped by a signal")
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", interrupted)
        with pytest.raises(Interrupted):
            lading.pull(str(archive), destination, settings=SETTINGS)
    assert not (destination / FILE_NAME).exists()
    with open_workspace(destination, Run(threading.Event())) as workspace:
        publish.recover(workspace)
        workspace.dissolve()
    assert read_tree(destination) == {**FOREIGN, **NEW}
    assert (destination / FILE_NAME).exists()


def test_a_folder_of_somebody_else_is_not_removed_for_a_file_of_the_model(folder: Path) -> None:
    source, destination = folder / "source", folder / "model"
    write_tree(source, NEW)
    theirs: Tree = {"swap/mine": b"not ours"}
    write_tree(destination, theirs)
    with pytest.raises(UsageError, match="swap/mine, which lading did not deliver"):
        lading.pull(str(source), destination, settings=SETTINGS)
    assert {path: content for path, content in read_tree(destination).items() if path in theirs} == theirs
    assert not (destination / FILE_NAME).exists()


def test_a_plan_of_publication_whose_files_are_gone_gives_no_manifest(folder: Path) -> None:
    source, destination = folder / "source", folder / "model"
    write_tree(source, OLD)
    lading.pull(str(source), folder / "other", settings=SETTINGS)
    write_tree(destination, FOREIGN)
    (destination / WORKSPACE_NAME).mkdir()
    shutil.copy(folder / "other" / FILE_NAME, destination / WORKSPACE_NAME / "next.json")
    workspace = Workspace(destination)
    with pytest.raises(IntegrityError, match="cannot be finished"):
        publish.recover(workspace)
    assert not (destination / FILE_NAME).exists()
    lading.pull(str(source), destination, settings=SETTINGS)
    assert read_tree(destination) == {**OLD, **FOREIGN}


def test_after_an_interrupted_publication_files_are_looked_at_before_the_manifest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = folder / "model"
    (destination / WORKSPACE_NAME / "stage").mkdir(parents=True)
    manifest = Manifest.of([File("lost.bin", 5, Digest.parse("crc32:00000000"))])
    (destination / WORKSPACE_NAME / "next.json").write_text(manifest.dumps())
    renamed = []
    original = os.rename

    def spy(source: object, target: object, **kwargs: object) -> None:
        renamed.append(os.fspath(target))
        original(source, target, **kwargs)

    monkeypatch.setattr(os, "rename", spy)
    with pytest.raises(IntegrityError):
        publish.recover(Workspace(destination))
    assert str(destination / FILE_NAME) not in renamed


def test_bytes_of_the_old_model_are_never_written_through_a_link_that_a_kill_left(folder: Path) -> None:
    source, destination = folder / "source", folder / "model"
    write_tree(source, OLD)
    lading.pull(str(source), destination, settings=SETTINGS)
    # As a kill between the links and the exchange leaves it.
    stage = destination / WORKSPACE_NAME / "stage"
    stage.mkdir(parents=True)
    os.link(destination / "config.json", stage / "config.json")
    watched = folder / "watched"
    os.link(destination / "config.json", watched)
    lading.pull(str(source), folder / "journal", settings=SETTINGS)
    replace_tree(source, NEW)
    # Anything in the journal keeps the stage.
    manifest = lading.resolve(str(source), settings=SETTINGS)
    with open_workspace(destination, Run(threading.Event())) as workspace:
        from hashlib import sha256

        from lading.transfer.journal import Journal, Received

        journal = Journal(workspace.journal, sha256(manifest.resolved.encode()).hexdigest())
        file = manifest.by_path()["config.json"]
        assert file.validator is not None
        journal.append(Received("config.json", 4, file.validator, 0, 4, 1))
        journal.close()
    lading.pull(str(source), destination, settings=SETTINGS)
    assert watched.read_bytes() == OLD["config.json"]
    assert read_tree(destination) == NEW


def test_an_exchange_swaps_two_names_and_says_so(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    (folder / "a" / "x").touch()
    assert exchange(folder / "a", folder / "b")
    assert (folder / "b" / "x").exists()
    assert not exchange(folder / "a", folder / "nowhere")


def test_a_destination_that_is_a_file_is_refused_and_stays(folder: Path) -> None:
    write_tree(folder, {"source/a": b"1", "model": b"a file"})
    with pytest.raises(LadingError, match="not a folder") as caught:
        lading.pull(str(folder / "source"), folder / "model", settings=SETTINGS)
    assert caught.value.code == "usage"
    assert (folder / "model").read_bytes() == b"a file"


def test_a_file_in_the_place_of_the_workspace_is_named_and_stays(folder: Path) -> None:
    write_tree(folder, {"source/a": b"1", "model/.lading": b"a file"})
    with pytest.raises(UsageError, match=r"model/\.lading is not a folder"):
        lading.pull(str(folder / "source"), folder / "model", settings=SETTINGS)
    assert read_tree(folder / "model") == {".lading": b"a file"}


def test_a_process_that_waits_gets_its_own_workspace_after_an_exchange(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Process A exchanges the folders; process B takes the lock of the new one before A has
    # cleaned up.  A must not clean up what is B's.
    source, destination = folder / "source", folder / "model"
    write_tree(source, OLD)
    others = destination / WORKSPACE_NAME / "stage" / "of another process"
    original = os.fsync

    def other_process_begins(descriptor: int) -> None:
        original(descriptor)
        # The first folder that is synced is the one in which they were exchanged.
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) and not others.exists():
            others.parent.mkdir(parents=True)
            others.write_bytes(b"half a file")

    monkeypatch.setattr(os, "fsync", other_process_begins)
    lading.pull(str(source), destination, settings=SETTINGS)
    assert others.read_bytes() == b"half a file"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("README.md", "Readme.md"),
        ("d/a", "D/a"),
        ("d/\N{LATIN SMALL LETTER E WITH ACUTE}", "d/e\N{COMBINING ACUTE ACCENT}"),
    ],
)
@pytest.mark.parametrize("mounted", [False, True])
def test_two_files_that_the_file_system_takes_for_one_are_refused(folder, monkeypatch, first, second, mounted):
    write_tree(folder / "model", {first: b"first", second: b"other", "config.json": b"{}"})
    # To a file system that tells them apart they are two.
    lading.pull(str(folder / "model"), folder / "both", settings=SETTINGS)
    assert read_tree(folder / "both") == {first: b"first", second: b"other", "config.json": b"{}"}
    if mounted:
        write_tree(folder / "dest", FOREIGN)
    before = read_tree(folder / "dest")
    listed = os.listdir

    def once(path: Path) -> list[str]:
        """The names as such a file system lists them: in the spelling of whoever was first."""
        return list({normalize("NFC", name.casefold()): name for name in sorted(listed(path), reverse=True)}.values())

    monkeypatch.setattr(publish.os, "listdir", once)
    with pytest.raises(UsageError, match="are one file to the destination's file system") as caught:
        lading.pull(str(folder / "model"), folder / "dest", settings=SETTINGS)
    assert "--ignore" in caught.value.hint
    monkeypatch.undo()
    after = {path: data for path, data in read_tree(folder / "dest").items() if not path.startswith(WORKSPACE_NAME)}
    assert after == before
