"""Priority: whoever fetches what a pod waits for goes first, and a warm-up gives way meanwhile.

    STORE/first     held (flock, shared) by each process that a pod waits for, while it fetches

A container that mounts the store read-only can hold it as well.  So can whoever may read it without need: a warm-up
gives way for ten minutes at most.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from lading.events import GivingWay
from lading.retry import Run

_LOOK_AGAIN_S = 0.5
_MOST_S = 600.0
# Who looks whether it is held holds it for a moment.
_TRIES = 5
_TRY_AGAIN_S = 0.01


class Priority:
    """The file ``path``; ``locks`` says whether flock(2) can be trusted there."""

    def __init__(self, path: Path, *, locks: bool) -> None:
        self._path = path
        self._locks = locks

    @contextlib.contextmanager
    def taken(self, run: Run) -> Iterator[None]:
        """Let warm-ups on this node give way while the block runs, if that is possible."""
        with contextlib.ExitStack() as stack:
            descriptor = self._open()
            if descriptor is not None:
                stack.callback(os.close, descriptor)
                for _ in range(_TRIES):
                    if _lock(descriptor, fcntl.LOCK_SH):
                        break
                    run.wait(_TRY_AGAIN_S, "taking priority over warm-ups")
            yield

    def is_taken(self) -> bool:
        """Whether a pod waits for what some process fetches."""
        descriptor = self._open()
        if descriptor is None:
            return False
        try:
            return not _lock(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)

    def _open(self) -> int | None:
        """A descriptor; None where there is no such file (an older lading made the store), or no lock to trust."""
        if not self._locks:
            return None
        try:
            return os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None


class WarmUp:
    """Brings a model that no pod waits for: called before each file and range, it waits while a pod waits for another.

    ``is_wanted`` says whether somebody needs this model now.  Safe from any thread.
    """

    def __init__(self, priority: Priority, uri: str, is_wanted: Callable[[], bool], run: Run) -> None:
        self._priority, self._uri, self._is_wanted, self._run = priority, uri, is_wanted, run
        self._lock = threading.Lock()
        self._gave_s = 0.0

    def __call__(self) -> None:
        with self._lock:
            while self._gave_s < _MOST_S and self._priority.is_taken() and not self._is_wanted():
                if not self._gave_s:
                    self._run.listener(GivingWay(self._uri))
                self._gave_s += _LOOK_AGAIN_S
                self._run.wait(_LOOK_AGAIN_S, "giving way to a pod that waits")


def _lock(descriptor: int, how: int) -> bool:
    """Lock a file if that is possible at once; false while another process holds it."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # No locks here: then nobody holds one.
        return True
    return True
