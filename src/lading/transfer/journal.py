"""The journal: which spans of which files have landed, so that a killed run loses little.

One JSON line per span, ``[path, size, validator, start, end, crc32]``, behind one line that names
the origin.  It is a promise only: a reader computes the CRC of the staged bytes again, so a line
that outlived its bytes in a power cut costs a transfer and never a wrong file.
"""

import contextlib
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from lading.disk import disk_error
from lading.errors import LadingError


class Landed(NamedTuple):
    """A span of a file that is in the stage, pinned to the version it was read from."""

    path: str
    size_bytes: int
    validator: str
    start: int
    end: int
    crc32: int


class Journal:
    """Takes notes from any thread, and writes them at ``flush``.

    ``earlier`` is what a run before this one noted for the same origin, by path.
    """

    def __init__(self, path: Path, origin: str) -> None:
        self.earlier: dict[str, list[Landed]] = {}
        for landed in read_journal(path, origin):
            self.earlier.setdefault(landed.path, []).append(landed)
        self._path = path
        self._notes: deque[Landed] = deque(note for notes in self.earlier.values() for note in notes)
        # Rewritten rather than appended to: a line torn by a kill must not swallow the next one.
        rest = path.with_suffix(".next")
        try:
            with contextlib.ExitStack() as unless_done:
                self._file: IO[str] = rest.open("w", encoding="utf-8", errors="surrogatepass")
                unless_done.callback(self.close)
                self._file.write(json.dumps({"journal": 1, "origin": origin}) + "\n")
                self.flush()
                rest.replace(path)
                unless_done.pop_all()
        except OSError as error:
            raise disk_error(error, path) from error

    def append(self, landed: Landed) -> None:
        """Note a span.  It counts from the next ``flush`` on: a kill before that costs its transfer only."""
        self._notes.append(landed)

    def flush(self) -> None:
        """Write what was noted.  Call from one thread."""
        try:
            while self._notes:
                self._file.write(json.dumps(self._notes.popleft()) + "\n")
            self._file.flush()
        except OSError as error:
            raise disk_error(error, self._path) from error

    def close(self) -> None:
        # What cannot be written now is fetched again by the next run.
        with contextlib.suppress(OSError, LadingError):
            self.flush()
        with contextlib.suppress(OSError):
            self._file.close()


def read_journal(path: Path, origin: str) -> Iterator[Landed]:
    """What an earlier run noted for this origin; a torn or foreign journal ends where it stops making sense."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogatepass").splitlines()
        header = json.loads(lines[0])
    except (OSError, ValueError, IndexError, RecursionError):
        return
    if not isinstance(header, dict) or header.get("journal") != 1 or header.get("origin") != origin:
        return
    for line in lines[1:]:
        try:
            landed = Landed(*json.loads(line))
        except (ValueError, TypeError, RecursionError):
            return
        if not _makes_sense(landed):
            return
        yield landed


def _makes_sense(landed: Landed) -> bool:
    kinds = zip(landed, (str, int, str, int, int, int), strict=True)
    return all(type(value) is kind for value, kind in kinds) and (0 <= landed.start < landed.end <= landed.size_bytes)
