"""The folder that lading owns while it delivers, and the lock that gives it to one process.

    DEST/
      .lading.manifest the manifest of what is here; absent while DEST is not one whole model
      .lading/         there only while a delivery is under way, or after one was interrupted
        lock           held (flock) by the process that delivers
        journal        which ranges have been received                       (transfer.journal)
        journal.next   the same, while it is rewritten                      (transfer.journal)
        stage/…        files at their final relative paths, not yet whole
        tree/…         what archives unpack to                              (layers)
        opened         an encrypted file, while it is decrypted             (decrypt)
        next.json      the sealed manifest: from here on only renames are left, and the next
                       run finishes them                                    (publish)
        old.json       the manifest that next.json replaces
        again.json     the manifest with other times of the same files          (publish)
    .DEST.lading       the new folder, then the old one, while the two are exchanged  (publish)

This module neither downloads nor gives a file its final name.

Other users who may write to the destination may write here.  If the workspace is a link, it is refused;
links within it are removed first; ``dissolve`` never follows a link.  Somebody who replaces folders by
links while a delivery runs can still make it write elsewhere, as far as the process may: do not share a
destination with such users.
"""

import contextlib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from lading.errors import IntegrityError, LadingError, Unsupported, UsageError
from lading.events import Listener, NotRemoved
from lading.model.manifest import Manifest
from lading.model.paths import FILE_NAME, WORKSPACE_NAME
from lading.retry import Run
from lading.system.disk import disk_error
from lading.system.flock import acquire, is_still_the_lock, open_folder
from lading.system.folders import remove_tree
from lading.text.printable import printable

_NAMES = ("stage", "tree", "journal", "journal.next", "opened", "next.json", "old.json", "again.json", "lock")


class Workspace:
    """The paths of a destination's workspace.  ``given`` is the destination as the user wrote it."""

    def __init__(self, destination: Path) -> None:
        self.given = destination
        # Absolute, so that a change of the working folder moves nothing.
        self.destination = Path(os.path.abspath(destination))
        self.folder = self.destination / WORKSPACE_NAME
        self.lock = self.folder / "lock"
        self.journal = self.folder / "journal"
        self.stage = self.folder / "stage"
        self.tree = self.folder / "tree"
        self.next = self.folder / "next.json"
        self.old = self.folder / "old.json"
        self.again = self.folder / "again.json"
        self.manifest = self.destination / FILE_NAME
        self.beside = self.destination.parent / f".{self.destination.name}.lading"

    def delivered(self) -> Manifest | None:
        """The manifest of the destination; None if there is none that can be read."""
        try:
            return read_manifest(self.manifest)
        except (IntegrityError, Unsupported):
            return None

    def discard_stage(self) -> None:
        """Forget the bytes of earlier attempts."""
        self._remove("stage", "tree", "journal")

    def prune_stage(self, keep: Collection[str]) -> None:
        """Remove staged files that are not in ``keep``: they are of another delivery."""
        for folder, _, names in os.walk(self.stage, topdown=False):
            for name in names:
                path = os.path.join(folder, name)
                if os.path.relpath(path, self.stage) not in keep:
                    os.unlink(path)
            # An empty folder would stand in the way of a file that has its name now.
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def dissolve(self) -> None:
        """Remove the workspace; the lock goes last, so that nobody starts before all is gone."""
        # By name: what somebody else has put here stays.
        self._remove(*_NAMES)
        # A process that waited may have made its own lock here since.
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _remove(self, *names: str) -> None:
        """Remove these of the workspace's files and folders."""
        with contextlib.suppress(FileNotFoundError), open_folder(self.folder) as here:
            for name in names:
                try:
                    if stat.S_ISDIR(os.lstat(name, dir_fd=here).st_mode):
                        remove_tree(self.folder / name, here)
                    else:
                        os.unlink(name, dir_fd=here)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise disk_error(error, self.folder / name) from error


def _open_file(path: str, flags: int) -> int:
    """Open what is no pipe, which would be waited for, and no device, which may have no end."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return descriptor
    os.close(descriptor)
    raise IntegrityError(f"{printable(path)} is no file", hint="pull again")


def read_manifest(path: Path) -> Manifest | None:
    """The manifest in this file, or None where there is no file."""
    try:
        with open(path, encoding="utf-8", opener=_open_file) as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise IntegrityError(f"{printable(str(path))} is not a manifest", hint="pull again") from error
    except OSError as error:
        raise disk_error(error, path) from error
    return Manifest.loads(text)


@contextlib.contextmanager
def best_effort(path: Path, listener: Listener) -> Iterator[None]:
    """Report what the block cannot remove, and go on: the model is delivered all the same."""
    try:
        yield
    except LadingError as error:
        listener(NotRemoved(str(path), error.message, error.hint))
    except OSError as error:
        failure = disk_error(error, error.filename or path)
        listener(NotRemoved(str(path), failure.message, failure.hint))


@contextlib.contextmanager
def open_workspace(destination: Path, run: Run) -> Iterator[Workspace]:
    """Make the destination and its workspace, and hold its lock; waits while another process does.

    flock(2) only saves work between processes of one machine.  Where it is not supported, or does not lock
    (some network file systems), two processes may fetch the same bytes; each still publishes whole files.
    """
    workspace = Workspace(destination)
    if workspace.destination == workspace.destination.parent:
        raise UsageError("the destination is the root folder", hint="deliver to a folder below it")
    paths = (workspace.folder, *workspace.folder.parents)
    made = [path for path in paths if not os.path.lexists(path)]
    try:
        descriptor = acquire(workspace.lock, str(workspace.destination), run)
    except BaseException:
        _remove_empty(made)
        raise
    try:
        _remove_links(workspace)
        yield workspace
        made = []
    except BaseException:
        # After a publication the workspace may be another process's already.
        if is_still_the_lock(descriptor, workspace.lock):
            # What cannot be tidied now the next run tidies; why this one ended is what matters.
            with contextlib.suppress(OSError, LadingError):
                _tidy(workspace)
        raise
    finally:
        os.close(descriptor)
        # Only now: on NFS a lock that is removed while it is open stays in its folder, as .nfs…, until it is closed.
        _remove_empty([workspace.folder, *made])


def _remove_links(workspace: Workspace) -> None:
    """Remove what is neither a file nor a folder: lading makes nothing else there."""
    try:
        with open_folder(workspace.folder) as here:
            for _, folders, names, at in os.fwalk(dir_fd=here):
                for name in (*folders, *names):
                    with contextlib.suppress(FileNotFoundError):
                        mode = os.lstat(name, dir_fd=at).st_mode
                        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                            os.unlink(name, dir_fd=at)
    except OSError as error:
        raise disk_error(error, workspace.folder) from error


def _tidy(workspace: Workspace) -> None:
    """Remove what a next run cannot use."""
    if not workspace.next.exists():
        # A tree cannot be resumed, unless its publication has begun.
        remove_tree(workspace.tree)
    if not _holds_bytes(workspace):
        # Nothing was gained: leave the place as it was found.
        workspace.dissolve()


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of these folders that are empty, the innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _holds_bytes(workspace: Workspace) -> bool:
    if workspace.next.exists():
        return True
    # Without it nobody goes on with them: they came out of a store.
    return workspace.journal.exists() and any(
        os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(workspace.stage) for name in names
    )
