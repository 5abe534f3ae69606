"""Registries: the table of their kinds, and their entries in the configuration file and in variables.

The options of each kind are a type in that kind's module, which is read like every other section of the file.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from lading.errors import UsageError
from lading.model.paths import why_unsafe
from lading.settings.section import read_section, refuse_unknown, without_empty
from lading.settings.server import EXAMPLES, ServerSettings
from lading.settings.variables import Variables, is_true
from lading.text.printable import printable
from lading.text.suggest import suggest_word


class Kind(NamedTuple):
    """One kind of registry.  It names its code as ``module:name``, so that a run loads only the kinds that it uses.

    ``opens`` takes an entry, settings and an HTTP client.  ``options`` is the type of the entry's options; its module
    has ``EXAMPLES`` of the keys, and a function ``read_variables``, which makes an entry if one of ``variables`` is
    set.  A kind that is not ``served`` has no server.
    """

    opens: str
    options: str
    variables: tuple[str, ...] = ()
    served: bool = True


KINDS: Mapping[str, Kind] = {
    "catalog": Kind(
        "lading.registries.catalog:CatalogRegistry",
        "lading.settings.catalog:CatalogSettings",
        variables=("LADING_CATALOG",),
        served=False,
    ),
    "kubeflow": Kind(
        "lading.registries.kubeflow.models:KubeflowRegistry",
        "lading.settings.kubeflow:KubeflowSettings",
        variables=("MODEL_REGISTRY_BASE_URL",),
    ),
    "kubeflow-catalog": Kind(
        "lading.registries.kubeflow.model_catalog:KubeflowCatalog",
        "lading.settings.kubeflow:KubeflowCatalogSettings",
    ),
    "mlflow": Kind(
        "lading.registries.mlflow:MlflowRegistry",
        "lading.settings.mlflow:MlflowSettings",
        variables=("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"),
    ),
}


class Options(Protocol):
    """The options of an entry that only registries of its kind have."""

    def check(self, where: str, server: ServerSettings) -> None:
        """Raise for options that are wrong in themselves or with this ``server``; ``where`` names the registry."""
        ...


OptionsT = TypeVar("OptionsT", bound=Options)


class RegistryEntry(NamedTuple, Generic[OptionsT]):
    """A registry of the configuration: its name, its kind, the options of that kind, and its server.

    ``models`` and ``namespaces`` are patterns of the names that it answers for; names that match ``models`` are its
    own.  ``metadata_file`` is the path in the model for a file with the registry's metadata; "" for none.
    """

    name: str
    kind: str
    options: OptionsT
    server: ServerSettings = ServerSettings()
    models: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    metadata_file: str = ""

    def __repr__(self) -> str:
        return f"<registry {self.name} of kind {self.kind}>"

    def check(self) -> None:
        """Raise if the entry alone shows that its registry cannot be opened."""
        where = f"registry {printable(self.name)}"
        self.options.check(where, self.server)
        if KINDS[self.kind].served:
            self.server.check(where)


_NOT_WRITTEN = ("options", "server")
_EXAMPLES = {**EXAMPLES, "models": '["team-*"]', "namespaces": '["team-*"]', "metadata_file": "registry.json"}


def read_registries(config: Mapping[str, Any], env: Variables) -> tuple[RegistryEntry[Any], ...]:
    """Read the entries, in the order in which they are asked; the file wins over a variable for the same name."""
    entries: dict[str, RegistryEntry[Any]] = {}
    for number, item in enumerate(config.get("registries") or (), 1):
        entry = _entry(item, number)
        entry.check()
        if entry.name in entries:
            raise UsageError(
                f"two registries have the same name, {printable(entry.name)!r}", hint="each needs one of its own"
            )
        entries[entry.name] = entry
    # A registry of a variable is checked when it is asked: the variable may be meant for other programs.
    told = (import_module(_module(kind)).read_variables(env) for kind in KINDS.values() if env.first(*kind.variables))
    return (*entries.values(), *(entry for entry in told if entry.name not in entries))


def _module(kind: Kind) -> str:
    return kind.options.partition(":")[0]


def _entry(item: object, number: int) -> RegistryEntry[Any]:
    """Read the entry that ``item`` describes."""
    values = without_empty(item) if isinstance(item, dict) else {}
    name, kind = values.get("name"), values.get("kind")
    if not isinstance(name, str) or not isinstance(kind, str):
        raise UsageError(
            f"registries, entry {number} needs a name and a kind",
            hint=f"write {{name: prod, kind: kubeflow, url: https://…}}; kinds: {', '.join(KINDS)}",
        )
    where = f"registry {printable(name)}"
    if kind not in KINDS:
        raise UsageError(f"{where} is of the unknown kind {printable(kind)!r}", hint=suggest_word(kind, KINDS))
    entry = _of_kind(KINDS[kind], values, where)
    if entry.metadata_file and why_unsafe(entry.metadata_file):
        raise UsageError(f"{where}: metadata_file is not a path within the model", hint="write registry.json")
    return entry


def _of_kind(kind: Kind, values: dict[str, Any], where: str) -> RegistryEntry[Any]:
    """The entry of ``values``: one section, read as three types.  Errors do not quote them: they may be secrets."""
    module = import_module(_module(kind))
    options = getattr(module, kind.options.partition(":")[2])
    own = [key for key in RegistryEntry._fields if key not in _NOT_WRITTEN]
    of_server = ServerSettings._fields if kind.served else ()
    refuse_unknown(values, (*own, *of_server, *options._fields), where)
    if "record" in values:
        values["record"] = is_true(str(values["record"]), f"record of {where}")

    def read(type_: Any, keys: Sequence[str], **apart: Any) -> Any:
        told = {key: values[key] for key in keys if key in values}
        return read_section(type_, told, where, examples=_EXAMPLES | module.EXAMPLES, apart=apart, quoted=False)

    parts = {"options": read(options, options._fields), "server": read(ServerSettings, of_server)}
    entry: RegistryEntry[Any] = read(RegistryEntry, own, **parts)
    return entry
