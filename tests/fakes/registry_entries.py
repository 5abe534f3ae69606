"""Registries as the configuration file has them."""

from typing import Any

from lading.settings.registries import RegistryEntry, read_registries
from lading.settings.variables import Variables


def registry_entry(name: str, kind: str, **told: Any) -> RegistryEntry[Any]:
    """What is read of ``{name: …, kind: …, …}`` in the file."""
    written = {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}
    (entry,) = read_registries({"registries": [{"name": name, "kind": kind, **written}]}, Variables())
    return entry
