"""Leases: which models a living process needs, so that nobody evicts them.

A lease is a file, locked by flock(2) until its process ends, however it ends.  Where locks are not to be
trusted it counts for an hour: a model that goes nevertheless is fetched again.
"""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

_TRUSTED_S = 3600.0


class Leases:
    """The leases in ``folder``; ``locks`` says whether flock(2) can be trusted there."""

    def __init__(self, folder: Path, *, locks: bool) -> None:
        self.folder = folder
        self._locks = locks

    @contextlib.contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Hold a lease while the block runs, or the process lives."""
        place = self.folder / f"{key}.{secrets.token_hex(8)}"
        descriptor = self._take(place)
        try:
            yield
        finally:
            place.unlink(missing_ok=True)
            os.close(descriptor)

    def _take(self, place: Path) -> int:
        while True:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(OSError):
                if self._locks:
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Between the two calls somebody may have found it without an owner.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(place)):
                    return descriptor
            os.close(descriptor)

    def held(self) -> set[str]:
        """Keys of models that somebody needs; leases of the dead are removed."""
        try:
            places = list(self.folder.iterdir())
        except FileNotFoundError:
            return set()
        return {place.name.partition(".")[0] for place in places if self._is_held(place)}

    def _is_held(self, place: Path) -> bool:
        try:
            descriptor = os.open(place, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError:
            # Of another user, who alone can tell.
            return True
        try:
            if self._locks:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif time.time() - os.fstat(descriptor).st_mtime < _TRUSTED_S:
                return True
            place.unlink(missing_ok=True)
            return False
        except OSError:
            return True
        finally:
            os.close(descriptor)
