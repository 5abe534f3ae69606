"""Settings of a registry of catalog files: ``path`` in its entry, or ``LADING_CATALOG``."""

from typing import NamedTuple

from lading.errors import UsageError
from lading.settings.registries import RegistryEntry
from lading.settings.server import ServerSettings
from lading.settings.variables import Variables

EXAMPLES = {"path": "/etc/lading/catalog.yaml"}


class CatalogSettings(NamedTuple):
    """A file, several files, or a folder of them."""

    path: str | tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The files and folders."""
        return (self.path,) if isinstance(self.path, str) else self.path

    def check(self, where: str, server: ServerSettings) -> None:
        if not all(self.paths):
            raise UsageError(f"{where}: path is not understood", hint=f"write path: {EXAMPLES['path']}, or a list")


def read_variables(env: Variables) -> RegistryEntry[CatalogSettings]:
    """The entry of the catalog that ``LADING_CATALOG`` names."""
    return RegistryEntry("catalog", "catalog", CatalogSettings(env["LADING_CATALOG"]))
