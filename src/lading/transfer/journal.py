"""The journal: which spans of which files have landed, so that a killed run loses little.

One JSON line per span, ``[path, size, validator, start, end, crc32]``, behind one line that names
the origin.  It is a promise only: a reader computes the CRC of the staged bytes again, so a line
that outlived its bytes in a power cut costs a transfer and never a wrong file.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from lading.disk import disk_error

# A kill loses what landed since the last flush; a flush per small file would cost more than it saves.
_FLUSH_EVERY_S = 0.5


class Landed(NamedTuple):
    """A span of a file that is in the stage, pinned to the version it was read from."""

    path: str
    size_bytes: int
    validator: str
    start: int
    end: int
    crc32: int


class Journal:
    """Appends from any thread; what was there from an earlier run of the same origin is ``earlier``."""

    def __init__(self, path: Path, origin: str) -> None:
        self.earlier: dict[str, list[Landed]] = {}
        for landed in read_journal(path, origin):
            self.earlier.setdefault(landed.path, []).append(landed)
        self._path = path
        self._lock = threading.Lock()
        self._flushed_at = time.monotonic()
        # Rewritten rather than appended to: a line torn by a kill must not swallow the next one.
        rest = path.with_suffix(".next")
        self._file: IO[str] = rest.open("w", encoding="utf-8", errors="surrogatepass")
        self._file.write(json.dumps({"journal": 1, "origin": origin}) + "\n")
        for spans in self.earlier.values():
            for landed in spans:
                self._file.write(json.dumps(landed) + "\n")
        self._file.flush()
        rest.replace(path)

    def append(self, landed: Landed) -> None:
        line = json.dumps(landed) + "\n"
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write(line)
                now = time.monotonic()
                if now - self._flushed_at >= _FLUSH_EVERY_S:
                    self._file.flush()
                    self._flushed_at = now
            except OSError as error:
                raise disk_error(error, self._path) from error

    def close(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            # What cannot be written now is fetched again by the next run.
            self._file.close()


def read_journal(path: Path, origin: str) -> Iterator[Landed]:
    """What an earlier run noted for this origin; a torn or foreign journal ends where it stops making sense."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogatepass").splitlines()
        header = json.loads(lines[0])
    except (OSError, ValueError, IndexError):
        return
    if not isinstance(header, dict) or header.get("journal") != 1 or header.get("origin") != origin:
        return
    for line in lines[1:]:
        try:
            landed = Landed(*json.loads(line))
        except (ValueError, TypeError):
            return
        if not _makes_sense(landed):
            return
        yield landed


def _makes_sense(landed: Landed) -> bool:
    kinds = zip(landed, (str, int, str, int, int, int), strict=True)
    return all(type(value) is kind for value, kind in kinds) and (0 <= landed.start < landed.end <= landed.size_bytes)
