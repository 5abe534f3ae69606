"""A registry without a server: a YAML file that people keep in git.

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
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lading.errors import NotFound, UsageError
from lading.http_client import HttpClient
from lading.manifest import Digest, safe_path
from lading.near import near_hint
from lading.registries import NoSuchModel, Resolution
from lading.registries.reference import SCHEME, Reference
from lading.settings import RegistryEntry, Settings
from lading.uri import ModelURI, printable
from lading.yaml_file import read_yaml

_STATES = ("live", "archived")


class CatalogRegistry:
    """The catalog file that the entry's ``path`` names."""

    def __init__(self, entry: RegistryEntry, settings: Settings, http: HttpClient) -> None:
        self.name = entry.name
        path = entry.options.get("path")
        if not isinstance(path, str) or set(entry.options) != {"path"}:
            raise UsageError(f"registry {printable(entry.name)} of kind catalog needs a path, and only that")
        self._path = Path(path)

    def resolve(self, reference: Reference) -> Resolution:
        models = self._mapping(read_yaml(self._path).get("models"), "models")
        if reference.model not in models:
            raise NoSuchModel(
                f"registry {printable(self.name)} has no model {printable(reference.model)!r}",
                hint=near_hint(reference.model, models),
            )
        model = self._mapping(models[reference.model], reference.model)
        versions = self._mapping(model.get("versions"), f"{reference.model}: versions")
        name = self._version(reference, model, versions)
        entry = self._mapping(versions[name], f"{reference.model}/{name}")
        where = f"{reference.model}/{name}"
        unknown = set(entry) - {"uri", "digest", "digests", "state", "metadata"}
        if unknown:
            raise self._wrong(f"{where} has the unknown key {sorted(map(str, unknown))[0]!r}")
        return Resolution(
            uri=self._uri(entry, where),
            registry=self.name,
            model=reference.model,
            version=name,
            digests=self._digests(entry, where),
            metadata=_plain(
                {
                    **{key: value for key, value in model.items() if key not in ("versions", "aliases")},
                    **self._mapping(entry.get("metadata"), f"{where}: metadata"),
                }
            ),
            considered=tuple(
                (version, self._why(reference, version, name, versions)) for version in reversed(versions)
            ),
        )

    def _why(self, reference: Reference, version: str, taken: str, versions: Mapping[str, Any]) -> str:
        """Why a version was or was not taken, for people."""
        if version == taken:
            return "taken: " + ("asked for" if reference.version or reference.alias else "the newest live version")
        return "not asked for" if (state := self._state(reference.model, version, versions)) == "live" else state

    def _version(self, reference: Reference, model: Mapping[str, Any], versions: Mapping[str, Any]) -> str:
        """The version that is meant, which must be live."""
        name = reference.version
        if reference.alias:
            aliases = self._mapping(model.get("aliases"), f"{reference.model}: aliases")
            name = str(aliases.get(reference.alias, ""))
            if not name:
                raise NotFound(
                    f"model {printable(reference.model)!r} has no alias {printable(reference.alias)!r}",
                    hint=near_hint(reference.alias, aliases),
                )
        live = [version for version in versions if self._state(reference.model, version, versions) == "live"]
        if not name:
            if not live:
                raise NotFound(f"model {printable(reference.model)!r} has no live version")
            return live[-1]
        if name not in versions:
            raise NotFound(
                f"model {printable(reference.model)!r} has no version {printable(name)!r}",
                hint=near_hint(name, versions),
            )
        if name not in live:
            newest = f"; the newest live one is {SCHEME}://{reference.model}/{live[-1]}" if live else ""
            raise NotFound(
                f"version {printable(name)!r} of {printable(reference.model)!r} is archived",
                hint=f"set its state to live to deliver it{printable(newest)}",
            )
        return name

    def _state(self, model: str, version: str, versions: Mapping[str, Any]) -> str:
        state = self._mapping(versions[version], f"{model}/{version}").get("state", "live")
        if state not in _STATES:
            raise self._wrong(f"{model}/{version} has the state {state!r}; known are {', '.join(_STATES)}")
        return str(state)

    def _uri(self, entry: Mapping[str, Any], where: str) -> ModelURI:
        text = entry.get("uri")
        if not isinstance(text, str) or not text:
            raise self._wrong(f"{where} has no uri")
        uri = ModelURI.parse(text)
        if uri.scheme.lower() == SCHEME:
            raise self._wrong(f"{where} leads to another registry name")
        return uri if uri.scheme else ModelURI("", None, str(self._path.parent / uri.path))

    def _digests(self, entry: Mapping[str, Any], where: str) -> dict[str, Digest]:
        digests = {
            safe_path(str(path)): Digest.parse(str(text))
            for path, text in self._mapping(entry.get("digests"), f"{where}: digests").items()
        }
        if "digest" in entry:
            if digests:
                raise self._wrong(f"{where} has both digest and digests")
            digests[""] = Digest.parse(str(entry["digest"]))
        return digests

    def _mapping(self, value: object, where: str) -> dict[str, Any]:
        """``value`` with its keys as text: YAML reads the version 1.10 as a number, which is refused."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._wrong(f"{where} is not a mapping")
        for key in value:
            if not isinstance(key, str):
                raise self._wrong(f"{where} has the key {key!r}, which is not text; put it in quotes")
        return value

    def _wrong(self, what: str) -> UsageError:
        return UsageError(f"catalog {printable(str(self._path))}: {printable(what)}")


def _plain(value: Any) -> Any:
    """``value`` as JSON can hold it: YAML also reads dates, sets and bytes, and the manifest is JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | None) else str(value)
