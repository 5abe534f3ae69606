"""Writing an archive's members to a tree: within limits, and only below its folder.

Links are only noted: ``layers`` makes them after all files, so that nothing is ever written
through a link.
"""

import os
import posixpath
import threading
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import IO, Protocol

from isal import isal_zlib

from lading.errors import IntegrityError, LadingError
from lading.events import Listener, ignore
from lading.model.digest import Digest
from lading.model.manifest import File
from lading.model.paths import shown_path, why_unsafe
from lading.model.pattern import exact_pattern
from lading.settings.limits import Limits
from lading.system.disk import set_mode
from lading.text.printable import printable

_COPY_BYTES = 1 << 20
# https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


class Readable(Protocol):
    """The content of a member, packed by any method."""

    def read(self, size: int, /) -> bytes: ...


class Archive(Protocol):
    """The bytes of an archive, which may not all have been received yet."""

    def open(self) -> IO[bytes]:
        """Open a seekable stream with a position of its own."""
        ...

    def read_beside(self, read: Callable[[IO[bytes]], None]) -> None:
        """Call ``read`` in as many threads as are useful, each with its own stream; it must not raise."""
        ...

    def read_in_order(self) -> None:
        """Promise that every stream will only be read forward from now on."""
        ...


class Spent:
    """Counts the bytes and members unpacked from all archives of one model, and enforces ``limits``."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._members = 0
        self._bytes = 0

    def member(self, archive: str) -> None:
        self._members += 1
        if self._members > self._limits.unpack_members:
            raise refused(archive, f"more than {self._limits.unpack_members} members")

    def bytes(self, archive: str, size_bytes: int) -> None:
        with self._lock:
            self._bytes += size_bytes
        if self._bytes > self._limits.unpack_bytes:
            raise refused(archive, f"more than {self._limits.unpack_bytes} bytes")


def refused(archive: str, what: str) -> IntegrityError:
    """The error for an archive with content that no model needs."""
    return IntegrityError(f"the archive {archive} holds {what}", hint="nothing of it was delivered")


class TreeWriter:
    """Writes one archive's members below the folder ``root``, and remembers what it wrote.

    ``links`` maps the path of each link to its target, both below the root; ``hard_links`` are the paths of hard
    links, which mean the target's present file.  Of an image, only members below its folder are written;
    ``whiteouts`` are paths whose files, and all below them, are removed from earlier layers ("" removes all).
    ``is_wanted`` judges members by the patterns: a fault in an unwanted member is no error.  ``not_executable``
    are the files that should be executable, and whose file system refuses that.
    """

    def __init__(
        self,
        root: Path,
        archive: str,
        spent: Spent,
        image_folder: str = "",
        listener: Listener = ignore,
        is_wanted: Callable[[str], bool] | None = None,
    ) -> None:
        self.root = root
        self.archive = archive
        self.listener = listener
        self.files: dict[str, File] = {}
        self.links: dict[str, str] = {}
        self.hard_links: set[str] = set()
        self.not_executable: set[str] = set()
        self.folders: set[str] = set()
        self.whiteouts: set[str] = set()
        self._spent = spent
        self._image_folder = image_folder
        self._is_wanted = is_wanted

    def path_of(self, member: str) -> str | None:
        """The member's path below the root; "" for the root itself, None if it does not belong to the model."""
        self._spent.member(self.archive)
        if self._image_folder:
            return self._path_in_image(_from_root(member))
        path = _normal(member)
        return "" if path in ("", "/") else self._safe(path)

    def _path_in_image(self, path: str) -> str | None:
        folder, slash, name = path.rpartition("/")
        if not name.startswith(_WHITEOUT):
            return self._below_image_folder(path)
        if name == _OPAQUE:
            hidden = folder
        elif name.startswith(_WHITEOUT * 2):
            # Files for aufs' own use.
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

    def _safe(self, path: str) -> str | None:
        if not why_unsafe(path):
            return path
        self.refuse_if_wanted(path, self.refused(f"the member {shown_path(path)!r}"))
        return None

    def folder(self, path: str) -> None:
        self.folders.add(path)
        try:
            os.makedirs(self.root / path, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise self.refused(f"{printable(path)!r} as a file and as a folder") from error

    def file(self, path: str, content: Readable, *, executable: bool = False, piece_bytes: int = _COPY_BYTES) -> None:
        """Write one file, ``piece_bytes`` at a time, and compute its CRC."""
        if "/" in path:
            self.folder(path.rpartition("/")[0])
        self._drop(path)
        size, crc = 0, 0
        try:
            target = (self.root / path).open("wb")
        except IsADirectoryError as error:
            raise self.refused(f"{printable(path)!r} as a file and as a folder") from error
        with target:
            while piece := content.read(piece_bytes):
                self.count(len(piece))
                size += len(piece)
                crc = isal_zlib.crc32(piece, crc)
                target.write(piece)
        if executable and not set_mode(self.root / path, 0o755) and not os.access(self.root / path, os.X_OK):
            self.not_executable.add(path)
        self.files[path] = File(path, size, Digest("crc32", f"{crc:08x}"))

    def link(self, path: str, target: str, *, hard: bool = False) -> None:
        """Note a link; a hard link's target is a member's name, a symbolic link's is relative to the link's folder.

        A link that leads out of the tree is left out if the patterns leave it out.
        """
        folder = "" if hard else posixpath.dirname(path)
        if self._image_folder:
            # An image is its own root: an absolute target is within it, and ".." cannot leave it.
            base = "/" if hard else f"/{self._image_folder}/{folder}"
            found = self._below_image_folder(_from_root(posixpath.normpath(posixpath.join(base, target))))
            normal = ".." if found is None else found or "."
        else:
            normal = posixpath.normpath(posixpath.join(folder, target))
        if normal == ".." or normal.startswith(("/", "../")):
            self.refuse_if_wanted(path, self.refused(f"the link {printable(path)!r}, which leads out of it"))
        elif not (hard and normal == path):
            self._drop(path)
            self.links[path] = normal
            if hard:
                self.hard_links.add(path)

    def _drop(self, path: str) -> None:
        """Forget the member that had this path: the last one of a name counts, be it a file or a link."""
        self.links.pop(path, None)
        self.hard_links.discard(path)
        if self.files.pop(path, None):
            (self.root / path).unlink()

    def count(self, size_bytes: int) -> None:
        self._spent.bytes(self.archive, size_bytes)

    def refused(self, what: str) -> IntegrityError:
        return refused(self.archive, what)

    def refuse_if_wanted(self, path: str, error: LadingError) -> None:
        """Raise the error of a member, unless the patterns leave it out; its hint says how they would."""
        if self._is_wanted is None:
            raise error
        if self._is_wanted(path):
            raise error.rephrased(hint=f"--ignore {quote(exact_pattern(path))} delivers the rest")


def _normal(path: str) -> str:
    """``path`` without what has no meaning in it: an empty segment, and "." as in ``tar -c model/.``."""
    root = "/" if path.startswith("/") else ""
    return root + "/".join(segment for segment in path.split("/") if segment not in ("", "."))


def _from_root(path: str) -> str:
    """``path``, normal, of an image, which is its own root."""
    return _normal(path).lstrip("/")
