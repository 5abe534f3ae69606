"""Text from outside, made safe to print."""

import re
from collections.abc import Iterable, Sequence

# Also the C1 control characters, characters that change the direction of a line or break it, and those without a width
# but for the joiners, which scripts and emoji need.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]")


def printable(text: str) -> str:
    """``text`` with control characters escaped, so that an untrusted name cannot control a terminal."""
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def first_of(sentences: Sequence[str], most: int = 10) -> str:
    """The first sentences in one line, and how many more there are."""
    more = f"; and {len(sentences) - most} more" if len(sentences) > most else ""
    return "; ".join(sentences[:most]) + more


def wrong_paths(found: Iterable[tuple[str, str]]) -> str:
    """Faults and the paths that have them, in one line: ``missing a.bin; changed b.bin``."""
    return "; ".join(f"{kind} {printable(path)}" for kind, path in found)
