"""Operations on files of a store that other processes may change meanwhile."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def entries(folder: Path) -> list[Path]:
    """The entries of a folder; none if it does not exist, or is a link, whose target is not the store's."""
    try:
        return [] if folder.is_symlink() else list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_below(folder: Path, unreadable: Callable[[OSError], object] = lambda _: None) -> Iterator[os.stat_result]:
    """The stat(2) result of every file below a folder, which others may change meanwhile.

    ``unreadable`` is called with the error of each folder that cannot be read.
    """
    for below, _, names in os.walk(folder, onerror=unreadable):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield os.lstat(os.path.join(below, name))


def has_size(path: Path, size_bytes: int | None) -> bool:
    """Whether there is a file of that size."""
    try:
        return path.lstat().st_size == size_bytes
    except (FileNotFoundError, NotADirectoryError):
        return False


def modified_at_s(path: Path) -> float:
    """When a file was last written, in Unix time; 0.0 if it is not there."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def touch(path: Path) -> None:
    """Note the time in an empty file; one of another user keeps its own, which ends no delivery."""
    with contextlib.suppress(PermissionError):
        path.touch()


def remove_unheld(path: Path) -> None:
    """Remove a lock that a killed process left."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)


def remove_links(stage: Path) -> None:
    """Remove the links to blobs that an earlier attempt made: files of the store must not be written."""
    for folder, _, names in os.walk(stage):
        for name in names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            if status.st_nlink > 1 or not status.st_mode & 0o200:
                os.unlink(path)
