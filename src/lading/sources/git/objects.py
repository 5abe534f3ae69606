"""A commit's files: its trees walked and its links followed, so that what is delivered are files.

https://git-scm.com/docs/gitformat-pack and `git help ls-tree`: a tree is a run of ``mode SP name NUL id``.
"""

import posixpath
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from lading.errors import IntegrityError, LadingError, NotFound, Unsupported
from lading.settings.limits import Limits
from lading.sources.git.pack import BLOB, COMMIT, TREE, Objects
from lading.text.printable import printable
from lading.text.suggest import suggest

_FOLDER, _LINK, _SUBMODULE = 0o40000, 0o120000, 0o160000
_KIND = 0o170000
_ID_BYTES = 20
_LEAST_ENTRY_BYTES = 24
_TREE_BYTES = 64 << 20
_COMMIT_BYTES = 1 << 20
# PATH_MAX: a link may be a bomb, too.
_LINK_BYTES = 4096
_MOST_LINKS_IN_A_ROW = 40
_MOST_DEPTH = 200


class Node(NamedTuple):
    """A file, folder or link; ``real`` is its path in the repository once links are followed."""

    mode: int
    object_id: bytes
    real: str

    @property
    def is_folder(self) -> bool:
        return self.mode & _KIND == _FOLDER


class Found(NamedTuple):
    """A file of the commit; ``refusal`` is why what is called so is none, or no folder that could be walked."""

    path: str
    object_id: bytes
    refusal: LadingError | None = None


class CommitTree:
    """The tree of one commit, whose commit and trees ``objects`` holds."""

    def __init__(self, objects: Objects, commit_id: bytes, limits: Limits) -> None:
        self._objects = objects
        self._limits = limits
        text = objects.read(commit_id, COMMIT, _COMMIT_BYTES)
        first, _, _ = text.partition(b"\n")
        try:
            tree_id = bytes.fromhex(first.removeprefix(b"tree ").decode())
        except ValueError as error:
            raise IntegrityError(f"the commit {commit_id.hex()} names no tree") from error
        self._root = Node(_FOLDER, tree_id, "")
        self._entries = lru_cache(maxsize=64)(self._parsed)
        self._walked = 0

    def files(self, folder: str) -> Iterator[Found]:
        """Every file, its path that below ``folder``; ``folder`` itself, if that is a file."""
        node = self.find(folder)
        self._walked = 0
        if node.is_folder:
            yield from self._walk(node, "", ())
        else:
            yield Found(folder.rpartition("/")[2], node.object_id)

    def find(self, path: str) -> Node:
        """What is at this path, links followed; ``NotFound`` with what is near."""
        node, links = self._root, 0
        left = [part for part in path.split("/") if part not in ("", ".")][::-1]
        while left:
            name = left.pop()
            if not node.is_folder:
                raise NotFound(f"{printable(node.real)} is a file: there is no {printable(path)}")
            if name == "..":
                # Only links that were followed bring one here, and none may lead out.
                raise Unsupported(f"{printable(path)} leads out of the repository")
            entries = self._entries(node)
            if name not in entries:
                raise NotFound(f"there is no {printable(path)} in the commit", hint=suggest(name, entries))
            node = entries[name]
            if node.mode & _KIND == _LINK:
                links += 1
                if links > _MOST_LINKS_IN_A_ROW:
                    raise Unsupported(f"the link {printable(node.real)} leads to itself")
                left += [part for part in self._target(node).split("/") if part not in ("", ".")][::-1]
                node = self._root
        return node

    def _walk(self, folder: Node, prefix: str, above: tuple[str, ...]) -> Iterator[Found]:
        above = (*above, folder.real)
        if len(above) > _MOST_DEPTH:
            raise Unsupported(f"{printable(prefix)} is too deep")
        for name, node in self._entries(folder).items():
            # Trees that hold one another twice double with every step, also those without a file.
            self._walked += 1
            if self._walked > self._limits.unpack_members:
                raise Unsupported(f"the commit has more than {self._limits.unpack_members} files and folders")
            path = prefix + name
            try:
                node = self._delivered(node, path, above)
            except Unsupported as refusal:
                yield Found(path, b"", refusal)
                continue
            if node.is_folder:
                yield from self._walk(node, f"{path}/", above)
            else:
                yield Found(path, node.object_id)

    def _delivered(self, node: Node, path: str, above: tuple[str, ...]) -> Node:
        """The file or folder that is delivered as ``path``, links followed; ``Unsupported`` for whatever is neither."""
        if node.mode & _KIND == _LINK:
            try:
                node = self.find(node.real)
            except NotFound as error:
                raise Unsupported(f"{printable(path)} is a link that leads nowhere") from error
        if node.mode & _KIND == _SUBMODULE:
            raise Unsupported(
                f"{printable(path)} is a submodule, another repository",
                hint="choose a folder without it by #subdirectory=, or put its files into this repository",
            )
        if node.is_folder and node.real in above:
            raise Unsupported(f"{printable(path)} links to a folder that holds it")
        return node

    def _target(self, link: Node) -> str:
        target = self._objects.read(link.object_id, BLOB, _LINK_BYTES).decode("utf-8", "surrogateescape")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(link.real), target))
        if path.startswith(("/", "../")) or path == "..":
            raise Unsupported(f"{printable(link.real)} is a link that leads out of the repository")
        return path

    def _parsed(self, folder: Node) -> dict[str, Node]:
        data = self._objects.read(folder.object_id, TREE, _TREE_BYTES)
        if len(data) > _LEAST_ENTRY_BYTES * self._limits.unpack_members:
            raise Unsupported(f"{printable(folder.real)} has more than {self._limits.unpack_members} files")
        entries: dict[str, Node] = {}
        at = 0
        while at < len(data):
            end = data.find(b"\0", at)
            mode, _, raw = data[at:end].partition(b" ")
            name = raw.decode("utf-8", "surrogateescape")
            at = end + 1 + _ID_BYTES
            # ".git" would be a repository of its own to whoever looks at the model with git.
            if end < 0 or at > len(data) or "/" in name or name in entries or name.lower() == ".git":
                raise IntegrityError(f"the commit has a broken folder ({printable(folder.real) or 'its root'})")
            real = f"{folder.real}/{name}" if folder.real else name
            try:
                entries[name] = Node(int(mode, 8), data[at - _ID_BYTES : at], real)
            except ValueError as error:
                raise IntegrityError(f"{printable(real)} has no mode") from error
        return entries
