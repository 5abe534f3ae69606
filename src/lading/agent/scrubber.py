"""Scrubs the store in a thread of its own, at idle priority and a bounded rate."""

import contextlib
import threading
from collections.abc import Callable, Iterator

from lading.agent.metrics import Metrics
from lading.errors import Interrupted, LadingError
from lading.events import Failed, Listener, SetAside
from lading.network.throttle import Throttle
from lading.retry import Clock, Run
from lading.settings.store import StoreSettings
from lading.store.scrub import due_in_s, read_pass, scrub
from lading.store.store import Store
from lading.system.disk import disk_error
from lading.system.threads import become_idle, start_daemon

_LOOK_EVERY_S = 300.0


class Scrubber:
    """Hashes the store's files again whenever that is due.

    ``settings`` are those of today.  ``found`` is called after a damaged model was set aside.
    """

    def __init__(
        self,
        settings: Callable[[], StoreSettings],
        metrics: Metrics,
        listener: Listener,
        found: Callable[[], None],
        clock: Clock,
        unix_time: Callable[[], float],
    ) -> None:
        self._settings, self._metrics, self._listener, self._found = settings, metrics, listener, found
        self._unix_time = unix_time
        self._run = Run(threading.Event(), clock)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Scrub while the block runs."""
        start_daemon("scrub", self._serve)
        try:
            yield
        finally:
            self._run.stop.set()

    def _serve(self) -> None:
        become_idle()
        wait_s = 0.0
        while not self._run.clock.wait(self._run.stop, wait_s):
            with contextlib.suppress(Interrupted):
                self.look()
            wait_s = _LOOK_EVERY_S

    def look(self) -> None:
        """Scrub the store if that is due, to the end or until ``Interrupted``; errors of the store are told."""
        settings = self._settings()
        if not settings.path or not settings.scrub_s:
            return
        try:
            store = Store(settings)
            if store.writable and due_in_s(store, settings.scrub_s, self._unix_time()) <= 0:
                self._scrub(store, settings)
            self._metrics.set("lading_store_scrubbed_timestamp_seconds", read_pass(store).whole_s)
        except (LadingError, OSError) as error:
            said = error if isinstance(error, LadingError) else disk_error(error, settings.path)
            self._listener(Failed("", said.code, f"the scrub of the store: {said.message}", said.hint))

    def _scrub(self, store: Store, settings: StoreSettings) -> None:
        throttle = Throttle(settings.scrub_bytes_s, self._run)

        def hear(size_bytes: int) -> None:
            self._run.check("the scrub of the store")
            self._metrics.add("lading_store_scrubbed_bytes_total", size_bytes)
            throttle.spend(size_bytes)

        for each in scrub(store, self._unix_time(), hear):
            self._metrics.add("lading_store_damaged_total")
            self._listener(SetAside(each.uri or each.key, each.paths[0], len(each.paths)))
            self._found()
