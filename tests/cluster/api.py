"""The API server, asked as any client asks it; every apply is validated by the server, and its warnings are kept."""

import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from http import HTTPStatus
from http.client import HTTPSConnection
from typing import Any
from urllib.parse import urlencode

from cluster.single_node import ADDRESS, Cluster

Object = dict[str, Any]

# https://kubernetes.io/docs/reference/using-api/server-side-apply/
_APPLY = {"fieldManager": "tests", "fieldValidation": "Strict", "force": "true"}


class Refused(AssertionError):
    """The API server's own sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._tls = ssl.create_default_context(cafile=str(cluster.pki / "ca.crt"))
        self._tls.load_cert_chain(cluster.pki / "admin.crt", cluster.pki / "admin.key")
        self.resources = cache(self._resources)

    def apply(self, *things: Object, dry_run: bool = False) -> list[str]:
        """Server-side apply with strict validation; the warnings that the server gives."""
        warnings = []
        query = urlencode(_APPLY | ({"dryRun": "All"} if dry_run else {}))
        for thing in things:
            body, said = self._ask("PATCH", f"{self.path(thing)}?{query}", thing)
            assert body["metadata"]["name"] == thing["metadata"]["name"]
            warnings += said
        return warnings

    def set_status(self, thing: Object, status: Object) -> None:
        """Write the status of an object, as its controller does."""
        about = {key: thing[key] for key in ("apiVersion", "kind")}
        name = {key: thing["metadata"][key] for key in ("name", "namespace")}
        self._ask(
            "PATCH", f"{self.path(thing)}/status?{urlencode(_APPLY)}", {**about, "metadata": name, "status": status}
        )

    def get(self, kind: Object) -> Object:
        """What is there now; ``kind`` names it as an object does."""
        return self._ask("GET", self.path(kind))[0]

    def delete(self, kind: Object, **options: Any) -> None:
        """Begin to delete it; what depends on it goes, too."""
        about = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", **options}
        self._ask("DELETE", self.path(kind), about)

    def all(self, kind: Object, **query: str) -> list[Object]:
        return self._list(kind, **query)["items"]

    def post(self, path: str, body: Object) -> Object:
        return self._ask("POST", path, body)[0]

    def bearer_of(self, token: str, audience: str) -> str | None:
        """Who has this token, if it is for that audience (a TokenReview)."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        spec = {"token": token, "audiences": [audience]}
        status = self.post("/apis/authentication.k8s.io/v1/tokenreviews", {**review, "spec": spec})["status"]
        return status["user"]["username"] if status.get("authenticated") else None

    def until(self, kind: Object, is_so: Callable[[Object], object], timeout_s: float = 120) -> Object:
        """The object as it is when ``is_so`` first holds; while there is none, it is empty."""
        thing: Object = {}
        with closing(self._states(kind, time.monotonic() + timeout_s)) as states:
            for thing in states:
                if is_so(thing):
                    return thing
        raise TimeoutError(f"{kind['metadata']['name']} after {timeout_s} s: {json.dumps(thing.get('status'))}")

    def until_gone(self, kind: Object, timeout_s: float = 120) -> None:
        self.until(kind, lambda thing: not thing, timeout_s)

    def path(self, thing: Object) -> str:
        return f"{self._folder(thing)}/{thing['metadata']['name']}"

    def _folder(self, thing: Object) -> str:
        version, kind = thing["apiVersion"], thing["kind"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        plural, namespaced = self.resources(base)[kind]
        return f"{base}/namespaces/{thing['metadata']['namespace']}/{plural}" if namespaced else f"{base}/{plural}"

    def _resources(self, base: str) -> dict[str, tuple[str, bool]]:
        found = self._ask("GET", base)[0]["resources"]
        return {one["kind"]: (one["name"], one["namespaced"]) for one in found if "/" not in one["name"]}

    def _list(self, kind: Object, **query: str) -> Object:
        return self._ask("GET", f"{self._folder(kind)}?{urlencode(query)}")[0]

    def _states(self, kind: Object, until_s: float) -> Iterator[Object]:
        """The object now, and after each change."""
        one = {"fieldSelector": f"metadata.name={kind['metadata']['name']}"}
        while (left_s := until_s - time.monotonic()) > 0:
            found = self._list(kind, **one)
            yield found["items"][0] if found["items"] else {}
            version = found["metadata"]["resourceVersion"]
            query = {**one, "watch": "1", "resourceVersion": version, "timeoutSeconds": str(max(1, int(left_s)))}
            with closing(self._connect(left_s + 10)) as connection:
                connection.request("GET", f"{self._folder(kind)}?{urlencode(query)}")
                with connection.getresponse() as answer:
                    for line in answer:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            break
                        yield {} if event["type"] == "DELETED" else event["object"]

    def _ask(self, method: str, path: str, body: Object | None = None) -> tuple[Any, list[str]]:
        connection = self._connect(60)
        kind = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": kind})
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise Refused(answer.status, document["message"])
        return document, answer.headers.get_all("Warning") or []

    def _connect(self, timeout_s: float) -> HTTPSConnection:
        connection = HTTPSConnection(ADDRESS, 6443, context=self._tls, timeout=timeout_s)
        with self._cluster.within():
            connection.connect()
        return connection


def named(of: str, name: str, namespace: str = "", version: str = "v1") -> Object:
    """What names an object: ``named("Pod", "iris", "models")``."""
    return {
        "apiVersion": version,
        "kind": of,
        "metadata": {"name": name} | ({"namespace": namespace} if namespace else {}),
    }
