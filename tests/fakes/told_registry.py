"""A registry that says what its entry in the configuration tells it to."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from lading import errors
from lading.model.digest import Digest
from lading.model.reference import Reference
from lading.model.uri import ModelURI
from lading.network.client import HttpClient
from lading.registries import registry
from lading.registries.registry import Resolution
from lading.settings.registries import Kind, RegistryEntry
from lading.settings.server import ServerSettings
from lading.settings.settings import Settings


class ToldSettings(NamedTuple):
    """Models by name: a URI, a mapping with ``uri`` and ``digest``, or ``!Error``."""

    models_told: Mapping[str, Any]

    def check(self, where: str, server: ServerSettings) -> None:
        """Anything may be told."""


TOLD = Kind("fakes.told_registry:ToldRegistry", "fakes.told_registry:ToldSettings")
EXAMPLES = {"models_told": "{iris: s3://models/iris}"}


class ToldRegistry:
    """Answers what its entry says."""

    asked: ClassVar[list[str]] = []

    def __init__(self, entry: RegistryEntry[ToldSettings], settings: Settings, http: HttpClient) -> None:
        self.name = entry.name
        self._models = entry.options.models_told

    def resolve(self, reference: Reference) -> Resolution:
        self.asked.append(self.name)
        told = self._models.get(reference.model, "!NoSuchModel")
        if isinstance(told, str) and told.startswith("!"):
            kind = getattr(registry, told[1:], None) or getattr(errors, told[1:])
            raise kind(f"{self.name} says {told}")
        told = told if isinstance(told, dict) else {"uri": told}
        digests = {"": Digest.parse(told["digest"])} if "digest" in told else {}
        considered = (("2", "archived"), ("1", "taken: the newest live version"))
        uri = ModelURI.parse(told["uri"])
        return Resolution(uri, self.name, reference.model, "1", digests, considered=considered)
