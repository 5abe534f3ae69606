"""One destination, one process: the lock, and what is left of a workspace."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import lading
from fakes import nfs_client
from fakes.trees import read_tree, write_tree
from lading.destination.workspace import Workspace, open_workspace, read_manifest
from lading.errors import DeadlineExceeded, IntegrityError, Interrupted, LadingError, NoSpace, UsageError
from lading.events import Event, Waiting, ignore
from lading.model.paths import FILE_NAME, WORKSPACE_NAME
from lading.retry import Run, SystemClock
from lading.settings.limits import Limits
from lading.settings.settings import Settings
from lading.system.folders import remove_tree

SETTINGS = Settings()


class WaitingClock:
    """Never sleeps: runs what the test wants to happen at each wait instead."""

    def __init__(self, *happenings: Callable[[], object]) -> None:
        self.happenings = list(happenings)
        self.waits = 0

    def now(self) -> float:
        return 0.0

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.waits += 1
        assert self.happenings, "waited longer than the test has something to happen"
        self.happenings.pop(0)()
        return stop.is_set()


def opened(destination: Path, clock: object = None, stop: threading.Event | None = None, listener=ignore):
    return open_workspace(destination, Run(stop or threading.Event(), clock or SystemClock(), listener=listener))


def lock_of(workspace: Workspace) -> int:
    descriptor = os.open(workspace.lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def fail_after(action: Callable[[Workspace], None], destination: Path) -> Workspace:
    """The workspace of a delivery that failed after ``action``."""

    def deliver() -> None:
        with opened(destination) as workspace:
            action(workspace)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        deliver()
    return Workspace(destination)


def test_the_second_process_waits_until_the_first_lets_go(tmp_path: Path) -> None:
    first = Workspace(tmp_path / "model")
    first.folder.mkdir(parents=True)
    held = lock_of(first)
    heard: list[Event] = []
    clock = WaitingClock(lambda: None, lambda: None, lambda: os.close(held))
    with opened(tmp_path / "model", clock, listener=heard.append):
        assert clock.waits == 3
    # Told once, however long it takes.
    assert heard == [Waiting(str(tmp_path / "model"))]


def test_a_process_that_waits_does_not_take_a_lock_that_went_away_meanwhile(tmp_path: Path) -> None:
    # Process A holds the lock, delivers, and removes the workspace.  Process B, which had opened
    # A's lock file, must not believe that it holds anything.
    destination = tmp_path / "model"
    first = Workspace(destination)
    first.folder.mkdir(parents=True)
    held = lock_of(first)

    def replaced_by_the_exchange() -> None:
        destination.rename(tmp_path / "old")
        os.close(held)

    with opened(destination, WaitingClock(replaced_by_the_exchange)) as second:
        third = os.open(second.lock, os.O_WRONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(third)


def test_a_lock_file_replaced_between_opening_and_locking_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = tmp_path / "model"
    original, calls = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        original(descriptor, operation)
        if not calls:
            Workspace(destination).lock.unlink()
        calls.append(descriptor)

    monkeypatch.setattr(fcntl, "flock", flock)
    with opened(destination) as workspace:
        assert len(calls) == 2
        assert os.path.samestat(os.fstat(calls[1]), os.stat(workspace.lock))


def test_who_waits_can_be_stopped(tmp_path: Path) -> None:
    first = Workspace(tmp_path / "model")
    first.folder.mkdir(parents=True)
    held = lock_of(first)
    stop = threading.Event()
    with pytest.raises(Interrupted), opened(tmp_path / "model", WaitingClock(stop.set), stop):
        pytest.fail("the lock was taken twice")
    os.close(held)


def test_who_waits_does_so_no_longer_than_the_deadline(tmp_path: Path, pull, clock) -> None:
    source, first = tmp_path / "source", Workspace(tmp_path / "model")
    source.write_bytes(b"a")
    first.folder.mkdir(parents=True)
    held = lock_of(first)
    with pytest.raises(DeadlineExceeded, match="waiting for another process"):
        pull(str(source), tmp_path / "model", limits=Limits(deadline_s=60.0))
    assert 60 < clock.now() < 62
    os.close(held)


def test_a_pull_beside_another_process_waits_and_then_finds_it_done(tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "model"
    source.mkdir()
    (source / "a.bin").write_bytes(b"a" * 100)
    first = Workspace(destination)
    first.folder.mkdir(parents=True)
    held = lock_of(first)
    other = subprocess.Popen(
        [sys.executable, "-m", "lading", "pull", str(source), str(destination)],
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"], "LADING_LOG_FORMAT": "text"},
    )
    assert other.stderr is not None
    for line in other.stderr:
        if line.startswith("waiting"):
            break
    # What "the first process" brings while the other one waits.
    lading.pull(str(source), tmp_path / "elsewhere", settings=SETTINGS)
    (tmp_path / "elsewhere" / "a.bin").rename(destination / "a.bin")
    (tmp_path / "elsewhere" / FILE_NAME).rename(destination / FILE_NAME)
    os.close(held)
    rest = other.stderr.read()
    other.stderr.close()
    assert other.wait() == 0
    assert "nothing to do" in rest
    assert sorted(os.listdir(destination)) == [FILE_NAME, "a.bin"]


def test_many_processes_with_one_destination_all_succeed_and_leave_one_model(tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "model"
    source.mkdir()
    for number in range(30):
        (source / f"{number}.bin").write_bytes(b"%d" % number)
    command = [sys.executable, "-m", "lading", "pull", str(source), str(destination)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert sum("delivered 30 files" in text for text in said) == 1
    assert len(os.listdir(destination)) == 31
    assert sorted(os.listdir(tmp_path)) == ["model", "source"]


def test_a_failure_that_gained_nothing_leaves_the_place_as_it_was_found(tmp_path: Path) -> None:
    destination = tmp_path / "model"
    fail_after(lambda workspace: None, destination)
    assert not destination.exists()
    destination.mkdir()
    fail_after(lambda workspace: None, destination)
    assert os.listdir(destination) == []


def test_a_failure_that_gained_nothing_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    fail_after(lambda workspace: None, tmp_path / "there/new/newer/model")
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    # What somebody else has put there meanwhile stays.
    fail_after(lambda workspace: (tmp_path / "a/theirs").touch(), tmp_path / "a/b/model")
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a/theirs"]


def test_on_nfs_where_an_open_lock_keeps_a_name_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nfs_client.behave(monkeypatch)
    fail_after(lambda workspace: workspace.stage.mkdir(), tmp_path / "deep/model")
    assert list(tmp_path.iterdir()) == []
    with opened(tmp_path / "model") as workspace:
        workspace.dissolve()
        assert [path.name[:4] for path in workspace.folder.iterdir()] == [".nfs"]
    assert list((tmp_path / "model").iterdir()) == []


def test_a_lock_that_cannot_be_made_leaves_no_folder_that_was_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(NoSpace), opened(tmp_path / "a/b/model"):
        pytest.fail("opened on a full disk")
    assert not (tmp_path / "a").exists()


def test_a_failure_that_gained_bytes_leaves_them_for_the_next_run(tmp_path: Path) -> None:
    def stage_half(workspace: Workspace) -> None:
        workspace.stage.mkdir()
        (workspace.stage / "half").write_bytes(b"half")
        workspace.journal.touch()

    workspace = fail_after(stage_half, tmp_path / "model")
    assert (workspace.stage / "half").read_bytes() == b"half"


def test_a_failure_leaves_nothing_that_came_out_of_a_store(tmp_path: Path) -> None:
    def stage_all(workspace: Workspace) -> None:
        workspace.stage.mkdir()
        (workspace.stage / "all").write_bytes(b"all")

    assert not fail_after(stage_all, tmp_path / "model").folder.exists()


def test_a_failure_leaves_a_workspace_alone_that_another_process_has_taken_over(tmp_path: Path) -> None:
    locks = []

    def publish_and_see_another_begin(workspace: Workspace) -> None:
        workspace.dissolve()
        workspace.folder.mkdir()
        locks.append(lock_of(workspace))

    workspace = fail_after(publish_and_see_another_begin, tmp_path / "model")
    assert workspace.lock.exists()
    os.close(locks[0])


def test_dissolving_a_workspace_bears_a_process_that_makes_a_lock_just_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "model")
    workspace.folder.mkdir(parents=True)
    workspace.lock.touch()
    original = os.unlink

    def unlink(path: object, **kwargs: object) -> None:
        original(path, **kwargs)
        if path == "lock":
            workspace.lock.write_text("the other process's")

    monkeypatch.setattr(os, "unlink", unlink)
    workspace.dissolve()
    assert workspace.lock.read_text() == "the other process's"


def test_dissolving_removes_all_that_kills_may_leave(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "model")
    for place in (workspace.stage / "a/b", workspace.tree / "c"):
        place.parent.mkdir(parents=True)
        place.write_text("x")
    for name in ("lock", "journal", "journal.next", "next.json", "old.json"):
        (workspace.folder / name).write_text("x")
    workspace.dissolve()
    assert os.listdir(workspace.destination) == []


def test_strays_of_an_attempt_at_something_else_are_pruned_with_their_folders(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for path in ("keep", "stray", "was a folder/x", "deep/keep", "deep/er/stray"):
        (workspace.stage / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace.stage / path).write_text("x")
    workspace.prune_stage({"keep", "deep/keep", "was a folder"})
    left = sorted(
        os.path.relpath(os.path.join(at, name), workspace.stage)
        for at, _, ns in os.walk(workspace.stage)
        for name in ns
    )
    assert left == ["deep/keep", "keep"]
    # An empty folder would stand in the way of a file of its name.
    assert not (workspace.stage / "was a folder").exists()
    assert not (workspace.stage / "deep/er").exists()


def test_a_folder_that_becomes_a_file_between_two_attempts_is_delivered(tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "model"
    (source / "x").mkdir(parents=True)
    (source / "x" / "y").write_text("in a folder")
    (source / "z").write_text("z")
    workspace = Workspace(destination)
    (workspace.stage / "x").mkdir(parents=True)
    (workspace.stage / "x" / "y").write_text("in a folder")
    listed = lading.resolve(str(source), settings=SETTINGS)
    from hashlib import sha256

    from lading.transfer.journal import Journal, Received

    journal = Journal(workspace.journal, sha256(listed.resolved.encode()).hexdigest())
    file = listed.by_path()["x/y"]
    journal.append(Received("x/y", 11, str(file.validator), 0, 11, 0))
    journal.close()
    (source / "x" / "y").unlink()
    (source / "x").rmdir()
    (source / "x").write_text("a file")
    lading.pull(str(source), destination, settings=SETTINGS)
    assert (destination / "x").read_text() == "a file"


# ---- links that somebody else has put there --------------------------------------------------------


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder that is not lading's, with names that a workspace has, too."""
    return write_tree(tmp_path / "theirs", {"a": b"1", "stage/b": b"2", "journal": b"3", "next.json": b"4"})


@pytest.mark.parametrize("ours", [{}, {"foreign": b"here"}], ids=["by exchange", "by renames"])
@pytest.mark.parametrize("leads_to", ["theirs", "nowhere"])
def test_a_link_in_the_place_of_the_workspace_is_refused(
    tmp_path: Path, theirs: Path, ours: dict[str, bytes], leads_to: str
) -> None:
    (tmp_path / "source").write_bytes(b"a")
    there, destination = read_tree(theirs), write_tree(tmp_path / "model", ours)
    destination.mkdir(exist_ok=True)
    (destination / WORKSPACE_NAME).symlink_to(tmp_path / leads_to)
    with pytest.raises(UsageError):
        lading.pull(str(tmp_path / "source"), destination, settings=SETTINGS)
    assert read_tree(theirs) == there
    assert not (tmp_path / "nowhere").exists()
    assert sorted(os.listdir(destination)) == sorted([WORKSPACE_NAME, *ours])


@pytest.mark.parametrize("name", ["stage", "stage/deep", "tree", "journal", "journal.next", "next.json", "again.json"])
@pytest.mark.parametrize("target", ["theirs", "theirs/stage", "theirs/a", "nowhere"])
@pytest.mark.parametrize("ours", [{}, {"foreign": b"here"}], ids=["by exchange", "by renames"])
def test_a_link_within_the_workspace_is_removed_and_not_followed(
    tmp_path: Path, theirs: Path, name: str, target: str, ours: dict[str, bytes]
) -> None:
    write_tree(tmp_path / "source", {"deep/b": b"new", "a": b"new"})
    there, destination = read_tree(theirs), write_tree(tmp_path / "model", ours)
    link = destination / WORKSPACE_NAME / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / target)
    lading.pull(str(tmp_path / "source"), destination, settings=SETTINGS)
    assert read_tree(theirs) == there
    assert not (tmp_path / "nowhere").exists()
    assert sorted(os.listdir(destination)) == sorted([FILE_NAME, "a", "deep", *ours])


@pytest.mark.parametrize("name", ["journal.next", "next.json"])
def test_a_further_name_of_another_file_in_the_workspace_is_not_written(
    tmp_path: Path, theirs: Path, name: str
) -> None:
    (tmp_path / "source").write_bytes(b"a")
    destination = write_tree(tmp_path / "model", {"foreign": b"", f"{WORKSPACE_NAME}/x": b""})
    os.link(theirs / "a", destination / WORKSPACE_NAME / name)
    lading.pull(str(tmp_path / "source"), destination, settings=SETTINGS)
    assert (theirs / "a").read_bytes() == b"1"


@pytest.mark.timeout(30)
def test_a_pipe_in_the_workspace_blocks_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"a")
    (tmp_path / "model" / WORKSPACE_NAME / "stage").mkdir(parents=True)
    for name in ("journal", "journal.next", "next.json", "stage/source"):
        os.mkfifo(tmp_path / "model" / WORKSPACE_NAME / name)
    lading.pull(str(tmp_path / "source"), tmp_path / "model", settings=SETTINGS)
    assert (tmp_path / "model/source").read_bytes() == b"a"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["a pipe", "a device"])
def test_what_is_no_file_in_the_place_of_the_manifest_blocks_nothing(tmp_path: Path, put) -> None:
    source = write_tree(tmp_path / "source", {"a": b"a"})
    (tmp_path / "model").mkdir()
    put(tmp_path / "model" / FILE_NAME)
    with pytest.raises(IntegrityError, match="is no file"):
        lading.verify(tmp_path / "model")
    lading.pull(str(source), tmp_path / "model", settings=SETTINGS)
    assert lading.verify(tmp_path / "model").is_clean


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path, theirs: Path) -> None:
    workspace = Workspace(tmp_path / "model")
    workspace.folder.mkdir(parents=True)
    workspace.lock.symlink_to(theirs / "new")
    with pytest.raises(UsageError, match="symbolic link"), opened(tmp_path / "model"):
        pytest.fail("a link was followed")
    assert not (theirs / "new").exists()


def test_dissolving_removes_nothing_behind_a_link_that_took_its_place(tmp_path: Path, theirs: Path) -> None:
    there = read_tree(theirs)
    with opened(tmp_path / "model") as workspace:
        workspace.folder.rename(tmp_path / "away")
        workspace.folder.symlink_to(theirs)
        with pytest.raises(UsageError):
            workspace.dissolve()
    assert read_tree(theirs) == there


def test_dissolving_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    workspace = Workspace(write_tree(tmp_path, {f"{WORKSPACE_NAME}/theirs/x": b"1", f"{WORKSPACE_NAME}/lock": b""}))
    workspace.dissolve()
    assert [str(place.relative_to(workspace.folder)) for place in workspace.folder.rglob("*")] == ["theirs", "theirs/x"]


def test_a_link_in_the_place_of_the_new_folder_is_removed_and_not_followed(tmp_path: Path, theirs: Path) -> None:
    (tmp_path / "source").write_bytes(b"a")
    there = read_tree(theirs)
    Workspace(tmp_path / "model").beside.symlink_to(theirs)
    lading.pull(str(tmp_path / "source"), tmp_path / "model", settings=SETTINGS)
    assert read_tree(theirs) == there


def test_a_lock_can_be_opened_only_by_who_may_write_to_it(tmp_path: Path) -> None:
    with opened(tmp_path / "model") as workspace:
        assert workspace.lock.stat().st_mode & 0o444 == 0


def test_the_root_folder_is_refused() -> None:
    with pytest.raises(UsageError, match="root folder"), opened(Path("/")):
        pytest.fail("opened /")


@pytest.mark.parametrize("name", ["model", "model/below"])
def test_a_destination_that_is_a_file_or_below_one_is_a_usage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").write_text("a file")
    with pytest.raises(UsageError), opened(tmp_path / name):
        pytest.fail("opened a file")
    assert (tmp_path / "model").read_text() == "a file"


@pytest.mark.timeout(10)
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that makes no folders")
def test_a_place_where_no_folder_can_be_made_ends_in_an_error_and_not_in_a_loop() -> None:
    with pytest.raises(LadingError), opened(Path("/proc/lading-cannot-be-here/model")):
        pytest.fail("made a folder in /proc")


def test_a_manifest_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.delivered() is None
    for text in (b"", b"{}", b"\xff", b'{"format": 2}'):
        workspace.manifest.write_bytes(text)
        assert workspace.delivered() is None, text


def test_removing_a_tree_that_is_not_there_is_fine_and_an_error_is_told(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(LadingError):
        remove_tree(tmp_path / "file")
    assert read_manifest(tmp_path / "nothing") is None


def test_paths_of_a_workspace_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(Path("model"))
    monkeypatch.chdir("/")
    assert workspace.stage == tmp_path / "model" / WORKSPACE_NAME / "stage"
    assert workspace.beside == tmp_path / ".model.lading"
