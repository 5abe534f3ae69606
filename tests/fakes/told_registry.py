"""A registry that says what its entry in the configuration tells it to."""

from typing import Any, ClassVar

from lading import errors
from lading.model.digest import Digest
from lading.model.reference import Reference
from lading.model.uri import ModelURI
from lading.network.client import HttpClient
from lading.registries import registry
from lading.registries.registry import Resolution
from lading.settings.registries import RegistryEntry
from lading.settings.settings import Settings


class ToldRegistry:
    """``options`` are models by name: a URI, a mapping with ``uri`` and ``digest``, or ``!Error``."""

    asked: ClassVar[list[str]] = []

    def __init__(self, entry: RegistryEntry, settings: Settings, http: HttpClient) -> None:
        self.name = entry.name
        self._models: dict[str, Any] = entry.options["models_told"]

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
