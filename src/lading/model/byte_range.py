"""Range arithmetic.  Pure."""

from collections.abc import Iterable
from typing import NamedTuple


class ByteRange(NamedTuple):
    """The bytes from ``start`` up to, not including, ``end``; ``end`` None means to the end of the file."""

    start: int
    end: int | None

    def __str__(self) -> str:
        return f"bytes {self.start}-{'' if self.end is None else self.end - 1}"


def split(start: int, end: int, most_bytes: int) -> list[ByteRange]:
    """Consecutive ranges of at most ``most_bytes`` that cover ``start`` to ``end``."""
    return [ByteRange(at, min(at + most_bytes, end)) for at in range(start, end, most_bytes)]


def missing(size_bytes: int, done: Iterable[tuple[int, int]], most_bytes: int) -> list[ByteRange]:
    """Ranges of at most ``most_bytes`` that cover all bytes not in ``done`` (start, end pairs in any order)."""
    ranges: list[ByteRange] = []
    at = 0
    for start, end in sorted(done):
        if start > at:
            ranges += split(at, min(start, size_bytes), most_bytes)
        at = max(at, end)
    return ranges + split(at, size_bytes, most_bytes)


def joined(ranges: Iterable[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """``ranges`` and the bytes from ``start`` to ``end``, merged; no two touch, neither before nor after."""
    apart: list[tuple[int, int]] = []
    for first, last in ranges:
        if last < start or end < first:
            apart.append((first, last))
        else:
            start, end = min(start, first), max(end, last)
    return [*apart, (start, end)]
