"""A registry without a server: YAML files that people keep in git.

include:                                         # other files, each with models of its own
  - teams/vision.yaml                            # beside this one
  - {url: https://…/models.yaml, digest: sha256:…}
models:
  iris:
    description: a text about the model          # goes into the metadata, as any other key
    aliases: {champion: v1}
    versions:                                    # in order of age: the last live one is the newest
      v1:
        uri: s3://models/iris/v1                 # relative paths start at the file's folder
        digest: sha256:…                         # of the only file, or
        digests: {model.joblib: sha256:…}        # of each
        state: live                              # or archived
        metadata: {format: sklearn}

docs/catalog.schema.json says the same for editors.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from lading.errors import IntegrityError, NotFound, UsageError
from lading.model.checksums import new_hash
from lading.model.digest import STRONG, Digest
from lading.model.paths import why_unsafe
from lading.model.reference import SCHEME, SCHEMES, Reference
from lading.model.uri import ModelURI, redact
from lading.network.answer import status_error
from lading.network.client import HttpClient
from lading.registries.registry import NoSuchModel, Resolution
from lading.settings.catalog import CatalogSettings
from lading.settings.registries import RegistryEntry
from lading.settings.section import errors_name, refuse_unknown
from lading.settings.settings import Settings
from lading.text.printable import printable
from lading.text.strict_yaml import parse_yaml, read_yaml
from lading.text.suggest import did_you_mean, suggest, suggest_word

_STATES = ("live", "archived")
_KEYS = ("models", "include")
_KEYS_OF_A_VERSION = ("uri", "digest", "digests", "state", "metadata")
_INCLUDE_HINT = "write - other.yaml or - {url: https://…, digest: sha256:…}"
_LIMIT_BYTES = 8 << 20


class CatalogRegistry:
    """The catalog that the entry's ``path`` names: a file, a list of files, or a folder of ``*.yaml``.

    A model that two files have is an error: which one is meant would depend on their order.
    """

    def __init__(self, entry: RegistryEntry[CatalogSettings], settings: Settings, http: HttpClient) -> None:
        self.name = entry.name
        self._paths = [Path(path) for path in entry.options.paths]
        self._http = http

    def resolve(self, reference: Reference) -> Resolution:
        return self._model(reference).resolve(reference, self.name)

    def versions(self, reference: Reference) -> list[str]:
        return list(self._model(reference).versions())

    def _model(self, reference: Reference) -> "_Model":
        models: dict[str, _Model] = {}
        for model in self._models():
            if model.name in models:
                raise model.wrong(f"{model.name} is also in {models[model.name].shown}")
            models[model.name] = model
        if reference.model not in models:
            raise NoSuchModel(
                f"registry {printable(self.name)} has no model {printable(reference.model)!r}",
                hint=suggest(reference.model, models),
            )
        return models[reference.model]

    def _models(self) -> "Iterator[_Model]":
        for path in self._paths:
            # A mounted ConfigMap keeps its versions in folders that begin with two dots.
            found = sorted(path.glob("[!.]*.y*ml")) if os.path.isdir(path) else [path]
            for file in found:
                yield from self._models_in(file)

    def _models_in(self, path: Path) -> "Iterator[_Model]":
        catalog = read_yaml(path)
        shown = str(path)
        yield from _models_of(catalog, shown, path.parent)
        included = catalog.get("include") or []
        if not isinstance(included, list):
            raise _wrong("include is not a list", shown, _INCLUDE_HINT)
        for item in included:
            if isinstance(item, str):
                included_path = path.parent / item
                yield from _models_of(
                    _leaf(read_yaml(included_path), str(included_path)), str(included_path), included_path.parent
                )
            elif isinstance(item, dict) and set(item) == {"url", "digest"} and isinstance(item["url"], str):
                digest = _digest(item["digest"], f"include: {item['url']}", shown)
                if digest.algorithm not in STRONG:
                    raise _wrong(f"{item['url']} is included by {digest.algorithm}, which can be forged", shown)
                yield from self._models_at(item["url"], digest)
            else:
                raise _wrong("include takes paths, and URLs with their digest", shown, _INCLUDE_HINT)

    def _models_at(self, url: str, digest: Digest) -> "Iterator[_Model]":
        shown = redact(url)
        head, body = self._http.fetch("GET", url, what=f"the catalog {shown}", limit_bytes=_LIMIT_BYTES)
        if head.status != 200:
            raise status_error(head, f"the catalog {shown}")
        running = new_hash(digest.algorithm)
        running.update(memoryview(body))
        if running.hexdigest() != digest.value:
            raise IntegrityError(
                f"the catalog {shown} has {digest.algorithm}:{running.hexdigest()}, but {digest} is expected",
                hint="the catalog has changed: review it, and write its new digest into the including file",
            )
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{shown} is not UTF-8 text") from error
        yield from _models_of(_leaf(parse_yaml(text, shown), shown), shown, None)


def _leaf(catalog: dict[str, Any], shown: str) -> dict[str, Any]:
    """``catalog``, which is included and so must not include: one file says where all of them are."""
    if "include" in catalog:
        raise UsageError(f"catalog {printable(shown)} is included and includes others itself")
    return catalog


def _models_of(catalog: dict[str, Any], shown: str, folder: Path | None) -> "Iterator[_Model]":
    with errors_name(f"catalog {shown}"):
        refuse_unknown(catalog, _KEYS, "it")
    models = _mapping(catalog.get("models"), "models", shown)
    for name, value in models.items():
        yield _Model(name, _mapping(value, name, shown), shown, folder)


class _Model(NamedTuple):
    """One model as it is written; ``folder`` is where its relative paths start, None for a file from elsewhere."""

    name: str
    value: Mapping[str, Any]
    shown: str
    folder: Path | None

    def versions(self) -> dict[str, Any]:
        """All versions by their names, the newest last."""
        if "versions" not in self.value:
            slip = next((key for key in self.value if did_you_mean(key, ["versions"])), "")
            meant = f"{printable(slip)} is metadata; did you mean versions?" if slip else ""
            raise self.wrong(f"{self.name} has no versions", meant or "write versions: {v1: {uri: s3://bucket/model}}")
        return self._mapping(self.value["versions"], f"{self.name}: versions")

    def _aliases(self, versions: Mapping[str, Any]) -> dict[str, str]:
        """The versions that aliases name, which must be there: a slip must not wait for whoever asks for that alias."""
        aliases = self._mapping(self.value.get("aliases"), f"{self.name}: aliases")
        for alias, version in aliases.items():
            if not isinstance(version, str):
                raise self.wrong(
                    f"{self.name}: the alias {alias} is {version!r}, which is not text", "put it in quotes"
                )
            if version not in versions:
                raise self.wrong(
                    f"{self.name}: the alias {alias} names the version {version!r}, which is not there",
                    suggest(version, versions),
                )
        return aliases

    def resolve(self, reference: Reference, registry: str) -> Resolution:
        """The version that is asked for."""
        versions = self.versions()
        aliases = self._aliases(versions)
        for version, entry in versions.items():
            where = f"{self.name}/{version}"
            written = self._mapping(entry, where)
            with errors_name(f"catalog {self.shown}"):
                refuse_unknown(written, _KEYS_OF_A_VERSION, where)
        name = self._version(reference, versions, aliases)
        where = f"{self.name}/{name}"
        entry = self._mapping(versions[name], where)
        return Resolution(
            uri=self._uri(entry, where),
            registry=registry,
            model=self.name,
            version=name,
            digests=self._digests(entry, where),
            metadata=self._metadata(entry, where),
            considered=tuple(
                (version, self._why(reference, version, name, versions)) for version in reversed(versions)
            ),
        )

    def _metadata(self, entry: Mapping[str, Any], where: str) -> dict[str, Any]:
        own = {key: value for key, value in self.value.items() if key not in ("versions", "aliases")}
        metadata = {**own, **self._mapping(entry.get("metadata"), f"{where}: metadata")}
        try:
            return {key: _plain(value) for key, value in metadata.items()}
        except RecursionError as error:
            # By an alias of YAML.
            raise self.wrong(f"{where} has metadata that holds itself") from error

    def _version(self, reference: Reference, versions: Mapping[str, Any], aliases: Mapping[str, str]) -> str:
        """The version that is meant, which must be live."""
        name = reference.version
        if reference.alias:
            name = aliases.get(reference.alias, "")
            if not name:
                raise NotFound(
                    f"model {printable(self.name)!r} has no alias {printable(reference.alias)!r}",
                    hint=suggest(reference.alias, aliases),
                )
        live = [version for version in versions if self._state(version, versions) == "live"]
        if not name:
            if not live:
                raise NotFound(f"model {printable(self.name)!r} has no live version")
            return live[-1]
        if name not in versions:
            raise NotFound(
                f"model {printable(self.name)!r} has no version {printable(name)!r}", hint=suggest(name, versions)
            )
        if name not in live:
            newest = f"; the newest live one is {_newest(self.name, live[-1])}" if live else ""
            raise NotFound(
                f"version {printable(name)!r} of {printable(self.name)!r} is archived",
                hint=f"set its state to live to deliver it{printable(newest)}",
            )
        return name

    def _why(self, reference: Reference, version: str, taken: str, versions: Mapping[str, Any]) -> str:
        """Why a version was or was not taken, for people."""
        if version == taken:
            return "taken: " + ("asked for" if reference.version or reference.alias else "the newest live version")
        return "not asked for" if (state := self._state(version, versions)) == "live" else state

    def _state(self, version: str, versions: Mapping[str, Any]) -> str:
        state = self._mapping(versions[version], f"{self.name}/{version}").get("state", "live")
        if state not in _STATES:
            raise self.wrong(f"{self.name}/{version} has the state {state!r}", suggest_word(str(state), _STATES))
        return str(state)

    def _uri(self, entry: Mapping[str, Any], where: str) -> ModelURI:
        text = entry.get("uri")
        if not isinstance(text, str) or not text:
            raise self.wrong(f"{where} has no uri", "write uri: s3://bucket/model, or a path from this file's folder")
        with errors_name(f"catalog {self.shown}: {where}"):
            uri = ModelURI.parse(text)
        if uri.scheme.lower() in SCHEMES:
            raise self.wrong(f"{where} leads to another registry name")
        if self.folder is None and uri.scheme.lower() in ("", "file"):
            raise self.wrong(f"{where} leads to a file of this machine, which a catalog from elsewhere does not choose")
        return uri if uri.scheme or self.folder is None else ModelURI("", None, str(self.folder / uri.path))

    def _digests(self, entry: Mapping[str, Any], where: str) -> dict[str, Digest]:
        digests = {}
        for path, text in self._mapping(entry.get("digests"), f"{where}: digests").items():
            if why := why_unsafe(path):
                raise self.wrong(f"{where}: digests has the path {path!r}, which {why}")
            digests[path] = _digest(text, f"{where}: digests: {path}", self.shown)
        if "digest" in entry:
            if digests:
                raise self.wrong(f"{where} has both digest and digests")
            digests[""] = _digest(entry["digest"], f"{where}: digest", self.shown)
        return digests

    def _mapping(self, value: object, where: str) -> dict[str, Any]:
        return _mapping(value, where, self.shown)

    def wrong(self, what: str, hint: str = "") -> UsageError:
        return _wrong(what, self.shown, hint)


def _mapping(value: object, where: str, shown: str) -> dict[str, Any]:
    """``value`` with its keys as text: YAML reads the version 1.10 as a number, which is refused."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(f"{where} is not a mapping", shown)
    for key in value:
        if not isinstance(key, str):
            raise _wrong(f"{where} has the key {key!r}, which is not text", shown, "put it in quotes")
    return value


def _newest(model: str, version: str) -> str:
    return f"{SCHEME}://{quote(model, safe='')}/{quote(version, safe='')}"


def _digest(text: object, where: str, shown: str) -> Digest:
    with errors_name(f"catalog {shown}: {where}"):
        return Digest.parse(str(text))


def _wrong(what: str, shown: str, hint: str = "") -> UsageError:
    return UsageError(f"catalog {printable(shown)}: {printable(what)}", hint=hint)


def _plain(value: Any) -> Any:
    """``value`` as JSON can hold it: YAML also reads dates, sets and bytes, and the manifest is JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)
