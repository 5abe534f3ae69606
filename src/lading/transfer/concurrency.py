"""How many workers run at a time: within the bounds of the cgroup, by what the transfer measures."""

from lading.system.cgroup import FEWEST_WORKERS, Bounds

# What beginning a file weighs against moving bytes, so that one rate fits large files and small ones.
FILE_WORK_BYTES = 64 << 10
_LOOK_EVERY_S = 0.05
_GAIN = 1.1
_BUSY = 0.85
_IDLE = 0.3
_HOLD_S = 2.0
_MOST_HOLD_S = 30.0
_HOLD_AFTER_TROUBLE_S = 5.0


class Governor:
    """Finds the number of workers: more while that moves more bytes, fewer when the origin has trouble.

    Near the origin a few workers keep the CPU busy, and more would only contend for it; far from it
    a worker mostly waits, and many are needed.  So ``limit`` doubles, or more, while
    the CPU is not busy and the last step paid, and halves when an origin says that it is too much
    (additive increase would take minutes to reach a hundred; a model is here before that).
    """

    def __init__(self, bounds: Bounds, now_s: float) -> None:
        self.limit = bounds.first_workers
        self._bounds = bounds
        self._seen = (now_s, 0.0, 0)
        self._before = 0
        self._rate = 0.0
        self._hold_s = _HOLD_S
        self._hold_until_s = now_s
        self._trouble_at_s = float("-inf")

    def observe(self, now_s: float, cpu_s: float, work_bytes: int) -> None:
        """Adjust ``limit`` to what was done so far: CPU seconds spent, and bytes moved (plus files, weighed)."""
        then_s, cpu_before_s, work_before = self._seen
        passed_s = now_s - then_s
        if passed_s < _LOOK_EVERY_S:
            return
        self._seen = (now_s, cpu_s, work_bytes)
        rate = (work_bytes - work_before) / passed_s
        if self._before:
            if rate < self._rate * _GAIN:
                self.limit, self._hold_until_s = self._before, now_s + self._hold_s
                self._hold_s = min(self._hold_s * 2, _MOST_HOLD_S)
            self._before = 0
        self._rate = rate
        busy = (cpu_s - cpu_before_s) / passed_s / self._bounds.cpus
        if work_bytes and busy < _BUSY and now_s >= self._hold_until_s and self.limit < self._bounds.most_workers:
            # In great steps until one was too great.
            factor = 4 if busy < _IDLE and self._hold_s == _HOLD_S else 2
            self._before, self.limit = self.limit, min(self.limit * factor, self._bounds.most_workers)

    def cap(self, workers: int, now_s: float) -> None:
        """Limit the workers to these: the system cannot start another thread."""
        self._bounds = self._bounds._replace(most_workers=workers)
        self.limit = min(self.limit, workers)
        self._before = 0
        self._hold_until_s = now_s + self._hold_s

    def trouble(self, now_s: float) -> None:
        """Halve ``limit``, since an origin asked for a pause or did not answer; once for all failures at the same time."""
        if now_s - self._trouble_at_s < _LOOK_EVERY_S:
            return
        self._trouble_at_s = now_s
        self.limit = max(min(FEWEST_WORKERS, self._bounds.most_workers), self.limit // 2)
        self._before = 0
        self._hold_until_s = now_s + _HOLD_AFTER_TROUBLE_S
