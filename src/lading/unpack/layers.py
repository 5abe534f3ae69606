"""Unpacking layers into one tree: each archive is unpacked over those before it; links are made last.

A model that is one archive has one layer.  The layers of a container image hide and replace files
of the layers before them (https://github.com/opencontainers/image-spec/blob/main/layer.md).

    tree/…            the layers so far
    tree/.lading/…    the next layer, while it is unpacked
"""

import os
import stat
from collections import UserDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from lading.errors import IntegrityError, NotFound
from lading.events import Listener, NotExecutable, ignore
from lading.model.listing import Layer, ListedFile
from lading.model.manifest import File, Manifest
from lading.model.paths import WORKSPACE_NAME
from lading.settings.limits import Limits
from lading.system.disk import as_lading_errors, link, materialize_file, set_mode
from lading.system.folders import move_into, remove_tree
from lading.text.printable import printable
from lading.unpack.archive import unpack
from lading.unpack.tree import Archive, Spent, TreeWriter, refused

_MOST_LINKS_IN_A_ROW = 40
T = TypeVar("T")


class Layers:
    """Makes the folder ``tree``, which must not exist, of layers in their order.

    ``limits`` bound the unpacked bytes and members of all layers together.  Only files that ``is_wanted`` accepts stay.
    """

    def __init__(
        self,
        tree: Path,
        limits: Limits,
        is_wanted: Callable[[str], bool] | None = None,
        listener: Listener = ignore,
    ) -> None:
        self._tree = tree
        self._spent = Spent(limits)
        self._is_wanted = is_wanted
        self._listener = listener
        self._not_executable: set[str] = set()
        self._archive = ""
        self._image_folder = ""
        self._files: _Tree[File] = _Tree()
        self._links: _Tree[str] = _Tree()

    def add(self, file: ListedFile, archive: Archive) -> None:
        """Unpack the archive ``file`` over the layers before it; the errors are those of ``unpack``."""
        self._archive = printable(file.path)
        self._image_folder = (file.layer or Layer()).image_folder
        first = not self._tree.exists()
        root = self._tree if first else self._tree / WORKSPACE_NAME
        writer = self._writer(root)
        unpack(file.path, writer, archive)
        with as_lading_errors(root):
            for path in sorted(writer.hard_links):
                self._link_now(writer, path)
            if not first:
                self._drop_hidden(writer)
                move_into(root, self._tree)
                remove_tree(root)
        self._files.update(writer.files)
        self._not_executable |= writer.not_executable
        self._links.update(writer.links)

    def _writer(self, root: Path) -> TreeWriter:
        return TreeWriter(root, self._archive, self._spent, self._image_folder, self._listener, self._is_wanted)

    def finish(self) -> Manifest:
        """Make the links, and remove unwanted files; returns the manifest of the tree."""
        with as_lading_errors(self._tree):
            self._make_links()
            found = self._found()
            is_wanted = self._is_wanted or (lambda _: True)
            wanted = found._replace(files=tuple(file for file in found.files if is_wanted(file.path)))
            if not wanted.files:
                raise NotFound(
                    f"no file of the layers is selected, of {len(found.files)}",
                    hint=f"the patterns leave out, for example, {printable(found.files[0].path)}",
                )
            for path in self._files.keys() - wanted.by_path().keys():
                (self._tree / path).unlink()
            if refused_modes := sorted(self._not_executable & wanted.by_path().keys()):
                self._listener(NotExecutable(len(refused_modes), refused_modes[0]))
            return wanted._replace(folders=self._empty_folders())

    def _empty_folders(self) -> tuple[str, ...]:
        """The empty folders: some servers need one, such as Triton for the version of an ensemble."""
        empty = [folder for folder, folders, names in os.walk(self._tree) if not folders and not names]
        return tuple(sorted(os.path.relpath(folder, self._tree) for folder in empty))

    def _make_links(self) -> None:
        for path in sorted(self._links):
            target = self._follow(path)
            if target in self._files:
                self._alias(path, target)
                continue
            below = self._files.below(target)
            if not below or path == target or path.startswith(f"{target}/"):
                what = f"the link {printable(path)!r}, which leads nowhere or to itself"
                self._writer(self._tree).refuse_if_wanted(path, refused(self._archive, what))
                continue
            for name in below:
                # Each counts as a member: links to folders of links double with every step.
                self._spent.member(self._archive)
                self._alias(path + name[len(target) :], name)

    def _found(self) -> Manifest:
        if not self._files and self._image_folder:
            raise NotFound(
                f"the image has no file below /{self._image_folder}", hint="that is where a modelcar keeps its model"
            )
        if not self._files:
            raise refused(self._archive, "no file")
        return Manifest.of(self._files.values())

    def _link_now(self, writer: TreeWriter, path: str) -> None:
        """Make a hard link to a file of this layer or an earlier one now, since a later layer may replace that file."""
        target = writer.links[path]
        known = writer.files.get(target) or self._files.get(target)
        if known is None:
            # It leads to another link, which is followed at the end.
            return
        full_path = (writer.root if target in writer.files else self._tree) / target
        if "/" in path:
            writer.folder(path.rpartition("/")[0])
        self._make(full_path, writer.root / path, known)
        writer.files[path] = known._replace(path=path)
        del writer.links[path]

    def _drop_hidden(self, writer: TreeWriter) -> None:
        """Remove the files of earlier layers that this layer hides or replaces."""
        replaced = writer.files.keys() | writer.links.keys()
        for folder in {folder for path in (*replaced, *writer.folders) for folder in (path, *_above(path))}:
            self._drop(folder)
        for hidden in (*replaced, *writer.whiteouts):
            for path in (hidden, *self._files.below(hidden), *self._links.below(hidden)):
                self._drop(path)

    def _drop(self, path: str) -> None:
        self._links.pop(path, None)
        if self._files.pop(path, None) is not None:
            (self._tree / path).unlink()
        self._not_executable.discard(path)

    def _follow(self, path: str) -> str:
        for _ in range(_MOST_LINKS_IN_A_ROW):
            if path not in self._links:
                return path
            path = self._links[path]
        raise refused(self._archive, f"the link {printable(path)!r}, which leads to itself")

    def _alias(self, path: str, target: str) -> None:
        if path in self._files:
            return
        if "/" in path:
            self._folder(path.rpartition("/")[0])
        self._make(self._tree / target, self._tree / path, self._files[target])
        self._files[path] = self._files[target]._replace(path=path)

    def _folder(self, path: str) -> None:
        try:
            os.makedirs(self._tree / path, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise self._both(path) from error

    def _make(self, path: Path, further: Path, known: File) -> None:
        """Make ``further`` a hard link to ``path``, or a copy if the file system cannot link."""
        try:
            if link(path, further):
                return
            self._spent.bytes(self._archive, known.size_bytes)
            materialize_file(path, further, links=False)
        except FileExistsError as error:
            raise self._both(os.path.relpath(further, self._tree)) from error
        set_mode(further, stat.S_IMODE(path.stat().st_mode))

    def _both(self, path: str) -> IntegrityError:
        return refused(self._archive, f"{printable(path)!r} as a file and as a folder")


class _Tree(UserDict[str, T]):
    """A value for each path; finds the paths below a folder without a search through all of them."""

    def __init__(self) -> None:
        super().__init__()
        # For each folder ("" for the root) its entries; those of folders end in a slash.
        self._inside: dict[str, set[str]] = {}

    def __setitem__(self, path: str, value: T) -> None:
        super().__setitem__(path, value)
        entry = path
        for folder in (*_above(path), ""):
            inside = self._inside.setdefault(folder, set())
            if entry in inside:
                return
            inside.add(entry)
            entry = f"{folder}/"

    def __delitem__(self, path: str) -> None:
        super().__delitem__(path)
        entry = path
        for folder in (*_above(path), ""):
            inside = self._inside[folder]
            inside.remove(entry)
            if inside:
                return
            del self._inside[folder]
            entry = f"{folder}/"

    def below(self, folder: str) -> list[str]:
        """Every path below this folder; all paths for ""."""
        found, folders = [], [folder]
        while folders:
            for entry in self._inside.get(folders.pop(), ()):
                if entry.endswith("/"):
                    folders.append(entry[:-1])
                else:
                    found.append(entry)
        return found


def _above(path: str) -> Iterator[str]:
    """The folders above ``path``, the nearest first."""
    while path := path.rpartition("/")[0]:
        yield path
