"""What is due by name, and the threads that work on it: one shape for questions, checks and reports."""

import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

_NEVER = float("inf")


class Agenda:
    """When each name is due: ``begin`` hands out what is due to the threads that run ``serve``.  Safe from any thread.

    These call ``work``, which returns one of ``outcomes``, or "" if there was nothing to do.  No two threads work on a
    name at a time: a name that is put meanwhile is handed out after that.
    """

    def __init__(self, work: Callable[[str], str], now: Callable[[], float], outcomes: Sequence[str]) -> None:
        self._work, self._now = work, now
        self._lock = threading.Lock()
        self._due_s: dict[str, float] = {}
        self._busy: set[str] = set()
        self._handed_out: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.ended = dict.fromkeys(outcomes, 0)

    def put(self, name: str, in_s: float = 0.0) -> None:
        """Let a name be due in so many seconds, unless it is due sooner."""
        with self._lock:
            self._due_s[name] = min(self._now() + in_s, self._due_s.get(name, _NEVER))

    def begin(self) -> float:
        """Hand out the names that are due; returns the seconds until the next one is due."""
        with self._lock:
            now_s = self._now()
            waiting = {name: due_s for name, due_s in self._due_s.items() if name not in self._busy}
            for name in [name for name, due_s in waiting.items() if due_s <= now_s]:
                del self._due_s[name], waiting[name]
                self._busy.add(name)
                self._handed_out.put(name)
            return min(waiting.values(), default=_NEVER) - now_s

    def serve(self, *, forever: bool = True) -> None:
        """Work on the names that are handed out, one at a time; ``forever``, or until none is left."""
        with suppress(queue.Empty):
            while True:
                self._do(self._handed_out.get(block=forever))

    def _do(self, name: str) -> None:
        outcome = ""
        try:
            outcome = self._work(name)
        finally:
            with self._lock:
                self._busy.discard(name)
                if outcome:
                    self.ended[outcome] += 1
