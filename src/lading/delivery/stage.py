"""Bringing: what was found is fetched to its folder, verified, opened and published.

    transfer   what is missing lands in the workspace, verified       (transfer)
    unpack     archives become a tree                                 (layers)
    publish    the tree becomes the destination, the manifest last    (place)

Several models share one scheduler, and none is published before all have landed.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from lading.delivery.resolve import ARCHIVES, ResolvedModel
from lading.delivery.space import lacking_bytes, require_free, usable
from lading.destination.audit import ChangeDetector, extra
from lading.destination.publish import note_times, recover
from lading.destination.publish import publish as publish_tree
from lading.destination.strays import remove_strays
from lading.destination.workspace import Workspace, best_effort, open_workspace
from lading.errors import DeadlineExceeded, Interrupted, LadingError, Unavailable
from lading.events import (
    AlreadyDelivered,
    Delivered,
    Listener,
    Modified,
    Restarted,
    ReusedFromStore,
    StraysFound,
    StraysRemoved,
    Unpacking,
    ignore,
)
from lading.model import compare
from lading.model.compare import Holds, unchanged
from lading.model.listing import ListedFile, Listing
from lading.model.manifest import File, Manifest
from lading.model.pattern import chooser
from lading.session import Session
from lading.settings.confidential import read_confidential
from lading.system.disk import disk_error
from lading.system.folders import move_into, remove_tree
from lading.transfer.job import Job, Unpacker
from lading.transfer.journal import Journal, Received, read_journal
from lading.transfer.scheduler import transfer

if TYPE_CHECKING:
    # Loaded where there is one, or where it is asked for.
    from lading.delivery.decrypt import Decrypter
    from lading.store.store import Store


_NO_MIDDLE = "its origin does not send part of a file, or does not tell one version from another"
_ANEW = "it starts anew, since nothing that has landed can be used again"


class Wanted(NamedTuple):
    """What was found and the folder that it is to go to; ``key`` is its name in the store, where there is one."""

    finding: ResolvedModel
    destination: Path
    key: str = ""


class Opened(NamedTuple):
    """The same, with the locked workspace of its destination."""

    wanted: Wanted
    workspace: Workspace


class Staged(NamedTuple):
    """A model that is whole in ``root``, and lacks only its final name; ``kept`` files the destination has.

    Where it is under its final name already, ``root`` is None.
    """

    workspace: Workspace
    root: Path | None
    manifest: Manifest
    kept: Mapping[str, File] = MappingProxyType({})


class _Delivery(NamedTuple):
    """One model on its way into its workspace; ``kept`` files the destination has, ``supplied`` ones the stage."""

    opened: Opened
    kept: dict[str, File]
    supplied: dict[str, File]
    job: Job


def bring(
    wanted: Sequence[Wanted], session: Session, store: "Store | None" = None, *, copied_bytes: int = 0
) -> dict[Path, Manifest]:
    """Fetch each model to its destination; returns the sealed manifests by destination.

    With a ``store`` the destinations lie in it: what it has of them is linked and not fetched, and it makes room
    for the rest and for ``copied_bytes`` more.
    """
    with ExitStack() as stack:
        opened = [open_destination(each, session, stack) for each in in_order(wanted)]
        staged = stage(opened, session, store, copied_bytes=copied_bytes)
        return publish(staged, session, session.listener if store is None else ignore)


def in_order(wanted: Iterable[Wanted]) -> list[Wanted]:
    """In the order of their paths, so that two processes that lock the same ones cannot block each other."""
    return sorted(wanted, key=lambda each: os.path.realpath(each.destination))


def open_destination(wanted: Wanted, session: Session, stack: ExitStack) -> Opened:
    """Lock a destination while ``stack`` lasts, and finish or undo what a killed process left there."""
    return Opened(wanted, workspace_of(wanted.destination, session, stack))


def stage(
    opened: Sequence[Opened], session: Session, store: "Store | None" = None, *, copied_bytes: int = 0
) -> list[Staged]:
    """Fetch each model to its workspace, as ``bring`` does; none of them has its final name yet."""
    staged: list[Staged] = []
    deliveries: list[_Delivery] = []
    with ExitStack() as stack:
        for each in opened:
            (finding, destination, _), workspace = each
            old = workspace.delivered()
            untouched = ChangeDetector(destination, session.run)
            if old is not None and is_in_place(finding, old, untouched, session):
                if untouched.hashed:
                    note_times(workspace, old)
                with best_effort(destination, session.listener):
                    workspace.dissolve()
                if store is None:
                    session.listener(AlreadyDelivered(str(destination)))
                    tell_foreign(workspace, old, session.listener)
                staged.append(Staged(workspace, None, old))
            else:
                kept: dict[str, File] = {}
                if old is not None:
                    kept = unchanged(finding.listed, old, finding.vouched, session.settings.verify, untouched)
                if changed := untouched.changed:
                    session.listener(Modified(str(destination), len(changed), changed[0]))
                deliveries.append(_begin(each, kept, session, store, stack))
        _check_space(deliveries, store, copied_bytes)
        opener = _opener(session) if deliveries else None
        sealed = _transfer(deliveries, session)
        for delivery, (root, manifest) in zip(deliveries, list(map(_tree, deliveries, sealed)), strict=True):
            if opener is not None:
                manifest = opener.open(root, manifest, delivery.kept)
            staged.append(Staged(delivery.opened.workspace, root, manifest, delivery.kept))
    return staged


def publish(staged: Iterable[Staged], session: Session, listener: Listener) -> dict[Path, Manifest]:
    """Give each model its final name; returns the manifests by destination."""
    manifests: dict[Path, Manifest] = {}
    for workspace, root, manifest, kept in staged:
        if root is not None:
            manifest = manifest._replace(seconds=session.seconds)
            alone = publish_tree(workspace, root, manifest, kept, listener)
            listener(delivered_event(workspace.given, manifest))
            if not alone:
                tell_foreign(workspace, manifest, listener)
        manifests[workspace.given] = manifest
    return manifests


def workspace_of(destination: Path, session: Session, stack: ExitStack) -> Workspace:
    """The locked workspace of a destination, after what a killed process left there is finished or undone."""
    workspace = stack.enter_context(open_workspace(destination, session.run))
    recover(workspace, session.listener)
    # Before anything is fetched: what is to come may need their space.
    if session.settings.remove_strays and (gone := remove_strays(workspace)):
        session.listener(StraysRemoved(str(destination), len(gone), gone[0]))
    return workspace


def tell_foreign(workspace: Workspace, manifest: Manifest, listener: Listener) -> None:
    """Say what the destination holds besides its model: a server that reads the folder sees it, too."""
    if foreign := extra(workspace.destination, manifest):
        listener(StraysFound(str(workspace.given), len(foreign), foreign[0]))


def delivered_event(destination: Path, manifest: Manifest) -> Delivered:
    """What is told of a model that is in place."""
    return Delivered(str(destination), len(manifest.files), manifest.size_bytes, manifest.seconds, str(manifest.digest))


def is_in_place(finding: ResolvedModel, old: Manifest, holds: Holds, session: Session) -> bool:
    """Whether the destination holds exactly what was found; ``old`` is its manifest."""
    return compare.is_delivered(finding.listed, old, finding.vouched, session.settings.verify, holds)


def _begin(
    opened: Opened, kept: dict[str, File], session: Session, store: "Store | None", stack: ExitStack
) -> _Delivery:
    """Decide what is still to fetch, and take over what an earlier attempt staged and what the store has."""
    (finding, destination, _), workspace = opened
    listed, verify = finding.listed, session.settings.verify
    missing = listed.without(kept)
    journal = Journal(workspace.journal, origin=listed.origin)
    stack.callback(journal.close)
    remove_tree(workspace.tree)
    if _has_bytes(workspace, missing.files) and not any(usable(missing.files, _earlier(journal))):
        why = "" if any(map(_can_go_on, missing.files)) else _NO_MIDDLE
        session.listener(Restarted(str(destination), why))
    if journal.earlier:
        workspace.prune_stage(missing.by_path().keys())
    else:
        remove_tree(workspace.stage)
    supplied: dict[str, File] = {}
    if store is not None:
        supplied = store.supply(missing, finding.vouched, verify, workspace.stage)
        missing = missing.without(supplied)
        if supplied:
            session.listener(ReusedFromStore(len(supplied), sum(file.size_bytes for file in supplied.values())))
    unpacker = _unpacker(finding.listed, workspace.tree, session)
    address = store.address if store is not None else ""
    job = Job(finding.source, missing, workspace.stage, journal, verify, finding.vouched, unpacker, address=address)
    return _Delivery(opened, kept, supplied, job)


def _check_space(deliveries: Sequence[_Delivery], store: "Store | None", copied_bytes: int) -> None:
    """Refuse what cannot fit before the first byte; several models on one file system add up."""
    if store is not None:
        from lading.store.eviction import ensure_free

        ensure_free(store, copied_bytes + sum(map(_lacking_bytes, deliveries)))
        return
    needed: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    for delivery in deliveries:
        folder = delivery.opened.workspace.folder
        device = folder.stat().st_dev
        folders[device] = folder
        needed[device] += _lacking_bytes(delivery)
    for device, size_bytes in needed.items():
        require_free(folders[device].parent, size_bytes)


def _lacking_bytes(delivery: _Delivery) -> int:
    present = (*delivery.kept.values(), *delivery.supplied.values())
    return lacking_bytes(delivery.opened.wanted.finding, present, _earlier(delivery.job.journal))


def _earlier(journal: Journal) -> Iterable[Received]:
    return chain.from_iterable(journal.earlier.values())


def _transfer(deliveries: Sequence[_Delivery], session: Session) -> list[Manifest]:
    try:
        return transfer([delivery.job for delivery in deliveries], session)
    except (Unavailable, Interrupted, KeyboardInterrupt) as error:
        if not _is_lost(deliveries):
            raise
        # Nobody is promised that the next run resumes.
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"run it again: {_ANEW}") from error
        if isinstance(error, DeadlineExceeded):
            error.hint = f"raise the deadline: {_ANEW}"
        elif isinstance(error, Interrupted) or not error.hint:
            error.hint = f"run it again: {_ANEW}"
        raise


def _is_lost(deliveries: Sequence[_Delivery]) -> bool:
    """Whether a next run can use nothing of what has landed, or nothing that could have landed."""
    begun = False
    for delivery in deliveries:
        workspace, journal, listed = delivery.opened.workspace, delivery.job.journal, delivery.job.listed
        with contextlib.suppress(LadingError):
            journal.flush()
        if any(usable(listed.files, read_journal(workspace.journal, listed.origin))):
            return False
        begun |= _has_bytes(workspace, listed.files) or not any(map(_can_go_on, listed.files))
    return begun


def _can_go_on(file: ListedFile) -> bool:
    """Whether a run can go on where another one ended in the middle of this file."""
    return file.ranged and bool(file.validator) and file.size_bytes is not None


def _has_bytes(workspace: Workspace, files: Iterable[ListedFile]) -> bool:
    """Whether any of these files is in the stage, in part or whole, and not as a link to what a store has."""
    for file in files if workspace.stage.exists() else ():
        with contextlib.suppress(OSError):
            status = os.lstat(workspace.stage / file.path)
            if status.st_size and status.st_nlink == 1:
                return True
    return False


def _unpacker(listed: Listing, tree: Path, session: Session) -> Unpacker | None:
    layers = [file for file in listed.files if file.layer is not None]
    if not layers:
        return None
    # Here, and not above: most models are no archive, and its formats take 15 ms to load.
    from lading.unpack.layers import Layers

    settings = session.settings
    session.listener(Unpacking(f"{len(layers)} layers" if len(layers) > 1 else layers[0].path))
    if layers[0].path.lower().endswith(ARCHIVES):
        # Chosen itself, by its name.
        return Layers(tree, settings.limits, listener=session.listener)
    return Layers(tree, settings.limits, chooser(settings.allow, settings.ignore), session.listener)


def _opener(session: Session) -> "Decrypter | None":
    """What opens encrypted files; None unless that is asked for."""
    settings = read_confidential(session.settings.variables)
    if settings is None:
        return None
    from lading.delivery.decrypt import Decrypter

    return Decrypter(settings, session)


def _tree(delivery: _Delivery, sealed: Manifest) -> tuple[Path, Manifest]:
    """The folder to publish, and what is in it together with what the destination keeps."""
    workspace, unpacked = delivery.opened.workspace, delivery.job.unpacked
    present = (*delivery.kept.values(), *delivery.supplied.values())
    layers = {file.path for file in delivery.job.layers}
    plain = [*(file for file in sealed.files if file.path not in layers), *present]
    if unpacked is None:
        return workspace.stage, sealed._replace(files=tuple(sorted(plain)))
    files = Manifest.of((*unpacked.files, *plain)).files
    try:
        move_into(workspace.stage, workspace.tree)
    except OSError as error:
        raise disk_error(error, error.filename or workspace.tree) from error
    archives = tuple(file for file in sealed.files if file.path in layers)
    return workspace.tree, sealed._replace(files=files, archives=archives, folders=unpacked.folders)
