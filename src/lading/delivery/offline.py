"""The last answer for a name, used while its registry does not answer, if the settings allow it.

The model comes from the store, or is in the destination already.  Nothing is fetched or resolved.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lading.delivery.existing import existing, judge_content
from lading.delivery.plan import locked
from lading.delivery.request import Query, Request
from lading.delivery.stage import publish
from lading.destination.workspace import Workspace
from lading.errors import Unavailable
from lading.events import AlreadyDelivered, LastKnown
from lading.model.digest import Digest
from lading.model.manifest import File, Manifest
from lading.session import Session
from lading.settings.settings import Settings
from lading.settings.storage import storage_digests
from lading.system.disk import as_lading_errors

if TYPE_CHECKING:
    from lading.store.store import Store


class Known(NamedTuple):
    """A model that was delivered before.  ``store`` has it under ``key``; without a store, it is in the destination."""

    manifest: Manifest
    store: "Store | None"
    key: str


def recall(request: Request, query: Query, session: Session, error: Unavailable) -> Known:
    """The last answer for a name; raises ``error`` (why the registry does not answer) if there is none or it may not be used."""
    settings = session.settings
    if settings.offline != "last-known":
        raise error
    known = _of_the_store(query, request, session) or _of_the_destination(query, request, session)
    if known is None:
        hint = f"{error.hint}; " if error.hint else ""
        hint += "nothing that was delivered for this name before is in a store or in the destination"
        raise error.rephrased(hint=hint) from error
    manifest = known.manifest
    session.listener(LastKnown(manifest.requested, manifest.resolved, manifest.last_known, error.message))
    return known


def serve(known: Known, destination: Path, session: Session) -> Manifest:
    """Deliver a recalled model; ``last_known`` of the returned manifest says when its registry last answered."""
    if known.store is None:
        session.listener(AlreadyDelivered(str(destination)))
        return known.manifest
    from lading.delivery.from_store import stage_from_store

    store, workspace = known.store, Workspace(destination)
    with as_lading_errors(store.root), store.lease(known.key), locked(workspace, session):
        staged = stage_from_store(store, known.key, known.manifest, workspace, session)
        manifest = publish([staged], session)[destination]
    return manifest._replace(last_known=known.manifest.last_known)


def _of_the_store(query: Query, request: Request, session: Session) -> Known | None:
    settings = session.settings
    if not settings.store.path:
        return None
    from lading.store.store import Store

    store = Store(settings.store)
    with as_lading_errors(store.root):
        recalled = store.answers.recall(query.identity(settings))
        stored = store.find(recalled.key) if recalled else None
    if recalled is None or stored is None:
        return None
    manifest = recalled.facts.with_files_of(stored)._replace(last_known=_moment(recalled.known_at_s))
    folder = store.folder(recalled.key)
    return (
        _judged(Known(manifest, store, recalled.key), folder, query, session)
        if _suffices(manifest, request, settings)
        else None
    )


def _of_the_destination(query: Query, request: Request, session: Session) -> Known | None:
    workspace = Workspace(request.destination)
    found = existing(workspace, session)
    old = found.manifest
    if old is None or old.query_id != query.identity(session.settings) or not _suffices(old, request, session.settings):
        return None
    if not found.is_untouched():
        return None
    since = old.last_known or _moment(workspace.manifest.stat().st_mtime)
    return _judged(Known(old._replace(last_known=since), None, ""), request.destination, query, session)


def _judged(known: Known, folder: Path, query: Query, session: Session) -> Known:
    """The same with who signed it, if a rule of today asks for that; ``Untrusted`` if it may not be delivered any more."""
    if not session.settings.trust:
        query.require_signer(None)
        return known
    # Here, and not above: most runs have no rules.
    from lading.delivery.judge_again import judge_again

    signature = judge_again(known.manifest, folder, session.settings.trust, session.listener)
    query.require_signer(signature)
    judge_content(known.manifest, folder.joinpath, session)
    return known._replace(manifest=known.manifest._replace(signature=signature))


def _suffices(manifest: Manifest, request: Request, settings: Settings) -> bool:
    """Whether it was verified as the present settings require."""
    # What came out of an archive was verified with it.
    origins = manifest.archives or manifest.files
    if settings.verify == "strict" and not all(file.verified for file in origins):
        return False
    if manifest.came_from is None:
        return False
    stored = storage_digests(settings.for_uri(manifest.came_from).variables, {manifest.origin})
    given = [*([("", request.digest)] if request.digest else []), *stored]
    return all(_was_verified(origins, path, digest) for path, digest in given)


def _was_verified(files: tuple[File, ...], path: str, digest: Digest) -> bool:
    """Whether the file with this path, or the only file for "", was verified against this digest."""
    if not path and len(files) > 1:
        return False
    return any(digest in file.verified for file in files if path in ("", file.path))


def _moment(time_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))
