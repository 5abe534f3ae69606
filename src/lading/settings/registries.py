"""The registries that names are asked of: those of the configuration file, and those that variables name.

What an entry of each kind may say, and what can be wrong with it before anybody is asked.
"""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lading.errors import Unsupported, UsageError
from lading.model.origin import split_url
from lading.model.paths import why_unsafe
from lading.settings.credentials import check_rule
from lading.settings.mlflow import mlflow_options
from lading.settings.section import refuse_unknown
from lading.settings.storage import check_value
from lading.settings.variables import Variables, is_true
from lading.text.printable import printable
from lading.text.suggest import known_hint

# What every registry with a server may be told.
_SERVED = ("url", "login", "tls", "connect_s", "stall_s", "attempts", "folders", "record")
# The kinds, and the options of each.
KINDS: Mapping[str, tuple[str, ...]] = {
    "catalog": ("path",),
    "kubeflow": (*_SERVED, "service", "domain", "storage"),
    "kubeflow-catalog": (*_SERVED, "source"),
    "mlflow": (*_SERVED, "artifacts_url", "workspace"),
}
_TLS = ("ca", "certificate", "key", "verify")
_OIDC = ("issuer", "token_url", "client_id", "client_secret", "scope", "audience")
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")
_MOST_S = 3600.0


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
    entries: dict[str, RegistryEntry] = {}
    for number, item in enumerate(config.get("registries") or (), 1):
        entry = _entry(item, number)
        check_entry(entry)
        if entry.name in entries:
            raise UsageError(f"two registries have the same name, {printable(entry.name)!r}")
        entries[entry.name] = entry
    return tuple(entries.values())


def _entry(item: object, number: int) -> RegistryEntry:
    values = item if isinstance(item, dict) else {}
    if not all(isinstance(values.get(key), str) and values[key] for key in ("name", "kind")):
        raise UsageError(
            f"registries, entry {number} needs a name and a kind",
            hint=f"write {{name: prod, kind: kubeflow, url: https://…}}; kinds: {', '.join(KINDS)}",
        )
    name, texts = values["name"], {key: values.get(key) or [] for key in ("models", "namespaces")}
    for key, value in texts.items():
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise _wrong(name, f"has {key} that are not a list of texts", f'write {key}: ["team-*"]')
    metadata_file = values.get("metadata_file") or ""
    if not isinstance(metadata_file, str) or (metadata_file and why_unsafe(metadata_file)):
        raise _wrong(
            name, "has a metadata_file that is not a path within the model", "write metadata_file: registry.json"
        )
    options = {key: value for key, value in values.items() if key not in RegistryEntry._fields}
    return RegistryEntry(
        name, values["kind"], options, tuple(texts["models"]), tuple(texts["namespaces"]), metadata_file
    )


def check_entry(entry: RegistryEntry) -> None:
    """Raise for an entry by which no registry can be opened, as far as it alone tells.

    Its values may be secrets, and are not quoted.
    """
    if entry.kind not in KINDS:
        raise unknown_kind(entry, KINDS)
    options = entry.options
    own = [key for key in RegistryEntry._fields if key != "options"]
    refuse_unknown(options, (*own, *KINDS[entry.kind]), f"registry {printable(entry.name)}")
    if entry.kind == "catalog":
        paths = options.get("path")
        paths = [paths] if isinstance(paths, str) else paths
        if not isinstance(paths, list) or not paths or not all(isinstance(path, str) and path for path in paths):
            raise _wrong(entry.name, "of kind catalog needs a path", "write path: /etc/lading/catalog.yaml, or a list")
        return
    _check_server(entry)
    _check_login(entry.name, options["url"], options.get("login") or {})
    if entry.kind == "kubeflow":
        _check_kubeflow(entry)
    elif entry.kind == "mlflow":
        check_value(f"registry {printable(entry.name)}: workspace", options.get("workspace", ""))
    elif not isinstance(options.get("source"), str) or not options["source"]:
        hint = "GET /api/model_catalog/v1alpha1/sources of the catalog lists the ids"
        raise _wrong(entry.name, "of kind kubeflow-catalog needs a source", hint)


def unknown_kind(entry: RegistryEntry, known: Iterable[str]) -> UsageError:
    """What is said of an entry whose kind is none of ``known``."""
    return _wrong(entry.name, f"is of the unknown kind {printable(entry.kind)!r}", known_hint(entry.kind, known))


def _check_server(entry: RegistryEntry) -> None:
    name, options = entry.name, entry.options
    if entry.kind == "mlflow" and isinstance(options.get("url"), str) and options["url"]:
        _refuse_other_stores(name, options["url"])
    for key in ("url", "artifacts_url"):
        url, hint = options.get(key), "write https://registry.example.com, and its credential as login"
        if not url and key == "artifacts_url":
            continue
        if not isinstance(url, str) or not url:
            raise _wrong(name, f"needs {key}", hint)
        if not _is_plain(url):
            raise _wrong(name, f"needs as {key} an http or https URL without user, query and fragment", hint)
    tls = options.get("tls") or {}
    if not isinstance(tls, dict):
        raise _wrong(name, "has a tls that is not a mapping", "write tls: {ca: /etc/lading/ca.crt}")
    refuse_unknown(tls, _TLS, f"registry {printable(name)}: tls")
    for key, value in tls.items():
        if not isinstance(value, bool if key == "verify" else str):
            hint = "write true or false" if key == "verify" else "write the path of a file"
            raise _wrong(name, f"has a tls.{key} that is not understood", hint)
    for key in ("connect_s", "stall_s", "attempts"):
        value, least = options.get(key, 1), 1 if key == "attempts" else 0.001
        kinds = int if key == "attempts" else int | float
        if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < _MOST_S:
            what = "a whole number from 1 on" if key == "attempts" else f"a number of seconds below {_MOST_S:g}"
            raise _wrong(name, f"has {key} that is not {what}", f"write {key}: 3")
    folders = options.get("folders") or []
    if not isinstance(folders, list) or not all(isinstance(item, str) and item.startswith("/") for item in folders):
        raise _wrong(name, "has folders that are not a list of absolute paths", "write folders: [/srv/models]")
    if "record" in options:
        is_true(str(options["record"]), f"record of registry {printable(name)}")


def _check_login(name: str, url: str, login: Any) -> None:
    hint = "write token, user and password, oidc, or aws; see docs/registries.md"
    if not isinstance(login, dict):
        raise _wrong(name, "has a login that is not a mapping", hint)
    keys, where = set(login), f"registry {printable(name)}: login"
    if keys in ({"oidc"}, {"aws"}) and isinstance(next(iter(login.values())), dict):
        ((key, login),) = login.items()
        where = f"{where}.{key}"
        refuse_unknown(login, _OIDC if key == "oidc" else ("region", "service"), where)
        if key == "aws" and len(login) < 2:
            raise UsageError(
                f"{where} needs a region and a service", hint="for example {region: eu-west-1, service: execute-api}"
            )
        if key == "oidc" and (not login.get("client_id") or ("issuer" in login) == ("token_url" in login)):
            hint = "for example {client_id: lading, issuer: https://idp.example.com, client_secret: {file: /etc/lading/secret}}"
            raise UsageError(f"{where} needs a client_id and either an issuer or a token_url", hint=hint)
    elif keys not in (set(), {"token"}, {"user", "password"}):
        raise _wrong(name, "has a login that is not understood", hint)
    for key, value in login.items():
        check_value(f"{where}.{key}", value)
    if keys and keys != {"aws"}:
        split_url(url)[0].refuse_in_clear(f"registry {printable(name)}: its login")


def _check_kubeflow(entry: RegistryEntry) -> None:
    for key in ("service", "domain"):
        host = entry.options.get(key)
        if host and not (isinstance(host, str) and _HOST.fullmatch(host)):
            raise _wrong(entry.name, f"has a {key} that is not a host name", "write letters, digits, dashes and dots")
    storage = entry.options.get("storage") or {}
    if not isinstance(storage, dict) or not all(isinstance(rule, dict) for rule in storage.values()):
        hint = "write storage: {KEY: {folder: /path}} or {KEY: {variables: {NAME: value}}}"
        raise _wrong(entry.name, "has a storage that is not understood", hint)
    for key, rule in storage.items():
        where = f"registry {printable(entry.name)}: storage {printable(str(key))}"
        refuse_unknown(rule, ("folder", "variables"), where)
        check_rule(rule, where)


def _refuse_other_stores(name: str, url: str) -> None:
    """MLflow's client also takes folders, databases and Databricks for a server."""
    scheme = url.partition(":")[0].lower()
    if scheme in ("databricks", "databricks-uc", "uc"):
        raise Unsupported(
            f"registry {printable(name)}: lading does not ask Databricks or Unity Catalog",
            hint="deliver from the storage URI, or from an MLflow server",
        )
    if scheme not in ("http", "https"):
        raise Unsupported(
            f"registry {printable(name)}: lading asks MLflow servers, and not a store of its client",
            hint="start `mlflow server` on that store, and give its http:// or https:// URL",
        )


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
        plain = parts.port != 0 and not parts.query and not parts.fragment and "@" not in parts.netloc
    except ValueError:
        return False
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)


def _wrong(name: str, what: str, hint: str) -> UsageError:
    return UsageError(f"registry {printable(name)} {what}", hint=hint)


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
