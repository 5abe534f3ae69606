"""The registries that names are asked of: those of the configuration file, and those that variables name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lading.errors import UsageError
from lading.settings.mlflow import mlflow_options
from lading.settings.variables import Variables
from lading.uri import printable


class RegistryEntry(NamedTuple):
    """A registry of the configuration file: its name, its kind and the options of that kind.

    ``models`` and ``namespaces`` are patterns of what it may answer for; with ``models`` it owns those names.
    ``metadata_file`` is the path of a file in the model that says what the registry knows; "" for none.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = MappingProxyType({})
    models: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    metadata_file: str = ""

    def __repr__(self) -> str:
        return f"<registry {self.name} of kind {self.kind}>"


def read_registries(config: Mapping[str, Any], env: Variables) -> tuple[RegistryEntry, ...]:
    """The entries in the order in which they are asked; the file's wins over a variable's of the same name."""
    registries = _registries(config)
    named = {entry.name for entry in registries}
    return (*registries, *(entry for entry in _registries_of(env) if entry.name not in named))


def _registries(config: Mapping[str, Any]) -> tuple[RegistryEntry, ...]:
    entries = []
    for item in config.get("registries") or ():
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not isinstance(item.get("kind"), str):
            raise UsageError("every registry of the configuration needs a name and a kind")
        known = RegistryEntry._fields
        options = {key: value for key, value in item.items() if key not in known}
        models, namespaces = _texts(item, "models"), _texts(item, "namespaces")
        metadata_file = item.get("metadata_file") or ""
        if not isinstance(metadata_file, str):
            raise UsageError(f"the metadata_file of registry {printable(item['name'])} is not a path")
        entries.append(RegistryEntry(item["name"], item["kind"], options, models, namespaces, metadata_file))
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise UsageError("two registries of the configuration have the same name")
    return tuple(entries)


def _texts(item: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = item.get(key) or []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise UsageError(f"the {key} of registry {printable(item['name'])} are not a list of texts")
    return tuple(value)


def _registries_of(env: Variables) -> tuple[RegistryEntry, ...]:
    """The registries that variables name: a catalog, and those of Kubeflow's and MLflow's own programs."""
    entries = []
    if path := env.get("LADING_CATALOG"):
        entries.append(RegistryEntry("catalog", "catalog", {"path": path}))
    if url := env.get("MODEL_REGISTRY_BASE_URL"):
        # As Kubeflow's storage initializer has them: the URL has no scheme, and a URI may name any namespace.
        scheme = env.get("MODEL_REGISTRY_SCHEME") or "http"
        options = {"url": url if "://" in url else f"{scheme}://{url}"}
        for key, name in (("service", "MODEL_REGISTRY_SERVICE_NAME"), ("domain", "MODEL_REGISTRY_CLUSTER_DOMAIN")):
            if env.get(name):
                options[key] = env[name]
        entries.append(RegistryEntry("kubeflow", "kubeflow", options, namespaces=("*",)))
    if mlflow := mlflow_options(env):
        entries.append(RegistryEntry("mlflow", "mlflow", mlflow))
    return tuple(entries)
