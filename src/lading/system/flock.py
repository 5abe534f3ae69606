"""Locks between the processes of a machine, by flock(2)."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from lading.errors import UsageError
from lading.events import Waiting
from lading.retry import Run
from lading.system.disk import disk_error
from lading.text.printable import printable

_LOOK_AGAIN_S = 0.5
_MOST_VANISHED = 100
# Of a lock that is held for a moment.
_TRIES = 5
_TRY_AGAIN_S = 0.01
_WAITING = "waiting for another process"
# No permission to read: flock(2) takes any descriptor, and a user who may not write must not get one.
LOCK_MODE = 0o222


def lock_soon(descriptor: int, how: int, run: Run, what: str) -> bool:
    """Lock a file that others lock for moments; false if one of them holds it for longer.  ``what`` names the work."""
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                run.wait(_TRY_AGAIN_S, what)
        except OSError:
            # No locks here: then nobody holds one.
            return True
        else:
            return True
    return False


@contextlib.contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """Open a folder that is lading's own, while the block runs; gives its descriptor, and refuses a symbolic link."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        if folder.is_symlink():
            raise _link(folder) from None
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _link(path: Path) -> UsageError:
    return UsageError(
        f"{printable(str(path))} is a symbolic link, which is not followed",
        hint="remove it, and see who else may write there",
    )


@contextlib.contextmanager
def holding(path: Path, run: Run, watch: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file ``path``, and remove it when the block ends; waits while another process holds it.

    While it waits, ``watch`` is called repeatedly, and may raise to end the wait.
    """
    descriptor = acquire(path, path.name, run, watch)
    try:
        yield
    finally:
        if is_still_the_lock(descriptor, path):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def acquire(path: Path, shown: str, run: Run, watch: Callable[[], None] = lambda: None) -> int:
    """Take the lock file ``path``, made if it is missing; returns its descriptor.  ``shown`` is its name in messages.

    Waits while another process holds it, and calls ``watch`` repeatedly.
    """
    reported = False
    vanished = 0
    while True:
        try:
            descriptor = _open_lock(path, shown)
        except FileNotFoundError as error:
            # Another process removed its workspace meanwhile; or nothing can be made here, as below /proc.
            vanished += 1
            if vanished > _MOST_VANISHED:
                raise disk_error(error, shown) from error
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if not reported:
                run.listener(Waiting(shown))
                reported = True
            run.wait(_LOOK_AGAIN_S, _WAITING)
            run.check(_WAITING)
            watch()
            continue
        except OSError:
            return descriptor
        if is_still_the_lock(descriptor, path):
            return descriptor
        # While this process waited, the lock file was removed, or moved away with its folder.
        os.close(descriptor)


def _open_lock(path: Path, shown: str) -> int:
    """Open the lock file, made if it is missing; ``FileNotFoundError`` if its folder vanishes between the two calls."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_folder(path.parent) as folder:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(path.name, flags, LOCK_MODE, dir_fd=folder)
    except FileNotFoundError:
        raise
    except (FileExistsError, NotADirectoryError) as error:
        wrong = str(path.parent) if path.parent.exists() else shown
        raise UsageError(f"{printable(wrong)} is not a folder") from error
    except OSError as error:
        is_link = error.errno == errno.ELOOP and path.is_symlink()
        raise (_link(path) if is_link else disk_error(error, shown)) from error


def is_still_the_lock(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still names the file that ``descriptor`` has open."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False
