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
from lading.system.flock import lock_soon

_LOOK_AGAIN_S = 0.5
_MOST_S = 600.0


class Priority:
    """The file ``path``; ``locks`` says whether flock(2) can be trusted there."""

    def __init__(self, path: Path, *, locks: bool) -> None:
        self._path = path
        self._locks = locks

    @contextlib.contextmanager
    def taken(self, run: Run) -> Iterator[None]:
        """Let warm-ups on this node give way while the block runs, if that is possible."""
        with contextlib.ExitStack() as stack:
            descriptor = self._open(os.O_RDONLY)
            if descriptor is not None:
                stack.callback(os.close, descriptor)
                lock_soon(descriptor, fcntl.LOCK_SH, run, "taking priority over warm-ups")
            yield

    def is_taken(self, run: Run) -> bool:
        """Whether a pod waits for what some process fetches.

        Who looks holds the file for a moment, as does another warm-up that looks at the same time.
        """
        # NFS locks a file for one alone only where it may be written; anywhere else, reading is enough.
        descriptor = self._open(os.O_RDWR)
        if descriptor is None:
            descriptor = self._open(os.O_RDONLY)
        if descriptor is None:
            return False
        try:
            return not lock_soon(descriptor, fcntl.LOCK_EX, run, "looking whether a pod waits")
        finally:
            os.close(descriptor)

    def _open(self, flags: int) -> int | None:
        """A descriptor; None where there is no such file (an older lading made the store), or no lock to trust."""
        if not self._locks:
            return None
        try:
            return os.open(self._path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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
            while self._gave_s < _MOST_S:
                looked_at_s = self._run.clock.now()
                if not self._priority.is_taken(self._run) or self._is_wanted():
                    return
                if not self._gave_s:
                    self._run.listener(GivingWay(self._uri))
                self._run.wait(_LOOK_AGAIN_S, "giving way to a pod that waits")
                self._gave_s += self._run.clock.now() - looked_at_s
