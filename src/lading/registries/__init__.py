"""Registries: names become pinned source URIs.  The contract, the table of kinds, the parsing of names.

A registry resolves and never moves bytes.  ``model-registry://`` names are asked in the order in
which the configuration lists the registries.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

from lading.errors import NotFound, UsageError
from lading.http_client import HttpClient
from lading.manifest import Digest
from lading.settings import RegistryEntry, Settings
from lading.uri import ModelURI, printable

SCHEME = "model-registry"


class Reference(NamedTuple):
    """What a ``model-registry://`` URI asks for.  Without version and alias: the newest live version."""

    model: str
    version: str = ""
    alias: str = ""

    def __str__(self) -> str:
        return self.model + (f"/{self.version}" if self.version else "") + (f"@{self.alias}" if self.alias else "")


class Resolution(NamedTuple):
    """The exact thing a reference stands for now.

    ``uri`` is where its bytes are, ``digests`` what they must have: by path, or under "" for a
    model of one file.  ``registry`` and the rest say who said so.  ``variables`` are what the registry
    says about reaching that URI (an endpoint, a region), laid over those of the settings.
    """

    uri: ModelURI
    registry: str = ""
    model: str = ""
    version: str = ""
    digests: Mapping[str, Digest] = MappingProxyType({})
    metadata: Mapping[str, Any] = MappingProxyType({})
    variables: Mapping[str, str] = MappingProxyType({})


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


_Open = Callable[[RegistryEntry, HttpClient], Registry]

_KINDS = {"catalog": "lading.registries.catalog:CatalogRegistry"}


def open_registry(entry: RegistryEntry, http: HttpClient) -> Registry:
    """The registry that an entry of the configuration describes."""
    place = _KINDS.get(entry.kind)
    if place is None:
        raise UsageError(
            f"registry {printable(entry.name)} is of the unknown kind {printable(entry.kind)!r}",
            hint=f"known: {', '.join(_KINDS)}",
        )
    module, _, name = place.partition(":")
    opener: _Open = getattr(import_module(module), name)
    return opener(entry, http)


def resolve(uri: ModelURI, settings: Settings, http: HttpClient) -> Resolution:
    """What ``uri`` stands for: a name is looked up, any other URI stands for itself."""
    if uri.scheme.lower() != SCHEME:
        return Resolution(uri)
    if not settings.registries:
        raise UsageError(
            f"{uri.redacted()} needs a registry, and none is configured",
            hint="give --catalog FILE, set LADING_CATALOG, or list registries in lading.yaml",
        )
    named, reference = parse_reference(uri, {entry.name for entry in settings.registries})
    asked = [entry for entry in settings.registries if named in ("", entry.name)]
    missing: list[NoSuchModel] = []
    for entry in asked:
        try:
            return open_registry(entry, http).resolve(reference)
        except NoSuchModel as error:
            # Only then the next: a registry that has the model but not the version has answered.
            missing.append(error)
    if len(missing) == 1:
        raise missing[0]
    names = ", ".join(entry.name for entry in asked)
    raise NotFound(
        f"no registry ({names}) has {printable(str(reference))}",
        hint=next((error.hint for error in missing if error.hint), ""),
    )


def parse_reference(uri: ModelURI, registries: set[str]) -> tuple[str, Reference]:
    """The registry that the URI names, or "", and what it asks for.

    ``model``, ``model/version`` and ``model@alias``, with a configured registry's name before them
    or not; each part may be percent-encoded.
    """
    if uri.query is not None or uri.fragment is not None:
        raise UsageError(f"{uri.redacted()} takes no query and no fragment")
    parts = f"{uri.authority or ''}{uri.path}".removesuffix("/").split("/")
    named = ""
    if len(parts) > 1 and unquote(parts[0]) in registries:
        named = unquote(parts.pop(0))
    last, at, alias = parts[-1].partition("@")
    parts[-1] = last
    texts = [unquote(part) for part in (*parts, alias)]
    if len(parts) > 2 or not all(texts[: len(parts)]) or (at and (not alias or len(parts) > 1)):
        raise UsageError(
            f"{uri.redacted()} is not a registry name",
            hint=f"write {SCHEME}://model, {SCHEME}://model/version or {SCHEME}://model@alias",
        )
    *names, decoded_alias = texts
    return named, Reference(names[0], names[1] if len(names) > 1 else "", decoded_alias)
