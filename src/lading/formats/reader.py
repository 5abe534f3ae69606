"""Reading the header of an untrusted file, within bounds."""

import struct
from typing import IO


class Damaged(ValueError):
    """The file breaks the rules of its format; the message says where, in the format's own terms."""


class Reader:
    """Reads forward through a file of ``size`` bytes; ``Damaged`` beyond its end, or beyond ``limit`` bytes."""

    def __init__(self, file: IO[bytes], size: int, limit: int) -> None:
        self._file = file
        self._limit = limit
        self.size = size
        self.position = 0
        file.seek(0)

    def take(self, count: int, what: str) -> bytes:
        """The next ``count`` bytes."""
        if count > self.size - self.position:
            raise Damaged(f"{what} of {count} bytes at byte {self.position} goes beyond the end of the file")
        if self.position + count > self._limit:
            raise Damaged(f"the header is longer than {self._limit} bytes")
        data = self._file.read(count)
        if len(data) != count:
            raise Damaged(f"{what} at byte {self.position} ends early")
        self.position += count
        return data

    def number(self, code: str, what: str) -> int:
        """The next little-endian integer; ``code`` is its letter of ``struct``."""
        form = struct.Struct(f"<{code}")
        value: int = form.unpack(self.take(form.size, what))[0]
        return value
