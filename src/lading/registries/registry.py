"""The contract of a registry, and what it answers."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

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


DeploymentState = Literal[
    "COMPLETE",  # the service has the version
    "FAILED",  # the service got the version, and could not serve it
    "CANCELED",  # the service got the version, and went back before it was judged
    "UNDEPLOYED",  # the service had the version, and does not have it any more
]


class Deployment(NamedTuple):
    """What to record about a version: its state for ``service`` in ``environment``.

    Under Kubernetes, the two are an inference service and its namespace.  ``topic`` is ``delivered`` for a delivery, and
    ``rollout`` for a change of version.  Two deployments with the same ``identity`` are the same one.  ``facts`` are for
    people, by name; ``summary`` has them in one line.
    """

    topic: Literal["delivered", "rollout"]
    environment: str
    service: str
    state: DeploymentState
    identity: str
    facts: Mapping[str, str]
    summary: str


@runtime_checkable
class Records(Protocol):
    """A registry that can be told which services have which versions."""

    def record(self, resolution: Resolution, deployment: Deployment) -> None:
        """Record it for the version that was resolved.  To record the same again changes nothing."""
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
