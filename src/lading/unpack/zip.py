"""Unpacking a zip: it has its directory at its end, and its members can be inflated in parallel."""

import contextlib
import os
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import IO, NamedTuple, cast

from isal import isal_zlib

from lading.errors import Unsupported
from lading.events import Backslashes
from lading.text.printable import printable
from lading.unpack.tree import Archive, TreeWriter

# Errors that the libraries raise for a damaged archive; isal's type hints declare its error as an instance.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, cast(type[Exception], isal_zlib.error))
_COPY_BYTES = 1 << 20
_LINK_BYTES = 4096
_MOST_MEMBERS = 100_000
_MOST_DIRECTORY_BYTES = 16 << 20
_DIRECTORY_ENTRY = b"PK\1\2"
# APPNOTE.TXT 4.4.2: a zip from a FAT file system, where no name contains a backslash.
_FAT = 0
# 4.4.4 and 4.6.9: names in UTF-8, by a flag or in a field of their own.
_UTF_8, _UNICODE_PATH = 1 << 11, 0x7075
_EXTRA = struct.Struct("<HH")
# 4.4.13: the number of the part is in a field of zip64.
_IN_ZIP64 = 0xFFFF
_LOCAL_HEADER = struct.Struct("<26sHH")


def unzip(archive: Archive, writer: TreeWriter) -> None:
    """Write every member, in parallel, begun in the order of their bytes in the archive."""
    with archive.open() as stream, open_zip(stream, writer.archive) as bundle:
        members = sorted(bundle.infolist(), key=lambda member: member.header_offset)
    if any(member.volume not in (0, _IN_ZIP64) for member in members):
        raise Unsupported(
            f"{writer.archive} is one part of a zip that was split", hint="join them: zip -s 0 PART.zip --out WHOLE.zip"
        )
    _tell_backslashes(members, writer)
    # If several members have one name, the last one counts.
    contents = {each.path: each for each in _contents(members, writer)}
    archive.read_in_order()
    ordered = sorted(contents.values(), key=lambda each: each.member.header_offset)
    work = _Work(writer, ordered)
    archive.read_beside(work.take)
    work.end()


def open_zip(stream: IO[bytes], archive: str) -> zipfile.ZipFile:
    """Open a zip and read its directory; ``Unsupported`` if the directory is too large for memory."""
    return zipfile.ZipFile(cast(IO[bytes], _Bounded(stream, archive)))


class _Bounded:
    """A stream that limits the directory, which zipfile keeps in memory: about 1 KiB for each member."""

    def __init__(self, stream: IO[bytes], archive: str) -> None:
        self._stream = stream
        self._archive = archive
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _MOST_DIRECTORY_BYTES:
            raise self._too_large(f"{size} bytes")
        data = self._stream.read(size)
        if data.count(_DIRECTORY_ENTRY) > _MOST_MEMBERS:
            raise self._too_large(f"more than {_MOST_MEMBERS} members")
        return data

    def _too_large(self, what: str) -> Unsupported:
        return Unsupported(
            f"the directory of {self._archive} has {what}, and a zip's stays in memory",
            hint="pack it as a tar, which has no directory",
        )


class _Content(NamedTuple):
    """A member with content, and its path below the root."""

    path: str
    member: zipfile.ZipInfo

    @property
    def mode(self) -> int:
        return self.member.external_attr >> 16


def _name(member: zipfile.ZipInfo) -> str:
    """The name of a member; backslashes of a program on Windows become slashes, as in Info-ZIP's unzip."""
    name = _spelled(member)
    return name.replace("\\", "/") if member.create_system == _FAT and "/" not in name else name


def _spelled(member: zipfile.ZipInfo) -> str:
    """The name of a member, decoded: Info-ZIP's zip and macOS write UTF-8 without the flag that says so (4.4.4, bit 11).

    zipfile takes that for code page 437, which has a character for each byte.
    """
    text = member.orig_filename
    if not member.flag_bits & _UTF_8:
        encoded = text.encode("cp437")
        with contextlib.suppress(UnicodeDecodeError):
            text = _unicode_path(member.extra, encoded) or encoded.decode()
    return text.partition("\0")[0]


def _unicode_path(extra: bytes, name: bytes) -> str:
    """The name in the extra field 0x7075 (4.6.9), if it is about this one; else "".  Not every Python's zipfile reads it."""
    while len(extra) >= _EXTRA.size:
        kind, size = _EXTRA.unpack_from(extra)
        field, extra = extra[_EXTRA.size : _EXTRA.size + size], extra[_EXTRA.size + size :]
        if kind == _UNICODE_PATH and field.startswith(b"\1" + zlib.crc32(name).to_bytes(4, "little")):
            return field[5:].decode()
    return ""


def _tell_backslashes(members: Iterable[zipfile.ZipInfo], writer: TreeWriter) -> None:
    """Report once that names have backslashes; refuse names that would leave the tree if these were slashes."""
    odd = [member for member in members if "\\" in _spelled(member)]
    for name in map(_spelled, odd):
        segments = name.replace("\\", "/").split("/")
        if ".." in segments or not segments[0]:
            raise writer.refused(f"the member {printable(name)!r}")
    if odd:
        writer.listener(Backslashes(writer.archive, len(odd), _spelled(odd[0]), _name(odd[0])))


def _contents(members: Iterable[zipfile.ZipInfo], writer: TreeWriter) -> Iterator[_Content]:
    """The members with content; makes the folders, and raises for members that are not allowed."""
    for member in members:
        name = _name(member)
        path = writer.path_of(name)
        if path is None:
            continue
        content = _Content(path, member)
        if name.endswith("/"):
            writer.folder(path)
        elif not path:
            raise writer.refused("something that is no folder in the place of the model's own")
        elif error := _why_not(content):
            raise error
        else:
            yield content


def _why_not(content: _Content) -> Unsupported | None:
    """The error of a member that is not read."""
    member, name = content.member, printable(content.path)
    if member.flag_bits & 0x1:
        return Unsupported(f"the archive's member {name!r} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python's libraries decompress other methods without a limit of memory.
        return Unsupported(
            f"the archive packs {name!r} by method {member.compress_type}", hint="pack it with the usual deflate"
        )
    if content.mode and stat.S_IFMT(content.mode) not in (0, stat.S_IFREG, stat.S_IFLNK):
        return Unsupported(f"the archive holds {name!r}, a device or something else")
    return None


class _Work:
    """The members to write; each reader of the archive takes one after the other.

    isal releases the interpreter lock, so two threads inflate on two CPUs.
    """

    def __init__(self, writer: TreeWriter, contents: Iterable[_Content]) -> None:
        self._writer = writer
        self._left = iter(contents)
        self._lock = threading.Lock()
        self._failed: list[BaseException] = []

    def take(self, stream: IO[bytes]) -> None:
        """Write members until none is left, or one has failed."""
        while not self._failed:
            with self._lock:
                content = next(self._left, None)
            if content is None:
                return
            try:
                self._write(stream, content)
            except _Stopped:
                return
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
                self._failed.append(error)

    def end(self) -> None:
        """Raise the first error, if any."""
        if self._failed:
            raise self._failed[0]

    def _write(self, stream: IO[bytes], content: _Content) -> None:
        # For an empty file some programs write no data, and call it deflated.
        stored = content.member.compress_type == zipfile.ZIP_STORED or not content.member.compress_size
        packed = (_Stored if stored else _Deflated)(stream, content.member, self._check)
        if stat.S_ISLNK(content.mode):
            # At most the length of a path: a link may be a bomb, too.
            if content.member.file_size > _LINK_BYTES:
                raise zipfile.BadZipFile("a link is longer than any path")
            # It reads to the end, where the checksum is checked.
            target = b"".join(iter(partial(packed.read, _LINK_BYTES), b""))
            self._writer.link(content.path, os.fsdecode(target))
        else:
            self._writer.file(content.path, packed, executable=bool(content.mode & stat.S_IXUSR))

    def _check(self) -> None:
        if self._failed:
            raise _Stopped


class _Stopped(Exception):
    """Another member has failed."""


class _Stored:
    """The content of a member.

    The local header is that of APPNOTE.TXT 4.3.7; size and CRC are those of the directory, and
    are checked at the end.
    """

    def __init__(self, stream: IO[bytes], member: zipfile.ZipInfo, check: Callable[[], None]) -> None:
        self._stream = stream
        self._member = member
        self._check = check
        stream.seek(member.header_offset)
        header = stream.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            raise zipfile.BadZipFile("a member does not begin where the directory says")
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        stream.seek(name_bytes + extra_bytes, os.SEEK_CUR)
        self._left = member.compress_size
        self._size = 0
        self._crc = 0

    def read(self, size: int) -> bytes:
        self._check()
        piece = self._next(size)
        self._size += len(piece)
        self._crc = isal_zlib.crc32(piece, self._crc)
        if self._size > self._member.file_size or (
            not piece and (self._size, self._crc) != (self._member.file_size, self._member.CRC)
        ):
            raise zipfile.BadZipFile("a member is not what the directory says")
        return piece

    def _next(self, size: int) -> bytes:
        packed = self._stream.read(min(size, self._left))
        self._left -= len(packed)
        return packed


class _Deflated(_Stored):
    """A deflated member, inflated by isal in less than half the time of zipfile's zlib."""

    def __init__(self, stream: IO[bytes], member: zipfile.ZipInfo, check: Callable[[], None]) -> None:
        super().__init__(stream, member, check)
        self._inflater = isal_zlib.decompressobj(-zlib.MAX_WBITS)

    def _next(self, size: int) -> bytes:
        piece = b""
        while not piece and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or super()._next(_COPY_BYTES)
            piece = self._inflater.decompress(packed, size)
            # The inflater may have taken all input, and still hold output.
            if not (packed or piece or self._inflater.eof):
                raise zipfile.BadZipFile("a member ends early")
        return piece
