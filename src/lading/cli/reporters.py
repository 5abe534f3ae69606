"""Listeners that show what happens: a bar on a terminal, lines elsewhere, JSON where it was asked for."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lading import events
from lading.cli.output import log_json, say, uses_json
from lading.settings.settings import Settings
from lading.settings.traces import read_parent, read_traces
from lading.telemetry.messages import progress_parts, sentence
from lading.text.printable import printable

_LINE_EVERY_S = 10.0
_USUAL_COLUMNS = 80
_LEAST_BAR = 8


@contextmanager
def reporter() -> Iterator[events.Listener]:
    """The listener for this process.  However the delivery ends, what is printed next begins on a new line."""
    if uses_json():
        yield JsonReporter()
    elif not sys.stderr.isatty():
        yield LineReporter()
    else:
        bar = BarReporter()
        try:
            yield bar
        finally:
            bar.close()


@contextmanager
def tracing(settings: Settings, uris: Sequence[str], listener: events.Listener) -> Iterator[events.Listener]:
    """The listener for a delivery of ``uris``; it also makes a trace where the environment asks for one."""
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
    """The listener for one of several deliveries at a time: every line names it, and there is no bar."""
    return JsonReporter(delivery) if uses_json() else LineReporter(delivery)


class _Pace:
    """Lets progress pass every ten seconds, by the transfer's own clock."""

    def __init__(self) -> None:
        self._passed_s = 0.0

    def lets_pass(self, event: events.Event) -> bool:
        if not isinstance(event, events.Progress):
            return True
        if event.elapsed_s < self._passed_s:
            # The origin was listed again: another transfer began.
            self._passed_s = 0.0
        if event.elapsed_s - self._passed_s < _LINE_EVERY_S:
            return False
        self._passed_s = event.elapsed_s
        return True


class LineReporter:
    """A line per event, and one every ten seconds while bytes move; before each the ``delivery``, if there is one."""

    def __init__(self, delivery: str = "") -> None:
        self._pace = _Pace()
        self._start = f"{delivery}: " if delivery else ""

    def __call__(self, event: events.Event) -> None:
        if self._pace.lets_pass(event):
            say(self._start + sentence(event))


class JsonReporter:
    """The same as JSON objects, one per line."""

    def __init__(self, delivery: str = "") -> None:
        self._pace = _Pace()
        self._about = {"delivery": delivery} if delivery else {}

    def __call__(self, event: events.Event) -> None:
        if self._pace.lets_pass(event):
            fields = {**self._about, **event._asdict()}
            log_json("info", event=type(event).__name__, message=sentence(event), **fields)


class BarReporter:
    """tqdm's bar for the bytes, as long as they move, and lines above it for everything else."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Progress):
            self._move(event)
            return
        if isinstance(event, events.Unpacking | events.Delivered):
            self.close()
        if self._bar is None:
            say(sentence(event))
        else:
            self._bar.write(printable(sentence(event)), file=sys.stderr)

    def close(self) -> None:
        """Take the bar away: what is said next tells how it ended."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _move(self, event: events.Progress) -> None:
        if self._bar is None:
            if event.done_files == event.total_files:
                return
            self._bar = _new_bar(event)
        columns = _columns()
        self._bar.ncols = columns
        # Without a total there is nothing to fill.
        self._bar.bar_format = "{percentage:3.0f} %|{bar}| {desc}" if event.total_bytes else "{desc}"
        self._bar.set_description_str(_beside_bar(event, columns), refresh=False)
        self._bar.update(event.done_bytes - self._bar.n)


def _columns() -> int:
    """How wide the terminal is; some say 0, and mean that they do not know."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _USUAL_COLUMNS
    except OSError:
        # It has gone away, which must not end a delivery.
        return _USUAL_COLUMNS


def _beside_bar(event: events.Progress, columns: int) -> str:
    """As much of what is to be told as leaves room for a bar."""
    moved, files, *others = progress_parts(event)
    shorter = ((moved, files, *others), (moved, *others), (moved, *others[:1]), (moved,))
    room = columns - (len("100 %|| ") + _LEAST_BAR if event.total_bytes else 0)
    return next((text for text in map(", ".join, shorter) if len(text) <= room), "")


def _new_bar(event: events.Progress) -> Any:
    # Only when there is something to see: loading tqdm takes longer than a small model.
    from tqdm import tqdm

    # No thread of its own: progress comes several times a second, also when no byte does (miniters).
    tqdm.monitor_interval = 0
    return tqdm(
        total=event.total_bytes or None,
        initial=event.done_bytes,
        miniters=0,
        # Nothing is drawn before the bar can be closed: a signal may come at any moment.
        delay=1e-9,
        leave=False,
        # There is one bar: however few lines the terminal says that it has, there is room for it.
        nrows=2,
    )
