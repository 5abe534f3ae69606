"""As much of Kubernetes' API server as lists, watches and writes with a version, on the faulty server, for faults.

Whatever a field manager owns, what a schema refuses and who may do what is tested against the real one.
"""

import json
import re
from itertools import count
from typing import Any
from urllib.parse import parse_qs

from fakes.faulty_http import Answer, FaultyServer, Request
from lading.kubernetes.api_server import Resource

SERVICES = Resource("serving.kserve.io/v1beta1", "inferenceservices", "InferenceService")
APPLY = "application/apply-patch+yaml"
COLLECTION = "apis/serving.kserve.io/v1beta1/inferenceservices"
_PATH = re.compile(
    r"(?P<api>/api/v1|/apis/[^/]+/[^/]+)(/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(/(?P<name>[^/]+))?(/status)?"
)


class FakeApiServer:
    """Has any resource.  ``forget`` lets every version that was told before be too old; lists are cut as they ask for."""

    def __init__(self, server: FaultyServer) -> None:
        self.server = server
        self.url = server.url
        self.objects: dict[str, dict[str, Any]] = {}
        self._applied: dict[str, Any] = {}
        self._log: list[tuple[int, str, str, dict[str, Any]]] = []
        self._versions = count(1)
        self._now = 0
        self._oldest = 0
        server.routes["/api"] = self._answer

    def put(self, collection: str, name: str, namespace: str = "team-a", **fields: Any) -> dict[str, Any]:
        """Make or change an object of ``collection``: ``apis/apps/v1/deployments``."""
        path = f"/{collection}/{namespace}/{name}"
        about = {"name": name, "namespace": namespace, "uid": f"uid-of-{name}"}
        kind = "MODIFIED" if path in self.objects else "ADDED"
        return self._keep(path, kind, {**fields, "metadata": fields.get("metadata", {}) | about})

    def remove(self, collection: str, name: str, namespace: str = "team-a") -> None:
        path = f"/{collection}/{namespace}/{name}"
        self._keep(path, "DELETED", self.objects[path])
        self._applied.pop(path, None)
        del self.objects[path]

    def forget(self) -> None:
        self._log.clear()
        self._oldest = self._now

    def _keep(self, path: str, kind: str, thing: dict[str, Any]) -> dict[str, Any]:
        self._now = next(self._versions)
        thing = thing | {"metadata": thing["metadata"] | {"resourceVersion": str(self._now)}}
        self.objects[path] = thing
        self._log.append((self._now, path, kind, thing))
        return thing

    def _answer(self, request: Request) -> Answer:
        match = _PATH.fullmatch(request.path)
        if match is None:
            return refusal(404, "the server could not find the requested resource")
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        collection = f"{match['api']}/{match['plural']}"
        prefix = f"{collection}/{match['namespace']}/" if match["namespace"] else f"{collection}/"
        if match["name"]:
            return self._one(request, f"{prefix}{match['name']}")
        if request.method == "POST":
            thing = json.loads(request.body)
            return self._create(f"{prefix}{thing['metadata']['name']}", thing)
        if query.get("watch"):
            return self._watch(prefix, int(query["resourceVersion"]))
        return self._list(prefix, query)

    def _one(self, request: Request, path: str) -> Answer:
        there = self.objects.get(path)
        body = json.loads(request.body or b"{}")
        if there is None and request.headers.get("content-type") == APPLY and "uid" not in body["metadata"]:
            about = {**body["metadata"], "uid": f"uid-of-{body['metadata']['name']}", "generation": 1}
            return self._create(path, {**body, "metadata": about})
        if there is None:
            return refusal(404, f"{path} not found")
        if request.method == "GET":
            return document(there)
        if request.method == "DELETE":
            if body["preconditions"]["uid"] != there["metadata"]["uid"]:
                return refusal(409, "the UID in the precondition is another one")
            self._keep(path, "DELETED", there)
            return document(self.objects.pop(path))
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, there["metadata"]["resourceVersion"]):
            return refusal(409, "the object has been modified")
        if request.headers.get("content-type") == "application/apply-patch+yaml":
            there = without(there, self._applied.get(path, {}), body)
            self._applied[path] = {"spec": body.get("spec", {})}
        return document(self._keep(path, "MODIFIED", body if request.method == "PUT" else merged(there, body)))

    def _create(self, path: str, thing: dict[str, Any]) -> Answer:
        if path in self.objects:
            return refusal(409, f"{path} already exists")
        return document(self._keep(path, "ADDED", thing), 201)

    def _list(self, prefix: str, query: dict[str, str]) -> Answer:
        version, _, start = query.get("continue", f"{self._now}/0").partition("/")
        if int(version) < self._oldest:
            return refusal(410, "the provided continue parameter is too old")
        found = [thing for path, thing in sorted(self.objects.items()) if path.startswith(prefix)]
        end = int(start) + int(query["limit"])
        following = {"continue": f"{version}/{end}"} if end < len(found) else {}
        return document({"metadata": {"resourceVersion": version, **following}, "items": found[int(start) : end]})

    def _watch(self, prefix: str, version: int) -> Answer:
        if version < self._oldest:
            gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}
            return Answer(200, {}, lines([gone]), "chunked")
        told = [
            {"type": kind, "object": thing}
            for at, path, kind, thing in self._log
            if at > version and path.startswith(prefix)
        ]
        bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self._now)}}}
        return Answer(200, {}, lines([*told, bookmark]), "chunked")


def merged(there: Any, change: Any) -> Any:
    """RFC 7396."""
    if not isinstance(there, dict) or not isinstance(change, dict):
        return change
    both = there | {key: merged(there.get(key, {}), value) for key, value in change.items()}
    return {key: value for key, value in both.items() if value is not None}


def without(there: dict[str, Any], before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What an only manager applied before, and does not apply any more, is removed; lists are atomic."""
    kept = dict(there)
    for key, value in before.items():
        if isinstance(value, dict) and isinstance(there.get(key), dict):
            kept[key] = without(there[key], value, now.get(key, {}))
        elif key not in now:
            kept.pop(key, None)
    return kept


def document(thing: dict[str, Any], status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(thing).encode())


def refusal(status: int, message: str, **fields: Any) -> Answer:
    return document({"kind": "Status", "status": "Failure", "code": status, "message": message, **fields}, status)


def lines(events: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)
