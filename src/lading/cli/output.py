"""How a person or a log reads what happens: events, errors, sizes and times in words."""

import json
import sys
import time
from typing import Any

from lading import events
from lading.errors import LadingError
from lading.uri import printable

_LINE_EVERY_S = 10.0
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_format = "text"


def use_format(name: str | None) -> None:
    """Write errors as "text" or "json" from now on."""
    global _format  # errors are printed where no settings are at hand: they may be what failed
    _format = name or _format


def print_error(error: LadingError) -> None:
    if _format == "json":
        _print_json("error", code=error.code, message=error.message, hint=error.hint)
        return
    print(f"error[{error.code}]: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {printable(error.hint)}", file=sys.stderr)


def size(size_bytes: float) -> str:
    for unit in _UNITS:
        if abs(size_bytes) < 1024 or unit == _UNITS[-1]:
            break
        size_bytes /= 1024
    return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def reporter() -> events.Listener:
    """The listener for this process: a bar on a terminal, lines elsewhere, JSON where it was asked for."""
    if _format == "json":
        return JsonReporter()
    return BarReporter() if sys.stderr.isatty() else LineReporter()


class LineReporter:
    """A line per event, and one every ten seconds while bytes move."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Progress):
            now = time.monotonic()
            if now - self._told_at >= _LINE_EVERY_S:
                self._told_at = now
                self.say(_progress_line(event))
            return
        self.say(_line(event))

    def say(self, line: str) -> None:
        print(printable(line), file=sys.stderr, flush=True)


class BarReporter(LineReporter):
    """tqdm's bar for the bytes, and lines above it for everything else."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None

    def __call__(self, event: events.Event) -> None:
        if not isinstance(event, events.Progress):
            if self._bar is not None and isinstance(event, events.Unpacking | events.Delivered):
                self._bar.close()
                self._bar = None
            super().__call__(event)
            return
        if self._bar is None:
            if event.done_bytes >= event.total_bytes:
                return
            # Only on a terminal: loading tqdm takes longer than a small model.
            from tqdm import tqdm

            self._bar = tqdm(total=event.total_bytes, unit="B", unit_scale=True, unit_divisor=1024, dynamic_ncols=True)
        self._bar.set_postfix_str(f"{event.done_files}/{event.total_files} files", refresh=False)
        self._bar.update(event.done_bytes - self._bar.n)

    def say(self, line: str) -> None:
        if self._bar is None:
            super().say(line)
        else:
            self._bar.write(printable(line), file=sys.stderr)


class JsonReporter:
    """One JSON object per line, for machines; progress every ten seconds."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Progress):
            now = time.monotonic()
            if now - self._told_at < _LINE_EVERY_S:
                return
            self._told_at = now
        _print_json("info", event=type(event).__name__, message=_line(event), **event._asdict())


def _print_json(level: str, **fields: Any) -> None:
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    print(json.dumps({"time": moment, "level": level, **fields}, ensure_ascii=False), file=sys.stderr, flush=True)


def _line(event: events.Event) -> str:
    match event:
        case events.Resolved():
            return f"{event.requested} is {event.resolved} (registry {event.registry}, version {event.version})"
        case events.Listed():
            return f"{event.uri}: {_files(event.files)}, {size(event.size_bytes)}"
        case events.AlreadyDelivered():
            return f"{event.destination} already holds it; nothing to do"
        case events.Waiting():
            return f"waiting: another process delivers to {event.destination}"
        case events.Resumed():
            return f"resumed: {size(event.size_bytes)} were here already"
        case events.Progress():
            return _progress_line(event)
        case events.Retried():
            return f"trying again in {event.delay_s:.1f} s: {event.what}: {event.why}"
        case events.Unverified():
            others = f" and {event.files - 1} more" if event.files > 1 else ""
            return f"not verified, since the origin declares no digest: {event.example}{others}"
        case events.Unpacking():
            return f"unpacking {event.name}"
        case events.Delivered():
            rate = size(event.size_bytes / max(event.seconds, 1e-3))
            return (
                f"delivered {_files(event.files)}, {size(event.size_bytes)} to {event.destination} "
                f"in {duration(event.seconds)} ({rate}/s)"
            )


def _progress_line(event: events.Progress) -> str:
    rate = event.done_bytes / max(event.elapsed_s, 1e-3)
    text = f"{size(event.done_bytes)} of {size(event.total_bytes)}"
    if event.total_bytes:
        text += f" ({100 * event.done_bytes // event.total_bytes} %)"
    text += f", {event.done_files} of {_files(event.total_files)}, {size(rate)}/s"
    if rate and event.total_bytes > event.done_bytes:
        text += f", {duration((event.total_bytes - event.done_bytes) / rate)} left"
    return text


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
