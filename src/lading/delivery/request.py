"""A request (a URI and a destination), and the query that the lock file and the pin make of it."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from lading.delivery.lockfile import locked
from lading.errors import UsageError
from lading.model.digest import Digest
from lading.model.pin import split_pin
from lading.model.uri import ModelURI
from lading.settings.confidential import read_confidential
from lading.settings.settings import Settings

# By such a prefix KServe finds the container of deploy/overlays/store or registry; the model's URI is what follows.
_CHOICES = ("store+", "token+")


class Request(NamedTuple):
    """One requested delivery.  ``digest`` is the digest that a model of one file must have."""

    uri: str
    destination: Path
    digest: Digest | None = None


class Query(NamedTuple):
    """The URI to resolve (that of the lock file, if one is in force), and the pin that the result must have."""

    requested: ModelURI
    uri: ModelURI
    pin: Digest | None

    def identity(self, settings: Settings) -> str:
        """A digest over the URI, its pin and the patterns."""
        query = [self.uri.identity(), str(self.pin), settings.allow, settings.ignore]
        return hashlib.sha256(json.dumps(query).encode()).hexdigest()


def query_for(request: Request, settings: Settings) -> Query:
    """The query for a request; ``NotFound`` if a lock file is in force and does not have its URI."""
    if settings.store.path and read_confidential(settings.variables):
        raise UsageError(
            "an encrypted model cannot be put into a store, since others read it",
            hint="for this delivery, unset LADING_STORE or the store in the configuration",
        )
    requested = ModelURI.parse(request.uri)
    uri, pin = split_pin(locked(requested, settings))
    return Query(requested, uri, pin)


def without_choice(text: str) -> str:
    """The URI of a service, without the prefix that chose the container."""
    for choice in _CHOICES:
        if text.startswith(choice):
            return text.removeprefix(choice)
    return text
