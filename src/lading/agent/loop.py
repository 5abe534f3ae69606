"""The loop: starts the cycle of each delivery when it is due, and goes on with another configuration when it changes."""

import random
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from lading import __version__, events
from lading.agent.configuration import Configuration
from lading.agent.cycle import Cycle
from lading.agent.http_server import Endpoint
from lading.agent.in_store import release
from lading.agent.metrics import Metrics
from lading.agent.page import Deliveries
from lading.agent.reconcile import Outcome, in_place, reconcile
from lading.agent.scrubber import Scrubber
from lading.agent.status import Doing, Status
from lading.agent.webhooks import Webhooks
from lading.errors import Interrupted, LadingError
from lading.model.manifest import Manifest
from lading.retry import Clock, SystemClock
from lading.session import Session
from lading.settings.agent import Delivery
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings
from lading.store.eviction import prune
from lading.store.store import Store
from lading.system.disk import disk_error
from lading.telemetry.otlp import Send
from lading.telemetry.trace import Trace
from lading.text.printable import printable

# The longest time until a changed configuration or a webhook is noticed.
_LOOK_EVERY_S = 5.0
_LOOK_AT_STORE_S = 300.0
# The wait for all cycles together, since SIGTERM must end the process well within 5 s.
_PATIENCE_S = 2.0
# Events that repeat in every cycle, or say no more than the event of the switch.
_NOT_LOGGED = (events.Resolved, events.TlsChosen, events.Listed, events.AlreadyDelivered)
_NEVER = float("inf")


Prefetched = Callable[[], Sequence[Delivery] | None]


class _Plan(NamedTuple):
    """The time of a delivery's next cycle, by the clock; never, while a cycle runs."""

    delivery: Delivery
    due_s: float


class Agent:
    """Keeps the deliveries of the configuration current, until it is stopped.

    Raises the errors of the first configuration; errors of a later one are reported, and the one before stays in
    use.  ``load`` reads the settings again.  ``listen`` gives the listener for a cycle of the delivery with this
    name, or of the agent itself for "".  ``send`` takes the traces of cycles.  Listeners and ``send`` may be called
    from any thread.
    """

    def __init__(
        self,
        load: Callable[[], Settings],
        listen: Callable[[str], events.Listener],
        environ: Mapping[str, str] | None = None,
        *,
        clock: Clock = SystemClock(),
        unix_time: Callable[[], float] = time.time,
        host: str = "",
        send: Send = lambda _: None,
    ) -> None:
        self._listen, self._clock, self._unix_time, self._send = listen, clock, unix_time, send
        self._host = host or socket.gethostname()
        self._configuration = Configuration(load, environ)
        # Of a later one, only the deliveries are used.
        self.settings = self._configuration.own
        self.metrics = Metrics()
        self.status = Status(self.metrics)
        self.webhooks = Webhooks(self.settings.mlflow_secret_file, unix_time, self.metrics)
        self._hinted = threading.Event()
        # Set by each event that must end the loop's wait.
        self._wake = threading.Event()
        self._plans: dict[str, _Plan] = {}
        self._cycles: list[Cycle] = []
        self._looked_s = clock.now()
        self._postponed: dict[str, str] = {}
        self._store_due_s = clock.now()
        self._prefetched: Prefetched = lambda: ()
        # Deliveries beside those of the configuration; None while they are unknown.
        self._beside: Sequence[Delivery] | None = ()
        self.metrics.set("lading_build_info", 1.0, version=__version__)
        self._use()

    def endpoint(self) -> Endpoint:
        """Make the HTTP server for this agent; it listens from now on, and answers in its ``with`` block."""
        return Endpoint(
            self.settings,
            Deliveries(self.status, lambda: self._configuration.settings.store),
            take_webhook=self.take_webhook,
        )

    def scrubber(self) -> Scrubber:
        """Make what hashes the store's files again; deliveries of a model that it sets aside are due at once."""
        return Scrubber(
            lambda: self._configuration.settings.store,
            self.metrics,
            lambda event: self._listen("")(event),
            self._hurry,
            self._clock,
            self._unix_time,
        )

    def follow_rollouts(self, prefetched: Prefetched) -> None:
        """Make the deliveries that ``prefetched`` names, too; it is asked at each ``wake``."""
        self._prefetched, self._beside = prefetched, None

    def wake(self) -> None:
        """End the wait of the loop; from any thread."""
        self._wake.set()

    def take_webhook(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Make every delivery due now if the webhook is genuine; whether it is."""
        believed = self.webhooks.accept(headers, body)
        if believed:
            self._hurry()
        return believed

    def _hurry(self) -> None:
        """Make every delivery due now; from any thread."""
        self._hinted.set()
        self._wake.set()

    def run(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Run cycles until ``stop`` is true or a delivery asks the process to end; returns the exit code.

        At the end every running cycle is stopped.
        """
        try:
            while not stop():
                code = self.tick()
                if code:
                    return code
                self._clock.wait(self._wake, self._until_next_s())
            return 0
        finally:
            until_s = time.monotonic() + _PATIENCE_S
            for cycle in self._cycles:
                cycle.stop()
            for cycle in self._cycles:
                cycle.wait(until_s)

    def tick(self) -> int:
        """Take in all changes, and begin the cycles that are due; returns an exit code to end the process, or 0."""
        self._wake.clear()
        self._reconfigure()
        if (beside := self._prefetched()) != self._beside:
            self._beside = beside
            self._plan()
        self._looked_s = self._clock.now()
        if self._hinted.is_set():
            self._hinted.clear()
            self._plans = {name: plan._replace(due_s=self._looked_s) for name, plan in self._plans.items()}
        code = self._finish()
        if not code:
            self._begin()
            self._look_at_store()
        return code

    def _until_next_s(self) -> float:
        # A delivery that is due and has not begun waits for a cycle to end.
        due_s = min((plan.due_s for plan in self._plans.values() if plan.due_s > self._looked_s), default=_NEVER)
        return max(0.0, min(due_s - self._clock.now(), _LOOK_EVERY_S))

    # ---- cycles ---------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin the cycles that are due, the longest overdue first, up to the limit of parallel cycles."""
        for plan in sorted(self._plans.values(), key=lambda plan: plan.due_s):
            if plan.due_s > self._looked_s or len(self._cycles) >= self.settings.parallel:
                return
            delivery = plan.delivery
            if not any(cycle.excludes(delivery) for cycle in self._cycles):
                self._plans[delivery.name] = plan._replace(due_s=_NEVER)
                cycle = self._new_cycle(delivery)
                self._cycles.append(cycle)
                cycle.begin()

    def _new_cycle(self, delivery: Delivery) -> Cycle:
        listener, trace = self._listen(delivery.name), Trace([delivery.uri], delivery.name)

        def tell(event: events.Event) -> None:
            if cycle.is_stopped and not isinstance(event, events.Evicted):
                return
            trace.hear(event)
            self.status.hear(delivery.name, event)
            if not isinstance(event, _NOT_LOGGED) and not self._is_logged(event):
                listener(event)

        def doing(word: Doing) -> None:
            if not cycle.is_stopped:
                self.status.change(delivery.name, doing=word)

        beside = min(self.settings.parallel, len(self._plans))
        settings = delivery.settings(self._configuration.settings)
        rate = settings.limits.max_rate_bytes_s / beside
        settings = settings._replace(limits=settings.limits._replace(max_rate_bytes_s=rate))
        # No pod waits for an update: a warm-up of this agent must not give way to an origin that is slow.
        session = Session(settings, tell, self._clock, sessions=beside, for_pod=False)
        take = partial(reconcile, delivery, session, unix_time=self._unix_time, host=self._host, doing=doing)
        cycle = Cycle(delivery, session, trace.sent(self._send)(take), self._wake.set)
        return cycle

    def _finish(self) -> int:
        """Note how cycles have ended; returns an exit code if one of them asks the process to end, or 0."""
        code = 0
        over = [cycle for cycle in self._cycles if cycle.is_over]
        self._cycles = [cycle for cycle in self._cycles if cycle not in over]
        for cycle in self._cycles:
            if cycle.is_stopped:
                cycle.stop()
        for cycle in over:
            plan = self._plans.get(cycle.delivery.name)
            if plan and plan.due_s == _NEVER:
                # Unless a webhook or another configuration has made it due meanwhile.
                next_in_s = 0.0 if cycle.is_stopped else _next_in_s(cycle.delivery)
                self._plans[cycle.delivery.name] = plan._replace(due_s=self._clock.now() + next_in_s)
            if cycle.is_stopped:
                continue
            if cycle.outcome:
                self._ended(cycle.delivery, cycle.outcome)
                code = code or cycle.outcome.exit_code
            elif cycle.error:
                self._failed(cycle.delivery, cycle.error)
        return code

    def _ended(self, delivery: Delivery, outcome: Outcome) -> None:
        self.metrics.add("lading_polls_total", delivery=delivery.name, outcome=outcome.word)
        current = outcome.word in ("unchanged", "updated")
        if current:
            self._postponed.pop(delivery.name, None)
        if outcome.word == "updated":
            self._store_due_s = self._clock.now()
        self._show(delivery, outcome.manifest, outcome.since_s, waits=outcome.waits, code="", error="", hint="")
        if current:
            self.status.change(delivery.name, succeeded_s=self._unix_time())

    def _failed(self, delivery: Delivery, error: LadingError | Interrupted) -> None:
        self.metrics.add("lading_polls_total", delivery=delivery.name, outcome="failed")
        failed = events.Failed(delivery.name, error.code, error.message, error.hint)
        self.status.hear(delivery.name, failed)
        self._listen(delivery.name)(failed)
        try:
            delivered, since_s = in_place(delivery, delivery.settings(self._configuration.settings))
        except (LadingError, OSError):
            delivered, since_s = None, 0.0
        self._show(delivery, delivered, since_s, code=error.code, error=error.message, hint=error.hint)

    def _show(self, delivery: Delivery, delivered: Manifest | None, since_s: float, **others: str) -> None:
        """Show what is in place after a cycle, even if an earlier process put it there."""
        self.status.change(
            delivery.name,
            ready=delivered is not None,
            doing="waiting",
            version=printable(delivered.version) if delivered else "",
            pin=delivered.pin if delivered else "",
            signer=delivered.signature.signer if delivered and delivered.signature else "",
            files=len(delivered.files) if delivered else 0,
            size_bytes=delivered.size_bytes if delivered else 0,
            since_s=since_s,
            checked_s=self._unix_time(),
            done_bytes=0,
            total_bytes=0,
            **others,
        )

    def _is_logged(self, event: events.Event) -> bool:
        """Whether this was logged before: a version may wait for days."""
        if not isinstance(event, events.Postponed):
            return False
        said = self._postponed.get(event.delivery) == event.version
        self._postponed[event.delivery] = event.version
        return said

    # ---- the configuration ----------------------------------------------------------------

    def _reconfigure(self) -> None:
        left = self._configuration.settings.store
        try:
            if not self._configuration.read_again():
                return
        except LadingError as error:
            self.metrics.set("lading_configuration_ok", 0.0)
            self.status.configuration_error = error.message
            self._listen("")(events.NotReconfigured(error.message, error.hint))
            return
        self._use()
        if left.path not in ("", self._configuration.settings.store.path):
            self._look_into(left, ())
        self._listen("")(events.Reconfigured(len(self._configuration.own.deliveries)))

    def _use(self) -> None:
        """Go on with the configuration as it is now."""
        self.metrics.set("lading_configuration_ok", 1.0)
        self.status.configuration_error = ""
        self._plan()

    def _plan(self) -> None:
        """Go on with the deliveries as they are now: those that are new or have changed are due now."""
        beside = self._beside or ()
        declared = self._configuration.own.deliveries
        self.status.configure(declared, beside)
        deliveries = (*declared, *beside)
        now_s = self._clock.now()
        plans = {}
        for delivery in deliveries:
            was = self._plans.get(delivery.name)
            plans[delivery.name] = was if was and was.delivery == delivery else _Plan(delivery, now_s)
        self._plans = plans
        for cycle in self._cycles:
            if cycle.delivery not in deliveries:
                cycle.stop()
        # The store is looked at now: it releases deliveries that are no longer declared.
        self._store_due_s = now_s

    # ---- the store ------------------------------------------------------------------------

    def _look_at_store(self) -> None:
        """Now and then: release what is no longer declared, evict above the store's mark, and set its metrics."""
        if not self._configuration.settings.store.path or self._clock.now() < self._store_due_s:
            return
        self._store_due_s = self._clock.now() + _LOOK_AT_STORE_S
        declared = [plan.delivery.name for plan in self._plans.values() if not plan.delivery.destination]
        # Nothing is released before it is known which rollouts there are.
        self._look_into(self._configuration.settings.store, None if self._beside is None else declared)

    def _look_into(self, settings: StoreSettings, declared: Collection[str] | None) -> None:
        try:
            store = Store(settings, self._hear_store)
            if store.writable:
                if declared is not None:
                    release(store, declared)
                prune(store)
            self.metrics.set("lading_store_models", len(store.models()))
            self.metrics.set("lading_store_bytes", store.used_bytes())
        except (LadingError, OSError) as error:
            said = error if isinstance(error, LadingError) else disk_error(error, settings.path)
            self._listen("")(events.Failed("", said.code, f"the store: {said.message}", said.hint))

    def _hear_store(self, event: events.Event) -> None:
        self.status.hear("", event)
        self._listen("")(event)


def _next_in_s(delivery: Delivery) -> float:
    """Seconds to the next cycle: jitter keeps a fleet from asking at the same time."""
    return delivery.every_s * (1 + delivery.jitter * random.uniform(-1, 1))  # noqa: S311 - not a secret
