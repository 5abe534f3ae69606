"""Sharing: models come to the store, each once for all who want it at the same time, and out of it to destinations."""

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from lading import place
from lading.bring import (
    bring,
    delivered_event,
    is_in_place,
    patience_of,
    require_free,
    size_in,
    workspace_of,
)
from lading.disk import disk_error, nearest
from lading.errors import LadingError, NoSpace, NotAllowed
from lading.events import AlreadyDelivered, PastStore, Placed, Retried, WaitingForStore, ignore
from lading.finding import Finding, Session
from lading.manifest import Manifest
from lading.store import Store, Vanished
from lading.store.eviction import Full, give_way, holders, is_due, make_room, prune, tidy
from lading.uri import printable
from lading.workspace import Patience, Workspace, holding, remove_tree

# Each try evicts something, or fetches what somebody else has evicted.
_MOST_TRIES = 5
_TELL_EVERY_S = 10.0


class _NoSpaceThere(NoSpace):
    """The destination's own file system is full: evicting would not help."""


def share(findings: Sequence[Finding], destinations: Sequence[Path], session: Session) -> list[Manifest]:
    """Bring each finding to its destination out of the store, which fetches what it lacks."""
    store = Store(session.settings.store, session.listener)
    done: dict[int, Manifest] = {}
    with in_words(store):
        for index, (finding, destination) in enumerate(zip(findings, destinations, strict=True)):
            manifest = _in_place(finding, destination, session)
            if manifest is not None:
                done[index] = manifest
        keys = {
            index: store.key(finding.listed, finding.vouched, session.settings)
            for index, finding in enumerate(findings)
        }
        pending = {index: key for index, key in keys.items() if index not in done}
        if store.writable:
            tidy(store)
            _share(store, pending, findings, destinations, session, done)
            for index, key in keys.items():
                _note(store, key, findings[index].listed)
        else:
            _share_what_is_there(store, pending, findings, destinations, session, done)
    return [done[index] for index in range(len(findings))]


def keep(finding: Finding, name: str, session: Session) -> Manifest:
    """Bring a finding to the store alone, which keeps it under ``name`` in the place of what that kept before."""
    store = Store(session.settings.store, session.listener)
    if not store.writable:
        raise NotAllowed(
            f"the store {printable(str(store.root))} cannot be written, and is to keep a model",
            hint=f"it must be writable by user {os.geteuid()}",
        )
    key = store.key(finding.listed, finding.vouched, session.settings)
    kept = finding.listed

    def refer() -> None:
        nonlocal kept
        stored = _stored(store, key)
        kept = finding.listed._replace(files=stored.files, archives=stored.archives, seconds=stored.seconds)
        store.references.keep(name, key, kept)

    with in_words(store):
        tidy(store)
        if _having(store, {key: finding}, 0, session, refer):
            session.listener(delivered_event(store.folder(key), kept))
        _note(store, key, finding.listed)
    return kept


def _note(store: Store, key: str, listed: Manifest) -> None:
    """Note that a model was used, and what it was the answer to."""
    if store.has(key):
        store.use(key)
        if listed.asked:
            store.answers.remember(listed, key)


@contextlib.contextmanager
def in_words(store: Store) -> Iterator[None]:
    """Turn what the system refuses into lading's own errors."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, error.filename or store.root) from error


def _share(
    store: Store,
    pending: Mapping[int, str],
    findings: Sequence[Finding],
    destinations: Sequence[Path],
    session: Session,
    done: dict[int, Manifest],
) -> None:
    started_s = time.monotonic()
    wanted = {key: findings[index] for index, key in pending.items()}
    copied_bytes = _check_room(store, [(findings[index], destinations[index]) for index in pending])

    def place_all() -> None:
        for index, key in pending.items():
            if index not in done:
                done[index] = place_out(store, key, findings[index].listed, destinations[index], session, started_s)

    _having(store, wanted, copied_bytes, session, place_all)


def _having(
    store: Store, wanted: Mapping[str, Finding], copied_bytes: int, session: Session, use: Callable[[], None]
) -> bool:
    """Call ``use`` while the store has the wanted models and nobody evicts them; whether any had to be fetched.

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
                with in_words(store):
                    fetched |= _fill(store, wanted, folders, copied_bytes, session)
                use()
                break
            except Vanished as error:
                if not left:
                    raise
                session.listener(Retried("the model", error.message, 0.0))
            except (Full, _NoSpaceThere):
                raise
            except NoSpace as error:
                # Somebody else has written meanwhile.  What was staged stays for the next try.
                if not left or not give_way(store):
                    raise NoSpace(error.message, hint=f"{error.hint}; {holders(store)}") from error
                session.listener(Retried("the model", error.message, 0.0))
        if fetched or is_due(store):
            # Only by fetching has the store grown.
            prune(store)
    return fetched


def _share_what_is_there(
    store: Store,
    pending: Mapping[int, str],
    findings: Sequence[Finding],
    destinations: Sequence[Path],
    session: Session,
    done: dict[int, Manifest],
) -> None:
    """As ``_share``, where nothing may be written to the store."""
    started_s = time.monotonic()
    lacking = [index for index, key in pending.items() if not store.has(key)]
    for index, key in pending.items():
        if index not in lacking:
            try:
                done[index] = place_out(store, key, findings[index].listed, destinations[index], session, started_s)
            except Vanished:
                lacking.append(index)
    if lacking:
        session.listener(PastStore(str(store.root)))
        brought = bring([findings[index] for index in lacking], [destinations[index] for index in lacking], session)
        done |= dict(zip(lacking, brought, strict=True))


def _fill(
    store: Store, wanted: Mapping[str, Finding], folders: Mapping[str, Path], copied_bytes: int, session: Session
) -> bool:
    """Fetch what the store lacks of the wanted models, by key; false if it has them all."""
    with ExitStack() as stack:
        # In the order of their keys, so that two processes cannot block each other.
        for key in sorted(wanted) if store.settings.locks else ():
            if not store.has(key):
                stack.enter_context(holding(store.lock(key), _patience(store, key, wanted[key].listed, session)))
        lacking = {key: finding for key, finding in wanted.items() if not store.has(key)}
        if not lacking:
            make_room(store, copied_bytes)
            return False
        places = [folders[key] for key in lacking]
        brought = bring(list(lacking.values()), places, session, store, copied_bytes=copied_bytes)
        for key, folder, manifest in zip(lacking, places, brought, strict=True):
            store.commit(key, folder, manifest, session.settings.verify)
    return True


def _patience(store: Store, key: str, listed: Manifest, session: Session) -> Patience:
    """How to wait for the process that fetches this model: saying every few seconds how far it is."""
    patience = patience_of(session)
    return patience._replace(listener=ignore, check=_Watch(store, key, listed, session, patience.check))


class _Watch:
    """Called again and again while another process fetches a model."""

    def __init__(self, store: Store, key: str, listed: Manifest, session: Session, check: Callable[[], None]) -> None:
        self._store, self._key, self._listed, self._session, self._check = store, key, listed, session, check
        self._next_s = session.clock.now()

    def __call__(self) -> None:
        self._check()
        if self._session.clock.now() >= self._next_s:
            self._next_s = self._session.clock.now() + _TELL_EVERY_S
            done_bytes = self._store.staged_bytes(self._key)
            self._session.listener(WaitingForStore(self._listed.resolved, done_bytes, self._listed.size_bytes))


def _in_place(finding: Finding, destination: Path, session: Session) -> Manifest | None:
    """The manifest of a destination that holds what was found; nothing is fetched for it, whatever the store has."""
    workspace = Workspace(destination)
    old = workspace.delivered()
    if old is None or not is_in_place(finding, old, workspace, session):
        return None
    if workspace.folder.exists() or session.settings.remove_strays:
        # What an attempt at something else left there goes.
        with ExitStack() as stack:
            workspace = workspace_of(destination, session, stack)
            old = workspace.delivered()
            if old is None or not is_in_place(finding, old, workspace, session):
                return None
            workspace.dissolve()
    session.listener(AlreadyDelivered(str(destination)))
    return old


def place_out(
    store: Store, key: str, listed: Manifest, destination: Path, session: Session, started_s: float
) -> Manifest:
    """Bring a model of the store to its destination, as what was ``listed``; ``Vanished`` if it is not there any more.

    ``started_s`` is when the delivery began, by ``time.monotonic``.
    """
    try:
        return _place_out(store, key, listed, destination, session, started_s)
    except OSError as error:
        raise _there(store, disk_error(error, error.filename or destination), destination) from error
    except NoSpace as error:
        raise _there(store, error, destination) from error


def _place_out(
    store: Store, key: str, listed: Manifest, destination: Path, session: Session, started_s: float
) -> Manifest:
    placing_s = time.monotonic()
    stored = _stored(store, key)
    manifest = listed._replace(files=stored.files, archives=stored.archives)
    with ExitStack() as stack:
        workspace = workspace_of(destination, session, stack)
        old = workspace.delivered()
        if old is not None and _is_same(manifest, old, workspace):
            # Another process was first.
            workspace.dissolve()
            session.listener(AlreadyDelivered(str(destination)))
            return old
        workspace.discard_stage()
        workspace.stage.mkdir()
        try:
            out = store.place(key, stored.files, workspace.stage)
        except BaseException:
            # Nobody goes on with it: what the store has comes out of it at once.
            workspace.discard_stage()
            raise
        now_s = time.monotonic()
        ways = ", ".join(f"{files} by {way}" for way, files in sorted(out.ways.items()))
        session.listener(Placed(str(destination), ways, out.size_bytes, round(now_s - placing_s, 3)))
        manifest = manifest._replace(seconds=round(now_s - started_s, 3))
        place.publish(workspace, workspace.stage, manifest)
        session.listener(delivered_event(destination, manifest))
    return manifest


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
    if isinstance(error, NoSpace) and nearest(destination).stat().st_dev != store.root.stat().st_dev:
        return _NoSpaceThere(error.message, hint=error.hint)
    return error


def _is_same(manifest: Manifest, old: Manifest, workspace: Workspace) -> bool:
    names = [(each.origin, each.registry, each.version, each.files) for each in (manifest, old)]
    size_bytes = size_in(workspace.destination)
    return names[0] == names[1] and all(size_bytes(file.path) == file.size_bytes for file in old.files)


def _check_room(store: Store, pairs: Sequence[tuple[Finding, Path]]) -> int:
    """Refuse what cannot fit where it is copied to; returns the bytes that are copied on the store's own file system."""
    needed: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    own = store.root.stat().st_dev
    for finding, destination in pairs:
        folder = nearest(destination)
        if not store.shares_with(folder):
            device = folder.stat().st_dev
            folders[device] = folder
            needed[device] += finding.needed_bytes
    for device, size_bytes in needed.items():
        if device != own:
            require_free(folders[device], size_bytes)
    return needed[own]
