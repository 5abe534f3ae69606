"""Publishing: a staged, verified tree becomes the destination's content, the manifest last.

Two ways, one promise: wherever ``.lading.manifest`` exists, the folder holds exactly that model.

*Exchange*: the new folder is built beside the destination and swapped with it by one system call.
A reader sees the old model or the new one, never a mixture.

*Renames*, where the destination is a mount point, holds files that lading did not deliver, or its
parent may not be written: the old manifest goes first, then every file gets its name by a rename,
then files of the old model that the new one lacks are removed, and the new manifest comes last.
A process killed in between leaves no manifest, and the next one finishes without the network.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from lading.destination.workspace import Workspace, best_effort, read_manifest
from lading.errors import IntegrityError, Unsupported, UsageError
from lading.events import Listener, ignore
from lading.model.manifest import Manifest
from lading.model.paths import FILE_NAME, WORKSPACE_NAME
from lading.system.disk import (
    as_lading_errors,
    exchange,
    is_mount_point,
    mounts_within,
    set_mode,
    sync_file,
    sync_file_system,
    sync_folder,
)
from lading.system.folders import move_into, remove_tree
from lading.text.printable import printable


def publish(
    workspace: Workspace, root: Path, manifest: Manifest, unchanged: Collection[str] = (), listener: Listener = ignore
) -> bool:
    """Make the destination hold exactly this manifest's files, taken from ``root`` in the workspace.

    ``unchanged`` are the paths that ``root`` lacks because the destination has them, unchanged.
    Durable when this returns; the workspace is gone then, or the listener hears why it stays.  False says that
    there may be other files, too.
    """
    with as_lading_errors(workspace.destination):
        root.mkdir(exist_ok=True)
        _refuse_merged(root, manifest, unchanged)
        if _publish_by_exchange(workspace, root, manifest, unchanged, listener):
            # The workspace went with the old folder.  One that is here now is another process's.
            return True
        _refuse_to_replace(workspace, manifest)
        _refuse_unwritable(workspace, manifest, unchanged)
        _write(workspace.next, manifest, root, workspace.destination)
        sync_file_system(workspace.destination)
        _publish_by_renames(workspace, root, manifest)
        with best_effort(workspace.given, listener):
            workspace.dissolve()
        return False


def note_times(workspace: Workspace, manifest: Manifest) -> None:
    """Let the manifest of a destination tell the times that its files have now, where it can be written."""
    with contextlib.suppress(OSError):
        _write(workspace.again, manifest, workspace.destination)
        workspace.again.rename(workspace.manifest)


def recover(workspace: Workspace, listener: Listener = ignore) -> None:
    """Finish or undo what a killed process left half published.  Call with the lock held."""
    with as_lading_errors(workspace.destination):
        # Either the old model after an exchange, or the new one before it: in both cases the
        # destination is whole, and what is beside it is not needed.
        with best_effort(workspace.given, listener):
            remove_tree(workspace.beside)
        manifest = _readable(workspace.next)
        if manifest is not None:
            root = workspace.tree if workspace.tree.exists() else workspace.stage
            _publish_by_renames(workspace, root, manifest)
            workspace.discard_stage()


def _publish_by_exchange(
    workspace: Workspace, root: Path, manifest: Manifest, unchanged: Collection[str], listener: Listener
) -> bool:
    destination, beside = workspace.destination, workspace.beside
    # A link would itself be exchanged, and not the folder that it leads to.
    if destination.is_symlink() or is_mount_point(destination) or any(_strays(workspace)):
        return False
    for path in unchanged:
        staged = root / path
        staged.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(destination / path, staged)
        except FileNotFoundError as error:
            raise IntegrityError(f"{printable(path)} vanished from the destination", hint="pull again") from error
        except FileExistsError:
            continue
        except OSError:
            return False
    _write(root / FILE_NAME, manifest, root)
    status = destination.stat()
    if not set_mode(root, stat.S_IMODE(status.st_mode)):
        # By renames the folder stays, and its mode with it.
        (root / FILE_NAME).unlink()
        return False
    with contextlib.suppress(OSError):
        os.chown(root, status.st_uid, status.st_gid)
    sync_file_system(root)
    try:
        root.rename(beside)
    except OSError:
        (root / FILE_NAME).unlink()
        return False
    if not exchange(beside, destination):
        beside.rename(root)
        (root / FILE_NAME).unlink()
        return False
    sync_folder(destination.parent)
    with best_effort(workspace.given, listener):
        remove_tree(beside)
    return True


def _publish_by_renames(workspace: Workspace, root: Path, manifest: Manifest) -> None:
    destination = workspace.destination
    if workspace.manifest.exists():
        workspace.manifest.rename(workspace.old)
    if root.exists():
        move_into(root, destination)
    old = _readable(workspace.old)
    if old is not None:
        staying = manifest.all_folders()
        _remove(destination, set(old.by_path()) - set(manifest.by_path()), staying)
        _remove_folders(destination, set(old.folders), staying)
    _check_sizes(workspace, manifest)
    sync_file_system(destination)
    workspace.next.rename(workspace.manifest)
    sync_folder(destination)


def _refuse_to_replace(workspace: Workspace, manifest: Manifest) -> None:
    """A file of the model may take the place of a folder, or a folder that of a file, only if lading brought that."""
    old = workspace.delivered()
    ours = {*old.by_path(), *old.all_folders()} if old else set()
    for file in manifest.files:
        # A link is replaced, and what it leads to stays.
        if _is_folder(workspace.destination / file.path):
            stray = next(_strays(workspace, file.path), "" if file.path in ours else file.path)
            if stray:
                what = "" if stray == file.path else f" that holds {printable(stray)}"
                raise _not_ours(
                    f"the model's file {printable(file.path)} would replace a folder of the destination{what}"
                )
    for path in manifest.all_folders() - ours:
        full_path = workspace.destination / path
        if full_path.is_file() and not full_path.is_symlink():
            raise _not_ours(f"the model's folder {printable(path)} would replace a file of the destination")


def _refuse_merged(root: Path, manifest: Manifest, unchanged: Collection[str]) -> None:
    """Two files of a model must not be one, as README.md and Readme.md are in a share of SMB."""
    from unicodedata import normalize

    firsts: dict[str, str] = {}
    for path in (file.path for file in manifest.files if file.path not in unchanged):
        first = firsts.setdefault(normalize("NFC", path.casefold()), path)
        if first != path and not (_is_listed(root, first) and _is_listed(root, path)):
            raise UsageError(
                f"{printable(first)} and {printable(path)} are one file to the destination's file system",
                hint="deliver to a volume that tells upper from lower case, or leave one out by --ignore",
            )


def _is_listed(root: Path, path: str) -> bool:
    """Whether the folders list every name of this path as it is written here."""
    names = path.split("/")
    return all(name in os.listdir(root.joinpath(*names[:depth])) for depth, name in enumerate(names))


def _not_ours(what: str) -> UsageError:
    return UsageError(
        f"{what}, which lading did not deliver",
        hint="move it away, deliver to another folder, or use --remove-strays to remove everything that is not part of the model",
    )


def _refuse_unwritable(workspace: Workspace, manifest: Manifest, unchanged: Collection[str]) -> None:
    """Nothing changes unless every folder that a file comes to, or goes from, lets this process write."""
    old = workspace.delivered()
    gone = old.by_path().keys() - manifest.by_path().keys() if old else set()
    come = [file.path for file in manifest.files if file.path not in unchanged]
    # What is staged beside it cannot be renamed into another mount, nor onto one.
    for mount in filter(None, mounts_within(workspace.destination) or ()):
        if any(f"{path}/".startswith(f"{mount}/") for path in (*come, *gone)):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(workspace.destination / mount))
    for folder in {path.rpartition("/")[0] for path in (*come, *gone)}:
        full_path = workspace.destination / folder
        while full_path != workspace.destination and not _is_folder(full_path):
            full_path = full_path.parent
        if not os.access(full_path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(full_path))


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _check_sizes(workspace: Workspace, manifest: Manifest) -> None:
    """The last look before the manifest: another process may have begun this publication."""
    for file in manifest.files:
        path = workspace.destination / file.path
        if not path.is_file() or path.stat().st_size != file.size_bytes:
            workspace.next.unlink()
            raise IntegrityError(
                f"an interrupted publication cannot be finished: {printable(file.path)} is missing", hint="pull again"
            )


def _strays(workspace: Workspace, below: str = "") -> Iterator[str]:
    """What is in a folder of the destination and was not brought by lading; what cannot be read was not."""
    delivered, destination = workspace.delivered(), workspace.destination
    files = delivered.by_path().keys() if delivered else set()
    folders = delivered.all_folders() if delivered else set()
    unreadable: list[OSError] = []
    for folder, inner, names in os.walk(destination / below, onerror=unreadable.append):
        prefix = f"{os.path.relpath(folder, destination)}/"
        if prefix == "./":
            prefix = ""
            inner[:] = [name for name in inner if name != WORKSPACE_NAME]
            names = [name for name in names if name != FILE_NAME]
        yield from (path for name in names if (path := f"{prefix}{name}") not in files)
        # An empty folder is somebody's, too, and so is a link to one.
        yield from (
            path
            for name in inner
            if (path := f"{prefix}{name}") not in folders or os.path.islink(os.path.join(folder, name))
        )
    yield from (os.path.relpath(error.filename, destination) for error in unreadable)


def _remove(destination: Path, paths: Iterable[str], staying: Collection[str]) -> None:
    """Remove these files, and the folders that are empty without them, but those that are ``staying``."""
    for path in paths:
        if not _is_behind_link(destination, path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                (destination / path).unlink()
            _remove_folders(destination, [path.rpartition("/")[0]], staying)


def _remove_folders(destination: Path, paths: Iterable[str], staying: Collection[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            while path and path not in staying and not _is_behind_link(destination, path):
                os.rmdir(destination / path)
                path = path.rpartition("/")[0]


def _is_behind_link(destination: Path, path: str) -> bool:
    """Whether someone put a link in the place of a folder on the way: what it leads to is not ours."""
    return any(folder.is_symlink() for folder in list((destination / path).parents)[: path.count("/")])


def _readable(path: Path) -> Manifest | None:
    """A manifest that may have been torn by a power cut: then it never counted."""
    try:
        return read_manifest(path)
    except (IntegrityError, Unsupported):
        path.unlink(missing_ok=True)
        return None


def _write(path: Path, manifest: Manifest, *folders: Path) -> None:
    """Write a manifest with the time of each file, which is in the first of ``folders`` that has it."""

    def mtime_ns(path: str) -> int | None:
        for folder in folders:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return os.lstat(f"{folder}/{path}").st_mtime_ns
        return None

    # Never through a link, nor into a file that has another name.
    path.unlink(missing_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.writelines(manifest.lines(mtime_ns))
        file.flush()
        sync_file(file.fileno())
