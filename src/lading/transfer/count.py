"""How far a transfer is: its bytes and files, those of an earlier run apart."""

import threading
from collections.abc import Sequence

from lading.events import Listener, Progress, Resumed
from lading.retry import Run
from lading.transfer.job import Job


class Count:
    """What has been received of all ``jobs`` together; safe from any thread.

    ``listener`` is told ``Resumed`` once, when it is known what of an earlier run is there.
    """

    def __init__(self, jobs: Sequence[Job], run: Run, listener: Listener) -> None:
        self.total_bytes = sum(job.listed.size_bytes for job in jobs)
        self.total_files = sum(len(job.listed.files) for job in jobs)
        self._jobs = jobs
        self._clock = run.clock
        self._listener = listener
        # By thread, so that counting a piece needs no lock: thousands of small files would queue for it.
        self._bytes: dict[int, int] = {}
        self._lock = threading.Lock()
        self._resumed_bytes = 0
        # Files of which an earlier run noted something, until it is known what of that is there.
        self._to_recover = sum(file.path in job.journal.earlier for job in jobs for file in job.listed.files)
        self._started_s = run.clock.now()

    def add(self, size_bytes: int) -> None:
        """Count bytes that were received; a negative number takes back what must be fetched again."""
        worker = threading.get_ident()
        self._bytes[worker] = self._bytes.get(worker, 0) + size_bytes

    def recovered(self, size_bytes: int) -> None:
        """Count what an earlier run received of one file."""
        self.add(size_bytes)
        with self._lock:
            self._resumed_bytes += size_bytes
            self._to_recover -= 1
            last = self._to_recover == 0
        if last and self._resumed_bytes:
            self._listener(Resumed(self._resumed_bytes))

    @property
    def done_bytes(self) -> int:
        return sum(self._bytes.copy().values())

    @property
    def fetched_bytes(self) -> int:
        """Without what an earlier run received."""
        return self.done_bytes - self._resumed_bytes

    @property
    def done_files(self) -> int:
        return sum(len(job.sealed) for job in self._jobs)

    def progress(self) -> Progress:
        elapsed_s = self._clock.now() - self._started_s
        done = self.done_bytes, self.total_bytes, self.done_files, self.total_files
        return Progress(*done, elapsed_s, self._resumed_bytes)
