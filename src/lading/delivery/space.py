"""Room: where a delivery needs how many bytes.  By way of a store that may be there, here, at both places or at none."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lading.delivery.resolve import ResolvedModel
from lading.destination.audit import sized
from lading.destination.workspace import Workspace
from lading.errors import NoSpace
from lading.model.compare import is_delivered, unchanged
from lading.model.listing import ListedFile
from lading.model.manifest import File
from lading.settings.settings import Settings
from lading.system.disk import clones, disk_error, existing_ancestor, free_bytes
from lading.text.printable import printable
from lading.text.units import size
from lading.transfer.journal import Received, read_journal


class Need(NamedTuple):
    """Bytes that must be free on the file system of ``place``, and those that are, or can be made so."""

    place: Path
    needed_bytes: int
    free_bytes: int

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.free_bytes


def lacking_bytes(finding: ResolvedModel, present: Iterable[File], earlier: Iterable[Received]) -> int:
    """What is still to be written of a model, as far as anybody knows.

    ``present`` files are there already, and of the others what ``earlier`` runs have staged.
    """
    there = {file.path: file.size_bytes for file in present}
    fetched = [file for file in finding.listed.files if file.path not in there]
    # Of the lines of one span the last one counts.
    spans = {(landed.path, landed.start): landed for landed in usable(fetched, earlier)}
    staged = sum(landed.end - landed.start for landed in spans.values())
    return max(finding.needed_bytes - sum(there.values()) - staged, 0)


def usable(files: Iterable[ListedFile], earlier: Iterable[Received]) -> Iterator[Received]:
    """What a run can go on with, of what ``earlier`` ones have staged of these files."""
    fetched = {file.path: file for file in files}
    for landed in earlier:
        file = fetched.get(landed.path)
        if file and (file.size_bytes, file.validator) == (landed.size_bytes, landed.listed):
            yield landed


def require_free(folder: Path, size_bytes: int) -> None:
    """Raise ``NoSpace`` unless so many bytes are free where the folder is."""
    free = free_bytes(folder)
    if size_bytes > free:
        raise NoSpace(
            f"{printable(str(folder))} needs {size(size_bytes)} more and has {size(free)} free",
            hint="free some space, give a larger volume, or select files by --allow",
        )


def need_of(finding: ResolvedModel, destination: Path, settings: Settings) -> Need:
    """What a delivery needs where it leaves the least, beyond what is there already of it; hashes nothing."""
    workspace, origin = Workspace(destination), finding.listed.origin
    kept = _kept_in(destination, finding, settings)
    lacking = 0 if kept is None else lacking_bytes(finding, kept.values(), read_journal(workspace.journal, origin))
    there = Need(destination, lacking, free_bytes(destination))
    if kept is None or not settings.store.path:
        return there
    try:
        return min(_by_the_store(finding, there, settings), key=lambda need: need.free_bytes - need.needed_bytes)
    except OSError as error:
        raise disk_error(error, error.filename or settings.store.path) from error


def _kept_in(destination: Path, finding: ResolvedModel, settings: Settings) -> dict[str, File] | None:
    """The files of a finding that its destination has; None where it holds exactly that already."""
    old = Workspace(destination).delivered() if destination.is_dir() else None
    if old is None:
        return {}
    asked = finding.listed, old, finding.vouched, settings.verify, sized(destination)
    return None if is_delivered(*asked) else unchanged(*asked)


def _by_the_store(finding: ResolvedModel, there: Need, settings: Settings) -> list[Need]:
    # Here, and not above: most deliveries have none.
    from lading.store.eviction import evictable_bytes
    from lading.store.store import Store

    root, near = Path(settings.store.path).absolute(), existing_ancestor(there.place)
    here = os.stat(existing_ancestor(root)).st_dev == os.stat(near).st_dev
    held: list[tuple[Path, File]] = []
    lacking = finding.needed_bytes
    # A question is no reason to make a folder for one.
    store = Store(settings.store) if root.exists() else None
    if store is None:
        shared = here and (settings.store.hard_links or clones(existing_ancestor(root)))
    else:
        key = store.key(finding.listed, finding.vouched, settings)
        model = store.find(key)
        if model is None and not store.writable:
            # Then it is brought past the store.
            return [there]
        shared = store.shares_with(near)
        if model is not None:
            held = [(store.folder(key) / file.path, file) for file in model.files]
            lacking = 0
        else:
            held = list(store.held(finding.listed, finding.vouched, settings.verify).values())
            staged = read_journal(Workspace(store.incoming(key)).journal, finding.listed.origin)
            lacking = lacking_bytes(finding, [file for _, file in held], staged)
    copied = 0 if shared or not here else finding.needed_bytes
    free = free_bytes(root)
    if store is not None and store.writable and free < lacking + copied:
        free += evictable_bytes(store, [place for place, _ in held])
    needs = [Need(root, lacking + copied, free)]
    # Out of the store comes all of it, whatever the destination has.
    return needs if here else [there._replace(needed_bytes=finding.needed_bytes), *needs]
