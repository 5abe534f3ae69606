"""Credentials that end: fetched once, renewed before their time is over.  Safe from any thread."""

import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from lading.errors import Unavailable

# Renewed this long before they end, so that no request goes out with what ends on its way.
_RENEW_BEFORE_S = 300.0
# They may be given out with less time left: they are good, and asking for each request brings no others.
_ASK_AGAIN_S = 10.0


class Ending(Protocol):
    """What is renewed: who gave it, and until when it holds (Unix time; None: for ever)."""

    @property
    def kind(self) -> str: ...

    @property
    def expires_at_s(self) -> float | None: ...


T = TypeVar("T", bound=Ending)


class Renewing(Generic[T]):
    """What ``fetch`` gave last; ``fetch`` returns None when nothing is configured."""

    def __init__(self, fetch: Callable[[], T | None]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._held: T | None = None
        self._refused: T | None = None
        self._asked = False
        self._asked_at_s = 0.0

    def get(self) -> T | None:
        """What holds now; None when nothing is configured."""
        with self._lock:
            held = self._held
            if held is not None and held.expires_at_s is not None:
                left_s = held.expires_at_s - time.time()
                if left_s < _RENEW_BEFORE_S and time.time() - self._asked_at_s > _ASK_AGAIN_S:
                    self._asked = False
            if not self._asked:
                self._held = self._fetch() if held is None else self._renewed(held)
                self._asked = True
                self._asked_at_s = time.time()
            return self._held

    def renew(self, refused: T | None) -> bool:
        """Fetch again after a server called ``refused`` expired; false if it cannot be renewed."""
        if refused is None or refused.expires_at_s is None:
            return False
        with self._lock:
            if self._held is refused:
                self._asked = False
                self._refused = refused
        return True

    def _renewed(self, held: T) -> T:
        """What follows ``held``, or that itself while it holds and no other can be had."""
        holds = held is not self._refused and (held.expires_at_s is None or held.expires_at_s > time.time())
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
