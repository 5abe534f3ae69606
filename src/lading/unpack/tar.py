"""Unpacking a tar; its first bytes tell its compression."""

import bz2
import lzma
import re
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Self, cast

from isal import igzip, isal_zlib

from lading.errors import Unsupported
from lading.text.printable import printable
from lading.unpack.tree import Readable, TreeWriter

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Errors that the libraries raise for a damaged archive; isal's type hints declare its error as an instance.
DAMAGED_TAR = (tarfile.TarError, cast(type[Exception], isal_zlib.error), lzma.LZMAError, zstd.ZstdError)
_COPY_BYTES = 1 << 20
# Each decompressed piece is a new object.  glibc returns the memory of larger ones to the system at once, and getting
# it again took a third of the time of a .tar.zst.
_DECOMPRESSED_BYTES = 64 << 10
# Not in typeshed.
_INVALID_HEADER: type[Exception] = cast(Any, tarfile).InvalidHeaderError
_TEXT: Callable[[bytes | bytearray, str, str], str] = cast(Any, tarfile).nts
# RFC 8878, 3.1: frames, and skippable frames, which pzstd writes first (3.1.2).
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")
# With the magic number of the first block, or of an empty stream's end: a plain tar's first name may begin with BZh.
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
_MAGIC_BYTES = 10
# Formats that are not supported: the error names them, instead of calling the archive damaged.
_OTHER_FORMATS = {
    "lz4": re.compile(rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18"),
    "lzip": re.compile(rb"LZIP\x01"),
    "lzma": re.compile(rb"\x5d\0\0..\xff{5}", re.DOTALL),
    "compress": re.compile(rb"\x1f\x9d"),
    "7-Zip": re.compile(rb"7z\xbc\xaf\x27\x1c"),
    "RAR": re.compile(rb"Rar!\x1a\x07"),
}
# RFC 8878, 3.1.1.1: two bits for a dictionary, one if the content is the window; else the window's exponent minus 10.
_ZSTD_FRAME = re.compile(rb"\x28\xb5\x2f\xfd(.)(.)", re.DOTALL)
_ZSTD_DICTIONARY, _ZSTD_SINGLE_SEGMENT = 0x03, 0x20
# The library's own limit.
_MOST_ZSTD_WINDOW = (27 - 10) << 3
_BLOCK_BYTES = 512
# The fields of a header.
_NAME, _MAGIC = slice(0, 100), slice(257, 265)
# https://www.gnu.org/software/tar/manual/html_node/Extensions.html: the name of an archive, by --label; a folder with the
# list of what is in it, by --listed-incremental.
_LABEL, _DUMPED_FOLDER = b"V", b"D"
# xz -9 takes 65 MiB.
_XZ_MEMORY_BYTES = 128 << 20
# The limit of the headers that hold a member's long names; tarfile reads each into memory.
_MOST_HEADER_BYTES = 1 << 20
_NAME_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def untar(archive: IO[bytes], writer: TreeWriter) -> None:
    """Write every member; reads the stream once, to its end."""
    with _decompressed(archive) as plain:
        stream = _Tail(plain)
        piece_bytes = _COPY_BYTES if plain is archive else _DECOMPRESSED_BYTES
        with tarfile.open(
            fileobj=cast(IO[bytes], stream), mode="r|", bufsize=piece_bytes, tarinfo=_BoundedHeader
        ) as tar:
            for member in tar:
                # tarfile keeps every member in memory, and nothing here needs them.
                cast(Any, tar).members.clear()
                if member.type == _LABEL:
                    continue
                path = writer.path_of(member.name)
                if path is None:
                    continue
                if member.isdir() or member.type == _DUMPED_FOLDER or (member.isreg() and member.name.endswith("/")):
                    writer.folder(path)
                elif not path:
                    raise writer.refused("something that is no folder in the place of the model's own")
                elif member.issym() or member.islnk():
                    writer.link(path, member.linkname, hard=member.islnk())
                elif member.isreg():
                    content = tar.extractfile(member)
                    if content is not None:
                        is_program = bool(member.mode & stat.S_IXUSR)
                        writer.file(path, content, executable=is_program, piece_bytes=piece_bytes)
                else:
                    what = f"the archive holds {printable(member.name)!r}, a device or something else"
                    writer.refuse_if_wanted(path, Unsupported(what))
        # It reads to the end, so that the compressed stream's own checksum is checked; bytes after the
        # end of the archive count, too.
        while piece := stream.read(piece_bytes):
            writer.count(len(piece))
        # A complete tar has a block of zeros where the next member would begin.  tarfile does not notice if
        # it is cut off there; and zeros elsewhere may be the last member's content.
        if stream.tail.strip(b"\0") or stream.position < tar.offset + _BLOCK_BYTES:
            raise EOFError("its end is missing")


class _BoundedHeader(tarfile.TarInfo):
    """A member's header that takes bounded memory, whatever size it claims."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        # After the first member, tarfile would take a damaged header for the archive's end.
        try:
            member = super().frombuf(buf, encoding, errors)
        except _INVALID_HEADER as error:
            raise tarfile.ReadError(str(error)) from error
        if buf[_MAGIC] == tarfile.GNU_MAGIC:
            # Where others have a prefix of the name, GNU's own format has times, and tarfile takes them for one.
            member.name = _TEXT(buf[_NAME], encoding, errors)
        return member

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # The entry point that tarfile offers to subclasses.
        if self.type in _NAME_HEADERS and self.size > _MOST_HEADER_BYTES:
            raise tarfile.ReadError("a header is larger than any name")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # not in typeshed
        return member


class _Tail:
    """A stream that remembers its position and its last block."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.position = 0
        self.tail = b""

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self.position += len(piece)
        self.tail = (self.tail + piece)[-_BLOCK_BYTES:] if len(piece) < _BLOCK_BYTES else piece[-_BLOCK_BYTES:]
        return piece


@contextmanager
def _decompressed(raw: IO[bytes]) -> Iterator[Readable]:
    magic = raw.read(_MAGIC_BYTES)
    raw.seek(0)
    if other := _not_read_here(magic):
        raise Unsupported(
            f"the archive is packed by {other}", hint="pack it with gzip, bzip2, xz or zstd --long=27 at most"
        )
    opener: Callable[..., Any]
    if magic.startswith(b"\x1f\x8b"):
        opener = igzip.open
    elif _BZIP2.match(magic):
        opener = bz2.open
    elif magic.startswith(b"\xfd7zXZ\0"):
        yield _Xz(raw)
        return
    elif _ZSTD.match(magic):
        opener = zstd.open
    else:
        yield raw
        return
    with opener(raw, "rb") as stream:
        yield stream


def _not_read_here(magic: bytes) -> str:
    """The name of the archive's format, if it is not supported; else ""."""
    frame = _ZSTD_FRAME.match(magic)
    if frame and frame[1][0] & _ZSTD_DICTIONARY:
        return "zstd with a dictionary"
    if frame and not frame[1][0] & _ZSTD_SINGLE_SEGMENT and frame[2][0] > _MOST_ZSTD_WINDOW:
        return "zstd with a window above 128 MiB"
    return next((name for name, pattern in _OTHER_FORMATS.items() if pattern.match(magic)), "")


class _Xz:
    """Reads the streams of an xz file, within bounds: the format allows a dictionary of 4 GiB."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)

    def read(self, size: int) -> bytes:
        piece = b""
        while not piece:
            if self._decompressor.eof:
                packed = self._following()
                if not packed:
                    return b""
                self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
            elif self._decompressor.needs_input:
                packed = self._raw.read(_COPY_BYTES)
                if not packed:
                    raise EOFError("the xz data ends early")
            else:
                packed = b""
            piece = self._decompressor.decompress(packed, size)
        return piece

    def _following(self) -> bytes:
        """The start of the next stream, after the zeros that may stand before it; empty at the end."""
        packed = self._decompressor.unused_data or self._raw.read(_COPY_BYTES)
        while packed and not (packed := packed.lstrip(b"\0")):
            packed = self._raw.read(_COPY_BYTES)
        return packed
