"""Listeners that show progress: a bar on a terminal, lines elsewhere, JSON if it was asked for."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from lading import events
from lading.cli.output import draw, is_drawn, log_json, say, uses_json
from lading.errors import Unavailable
from lading.model.uri import redact
from lading.settings.settings import Settings
from lading.settings.traces import read_parent, read_traces
from lading.telemetry.messages import progress_parts, sentence
from lading.text.printable import printable

_LINE_EVERY_S = 10.0
_USUAL_COLUMNS = 80
_LEAST_BAR = 8
# Fewer failures in a row are the everyday life of a network.
_AN_OUTAGE = 4
_OUTAGE_EVERY_S = 60.0


# What is told by a command that only asks: why it takes so long, and warnings.
_OF_A_QUESTION = (events.Retried, events.PassedOver, events.LastKnown, events.OfAnotherMachine, events.NotTrusted)


@contextmanager
def reporter(*uris: str) -> Iterator[events.Listener]:
    """The listener for this process; the end of the block removes a bar, so that output begins on a new line.

    ``uris`` are those that are asked at first: a terminal shows them until something happens.
    """
    if uses_json():
        yield JsonReporter()
    elif not sys.stderr.isatty():
        yield LineReporter()
    else:
        bar = BarReporter()
        bar.ask(uris)
        try:
            yield bar
        finally:
            bar.close()


@contextmanager
def reporter_of_questions(*uris: str) -> Iterator[events.Listener]:
    """As ``reporter``, for a command that delivers nothing: its answer says the rest."""
    with reporter(*uris) as tell:
        try:
            yield lambda event: tell(event) if isinstance(event, _OF_A_QUESTION) else None
        except Unavailable as error:
            # The general hint promises that a delivery resumes.
            error.hint = error.hint or "run it again later"
            raise


def reporter_of_outages(now: Callable[[], float] = time.monotonic) -> events.Listener:
    """For a process that tries for ever: once a minute at most, it says what fails again and again."""
    tell, told_s = reporter_of(""), float("-inf")

    def listener(event: events.Event) -> None:
        nonlocal told_s
        if isinstance(event, events.Retried) and event.attempt >= _AN_OUTAGE and now() - told_s >= _OUTAGE_EVERY_S:
            told_s = now()
            # How often it has been tried says nothing where there is no end.
            tell(event._replace(attempt=0, attempts=0))

    return listener


@contextmanager
def tracing(settings: Settings, uris: Sequence[str], listener: events.Listener) -> Iterator[events.Listener]:
    """The listener for a delivery of ``uris``; it also makes a trace if the environment asks for one."""
    wanted = read_traces(settings.variables)
    if wanted is None:
        yield listener
        return
    # Here, and not above: few deliveries are traced.
    from lading.telemetry.otlp import sending
    from lading.telemetry.trace import traced

    parent = read_parent(settings.variables)
    with sending(wanted, listener, parent, settings.network) as send, traced(send, uris, listener) as heard:
        yield heard


def reporter_of(delivery: str) -> events.Listener:
    """The listener for one of several concurrent deliveries: every line names the delivery, and there is no bar."""
    return JsonReporter(delivery) if uses_json() else LineReporter(delivery)


class _Pace:
    """Passes one event of progress every ten seconds, by the transfer's own clock."""

    def __init__(self) -> None:
        self._passed_s = 0.0

    def lets_pass(self, event: events.Event) -> bool:
        if not isinstance(event, events.Progress):
            return True
        if event.elapsed_s < self._passed_s:
            # The origin was listed again, and another transfer began.
            self._passed_s = 0.0
        if event.elapsed_s - self._passed_s < _LINE_EVERY_S:
            return False
        self._passed_s = event.elapsed_s
        return True


class LineReporter:
    """Writes a line per event, and one every ten seconds of a transfer; each begins with ``delivery``, if given."""

    def __init__(self, delivery: str = "") -> None:
        self._pace = _Pace()
        self._start = f"{delivery}: " if delivery else ""

    def __call__(self, event: events.Event) -> None:
        if self._pace.lets_pass(event):
            say(self._start + sentence(event))


class JsonReporter:
    """Writes the lines of ``LineReporter`` as JSON objects, one per line."""

    def __init__(self, delivery: str = "") -> None:
        self._pace = _Pace()
        self._about = {"delivery": delivery} if delivery else {}

    def __call__(self, event: events.Event) -> None:
        if self._pace.lets_pass(event):
            fields = {**self._about, **event._asdict()}
            log_json("info", event=type(event).__name__, message=sentence(event), **fields)


class BarReporter:
    """Draws a bar for the transfer, in one line that is overwritten, and writes other events as lines above it."""

    def __init__(self) -> None:
        self._lock = Lock()

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            if not isinstance(event, events.Progress):
                say(sentence(event))
            elif is_drawn() or event.done_files < event.total_files:
                # Some terminals go to the next line when the last column is written.
                draw(bar(event, _columns() - 1))

    def ask(self, uris: Sequence[str]) -> None:
        """Show who is asked, until the next event: a listing may take long."""
        if uris:
            with self._lock:
                draw(f"asking {printable(', '.join(map(redact, uris)))}"[: _columns() - 1])

    def close(self) -> None:
        """Remove the bar; the next output says how the delivery ended."""
        with self._lock:
            draw("")


def bar(event: events.Progress, columns: int) -> str:
    """The bar in ``columns``: percent, the bar itself, and as many figures as leave room for it."""
    if not event.total_bytes:
        return _figures(event, columns)[:columns]
    share = min(1.0, event.done_bytes / event.total_bytes)
    figures = _figures(event, columns - len("100 %|| ") - _LEAST_BAR)
    width = max(0, columns - len("100 %|| ") - len(figures))
    return f"{int(100 * share):3} %|{'#' * int(width * share):{width}}| {figures}"[:columns]


def _figures(event: events.Progress, columns: int) -> str:
    moved, files, *others = progress_parts(event)
    shorter = ((moved, files, *others), (moved, *others), (moved, *others[:1]), (moved,))
    return next((text for text in map(", ".join, shorter) if len(text) <= columns), "")


def _columns() -> int:
    """The width of the terminal; some report 0 if they do not know it."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_COLUMNS
    except OSError:
        # The terminal was closed, which must not end a delivery.
        return _USUAL_COLUMNS
