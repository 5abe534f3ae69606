"""Files in a destination that are not of its model, removed where that was asked for."""

import os
from collections.abc import Collection
from pathlib import Path

from lading.destination.workspace import Workspace
from lading.model.paths import FILE_NAME, OF_A_VOLUME, WORKSPACE_NAME
from lading.system.disk import as_lading_errors
from lading.system.folders import remove_tree

_NO_STRAYS = (FILE_NAME, WORKSPACE_NAME, OF_A_VOLUME)


def remove_strays(workspace: Workspace) -> list[str]:
    """Remove what the destination holds besides its model, all of it where there is none; returns what went.

    A folder goes whole and a link without what it leads to.  Call with the lock held.
    """
    manifest = workspace.delivered()
    known = set(manifest.by_path()) if manifest else set()
    folders = manifest.all_folders() if manifest else set()
    gone: list[str] = []
    with as_lading_errors(workspace.destination):
        _remove_strays(workspace.destination, "", known, folders, gone)
    return gone


def _remove_strays(
    folder: Path, prefix: str, known: Collection[str], folders: Collection[str], gone: list[str]
) -> None:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = f"{prefix}{entry.name}"
        if path in _NO_STRAYS or path in known:
            continue
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
        elif path in folders:
            _remove_strays(Path(entry.path), f"{path}/", known, folders, gone)
            continue
        else:
            remove_tree(Path(entry.path))
        gone.append(path)
