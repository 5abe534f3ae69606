"""A limit on bytes per second, over all connections together."""

import threading

from lading.retry import Run


class Throttle:
    """Delays whoever moves bytes so that, over time, no more than ``bytes_per_s`` move; zero is no limit.

    Each piece books its time behind the pieces before it (the leaky bucket as a meter, ITU-T I.371).
    TCP carries the delay to the sender.
    """

    def __init__(self, bytes_per_s: float, run: Run) -> None:
        self._bytes_per_s = bytes_per_s
        self._run = run
        self._lock = threading.Lock()
        self._free_at_s = run.clock.now()

    def spend(self, size_bytes: int) -> None:
        """Account for bytes that have come, and wait until they are within the limit."""
        if not self._bytes_per_s:
            return
        with self._lock:
            now_s = self._run.clock.now()
            self._free_at_s = max(self._free_at_s, now_s) + size_bytes / self._bytes_per_s
            delay_s = self._free_at_s - now_s
        # The worker itself sees that it is stopped.
        self._run.clock.wait(self._run.stop, delay_s)
