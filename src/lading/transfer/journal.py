"""The journal: which ranges of which files have been received, so that a killed run loses little.

JSON lines, ``[path, size, validator, start, end, crc32]``, behind one line that names the origin.  A
range has several lines while it is received, each with a later end and the CRC up to there: the last one
counts.  The journal is not trusted: a reader computes the CRC of the staged bytes again, so that a line whose
bytes were lost in a power cut costs a transfer and never gives a wrong file.
"""

import contextlib
import json
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from lading.errors import LadingError
from lading.model.listing import ListedFile
from lading.system.disk import disk_error


class Received(NamedTuple):
    """A range of a file, or its beginning, that is in the stage, pinned to the version it was read from.

    If the answer had another validator than the listing, ``validator`` holds both, on a line each.
    """

    path: str
    size_bytes: int
    validator: str
    start: int
    end: int
    crc32: int

    @property
    def listed(self) -> str:
        """The validator that the listing had."""
        return self.validator.partition("\n")[0]

    @property
    def answered(self) -> str:
        """The validator that the answer had."""
        return self.validator.rpartition("\n")[2]


class Journal:
    """Takes entries from any thread, and writes them at ``flush``.

    ``earlier`` are the entries of the previous run for the same origin, by path.
    """

    def __init__(self, path: Path, origin: str) -> None:
        ranges: dict[tuple[str, int], Received] = {}
        for received in read_journal(path, origin):
            ranges[received.path, received.start] = received
        self.earlier: dict[str, list[Received]] = {}
        for received in ranges.values():
            self.earlier.setdefault(received.path, []).append(received)
        self._path = path
        self._notes = deque(ranges.values())
        # Rewritten rather than appended to: a line torn by a kill must not swallow the next one.
        rest = path.with_suffix(".next")
        try:
            with contextlib.ExitStack() as unless_done:
                # Never through a link, nor into a file that has another name.
                rest.unlink(missing_ok=True)
                self._file: IO[str] = rest.open("x", encoding="utf-8", errors="surrogatepass")
                unless_done.callback(self.close)
                self._file.write(json.dumps({"journal": 1, "origin": origin}) + "\n")
                self.flush()
                rest.replace(path)
                unless_done.pop_all()
        except OSError as error:
            raise disk_error(error, path) from error

    def append(self, received: Received) -> None:
        """Note a received range.  It counts from the next ``flush`` on: a kill before that costs its transfer only."""
        self._notes.append(received)

    def flush(self) -> None:
        """Write the new entries.  Call from one thread."""
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


def read_journal(path: Path, origin: str) -> Iterator[Received]:
    """The entries of the previous run for this origin; reading stops at the first line that is torn or invalid."""
    with contextlib.suppress(OSError, ValueError, TypeError, RecursionError), path.open("rb") as lines:
        # Line by line: that of a terabyte would not fit beside everything else in 64 MiB.
        header = json.loads(lines.readline())
        if not isinstance(header, dict) or header.get("journal") != 1 or header.get("origin") != origin:
            return
        for line in lines:
            received = Received(*json.loads(line))
            if not _makes_sense(received):
                return
            yield received


def usable(files: Iterable[ListedFile], earlier: Iterable[Received]) -> Iterator[Received]:
    """The ``earlier`` ranges of these files that a run can use."""
    fetched = {file.path: file for file in files}
    for received in earlier:
        file = fetched.get(received.path)
        if file and (file.size_bytes, file.validator) == (received.size_bytes, received.listed):
            yield received


def _makes_sense(received: Received) -> bool:
    kinds = zip(received, (str, int, str, int, int, int), strict=True)
    return all(type(value) is kind for value, kind in kinds) and (
        0 <= received.start < received.end <= received.size_bytes
    )
