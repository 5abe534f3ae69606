"""A request (a URI and a destination), and the query that the lock file and the pin make of it."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from lading.delivery.lockfile import locked
from lading.errors import Untrusted, UsageError
from lading.model.digest import Digest
from lading.model.pin import split_pin
from lading.model.signature import Signature
from lading.model.uri import ModelURI
from lading.settings.confidential import read_confidential
from lading.settings.settings import Settings
from lading.text.printable import printable

# By such a prefix KServe finds the container of deploy/overlays/store or registry; the model's URI is what follows.
_CHOICES = ("store+", "token+")


class Request(NamedTuple):
    """One requested delivery.  ``digest`` is the digest that a model of one file must have."""

    uri: str
    destination: Path
    digest: Digest | None = None


class Query(NamedTuple):
    """The URI to resolve (that of the lock file, if one is in force), and the pin that the result must have.

    ``signer`` is who must have signed it by the lock file; None if that does not say.
    """

    requested: ModelURI
    uri: ModelURI
    pin: Digest | None
    signer: str | None = None

    def identity(self, settings: Settings) -> str:
        """A digest over the URI, its pin and the patterns."""
        query = [self.uri.identity(), str(self.pin), settings.allow, settings.ignore]
        return hashlib.sha256(json.dumps(query).encode()).hexdigest()

    def is_signed_as_locked(self, signature: Signature | None) -> bool:
        """Whether a model with this signature has the signer that the lock file names."""
        return self.signer is None or (signature is not None and signature.signer == self.signer)

    def require_signer(self, signature: Signature | None) -> None:
        """Raise ``Untrusted`` unless a rule of today has found that the model is signed by whom the lock file names."""
        if self.signer is None or self.is_signed_as_locked(signature):
            return
        shown, signer = self.requested.redacted(), printable(self.signer)
        if signature is None:
            raise Untrusted(
                f"{shown} is locked to the signature of {signer}, and no rule of trust has found who signed it",
                hint="a rule must ask for the signature (docs/trust.md): the lock file alone cannot tell whether it is genuine",
            )
        raise Untrusted(
            f"{shown} is locked to the signature of {signer}, and is signed by {printable(signature.signer)}",
            hint="if that is who should sign it, lock it again with --signed",
        )


def query_for(request: Request, settings: Settings) -> Query:
    """The query for a request; ``NotFound`` if a lock file is in force and does not have its URI."""
    if settings.store.path and read_confidential(settings.variables):
        raise UsageError(
            "an encrypted model cannot be put into a store, since others read it",
            hint="for this delivery, unset LADING_STORE or the store in the configuration",
        )
    requested = ModelURI.parse(request.uri)
    entry = locked(requested, settings)
    uri, pin = split_pin(entry.uri)
    return Query(requested, uri, pin, entry.signer)


def without_choice(text: str) -> str:
    """The URI of a service, without the prefix that chose the container."""
    for choice in _CHOICES:
        if text.startswith(choice):
            return text.removeprefix(choice)
    return text
