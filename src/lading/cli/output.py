"""The output of commands: answers to standard output, errors to standard error."""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from textwrap import indent
from typing import Any

from lading.errors import Interrupted, LadingError, Unavailable
from lading.text.printable import printable

_format = "text"
# The length of the line that ``draw`` has drawn.
_drawn = 0


def use_format(name: str | None) -> None:
    """Write errors and progress as "text" or "json" from now on."""
    global _format  # errors are printed where no settings are at hand: they may be what failed
    _format = name or _format


def uses_json() -> bool:
    return _format == "json"


def show(text: str) -> None:
    """Write to standard output.  The command succeeds even if the reader closes it early."""
    draw("")
    try:
        print(text, flush=True)
    except BrokenPipeError:
        return
    except OSError as error:
        from lading.system.disk import disk_error

        raise disk_error(error, "standard output") from error


def show_json(data: object) -> None:
    show(_json(data))


def show_json_list(about: Mapping[str, object], name: str, items: Iterable[object]) -> None:
    """As ``show_json`` of ``about`` and the list ``name``, of which no more than one item is in memory."""
    head = _json(about).removesuffix("\n}")
    show(f'{head},\n "{name}": [')
    text = ""
    for item in items:
        if text:
            show(f"{text},")
        text = indent(_json(item), "  ")
    show(f"{text}\n ]\n}}")


def _json(data: object) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False)


def print_error(error: LadingError | Interrupted) -> None:
    if uses_json():
        log_json("error", code=error.code, message=error.message, hint=hint_for(error))
        return
    say(f"error[{error.code}]: {error.message}")
    if hint_for(error):
        say(f"hint: {hint_for(error)}")


def hint_for(error: LadingError | Interrupted) -> str:
    """The error's own hint, or the general hint for errors that may go away."""
    if not error.hint and isinstance(error, Unavailable):
        return "run it again later: it resumes from what it has received"
    return error.hint


def note(line: str) -> None:
    """Write a message that is no event to the log, in the format that is set."""
    if uses_json():
        log_json("info", message=line)
    else:
        say(line)


def warn(message: str, hint: str) -> None:
    """Write a warning with a hint to the log."""
    if uses_json():
        log_json("warning", message=message, hint=hint)
    else:
        say(f"warning: {message} ({hint})")


def say(line: str) -> None:
    """Write a line to standard error, for people."""
    draw("")
    _write(f"{printable(line)}\n")


def draw(line: str) -> None:
    """Draw a line over the one that was drawn before, and stay in it; "" erases it, as any other output does."""
    global _drawn  # one terminal
    over, _drawn = _drawn, max(_drawn, len(line))
    if _drawn:
        # The length is noted before the line is written: a signal may come at any moment.
        _write("\r" + (line.ljust(over) if line else " " * over + "\r"))
    _drawn = len(line)


def is_drawn() -> bool:
    return bool(_drawn)


def log_json(level: str, **fields: Any) -> None:
    """Write a line to standard error, for machines."""
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    _write(json.dumps({"time": moment, "level": level, **fields}, ensure_ascii=False) + "\n")


def _write(text: str) -> None:
    try:
        # Written in one piece, since other threads write, too.
        print(text, end="", file=sys.stderr, flush=True)
    except OSError:
        # A log that nobody reads, or whose disk is full, must not end a delivery.
        return
