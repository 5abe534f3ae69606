"""What the deliveries of one run share: settings, an HTTP client, a clock, a listener and the signal to stop."""

from threading import Event
from typing import Self

from lading.events import Listener
from lading.network.client import HttpClient
from lading.retry import Clock, Retry, Run, SystemClock
from lading.settings.settings import Settings
from lading.system.cgroup import bounds


class Session:
    """Settings, an HTTP client, and the run with its clock, listener, deadline and signal to stop.

    Its connections are closed at the end of its ``with`` block.

    ``sessions`` is how many sessions this process has at a time: they share its memory.
    """

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        clock: Clock = SystemClock(),
        *,
        sessions: int = 1,
    ) -> None:
        limits = settings.limits
        self.started_s = clock.now()
        deadline_s = self.started_s + limits.deadline_s if limits.deadline_s else None
        self.settings = settings
        self.listener = listener
        self.run = Run(Event(), clock, deadline_s, listener)
        self.retry = Retry(self.run, limits.attempts)
        self.bounds = bounds(limits.workers, sessions=sessions)
        self.http = HttpClient(settings.network, limits, self.retry, buffer_bytes=self.bounds.buffer_bytes)

    @property
    def seconds(self) -> float:
        """Seconds since the run began, including resolving, listing and all retries."""
        return round(self.run.clock.now() - self.started_s, 3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
