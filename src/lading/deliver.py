"""The story: a URI becomes a folder.

    resolve    a name becomes an exact source URI                     (registries)
    list       the source tells its files                             (sources)
    bring      they land, verified, and become the destination        (bring)

With a store they come to that, once for all who want them, and out of it to the destination (share).
"""

import os
from collections.abc import Sequence
from pathlib import Path

from lading import last_known, registries
from lading.bring import bring
from lading.errors import NotAllowed, OriginChanged, Unavailable, UsageError
from lading.events import Retried
from lading.finding import Finding, Request, Session, find, list_files, question_of, resolve
from lading.manifest import Manifest
from lading.sources import OnThisMachine, Source
from lading.uri import printable

_MOST_LISTINGS = 3
# What callers have from here.
__all__ = ["Finding", "Request", "Session", "deliver", "find"]


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


def _deliver_as_listed(requests: Sequence[Request], session: Session) -> list[Manifest]:
    findings: dict[int, Finding] = {}
    known: dict[int, last_known.Known] = {}
    for index, request in enumerate(requests):
        question = question_of(request, session.settings)
        try:
            resolution = resolve(question, session)
        except Unavailable as error:
            known[index] = last_known.recall(request, question, session, error)
            continue
        findings[index] = list_files(request, question, resolution, session)
        _refuse_overlap(findings[index].source, request.destination, session)
    brought = _bring(list(findings.values()), [requests[index] for index in findings], session)
    done = dict(zip(findings, brought, strict=True))
    done |= {index: last_known.serve(each, requests[index].destination, session) for index, each in known.items()}
    return [done[index] for index in range(len(requests))]


def _bring(findings: Sequence[Finding], requests: Sequence[Request], session: Session) -> list[Manifest]:
    if not findings:
        return []
    destinations = [request.destination for request in requests]
    if session.settings.store.path:
        # Here, and not above: most deliveries have none.
        from lading.share import share

        manifests = share(findings, destinations, session)
    else:
        manifests = bring(findings, destinations, session)
    for destination, finding, manifest in zip(destinations, findings, manifests, strict=True):
        registries.record(
            finding.resolution, manifest, str(destination), session.settings, session.http, session.listener
        )
    return manifests


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


def _refuse_overlap(source: Source, destination: Path, session: Session) -> None:
    """A folder that holds its own destination, or the store, would be copied while it grows."""
    store = session.settings.store.path
    pairs = [(str(destination), str(source.root))] if isinstance(source, OnThisMachine) else []
    if store:
        pairs.append((str(destination), store))
        if isinstance(source, OnThisMachine) and _lies_in(store, str(source.root)):
            pairs.append((store, str(source.root)))
    for one, other in pairs:
        if _lies_in(one, other) or _lies_in(other, one):
            raise UsageError(
                f"{printable(one)} and {printable(other)} lie within each other",
                hint="deliver to a folder elsewhere, or give the store a folder of its own",
            )


def _lies_in(inner: str, outer: str) -> bool:
    root = os.path.realpath(outer)
    return os.path.commonpath((os.path.realpath(inner), root)) == root
