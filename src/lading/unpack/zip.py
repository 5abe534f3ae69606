"""A zip, which has its directory at its end."""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, cast

from isal import isal_zlib

from lading.errors import Unsupported
from lading.unpack.tree import Readable, TreeWriter
from lading.uri import printable

# What the libraries raise of their own; isal types its error as an instance.
DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, cast(type[Exception], isal_zlib.error))
_COPY_BYTES = 1 << 20
_LINK_BYTES = 4096
_LOCAL_HEADER = struct.Struct("<26sHH")


def unzip(archive: IO[bytes], writer: TreeWriter, read_in_order: Callable[[], None]) -> None:
    """Write every member, in the order of their bytes."""
    with zipfile.ZipFile(archive) as bundle:
        members = sorted(bundle.infolist(), key=lambda member: member.header_offset)
        read_in_order()
        for member in members:
            path = writer.path_of(member.filename)
            if path is None:
                continue
            mode = member.external_attr >> 16
            if member.is_dir():
                writer.folder(path)
            elif not path:
                raise writer.refused("something that is no folder in the place of the model's own")
            elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # zipfile inflates the others without a bound.
                raise Unsupported(
                    f"the archive packs {printable(member.filename)!r} by method {member.compress_type}",
                    hint="pack it with the usual deflate",
                )
            elif member.flag_bits & 0x1:
                raise Unsupported(f"the archive's member {printable(member.filename)!r} is encrypted")
            elif stat.S_ISLNK(mode):
                with bundle.open(member) as content:
                    # No more than a path can be long: a link may be a bomb, too.
                    target = os.fsdecode(content.read(_LINK_BYTES))
                writer.link(path, target)
            elif mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise Unsupported(f"the archive holds {printable(member.filename)!r}, a device or something else")
            else:
                deflated = member.compress_type == zipfile.ZIP_DEFLATED
                packed: Readable = _Deflated(archive, member) if deflated else bundle.open(member)
                writer.file(path, packed, executable=bool(mode & stat.S_IXUSR))


class _Deflated:
    """The content of a zip's member, inflated by isal, which takes less than half the time of zipfile's zlib.

    The local header is that of APPNOTE.TXT 4.3.7; size and CRC are those of the directory, and
    are checked at the end.
    """

    def __init__(self, archive: IO[bytes], member: zipfile.ZipInfo) -> None:
        self._archive = archive
        self._member = member
        archive.seek(member.header_offset)
        header = archive.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            raise zipfile.BadZipFile("a member does not begin where the directory says")
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        archive.seek(name_bytes + extra_bytes, os.SEEK_CUR)
        self._left = member.compress_size
        self._inflater = isal_zlib.decompressobj(-zlib.MAX_WBITS)
        self._size = 0
        self._crc = 0

    def read(self, size: int) -> bytes:
        piece = b""
        while not piece and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail
            if not packed:
                packed = self._archive.read(min(_COPY_BYTES, self._left))
                self._left -= len(packed)
                if not packed:
                    raise zipfile.BadZipFile("a member ends early")
            piece = self._inflater.decompress(packed, size)
        self._size += len(piece)
        self._crc = isal_zlib.crc32(piece, self._crc)
        if self._size > self._member.file_size or (
            not piece and (self._size, self._crc) != (self._member.file_size, self._member.CRC)
        ):
            raise zipfile.BadZipFile("a member is not what the directory says")
        return piece
