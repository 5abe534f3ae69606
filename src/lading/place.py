"""Publishing: a staged, verified tree becomes the destination's content, the manifest last.

Two ways, one promise: wherever ``.lading.manifest`` exists, the folder holds exactly that model.

*Exchange*: the new folder is built beside the destination and swapped with it by one system call.
A reader sees the old model or the new one, never a mixture.

*Renames*, where the destination is a mount point, holds files that lading did not bring, or its
parent may not be written: the old manifest goes first, then every file gets its name by a rename,
then files of the old model that the new one lacks are removed, and the new manifest comes last.
A process killed in between leaves no manifest, and the next one finishes without the network.
"""

import contextlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from lading.disk import disk_error, exchange, is_mount_point, sync_file_system, sync_folder
from lading.errors import IntegrityError, Unsupported, UsageError
from lading.manifest import FILE_NAME, WORKSPACE_NAME, Manifest
from lading.uri import printable
from lading.workspace import Workspace, read_manifest, remove_tree

# lading's own, and what mkfs makes at the root of a volume.
_NO_STRAYS = (FILE_NAME, WORKSPACE_NAME, "lost+found")


def publish(workspace: Workspace, root: Path, manifest: Manifest, kept: Collection[str] = ()) -> bool:
    """Make the destination hold exactly this manifest's files, taken from ``root`` in the workspace.

    ``kept`` are the paths that ``root`` lacks because the destination has them, unchanged.
    Durable when this returns; the workspace is gone then.  False says that there may be other files, too.
    """
    try:
        root.mkdir(exist_ok=True)
        if _publish_by_exchange(workspace, root, manifest, kept):
            # The workspace went with the old folder.  One that is here now is another process's.
            return True
        _refuse_foreign_folders(workspace, manifest)
        _write(workspace.next, manifest, root, workspace.destination)
        sync_file_system(workspace.destination)
        _publish_by_renames(workspace, root, manifest)
        workspace.dissolve()
        return False
    except OSError as error:
        raise disk_error(error, error.filename or workspace.destination) from error


def note_times(workspace: Workspace, manifest: Manifest) -> None:
    """Let the manifest of a destination tell the times that its files have now, where it can be written."""
    with contextlib.suppress(OSError):
        _write(workspace.again, manifest, workspace.destination)
        workspace.again.rename(workspace.manifest)


def recover(workspace: Workspace) -> None:
    """Finish or undo what a killed process left half published.  Call with the lock held."""
    try:
        # Either the old model after an exchange, or the new one before it: in both cases the
        # destination is whole, and what is beside it is not needed.
        remove_tree(workspace.beside)
        manifest = _readable(workspace.next)
        if manifest is not None:
            root = workspace.tree if workspace.tree.exists() else workspace.stage
            _publish_by_renames(workspace, root, manifest)
            workspace.discard_stage()
    except OSError as error:
        raise disk_error(error, error.filename or workspace.destination) from error


def remove_strays(workspace: Workspace) -> list[str]:
    """Remove what the destination holds besides its model, all of it where there is none; returns what went.

    A folder goes whole and a link without what it leads to.  Call with the lock held.
    """
    manifest = workspace.delivered()
    known = set(manifest.by_path()) if manifest else set()
    folders = {parent.as_posix() for path in known for parent in PurePosixPath(path).parents}
    gone: list[str] = []
    try:
        _remove_strays(workspace.destination, "", known, folders, gone)
    except OSError as error:
        raise disk_error(error, error.filename or workspace.destination) from error
    return gone


def _remove_strays(
    folder: Path, prefix: str, known: Collection[str], folders: Collection[str], gone: list[str]
) -> None:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = f"{prefix}{entry.name}"
        if path in _NO_STRAYS or path in known:
            continue
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
        elif path in folders:
            _remove_strays(Path(entry.path), f"{path}/", known, folders, gone)
            continue
        else:
            remove_tree(Path(entry.path))
        gone.append(path)


def _publish_by_exchange(workspace: Workspace, root: Path, manifest: Manifest, kept: Collection[str]) -> bool:
    destination, beside = workspace.destination, workspace.beside
    # A link would itself be exchanged, and not the folder that it leads to.
    if destination.is_symlink() or is_mount_point(destination) or not _holds_only(destination, workspace.delivered()):
        return False
    for path in kept:
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
    root.chmod(status.st_mode & 0o7777)
    with contextlib.suppress(PermissionError):
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
        _remove(destination, set(old.by_path()) - set(manifest.by_path()))
    _check_sizes(workspace, manifest)
    sync_file_system(destination)
    workspace.next.rename(workspace.manifest)
    sync_folder(destination)


def _refuse_foreign_folders(workspace: Workspace, manifest: Manifest) -> None:
    """A file of the model may take the place of a folder only if lading brought everything in it."""
    old = workspace.delivered()
    known = old.by_path() if old else {}
    for file in manifest.files:
        place = workspace.destination / file.path
        # A link is replaced, and what it leads to stays.
        for folder, _, names in () if place.is_symlink() else os.walk(place):
            below = os.path.relpath(folder, workspace.destination)
            for name in names:
                if f"{below}/{name}" not in known:
                    raise UsageError(
                        f"the model's file {printable(file.path)} would replace a folder of the destination "
                        f"that holds {printable(f'{below}/{name}')}, which lading did not bring",
                        hint="move that folder away, or deliver elsewhere",
                    )


def _check_sizes(workspace: Workspace, manifest: Manifest) -> None:
    """The last look before the manifest: another process may have begun this publication."""
    for file in manifest.files:
        place = workspace.destination / file.path
        if not place.is_file() or place.stat().st_size != file.size_bytes:
            workspace.next.unlink()
            raise IntegrityError(
                f"an interrupted publication cannot be finished: {printable(file.path)} is missing", hint="pull again"
            )


def move_into(source: Path, target: Path) -> None:
    """Give everything in ``source`` its name in ``target``; folders that are not there move whole."""
    with os.scandir(source) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        place = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            if place.is_dir() and not place.is_symlink():
                move_into(Path(entry.path), place)
                continue
            if place.exists() or place.is_symlink():
                place.unlink()
        elif place.is_dir() and not place.is_symlink():
            # The new model has a file where the old one has a folder.
            remove_tree(place)
        os.rename(entry.path, place)


def _holds_only(destination: Path, delivered: Manifest | None) -> bool:
    """Whether everything in the destination was brought by lading."""
    known = set(delivered.by_path()) if delivered else set()
    for folder, names, files in os.walk(destination):
        if Path(folder) == destination:
            names[:] = [name for name in names if name != WORKSPACE_NAME]
            files = [name for name in files if name != FILE_NAME]
        below = os.path.relpath(folder, destination)
        prefix = "" if below == "." else f"{below}/"
        if any(f"{prefix}{name}" not in known for name in files):
            return False
        if any(os.path.islink(os.path.join(folder, name)) for name in names):
            return False
    return True


def _remove(destination: Path, paths: Iterable[str]) -> None:
    """Remove these files, and the folders that are empty without them."""
    for path in paths:
        place = destination / path
        if any(folder.is_symlink() for folder in list(place.parents)[: path.count("/")]):
            # Someone put a link in the place of a folder: what it leads to is not ours.
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            place.unlink()
        parent = place.parent
        while parent != destination:
            try:
                parent.rmdir()
            except OSError:
                break
            parent = parent.parent


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
        os.fsync(file.fileno())
