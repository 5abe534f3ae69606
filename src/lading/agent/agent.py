"""The loop: one delivery after the other, each when its time has come, and the configuration as it is now."""

import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from lading import __version__, events
from lading.agent.endpoint import Endpoint
from lading.agent.hints import Hints
from lading.agent.metrics import Metrics
from lading.agent.status import Status
from lading.agent.update import Outcome, in_place, update
from lading.errors import Interrupted, LadingError
from lading.finding import Session
from lading.manifest import Manifest
from lading.retry import Clock, SystemClock
from lading.settings import Settings, config_path
from lading.settings.agent import AgentSettings, Delivery, read_agent
from lading.uri import printable

# How soon a changed configuration and a hint are noticed.
_LOOK_EVERY_S = 5.0
_LOOK_AT_STORE_S = 300.0
# What says the same with every turn, or nothing that the switch does not.
_UNSAID = (events.Resolved, events.Listed, events.AlreadyDelivered)


class _Turn(NamedTuple):
    """When a delivery is asked for next, by the clock."""

    delivery: Delivery
    due_s: float


class Agent:
    """Keeps what the configuration declares current, until it is stopped.

    Raises what is wrong with the first configuration; one that is wrong later is told, and the one before
    holds.  ``load`` reads the settings anew.
    """

    def __init__(
        self,
        load: Callable[[], Settings],
        environ: Mapping[str, str] | None = None,
        listener: events.Listener = events.ignore,
        *,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        unix_time: Callable[[], float] = time.time,
        host: str = "",
    ) -> None:
        self._load, self._path = load, config_path(environ)
        self._listener, self._clock, self._unix_time = listener, clock, unix_time
        self._host = host or socket.gethostname()
        self._seen = self._stamp()
        self._settings = load()
        self.settings = read_agent(self._settings)
        self.metrics = Metrics()
        self.status = Status(self.metrics)
        self.hints = Hints(self.settings.mlflow_secret_file, unix_time, self.metrics)
        self._wake = threading.Event()
        self._turns: dict[str, _Turn] = {}
        self._postponed: dict[str, str] = {}
        self._store_keys: set[str] | None = None
        self._store_due_s = clock.now()
        self.metrics.set("lading_build_info", 1.0, version=__version__)
        self._use(self.settings)

    def endpoint(self) -> Endpoint:
        """The HTTP server for this agent; it listens from now on, and answers in its ``with`` block."""
        return Endpoint(self.settings, self.status, store=lambda: self._settings.store, hint=self.hint)

    def hint(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Take a webhook; if it is believed, every delivery's turn comes now."""
        believed = self.hints.accept(headers, body)
        if believed:
            self._wake.set()
        return believed

    def run(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Take turns until ``stop`` says so or a delivery wants the process to end; returns the exit code."""
        while not stop():
            code = self.tick()
            if code:
                return code
            self._clock.wait(self._wake, self._until_next_s())
        return 0

    def tick(self) -> int:
        """Look at the configuration, and take every turn that is due; an exit code, if the process is to end."""
        self._reconfigure()
        hinted = self._wake.is_set()
        self._wake.clear()
        for name, turn in sorted(self._turns.items(), key=lambda item: item[1].due_s):
            if hinted or turn.due_s <= self._clock.now():
                code = self._take(turn.delivery)
                self._turns[name] = turn._replace(due_s=self._clock.now() + _next_in_s(turn.delivery))
                if code:
                    return code
        self._look_at_store()
        return 0

    def _until_next_s(self) -> float:
        due_s = min((turn.due_s for turn in self._turns.values()), default=float("inf"))
        return max(0.0, min(due_s - self._clock.now(), _LOOK_EVERY_S))

    def _take(self, delivery: Delivery) -> int:
        """One turn; whatever fails in it is told, and the loop goes on."""
        name = delivery.name

        def tell(event: events.Event) -> None:
            self.status.hear(name, event)
            if not isinstance(event, _UNSAID) and not self._is_said(event):
                self._listener(event)

        session = Session(delivery.settings(self._settings), tell, self._clock)
        try:
            outcome = update(
                delivery,
                session,
                unix_time=self._unix_time,
                host=self._host,
                doing=lambda word: self.status.change(name, doing=word),
            )
        except Interrupted:
            raise
        except LadingError as error:
            self._failed(delivery, error, tell)
            return 0
        except Exception as error:  # noqa: BLE001 - one delivery's defect must not end all others
            defect = LadingError(f"{type(error).__name__}", hint="this is a defect of lading: please report it")
            self._failed(delivery, defect, tell)
            return 0
        finally:
            session.http.close()
        self._ended(delivery, outcome)
        return outcome.exit_code

    def _ended(self, delivery: Delivery, outcome: Outcome) -> None:
        self.metrics.add("lading_polls_total", delivery=delivery.name, outcome=outcome.word)
        current = outcome.word in ("unchanged", "updated")
        if current:
            self._postponed.pop(delivery.name, None)
        self._show(delivery, outcome.manifest, outcome.since_s, waits=outcome.waits, code="", error="", hint="")
        if current:
            self.status.change(delivery.name, succeeded_s=self._unix_time())

    def _failed(self, delivery: Delivery, error: LadingError, tell: events.Listener) -> None:
        self.metrics.add("lading_polls_total", delivery=delivery.name, outcome="failed")
        tell(events.Failed(delivery.name, error.code, error.message, error.hint))
        there, since_s = in_place(delivery)
        self._show(delivery, there, since_s, code=error.code, error=error.message, hint=error.hint)

    def _show(self, delivery: Delivery, there: Manifest | None, since_s: float, **others: str) -> None:
        """What is in place after a turn, whoever put it there: perhaps an earlier process."""
        self.status.change(
            delivery.name,
            ready=there is not None,
            doing="waiting",
            version=printable(there.version) if there else "",
            pin=there.pin if there else "",
            files=len(there.files) if there else 0,
            size_bytes=there.size_bytes if there else 0,
            since_s=since_s,
            checked_s=self._unix_time(),
            done_bytes=0,
            total_bytes=0,
            **others,
        )

    def _is_said(self, event: events.Event) -> bool:
        """Whether the log says it already: a version may wait for days."""
        if not isinstance(event, events.Postponed):
            return False
        said = self._postponed.get(event.delivery) == event.version
        self._postponed[event.delivery] = event.version
        return said

    # ---- the configuration ----------------------------------------------------------------

    def _stamp(self) -> bytes:
        """What changes when the file does: of a ConfigMap only links change, so its content is read."""
        try:
            return hashlib.sha256(self._path.read_bytes()).digest()
        except OSError:
            return b""

    def _reconfigure(self) -> None:
        seen = self._stamp()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            settings = self._load()
            own = read_agent(settings)
        except LadingError as error:
            self.metrics.set("lading_configuration_ok", 0.0)
            self.status.configuration_error = error.message
            self._listener(events.NotReconfigured(error.message, error.hint))
            return
        self._settings = settings
        self._use(own)
        self._listener(events.Reconfigured(len(own.deliveries)))

    def _use(self, own: AgentSettings) -> None:
        """Go on with these deliveries: what is new or has changed has its turn now."""
        self.metrics.set("lading_configuration_ok", 1.0)
        self.status.configuration_error = ""
        self.status.configure(own.deliveries)
        now_s = self._clock.now()
        turns = {}
        for delivery in own.deliveries:
            was = self._turns.get(delivery.name)
            turns[delivery.name] = was if was and was.delivery == delivery else _Turn(delivery, now_s)
        self._turns = turns

    # ---- the store ------------------------------------------------------------------------

    def _look_at_store(self) -> None:
        """Note now and then what the store holds, and what has gone from it."""
        if not self._settings.store.path or self._clock.now() < self._store_due_s:
            return
        self._store_due_s = self._clock.now() + _LOOK_AT_STORE_S
        from lading.store import Store

        try:
            store = Store(self._settings.store)
            keys = {model.key for model in store.models()}
            used = store.used_bytes()
        except (LadingError, OSError):
            return
        self.metrics.set("lading_store_models", len(keys))
        self.metrics.set("lading_store_bytes", used)
        if self._store_keys is not None:
            self.metrics.add("lading_store_evictions_total", len(self._store_keys - keys))
        self._store_keys = keys


def _next_in_s(delivery: Delivery) -> float:
    """Seconds to the next turn: jitter keeps a fleet from asking as one."""
    return delivery.every_s * (1 + delivery.jitter * random.uniform(-1, 1))  # noqa: S311 - not a secret
