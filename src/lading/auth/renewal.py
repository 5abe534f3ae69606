"""Credentials that end: fetched once, and renewed before they end.  Safe from any thread."""

import math
import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from lading.errors import Unavailable

# Renewed this long before they end, so that none end while a request is under way.
_RENEW_BEFORE_S = 300.0
# Credentials may come with less time left than that.  They are valid, and to ask before each request brings no others.
_ASK_AGAIN_S = 10.0


class Expiring(Protocol):
    """What is renewed: who gave it, and until when it holds (Unix time; None: for ever)."""

    @property
    def kind(self) -> str: ...

    @property
    def expires_at_s(self) -> float | None: ...


T = TypeVar("T", bound=Expiring)


class RefreshingCredential(Generic[T]):
    """What ``fetch`` gave last; ``fetch`` returns None when nothing is configured.

    ``now`` gives seconds on a clock that never goes back.
    """

    def __init__(self, fetch: Callable[[], T | None], now: Callable[[], float]) -> None:
        self._fetch = fetch
        self._now = now
        self._lock = threading.Lock()
        self._held: T | None = None
        self._refused: T | None = None
        # By ``now``: when what is held ends, and when to ask again.
        self._ends_s = math.inf
        self._due_s = -math.inf

    def get(self) -> T | None:
        """What holds now; None when nothing is configured."""
        with self._lock:
            if self._now() >= self._due_s:
                held = self._fetch() if self._held is None else self._renewed(self._held)
                if held is not self._held:
                    self._held, self._ends_s = held, self._end_of(held)
                self._due_s = max(self._ends_s - _RENEW_BEFORE_S, self._now() + _ASK_AGAIN_S)
            return self._held

    def renew(self, refused: T | None) -> bool:
        """Fetch again after a server called ``refused`` expired; false if it cannot be renewed."""
        if refused is None or refused.expires_at_s is None:
            return False
        with self._lock:
            if self._held is refused:
                self._due_s = -math.inf
                self._refused = refused
        return True

    def _renewed(self, held: T) -> T:
        """What follows ``held``, or that itself while it holds and no other can be had."""
        holds = held is not self._refused and self._ends_s > self._now()
        try:
            fresh = self._fetch()
        except Unavailable:
            if not holds:
                raise
            return held
        if fresh is None and not holds:
            # Not "there are none": without credentials, what was allowed would be refused for good.
            raise Unavailable(f"the {held.kind} credentials cannot be renewed now")
        return fresh or held

    def _end_of(self, held: T | None) -> float:
        if held is None or held.expires_at_s is None:
            return math.inf
        return self._now() + held.expires_at_s - time.time()
