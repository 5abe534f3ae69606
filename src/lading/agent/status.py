"""The state of each delivery, for the page and the probes; the loop writes it, any thread reads it."""

import threading
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from lading import events
from lading.agent.metrics import Metrics
from lading.errors import IntegrityError, Untrusted
from lading.model.uri import redact
from lading.settings.agent import Delivery

Doing = Literal["waiting", "asking", "delivering", "switching", "loading"]


class State(NamedTuple):
    """The state of one delivery.  ``doing`` is its present step; times are Unix time, zero means never.

    The agent is started and ready without one that is not ``needed``.
    """

    name: str
    uri: str
    destination: str
    needed: bool = True
    ready: bool = False
    doing: Doing = "waiting"
    version: str = ""
    pin: str = ""
    signer: str = ""
    files: int = 0
    size_bytes: int = 0
    since_s: float = 0.0
    checked_s: float = 0.0
    succeeded_s: float = 0.0
    done_bytes: int = 0
    total_bytes: int = 0
    waits: str = ""
    code: str = ""
    error: str = ""
    hint: str = ""


class Status:
    """All deliveries, in the order of the configuration."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        # Held from the check that a name is known to its metrics: those of an unknown name would stay for ever.
        self._lock = threading.RLock()
        self._states: dict[str, State] = {}
        self._moved: dict[str, int] = {}
        self._started = False
        self.configuration_error = ""

    def configure(self, deliveries: Sequence[Delivery], beside: Sequence[Delivery] = ()) -> None:
        """Show these deliveries from now on; those that were known already stay as they are.

        The agent is ready without those ``beside``.
        """
        with self._lock:
            known, self._states = self._states, {}
            for delivery, needed in (*((each, True) for each in deliveries), *((each, False) for each in beside)):
                own = State(delivery.name, redact(delivery.uri), delivery.destination, needed)
                was = known.pop(delivery.name, own)
                same = (was.uri, was.destination) == (own.uri, own.destination)
                self._states[delivery.name] = was if same else own
            for name in known:
                self.metrics.forget(name)
                self._moved.pop(name, None)

    def states(self) -> list[State]:
        """The states of all deliveries at one time."""
        with self._lock:
            return list(self._states.values())

    def change(self, name: str, **values: Any) -> None:
        """Change fields of one delivery's state."""
        with self._lock:
            if name not in self._states:
                return
            state = self._states[name] = self._states[name]._replace(**values)
            self.metrics.set("lading_ready", float(state.ready), delivery=name)
            self.metrics.set("lading_model_bytes", state.size_bytes, delivery=name)
            self.metrics.set("lading_model_files", state.files, delivery=name)
            self.metrics.set("lading_last_success_timestamp_seconds", state.succeeded_s, delivery=name)
            self.metrics.set("lading_version_since_timestamp_seconds", state.since_s, delivery=name)
            if state.version:
                self.metrics.only("lading_version_info", delivery=name, version=state.version, pin=state.pin)
            else:
                self.metrics.remove("lading_version_info", delivery=name)
            if state.signer:
                self.metrics.only("lading_signer_info", delivery=name, signer=state.signer)
            else:
                self.metrics.remove("lading_signer_info", delivery=name)

    @property
    def is_started(self) -> bool:
        """Whether every delivery that is needed had its first cycle."""
        with self._lock:
            self._started = self._started or not self.unstarted()
            return self._started

    @property
    def is_ready(self) -> bool:
        """Whether every delivery that is needed has a verified version in place."""
        return not self.unready()

    def unstarted(self) -> list[str]:
        """The names of the deliveries that are needed and had no cycle yet."""
        return [state.name for state in self.states() if state.needed and not state.checked_s]

    def unready(self) -> list[str]:
        """The names of the deliveries that are needed and have no verified version in place."""
        return [state.name for state in self.states() if state.needed and not state.ready]

    def hear(self, name: str, event: events.Event) -> None:
        """Take an event of a delivery into its metrics and state."""
        if isinstance(event, events.Evicted):
            self.metrics.add("lading_store_evictions_total")
            return
        with self._lock:
            if name in self._states:
                self._count(name, event)

    def _count(self, name: str, event: events.Event) -> None:
        match event:
            case events.Listed():
                # The next transfer counts its bytes from zero.
                self._moved[name] = 0
            case events.Progress():
                self._move(name, event)
            case events.Retried():
                self.metrics.add("lading_retries_total", delivery=name)
            case events.NotTrusted():
                self.metrics.add("lading_not_trusted_total", delivery=name)
            case events.ReusedFromStore():
                self.metrics.add("lading_store_supplied_files_total", event.files, delivery=name)
                self.metrics.add("lading_store_supplied_bytes_total", event.size_bytes, delivery=name)
            case events.Materialized():
                self.metrics.add("lading_store_materialized_total", delivery=name)
            case events.Delivered():
                self.metrics.set("lading_delivery_seconds", event.seconds, delivery=name)
                rate = event.size_bytes / event.seconds if event.seconds else 0.0
                self.metrics.set("lading_delivery_bytes_per_second", rate, delivery=name)
            case events.Switched():
                self.metrics.add("lading_switches_total", delivery=name)
            case events.RolledBack():
                self.metrics.add("lading_rollbacks_total", delivery=name)
            case events.Failed():
                self.metrics.add("lading_failures_total", delivery=name, code=event.code)
                if event.code in (IntegrityError.code, Untrusted.code):
                    self.metrics.add("lading_verification_failures_total", delivery=name)

    def _move(self, name: str, event: events.Progress) -> None:
        received = event.done_bytes - event.resumed_bytes
        before = self._moved.get(name, 0)
        # The number falls when damaged bytes are fetched again.
        came = max(received - before, 0)
        self._moved[name] = received
        self._states[name] = self._states[name]._replace(done_bytes=event.done_bytes, total_bytes=event.total_bytes)
        if came:
            self.metrics.add("lading_received_bytes_total", came, delivery=name)
