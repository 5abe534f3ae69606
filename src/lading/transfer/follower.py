"""Reading a file while it lands: what an archive is unpacked from.

A follower waits for bytes that are not there yet, says which spans may be fetched without running
too far ahead of it, and gives what was read back to the file system, so that an archive never
stands on the disk whole beside its tree.  What it reads is not verified yet: nothing that comes of
it may be published before the file is sealed.

Of several archives, one is read at a time; those after it land meanwhile.
"""

import contextlib
import io
import os
from collections.abc import Callable
from threading import Condition

from lading.disk import disk_error, punch_hole
from lading.spans import Span

_WINDOW_BYTES = 128 << 20
_PUNCH_BYTES = 8 << 20
_LOOK_AGAIN_S = 0.5


class Follower(io.RawIOBase):
    """A seekable file of ``size_bytes`` at ``place`` whose reader waits, on ``changed``, until bytes have arrived.

    ``check`` raises when the transfer is over.  ``hashed`` tells up to where no digest needs the
    bytes again.  ``begin`` comes before the first read; after ``close`` the file is gone.
    """

    def __init__(
        self, place: str, size_bytes: int, changed: Condition, check: Callable[[], None], hashed: Callable[[], int]
    ) -> None:
        super().__init__()
        self.begun = False
        self._place = place
        self._descriptor = -1
        self._size_bytes = size_bytes
        self._changed = changed
        self._check = check
        self._hashed = hashed
        self._position = 0
        self._in_order = False
        self._forgotten = 0
        self._arrived: dict[int, int] = {}

    def begin(self) -> None:
        """Open the file: from now on it is read, and what was read is forgotten."""
        self.begun = True
        try:
            self._descriptor = os.open(self._place, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise disk_error(error, self._place) from error

    def arrived(self, start: int, end: int) -> None:
        """Bytes of the span that begins at ``start`` are there, up to ``end``."""
        with self._changed:
            self._arrived[start] = end
            self._changed.notify_all()

    def admits(self, span: Span) -> bool:
        """Whether this span may be fetched now: it is the one that is read, or soon will be."""
        end = self._size_bytes if span.end is None else span.end
        if span.start <= self._position < end or self.closed:
            return True
        return self._in_order and span.start < self._position + _WINDOW_BYTES

    def read_in_order(self) -> None:
        """From now on the reader only goes forward: what lies behind it is forgotten."""
        with self._changed:
            self._in_order = True
            self._changed.notify_all()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += self._size_bytes
        with self._changed:
            self._position = max(offset, 0)
            self._changed.notify_all()
        return self._position

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # anything writable, as io has it
        view = memoryview(buffer)
        wanted = min(len(view), self._wait() - self._position)
        if wanted <= 0:
            return 0
        try:
            count = os.preadv(self._descriptor, [view[:wanted]], self._position)
        except OSError as error:
            raise disk_error(error, "the staged archive") from error
        self.seek(count, os.SEEK_CUR)
        self._forget()
        return count

    def close(self) -> None:
        if not self.closed and self._descriptor >= 0:
            os.close(self._descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._place)
        super().close()
        with self._changed:
            self._changed.notify_all()

    def _wait(self) -> int:
        """Up to where bytes are there without a gap; waits until that is behind the position."""
        with self._changed:
            while True:
                self._check()
                end = self._position
                for start, until in sorted(self._arrived.items()):
                    if start > end:
                        break
                    end = max(end, until)
                if end > self._position or self._position >= self._size_bytes:
                    return end
                self._changed.wait(_LOOK_AGAIN_S)

    def _forget(self) -> None:
        until = min(self._position, self._hashed())
        if self._in_order and until - self._forgotten >= _PUNCH_BYTES:
            punch_hole(self._descriptor, self._forgotten, until)
            self._forgotten = until
