"""As much of Kubeflow's Model Registry and Model Catalog as is used, on the faulty server.

Both have an old version and ``v1``; servers have the old one, both, or at some time only v1.

The registry is checked with ``model-registry``, Kubeflow's own client, and against the schema that
Kubeflow publishes, in ``test_fake_kubeflow.py``.
"""

import base64
import json
import re
from collections.abc import Callable
from itertools import count
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from fakes.faulty_http import Answer, FaultyServer, Request

API = "/api/model_registry/v1alpha3"
V1 = "/api/model_registry/v1"
CATALOG_API = "/api/model_catalog/v1alpha1"
CATALOG_V1 = "/api/model_catalog/v1"

_ID = re.compile(r"[1-9][0-9]{0,8}")
_FINDABLE = re.compile(r"[\x20-\x7e]+")
_ARTIFACT_TYPES = ("model-artifact", "doc-artifact", "dataset-artifact", "metric", "parameter")

# Each kind of entity: its path, the field that names its parent, and what it is created with.
_KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "registered_model": ("registered_models", "", {"state": "LIVE"}),
    "model_version": ("model_versions", "registeredModelId", {"state": "LIVE"}),
    "serving_environment": ("serving_environments", "", {}),
    "inference_service": ("inference_services", "servingEnvironmentId", {"desiredState": "DEPLOYED"}),
    "artifact": ("artifacts", "modelVersionId", {"state": "UNKNOWN"}),
    "serve_model": ("serve_models", "inferenceServiceId", {"lastKnownState": "UNKNOWN"}),
}
# Lists below an entity: /{path}/{id}/{list}, and the kind that they hold.
_LISTS = {
    ("registered_models", "versions"): "model_version",
    ("model_versions", "artifacts"): "artifact",
    ("serving_environments", "inference_services"): "inference_service",
    ("inference_services", "serves"): "serve_model",
}
# What the server keeps to find an entity's parent, and does not tell.
_HIDDEN = {"artifact": "modelVersionId", "serve_model": "inferenceServiceId"}


class FakeKubeflow:
    """A registry at ``server``; ``token``, if set, is what every request must bear.

    With ``forgets``, a change takes away what it does not name, as old servers do.  ``same`` says which names a search takes for one: a database may take A for a.
    """

    def __init__(self, server: FaultyServer) -> None:
        self.server = server
        self.url = server.url
        self.token = ""
        self.most_in_a_page = 1000
        self.forgets = False
        self.same: Callable[[str, str], bool] = str.__eq__
        self.kept: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in _KINDS}
        self.catalog: dict[str, dict[str, dict[str, Any]]] = {}
        self.routed = routed_to
        self._ids = count(1)
        for root in (API, V1):
            server.routes[f"{root}/"] = self._answer
        for root in (CATALOG_API, CATALOG_V1):
            server.routes[f"{root}/"] = self._answer_catalog

    # ---- what tests set up

    def model(self, name: str, **fields: Any) -> str:
        return str(self._make("registered_model", {"name": name, **fields})["id"])

    def version(self, model: str, name: str, **fields: Any) -> str:
        return str(self._make("model_version", {"name": name, "registeredModelId": model, **fields})["id"])

    def artifact(self, version: str, uri: str, name: str = "model", **fields: Any) -> str:
        fields = {"artifactType": "model-artifact", "name": name, "uri": uri, **fields}
        return str(self._make("artifact", {**fields, "modelVersionId": version})["id"])

    def register(self, name: str, version: str, uri: str, **fields: Any) -> str:
        """A model with a version with an artifact; returns the version's id."""
        found = [kept["id"] for kept in self.kept["registered_model"].values() if kept["name"] == name]
        made = self.version(found[0] if found else self.model(name), version)
        self.artifact(made, uri, **fields)
        return made

    def publish(self, source: str, name: str, *artifacts: dict[str, Any], **fields: Any) -> None:
        """A model of the catalog."""
        model = {"name": name, "source_id": source, **fields}
        self.catalog.setdefault(source, {})[name] = {"model": model, "artifacts": list(artifacts)}

    def change(self, kind: str, entity: str, **fields: Any) -> None:
        self.kept[kind][entity].update(fields)

    # ---- the registry

    def _make(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        # In a burst, many get the same time.
        times = dict.fromkeys(("createTimeSinceEpoch", "lastUpdateTimeSinceEpoch"), "1767607200000")
        made = {**_KINDS[kind][2], **fields, "id": str(number), **times}
        self.kept[kind][made["id"]] = made
        return made

    def _answer(self, request: Request) -> Answer:
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return _error(401, "Unauthorized")
        query = {key: values[0] for key, values in parse_qs(request.query, keep_blank_values=True).items()}
        # Of artifacts, only those of models are asked for one by one.
        parts = [part.replace("model_artifact", "artifact") for part in request.path.split("/")[4:]]
        if request.method == "GET":
            return self._get(parts, query)
        try:
            document = json.loads(request.body)
        except ValueError:
            return _error(400, "malformed request")
        if request.method == "POST":
            return self._post(parts, document)
        return self._patch(parts, document)

    def _get(self, parts: list[str], query: dict[str, str]) -> Answer:
        if len(parts) == 1 and parts[0] in _KINDS:
            return self._find(parts[0], query)
        kind = _kind(parts[0])
        if kind is None:
            return Answer(404, {"Content-Type": "text/plain; charset=utf-8"}, b"404 page not found\n")
        if len(parts) == 1:
            return self._list(kind, list(self.kept[kind].values()), query)
        if not _ID.fullmatch(parts[1]):
            return _error(400, f"invalid id {parts[1]}")
        if parts[1] not in self.kept[kind]:
            return _error(404, f"no {kind} found for id {parts[1]}")
        if len(parts) == 2:
            return _json(_shown(kind, self.kept[kind][parts[1]]))
        below = _LISTS[parts[0], parts[2]]
        parent = _KINDS[below][1]
        return self._list(below, [one for one in self.kept[below].values() if one[parent] == parts[1]], query)

    def _find(self, kind: str, query: dict[str, str]) -> Answer:
        _, parent, _ = _KINDS[kind]
        if any(not _FINDABLE.fullmatch(query.get(key, "x")) for key in ("name", "externalId")):
            return _error(400, "invalid name")
        if "externalId" not in query and not ("name" in query and (not parent or "parentResourceId" in query)):
            return _error(400, "invalid parameters call, supply either (name and parentResourceId), or externalId")
        found = [
            one
            for one in self.kept[kind].values()
            if ("name" not in query or self.same(one["name"], query["name"]))
            and ("externalId" not in query or one.get("externalId") == query["externalId"])
            and (not parent or "name" not in query or one[parent] == query["parentResourceId"])
        ]
        if len(found) != 1:
            return _error(404, f"{'multiple' if found else 'no'} {kind}s found for name={query.get('name')}")
        return _json(_shown(kind, found[0]))

    def _list(self, kind: str, found: list[dict[str, Any]], query: dict[str, str]) -> Answer:
        if kind == "artifact" and "artifactType" in query:
            if query["artifactType"] not in _ARTIFACT_TYPES:
                return _error(400, "invalid artifact type")
            found = [one for one in found if one["artifactType"] == query["artifactType"]]
        return _page([_shown(kind, one) for one in _ordered(found, query)], query, self.most_in_a_page)

    def _post(self, parts: list[str], document: dict[str, Any]) -> Answer:
        kind = _LISTS[parts[0], parts[2]] if len(parts) == 3 else _kind(parts[0])
        if kind is None:
            return _error(404, "Not Found")
        fields = {key: value for key, value in document.items() if value is not None}
        _, parent, _ = _KINDS[kind]
        if len(parts) == 3:
            if parts[1] not in self.kept[_kind(parts[0]) or ""]:
                return _error(404, f"no {parts[0]} found for id {parts[1]}")
            if kind == "artifact" and fields.get("id"):
                return self._patch(["artifacts", fields["id"]], document)
            fields[parent] = parts[1]
        missing = [key for key in ("name", parent) if key and not fields.get(key) and kind != "serve_model"]
        if missing:
            return _error(422, f"required field {missing[0]} is missing")
        alike = [
            one
            for one in self.kept[kind].values()
            if one.get("name") == fields.get("name") and (not parent or one[parent] == fields[parent])
        ]
        if alike and fields.get("name"):
            return _error(409, f"{kind} with name {fields['name']} already exists")
        return _json(_shown(kind, self._make(kind, fields)), 200 if kind == "inference_service" else 201)

    def _patch(self, parts: list[str], document: dict[str, Any]) -> Answer:
        kind = _kind(parts[0])
        if kind is None or parts[1] not in self.kept[kind]:
            return _error(404, "Not Found")
        if self.forgets:
            for key in ("customProperties", "description", "runtime"):
                self.kept[kind][parts[1]].pop(key, None)
        # A map that is given replaces the old one, and one that is not leaves it.
        self.kept[kind][parts[1]].update({key: value for key, value in document.items() if value is not None})
        return _json(_shown(kind, self.kept[kind][parts[1]]))

    # ---- the catalog

    def _answer_catalog(self, request: Request) -> Answer:
        query = {key: values[0] for key, values in parse_qs(request.query, keep_blank_values=True).items()}
        if request.path.endswith("/sources"):
            return _page([{"id": source, "name": source} for source in self.catalog], query, 10)
        if request.path.endswith("/models") and "/sources/" not in request.path:
            # A list by commas, in which an id with a comma is two.
            kept = [model for source in query["source"].split(",") for model in self.catalog.get(source, {}).values()]
            return _page([model["model"] for model in kept], query, 10)
        routed = self.routed(request.path)
        if routed is None:
            return Answer(404, {"Content-Type": "text/plain; charset=utf-8"}, b"404 page not found\n")
        source, name, asks_artifacts = routed
        found = self.catalog.get(source, {}).get(name)
        if found is None:
            return _error(404, f"No model found '{name}' in source '{source}'")
        if asks_artifacts:
            listed = [one for one in found["artifacts"] if one["artifactType"] == query.get("artifactType")]
            return _page(listed if "artifactType" in query else found["artifacts"], query, 10)
        return _json(found["model"])


def routed_to(path: str) -> tuple[str, str, bool] | None:
    """Source, model, and whether its artifacts are asked for: what the catalog's Go server makes of a raw path.

    Its router (chi) matches the decoded path if encoding that once more gives the raw one, and else the raw path.
    The handler decodes the model's name, and no source, once more; it knows artifacts by the decoded path.
    """
    decoded = unquote(path)
    seen = decoded if quote(decoded, safe="/$&+,:;=@") == path else path
    match = re.search(r"/sources/([^/]+)/models/(.+)", seen, re.DOTALL)
    if match is None:
        return None
    source, name = match.groups()
    for ending in ("/artifacts", "/artifacts/performance"):
        if decoded.endswith(ending):
            return source, _unescaped(name.removesuffix(ending)), True
    return source, _unescaped(name), False


def _unescaped(text: str) -> str:
    """As Go's ``url.PathUnescape``, and as it is where that fails."""
    return text if re.search(r"%(?![0-9A-Fa-f]{2})", text) else unquote(text)


def text_property(value: str) -> dict[str, str]:
    return {"metadataType": "MetadataStringValue", "string_value": value}


def text_properties(**values: str) -> dict[str, dict[str, str]]:
    return {name: text_property(value) for name, value in values.items()}


def _kind(path: str) -> str | None:
    return next((kind for kind, (known, _, _) in _KINDS.items() if known == path), None)


def _shown(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != _HIDDEN.get(kind)}


def _ordered(found: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda one: int(one["id"]), reverse=query.get("sortOrder") == "DESC")


def _page(found: list[dict[str, Any]], query: dict[str, str], most: int) -> Answer:
    size = min(int(query.get("pageSize") or 0) or most, most)
    token = query.get("nextPageToken", "")
    start = int(base64.b64decode(token).decode().partition(":")[2]) if token else 0
    page, rest = found[start : start + size], found[start + size :]
    following = base64.b64encode(f"at:{start + size}".encode()).decode() if rest else ""
    return _json({"items": page, "size": len(page), "pageSize": size, "nextPageToken": following})


def _json(document: object, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(document).encode())


def _error(status: int, message: str) -> Answer:
    return _json({"code": str(status), "message": message}, status)
