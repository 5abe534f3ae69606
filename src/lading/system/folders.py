"""Removing and moving whole folders."""

import contextlib
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType

from lading.system.disk import disk_error


def move_into(source: Path, target: Path) -> None:
    """Move everything in ``source`` into ``target``; a folder that ``target`` does not have moves as a whole."""
    with os.scandir(source) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            if path.is_dir() and not path.is_symlink():
                move_into(Path(entry.path), path)
                continue
            if path.exists() or path.is_symlink():
                path.unlink()
            _move_folder(Path(entry.path), path)
            continue
        if path.is_dir() and not path.is_symlink():
            # The new model has a file in the place of a folder of the old one.
            remove_tree(path)
        os.rename(entry.path, path)


def _move_folder(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError:
        # Where a folder is only a prefix of names, as in object storage, the system may refuse to move it.
        os.mkdir(target)
        move_into(source, target)


def remove_tree(folder: Path, within: int | None = None) -> None:
    """Remove a folder that lading made; of a symbolic link only the link; a missing folder is no error.

    ``within`` is a descriptor of its parent folder.
    """
    full_path = folder if within is None else Path(folder.name)

    def fail(_: object, path: str, raised: tuple[type[BaseException], BaseException, TracebackType]) -> None:
        error = raised[1]
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            # The error itself names only the last part of a path that is walked step by step.
            raise disk_error(error, path if within is None else folder.parent / path) from error
        raise error

    while True:
        try:
            if stat.S_ISLNK(os.lstat(full_path, dir_fd=within).st_mode):
                os.unlink(full_path, dir_fd=within)
            else:
                shutil.rmtree(full_path, onerror=fail, dir_fd=within)
        except (FileNotFoundError, NotADirectoryError):
            if not _is_there(full_path, within):
                return
            # Another process removes it, too; files that it has not reached yet are still there.
        except OSError as error:
            raise disk_error(error, folder) from error


def _is_there(path: Path, within: int | None) -> bool:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(path, dir_fd=within)
        return True
    return False
