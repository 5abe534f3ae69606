"""The story: a URI becomes a folder.

    resolve    a name becomes an exact source URI                     (registries)
    list       the source lists its files                             (sources)
    bring      the files land, verified, and become the destination   (bring)

With a store, models are fetched into it, once for all who want them, and placed from there (share).
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from lading.delivery import offline
from lading.delivery.request import Request, question_of
from lading.delivery.resolve import find, list_files, resolve
from lading.delivery.stage import Wanted, bring
from lading.errors import NotAllowed, OriginChanged, Unavailable, UsageError
from lading.events import Retried
from lading.model.manifest import Manifest
from lading.model.validator import Contradictions
from lading.registries.deployments import record
from lading.session import Session
from lading.sources.source import OnThisMachine, Source
from lading.text.printable import printable

T = TypeVar("T")

# An origin that contradicts itself needs three to be read in a way that leaves nothing to contradict.
_MOST_LISTINGS = 5


def deliver(requests: Sequence[Request], session: Session) -> list[Manifest]:
    """Bring every requested model to its destination; returns the sealed manifests in the same order."""
    _refuse_shared_destinations(requests, nested=not session.settings.remove_strays)
    return _patiently(partial(_deliver_as_listed, requests, session), session)


def deliver_to_store(uri: str, name: str, session: Session) -> Manifest:
    """Bring a model to the store alone, which keeps it under ``name`` in the place of what that kept before."""
    return _patiently(partial(_keep_as_listed, uri, name, session), session)


def _patiently(attempt: Callable[[Contradictions], T], session: Session) -> T:
    """The result of ``attempt``, made again when the origin changes under it, or what may read it."""
    contradictions = Contradictions()
    for left in reversed(range(_MOST_LISTINGS)):
        credentials = session.settings.rotating()
        # What has landed of unchanged files stays in both cases: the journal knows their validators.
        try:
            return attempt(contradictions)
        except OriginChanged as error:
            contradictions.note(error)
            if not left:
                contradictions.explain(error)
                raise
            session.listener(Retried("the listing", error.message, 0.0))
        except NotAllowed as error:
            if not left or session.settings.rotating() == credentials:
                raise
            session.listener(Retried("the delivery with new credentials", error.message, 0.0))
    raise AssertionError


def _deliver_as_listed(requests: Sequence[Request], session: Session, contradictions: Contradictions) -> list[Manifest]:
    wanted: list[Wanted] = []
    known: list[tuple[Path, offline.Known]] = []
    for request in requests:
        question = question_of(request, session.settings)
        try:
            resolution = resolve(question, session)
        except Unavailable as error:
            known.append((request.destination, offline.recall(request, question, session, error)))
            continue
        finding = list_files(request, question, resolution, session)
        finding = finding._replace(listed=contradictions.settled(finding.listed))
        _refuse_overlap(finding.source, request.destination, session)
        wanted.append(Wanted(finding, request.destination))
    done = _bring(wanted, session) if wanted else {}
    done |= {destination: offline.serve(each, destination, session) for destination, each in known}
    return [done[request.destination] for request in requests]


def _keep_as_listed(uri: str, name: str, session: Session, contradictions: Contradictions) -> Manifest:
    from lading.delivery.from_store import keep

    finding = find(Request(uri, Path(session.settings.store.path)), session)
    finding = finding._replace(listed=contradictions.settled(finding.listed))
    _refuse_overlap(finding.source, None, session)
    return keep(finding, name, session)


def _bring(wanted: Sequence[Wanted], session: Session) -> dict[Path, Manifest]:
    if session.settings.store.path:
        # Here, and not above: most deliveries have none.
        from lading.delivery.from_store import share

        manifests = share(wanted, session)
    else:
        manifests = bring(wanted, session)
    for finding, destination, _ in wanted:
        manifest = manifests[destination]
        record(finding.resolution, manifest, str(destination), session.settings, session.http, session.listener)
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


def _refuse_overlap(source: Source, destination: Path | None, session: Session) -> None:
    """A folder that holds its own destination, or the store, would be copied while it grows."""
    store = session.settings.store.path
    root = str(source.root) if isinstance(source, OnThisMachine) else ""
    pairs = [(str(destination), other) for other in (root, store) if destination and other]
    if store and root and _lies_in(store, root):
        pairs.append((store, root))
    for one, other in pairs:
        if _lies_in(one, other) or _lies_in(other, one):
            raise UsageError(
                f"{printable(one)} and {printable(other)} lie within each other",
                hint="deliver to a folder elsewhere, or give the store a folder of its own",
            )


def _lies_in(inner: str, outer: str) -> bool:
    root = os.path.realpath(outer)
    return os.path.commonpath((os.path.realpath(inner), root)) == root
