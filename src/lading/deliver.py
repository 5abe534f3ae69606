"""The story: a URI becomes a folder.

    resolve    a name becomes an exact source URI                     (registries)
    list       the source tells its files                             (sources)
    transfer   what is missing lands in the workspace, verified       (transfer)
    unpack     a single archive becomes a tree                        (unpack)
    publish    the tree becomes the destination, the manifest last    (place)

Several deliveries share one scheduler, and none is published before all have landed.
"""

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from stat import S_ISREG
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

from lading import place, registries
from lading.disk import disk_error, free_bytes
from lading.errors import IntegrityError, NoSpace, NotAllowed, NotFound, OriginChanged, Unavailable, UsageError
from lading.events import (
    AlreadyDelivered,
    Delivered,
    Listed,
    Listener,
    Placed,
    Resolved,
    Retried,
    StraysRemoved,
    Supplied,
    Unpacking,
)
from lading.http_client import HttpClient
from lading.lock import locked
from lading.manifest import Digest, File, Layer, Manifest
from lading.pins import pin_of, pinned, split_pin
from lading.registries import Resolution
from lading.registries.reference import exact_reference
from lading.retry import Clock, Retry, SystemClock
from lading.reuse import SizeOnDisk, is_delivered, unchanged
from lading.settings import Settings
from lading.settings.confidential import read_confidential
from lading.sources import OnThisMachine, Pins, Source, open_source
from lading.transfer.governor import bounds
from lading.transfer.journal import Journal
from lading.transfer.scheduler import Job, Unpacker, transfer
from lading.uri import ModelURI, printable
from lading.workspace import Patience, Workspace, holding, open_workspace, remove_tree

if TYPE_CHECKING:
    # Loaded where there is one, or where it is asked for.
    from lading.confidential import Opener
    from lading.store import Store

_MOST_LISTINGS = 3
# Known by name, as KServe does, and not by content: many model formats are zip files that must
# stay whole (.pt, .keras, .nemo).
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip")


class Request(NamedTuple):
    """One delivery that is asked for.  ``digest`` is what a model of one file must have."""

    uri: str
    destination: Path
    digest: Digest | None = None


class Finding(NamedTuple):
    """What a URI stands for, before a byte is moved.  ``vouched`` are digests by path that must hold."""

    resolution: Resolution
    source: Source
    listed: Manifest
    vouched: dict[str, tuple[Digest, ...]]

    @property
    def needed_bytes(self) -> int:
        """What the destination's file system must have free; what an archive unpacks to is at least its size."""
        return self.listed.size_bytes


class Session:
    """What deliveries share: settings, a listener, one HTTP client, one clock, one way to stop."""

    def __init__(self, settings: Settings, listener: Listener, clock: Clock = SystemClock()) -> None:  # noqa: B008 - it has no state
        limits = settings.limits
        deadline_s = clock.now() + limits.deadline_s if limits.deadline_s else None
        self.settings = settings
        self.listener = listener
        self.clock = clock
        self.retry = Retry(Event(), limits.attempts, deadline_s=deadline_s, clock=clock, listener=listener)
        self.bounds = bounds(limits.workers)
        self.http = HttpClient(settings.network, limits, self.retry, buffer_bytes=self.bounds.buffer_bytes)


def deliver(requests: Sequence[Request], session: Session) -> list[Manifest]:
    """Bring every requested model to its destination; returns the sealed manifests in the same order."""
    _refuse_shared_destinations(requests, nested=not session.settings.remove_strays)
    for _ in range(_MOST_LISTINGS - 1):
        credentials = session.settings.rotating()
        # What has landed of unchanged files stays in both cases: the journal knows their validators.
        try:
            return _deliver_as_listed(requests, session)
        except OriginChanged as error:
            session.listener(Retried("the listing", error.message, 0.0))
        except NotAllowed as error:
            if session.settings.rotating() == credentials:
                raise
            session.listener(Retried("the delivery with new credentials", error.message, 0.0))
    return _deliver_as_listed(requests, session)


def find(request: Request, session: Session) -> Finding:
    """Resolve and list, and choose the files that are wanted."""
    settings, http = session.settings._replace(scratch=str(request.destination)), session.http
    requested = ModelURI.parse(request.uri)
    uri, wanted = split_pin(locked(requested, Path(settings.lock)) if settings.lock else requested)
    resolution = registries.resolve(uri, settings, http, session.listener)
    shown = resolution.uri.redacted()
    if resolution.registry:
        session.listener(Resolved(requested.redacted(), shown, resolution.registry, resolution.version))
    source = open_source(resolution.uri, settings.with_variables(resolution.variables), http)
    everything = source.list().with_generated(resolution.generated)
    exact = resolution.uri
    if isinstance(source, Pins):
        exact = source.pin
        shown = exact.redacted()
    pin = pin_of(everything, resolution.digests)
    if wanted not in (None, pin):
        raise IntegrityError(
            f"{uri.redacted()} is no longer what was pinned: it is {pin} now",
            hint="its files, their sizes or digests have changed; resolve it again to see what it is",
        )
    if resolution.registry:
        exact = exact_reference(resolution.registry, resolution.model, resolution.version, uri)
    listed = _as_archive(everything.select(settings.allow, settings.ignore))
    if not listed.files:
        raise NotFound(
            f"no file of {shown} is selected, of {len(everything.files)}",
            hint=f"the patterns leave out, for example, {printable(everything.files[0].path)}",
        )
    session.listener(Listed(shown, len(listed.files), listed.size_bytes))
    confidential = read_confidential(settings.variables)
    if confidential and settings.store.path:
        raise UsageError(
            "an encrypted model is not put into a store, which others read",
            hint="unset LADING_STORE, or the store in the configuration, for it",
        )
    listed = listed._replace(
        requested=requested.redacted(),
        resolved=shown,
        origin=resolution.uri.identity(),
        registry=resolution.registry,
        version=resolution.version,
        pin=pinned(exact, pin).redacted(),
        opened_by=confidential.resource if confidential else "",
        metadata=resolution.metadata,
    )
    return Finding(resolution, source, listed, _vouched(request, resolution, everything))


class _Delivery(NamedTuple):
    """One finding on its way into one workspace; ``kept`` files the destination has, ``supplied`` ones the stage."""

    finding: Finding
    workspace: Workspace
    kept: dict[str, File]
    supplied: dict[str, File]
    job: Job


def _deliver_as_listed(requests: Sequence[Request], session: Session) -> list[Manifest]:
    findings = [find(request, session) for request in requests]
    for request, finding in zip(requests, findings, strict=True):
        _refuse_overlap(finding.source, request.destination)
    destinations = [request.destination for request in requests]
    if session.settings.store.path:
        manifests = _by_the_store(findings, destinations, session)
    else:
        manifests = _bring(findings, destinations, session)
    for request, finding, manifest in zip(requests, findings, manifests, strict=True):
        registries.record(
            finding.resolution, manifest, str(request.destination), session.settings, session.http, session.listener
        )
    return manifests


def _bring(
    findings: Sequence[Finding], destinations: Sequence[Path], session: Session, store: "Store | None" = None
) -> list[Manifest]:
    """Fetch each finding to its destination; what ``store`` has of it is linked and not fetched."""
    started_s = time.monotonic()
    done: dict[int, Manifest] = {}
    pending: dict[int, _Delivery] = {}
    with ExitStack() as stack:
        # In the order of their paths, so that two processes with the same pairs cannot block each other.
        for index in sorted(range(len(findings)), key=lambda index: os.path.realpath(destinations[index])):
            workspace = _open_workspace(destinations[index], session, stack)
            old = workspace.delivered()
            if old is not None and _is_delivered(findings[index], old, workspace, session):
                workspace.dissolve()
                if store is None:
                    session.listener(AlreadyDelivered(str(destinations[index])))
                done[index] = old
            else:
                pending[index] = _begin(findings[index], workspace, old, session, stack, store)
        _check_space(list(pending.values()), store)
        opener = _opener(session) if pending else None
        sealed = transfer(
            [delivery.job for delivery in pending.values()],
            retry=session.retry,
            bounds=session.bounds,
            max_rate_bytes_s=session.settings.limits.max_rate_bytes_s,
            listener=session.listener,
            interrupt=session.http.interrupt,
        )
        trees = [_tree(delivery, manifest) for delivery, manifest in zip(pending.values(), sealed, strict=True)]
        if opener is not None:
            kept = [delivery.kept for delivery in pending.values()]
            trees = [(root, opener.open(root, found, keep)) for (root, found), keep in zip(trees, kept, strict=True)]
        for (index, delivery), (root, manifest) in zip(pending.items(), trees, strict=True):
            manifest = manifest._replace(seconds=round(time.monotonic() - started_s, 3))
            place.publish(delivery.workspace, root, manifest, delivery.kept)
            done[index] = manifest
            if store is None:
                session.listener(_delivered(destinations[index], manifest))
    return [done[index] for index in range(len(findings))]


def _by_the_store(findings: Sequence[Finding], destinations: Sequence[Path], session: Session) -> list[Manifest]:
    """Fetch what the store lacks of the findings into it, each once, and place all of them out of it."""
    from lading.store import Store

    store = Store(session.settings.store)
    done: dict[int, Manifest] = {}
    for index, (finding, destination) in enumerate(zip(findings, destinations, strict=True)):
        workspace = Workspace(destination)
        old = workspace.delivered()
        unfinished = workspace.next.exists() or session.settings.remove_strays
        if old is not None and not unfinished and _is_delivered(finding, old, workspace, session):
            # Whatever the store has of it: nothing is fetched for a destination that holds it.
            session.listener(AlreadyDelivered(str(destination)))
            done[index] = old
    pending = {index: store.key(finding.listed) for index, finding in enumerate(findings) if index not in done}
    _check_room([(findings[index], destinations[index]) for index in pending], store)
    with ExitStack() as stack:
        for key in sorted(set(pending.values())):
            # From here on nobody evicts them.
            stack.enter_context(store.lease(key))
        while True:
            try:
                _fill(store, {key: findings[index] for index, key in pending.items()}, session)
                for index, key in pending.items():
                    done[index] = _place(store, key, findings[index], destinations[index], session)
                break
            except NoSpace as error:
                # Somebody else has written meanwhile.  What was staged stays for the next attempt.
                if not store.give_way():
                    raise NoSpace(error.message, hint=f"{error.hint}; {store.holders()}") from error
    store.prune()
    return [done[index] for index in range(len(findings))]


def _fill(store: "Store", wanted: Mapping[str, Finding], session: Session) -> None:
    """Fetch what the store lacks of the wanted models, by key."""
    with ExitStack() as stack:
        # In the order of their keys, so that two processes cannot block each other.
        for key in sorted(wanted) if store.settings.locks else ():
            if store.find(key) is None:
                stack.enter_context(holding(store.lock(key), _patience(session)))
        lacking = {key: finding for key, finding in wanted.items() if store.find(key) is None}
        folders = [store.incoming(key, alone=not store.settings.locks) for key in lacking]
        brought = _bring(list(lacking.values()), folders, session, store)
        for key, folder, manifest in zip(lacking, folders, brought, strict=True):
            store.commit(key, folder, manifest)


def _place(store: "Store", key: str, finding: Finding, destination: Path, session: Session) -> Manifest:
    """Bring a model of the store to its destination."""
    started_s = time.monotonic()
    stored = store.find(key)
    if stored is None:
        raise Unavailable("the model has gone from the store meanwhile", retry_after_s=0.0)
    manifest = finding.listed._replace(files=stored.files, archives=stored.archives)
    with ExitStack() as stack:
        workspace = _open_workspace(destination, session, stack)
        old = workspace.delivered()
        if old is not None and _is_delivered(finding, old, workspace, session):
            workspace.dissolve()
            session.listener(AlreadyDelivered(str(destination)))
            return old
        remove_tree(workspace.stage)
        workspace.stage.mkdir()
        placed = store.place(key, (file.path for file in stored.files), workspace.stage)
        seconds = round(time.monotonic() - started_s, 3)
        ways = ", ".join(f"{files} by {way}" for way, files in sorted(placed.ways.items()))
        session.listener(Placed(str(destination), ways, placed.size_bytes, seconds))
        manifest = manifest._replace(seconds=seconds)
        place.publish(workspace, workspace.stage, manifest)
        session.listener(_delivered(destination, manifest))
    return manifest


def _open_workspace(destination: Path, session: Session, stack: ExitStack) -> Workspace:
    """The locked workspace of a destination, after what a killed process left there is finished or undone."""
    workspace = stack.enter_context(open_workspace(destination, _patience(session)))
    place.recover(workspace)
    # Before anything is fetched: what is to come may need their space.
    if session.settings.remove_strays and (gone := place.remove_strays(workspace)):
        session.listener(StraysRemoved(str(destination), len(gone), gone[0]))
    return workspace


def _patience(session: Session) -> Patience:
    retry = session.retry
    return Patience(session.clock, retry.stop, session.listener, partial(retry.check, "waiting for another process"))


def _delivered(destination: Path, manifest: Manifest) -> Delivered:
    return Delivered(str(destination), len(manifest.files), manifest.size_bytes, manifest.seconds, str(manifest.digest))


def _is_delivered(finding: Finding, old: Manifest, workspace: Workspace, session: Session) -> bool:
    return is_delivered(finding.listed, old, finding.vouched, session.settings.verify, _size_in(workspace.destination))


def _begin(
    finding: Finding,
    workspace: Workspace,
    old: Manifest | None,
    session: Session,
    stack: ExitStack,
    store: "Store | None",
) -> _Delivery:
    """Decide what is still to fetch, and take over what an earlier attempt staged and what the store has."""
    listed, verify = finding.listed, session.settings.verify
    kept: dict[str, File] = {}
    if old is not None:
        kept = unchanged(listed, old, finding.vouched, verify, _size_in(workspace.destination))
    missing = _without(listed, kept)
    journal = Journal(workspace.journal, origin=listed.origin)
    stack.callback(journal.close)
    remove_tree(workspace.tree)
    if journal.earlier:
        workspace.prune_stage(missing.by_path().keys())
    else:
        remove_tree(workspace.stage)
    supplied: dict[str, File] = {}
    if store is not None:
        supplied = store.supply(missing, finding.vouched, verify, workspace.stage)
        missing = _without(missing, supplied)
        if supplied:
            session.listener(Supplied(len(supplied), sum(file.size_bytes or 0 for file in supplied.values())))
    unpacker = _unpacker(finding.listed, workspace.tree, session)
    address = store.address if store is not None else ""
    job = Job(finding.source, missing, workspace.stage, journal, verify, finding.vouched, unpacker, address=address)
    return _Delivery(finding, workspace, kept, supplied, job)


def _without(listed: Manifest, present: Mapping[str, File]) -> Manifest:
    return listed._replace(files=tuple(file for file in listed.files if file.path not in present))


def _check_space(deliveries: Sequence[_Delivery], store: "Store | None") -> None:
    """Refuse what cannot fit before the first byte; several models on one file system add up.

    A store makes room.
    """
    needed: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    for delivery in deliveries:
        folder = delivery.workspace.folder
        device = folder.stat().st_dev
        folders[device] = folder
        staged = sum(end - start for spans in delivery.job.journal.earlier.values() for *_, start, end, _ in spans)
        present = sum(file.size_bytes or 0 for file in (*delivery.kept.values(), *delivery.supplied.values()))
        needed[device] += max(delivery.finding.needed_bytes - staged - present, 0)
    for device, size_bytes in needed.items():
        if store is None:
            _require_free(folders[device].parent, size_bytes)
        else:
            store.make_room(size_bytes)


def _check_room(pairs: Sequence[tuple[Finding, Path]], store: "Store") -> None:
    """Refuse what cannot fit where it is copied to; on the store's own file system it may take no space."""
    needed: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    for finding, destination in pairs:
        folder = next(place for place in (destination.absolute(), *destination.absolute().parents) if place.exists())
        device = folder.stat().st_dev
        if device != store.root.stat().st_dev:
            folders[device] = folder
            needed[device] += finding.needed_bytes
    for device, size_bytes in needed.items():
        _require_free(folders[device], size_bytes)


def _require_free(folder: Path, size_bytes: int) -> None:
    free = free_bytes(folder)
    if size_bytes > free:
        raise NoSpace(
            f"{folder} needs {size_bytes} bytes more and has {free} free",
            hint="free some space, give a larger volume, or select files by --allow",
        )


def _as_archive(listed: Manifest) -> Manifest:
    """The listing, whose only file, if it is an archive, is delivered as the tree in it."""
    first = next(iter(listed.files), None)
    if first is None or len(listed.files) > 1 or not first.path.lower().endswith(_ARCHIVES):
        return listed
    return listed._replace(files=(first._replace(layer=first.layer or Layer()),))


def _unpacker(listed: Manifest, tree: Path, session: Session) -> Unpacker | None:
    layers = [file for file in listed.files if file.layer is not None]
    if not layers:
        return None
    # Here, and not above: most models are no archive, and its formats take 15 ms to load.
    from lading.layers import Layers

    settings = session.settings
    session.listener(Unpacking(f"{len(layers)} layers" if len(layers) > 1 else layers[0].path))
    if layers[0].path.lower().endswith(_ARCHIVES):
        # Chosen itself, by its name.
        return Layers(tree, settings.limits)
    return Layers(tree, settings.limits, lambda found: found.select(settings.allow, settings.ignore))


def _opener(session: Session) -> "Opener | None":
    """What opens encrypted files; None unless that is asked for."""
    settings = read_confidential(session.settings.variables)
    if settings is None:
        return None
    from lading.confidential import Opener

    return Opener(settings, session.http, session.listener, partial(session.retry.check, "opening"))


def _tree(delivery: _Delivery, sealed: Manifest) -> tuple[Path, Manifest]:
    """The folder to publish, and what is in it together with what the destination keeps."""
    workspace, unpacked = delivery.workspace, delivery.job.unpacked
    present = (*delivery.kept.values(), *delivery.supplied.values())
    plain = [*(file for file in sealed.files if file.layer is None), *present]
    if unpacked is None:
        return workspace.stage, sealed._replace(files=tuple(sorted(plain)))
    files = Manifest.of((*unpacked.files, *plain)).files
    try:
        place.move_into(workspace.stage, workspace.tree)
    except OSError as error:
        raise disk_error(error, error.filename or workspace.tree) from error
    archives = tuple(file for file in sealed.files if file.layer is not None)
    return workspace.tree, sealed._replace(files=files, archives=archives)


def _vouched(request: Request, resolution: Resolution, everything: Manifest) -> dict[str, tuple[Digest, ...]]:
    """Digests by path, of the user and of the registry."""
    digests: dict[str, tuple[Digest, ...]] = {path: (digest,) for path, digest in resolution.digests.items() if path}
    lacking = sorted(digests.keys() - everything.by_path().keys())
    if lacking:
        raise IntegrityError(
            f"{resolution.uri.redacted()} lacks {printable(lacking[0])!r}, whose digest the registry records",
            hint="the origin is not the model that was registered",
        )
    whole = [digest for digest in (request.digest, resolution.digests.get("")) if digest is not None]
    if whole and len(everything.files) != 1:
        raise UsageError(
            f"one digest is given for the {len(everything.files)} files of {resolution.uri.redacted()}",
            hint="a digest for the whole needs a model of one file; a catalog can record one for each file",
        )
    for digest in whole:
        path = everything.files[0].path
        digests[path] = (*digests.get(path, ()), digest)
    return digests


def _size_in(destination: Path) -> SizeOnDisk:
    root = os.path.realpath(destination)

    def size_bytes(path: str) -> int | None:
        place = os.path.join(root, path)
        try:
            status = os.lstat(place)
        except OSError:
            return None
        # What a link leads to, someone put there: it was not delivered.
        return status.st_size if S_ISREG(status.st_mode) and os.path.realpath(place) == place else None

    return size_bytes


def _refuse_shared_destinations(requests: Sequence[Request], *, nested: bool) -> None:
    """``nested`` says whether one may lie within another: not where it would be a stray of that one."""
    seen: set[str] = set()
    for request in requests:
        real = os.path.realpath(request.destination)
        if real in seen:
            raise UsageError(f"two models are to be delivered to {printable(str(request.destination))}")
        if not nested and any(os.path.commonpath((real, other)) in (real, other) for other in seen):
            raise UsageError(
                f"{printable(str(request.destination))} lies within another destination, or another one in it",
                hint="strays are removed from each; give the models folders beside each other",
            )
        seen.add(real)


def _refuse_overlap(source: Source, destination: Path) -> None:
    """A folder that holds its own destination would be copied while it grows."""
    if isinstance(source, OnThisMachine):
        root, target = os.path.realpath(source.root), os.path.realpath(destination)
        if os.path.commonpath((root, target)) in (root, target):
            raise UsageError(
                f"{printable(str(destination))} and {printable(str(source.root))} lie within each other",
                hint="deliver to a folder elsewhere",
            )
