"""Objects out of a pack, while it arrives: in bounded memory, whatever the pack says.

https://git-scm.com/docs/gitformat-pack.  A pack is a stranger's: sizes are checked before and while
anything is written, a delta may only copy from a base that came before it, and every object gets its
name from its content.
"""

import hashlib
import io
import os
import weakref
import zlib
from collections.abc import Callable, Generator
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from lading.errors import IntegrityError, Unavailable, Unsupported
from lading.settings.limits import Limits
from lading.system.disk import disk_error

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
_OFS_DELTA, _REF_DELTA = 6, 7
_NAMES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
_PIECE_BYTES = 256 * 1024
_ID_BYTES = 20
# A length of seven bits a byte that goes on longer than this is no length.
_MOST_BITS = 62

_Steps = Generator[None, bytes, None]


class Entry(NamedTuple):
    """The head of one object in a pack: ``size_bytes`` is that of what follows, inflated.

    ``base`` is what a delta is against, by its id or by its place in the pack; ``at`` is the entry's own place.
    """

    kind: int
    size_bytes: int
    base: bytes | int | None
    at: int


class Receiver(Protocol):
    """Takes the objects of a pack, one after the other."""

    def begin(self, entry: Entry) -> None: ...
    def write(self, piece: bytes) -> None: ...
    def end(self) -> None: ...


class Input:
    """Bytes that arrive in pieces, for a generator that takes them in other pieces."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        # How many bytes were taken.
        self.position = 0
        self.digest = hashlib.sha1(usedforsecurity=False)

    @property
    def rest(self) -> bytes:
        """What came and was not taken."""
        return self._data[self._at :]

    def more(self) -> _Steps:
        piece = yield
        self._data = self.rest + piece
        self._at = 0

    def take(self, count: int) -> Generator[None, bytes, bytes]:
        """Exactly ``count`` bytes."""
        while len(self._data) - self._at < count:
            yield from self.more()
        taken = self._data[self._at : self._at + count]
        self._at += count
        self._passed(taken)
        return taken

    def inflate(self, size_bytes: int, write: Callable[[bytes], None]) -> _Steps:
        """One zlib stream, which must hold exactly ``size_bytes``."""
        decoder = zlib.decompressobj()
        left = size_bytes
        while not decoder.eof:
            if self._at == len(self._data):
                yield from self.more()
            # About as much as this object can be, so that what belongs to the next is not copied for each.
            chunk = self._data[self._at : self._at + min(_PIECE_BYTES, left + left // 512 + 64)]
            rest = chunk
            while True:
                try:
                    piece = decoder.decompress(rest, _PIECE_BYTES)
                except zlib.error as error:
                    raise IntegrityError("the pack holds an object that is not compressed as it should be") from error
                rest = decoder.unconsumed_tail
                left -= len(piece)
                if left < 0:
                    raise IntegrityError("the pack holds an object that is larger than it says")
                if piece:
                    write(piece)
                if decoder.eof or not (piece or rest):
                    break
            used = len(chunk) - len(decoder.unused_data)
            self._at += used
            self._passed(chunk[:used])
        if left:
            raise IntegrityError("the pack holds an object that is smaller than it says")

    def _passed(self, data: bytes) -> None:
        self.position += len(data)
        self.digest.update(data)


class PackReader:
    """Reads one pack, piece by piece, and hands its objects to ``receiver``."""

    def __init__(self, receiver: Receiver, limits: Limits) -> None:
        self._receiver = receiver
        self._limits = limits
        self._input = Input()
        self._done = False
        self._steps = self._read()
        next(self._steps)

    def feed(self, piece: bytes) -> None:
        if not self._done:
            try:
                self._steps.send(piece)
                return
            except StopIteration:
                self._done, piece = True, self._input.rest
        if piece:
            raise IntegrityError("something follows the end of the pack")

    def finish(self) -> None:
        """All has been fed; raises ``Unavailable`` when that was not all of the pack."""
        if not self._done:
            raise Unavailable("the pack ends early")

    def _read(self) -> _Steps:
        source = self._input
        head = yield from source.take(12)
        if head[:4] != b"PACK" or head[4:8] not in (b"\0\0\0\2", b"\0\0\0\3"):
            raise IntegrityError("the server sends something that is not a pack")
        count = int.from_bytes(head[8:], "big")
        if count > self._limits.unpack_members:
            raise Unsupported(f"the pack holds {count} objects, more than {self._limits.unpack_members}")
        for _ in range(count):
            entry = yield from self._entry()
            self._receiver.begin(entry)
            yield from source.inflate(entry.size_bytes, self._receiver.write)
            self._receiver.end()
        expected = source.digest.digest()
        found = yield from source.take(_ID_BYTES)
        if found != expected:
            raise IntegrityError("the pack does not match its own digest")

    def _entry(self) -> Generator[None, bytes, Entry]:
        source = self._input
        at = source.position
        byte = (yield from source.take(1))[0]
        kind, size, shift = byte >> 4 & 7, byte & 15, 4
        while byte & 128:
            byte = (yield from source.take(1))[0]
            size |= (byte & 127) << shift
            shift += 7
            if shift > _MOST_BITS:
                raise IntegrityError("the pack holds an object without a size")
        base: bytes | int | None = None
        if kind == _REF_DELTA:
            base = yield from source.take(_ID_BYTES)
        elif kind == _OFS_DELTA:
            byte = (yield from source.take(1))[0]
            back = byte & 127
            while byte & 128:
                byte = (yield from source.take(1))[0]
                back = (back + 1) << 7 | byte & 127
                if back >> _MOST_BITS:
                    raise IntegrityError("the pack holds a delta without a base")
            base = at - back
        elif kind not in _NAMES:
            raise IntegrityError("the pack holds an object of an unknown kind")
        return Entry(kind, size, base, at)


class Stored(NamedTuple):
    """An object in the scratch file."""

    kind: int
    offset: int
    size_bytes: int


class Objects:
    """A receiver that sets objects down in ``file``, whole, whatever they were in the pack, and finds them by id.

    It closes ``file`` when it goes.
    """

    def __init__(self, file: IO[bytes], limits: Limits) -> None:
        self._file = file
        # Nobody tells a source that it is done with.
        weakref.finalize(self, file.close)
        self._limits = limits
        self._end = 0
        self._by_id: dict[bytes, Stored] = {}
        self._by_offset: dict[int, Stored] = {}
        self._entry = Entry(0, 0, None, 0)
        self._start = 0

    def clear(self) -> None:
        """Forget all, for a pack that is sent anew."""
        self._end = 0
        self._by_id.clear()
        self._by_offset.clear()

    def get(self, object_id: bytes) -> Stored | None:
        return self._by_id.get(object_id)

    def read(self, object_id: bytes, kind: int, most_bytes: int) -> bytes:
        """The content of a small object; ``IntegrityError`` if it is missing, another kind or larger."""
        found = self._by_id.get(object_id)
        if found is None or found.kind != kind:
            raise IntegrityError(f"the pack lacks the {_NAMES[kind].decode()} {object_id.hex()}")
        if found.size_bytes > most_bytes:
            raise Unsupported(f"the {_NAMES[kind].decode()} {object_id.hex()} has more than {most_bytes} bytes")
        return self.stream(found).read()

    def stream(self, found: Stored, start: int = 0) -> IO[bytes]:
        return io.BufferedReader(_Region(self._file, found.offset + start, found.size_bytes - start), _PIECE_BYTES)

    def begin(self, entry: Entry) -> None:
        self._entry = entry
        self._start = self._end
        self._refuse_beyond(entry.size_bytes)

    def write(self, piece: bytes) -> None:
        try:
            written = 0
            while written < len(piece):
                written += os.pwrite(self._file.fileno(), piece[written:], self._end + written)
        except OSError as error:
            raise disk_error(error, "the temporary file for git objects") from error
        self._end += len(piece)

    def end(self) -> None:
        entry = self._entry
        found = Stored(entry.kind, self._start, entry.size_bytes)
        if entry.base is not None:
            base = self._by_offset.get(entry.base) if isinstance(entry.base, int) else self._by_id.get(entry.base)
            if base is None:
                raise IntegrityError("the pack holds a delta whose base does not come before it")
            found = self._apply(self.stream(found), base)
        digest = hashlib.sha1(b"%s %d\0" % (_NAMES[found.kind], found.size_bytes), usedforsecurity=False)
        stream = self.stream(found)
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
        self._by_id[digest.digest()] = self._by_offset[entry.at] = found

    def _apply(self, delta: IO[bytes], base: Stored) -> Stored:
        """Put the object together that ``delta`` makes of ``base``."""
        if _length(delta) != base.size_bytes:
            raise IntegrityError("the pack holds a delta for another base")
        size, offset = _length(delta), self._end
        self._refuse_beyond(size)
        while code := delta.read(1):
            if code[0] & 128:
                piece = self._copied(base, *_copy_arguments(delta, code[0]))
            else:
                # Zero is reserved: it would be an instruction that does nothing.
                piece = delta.read(code[0])
                if not piece or len(piece) != code[0]:
                    raise IntegrityError("the pack holds a delta that ends early")
            if self._end - offset + len(piece) > size:
                raise IntegrityError("the pack holds a delta that makes more than it says")
            self.write(piece)
        if self._end - offset != size:
            raise IntegrityError("the pack holds a delta that makes less than it says")
        return Stored(base.kind, offset, size)

    def _copied(self, base: Stored, start: int, size_bytes: int) -> bytes:
        if start + size_bytes > base.size_bytes:
            raise IntegrityError("the pack holds a delta that copies from beyond its base")
        # Three bytes say the size: it is 16 MiB at most.
        return self.stream(base, start).read(size_bytes)

    def _refuse_beyond(self, size_bytes: int) -> None:
        if self._end + size_bytes > self._limits.unpack_bytes:
            raise Unsupported(f"the pack holds more than {self._limits.unpack_bytes} bytes")


class _Region(io.RawIOBase):
    """A part of a file as a stream of its own."""

    def __init__(self, file: IO[bytes], offset: int, size_bytes: int) -> None:
        self._file = file
        self._at = offset
        self._end = offset + size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        try:
            count = os.preadv(self._file.fileno(), [memoryview(buffer)[: self._end - self._at]], self._at)
        except OSError as error:
            raise disk_error(error, "the temporary file for git objects") from error
        self._at += count
        return count


def _length(delta: IO[bytes]) -> int:
    value = shift = 0
    while byte := delta.read(1):
        value |= (byte[0] & 127) << shift
        shift += 7
        if not byte[0] & 128:
            return value
        if shift > _MOST_BITS:
            break
    raise IntegrityError("the pack holds a delta without a size")


def _copy_arguments(delta: IO[bytes], code: int) -> tuple[int, int]:
    """Where to copy from, and how many bytes: of each number only the bytes that are not zero are there."""
    values = bytearray(7)
    for bit in range(7):
        if code >> bit & 1:
            byte = delta.read(1)
            if not byte:
                raise IntegrityError("the pack holds a delta that ends early")
            values[bit] = byte[0]
    return int.from_bytes(values[:4], "little"), int.from_bytes(values[4:], "little") or 0x10000
