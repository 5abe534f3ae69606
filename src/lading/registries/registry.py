"""The contract of a registry, and what it answers."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from lading.errors import NotFound
from lading.model.digest import Digest
from lading.model.listing import GeneratedFile
from lading.model.reference import Reference
from lading.model.uri import ModelURI


class Resolution(NamedTuple):
    """The exact thing a reference stands for now.

    ``uri`` is where its bytes are, ``digests`` what they must have: by path, or under "" for a
    model of one file.  ``registry`` and the rest say who said so.  ``variables`` are what the registry
    says about reaching that URI (an endpoint, a region), laid over those of the settings.
    ``considered`` are the versions that were looked at, each with why it was or was not taken;
    ``generated`` are files that the registry's own client adds to the model.
    """

    uri: ModelURI
    registry: str = ""
    model: str = ""
    version: str = ""
    digests: Mapping[str, Digest] = MappingProxyType({})
    metadata: Mapping[str, Any] = MappingProxyType({})
    variables: Mapping[str, str] = MappingProxyType({})
    considered: tuple[tuple[str, str], ...] = ()
    generated: tuple[GeneratedFile, ...] = ()


class NoSuchModel(NotFound):
    """A registry does not have the model at all."""


class Registry(Protocol):
    """One registry.

    ``resolve`` raises ``NoSuchModel`` for a name that it does not have, and ``NotFound`` for a version or
    alias that is missing or not live; both name what is near.
    """

    name: str

    def resolve(self, reference: Reference) -> Resolution:
        """The pin behind the reference."""
        ...


class Deployment(NamedTuple):
    """A delivery to record: for ``service`` in ``environment``; under Kubernetes, an inference service in a namespace.

    ``digest`` is the manifest's, the identity of the tree.
    """

    environment: str
    service: str
    destination: str
    digest: str
    files: int
    size_bytes: int


@runtime_checkable
class Records(Protocol):
    """A registry that can be told what was delivered where."""

    def record(self, resolution: Resolution, deployment: Deployment) -> None:
        """Write it down.  To say the same again changes nothing."""
        ...


@runtime_checkable
class ListsVersions(Protocol):
    """A registry that can say which versions a model has."""

    def versions(self, reference: Reference) -> Sequence[str]:
        """Their names, whatever their state; ``NoSuchModel`` for a model that it does not have."""
        ...


class VersionNames(NamedTuple):
    """Which versions a registry has of a model."""

    registry: str
    model: str
    names: tuple[str, ...]
