"""The story: a URI becomes a folder.  ``_deliver`` tells it; read that first.

    resolve    a name becomes an exact source URI                          (registries)
    list       the source lists its files                                  (sources)
    plan       what of them is missing, and whether it fits                (delivery)
    transfer   what is missing is fetched, and verified                    (transfer)
    unpack     archives become a tree, encrypted files are decrypted       (unpack)
    publish    the tree becomes the destination, the manifest comes last   (destination)

With a store, the same steps bring a model into the store once, and destinations get it from there
(``delivery/from_store.py``).  While no registry answers, its last answer may be used (``delivery/offline.py``).
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from lading.delivery import offline
from lading.delivery.plan import Delivery, locked_destinations, plan
from lading.delivery.request import Request, query_for
from lading.delivery.resolve import ResolvedModel, find, list_files, resolve
from lading.delivery.space import require_space
from lading.delivery.stage import publish, stage
from lading.destination.workspace import Workspace
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
    return _patiently(partial(_deliver, requests, session), session)


def deliver_to_store(uri: str, name: str, session: Session) -> Manifest:
    """Bring a model to the store alone, which keeps it under ``name`` and releases the model that had this name."""
    return _patiently(partial(_keep, uri, name, session), session)


def _deliver(requests: Sequence[Request], session: Session, contradictions: Contradictions) -> list[Manifest]:
    """Bring every requested model to its destination, whole or not at all: none is published before all are staged."""
    found = {request.destination: _resolve_and_list(request, session, contradictions) for request in requests}
    deliveries = [
        Delivery(model, Workspace(folder)) for folder, model in found.items() if isinstance(model, ResolvedModel)
    ]
    if deliveries and session.settings.store.path:
        # Here, and not above: most deliveries have none.
        from lading.delivery.from_store import deliver_from_store

        done = deliver_from_store(deliveries, session)
    else:
        with locked_destinations(deliveries, session) as ready:
            plans = [plan(each, session) for each in ready]  # what is missing
            require_space(plans)
            staged = stage(plans, session)  # transferred, unpacked, decrypted: whole, but without a final name
            done = publish(staged, session)
    for each in deliveries:
        folder, resolution = each.destination, each.model.resolution
        record(resolution, done[folder], str(folder), session.settings, session.http, session.listener)
    for folder, known in found.items():
        if isinstance(known, offline.Known):
            done[folder] = offline.serve(known, folder, session)
    return [done[request.destination] for request in requests]


def _resolve_and_list(
    request: Request, session: Session, contradictions: Contradictions
) -> ResolvedModel | offline.Known:
    """The resolved and listed models; while no registry answers, its last answer, if the settings allow that."""
    query = query_for(request, session.settings)
    try:
        resolution = resolve(query, session)
    except Unavailable as error:
        return offline.recall(request, query, session, error)
    model = list_files(request, query, resolution, session)
    _refuse_overlap(model.source, request.destination, session)
    return model._replace(listed=contradictions.settled(model.listed))


def _keep(uri: str, name: str, session: Session, contradictions: Contradictions) -> Manifest:
    from lading.delivery.from_store import keep

    model = find(Request(uri, Path(session.settings.store.path)), session)
    _refuse_overlap(model.source, None, session)
    return keep(model._replace(listed=contradictions.settled(model.listed)), name, session)


def _patiently(attempt: Callable[[Contradictions], T], session: Session) -> T:
    """The result of ``attempt``, which is repeated when the origin changes meanwhile, or when credentials were rotated."""
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


def _refuse_shared_destinations(requests: Sequence[Request], *, nested: bool) -> None:
    """``nested`` says whether one may lie within another; with ``--remove-strays`` it would be removed as a stray."""
    seen: set[str] = set()
    for request in requests:
        real = os.path.realpath(request.destination)
        if real in seen:
            raise UsageError(
                f"two models are to be delivered to {printable(str(request.destination))}",
                hint="each needs a folder of its own",
            )
        if not nested and any(os.path.commonpath((real, other)) in (real, other) for other in seen):
            raise UsageError(
                f"{printable(str(request.destination))} contains another destination, or lies within one",
                hint="--remove-strays would remove one model with the other: use folders that lie side by side",
            )
        seen.add(real)


def _refuse_overlap(source: Source, destination: Path | None, session: Session) -> None:
    """Refuse a local source that contains its destination or the store: it would grow while it is copied."""
    store = session.settings.store.path
    root = str(source.root) if isinstance(source, OnThisMachine) else ""
    target = str(destination or "")
    elsewhere, apart = "deliver to a folder elsewhere", "give the store a folder of its own"
    pairs = [(target, root, elsewhere), (target, store, apart)]
    if store and root and _lies_in(store, root):
        pairs.append((store, root, apart))
    for one, other, hint in pairs:
        if one and other and (_lies_in(one, other) or _lies_in(other, one)):
            raise UsageError(f"{printable(one)} and {printable(other)} overlap: one lies within the other", hint=hint)


def _lies_in(inner: str, outer: str) -> bool:
    root = os.path.realpath(outer)
    return os.path.commonpath((os.path.realpath(inner), root)) == root
