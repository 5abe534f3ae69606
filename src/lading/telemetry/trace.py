"""A delivery as a trace, made from its events and their times.

    deliver         the whole run of a command; of the agent, "cycle"
    ├── resolve     a name became a URI
    ├── list        the source listed its files
    ├── wait        another process was at work on the same
    ├── transfer    files landed, verified and unpacked
    ├── decrypt     encrypted files were decrypted
    ├── materialize files came out of the store
    ├── publish     the model became the destination
    ├── compare     instead of the steps above: the destination already held the model
    ├── record      a registry was told
    └── switch, load    the agent put a version in place, and the model server took it

Each step begins where the one before ended, and carries the fields of the event that ended it, under the
names that the JSON log gives them; events that end no step are notes on the one under way.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lading import events
from lading.errors import Interrupted, LadingError
from lading.model.reference import SCHEMES
from lading.model.uri import ModelURI
from lading.telemetry.otlp import Attributes, Note, Send, Step
from lading.text.printable import printable

_ENDS: dict[type[events.Event], str] = {
    events.Resolved: "resolve",
    events.Listed: "list",
    events.Decrypted: "decrypt",
    events.Materialized: "materialize",
    events.Delivered: "publish",
    events.AlreadyDelivered: "compare",
    events.Recorded: "record",
    events.NotRecorded: "record",
    events.Switched: "switch",
    events.Loaded: "load",
    events.RolledBack: "load",
}
# A cycle of the agent is sent only with one of these events: most cycles only find that nothing has changed.
_OUTCOMES = (events.Delivered, events.Switched, events.Loaded, events.RolledBack)
# An origin that fails for hours causes an event for each attempt.
_MOST_NOTES = 100
_NO_ERROR = ("", "")


@contextmanager
def traced(send: Send, uris: Sequence[str], listener: events.Listener) -> Iterator[events.Listener]:
    """Trace the delivery of ``uris`` in this block; gives the trace's listener, which passes events to ``listener``."""
    trace = Trace(uris)

    def tell(event: events.Event) -> None:
        trace.hear(event)
        listener(event)

    with trace.sent(send):
        yield tell


class Trace:
    """One trace in the making, of a command or of the agent's cycle for a ``delivery``.

    Events may come from any thread: workers report their retries.
    """

    def __init__(self, uris: Sequence[str], delivery: str = "") -> None:
        self._delivery = delivery
        self._uris = [_parsed(uri) for uri in uris]
        self._facts: dict[str, str | int | float | bool] = {"lading.received_bytes": 0, "lading.retries": 0}
        if delivery:
            self._facts["lading.delivery"] = delivery
        if len(uris) == 1 and self._uris[0] is not None:
            self._facts["url.full"] = as_text(self._uris[0].redacted())
            self._facts["url.scheme"] = self._uris[0].scheme.lower() or "file"
        self._lock = threading.Lock()
        # By the monotonic clock: otherwise a step could end before it begins, if the system's clock is set.
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._begun_ns = self._since_ns = self._now_ns()
        self._steps: list[Step] = []
        self._notes: list[Note] = []
        self._error = _NO_ERROR
        self._listed = 0
        self._doing = self._asking()
        self._progress: tuple[int, events.Progress] | None = None
        self._has_outcome = not delivery

    @contextmanager
    def sent(self, send: Send) -> Iterator[None]:
        """Send the trace at the end of the block, with the error that ends it; a cycle only if it changed something."""
        try:
            yield
        except BaseException as error:
            with self._lock:
                self._fail(error)
            raise
        finally:
            if self._has_outcome:
                send(self._whole())

    def hear(self, event: events.Event) -> None:
        """Take an event at the present time."""
        now_ns = self._now_ns()
        with self._lock:
            self._has_outcome |= isinstance(event, _OUTCOMES)
            self._learn(event)
            if isinstance(event, events.Progress):
                if not event.total_files:
                    # Nothing was missing.
                    return
                if self._doing == "wait":
                    self._settle(now_ns)
                self._doing, self._progress = "transfer", (now_ns, event)
            elif type(event) in _ENDS:
                self._end_step(event, now_ns)
            else:
                if isinstance(event, events.Waiting | events.WaitingForStore):
                    self._doing = "wait"
                if len(self._notes) < _MOST_NOTES:
                    self._notes.append(Note(type(event).__name__, now_ns, _fields(event)))

    def _whole(self) -> Step:
        with self._lock:
            now_ns = self._now_ns()
            self._settle(now_ns)
            name = "cycle" if self._delivery else "deliver"
            return Step(name, self._begun_ns, now_ns, self._facts, tuple(self._notes), tuple(self._steps), *self._error)

    def _learn(self, event: events.Event) -> None:
        """Take an event's facts about the whole delivery; for several models only those that can be added up."""
        facts: dict[str, str | int | float | bool] = {}
        match event:
            case events.Retried():
                self._add("lading.retries", 1)
            case events.ReusedFromStore():
                self._add("lading.supplied_bytes", event.size_bytes)
            case events.Progress():
                before = self._progress[1] if self._progress else None
                came = _received_bytes(event) - (_received_bytes(before) if before else 0)
                # The number falls when damaged bytes are fetched again.
                self._add("lading.received_bytes", max(came, 0))
            case events.Resolved():
                facts = {"lading.registry": event.registry, "lading.version": as_text(event.version)}
            case events.Listed():
                facts = {"lading.resolved": as_text(event.uri)}
            case events.Materialized():
                self._facts["lading.store_hit"] = not self._facts["lading.received_bytes"]
            case events.Delivered():
                self._add("lading.files", event.files)
                self._add("lading.size_bytes", event.size_bytes)
                facts = {"lading.digest": event.digest}
            case _:
                pass
        if len(self._uris) == 1:
            self._facts |= facts

    def _add(self, name: str, number: int) -> None:
        self._facts[name] = int(self._facts.get(name, 0)) + number

    def _asking(self) -> str:
        """The first step for the next URI, or ""."""
        if self._listed >= len(self._uris):
            return ""
        uri = self._uris[self._listed]
        return "resolve" if uri and uri.scheme.lower() in SCHEMES else "list"

    def _end_step(self, event: events.Event, now_ns: int) -> None:
        took_s = event.seconds if isinstance(event, events.Materialized) else 0.0
        self._settle(now_ns - int(took_s * 1e9))
        error = _NO_ERROR
        if isinstance(event, events.RolledBack):
            error = self._error = ("refused", as_text(event.why))
        self._close(_ENDS[type(event)], now_ns, _fields(event), error)
        if isinstance(event, events.Resolved):
            self._doing = "list"
        elif isinstance(event, events.Listed):
            self._listed += 1
            self._doing = self._asking()

    def _fail(self, error: BaseException) -> None:
        """End with an error, and end the step under way with it, if that is known."""
        self._error = _words(error)
        self._has_outcome |= self._error[0] != Interrupted.code
        moved = self._progress[1] if self._progress else None
        if moved is not None and moved.done_files == moved.total_files:
            # The transfer is complete: a later step failed, and only the error says which.
            self._settle(self._now_ns())
        elif self._doing:
            self._close(self._doing, self._now_ns(), _fields(moved) if moved else {}, self._error)

    def _settle(self, now_ns: int) -> None:
        """End the step under way if it is one without an event for its end: transfer or wait."""
        if self._progress is not None:
            moved_ns, moved = self._progress
            self._close("transfer", moved_ns, _fields(moved))
        elif self._doing == "wait":
            self._close("wait", now_ns, {})

    def _close(self, name: str, end_ns: int, attributes: Attributes, error: tuple[str, str] = _NO_ERROR) -> None:
        end_ns = max(end_ns, self._since_ns)
        self._steps.append(Step(name, self._since_ns, end_ns, attributes, tuple(self._notes), (), *error))
        self._since_ns, self._notes, self._doing, self._progress = end_ns, [], "", None

    def _now_ns(self) -> int:
        return time.monotonic_ns() + self._epoch_ns


def _parsed(uri: str) -> ModelURI | None:
    try:
        return ModelURI.parse(uri)
    except LadingError:
        # The delivery itself reports what is wrong with the URI.
        return None


def _received_bytes(event: events.Progress) -> int:
    return event.done_bytes - event.resumed_bytes


def _fields(event: events.Event) -> Attributes:
    return {
        f"lading.{name}": as_text(value) if isinstance(value, str) else value for name, value in event._asdict().items()
    }


def as_text(text: str) -> str:
    """``text`` as valid Unicode, which OTLP needs and a file's name may not be."""
    return printable(text).encode("utf-8", "backslashreplace").decode()


def _words(error: BaseException) -> tuple[str, str]:
    """The type of an error, and the message that may be sent."""
    if isinstance(error, LadingError | Interrupted):
        return error.code, as_text(error.message)
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.code, "stopped from the keyboard"
    # An unexpected error: its message could hold a secret.
    return LadingError.code, type(error).__name__
