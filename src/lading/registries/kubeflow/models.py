"""Kubeflow Model Registry: names, versions and artifacts, by REST v1alpha3 or v1.

registries:
  - name: prod
    kind: kubeflow
    url: https://registry.example.com        # without /api/…
    login: {token: {file: /var/run/secrets/tokens/registry}}
    namespaces: [team-a, "lab-*"]            # what ?namespace= may name
    service: model-registry-service          # the name of each namespace's service
    domain: svc.cluster.local
    storage:                                 # credentials for an artifact's storageKey
      minio: {folder: /etc/lading/minio}
    record: true
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from lading.errors import NotFound, Unsupported, UsageError
from lading.model.reference import SCHEME, Reference
from lading.network.client import HttpClient
from lading.registries.digests import recorded_digests
from lading.registries.kubeflow.artifacts import choose, facts, labels, located
from lading.registries.kubeflow.rest_api import Api, Entity, entity, identifier, number, properties, text
from lading.registries.kubeflow.serving import record
from lading.registries.registry import Deployment, NoSuchModel, Resolution
from lading.registries.server import RegistryServer
from lading.settings.kubeflow import KubeflowSettings
from lading.settings.registries import RegistryEntry
from lading.settings.server import LoginSettings
from lading.settings.settings import Settings
from lading.settings.variables import Variables
from lading.text.printable import printable
from lading.text.suggest import suggest

# Old servers have only the first, new ones both, and those to come only the second:
# https://github.com/kubeflow/hub/issues/2992.  What is asked for here is the same in both.
_ROOTS = ("/api/model_registry/v1alpha3", "/api/model_registry/v1")
_MOST_TRIED = 100
# What the API takes as a name to look for; it keeps any other name, too.
_FINDABLE = re.compile(r"[\x20-\x7e]+")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ARTIFACT_FACTS = (
    "modelFormatName",
    "modelFormatVersion",
    "storageKey",
    "storagePath",
    "serviceAccountName",
    "modelSourceKind",
    "modelSourceClass",
    "modelSourceGroup",
    "modelSourceId",
    "modelSourceName",
)


class KubeflowRegistry:
    """The registry at the entry's ``url``, and those of the namespaces that it may answer for."""

    def __init__(self, entry: RegistryEntry[KubeflowSettings], settings: Settings, http: HttpClient) -> None:
        self.name = entry.name
        self._entry = entry
        self._settings = settings
        self._http = http
        self._main = self._open(entry)

    def resolve(self, reference: Reference) -> Resolution:
        api = self._api(reference.namespace)
        model = self._model(api, reference.model)
        if reference.version or reference.alias:
            version, why = self._named(api, model, reference)
            artifact = self._artifact(api, model, version, reference)
            considered = [(version["name"], why)]
        else:
            version, artifact, considered = self._newest(api, model, reference)
        where = _where(model, version)
        recorded = [properties(found) for found in (version, artifact)]
        uri, variables = located(api.server, artifact, recorded, where)
        metadata = _metadata(reference, model, version, artifact)
        if variables.get("AWS_ENDPOINT_URL"):
            metadata["endpoint"] = variables["AWS_ENDPOINT_URL"]
        key = text(artifact, "storageKey")
        if key in self._entry.options.storage:
            variables |= self._entry.options.storage[key].read(self._settings.variables)
        return Resolution(
            uri=uri,
            registry=self.name,
            model=model["name"],
            version=version["name"],
            digests=recorded_digests(where, *recorded),
            metadata=metadata,
            # Perhaps secrets: a mapping that never prints them.
            variables=Variables(variables),
            considered=tuple(considered),
        )

    def versions(self, reference: Reference) -> list[str]:
        api = self._api(reference.namespace)
        return [version["name"] for version in self._versions(api, self._model(api, reference.model))]

    def record(self, resolution: Resolution, deployment: Deployment) -> None:
        """A ServingEnvironment, an InferenceService in it, and a ServeModel for what was delivered."""
        record(self._api(str(resolution.metadata.get("namespace", ""))), resolution, deployment)

    def _open(self, entry: RegistryEntry[KubeflowSettings]) -> RegistryServer:
        return RegistryServer(entry, self._settings, self._http)

    def _api(self, namespace: str) -> Api:
        return Api(self._server(namespace), _ROOTS, "/registered_models")

    def _server(self, namespace: str) -> RegistryServer:
        """The registry of ``namespace``.  The login goes to one that the entry names, never to one that a pattern fits."""
        if not namespace:
            return self._main
        if not _LABEL.fullmatch(namespace):
            raise UsageError(f"{printable(namespace)!r} is not a namespace", hint="it is a DNS label, such as team-a")
        parts = urlsplit(self._main.url)
        port = f":{parts.port}" if parts.port else ""
        options = self._entry.options
        host = f"{options.service}.{namespace}.{options.domain}"
        server = self._entry.server._replace(url=f"{parts.scheme}://{host}{port}")
        if namespace not in self._entry.namespaces:
            server = server._replace(login=LoginSettings())
        return self._open(self._entry._replace(server=server))

    def _model(self, api: Api, name: str) -> Entity:
        what = f"model {printable(name)!r}"
        found = self._find(api, "/registered_model", {"name": name}, what)
        if found is None:
            # Of all models, of which there may be many, only the names are kept.
            names = set()
            same = []
            for model in api.list("/registered_models", what=what):
                names.add(model["name"])
                same += [model] if model["name"] == name else []
            found = _only(same, name, f"registry {printable(self.name)} has", "models")
            if found is None:
                raise NoSuchModel(f"registry {printable(self.name)} has no {what}", hint=suggest(name, names))
        if not _is_live(found):
            raise NotFound(
                f"{what} is {_state(found)} in registry {printable(self.name)}",
                hint="restore it there to deliver it",
            )
        return found

    def _find(self, api: Api, path: str, query: Mapping[str, str], what: str) -> Entity | None:
        """What the API finds by name.  None does not say that there is none, nor 404: it may be that there are several."""
        if not _FINDABLE.fullmatch(query["name"]):
            return None
        try:
            found = entity(api.get(path, query, what=what), what)
        except NotFound:
            return None
        # A database may take Iris for iris.
        return found if found["name"] == query["name"] else None

    def _versions(self, api: Api, model: Entity) -> list[Entity]:
        """All versions, the newest first."""
        path = f"/registered_models/{identifier(model)}/versions"
        what = f"the versions of {printable(model['name'])!r}"
        return sorted(api.list(path, what=what), key=number, reverse=True)

    def _named(self, api: Api, model: Entity, reference: Reference) -> tuple[Entity, str]:
        """The version that has the name or the alias, which must be live, and why it is the one."""
        versions: list[Entity] = []
        name, why = reference.version, "asked for by its name"
        if reference.alias:
            name = _told(model, f"alias.{reference.alias}")
            why = f"the alias {reference.alias} names it"
        if not name:
            versions = self._versions(api, model)
            name = _carrier(model, versions, reference.alias)
        shown = f"version {printable(name)!r} of {printable(model['name'])!r}"
        query = {"name": name, "parentResourceId": identifier(model)}
        found = self._find(api, "/model_version", query, shown)
        if found is None or text(found, "registeredModelId") not in ("", identifier(model)):
            versions = versions or self._versions(api, model)
            found = _only(versions, name, f"model {printable(model['name'])!r} has", "versions")
        if found is None:
            raise NotFound(
                f"model {printable(model['name'])!r} has no version {printable(name)!r}",
                hint=suggest(name, (version["name"] for version in versions)),
            )
        if not _is_live(found):
            hint = f"restore it to deliver it; {SCHEME}://{_quoted(model['name'])} is the newest that is live"
            raise NotFound(f"{shown} is {_state(found)}", hint=hint)
        return found, why

    def _newest(self, api: Api, model: Entity, reference: Reference) -> tuple[Entity, Entity, list[tuple[str, str]]]:
        """The newest live version that has the artifact, and what was thought of the others."""
        considered: list[tuple[str, str]] = []
        tried = 0
        for version in self._versions(api, model):
            if not _is_live(version):
                considered.append((version["name"], f"it is {_state(version)}"))
                continue
            tried += 1
            if tried > _MOST_TRIED:
                break
            try:
                artifact = self._artifact(api, model, version, reference)
            except NotFound as error:
                # Perhaps its upload is under way, or it was deleted since it was listed.
                considered.append((version["name"], error.message.removeprefix(f"{_where(model, version)} ")))
                continue
            considered.append((version["name"], "the newest live version with a usable artifact"))
            return version, artifact, considered
        looked = f" among its {_MOST_TRIED} newest" if tried > _MOST_TRIED else ""
        raise NotFound(
            f"model {printable(model['name'])!r} has no live version with a usable artifact{looked}",
            hint="; ".join(f"{printable(name)}: {why}" for name, why in considered[:3]),
        )

    def _artifact(self, api: Api, model: Entity, version: Entity, reference: Reference) -> Entity:
        # Without the type, documents, data sets and metrics come along.
        query = {"artifactType": "model-artifact"}
        what = f"the artifacts of {_where(model, version)}"
        found = api.list(f"/model_versions/{identifier(version)}/artifacts", query, what=what, named=False)
        return choose(list(found), reference.artifact, _where(model, version))


def _where(model: Entity, version: Entity) -> str:
    return f"version {printable(version['name'])!r} of {printable(model['name'])!r}"


def _state(found: Entity) -> str:
    return printable(text(found, "state") or "LIVE")


def _is_live(found: Entity) -> bool:
    return _state(found) == "LIVE"


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _only(found: list[Entity], name: str, where: str, noun: str) -> Entity | None:
    same = [one for one in found if one["name"] == name]
    if len(same) > 1:
        ids = ", ".join(identifier(one) for one in same[:5])
        raise Unsupported(f"{where} {len(same)} {noun} called {printable(name)!r} (ids {ids})")
    return same[0] if same else None


def _told(found: Entity, name: str) -> str:
    """A custom property as a text; perhaps a number: so the client writes "2" if it was given as one."""
    value = properties(found).get(name)
    return "" if value is None else str(value)


def _carrier(model: Entity, versions: list[Entity], alias: str) -> str:
    """The name of the version whose own property ``alias`` is this one: of the live ones, if any is."""
    carrying = [version for version in versions if _told(version, "alias") == alias]
    carrying = [version for version in carrying if _is_live(version)] or carrying
    if not carrying:
        known = [name.removeprefix("alias.") for name in properties(model) if name.startswith("alias.")]
        known += [_told(version, "alias") for version in versions]
        raise NotFound(
            f"model {printable(model['name'])!r} has no alias {printable(alias)!r}",
            hint=suggest(alias, filter(None, known)),
        )
    if len(carrying) > 1:
        names = ", ".join(printable(version["name"]) for version in carrying[:5])
        raise UsageError(
            f"several versions of {printable(model['name'])!r} have the alias {printable(alias)!r}: {names}",
            hint=f"set alias.{printable(alias)} of the model, which wins",
        )
    return str(carrying[0]["name"])


def _metadata(reference: Reference, model: Entity, version: Entity, artifact: Entity) -> dict[str, Any]:
    found = {
        "namespace": reference.namespace,
        "registeredModelId": identifier(model),
        "modelVersionId": identifier(version),
        "modelArtifactId": text(artifact, "id"),
        "artifact": text(artifact, "name"),
        "description": text(version, "description") or text(model, "description"),
        "owner": text(model, "owner"),
        "author": text(version, "author"),
        **facts(artifact, *_ARTIFACT_FACTS),
        "labels": labels(model, version),
        "modelProperties": properties(model),
        "versionProperties": properties(version),
        "artifactProperties": properties(artifact),
    }
    return {key: value for key, value in found.items() if value}
