"""Reading a file while it is received, so that an archive can be unpacked meanwhile.

A reader waits for bytes that are not there yet.  ``GrowingFile`` says which ranges may be fetched without
running too far ahead of its readers, and punches holes where all of them have read, so that an archive does
not need the disk space of its whole size beside its tree.  The bytes are not verified yet: nothing that is
unpacked from them may be published before the file is sealed.

Of several archives, one is read at a time; the next ones are received meanwhile.
"""

import contextlib
import io
import os
import threading
from collections.abc import Callable
from itertools import takewhile
from threading import Condition
from typing import IO, TYPE_CHECKING, Self

from lading.model.byte_range import ByteRange, joined
from lading.system.disk import disk_error, punch_hole
from lading.system.threads import start_thread

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_AHEAD_BYTES = 1 << 20
_WINDOW_BYTES = 128 << 20
_PUNCH_BYTES = 8 << 20
_LOOK_AGAIN_S = 0.5


class GrowingFile:
    """A file of ``size_bytes`` at ``path`` whose readers wait, on ``changed``, until bytes have arrived.

    ``check`` raises when the transfer is over.  ``hashed`` gives the position before which no digest
    needs the bytes again.  Read it within its ``with`` block, which removes the file at its end.
    """

    def __init__(
        self,
        path: str,
        size_bytes: int,
        changed: Condition,
        check: Callable[[], None],
        hashed: Callable[[], int],
        *,
        most_readers: int = 1,
    ) -> None:
        self.size_bytes = size_bytes
        self.begun = False
        self._most_readers = most_readers
        self._path = path
        self._descriptor = -1
        self._changed = changed
        self._check = check
        self._hashed = hashed
        self._readers: set[_Reader] = set()
        self._ended = False
        self._in_order = False
        self._forgotten = 0
        # What has no gap is one range: there are about as many as workers and readers.
        self._arrived: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        self.begun = True
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise disk_error(error, self._path) from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def open(self) -> IO[bytes]:
        """A stream from the file's beginning with its own position; may be called from any thread."""
        reader = _Reader(self)
        with self._changed:
            self._readers.add(reader)
            self._changed.notify_all()
        return io.BufferedReader(reader, _READ_AHEAD_BYTES)

    def read_beside(self, read: Callable[[IO[bytes]], None]) -> None:
        """Call ``read`` with a stream, in ``most_readers`` threads at a time, or as many as there are; it must not raise.

        No thread is left when this returns.
        """

        def run() -> None:
            with self.open() as stream:
                read(stream)

        # Daemons: what hangs in a file system must not keep the process from ending.
        others = [
            threading.Thread(target=run, name=f"lading-unpack-{number}", daemon=True)
            for number in range(1, self._most_readers)
        ]
        started = list(takewhile(start_thread, others))
        run()
        for other in started:
            other.join()

    def read_in_order(self) -> None:
        """Declare that readers only move forward: bytes behind all of them are removed."""
        with self._changed:
            self._in_order = True
            self._changed.notify_all()

    def arrived(self, start: int, end: int) -> None:
        """Note that the bytes from ``start`` to ``end`` have arrived."""
        with self._changed:
            self._arrived = joined(self._arrived, start, end)
            self._changed.notify_all()

    def admits(self, byte_range: ByteRange) -> bool:
        """Whether this range may be fetched now, since it is being read or soon will be."""
        end = self.size_bytes if byte_range.end is None else byte_range.end
        positions = [reader.position for reader in self._readers] or [0]
        if self._ended or any(byte_range.start <= position < end for position in positions):
            return True
        return self._in_order and (
            byte_range.start < min(positions) + _WINDOW_BYTES
            or any(position <= byte_range.start < position + _WINDOW_BYTES for position in positions)
        )

    # ---- for its readers

    def read_at(self, position: int, buffer: memoryview) -> int:
        """Fill ``buffer`` with the bytes at ``position``, at least one; returns their count, 0 at the end."""
        wanted = min(len(buffer), self._wait(position) - position)
        if wanted <= 0:
            return 0
        try:
            return os.preadv(self._descriptor, [buffer[:wanted]], position)
        except OSError as error:
            raise disk_error(error, "the staged archive") from error

    def moved(self, *, left: "_Reader | None" = None) -> None:
        """Note that a reader has moved, or has ``left``: bytes behind all readers are removed, ranges near them admitted."""
        with self._changed:
            if left is not None:
                self._readers.discard(left)
            self._changed.notify_all()
            until = min((reader.position for reader in self._readers), default=0)
            until = min(until, self._hashed())
            if not self._in_order or until - self._forgotten < _PUNCH_BYTES:
                return
            start, self._forgotten = self._forgotten, until
        punch_hole(self._descriptor, start, until)

    def _wait(self, position: int) -> int:
        """Wait for the byte at ``position``; returns the end of the unbroken bytes from there."""
        with self._changed:
            while True:
                self._check()
                if position >= self.size_bytes:
                    return position
                for start, end in self._arrived:
                    if start <= position < end:
                        return end
                self._changed.wait(_LOOK_AGAIN_S)


class _Reader(io.RawIOBase):
    """One reader's position in the file."""

    def __init__(self, file: GrowingFile) -> None:
        super().__init__()
        self.position = 0
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self.position
        elif whence == os.SEEK_END:
            offset += self._file.size_bytes
        self.position = max(offset, 0)
        self._file.moved()
        return self.position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        count = self._file.read_at(self.position, memoryview(buffer))
        self.position += count
        self._file.moved()
        return count

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._file.moved(left=self)
