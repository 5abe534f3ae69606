"""One range on its way into a staged file: its checksums, and how far it came."""

from collections.abc import Callable, Sequence

from lading.errors import Unavailable
from lading.model.byte_range import ByteRange, split
from lading.model.checksums import running_crc
from lading.model.digest import Digest
from lading.text.printable import printable
from lading.transfer.staged_file import OWN_CRC, StagedFile

# What a kill may cost each worker; a line of the journal is 100 bytes.
_NOTE_BYTES = 4 << 20


class RangeWriter:
    """What a source pushes one range into.  It outlives a failed attempt: the next one continues at ``at``."""

    def __init__(
        self, staged: StagedFile, byte_range: ByteRange, check: Callable[[], None], count: Callable[[int], None]
    ) -> None:
        self.staged = staged
        self.byte_range = byte_range
        self.at = byte_range.start
        # Whether parts may follow what has come: a source that tells no versions makes sure of that itself.
        self.goes_on = staged.splits
        # A relay may tell the version of a mirror that has the same bytes: it is asked by a name that stands for them.
        self.by_relay = False
        self._noted = byte_range.start
        self._check = check
        self._count = count
        self._running: list[tuple[str, Callable[[memoryview, int], int]]] = []
        self._crcs: dict[str, int] = {}

    @property
    def rest(self) -> ByteRange:
        """What is still to come."""
        return ByteRange(self.at, self.byte_range.end)

    def cut(self, most_bytes: int) -> list[ByteRange]:
        """Keep at most ``most_bytes`` of what is still to come; returns the ranges of the rest, none where nothing may be apart."""
        if self.byte_range.end is None or not self.goes_on:
            return []
        first, *others = split(self.at, self.byte_range.end, most_bytes)
        self.byte_range = self.byte_range._replace(end=first.end)
        return others

    def version(self, validator: str) -> None:
        if self.by_relay:
            return
        whole = self.rest == ByteRange(0, self.staged.file.size_bytes)
        self.goes_on = self.staged.answered(validator, whole=whole)

    def on_digests(self, declared: Sequence[Digest]) -> None:
        self.staged.on_digests(declared)

    def write(self, piece: memoryview) -> None:
        self._check()
        if self.byte_range.end is not None and self.at + len(piece) > self.byte_range.end:
            raise Unavailable(f"{printable(self.staged.file.path)}: the origin sends more bytes than requested")
        if not self._running:
            self.staged.on_digests(())
            self._running = [(name, running_crc(name)) for name in self.staged.crcs]
            self._crcs = dict.fromkeys(self.staged.crcs, 0)
        self.staged.write(self.byte_range.start, self.at, piece)
        for name, function in self._running:
            self._crcs[name] = function(piece, self._crcs[name])
        self.at += len(piece)
        if self.at - self._noted >= _NOTE_BYTES:
            self.note()
        self._count(len(piece))

    def rewind(self) -> None:
        """Begin again: without a strong validator, the rest of another answer may belong to another version."""
        self._count(self.byte_range.start - self.at)
        self.at = self._noted = self.byte_range.start
        self._running = []
        self.staged.restart()
        self.staged.forget()

    def note(self) -> None:
        """Let a next run go on from here, should this one not come to the range's end."""
        if self.at > self._noted and (self.goes_on or self.at == self.staged.file.size_bytes):
            self._noted = self.at
            self.staged.note(self.byte_range.start, self.at, self._crcs[OWN_CRC])

    def finish(self) -> None:
        """The whole range is here."""
        if self.byte_range.end is not None and self.at < self.byte_range.end:
            raise Unavailable(
                f"{printable(self.staged.file.path)}: the origin sent {self.at - self.byte_range.start} bytes of {self.byte_range}"
            )
        if self.at > self.byte_range.start:
            self.note()
            self.staged.finish_range(self.byte_range.start, self.at, self._crcs)
