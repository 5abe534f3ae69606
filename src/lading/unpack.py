"""One archive becomes a tree: streaming, bounded, and nowhere but below its folder.

A zip is known by its name; anything else is a tar, whose compression is known by its first bytes.
Links become further names of the file that they lead to, and only after every file is there, so
that nothing is ever written through a link.
"""

import bz2
import errno
import lzma
import os
import posixpath
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, cast

from isal import igzip, isal_zlib

from lading.disk import disk_error
from lading.errors import IntegrityError, Unsupported
from lading.manifest import Digest, File, Manifest, safe_path
from lading.settings import Limits
from lading.uri import printable

if sys.version_info >= (3, 14):
    from compression import zstd as _zstd
else:
    from backports import zstd as _zstd

# isal types its error as an instance.
_IsalError = cast(type[Exception], isal_zlib.error)
_COPY_BYTES = 1 << 20
_BLOCK_BYTES = 512
_LINK_BYTES = 4096
# xz -9 takes 65 MiB.
_XZ_MEMORY_BYTES = 128 << 20
# Of the headers before a member that hold its long names; tarfile reads each into memory.
_MOST_HEADER_BYTES = 1 << 20
_NAME_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LOCAL_HEADER = struct.Struct("<26sHH")
_MOST_LINKS_IN_A_ROW = 40


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpack(
    name: str, tree: Path, limits: Limits, stream: IO[bytes], read_in_order: Callable[[], None] = lambda: None
) -> Manifest:
    """Unpack the archive called ``name`` from ``stream`` into the folder ``tree``; returns its files.

    ``tree`` must not exist.  ``read_in_order`` is called once the stream will only be read forward.
    ``IntegrityError`` for members that would leave the tree, for a damaged or truncated archive, and
    for more bytes or members than ``limits`` allow; ``Unsupported`` for devices and encryption.
    """
    writer = _TreeWriter(tree, printable(name), limits)
    try:
        tree.mkdir()
        if name.lower().endswith(".zip"):
            _unzip(stream, writer, read_in_order)
        else:
            read_in_order()
            _untar(stream, writer)
        return writer.finish()
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        _IsalError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        IndexError,
        # Headers of headers of headers, in a tar.
        RecursionError,
        ValueError,
        _zstd.ZstdError,
    ) as error:
        raise IntegrityError(f"{printable(name)} is a damaged or truncated archive: {printable(str(error))}") from error
    except NotImplementedError as error:
        raise Unsupported(f"{printable(name)}: {error}", hint="pack it with the usual deflate") from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):
            # gzip and bz2 report a damaged stream as an OSError without a number; a zip's directory
            # may point to a place before the file's beginning.
            raise IntegrityError(f"{printable(name)} is a damaged or truncated archive: {error}") from error
        raise disk_error(error, error.filename or tree) from error


class _TreeWriter:
    """Writes members below a folder, within the limits, and remembers what it wrote."""

    def __init__(self, tree: Path, archive: str, limits: Limits) -> None:
        self._tree = tree
        self._archive = archive
        self._limits = limits
        self._files: dict[str, File] = {}
        self._links: dict[str, str] = {}
        self._members = 0
        self._bytes = 0

    def path_of(self, member: str) -> str:
        """The member's path below the root; "" for the root itself."""
        self._count_member()
        path = member.rstrip("/")
        while path.startswith("./"):
            path = path[2:].lstrip("/")
        if path in ("", "."):
            return ""
        try:
            return safe_path(path)
        except IntegrityError as error:
            raise self._refused(f"the member {printable(member)!r}") from error

    def folder(self, path: str) -> None:
        try:
            os.makedirs(self._tree / path, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise self._refused(f"{printable(path)!r} as a file and as a folder") from error

    def file(self, path: str, content: _Readable, *, executable: bool = False) -> None:
        """Write one file; its CRC is computed on the way."""
        if "/" in path:
            self.folder(path.rpartition("/")[0])
        size, crc = 0, 0
        try:
            target = (self._tree / path).open("wb")
        except IsADirectoryError as error:
            raise self._refused(f"{printable(path)!r} as a file and as a folder") from error
        with target:
            while piece := content.read(_COPY_BYTES):
                self.count(len(piece))
                size += len(piece)
                crc = isal_zlib.crc32(piece, crc)
                target.write(piece)
        if executable:
            (self._tree / path).chmod(0o755)
        self._files[path] = File(path, size, digest=Digest("crc32", f"{crc:08x}"))

    def link(self, path: str, target: str) -> None:
        """Note a link; ``target`` is a path below the root."""
        normal = posixpath.normpath(target)
        if target.startswith("/") or normal == ".." or normal.startswith("../"):
            raise self._refused(f"the link {printable(path)!r}, which leads out of it")
        self._links[path] = normal

    def count(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        if self._bytes > self._limits.unpack_bytes:
            raise self._refused(f"more than {self._limits.unpack_bytes} bytes")

    def _count_member(self) -> None:
        self._members += 1
        if self._members > self._limits.unpack_members:
            raise self._refused(f"more than {self._limits.unpack_members} members")

    def finish(self) -> Manifest:
        """Make the links; returns all files."""
        for path in sorted(self._links):
            target = self._follow(path)
            if target in self._files:
                self._alias(path, target)
                continue
            below = [name for name in self._files if target == "." or name.startswith(f"{target}/")]
            if not below or path == target or path.startswith(f"{target}/") or target == ".":
                raise self._refused(f"the link {printable(path)!r}, which leads nowhere or to itself")
            for name in below:
                # One by one: links to folders of links double with every step.
                self._count_member()
                self._alias(path + name[len(target) :], name)
        if not self._files:
            raise self._refused("no file")
        return Manifest.of(self._files.values())

    def _follow(self, path: str) -> str:
        for _ in range(_MOST_LINKS_IN_A_ROW):
            if path not in self._links:
                return path
            path = self._links[path]
        raise self._refused(f"the link {printable(path)!r}, which leads to itself")

    def _alias(self, path: str, target: str) -> None:
        if path in self._files:
            return
        if "/" in path:
            self.folder(path.rpartition("/")[0])
        try:
            os.link(self._tree / target, self._tree / path)
        except FileExistsError as error:
            raise self._refused(f"{printable(path)!r} as a file and as a folder") from error
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            # A file system without hard links, or a file that has as many as it can.
            self.count(self._files[target].size_bytes or 0)
            shutil.copy(self._tree / target, self._tree / path)
        known = self._files[target]
        self._files[path] = File(path, known.size_bytes, digest=known.digest)

    def _refused(self, what: str) -> IntegrityError:
        return IntegrityError(f"the archive {self._archive} holds {what}", hint="nothing of it was delivered")


def _untar(archive: IO[bytes], writer: _TreeWriter) -> None:
    with _decompressed(archive) as plain:
        stream = _Tail(plain)
        with tarfile.open(
            fileobj=cast(IO[bytes], stream), mode="r|", bufsize=_COPY_BYTES, tarinfo=_BoundedHeader
        ) as tar:
            for member in tar:
                # tarfile remembers every member, which nobody asks for here.
                cast(Any, tar).members.clear()
                path = writer.path_of(member.name)
                if member.isdir():
                    writer.folder(path)
                elif not path:
                    raise IntegrityError("the archive holds a file without a name")
                elif member.issym():
                    target = member.linkname
                    writer.link(
                        path, target if target.startswith("/") else posixpath.join(posixpath.dirname(path), target)
                    )
                elif member.islnk():
                    writer.link(path, member.linkname)
                elif member.isreg():
                    content = tar.extractfile(member)
                    if content is not None:
                        writer.file(path, content, executable=bool(member.mode & stat.S_IXUSR))
                else:
                    raise Unsupported(f"the archive holds {printable(member.name)!r}, a device or something else")
        # To the end, so that the compressed stream's own checksum is checked; what follows the
        # end of the archive counts as bytes too.
        while piece := stream.read(_COPY_BYTES):
            writer.count(len(piece))
        # A tar that is whole has a block of zeros where the next member would begin.  A cut there is
        # no error to tarfile, and zeros alone may be the last member's content.
        if stream.tail.strip(b"\0") or stream.position < tar.offset + _BLOCK_BYTES:
            raise EOFError("its end is missing")


class _BoundedHeader(tarfile.TarInfo):
    """A member's header that takes a bounded part of the memory, whatever it says of its size."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        # The entry point that tarfile offers to subclasses.
        if self.type in _NAME_HEADERS and self.size > _MOST_HEADER_BYTES:
            raise tarfile.ReadError("a header is larger than any name")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]  # not in typeshed
        return member


class _Tail:
    """A stream that remembers where it is, and the last block."""

    def __init__(self, stream: _Readable) -> None:
        self._stream = stream
        self.position = 0
        self.tail = b""

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self.position += len(piece)
        self.tail = (self.tail + piece)[-_BLOCK_BYTES:] if len(piece) < _BLOCK_BYTES else piece[-_BLOCK_BYTES:]
        return piece


@contextmanager
def _decompressed(raw: IO[bytes]) -> Iterator[_Readable]:
    magic = raw.read(6)
    raw.seek(0)
    opener: Callable[..., Any]
    if magic.startswith(b"\x1f\x8b"):
        opener = igzip.open
    elif magic.startswith(b"BZh"):
        opener = bz2.open
    elif magic.startswith(b"\xfd7zXZ\0"):
        yield _Xz(raw)
        return
    elif magic.startswith(b"\x28\xb5\x2f\xfd"):
        opener = _zstd.open
    else:
        yield raw
        return
    with opener(raw, "rb") as stream:
        yield stream


class _Xz:
    """The streams of an xz file, within bounds: the format lets a stranger ask for a dictionary of 4 GiB."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)

    def read(self, size: int) -> bytes:
        piece = b""
        while not piece:
            if self._decompressor.eof:
                # Streams may follow each other, with zeros between them.
                packed = self._decompressor.unused_data.lstrip(b"\0") or self._raw.read(_COPY_BYTES).lstrip(b"\0")
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


def _unzip(archive: IO[bytes], writer: _TreeWriter, read_in_order: Callable[[], None]) -> None:
    with zipfile.ZipFile(archive) as bundle:
        members = sorted(bundle.infolist(), key=lambda member: member.header_offset)
        read_in_order()
        for member in members:
            path = writer.path_of(member.filename)
            mode = member.external_attr >> 16
            if member.is_dir():
                writer.folder(path)
            elif not path:
                raise IntegrityError("the archive holds a file without a name")
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
                writer.link(path, target if target.startswith("/") else posixpath.join(posixpath.dirname(path), target))
            elif mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise Unsupported(f"the archive holds {printable(member.filename)!r}, a device or something else")
            else:
                deflated = member.compress_type == zipfile.ZIP_DEFLATED
                packed: _Readable = _Deflated(archive, member) if deflated else bundle.open(member)
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
