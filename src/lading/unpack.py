"""One archive becomes a tree: streaming, bounded, and nowhere but below its folder.

A zip is known by its name; anything else is a tar, whose compression is known by its first bytes.
Links are only noted: ``layers`` makes them, once every file is there, so that nothing is ever written
through a link.
"""

import bz2
import errno
import lzma
import os
import posixpath
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
from lading.manifest import Digest, File, safe_path
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
# https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpack(
    name: str, writer: "TreeWriter", stream: IO[bytes], read_in_order: Callable[[], None] = lambda: None
) -> None:
    """Unpack the archive called ``name`` from ``stream`` by ``writer``.

    ``read_in_order`` is called once the stream will only be read forward.
    ``IntegrityError`` for members that would leave the tree, for a damaged or truncated archive, and
    for more bytes or members than are allowed; ``Unsupported`` for devices and encryption.
    """
    try:
        writer.root.mkdir()
        if name.lower().endswith(".zip"):
            _unzip(stream, writer, read_in_order)
        else:
            read_in_order()
            _untar(stream, writer)
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
        raise disk_error(error, error.filename or writer.root) from error


class Spent:
    """What has been unpacked so far, of all archives of one model together; no more than ``limits`` allow."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._members = 0
        self._bytes = 0

    def member(self, archive: str) -> None:
        self._members += 1
        if self._members > self._limits.unpack_members:
            raise refused(archive, f"more than {self._limits.unpack_members} members")

    def bytes(self, archive: str, size_bytes: int) -> None:
        self._bytes += size_bytes
        if self._bytes > self._limits.unpack_bytes:
            raise refused(archive, f"more than {self._limits.unpack_bytes} bytes")


def refused(archive: str, what: str) -> IntegrityError:
    """The error of an archive that holds what no model needs."""
    return IntegrityError(f"the archive {archive} holds {what}", hint="nothing of it was delivered")


class TreeWriter:
    """Writes one archive's members below the folder ``root``, and remembers what it wrote.

    ``links`` are paths below the root by path, ``hard_links`` those of them that mean what is there
    now.  Of an image, only what is below its folder is written; ``whiteouts`` are the paths whose files,
    and whatever is below, vanish from the layers before; "" is all of them.
    """

    def __init__(self, root: Path, archive: str, spent: Spent, image_folder: str = "") -> None:
        self.root = root
        self.archive = archive
        self.files: dict[str, File] = {}
        self.links: dict[str, str] = {}
        self.hard_links: set[str] = set()
        self.folders: set[str] = set()
        self.whiteouts: set[str] = set()
        self._spent = spent
        self._image_folder = image_folder

    def path_of(self, member: str) -> str | None:
        """The member's path below the root; "" for the root itself, None for what is not of the model."""
        self._spent.member(self.archive)
        path = member.rstrip("/")
        if self._image_folder:
            return self._path_in_image(path)
        while path.startswith("./"):
            path = path[2:].lstrip("/")
        return "" if path in ("", ".") else self._safe(path)

    def _path_in_image(self, member: str) -> str | None:
        path = _from_root(member)
        folder, slash, name = path.rpartition("/")
        if not name.startswith(_WHITEOUT):
            return self._below_image_folder(path)
        if name == _OPAQUE:
            hidden = folder
        elif name.startswith(_WHITEOUT * 2):
            # Notes of aufs to itself.
            return None
        else:
            hidden = f"{folder}{slash}{name.removeprefix(_WHITEOUT)}"
        if f"{self._image_folder}/".startswith(f"{hidden}/" if hidden else ""):
            self.whiteouts.add("")
        elif (path_hidden := self._below_image_folder(hidden)) is not None:
            self.whiteouts.add(path_hidden)
        return None

    def _below_image_folder(self, path: str) -> str | None:
        if path == self._image_folder:
            return ""
        below = path.removeprefix(f"{self._image_folder}/")
        return None if below == path else self._safe(below)

    def _safe(self, path: str) -> str:
        try:
            return safe_path(path)
        except IntegrityError as error:
            raise self.refused(f"the member {printable(path)!r}") from error

    def folder(self, path: str) -> None:
        self.folders.add(path)
        try:
            os.makedirs(self.root / path, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise self.refused(f"{printable(path)!r} as a file and as a folder") from error

    def file(self, path: str, content: _Readable, *, executable: bool = False) -> None:
        """Write one file; its CRC is computed on the way."""
        if "/" in path:
            self.folder(path.rpartition("/")[0])
        size, crc = 0, 0
        try:
            target = (self.root / path).open("wb")
        except IsADirectoryError as error:
            raise self.refused(f"{printable(path)!r} as a file and as a folder") from error
        with target:
            while piece := content.read(_COPY_BYTES):
                self.count(len(piece))
                size += len(piece)
                crc = isal_zlib.crc32(piece, crc)
                target.write(piece)
        if executable:
            (self.root / path).chmod(0o755)
        self.files[path] = File(path, size, digest=Digest("crc32", f"{crc:08x}"))

    def link(self, path: str, target: str, *, hard: bool = False) -> None:
        """Note a link; the target of a hard one is a member, that of another is seen from the link's folder."""
        folder = "" if hard else posixpath.dirname(path)
        if self._image_folder:
            # An image is its own root: an absolute target is within it, and nothing is above.
            base = "/" if hard else f"/{self._image_folder}/{folder}"
            found = self._below_image_folder(_from_root(posixpath.normpath(posixpath.join(base, target))))
            normal = ".." if found is None else found or "."
        else:
            normal = posixpath.normpath(posixpath.join(folder, target))
        if normal == ".." or normal.startswith(("/", "../")):
            raise self.refused(f"the link {printable(path)!r}, which leads out of it")
        self.links[path] = normal
        (self.hard_links.add if hard else self.hard_links.discard)(path)

    def count(self, size_bytes: int) -> None:
        self._spent.bytes(self.archive, size_bytes)

    def refused(self, what: str) -> IntegrityError:
        return refused(self.archive, what)


def _from_root(path: str) -> str:
    """``path`` without what only says that it begins at the root."""
    while path.startswith(("/", "./")):
        path = path.removeprefix(".").lstrip("/")
    return "" if path == "." else path


def _untar(archive: IO[bytes], writer: TreeWriter) -> None:
    with _decompressed(archive) as plain:
        stream = _Tail(plain)
        with tarfile.open(
            fileobj=cast(IO[bytes], stream), mode="r|", bufsize=_COPY_BYTES, tarinfo=_BoundedHeader
        ) as tar:
            for member in tar:
                # tarfile remembers every member, which nobody asks for here.
                cast(Any, tar).members.clear()
                path = writer.path_of(member.name)
                if path is None:
                    continue
                if member.isdir():
                    writer.folder(path)
                elif not path:
                    raise writer.refused("something that is no folder in the place of the model's own")
                elif member.issym() or member.islnk():
                    writer.link(path, member.linkname, hard=member.islnk())
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


def _unzip(archive: IO[bytes], writer: TreeWriter, read_in_order: Callable[[], None]) -> None:
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
