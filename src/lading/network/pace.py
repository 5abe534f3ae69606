"""How often an origin is asked: not during a pause that it asked for, and no more often than the settings allow.

    PAUSES/ORIGIN              empty: its time is the end of the pause; ORIGIN is a SHA-256
    PAUSES/ORIGIN.requests     how much has been asked (``bucket``)

In this folder, a part of the store, the processes of a node tell each other of pauses and requests.  Without it, or
where it cannot be written, a process knows only its own.
"""

import contextlib
import hashlib
import os
import threading
import time

from lading.errors import Unavailable
from lading.model.origin import Origin
from lading.network.bucket import Bucket
from lading.retry import Run

# The longest that an answer can ask for (``answer.retry_after_s``): a file that says more is wrong.
_MOST_S = 300.0


class Paused(Unavailable):
    """The origin is there, and asked for a pause."""


class Pace:
    """The pauses of every origin, and a token bucket for each; zero ``requests_per_s`` is no limit.

    Pauses of an API count for that alone: the Hugging Face Hub limits it apart from files.  ``folder`` is where the
    processes of a node tell each other; "" for none.  ``locks`` says whether flock(2) can be trusted there.
    """

    def __init__(self, run: Run, requests_per_s: float = 0.0, folder: str = "", *, locks: bool = True) -> None:
        self._run = run
        self._requests_per_s = requests_per_s
        self._folder = folder
        self._locks = locks
        self._lock = threading.Lock()
        self._buckets: dict[Origin, Bucket] = {}
        # Ends of pauses by the run's clock, and the times of files that were taken over.
        self._until_s: dict[str, float] = {}
        self._seen_ns: dict[str, int] = {}

    def wait(self, origin: Origin, target: str) -> None:
        """Wait until a request may be sent; ``Paused`` in a pause, for the retry loop to wait for its end."""
        if self._folder or self._until_s:
            self._refuse_in_pause(origin, _name(origin, target))
        if self._requests_per_s:
            self._bucket(origin).take()

    def pause(self, origin: Origin, target: str, seconds: float) -> None:
        """Note that the origin asks for a pause, which begins now."""
        name = _name(origin, target)
        self._begin(name, seconds)
        if self._folder:
            self._seen_ns[name] = end_ns = time.time_ns() + int(seconds * 1e9)
            # It saves requests; no delivery fails without it.
            with contextlib.suppress(OSError):
                _write(f"{self._folder}/{name}", end_ns)

    def _bucket(self, origin: Origin) -> Bucket:
        with self._lock:
            bucket = self._buckets.get(origin)
            if bucket is None:
                path = f"{self._folder}/{_name(origin, '')}.requests" if self._folder and self._locks else ""
                bucket = self._buckets[origin] = Bucket(origin, self._requests_per_s, self._run, path)
            return bucket

    def _refuse_in_pause(self, origin: Origin, name: str) -> None:
        if self._folder:
            self._look(name)
        left_s = self._until_s.get(name, 0.0) - self._run.clock.now()
        if left_s > 0:
            raise Paused(f"{origin} asked for a pause", retry_after_s=left_s)

    def _look(self, name: str) -> None:
        """Take over a pause of which another process was told."""
        try:
            end_ns = os.lstat(f"{self._folder}/{name}").st_mtime_ns
        except OSError:
            return
        if end_ns != self._seen_ns.get(name):
            self._seen_ns[name] = end_ns
            left_s = (end_ns - time.time_ns()) / 1e9
            if left_s <= _MOST_S:
                self._begin(name, left_s)

    def _begin(self, name: str, seconds: float) -> None:
        self._until_s[name] = max(self._until_s.get(name, 0.0), self._run.clock.now() + seconds)


def _name(origin: Origin, target: str) -> str:
    part = "api" if target.startswith("/api/") else ""
    return hashlib.sha256(f"{origin}/{part}".encode("utf-8", "surrogateescape")).hexdigest()


def _write(path: str, end_ns: int) -> None:
    with contextlib.suppress(FileExistsError):
        # Never opens what is there: it may be anything.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    os.utime(path, ns=(end_ns, end_ns), follow_symlinks=False)
