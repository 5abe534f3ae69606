"""The library's calls, re-exported by ``lading``."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from lading.deliver import deliver
from lading.delivery.request import Request
from lading.delivery.resolve import find
from lading.destination.audit import Audit, audit
from lading.events import Event, Listener, ignore
from lading.model.checks import VerifyMode
from lading.model.digest import Digest
from lading.model.listing import Listing
from lading.model.manifest import Manifest
from lading.model.uri import redact as redacted
from lading.session import Session
from lading.settings.settings import Settings
from lading.telemetry import messages
from lading.text.printable import printable


def pull(
    uri: str,
    destination: str | PathLike[str],
    *,
    digest: str | None = None,
    allow: Sequence[str] = (),
    ignore_patterns: Sequence[str] = (),
    verify: VerifyMode | None = None,
    settings: Settings | None = None,
    listener: Listener = ignore,
) -> Manifest:
    """Deliver the model at ``uri`` into the folder ``destination``; returns its sealed manifest.

    Settings come from the environment unless given.  Raises ``lading.errors.LadingError``; the
    destination is then as it was, apart from ``.lading/``, from which the next call resumes.
    """
    with Session(_adjusted(settings, allow, ignore_patterns, verify), listener) as session:
        request = Request(uri, Path(destination), Digest.parse(digest) if digest else None)
        return deliver([request], session)[0]


def pull_all(
    requests: Sequence[Request], *, settings: Settings | None = None, listener: Listener = ignore
) -> list[Manifest]:
    """Deliver several models, none of which appears before all have been received; returns their sealed manifests in order.

    They share connections and limits.  Settings and errors are those of ``pull``.
    """
    with Session(settings or Settings.load(), listener) as session:
        return deliver(requests, session)


def resolve(uri: str, *, settings: Settings | None = None, listener: Listener = ignore) -> Listing:
    """Resolve ``uri`` and list its files, with the patterns and the verification of ``settings``.  Fetches no file.

    The listing has the resolved URI, the version and the pin.
    """
    with Session(_adjusted(settings, (), (), None), listener) as session:
        return find(Request(uri, Path()), session).listed


def verify(destination: str | PathLike[str]) -> Audit:
    """Hash every file of a delivered folder again; the result's ``is_clean`` says whether all of them are as delivered.

    Raises ``NotFound`` where no model was delivered.
    """
    return audit(Path(destination))


def sentence(event: Event) -> str:
    """Describe an event in one line that is safe to print."""
    return printable(messages.sentence(event))


def redact(uri: str) -> str:
    """``uri`` without its secrets, safe to print."""
    return redacted(printable(uri))


def _adjusted(
    settings: Settings | None, allow: Sequence[str], ignored: Sequence[str], verify: VerifyMode | None
) -> Settings:
    settings = settings or Settings.load()
    return settings._replace(
        allow=tuple(allow) or settings.allow,
        ignore=tuple(ignored) or settings.ignore,
        verify=verify or settings.verify,
    )
