"""One run (its clock, its deadline, its listener), and the one retry loop: attempts, backoff with jitter, ``Retry-After``."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

from lading.errors import DeadlineExceeded, Interrupted, LadingError
from lading.events import Listener, Retried, ignore

T = TypeVar("T")

_SPREAD = 0.1


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
        return stop.wait(min(seconds, threading.TIMEOUT_MAX))


class Run(NamedTuple):
    """What all work of one run shares: an event that stops it, a clock, the deadline by that clock, a listener."""

    stop: threading.Event
    clock: Clock = SystemClock()
    deadline_s: float | None = None
    listener: Listener = ignore

    def check(self, what: str) -> None:
        """Raise when the run was stopped or its time is over; ``what`` names the work, for the message."""
        if self.stop.is_set():
            raise Interrupted(f"stopped during {what}")
        if not self.has_time():
            raise DeadlineExceeded(f"the time for {what} is over", hint="raise the deadline, or run again to resume")

    def wait(self, seconds: float, what: str) -> None:
        """Wait; raises ``Interrupted``, which names the work, when the run is stopped meanwhile."""
        if self.clock.wait(self.stop, seconds):
            raise Interrupted(f"stopped while {what}")

    def has_time(self, seconds: float = 0.0) -> bool:
        """Whether the deadline is later than ``seconds`` from now."""
        return self.deadline_s is None or self.clock.now() + seconds <= self.deadline_s


class Retry(NamedTuple):
    """How often an attempt is repeated, and with which delays.

    Full jitter, as in https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """

    run: Run
    attempts: int = 6
    base_s: float = 0.25
    cap_s: float = 20.0

    def call(
        self,
        attempt: Callable[[], T],
        *,
        what: str,
        progress: Callable[[], int] = lambda: 0,
    ) -> T:
        """The result of ``attempt``, made again while it fails with a retryable error.

        ``progress`` counts what has been gained so far; an attempt that gained something resets
        the count of attempts, since the origin evidently works.
        """
        failed = 0
        gained = progress()
        while True:
            self.run.check(what)
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
                if not self.run.has_time(delay_s):
                    raise DeadlineExceeded(
                        f"the time for {what} is over; the last answer was: {error.message}",
                        hint=error.hint or "raise the deadline, or run again to resume",
                    ) from error
                self.run.listener(Retried(what, error.message, delay_s, failed + 1, self.attempts))
                self.run.wait(delay_s, f"waiting to try {what} again")

    def _delay(self, failed: int, error: LadingError) -> float:
        # Here, and not above: most runs wait for nothing.
        import random

        if error.retry_after_s is not None:
            # The origin's wish is a lower bound; jitter keeps a fleet from coming back as one, which was told the same.
            spread_s = max(self.base_s, _SPREAD * error.retry_after_s)
            return error.retry_after_s + random.uniform(0, spread_s)  # noqa: S311 - not a secret
        # Whoever waits for ever fails more often than a float has exponents.
        return random.uniform(0, min(self.cap_s, self.base_s * 2.0 ** min(failed, 60)))  # noqa: S311 - not a secret
