"""Resolve a request and list its files, before a byte of the model is moved."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lading.delivery.request import Query, Request, query_for
from lading.errors import IntegrityError, NotFound, UsageError
from lading.events import Listed, Resolved
from lading.model.digest import Digest
from lading.model.listing import Layer, Listing
from lading.model.paths import shown_path
from lading.model.pin import pin_of, pinned
from lading.model.reference import exact_reference
from lading.registries import federation
from lading.registries.registry import Resolution
from lading.session import Session
from lading.settings.confidential import read_confidential
from lading.settings.section import errors_name
from lading.settings.settings import Settings
from lading.settings.storage import names_of, storage_digests
from lading.sources.schemes import open_source, refuse_unknown
from lading.sources.source import Pins, Source
from lading.text.printable import printable

# Known by name, as KServe does, and not by content: many model formats are zip files that must
# stay whole (.pt, .keras, .nemo).
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip")


class ResolvedModel(NamedTuple):
    """A resolved and listed model.  ``expected`` are the digests of the user and the registry, by path."""

    resolution: Resolution
    source: Source
    listed: Listing
    expected: dict[str, tuple[Digest, ...]]

    @property
    def needed_bytes(self) -> int:
        """Bytes that the destination's file system must have free; an archive is assumed to unpack to its own size at least."""
        return self.listed.size_bytes


def find(request: Request, session: Session) -> ResolvedModel:
    """Resolve, list, and select files by the patterns."""
    query = query_for(request, session.settings)
    return list_files(request, query, resolve(query, session), session)


def resolve(query: Query, session: Session) -> Resolution:
    """Ask the registries; a URI that is not a registry name resolves to itself."""
    resolution = federation.resolve(query.uri, session.settings, session.http, session.listener)
    if resolution.registry:
        shown = query.requested.redacted(), resolution.uri.redacted()
        session.listener(Resolved(*shown, resolution.registry, resolution.version))
    return resolution


def list_files(request: Request, query: Query, resolution: Resolution, session: Session) -> ResolvedModel:
    """Ask the source for its files, and select by the patterns."""
    settings = session.settings
    source = open_found(request, resolution, session)
    everything = source.list().with_generated(resolution.generated)
    exact = source.pin if isinstance(source, Pins) else resolution.uri
    shown = exact.redacted()
    pin = pin_of(everything, resolution.digests)
    if query.pin not in (None, pin):
        raise IntegrityError(
            f"{query.uri.redacted()} does not match its pin any more: it is {pin} now",
            hint="its files, their sizes or digests have changed; resolve it again to see what it is",
        )
    if resolution.registry:
        exact = exact_reference(resolution.registry, resolution.model, resolution.version, query.uri)
    listed = everything.select(settings.allow, settings.ignore)
    if not listed.files:
        raise NotFound(
            f"no file of {shown} is selected, of {len(everything.files)}",
            hint=f"the patterns leave out, for example, {shown_path(everything.files[0].path)}",
        )
    signed: Mapping[str, tuple[Digest, ...]] = {}
    if settings.trust:
        # Here, and not above: most runs have no rules.
        from lading.delivery.formats import judge_scans
        from lading.delivery.judge import judge

        listed, signed = judge(listed, everything, resolution.uri, source, session)
        judge_scans(listed, resolution.uri, settings.trust, session.listener)
    query.require_signer(listed.signature)
    listed = _as_archive(listed)
    if listed.signature is None:
        listed = listed.with_generated(federation.metadata_file(resolution, settings))
    listed.refuse_faults()
    session.listener(Listed(shown, len(listed.files), listed.size_bytes))
    listed = _described(listed, query, resolution, settings)
    listed = listed._replace(resolved=shown, pin=pinned(exact, pin).redacted())
    given = _settings(resolution, settings).for_uri(resolution.uri.canonical()).variables
    expected = _expected(request, resolution, everything, tuple(storage_digests(given, names_of(resolution.uri))))
    digests = {path: (*expected.get(path, ()), *signed.get(path, ())) for path in {**expected, **signed}}
    return ResolvedModel(resolution, source, listed, digests)


def _described(listed: Listing, query: Query, resolution: Resolution, settings: Settings) -> Listing:
    """The listing with the request, and with the facts of the registry."""
    confidential = read_confidential(settings.variables)
    return listed._replace(
        requested=query.requested.redacted(),
        origin=resolution.uri.identity(),
        registry=resolution.registry,
        version=resolution.version,
        opened_by=confidential.resource if confidential else "",
        metadata=resolution.metadata,
        query_id=query.identity(settings) if resolution.registry else "",
        patterns=settings.patterns,
    )


def open_found(request: Request, resolution: Resolution, session: Session) -> Source:
    """Open the source of a resolution."""
    settings = session.settings._replace(scratch=str(request.destination))
    if not resolution.registry:
        return open_source(resolution.uri, settings, session.http)
    version = f"version {resolution.version!r} of " if resolution.version else ""
    with errors_name(f"registry {resolution.registry}, {version}{resolution.model!r}"):
        # Whoever asks for a name did not write the URI behind it.
        refuse_unknown(resolution.uri, hint="change it in that registry; docs/sources.md lists what lading reads")
        return open_source(resolution.uri, _settings(resolution, settings), session.http)


def _settings(resolution: Resolution, settings: Settings) -> Settings:
    """The settings for the source of a resolution, with what its registry says about it."""
    return settings.for_registry(resolution.variables) if resolution.registry else settings


def _as_archive(listed: Listing) -> Listing:
    """The listing; if its only file is an archive, that is marked to be unpacked."""
    first = next(iter(listed.files), None)
    if first is None or len(listed.files) > 1 or not first.path.lower().endswith(ARCHIVES):
        return listed
    return listed._replace(files=(first._replace(layer=first.layer or Layer()),))


def _expected(
    request: Request, resolution: Resolution, everything: Listing, stored: Sequence[tuple[str, Digest]]
) -> dict[str, tuple[Digest, ...]]:
    """The digests by path that the user, the registry and storage JSONs (``stored``) give; all of them must hold."""
    digests: dict[str, tuple[Digest, ...]] = {}
    for path, digest in (*resolution.digests.items(), *stored):
        digests[path] = (*digests.get(path, ()), digest)
    whole = [*([request.digest] if request.digest else []), *digests.pop("", ())]
    lacking = sorted(digests.keys() - everything.by_path().keys())
    if lacking:
        by = "the registry records" if lacking[0] in resolution.digests else "a storage JSON gives"
        raise IntegrityError(
            f"{resolution.uri.redacted()} lacks {printable(lacking[0])!r}, whose digest {by}",
            hint="the origin is not the model that was registered",
        )
    if whole and len(everything.files) != 1:
        raise UsageError(
            f"one digest is given for the {len(everything.files)} files of {resolution.uri.redacted()}",
            hint="--digest works for a model of one file; a catalog can record a digest for each file",
        )
    for digest in whole:
        path = everything.files[0].path
        digests[path] = (*digests.get(path, ()), digest)
    return digests
