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
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from stat import S_ISREG
from threading import Event
from typing import NamedTuple

from lading import place, registries
from lading.disk import disk_error, free_bytes
from lading.errors import IntegrityError, NoSpace, NotAllowed, NotFound, OriginChanged, UsageError
from lading.events import AlreadyDelivered, Delivered, Listed, Listener, Resolved, Retried, Unpacking
from lading.http_client import HttpClient
from lading.lock import locked
from lading.manifest import Digest, File, Layer, Manifest
from lading.pins import pin_of, pinned, split_pin
from lading.registries import Resolution
from lading.registries.reference import exact_reference
from lading.retry import Clock, Retry, SystemClock
from lading.reuse import SizeOnDisk, is_delivered, unchanged
from lading.settings import Settings
from lading.sources import OnThisMachine, Pins, Source, open_source
from lading.transfer.governor import bounds
from lading.transfer.journal import Journal
from lading.transfer.scheduler import Job, Unpacker, transfer
from lading.uri import ModelURI, printable
from lading.workspace import Workspace, open_workspace, remove_tree

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
    _refuse_shared_destinations(requests)
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
    listed = listed._replace(
        requested=requested.redacted(),
        resolved=shown,
        origin=resolution.uri.identity(),
        registry=resolution.registry,
        version=resolution.version,
        pin=pinned(exact, pin).redacted(),
        metadata=resolution.metadata,
    )
    return Finding(resolution, source, listed, _vouched(request, resolution, everything))


class _Delivery(NamedTuple):
    """One finding on its way into one workspace; ``kept`` files are there already."""

    finding: Finding
    workspace: Workspace
    kept: dict[str, File]
    job: Job


def _deliver_as_listed(requests: Sequence[Request], session: Session) -> list[Manifest]:
    started_s = time.monotonic()
    findings = [find(request, session) for request in requests]
    done: dict[int, Manifest] = {}
    pending: dict[int, _Delivery] = {}
    with ExitStack() as stack:
        # In the order of their paths, so that two processes with the same pairs cannot block each other.
        for index in sorted(range(len(requests)), key=lambda index: os.path.realpath(requests[index].destination)):
            destination = requests[index].destination
            _refuse_overlap(findings[index].source, destination)
            workspace = stack.enter_context(
                open_workspace(
                    destination,
                    clock=session.clock,
                    stop=session.retry.stop,
                    listener=session.listener,
                    check=partial(session.retry.check, "waiting for another process"),
                )
            )
            place.recover(workspace)
            old = workspace.delivered()
            if old is not None and _is_delivered(findings[index], old, workspace, session):
                workspace.dissolve()
                session.listener(AlreadyDelivered(str(destination)))
                done[index] = old
            else:
                pending[index] = _begin(findings[index], workspace, old, session, stack)
        _check_space(list(pending.values()))
        sealed = transfer(
            [delivery.job for delivery in pending.values()],
            retry=session.retry,
            bounds=session.bounds,
            max_rate_bytes_s=session.settings.limits.max_rate_bytes_s,
            listener=session.listener,
            interrupt=session.http.interrupt,
        )
        trees = [_tree(delivery, manifest) for delivery, manifest in zip(pending.values(), sealed, strict=True)]
        for (index, delivery), (root, manifest) in zip(pending.items(), trees, strict=True):
            manifest = manifest._replace(seconds=round(time.monotonic() - started_s, 3))
            place.publish(delivery.workspace, root, manifest, delivery.kept)
            done[index] = manifest
            session.listener(
                Delivered(
                    str(requests[index].destination),
                    len(manifest.files),
                    manifest.size_bytes,
                    manifest.seconds,
                    str(manifest.digest),
                )
            )
    manifests = [done[index] for index in range(len(requests))]
    for request, finding, manifest in zip(requests, findings, manifests, strict=True):
        registries.record(
            finding.resolution, manifest, str(request.destination), session.settings, session.http, session.listener
        )
    return manifests


def _is_delivered(finding: Finding, old: Manifest, workspace: Workspace, session: Session) -> bool:
    return is_delivered(finding.listed, old, finding.vouched, session.settings.verify, _size_in(workspace.destination))


def _begin(
    finding: Finding, workspace: Workspace, old: Manifest | None, session: Session, stack: ExitStack
) -> _Delivery:
    """Decide what is still to fetch, and take over what an earlier attempt staged."""
    listed, verify = finding.listed, session.settings.verify
    kept: dict[str, File] = {}
    if old is not None:
        kept = unchanged(listed, old, finding.vouched, verify, _size_in(workspace.destination))
    missing = listed._replace(files=tuple(file for file in listed.files if file.path not in kept))
    journal = Journal(workspace.journal, origin=listed.origin)
    stack.callback(journal.close)
    remove_tree(workspace.tree)
    if journal.earlier:
        workspace.prune_stage(missing.by_path().keys())
    else:
        remove_tree(workspace.stage)
    unpacker = _unpacker(finding.listed, workspace.tree, session)
    job = Job(finding.source, missing, workspace.stage, journal, verify, finding.vouched, unpacker)
    return _Delivery(finding, workspace, kept, job)


def _check_space(deliveries: Sequence[_Delivery]) -> None:
    """Refuse what cannot fit before the first byte; several models on one file system add up."""
    needed: dict[int, int] = defaultdict(int)
    folders: dict[int, Path] = {}
    for delivery in deliveries:
        folder = delivery.workspace.folder
        device = folder.stat().st_dev
        folders[device] = folder
        staged = sum(end - start for spans in delivery.job.journal.earlier.values() for *_, start, end, _ in spans)
        kept = sum(file.size_bytes or 0 for file in delivery.kept.values())
        needed[device] += max(delivery.finding.needed_bytes - staged - kept, 0)
    for device, size_bytes in needed.items():
        free = free_bytes(folders[device])
        if size_bytes > free:
            raise NoSpace(
                f"{folders[device].parent} needs {size_bytes} bytes more and has {free} free",
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


def _tree(delivery: _Delivery, sealed: Manifest) -> tuple[Path, Manifest]:
    """The folder to publish, and what is in it together with what the destination keeps."""
    workspace, unpacked = delivery.workspace, delivery.job.unpacked
    plain = [*(file for file in sealed.files if file.layer is None), *delivery.kept.values()]
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


def _refuse_shared_destinations(requests: Sequence[Request]) -> None:
    seen: set[str] = set()
    for request in requests:
        real = os.path.realpath(request.destination)
        if real in seen:
            raise UsageError(f"two models are to be delivered to {printable(str(request.destination))}")
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
