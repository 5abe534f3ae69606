"""Sharing: a model is fetched into the store, once for all who want it at a time, and placed from there in destinations."""

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from lading.delivery.resolve import ResolvedModel
from lading.delivery.space import require_free
from lading.delivery.stage import (
    Opened,
    Staged,
    Wanted,
    bring,
    delivered_event,
    in_order,
    is_in_place,
    open_destination,
    publish,
    stage,
    tell_foreign,
    workspace_of,
)
from lading.destination.audit import ChangeDetector
from lading.destination.publish import note_times
from lading.destination.workspace import Workspace, best_effort
from lading.errors import LadingError, NoSpace, NotAllowed
from lading.events import AlreadyDelivered, Materialized, Retried, StoreBypassed, WaitingForStore, ignore
from lading.model.compare import Holds
from lading.model.listing import Listing
from lading.model.manifest import Manifest
from lading.session import Session
from lading.store.eviction import Full, ensure_free, evict_one, holders, is_due, prune, tidy
from lading.store.store import Store, Vanished
from lading.system.disk import disk_error, existing_ancestor
from lading.system.flock import holding
from lading.system.folders import remove_tree
from lading.text.printable import printable

T = TypeVar("T")

# Each try evicts something, or fetches what somebody else has evicted.
_MOST_TRIES = 5
_TELL_EVERY_S = 10.0
# More than an origin takes that does not answer one attempt after the other.
_MOST_STALLS = 15


class _StandsStill(LadingError):
    """Who fetches a model has brought nothing for so long that it may never do so."""


class _NoSpaceThere(NoSpace):
    """The destination's own file system is full: evicting would not help."""


def share(wanted: Sequence[Wanted], session: Session) -> dict[Path, Manifest]:
    """Bring each model to its destination out of the store, which fetches what it lacks.

    None appears before all are there; returns the sealed manifests by destination.
    """
    store = Store(session.settings.store, session.listener)
    with as_lading_errors(store):
        done = {each.destination: there for each in wanted if (there := _in_place(each, session)) is not None}
        keyed = [each._replace(key=_key(store, each.finding, session)) for each in wanted]
        pending = [each for each in keyed if each.destination not in done]
        if not store.writable:
            return done | _share_what_is_there(store, pending, session)
        tidy(store)
        copied_bytes = _check_room(store, pending)
        findings = {each.key: each.finding for each in pending}
        placed, _ = _having(store, findings, copied_bytes, session, lambda: _place_all(store, pending, session))
        for each in keyed:
            _note(store, each.key, each.finding.listed)
    return done | placed


def keep(finding: ResolvedModel, name: str, session: Session) -> Manifest:
    """Bring a finding to the store alone, which keeps it under ``name`` in the place of what that kept before."""
    store = Store(session.settings.store, session.listener)
    if not store.writable:
        raise NotAllowed(
            f"the store {printable(str(store.root))} cannot be written, and is to keep a model",
            hint=f"it must be writable by user {os.geteuid()}",
        )
    key = _key(store, finding, session)

    def refer() -> Manifest:
        stored = _stored(store, key)
        kept = finding.listed.sealed().with_files_of(stored)._replace(seconds=stored.seconds)
        store.references.keep(name, key, kept)
        return kept

    with as_lading_errors(store):
        tidy(store)
        kept, fetched = _having(store, {key: finding}, 0, session, refer)
        if fetched:
            session.listener(delivered_event(store.folder(key), kept))
        _note(store, key, finding.listed)
    return kept


def _key(store: Store, finding: ResolvedModel, session: Session) -> str:
    return store.key(finding.listed, finding.vouched, session.settings)


def _note(store: Store, key: str, listed: Listing) -> None:
    """Note that a model was used, and what it was the answer to."""
    if store.has(key):
        store.use(key)
        if listed.asked:
            store.answers.remember(listed.sealed(), key)


@contextlib.contextmanager
def as_lading_errors(store: Store) -> Iterator[None]:
    """Turn what the system refuses into lading's own errors."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, error.filename or store.root) from error


def _having(
    store: Store, wanted: Mapping[str, ResolvedModel], copied_bytes: int, session: Session, use: Callable[[], T]
) -> tuple[T, bool]:
    """What ``use`` returns while the store has the wanted models and nobody evicts them; whether any was fetched.

    It is called again when it finds one ``Vanished``, or no space.
    """
    folders = {key: store.incoming(key) for key in wanted}
    fetched = False
    with ExitStack() as stack:
        for key in sorted(wanted):
            # From here on nobody evicts them.
            stack.enter_context(store.lease(key))
        if not store.settings.locks:
            # Nobody goes on with what one process alone has fetched.
            for folder in folders.values():
                stack.callback(remove_tree, folder)
        for left in reversed(range(_MOST_TRIES)):
            try:
                with as_lading_errors(store):
                    fetched |= _fill(store, wanted, folders, copied_bytes, session)
                used = use()
                break
            except Vanished as error:
                if not left:
                    raise
                session.listener(Retried("the model", error.message, 0.0))
            except (Full, _NoSpaceThere):
                raise
            except NoSpace as error:
                # Somebody else has written meanwhile.  What was staged stays for the next try.
                if not left or not evict_one(store):
                    raise NoSpace(error.message, hint=f"{error.hint}; {holders(store)}") from error
                session.listener(Retried("the model", error.message, 0.0))
        if fetched or is_due(store):
            # Only by fetching has the store grown.
            with best_effort(store.root, session.listener):
                prune(store)
    return used, fetched


def _place_all(store: Store, wanted: Sequence[Wanted], session: Session) -> dict[Path, Manifest]:
    """Bring these models of the store to their destinations: none appears before all are there."""
    with ExitStack() as stack:
        staged = [
            _stage_out(store, each.wanted.key, each.wanted.finding.listed.sealed(), each.workspace, session)
            for each in _open(store, wanted, session, stack)
        ]
        return _publish(store, staged, session)


def _share_what_is_there(store: Store, wanted: Sequence[Wanted], session: Session) -> dict[Path, Manifest]:
    """The same where nothing may be written to the store: what it lacks is fetched past it, and first."""
    with ExitStack() as stack:
        lacking: list[Opened] = []
        there: list[Opened] = []
        for each in _open(store, wanted, session, stack):
            (there if store.has(each.wanted.key) else lacking).append(each)
        staged = _stage_past(store, lacking, session)
        for each in there:
            finding, _, key = each.wanted
            try:
                staged.append(_stage_out(store, key, finding.listed.sealed(), each.workspace, session))
            except Vanished:
                staged += _stage_past(store, [each], session)
        return _publish(store, staged, session)


def _stage_past(store: Store, opened: Sequence[Opened], session: Session) -> list[Staged]:
    if not opened:
        return []
    session.listener(StoreBypassed(str(store.root)))
    return stage(opened, session)


def _open(store: Store, wanted: Sequence[Wanted], session: Session, stack: ExitStack) -> list[Opened]:
    opened = []
    for each in in_order(wanted):
        with _at(store, each.destination):
            opened.append(open_destination(each, session, stack))
    return opened


def _publish(store: Store, staged: Sequence[Staged], session: Session) -> dict[Path, Manifest]:
    manifests: dict[Path, Manifest] = {}
    for each in staged:
        with _at(store, each.workspace.given):
            manifests |= publish([each], session, session.listener)
    return manifests


def _fill(
    store: Store, wanted: Mapping[str, ResolvedModel], folders: Mapping[str, Path], copied_bytes: int, session: Session
) -> bool:
    """Fetch what the store lacks of the wanted models, by key; false if it has them all."""
    # It is told how far the other process is, and not only that it is waited for.
    quiet = session.run._replace(listener=ignore)
    with ExitStack() as stack:
        # In the order of their keys, so that two processes cannot block each other.
        for key in sorted(wanted) if store.settings.locks else ():
            if store.has(key):
                continue
            try:
                stack.enter_context(holding(store.lock(key), quiet, _Watch(store, key, wanted[key].listed, session)))
            except _StandsStill as error:
                session.listener(Retried("the model", error.message, 0.0))
                folders = {**folders, key: store.incoming(key, alone=True)}
                stack.callback(remove_tree, folders[key])
        lacking = {key: finding for key, finding in wanted.items() if not store.has(key)}
        if not lacking:
            ensure_free(store, copied_bytes)
            return False
        wanted_here = [Wanted(finding, folders[key], key) for key, finding in lacking.items()]
        brought = bring(wanted_here, session, store, copied_bytes=copied_bytes)
        for each in wanted_here:
            store.commit(each.key, each.destination, brought[each.destination], session.settings.verify)
    return True


class _Watch:
    """Called again and again while another process fetches a model: says every few seconds how far it is."""

    def __init__(self, store: Store, key: str, listed: Listing, session: Session) -> None:
        self._store, self._key, self._listed, self._session = store, key, listed, session
        self._next_s = self._moved_s = session.run.clock.now()
        self._most_still_s = _MOST_STALLS * session.settings.limits.stall_s
        self._done_bytes = 0

    def __call__(self) -> None:
        if self._session.run.clock.now() >= self._next_s:
            self._next_s = self._session.run.clock.now() + _TELL_EVERY_S
            done_bytes = self._store.staged_bytes(self._key)
            if done_bytes != self._done_bytes:
                self._done_bytes, self._moved_s = done_bytes, self._session.run.clock.now()
            elif self._session.run.clock.now() - self._moved_s > self._most_still_s:
                raise _StandsStill("whoever holds its lock in the store does not go on: it is fetched without waiting")
            self._session.listener(WaitingForStore(self._listed.resolved, done_bytes, self._listed.size_bytes))


def _in_place(wanted: Wanted, session: Session) -> Manifest | None:
    """The manifest of a destination that holds what was found; nothing is fetched for it, whatever the store has."""
    finding, destination, _ = wanted
    workspace = Workspace(destination)
    old = workspace.delivered()
    untouched = ChangeDetector(destination, session.run)
    if old is None or not is_in_place(finding, old, untouched, session):
        return None
    times_differ = bool(untouched.hashed) and os.access(workspace.destination, os.W_OK)
    if workspace.folder.exists() or session.settings.remove_strays or times_differ:
        # What an attempt at something else left there goes.
        with ExitStack() as stack:
            workspace = workspace_of(destination, session, stack)
            old = workspace.delivered()
            if old is None or not is_in_place(finding, old, untouched, session):
                return None
            if times_differ:
                note_times(workspace, old)
            with best_effort(destination, session.listener):
                workspace.dissolve()
    session.listener(AlreadyDelivered(str(destination)))
    tell_foreign(workspace, old, session.listener)
    return old


def materialize(store: Store, key: str, facts: Manifest, destination: Path, session: Session) -> Manifest:
    """Bring a model of the store to its destination, with these ``facts``; ``Vanished`` if it is not there any more."""
    with ExitStack() as stack:
        with _at(store, destination):
            workspace = workspace_of(destination, session, stack)
        staged = _stage_out(store, key, facts, workspace, session)
        return _publish(store, [staged], session)[destination]


@contextlib.contextmanager
def _at(store: Store, destination: Path) -> Iterator[None]:
    """Turn what the system refuses there into lading's own errors; they say whether evicting could help."""
    try:
        yield
    except OSError as error:
        raise _there(store, disk_error(error, error.filename or destination), destination) from error
    except NoSpace as error:
        raise _there(store, error, destination) from error


def _stage_out(store: Store, key: str, facts: Manifest, workspace: Workspace, session: Session) -> Staged:
    """Bring a model of the store to a workspace, as ``place_out`` does; it has no final name yet."""
    placing_s = time.monotonic()
    destination = workspace.given
    with _at(store, destination):
        stored = _stored(store, key)
        manifest = facts.with_files_of(stored)
        old = workspace.delivered()
        if old is not None and _is_same(manifest, old, ChangeDetector(destination, session.run)):
            # Another process was first.
            with best_effort(destination, session.listener):
                workspace.dissolve()
            session.listener(AlreadyDelivered(str(destination)))
            return Staged(workspace, None, old)
        workspace.discard_stage()
        workspace.stage.mkdir()
        out = store.place(key, stored.files, workspace.stage)
        for folder in stored.folders:
            (workspace.stage / folder).mkdir(parents=True, exist_ok=True)
        ways = ", ".join(f"{files} by {way}" for way, files in sorted(out.ways.items()))
        session.listener(Materialized(str(destination), ways, out.size_bytes, round(time.monotonic() - placing_s, 3)))
        return Staged(workspace, workspace.stage, manifest)


def _stored(store: Store, key: str) -> Manifest:
    """What the store has under this key; ``Vanished`` if that has gone, or cannot be read."""
    stored = store.find(key)
    if stored is None:
        if store.writable and store.has(key):
            store.put_aside(key)
        raise Vanished("the model is no longer in the store", retry_after_s=0.0)
    return stored


def _there(store: Store, error: LadingError, destination: Path) -> LadingError:
    """The same error, which says so if it is another file system than the store's that is full."""
    if isinstance(error, NoSpace) and existing_ancestor(destination).stat().st_dev != store.root.stat().st_dev:
        return _NoSpaceThere(error.message, hint=error.hint)
    return error


def _is_same(manifest: Manifest, old: Manifest, holds: Holds) -> bool:
    there = [file._replace(mtime_ns=None) for file in old.files]
    names = [(each.origin, each.registry, each.version) for each in (manifest, old)]
    return names[0] == names[1] and there == list(manifest.files) and all(map(holds, old.files))


def _check_room(store: Store, wanted: Sequence[Wanted]) -> int:
    """Refuse what cannot fit where it is copied to; returns the bytes that are copied on the store's own file system."""
    needed: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    own = store.root.stat().st_dev
    for finding, destination, _ in wanted:
        folder = existing_ancestor(destination)
        if not store.shares_with(folder):
            device = folder.stat().st_dev
            folders[device] = folder
            needed[device] += finding.needed_bytes
    for device, size_bytes in needed.items():
        if device != own:
            require_free(folders[device], size_bytes)
    return needed[own]
