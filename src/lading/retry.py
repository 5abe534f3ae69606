"""The one retry loop: attempts, backoff with jitter, ``Retry-After``, a deadline, a way to stop."""

import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from lading.errors import DeadlineExceeded, Interrupted, LadingError
from lading.events import Listener, Retried, ignore

T = TypeVar("T")


class Clock(Protocol):
    """Time as the retry loop needs it; tests bring one that never sleeps."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        """Wait until ``stop`` is set or the time has passed; true if ``stop`` is set."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.wait(seconds)


class Retry(NamedTuple):
    """How often and how patiently an attempt is made again.

    Full jitter, as in https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    ``deadline_s`` is a reading of ``clock``; ``stop`` ends every wait with ``Interrupted``.
    """

    stop: threading.Event
    attempts: int = 6
    base_s: float = 0.25
    cap_s: float = 20.0
    deadline_s: float | None = None
    clock: Clock = SystemClock()
    listener: Listener = ignore

    def call(
        self,
        attempt: Callable[[], T],
        *,
        what: str,
        progress: Callable[[], int] = lambda: 0,
    ) -> T:
        """The result of ``attempt``, made again while it fails with a retryable error.

        ``progress`` counts what has been gained so far; an attempt that gained something starts
        the count of attempts anew, since the origin is evidently alive.
        """
        failed = 0
        gained = progress()
        while True:
            self.check(what)
            try:
                return attempt()
            except LadingError as error:
                if not error.retryable:
                    raise
                if progress() > gained:
                    gained, failed = progress(), 0
                failed += 1
                if failed >= self.attempts:
                    # An attempt that retries within (for a token) has done what can be done: tries do not multiply.
                    error.retryable = False
                    raise
                delay_s = self._delay(failed, error)
                if self.deadline_s is not None and self.clock.now() + delay_s > self.deadline_s:
                    raise DeadlineExceeded(
                        f"the time for {what} is over; the last answer was: {error.message}",
                        hint=error.hint or "raise the deadline, or run again to resume",
                    ) from error
                self.listener(Retried(what, error.message, delay_s, failed + 1, self.attempts))
                if self.clock.wait(self.stop, delay_s):
                    raise Interrupted(f"stopped while waiting to try {what} again") from error

    def check(self, what: str) -> None:
        """Raise when the delivery was stopped or has run out of time."""
        if self.stop.is_set():
            raise Interrupted(f"stopped during {what}")
        if self.deadline_s is not None and self.clock.now() > self.deadline_s:
            raise DeadlineExceeded(f"the time for {what} is over", hint="raise the deadline, or run again to resume")

    def _delay(self, failed: int, error: LadingError) -> float:
        if error.retry_after_s is not None:
            # The origin's wish is a lower bound; jitter keeps a fleet from coming back as one.
            return error.retry_after_s + random.uniform(0, self.base_s)  # noqa: S311 - not a secret
        return random.uniform(0, min(self.cap_s, self.base_s * 2**failed))  # noqa: S311 - not a secret
