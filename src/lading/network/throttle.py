"""A limit on how much moves in a second: bytes of all connections together, or requests to one origin."""

import threading

from lading.retry import Run


class Throttle:
    """Delays whoever moves something so that, over time, no more than ``per_s`` move in a second; zero is no limit.

    Each piece books its time behind the pieces before it (the leaky bucket as a meter, ITU-T I.371).  As much as
    moves in ``burst_s`` seconds may move at once.  TCP carries the delay of bytes to the sender.
    """

    def __init__(self, per_s: float, run: Run, *, burst_s: float = 0.0) -> None:
        self._per_s = per_s
        self._run = run
        self._burst_s = burst_s
        self._lock = threading.Lock()
        self._free_at_s = run.clock.now()

    def spend(self, amount: float) -> None:
        """Account for bytes that have come, and wait until that is within the limit."""
        delay_s = self.book(amount)
        if delay_s > 0:
            # The worker itself sees that it is stopped.
            self._run.clock.wait(self._run.stop, delay_s)

    def book(self, amount: float) -> float:
        """Account for bytes that have come, or a request to be sent; seconds until that is within the limit."""
        if not self._per_s:
            return 0.0
        with self._lock:
            now_s = self._run.clock.now()
            self._free_at_s = max(self._free_at_s, now_s) + amount / self._per_s
            return self._free_at_s - now_s - self._burst_s
