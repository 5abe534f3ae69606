"""One model on its way to one folder: the lock of its destination, the files that are there, and those that are missing."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from lading.delivery.existing import existing, leave, report_delivered
from lading.delivery.resolve import ResolvedModel
from lading.destination.publish import recover
from lading.destination.strays import remove_strays
from lading.destination.workspace import Workspace, open_workspace
from lading.errors import NoSpace
from lading.events import Modified, Restarted, ReusedFromStore, StraysRemoved
from lading.model.listing import ListedFile, Listing
from lading.model.manifest import File, Manifest
from lading.session import Session
from lading.system.disk import as_lading_errors
from lading.system.folders import remove_tree
from lading.transfer.journal import Received, read_journal, usable

if TYPE_CHECKING:
    # Loaded where there is one.
    from lading.store.store import Store

_NO_MIDDLE = "its origin cannot send a part of a file, or does not identify its version"


class Delivery(NamedTuple):
    """One model on its way to one folder.  ``key`` is its name in the store, where there is one.

    The other fields are the plan.  ``in_place`` is the manifest of a destination that already has the model.  Otherwise
    ``unchanged`` files are in the destination, ``reused_from_store`` files were linked from the store into the stage, and
    ``earlier`` lists the ranges of ``missing`` files that an earlier run has staged.
    """

    model: ResolvedModel
    workspace: Workspace
    key: str = ""
    in_place: Manifest | None = None
    unchanged: Mapping[str, File] = MappingProxyType({})
    reused_from_store: Mapping[str, File] = MappingProxyType({})
    earlier: Sequence[Received] = ()

    @property
    def destination(self) -> Path:
        return self.workspace.given

    @property
    def present(self) -> list[File]:
        """The files that need not be fetched."""
        return [*self.unchanged.values(), *self.reused_from_store.values()]

    @property
    def missing(self) -> Listing:
        """The listing without what is present."""
        return self.model.listed.without({**self.unchanged, **self.reused_from_store})


class Staged(NamedTuple):
    """A complete model in ``root`` without its final name; its ``unchanged`` files are in the destination.

    If the model already has its final name, ``root`` is None.
    """

    workspace: Workspace
    root: Path | None
    manifest: Manifest
    unchanged: Mapping[str, File] = MappingProxyType({})

    def place(self, path: str) -> Path:
        """Where a file of it is now."""
        return (self.workspace.destination if self.root is None or path in self.unchanged else self.root) / path


@contextlib.contextmanager
def locked_destinations(deliveries: Iterable[Delivery], session: Session) -> Iterator[list[Delivery]]:
    """Lock every destination while the block runs, and finish or undo what a killed process left there."""
    # In the order of their paths, so that two processes that lock the same ones cannot block each other.
    ordered = sorted(deliveries, key=lambda each: os.path.realpath(each.destination))
    with ExitStack() as stack:
        for each in ordered:
            with naming(each.workspace):
                stack.enter_context(locked(each.workspace, session))
        yield ordered


@contextlib.contextmanager
def locked(workspace: Workspace, session: Session) -> Iterator[None]:
    """Lock one destination, as ``locked_destinations`` does."""
    with open_workspace(workspace.given, session.run):
        recover(workspace, session.listener)
        # Before anything is fetched: what is to come may need their space.
        if session.settings.remove_strays and (gone := remove_strays(workspace)):
            session.listener(StraysRemoved(str(workspace.given), len(gone), gone[0]))
        yield


@contextlib.contextmanager
def naming(workspace: Workspace) -> Iterator[None]:
    """Turn system errors at a destination into lading's; a full file system is named."""
    try:
        with as_lading_errors(workspace.given):
            yield
    except NoSpace as error:
        error.folder = str(workspace.destination)
        raise


def plan(delivery: Delivery, session: Session, store: "Store | None" = None) -> Delivery:
    """Decide which files are still to fetch: not those that the destination, the store or an earlier run have.

    Call with the destination locked.  With a ``store``, the destination is in the store, and known files are linked to it.
    """
    model, workspace, verify = delivery.model, delivery.workspace, session.settings.verify
    found = existing(workspace, session)
    if (in_place := found.whole(model, verify)) is not None:
        leave(workspace, found, session)
        if store is None:
            report_delivered(workspace, in_place, session)
        return delivery._replace(in_place=in_place)
    unchanged = found.unchanged(model, verify)
    if changed := found.changed:
        session.listener(Modified(str(workspace.given), len(changed), changed[0]))
    earlier = tuple(read_journal(workspace.journal, model.listed.origin))
    planned = delivery._replace(unchanged=unchanged, earlier=earlier)
    _take_over(planned, session)
    if store is None:
        return planned
    reused_from_store = store.reuse(planned.missing, model.expected, verify, workspace.stage)
    if reused_from_store:
        session.listener(
            ReusedFromStore(len(reused_from_store), sum(file.size_bytes for file in reused_from_store.values()))
        )
    return planned._replace(reused_from_store=reused_from_store)


def _take_over(delivery: Delivery, session: Session) -> None:
    """Remove from the workspace what this delivery cannot use."""
    workspace, missing = delivery.workspace, delivery.missing
    remove_tree(workspace.tree)
    if has_bytes(workspace, missing.files) and not any(usable(missing.files, delivery.earlier)):
        why = "" if any(map(can_go_on, missing.files)) else _NO_MIDDLE
        session.listener(Restarted(str(workspace.given), why))
    if delivery.earlier:
        workspace.prune_stage(missing.by_path().keys())
    else:
        remove_tree(workspace.stage)


def can_go_on(file: ListedFile) -> bool:
    """Whether a run can resume in the middle of this file."""
    return file.ranged and bool(file.validator) and file.size_bytes is not None


def has_bytes(workspace: Workspace, files: Iterable[ListedFile]) -> bool:
    """Whether the stage has bytes of any of these files, other than links to a store."""
    for file in files if workspace.stage.exists() else ():
        with contextlib.suppress(OSError):
            status = os.lstat(workspace.stage / file.path)
            if status.st_size and status.st_nlink == 1:
                return True
    return False


def already_delivered(delivery: Delivery, session: Session) -> Manifest | None:
    """The manifest of a destination that already has the model; the lock is taken only if something must be cleaned up."""
    workspace, verify = delivery.workspace, session.settings.verify
    found = existing(workspace, session)
    old = found.whole(delivery.model, verify)
    if old is None:
        return None
    times_differ = bool(found.hashed) and os.access(workspace.destination, os.W_OK)
    if workspace.folder.exists() or session.settings.remove_strays or times_differ:
        # What an attempt at something else left there goes.
        with locked(workspace, session):
            found = found._replace(manifest=workspace.delivered())
            old = found.whole(delivery.model, verify)
            if old is None:
                return None
            leave(workspace, found, session)
    report_delivered(workspace, old, session)
    return old
