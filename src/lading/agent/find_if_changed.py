"""Finding out in every cycle whether a model has changed, without a listing if that is possible."""

from lading.delivery.request import Query, Request, query_for
from lading.delivery.resolve import ResolvedModel, list_files, open_found, resolve
from lading.model.digest import Digest
from lading.model.manifest import Manifest
from lading.model.pattern import chooser
from lading.model.pin import pinned, split_pin
from lading.model.reference import exact_reference
from lading.model.uri import ModelURI
from lading.registries.registry import Resolution
from lading.session import Session
from lading.settings.settings import Settings
from lading.sources.source import FindsPin


def find_if_changed(request: Request, delivered: Manifest, session: Session) -> ResolvedModel | None:
    """Like ``find``; None if nothing has changed since ``delivered``, and no listing was needed to know that."""
    query = query_for(request, session.settings)
    if not _is_judged(delivered, query, session.settings):
        return list_files(request, query, resolve(query, session), session)
    pin = split_pin(ModelURI.parse(delivered.pin))[1]
    if pin is not None and pin == query.pin:
        # A pinned model never changes.
        return None
    resolution = resolve(query, session)
    if query.pin is None and pin is not None and _is_still(request, query, resolution, delivered, pin, session):
        return None
    return list_files(request, query, resolution, session)


def _is_judged(delivered: Manifest, query: Query, settings: Settings) -> bool:
    """Whether the lock file and the rules of today require nothing that was not judged when the model was delivered."""
    if not query.is_signed_as_locked(delivered.signature if settings.trust else None):
        return False
    if not settings.trust:
        return True
    # Here, and not above: most configurations have no rules.
    from lading.delivery.judge_again import was_judged

    return was_judged(delivered, settings.trust)


def _is_still(
    request: Request, query: Query, resolution: Resolution, delivered: Manifest, pin: Digest, session: Session
) -> bool:
    """Whether the registry names the same version and digests as before, and the source still has the same files."""
    if resolution.registry:
        exact = exact_reference(resolution.registry, resolution.model, resolution.version, query.uri)
        if pinned(exact, pin).redacted() != delivered.pin or not _was_checked(resolution, delivered, session.settings):
            return False
    source = open_found(request, resolution, session)
    found = source.find_pin() if isinstance(source, FindsPin) else None
    return found is not None and found.redacted() == delivered.resolved


def _was_checked(resolution: Resolution, delivered: Manifest, settings: Settings) -> bool:
    """Whether the delivered files were checked against every digest that the registry records for wanted files."""
    checked = {file.path: file.verified for file in (*delivered.files, *delivered.archives)}
    is_wanted = chooser(settings.allow, settings.ignore)
    return all(
        digest in checked.get(path, ())
        if path
        # A digest without a path belongs to the only file.
        else any(digest in digests for digests in checked.values())
        for path, digest in resolution.digests.items()
        if not path or is_wanted(path)
    )
