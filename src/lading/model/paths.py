"""Paths of files below a model's root, and the names that lading keeps for itself."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from lading.errors import IntegrityError, LadingError
from lading.text.printable import printable

# It is JSON without the ending: KServe's XGBoost server takes any file that ends in .json for its model.
FILE_NAME = ".lading.manifest"
WORKSPACE_NAME = ".lading"
RESERVED_NAMES = (FILE_NAME, WORKSPACE_NAME)
# The folder that mkfs makes at the root of a volume: it is not the model's, and no stray.
OF_A_VOLUME = "lost+found"
# A path that needs no further checks: almost all are such.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,199})*")


class Named(Protocol):
    """A file with its path below the model's root; ``shown`` is its name in messages."""

    @property
    def path(self) -> str: ...

    @property
    def shown(self) -> str: ...


F = TypeVar("F", bound=Named)


def shown_path(path: str) -> str:
    """``path`` in printable form, even if it is not valid Unicode."""
    return printable(path.encode("utf-8", "backslashreplace").decode())


def safe_path(path: str) -> str:
    """``path`` itself, if it names a file below the model's root; else ``IntegrityError``.

    A listing is not trusted: a name that would leave the destination, or collide with lading's
    own files, is refused and never repaired.
    """
    if why := why_unsafe(path):
        raise IntegrityError(f"the origin lists the name {shown_path(path)!r}, which {why}")
    return path


def why_unsafe(path: str) -> str:
    """Why ``path`` cannot be a file below the model's root, or ""."""
    if _PLAIN_PATH.fullmatch(path):
        return ""
    segments = path.split("/")
    if path.startswith("/"):
        return "begins with a slash below the model's own folder"
    if ".." in segments or "." in segments or "" in segments:
        return "has an empty, '.' or '..' segment"
    if "\0" in path:
        return "holds a NUL character"
    if segments[0] in RESERVED_NAMES:
        return "is a name that lading keeps for itself"
    try:
        if max(len(segment.encode()) for segment in segments) > 255:
            return "has a segment longer than 255 bytes"
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return ""


def name_faults(
    files: Sequence[F], other_fault: Callable[[F], LadingError | None] = lambda _: None
) -> Iterator[tuple[F, LadingError]]:
    """Every file whose path is unsafe or conflicts with another's, or that has an ``other_fault``, and why.

    ``IntegrityError`` if two files have the same path.
    """
    known = {file.path: file for file in files}
    twice = Counter(file.path for file in files) if len(known) < len(files) else {}
    # For each folder the first file in it.
    folders: dict[str, F] = {}
    for file in files:
        if error := other_fault(file):
            yield file, error
        elif why := why_unsafe(file.path):
            yield file, IntegrityError(f"the origin lists the name {file.shown!r}, which {why}")
        elif twice and twice[file.path] > 1:
            raise IntegrityError(f"two files are both called {file.shown!r}")
        else:
            parent = file.path.rpartition("/")[0]
            while parent and parent not in folders:
                folders[parent] = file
                parent = parent.rpartition("/")[0]
    for path in sorted(folders.keys() & known.keys()):
        both = f"{known[path].shown!r} is a file, and also the folder of {folders[path].shown!r}"
        yield (
            known[path],
            IntegrityError(both, hint="a folder cannot hold both: rename or remove one of them at the origin"),
        )
