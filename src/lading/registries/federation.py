"""Registries: names become pinned source URIs.  Who is asked.

A registry resolves and never moves bytes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lading.errors import LadingError, NotFound, Unavailable, Unsupported, UsageError
from lading.events import Listener, PassedOver, ignore
from lading.model.listing import GeneratedFile
from lading.model.origin import host_and_port
from lading.model.reference import SCHEMES, Reference, parse_reference
from lading.model.uri import ModelURI
from lading.network.client import HttpClient
from lading.registries.registry import ListsVersions, NoSuchModel, Registry, Resolution, VersionNames
from lading.settings.registries import KINDS, RegistryEntry
from lading.settings.settings import Settings
from lading.text.printable import printable

_Open = Callable[[RegistryEntry[Any], Settings, HttpClient], Registry]


class Candidate(NamedTuple):
    """The answer of one registry to a reference: a resolution, an error, or why it was not asked.

    ``final`` says that nobody else is asked after it.
    """

    registry: str
    resolution: Resolution | None = None
    error: LadingError | None = None
    why: str = ""
    final: bool = False

    @property
    def decides(self) -> bool:
        """Whether the answers of all later registries are ignored."""
        return self.resolution is not None or self.final


def open_registry(entry: RegistryEntry[Any], settings: Settings, http: HttpClient) -> Registry:
    """The registry that an entry of the configuration describes."""
    module, _, name = KINDS[entry.kind].opens.partition(":")
    open_kind: _Open = getattr(import_module(module), name)
    return open_kind(entry, settings, http)


def resolve(uri: ModelURI, settings: Settings, http: HttpClient, listener: Listener = ignore) -> Resolution:
    """Resolve ``uri``: a name is looked up, any other URI resolves to itself.

    The registries that may answer are asked in order.  The next one is asked when one is
    unavailable, or does not have the model and does not own its name; a registry that refuses, or has
    the model but not the version, has answered.
    """
    if uri.scheme.lower() not in SCHEMES:
        return Resolution(uri)
    reference, answering, _ = _chosen(uri, settings)
    return first_answer(uri, _answers(reference, answering, settings, http), listener)


def first_answer(uri: ModelURI, candidates: Iterable[Candidate], listener: Listener = ignore) -> Resolution:
    """The resolution of the name ``uri`` by the first decisive answer; later registries are not asked."""
    errors: list[LadingError] = []
    names: list[str] = []
    for each in candidates:
        if each.resolution is not None:
            return each.resolution
        if each.error is not None:
            if each.decides:
                raise each.error
            if isinstance(each.error, Unavailable):
                listener(PassedOver(each.registry, each.error.message))
            errors.append(each.error)
            names.append(each.registry)
    # Not "there is none" while there is one that cannot be asked: it may have it.
    down = [error for error in errors if isinstance(error, Unavailable)]
    if down or len(errors) == 1:
        raise (down or errors)[0]
    raise NotFound(
        f"no registry ({', '.join(map(printable, names))}) has {uri.redacted()}",
        hint=next((error.hint for error in errors if error.hint), ""),
    )


def versions(uri: ModelURI, settings: Settings, http: HttpClient) -> VersionNames:
    """Which versions there are of the model that ``uri`` names, by the first registry that has it."""
    reference, answering, _ = _chosen(uri, settings)
    for entry in answering:
        registry = open_registry(entry, settings, http)
        if not isinstance(registry, ListsVersions):
            raise Unsupported(f"registry {printable(entry.name)} does not say which versions a model has")
        try:
            return VersionNames(entry.name, reference.model, tuple(registry.versions(reference)))
        except NoSuchModel:
            # One that cannot be asked now may have it: then nobody after it is asked.
            if entry is answering[-1]:
                raise
    raise NotFound(f"no registry has {printable(str(reference))}")


def candidates_for(uri: ModelURI, settings: Settings, http: HttpClient) -> list[Candidate]:
    """The answer of every configured registry to ``uri``, in their order; empty if it is not a registry name."""
    if uri.scheme.lower() not in SCHEMES:
        return []
    reference, answering, others = _chosen(uri, settings)
    answers = list(_answers(reference, answering, settings, http))
    return answers + [Candidate(name, why=why) for name, why in others.items()]


def metadata_file(resolution: Resolution, settings: Settings) -> tuple[GeneratedFile, ...]:
    """The registry's metadata as a file of the model, if the configuration asks for one; not part of a pin, since it may change."""
    entry = entry_of(resolution, settings)
    if entry is None or not entry.metadata_file:
        return ()
    facts = {"registry": resolution.registry, "model": resolution.model, "version": resolution.version}
    text = json.dumps({**facts, "metadata": dict(resolution.metadata)}, indent=1, sort_keys=True)
    return (GeneratedFile(entry.metadata_file, f"{text}\n".encode(), beside=""),)


def entry_of(resolution: Resolution, settings: Settings) -> RegistryEntry[Any] | None:
    """The entry of the registry that resolved it; None for a URI that is no name."""
    return next((entry for entry in settings.registries if entry.name == resolution.registry), None)


def _answers(
    reference: Reference, answering: Sequence[RegistryEntry[Any]], settings: Settings, http: HttpClient
) -> Iterator[Candidate]:
    """The answers of registries, each asked when its answer is needed."""
    for entry in answering:
        try:
            yield Candidate(entry.name, open_registry(entry, settings, http).resolve(reference))
        except NoSuchModel as error:
            yield Candidate(entry.name, error=error, final=bool(entry.models))
        except LadingError as error:
            yield Candidate(entry.name, error=error, final=not isinstance(error, Unavailable))


def _chosen(uri: ModelURI, settings: Settings) -> tuple[Reference, list[RegistryEntry[Any]], dict[str, str]]:
    """The reference, the registries that may answer it in their order, and the reasons why others may not."""
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
    answering = []
    for entry in entries.values():
        if entry.models and not _matches(reference.model, entry.models):
            others[entry.name] = f"it answers for {', '.join(entry.models)} only"
        elif reference.namespace and not _matches(reference.namespace, entry.namespaces):
            others[entry.name] = f"it does not answer for the namespace {reference.namespace}"
        else:
            answering.append(entry)
    if any(entry.models for entry in answering):
        # Nobody else is asked for a name that somebody owns, not even when the owner is away.
        others |= {entry.name: "another registry owns the name" for entry in answering if not entry.models}
        answering = [entry for entry in answering if entry.models]
    if not answering:
        reasons = "; ".join(f"{name}: {why}" for name, why in others.items())
        raise UsageError(f"no registry answers for {uri.redacted()} ({printable(reasons)})")
    return reference, answering, others


def _hosts(entry: RegistryEntry[Any]) -> tuple[str, ...]:
    """How a URI may write the host of a registry: with a dot at its end or without, and the same for its port."""
    try:
        host, port = host_and_port(urlsplit(entry.server.url).netloc)
    except ValueError:
        return ()
    name = f"[{host}]" if ":" in host else host
    ends = ("", f":{port}") if port else ("",)
    return tuple(f"{name}{dot}{end}" for dot in ("", ".") for end in ends) if host else ()


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
