"""What the deliveries of one run share: settings, an HTTP client, a clock, a listener and the signal to stop."""

from collections.abc import Callable
from threading import Event
from typing import Self

from lading.events import Listener
from lading.network.client import HttpClient
from lading.network.pace import Pace
from lading.retry import Clock, Retry, Run, SystemClock
from lading.settings.settings import Settings
from lading.system.cgroup import bounds


class Session:
    """Settings, an HTTP client, and the run with its clock, listener, deadline and signal to stop.

    Its connections are closed at the end of its ``with`` block.

    ``sessions`` is how many sessions this process has at a time: they share its memory.  ``for_pod`` says that a pod waits
    for what is fetched, and so warm-ups on its node give way.  ``give_way`` is set for a warm-up: it is called before each
    file and range, and may wait.
    """

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        clock: Clock = SystemClock(),
        *,
        sessions: int = 1,
        for_pod: bool = True,
    ) -> None:
        limits = settings.limits
        self.started_s = clock.now()
        deadline_s = self.started_s + limits.deadline_s if limits.deadline_s else None
        self.settings = settings
        self.listener = listener
        self.run = Run(Event(), clock, deadline_s, listener)
        self.for_pod = for_pod
        self.give_way: Callable[[], None] | None = None
        self.retry = Retry(self.run, limits.attempts)
        self.bounds = bounds(limits.workers, sessions=sessions)
        folder = f"{settings.store.path}/pauses" if settings.store.path else ""
        pace = Pace(self.run, limits.requests_per_s, folder, locks=settings.store.locks)
        self.http = HttpClient(settings.network, limits, self.retry, buffer_bytes=self.bounds.buffer_bytes, pace=pace)

    @property
    def seconds(self) -> float:
        """Seconds since the run began, including resolving, listing and all retries."""
        return round(self.run.clock.now() - self.started_s, 3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
