"""Leases: which models a living process needs, so that nobody evicts them.

A lease is a file, locked by flock(2) until its process ends, however it ends.  Where locks cannot be trusted, a
lease lasts an hour: a model that is evicted nevertheless is fetched again.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from lading.store.files import entries
from lading.system.flock import LOCK_MODE

_TRUSTED_S = 3600.0


class Leases:
    """The leases in ``folder``; ``locks`` says whether flock(2) can be trusted there."""

    def __init__(self, folder: Path, *, locks: bool) -> None:
        self.folder = folder
        self._locks = locks

    @contextlib.contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Hold a lease while the block runs, or the process lives."""
        path, descriptor = self._take(key)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _take(self, key: str) -> tuple[Path, int]:
        while True:
            path = self.folder / f"{key}.{secrets.token_hex(8)}"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, LOCK_MODE)
            # Between two of these calls somebody may have found it without an owner.
            if self._lock(descriptor) and _is_at(path, descriptor):
                return path, descriptor
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _lock(self, descriptor: int) -> bool:
        """Lock a new lease; false if somebody else has locked it, who may never let go."""
        with contextlib.suppress(OSError):
            if self._locks:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
        return True

    def is_shared(self, key: str) -> bool:
        """Whether at least two need this model."""
        return sum(path.name.startswith(f"{key}.") and self._is_held(path) for path in entries(self.folder)) > 1

    def held(self) -> set[str]:
        """Keys of models that somebody needs; leases of the dead are removed."""
        return {path.name.partition(".")[0] for path in entries(self.folder) if self._is_held(path)}

    def _is_held(self, path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            # Of another user, who alone can tell; a link is nobody's.
            return error.errno != errno.ELOOP
        try:
            if self._locks:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif time.time() - os.fstat(descriptor).st_mtime < _TRUSTED_S:
                return True
            path.unlink(missing_ok=True)
            return False
        except OSError:
            return True
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
