"""Room: how many bytes a delivery needs, and on which file systems: the store's, the destination's, both or neither."""

import os
from pathlib import Path
from typing import NamedTuple

from lading.disk import clones, disk_error, free_bytes, nearest
from lading.finding import Finding
from lading.manifest import File
from lading.settings import Settings
from lading.store import Store
from lading.store.eviction import evictable_bytes


class Need(NamedTuple):
    """Bytes that must be free on the file system of ``place``, and those that are, or can be made so."""

    place: Path
    needed_bytes: int
    free_bytes: int

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.free_bytes


def need_of(finding: Finding, destination: Path, settings: Settings) -> Need:
    """What a delivery needs where it leaves the least; what is there already of it in the destination counts, too."""
    there = Need(destination, finding.needed_bytes, free_bytes(destination))
    if not settings.store.path:
        return there
    try:
        return min(_by_the_store(finding, there, settings), key=lambda need: need.free_bytes - need.needed_bytes)
    except OSError as error:
        raise disk_error(error, error.filename or settings.store.path) from error


def _by_the_store(finding: Finding, there: Need, settings: Settings) -> list[Need]:
    root, near = Path(settings.store.path).absolute(), nearest(there.place)
    here = os.stat(nearest(root)).st_dev == os.stat(near).st_dev
    held: list[tuple[Path, File]] = []
    # A question is no reason to make a folder for one.
    store = Store(settings.store) if root.exists() else None
    if store is None:
        shared = here and (settings.store.hard_links or clones(nearest(root)))
    else:
        key = store.key(finding.listed, finding.vouched, settings)
        model = store.find(key)
        if model is None and not store.writable:
            # Then it is brought past the store.
            return [there]
        shared = store.shares_with(near)
        if model is not None:
            held = [(store.folder(key) / file.path, file) for file in model.files]
        else:
            held = list(store.held(finding.listed, finding.vouched, settings.verify).values())
    lacking = max(finding.needed_bytes - sum(file.size_bytes or 0 for _, file in held), 0)
    copied = 0 if shared or not here else finding.needed_bytes
    free = free_bytes(root)
    if store is not None and store.writable and free < lacking + copied:
        free += evictable_bytes(store, [place for place, _ in held])
    needs = [Need(root, lacking + copied, free)]
    return needs if here else [there, *needs]
