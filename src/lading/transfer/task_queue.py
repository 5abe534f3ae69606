"""The queue of a transfer: the next task, waiting for one, and the end."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from lading.model.byte_range import ByteRange
from lading.transfer.growing_file import GrowingFile

Task = Callable[[], None]


class _Held(NamedTuple):
    """A range that is fetched only when the reader of its file is near."""

    growing: GrowingFile
    byte_range: ByteRange
    task: Task


class Tasks:
    """Files to begin, and ranges of files that are begun; ranges go first, so that few files are open.

    ``left`` counts what must be finished before the transfer is over.  ``changed`` is notified
    whenever a worker or a reader that waits should look again.

    The ``count`` tasks of ``files`` are made as they are taken, for there may be a hundred thousand.  They come out of
    an iterator of the interpreter's own, as ``map`` is, whose next one several threads may ask for: a generator refuses.
    """

    def __init__(self, files: Iterator[Task], count: int) -> None:
        self.changed = threading.Condition()
        self._files = files
        self._ranges: deque[Task] = deque()
        self._held: list[_Held] = []
        self._stopped = False
        self.left = count

    def add_ranges(self, tasks: Iterable[Task]) -> None:
        with self.changed:
            self._ranges.extend(tasks)
            self.changed.notify_all()

    def hold_ranges(self, growing: GrowingFile, tasks: Iterable[tuple[ByteRange, Task]]) -> None:
        """Ranges of one file, to be taken as ``growing`` admits them."""
        with self.changed:
            self._held += [_Held(growing, byte_range, task) for byte_range, task in tasks]
            self.changed.notify_all()

    def add_work(self) -> None:
        """One more thing must be finished."""
        with self.changed:
            self.left += 1

    def finish(self) -> None:
        """One thing is finished."""
        with self.changed:
            self.left -= 1
            if not self.left:
                self.changed.notify_all()

    def stop(self) -> None:
        """Give out no more tasks."""
        with self.changed:
            self._stopped = True
            self.changed.notify_all()

    def take(self, may_work: Callable[[], bool]) -> Task | None:
        """The next task, for a worker that may work just now; waits while there is none for it.

        None when all is done, or stopped.
        """
        while not self._stopped:
            if may_work() and (task := self._ready()) is not None:
                return task
            with self.changed:
                if may_work() and (task := self._ready()) is not None:
                    return task
                if not self.left or self._stopped:
                    return None
                self.changed.wait()
        return None

    def _ready(self) -> Task | None:
        # Neither is locked: thousands of small files would queue for it.
        if self._ranges:
            with contextlib.suppress(IndexError):
                return self._ranges.popleft()
        if self._held:
            with self.changed:
                for index, held in enumerate(self._held):
                    if held.growing.admits(held.byte_range):
                        return self._held.pop(index).task
        return next(self._files, None)
