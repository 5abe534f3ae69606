"""Authorization of requests: the one protocol for all kinds of credentials, and the one rule for refused ones.

A credential that a server took before and refuses now has ended: another one is fetched, and tried at once.  One that
never was taken is wrong, and so would the next one be.  Safe from any thread.
"""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from lading.errors import LadingError, NotAllowed, NotFound, TryAtOnce, Unavailable
from lading.network.wire import Head

_UNAUTHORIZED = 401
_MOST_TRIES = 3
# Renewed this long before they end, so that none end while a request is under way.
_RENEW_BEFORE_S = 300.0
# Credentials may come with less time left than that.  They are valid, and to ask before each request brings no others.
_ASK_AGAIN_S = 10.0


C = TypeVar("C")


class Authorizer(Protocol[C]):
    """Gives the credential for the requests to one server."""

    def get(self) -> C | None:
        """The credential for a request now; None if none is configured."""
        ...

    def accepted(self, shown: C | None) -> None:
        """The server took ``shown``; called after every request that went well."""
        ...

    def refused(self, shown: C | None, head: Head) -> bool:
        """Whether there is a better credential for a retry at once than ``shown``, which was refused by ``head``."""
        ...


class Answered(Protocol):
    """An answer whose head is known."""

    @property
    def head(self) -> Head: ...


A = TypeVar("A", bound=Answered)


def authorized(authorizer: Authorizer[C], send: Callable[[C | None], A], refusal: Callable[[A], LadingError]) -> A:
    """The answer to a request as ``send`` sends it, sent again at once after a 401 that another credential may mend.

    If none does, ``refusal`` of the answer, which ends it, is raised.
    """
    for _ in range(_MOST_TRIES):
        shown = authorizer.get()
        answer = send(shown)
        if answer.head.status != _UNAUTHORIZED:
            authorizer.accepted(shown)
            return answer
        error = refusal(answer)
        if not authorizer.refused(shown, answer.head):
            raise error
    # Other threads have changed it as often.
    raise TryAtOnce(error.message, hint=error.hint)


class Expiring(Protocol):
    """A credential that expires: its kind, and its end (Unix time; None if it does not expire)."""

    @property
    def kind(self) -> str: ...

    @property
    def expires_at_s(self) -> float | None: ...


T = TypeVar("T", bound=Expiring)


class RefreshingCredential(ABC, Generic[T]):
    """An authorizer that fetches its credential once, and renews it before it ends.

    ``now`` gives seconds on a clock that never goes back.  Where the service that gives them keeps credentials, the first
    one may be old although no server ever took it (``first_may_be_old``).
    """

    def __init__(self, now: Callable[[], float], *, first_may_be_old: bool = False) -> None:
        self._now = now
        self._first_may_be_old = first_may_be_old
        self._lock = threading.Lock()
        self._held: T | None = None
        self._accepted: T | None = None
        self._refused: T | None = None
        # By ``now``: when what is held ends, and when to ask again.
        self._ends_s = math.inf
        self._due_s = -math.inf

    def get(self) -> T | None:
        """The valid credential; None if none is configured."""
        with self._lock:
            if self._now() >= self._due_s:
                try:
                    held = self._fetch() if self._held is None else self._renewed(self._held)
                except NotFound as error:
                    # Not "there is no such model": the next registry would be asked for it.
                    raise NotAllowed(
                        error.message, hint=error.hint or "check where the credentials come from"
                    ) from error
                if held is not self._held:
                    self._held, self._ends_s = held, self._end_of(held)
                self._due_s = max(self._ends_s - _RENEW_BEFORE_S, self._now() + _ASK_AGAIN_S)
            return self._held

    def accepted(self, shown: T | None) -> None:
        if shown is self._held:
            self._accepted = shown

    def refused(self, shown: T | None, head: Head) -> bool:
        if shown is None:
            return False
        with self._lock:
            if shown is not self._held or shown is self._refused:
                # Another thread has seen to it.
                return True
            is_old = shown is self._accepted or (self._first_may_be_old and self._refused is None)
            if not is_old or shown.expires_at_s is None:
                return False
            self._due_s = -math.inf
            self._refused = shown
            return True

    def was_accepted(self, shown: T) -> bool:
        """Whether a server accepted ``shown``, or a credential that has been replaced since."""
        return shown is self._accepted or shown is not self._held

    @abstractmethod
    def _fetch(self) -> T | None:
        """A new credential; None when nothing is configured."""

    def forget(self) -> None:
        """Fetch the credential again at the next ``get``, as if for the first time."""
        with self._lock:
            self._held, self._due_s = None, -math.inf

    def _renewed(self, held: T) -> T:
        """The successor of ``held``, or ``held`` itself while it is valid and cannot be renewed."""
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
