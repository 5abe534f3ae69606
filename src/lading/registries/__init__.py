"""Registries: names become pinned source URIs.  The contract, the table of kinds, and who is asked.

A registry resolves and never moves bytes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable
from urllib.parse import urlsplit

from lading.errors import LadingError, NotFound, Unavailable, Unsupported, UsageError, defect
from lading.events import Listener, NotRecorded, PassedOver, Recorded, ignore
from lading.http_client import HttpClient
from lading.manifest import Digest, GeneratedFile, Manifest
from lading.origin import host_and_port
from lading.registries.reference import SCHEMES, Reference, parse_reference
from lading.settings import Settings
from lading.settings.registries import RegistryEntry, unknown_kind
from lading.settings.variables import is_true
from lading.uri import ModelURI, printable

# Recording comes after the delivery, but before the end of the process that a pod waits for.
_RECORDING_PATIENCE_S = 5.0


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
    """What was delivered where: for ``service`` in ``environment``, under Kubernetes an inference service in a namespace.

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


_Open = Callable[[RegistryEntry, Settings, HttpClient], Registry]

# Dotted names, so that asking one kind of registry loads none of the others.
_KINDS = {
    "catalog": "lading.registries.catalog:CatalogRegistry",
    "mlflow": "lading.registries.mlflow:MlflowRegistry",
    "kubeflow": "lading.registries.kubeflow.models:KubeflowRegistry",
    "kubeflow-catalog": "lading.registries.kubeflow.catalog:KubeflowCatalog",
}


class Candidate(NamedTuple):
    """What one registry says to a reference: a resolution, an error, or why it was not asked.

    ``final`` says that nobody else is asked after it.
    """

    registry: str
    resolution: Resolution | None = None
    error: LadingError | None = None
    why: str = ""
    final: bool = False

    @property
    def decides(self) -> bool:
        """Whether what any other says after it does not count."""
        return self.resolution is not None or self.final


def open_registry(entry: RegistryEntry, settings: Settings, http: HttpClient) -> Registry:
    """The registry that an entry of the configuration describes."""
    place = _KINDS.get(entry.kind)
    if place is None:
        raise unknown_kind(entry, _KINDS)
    module, _, name = place.partition(":")
    opener: _Open = getattr(import_module(module), name)
    return opener(entry, settings, http)


def resolve(uri: ModelURI, settings: Settings, http: HttpClient, listener: Listener = ignore) -> Resolution:
    """What ``uri`` stands for: a name is looked up, any other URI stands for itself.

    The registries that may answer are asked in order.  The next one is asked when one is
    unavailable, or does not have the model and does not own its name; a registry that refuses, or has
    the model but not the version, has answered.
    """
    if uri.scheme.lower() not in SCHEMES:
        return Resolution(uri)
    reference, asked, _ = _chosen(uri, settings)
    return settle(uri, _answers(reference, asked, settings, http), listener)


def settle(uri: ModelURI, candidates: Iterable[Candidate], listener: Listener = ignore) -> Resolution:
    """What the name ``uri`` stands for, by what registries say in their order; takes no more than that needs."""
    told: list[LadingError] = []
    names: list[str] = []
    for each in candidates:
        if each.resolution is not None:
            return each.resolution
        if each.error is not None:
            if each.decides:
                raise each.error
            if isinstance(each.error, Unavailable):
                listener(PassedOver(each.registry, each.error.message))
            told.append(each.error)
            names.append(each.registry)
    # Not "there is none" while there is one that cannot be asked: it may have it.
    down = [error for error in told if isinstance(error, Unavailable)]
    if down or len(told) == 1:
        raise (down or told)[0]
    raise NotFound(
        f"no registry ({', '.join(map(printable, names))}) has {uri.redacted()}",
        hint=next((error.hint for error in told if error.hint), ""),
    )


def versions(uri: ModelURI, settings: Settings, http: HttpClient) -> VersionNames:
    """Which versions there are of the model that ``uri`` names, by the first registry that has it."""
    reference, asked, _ = _chosen(uri, settings)
    for entry in asked:
        registry = open_registry(entry, settings, http)
        if not isinstance(registry, ListsVersions):
            raise Unsupported(f"registry {printable(entry.name)} does not say which versions a model has")
        try:
            return VersionNames(entry.name, reference.model, tuple(registry.versions(reference)))
        except NoSuchModel:
            # One that cannot be asked now may have it: then nobody after it is asked.
            if entry is asked[-1]:
                raise
    raise NotFound(f"no registry has {printable(str(reference))}")


def explain(uri: ModelURI, settings: Settings, http: HttpClient) -> list[Candidate]:
    """What every configured registry says to ``uri``, in the order in which they would be asked; empty for no name."""
    if uri.scheme.lower() not in SCHEMES:
        return []
    reference, asked, others = _chosen(uri, settings)
    answers = list(_answers(reference, asked, settings, http))
    return answers + [Candidate(name, why=why) for name, why in others.items()]


def metadata_file(resolution: Resolution, settings: Settings) -> tuple[GeneratedFile, ...]:
    """What the registry knows, as a file of the model, if its entry asks for one; no part of a pin, since it may change."""
    entry = _entry_of(resolution, settings)
    if entry is None or not entry.metadata_file:
        return ()
    facts = {"registry": resolution.registry, "model": resolution.model, "version": resolution.version}
    text = json.dumps({**facts, "metadata": dict(resolution.metadata)}, indent=1, sort_keys=True)
    return (GeneratedFile(entry.metadata_file, f"{text}\n".encode(), beside=""),)


def _entry_of(resolution: Resolution, settings: Settings) -> RegistryEntry | None:
    """The entry of the registry that resolved it; None for a URI that is no name."""
    return next((entry for entry in settings.registries if entry.name == resolution.registry), None)


def _answers(
    reference: Reference, asked: Sequence[RegistryEntry], settings: Settings, http: HttpClient
) -> Iterator[Candidate]:
    """What each registry says, asked when its turn comes."""
    for entry in asked:
        try:
            yield Candidate(entry.name, open_registry(entry, settings, http).resolve(reference))
        except NoSuchModel as error:
            yield Candidate(entry.name, error=error, final=bool(entry.models))
        except LadingError as error:
            yield Candidate(entry.name, error=error, final=not isinstance(error, Unavailable))


def record(
    resolution: Resolution,
    manifest: Manifest,
    destination: str,
    settings: Settings,
    http: HttpClient,
    listener: Listener = ignore,
) -> None:
    """Tell the registry that resolved it what was delivered where, if its entry says ``record: true``.

    The model is in place by now: whatever fails here is told to the listener, and that is all.
    """
    entry = _entry_of(resolution, settings)
    if entry is None or "record" not in entry.options:
        return
    try:
        if not is_true(str(entry.options["record"]), f"record of registry {printable(entry.name)}"):
            return
        deployment = _deployment(manifest, destination, settings)
        limits = settings.limits._replace(
            connect_s=min(settings.limits.connect_s, _RECORDING_PATIENCE_S),
            stall_s=min(settings.limits.stall_s, _RECORDING_PATIENCE_S),
        )
        brief = http.reaching(settings.network, limits, http.retry._replace(attempts=1))
        registry = open_registry(entry, settings._replace(limits=limits), brief)
        if not isinstance(registry, Records):
            raise UsageError(f"a registry of the kind {printable(entry.kind)} records nothing")
        registry.record(resolution, deployment)
    except Exception as error:  # noqa: BLE001 - a delivery that is done must not fail by what comes after it
        told = error if isinstance(error, LadingError) else defect(error)
        listener(NotRecorded(entry.name, f"{told.message} ({told.hint})" if told.hint else told.message))
    else:
        listener(Recorded(entry.name, deployment.environment, deployment.service))


def _deployment(manifest: Manifest, destination: str, settings: Settings) -> Deployment:
    environment, service = (settings.variables.get(name, "") for name in ("POD_NAMESPACE", "INFERENCE_SERVICE_NAME"))
    if not environment or not service:
        raise UsageError(
            "it is not said for which service this is delivered",
            hint="set POD_NAMESPACE and INFERENCE_SERVICE_NAME, as docs/registries.md shows",
        )
    return Deployment(environment, service, destination, str(manifest.digest), len(manifest.files), manifest.size_bytes)


def _chosen(uri: ModelURI, settings: Settings) -> tuple[Reference, list[RegistryEntry], dict[str, str]]:
    """What is asked for, the registries that may answer in their order, and why the others may not."""
    kind = SCHEMES[uri.scheme.lower()]
    entries = {entry.name: entry for entry in settings.registries if kind in ("", entry.kind)}
    if not entries:
        raise UsageError(
            f"{uri.redacted()} needs a registry{f' of the kind {kind}' if kind else ''}, and none is configured",
            hint="set MLFLOW_TRACKING_URI, or list one in lading.yaml"
            if kind == "mlflow"
            else "give --catalog FILE, set LADING_CATALOG, MODEL_REGISTRY_BASE_URL or MLFLOW_TRACKING_URI, "
            "or list registries in lading.yaml",
        )
    hosts = {host: entry for entry in entries.values() for host in _hosts(entry)}
    named, reference = parse_reference(uri, {**hosts, **entries})
    if named:
        entries = {entry.name: entry for entry in [entries.get(named) or hosts[named]]}
    others: dict[str, str] = {}
    asked = []
    for entry in entries.values():
        if entry.models and not _matches(reference.model, entry.models):
            others[entry.name] = f"it answers for {', '.join(entry.models)} only"
        elif reference.namespace and not _matches(reference.namespace, entry.namespaces):
            others[entry.name] = f"it does not answer for the namespace {reference.namespace}"
        else:
            asked.append(entry)
    if any(entry.models for entry in asked):
        # Nobody else is asked for a name that somebody owns, not even when the owner is away.
        others |= {entry.name: "another registry owns the name" for entry in asked if not entry.models}
        asked = [entry for entry in asked if entry.models]
    if not asked:
        reasons = "; ".join(f"{name}: {why}" for name, why in others.items())
        raise UsageError(f"no registry answers for {uri.redacted()} ({printable(reasons)})")
    return reference, asked, others


def _hosts(entry: RegistryEntry) -> tuple[str, ...]:
    """How a URI may write the host of a registry: with a dot at its end or without, and the same for its port."""
    try:
        host, port = host_and_port(urlsplit(str(entry.options.get("url") or "")).netloc)
    except ValueError:
        return ()
    name = f"[{host}]" if ":" in host else host
    ends = ("", f":{port}") if port else ("",)
    return tuple(f"{name}{dot}{end}" for dot in ("", ".") for end in ends) if host else ()


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
