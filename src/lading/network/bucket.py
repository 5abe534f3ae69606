"""A token bucket for the requests to one origin, which the processes of a node share.

    PAUSES/ORIGIN.requests     empty: its time is when the requests so far are paid for; held (flock) while one is added

Whoever sends a request moves the time on by the time that a request has at the allowed rate.  What is there counts as
absent if its time is one that no processes of a node can have made, and for a process that cannot change it or that
finds it held for long: such a process counts its own requests alone, which it always does.
"""

import fcntl
import os
import threading
import time

from lading.errors import DeadlineExceeded
from lading.model.origin import Origin
from lading.network.throttle import Throttle
from lading.retry import Run
from lading.system.flock import lock_soon

# The requests of one second may be sent at once, and one in any case.
_BURST_S = 1.0
# More processes than pods that a kubelet takes; each of them has one request at most in line.
_MOST_WAITING = 256
# NFS locks a file for one alone only where it is open for writing.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Bucket:
    """At most ``requests_per_s`` to ``origin``, over time, of all processes with the same ``path``; "" for no others."""

    def __init__(self, origin: Origin, requests_per_s: float, run: Run, path: str = "") -> None:
        self._origin = origin
        self._run = run
        self._path = path
        self._each_s = 1 / requests_per_s
        self._burst_s = max(_BURST_S, self._each_s)
        self._own = Throttle(requests_per_s, run, burst_s=self._burst_s)
        self._lock = threading.Lock()

    def take(self) -> None:
        """Wait until a request may be sent; ``DeadlineExceeded`` if that is too late."""
        # One thread of each process at a time: an agent with many threads does not go before a pod with few, and a
        # process that is killed leaves no line of requests that others wait for.
        with self._lock:
            delay_s = max(self._own.book(1), self._book_on_node())
            if not self._run.has_time(delay_s):
                raise DeadlineExceeded(
                    f"the time is over before the next request to {self._origin} may be sent",
                    hint="raise limits.requests_per_s or the deadline, or run again to resume",
                )
            if delay_s > 0:
                # The worker itself sees that it is stopped.
                self._run.clock.wait(self._run.stop, delay_s)

    def _book_on_node(self) -> float:
        """Add a request to those of the node; seconds until it may be sent."""
        if not self._path:
            return 0.0
        try:
            # By its name each time: a daily sweep of the store removes what was long not used.
            descriptor = os.open(self._path, _FLAGS, 0o644)
        except OSError:
            return 0.0
        try:
            if not lock_soon(descriptor, fcntl.LOCK_EX, self._run, "waiting to send a request"):
                return 0.0
            now_ns = time.time_ns()
            ahead_s = (os.fstat(descriptor).st_mtime_ns - now_ns) / 1e9
            if not 0 < ahead_s <= self._burst_s + _MOST_WAITING * self._each_s:
                ahead_s = 0.0
            ahead_s += self._each_s
            paid_ns = now_ns + int(ahead_s * 1e9)
            os.utime(descriptor, ns=(paid_ns, paid_ns))
        except (OSError, OverflowError):
            return 0.0
        finally:
            os.close(descriptor)
        return ahead_s - self._burst_s
