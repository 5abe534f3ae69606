"""The disk space that a delivery needs on each file system, with a store and without."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lading.delivery.existing import estimated
from lading.delivery.plan import Delivery
from lading.delivery.resolve import ResolvedModel
from lading.destination.workspace import Workspace
from lading.errors import NoSpace
from lading.model.manifest import File
from lading.settings.settings import Settings
from lading.system.disk import as_lading_errors, clones, existing_ancestor, free_bytes
from lading.text.printable import printable
from lading.text.units import size
from lading.transfer.journal import read_journal, usable

if TYPE_CHECKING:
    # Loaded where there is one.
    from lading.store.store import Store


class Need(NamedTuple):
    """Bytes that a delivery needs on the file system of ``path``, and those that are free or can be freed there."""

    path: Path
    needed_bytes: int
    free_bytes: int

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.free_bytes


def lacking_bytes(delivery: Delivery) -> int:
    """The bytes of a model that are still to be written, as far as sizes are known: neither present nor staged."""
    # Of the lines of one range the last one counts.
    ranges = {
        (received.path, received.start): received for received in usable(delivery.missing.files, delivery.earlier)
    }
    staged = sum(received.end - received.start for received in ranges.values())
    present = sum(file.size_bytes for file in delivery.present)
    return max(delivery.model.needed_bytes - present - staged, 0)


def require_space(deliveries: Sequence[Delivery], store: "Store | None" = None, *, copied_bytes: int = 0) -> None:
    """Raise ``NoSpace`` before the first byte if the deliveries do not fit.

    With a ``store``, the destinations are in the store, which evicts models for them and for ``copied_bytes`` more.
    """
    lacking = [(each.workspace.destination, lacking_bytes(each)) for each in deliveries if each.in_place is None]
    if store is None:
        _require_free(lacking)
        return
    from lading.store.eviction import ensure_free

    ensure_free(store, copied_bytes + sum(size_bytes for _, size_bytes in lacking))


def require_space_for_copies(deliveries: Sequence[Delivery], store: "Store") -> int:
    """Raise ``NoSpace`` if copies of the store's files do not fit; returns the bytes copied on the store's own file system."""
    folders = [(existing_ancestor(each.destination), each.model.needed_bytes) for each in deliveries]
    copies = [(folder, size_bytes) for folder, size_bytes in folders if not store.shares_with(folder)]
    own = store.root.stat().st_dev
    _require_free((folder, size_bytes) for folder, size_bytes in copies if folder.stat().st_dev != own)
    return sum(size_bytes for folder, size_bytes in copies if folder.stat().st_dev == own)


def _require_free(needs: Iterable[tuple[Path, int]]) -> None:
    """Raise ``NoSpace`` unless so many bytes are free in each folder; those on one file system add up."""
    needed: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    for folder, size_bytes in needs:
        device = folder.stat().st_dev
        folders[device] = folder
        needed[device] += size_bytes
    for device, size_bytes in needed.items():
        free = free_bytes(folders[device])
        if size_bytes > free:
            raise NoSpace(
                f"{printable(str(folders[device]))} needs {size(size_bytes)} more and has {size(free)} free",
                hint="free some space, give a larger volume, or select files by --allow",
            )


def need_of(model: ResolvedModel, destination: Path, settings: Settings) -> Need:
    """The need of a delivery on the file system that it fills most; hashes nothing."""
    workspace = Workspace(destination)
    found = estimated(workspace)
    if found.whole(model, settings.verify) is not None:
        return Need(destination, 0, free_bytes(destination))
    unchanged = found.unchanged(model, settings.verify)
    here = Need(destination, lacking_bytes(_begun(model, workspace, unchanged)), free_bytes(destination))
    if not settings.store.path:
        return here
    with as_lading_errors(settings.store.path):
        return min(_by_the_store(model, here, settings), key=lambda need: need.free_bytes - need.needed_bytes)


def _begun(model: ResolvedModel, workspace: Workspace, present: Mapping[str, File]) -> Delivery:
    """A delivery to this workspace, as an earlier run left it."""
    earlier = tuple(read_journal(workspace.journal, model.listed.origin))
    return Delivery(model, workspace, unchanged=present, earlier=earlier)


def _by_the_store(model: ResolvedModel, here: Need, settings: Settings) -> list[Need]:
    # Here, and not above: most deliveries have none.
    from lading.store.eviction import evictable_bytes
    from lading.store.store import Store

    root, folder = Path(settings.store.path).absolute(), existing_ancestor(here.path)
    same = os.stat(existing_ancestor(root)).st_dev == os.stat(folder).st_dev
    held: list[tuple[Path, File]] = []
    lacking = model.needed_bytes
    # A question is no reason to make a folder for one.
    store = Store(settings.store) if root.exists() else None
    if store is None:
        shared = same and (settings.store.hard_links or clones(existing_ancestor(root)))
    else:
        key = store.key(model.listed, model.expected, settings)
        stored = store.find(key)
        if stored is None and not store.writable:
            # Then it is brought past the store.
            return [here]
        shared = store.shares_with(folder)
        if stored is not None:
            held = [(store.folder(key) / file.path, file) for file in stored.files]
            lacking = 0
        else:
            held = list(store.held(model.listed, model.expected, settings.verify).values())
            present = {file.path: file for _, file in held}
            lacking = lacking_bytes(_begun(model, Workspace(store.incoming(key)), present))
    copied = 0 if shared or not same else model.needed_bytes
    free = free_bytes(root)
    if store is not None and store.writable and free < lacking + copied:
        free += evictable_bytes(store, [path for path, _ in held])
    needs = [Need(root, lacking + copied, free)]
    # Out of the store comes all of it, whatever the destination has.
    return needs if same else [here._replace(needed_bytes=model.needed_bytes), *needs]
