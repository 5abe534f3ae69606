"""The format of a store, whose folders ``store`` draws: whether a folder is a store of this format, and making one."""

import json
import os
from pathlib import Path

from lading.errors import IntegrityError, NotAllowed, Unsupported, UsageError
from lading.store.blobs import BLOB_ALGORITHM
from lading.store.files import touch
from lading.system.disk import write_whole
from lading.text.printable import printable

FORMAT = 1
_FOLDERS = (
    *("models", "incoming", "blobs", "origins", "asked", "uses", "references", "agent", "locks", "leases"),
    *("quarantine", "pauses", "owners"),
)
# Those that are there from the beginning; the others appear when they are needed.
_FIRST = ("models", "incoming", f"blobs/{BLOB_ALGORITHM}", "leases", "uses", "asked", "references", "pauses")
# All that may be where a store begins; a new ext4 volume is not quite empty.
_NAMES = (*_FOLDERS, "format", "first", "swept", "scrub", "lost+found")


def prepare(root: Path) -> bool:
    """Make what is lacking below ``root``; false if this process may only read.

    ``UsageError``, ``NotAllowed``, ``IntegrityError`` or ``Unsupported`` for a folder that is no store, and ``OSError``.
    """
    root.mkdir(parents=True, exist_ok=True)
    writable = os.access(root, os.W_OK | os.X_OK)
    path = root / "format"
    if not path.exists():
        _begin(root, path, writable=writable)
    _check_format(root, path)
    if writable:
        _refuse_links(root)
        for name in _FIRST:
            (root / name).mkdir(parents=True, exist_ok=True)
        touch(root / "first")
    return writable


def _begin(root: Path, path: Path, *, writable: bool) -> None:
    shown = printable(str(root))
    strangers = sorted(name for name in os.listdir(root) if name not in _NAMES and name[0] != ".")
    if strangers:
        raise UsageError(
            f"{shown} is not a store: it holds {printable(strangers[0])}",
            hint="give the store a folder of its own",
        )
    if not writable:
        raise NotAllowed(
            f"there is no store in {shown}, and none can be made",
            hint=f"it must be writable by user {os.geteuid()}",
        )
    # The first thing that is there: another process that begins now finds it, or only what it knows.
    write_whole(path, [json.dumps({"format": FORMAT}), "\n"])


def _check_format(root: Path, path: Path) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(f"{printable(str(root))} is not a store of lading") from error
    if found != FORMAT:
        raise Unsupported(
            f"the store {printable(str(root))} has the format {found!r}; this lading knows {FORMAT}",
            hint="use the lading that wrote it, or another folder",
        )


def _refuse_links(root: Path) -> None:
    """What is removed here is the store's own, as long as none of its folders leads elsewhere."""
    for name in (*_FOLDERS, "first"):
        if (root / name).is_symlink():
            raise UsageError(
                f"in the store {printable(str(root))}, {name} is a symbolic link, which is not followed",
                hint="remove it, and see who else may write there",
            )
