"""Requests to an API server: get, list, create, replace, apply, patch, delete and watch.

https://kubernetes.io/docs/reference/using-api/api-concepts/.  Objects are plain JSON; a kind of object is a
``Resource``.  ``refused`` has the errors; ``follow`` keeps track of a resource's changes; ``leader`` elects one writer
among several.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from lading.errors import IntegrityError, Unsupported
from lading.kubernetes.refused import Expired, refusal, refusal_in_a_watch
from lading.model.origin import split_url
from lading.network.answer import Answer
from lading.network.client import HttpClient
from lading.retry import Retry
from lading.settings.kubernetes import Access
from lading.text.json_xml import read_json
from lading.text.printable import printable

Object = dict[str, Any]

FIELD_MANAGER = "lading"
# etcd accepts objects of 1.5 MiB; their JSON may be somewhat longer.
_MOST_OBJECT_BYTES = 4 << 20
_MOST_PAGE_BYTES = 8 << 20
_PAGE_OBJECTS = 100
# The server sends a bookmark each minute, and ends a watch by itself after the seconds that are asked for.
_SILENCE_S = 150.0
_WATCH_S = 290
_VERBS = {"GET": "reading", "POST": "creating", "PUT": "writing", "PATCH": "changing", "DELETE": "deleting"}
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


class Resource(NamedTuple):
    """A kind of object: ``Resource("apps/v1", "deployments", "Deployment")``."""

    api: str
    plural: str
    kind: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of the objects, or of one; without a namespace, of those in all namespaces."""
        parts = ["apis" if "/" in self.api else "api", self.api]
        parts += ["namespaces", quote(namespace, safe="")] if namespace else []
        parts += [self.plural, quote(name, safe=""), subresource]
        return "/" + "/".join(filter(None, parts))

    def shown(self, namespace: str, name: str = "") -> str:
        """What is asked for, in messages: ``inferenceservices team-a/iris``, or all those ``of team-a``."""
        which = "/".join(filter(None, (namespace, name))) if name else f"of {namespace}" if namespace else ""
        return printable(f"{self.plural} {which}".rstrip())


class Page(NamedTuple):
    """A page of a list, and the version of the whole list."""

    objects: list[Object]
    version: str


class Change(NamedTuple):
    """An event of a watch: ``ADDED``, ``MODIFIED``, ``DELETED``, or ``BOOKMARK``, whose object has only a version."""

    kind: str
    object: Object

    @property
    def version(self) -> str:
        return str(self.object["metadata"]["resourceVersion"])


class ApiServer:
    """A client of one API server, safe from any thread.

    The HTTP client retries every request but a watch, also writes: a second apply changes nothing, and a second create
    or replace is a ``Conflict``.  ``manager`` is the field manager of all writes.
    """

    def __init__(self, access: Access, http: HttpClient, *, manager: str = FIELD_MANAGER) -> None:
        self.namespace = access.namespace
        self.http = http.reaching(access.network)
        self._access = access
        self._manager = {"fieldManager": manager}
        patient = Retry(http.retry.run, attempts=sys.maxsize)
        self._patient = http.reaching(access.network, http.limits._replace(stall_s=_SILENCE_S), patient)

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        """Read an object; ``Missing`` if there is none."""
        return self._ask("GET", resource, namespace, name)

    def list_all(self, resource: Resource, namespace: str = "", *, labels: str = "") -> list[Object]:
        """Read all objects; ``labels`` is a selector."""
        try:
            return [each for page in self.pages(resource, namespace, labels=labels) for each in page.objects]
        except Expired:
            return [each for page in self.pages(resource, namespace, labels=labels) for each in page.objects]

    def pages(
        self, resource: Resource, namespace: str = "", *, labels: str = "", patiently: bool = False
    ) -> Iterator[Page]:
        """Read all objects, in pages; ``Expired`` if it takes so long that the server forgets the list's version.

        With ``patiently``, it waits for an unavailable server until the run ends.
        """
        following, most = "", _PAGE_OBJECTS
        while True:
            query = {"limit": str(most), "continue": following, "labelSelector": labels}
            try:
                found = self._ask(
                    "GET", resource, namespace, query=query, limit_bytes=_MOST_PAGE_BYTES, patiently=patiently
                )
            except IntegrityError:
                # Objects may be large, perhaps on purpose: one must not hide the others.
                if most == 1:
                    raise
                most = max(1, most // 8)
                continue
            page, following = _page(found, resource)
            yield page
            if not following:
                return

    def create(self, resource: Resource, thing: Object) -> Object:
        """Create an object; ``Conflict`` if it exists already."""
        return self._ask("POST", resource, _place(thing)[0], body=thing, query=self._manager)

    def replace(self, resource: Resource, thing: Object) -> Object:
        """Replace a whole object; ``Conflict`` if it has changed since ``thing`` was read."""
        return self._ask("PUT", resource, *_place(thing), body=thing, query=self._manager)

    def patch(self, resource: Resource, found: Object, change: Object, *, subresource: str = "") -> Object:
        """Merge ``change`` into the object that was ``found`` (RFC 7396): None removes a field.

        With a ``resourceVersion`` in the metadata of ``change``, ``Conflict`` if the object has another version.
        """
        place = (*_place(found), subresource)
        return self._ask("PATCH", resource, *place, body=change, query=self._manager, kind=_MERGE)

    def apply(self, resource: Resource, found: Object, fields: Object, *, subresource: str = "") -> Object:
        """Own exactly ``fields`` of the object that was ``found``, and set them (server-side apply, without force).

        ``Conflict`` names the managers who own one of the fields with another value.  An object that was deleted or
        created again since is a ``Conflict``, too, and is not created: the uid says which one is meant.  Without a uid
        in ``found``, the object is created if there is none with this name.
        """
        about = {key: found["metadata"][key] for key in ("name", "namespace", "uid") if key in found["metadata"]}
        about |= fields.get("metadata", {})
        body = {**fields, "apiVersion": resource.api, "kind": resource.kind, "metadata": about}
        query = {**self._manager, "fieldValidation": "Strict"}
        return self._ask("PATCH", resource, *_place(found), subresource, body=body, query=query, kind=_APPLY)

    def delete(self, resource: Resource, found: Object) -> None:
        """Delete the object that was ``found``; ``Conflict`` if it was created again since, ``Missing`` if it is gone."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": found["metadata"]["uid"]}}
        self._ask("DELETE", resource, *_place(found), body=body)

    def watch(
        self, resource: Resource, namespace: str, version: str, told: Callable[[Change], None], *, labels: str = ""
    ) -> None:
        """Pass on every change since ``version``, until the server ends the watch after some minutes.

        ``Expired`` if the server no longer knows that version.  ``Stalled`` if the connection is silent for longer
        than the time between two bookmarks: then it is dead.
        """
        what = f"watching {resource.shown(namespace)}"
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "labelSelector": labels}
        url = self._url(resource.path(namespace), query | {"timeoutSeconds": str(_WATCH_S)})
        with self._patient.open("GET", url, self._headers(), redirects=0) as answer:
            if answer.head.status != HTTPStatus.OK:
                raise refusal(answer.head, answer.error_body(), what)
            answer.read_into(_Lines(what, lambda line: told(_change(line, what))))

    def _ask(
        self,
        method: str,
        resource: Resource,
        namespace: str = "",
        name: str = "",
        subresource: str = "",
        *,
        query: Mapping[str, str] = MappingProxyType({}),
        body: Object | None = None,
        kind: str = _JSON,
        limit_bytes: int = _MOST_OBJECT_BYTES,
        patiently: bool = False,
    ) -> Object:
        what = f"{_VERBS[method]} {resource.shown(namespace, name)}"
        url = self._url(resource.path(namespace, name, subresource), query)
        data = b"" if body is None else json.dumps(body).encode()
        typed = [("Content-Type", kind)] if data else []

        def judge(answer: Answer) -> Object:
            if answer.head.status not in (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED):
                raise refusal(answer.head, answer.error_body(), what)
            return _object(answer.read(limit_bytes), what)

        http = self._patient if patiently else self.http
        # The token is read again for each attempt: the kubelet rotates it.
        return http.ask(lambda: http.open(method, url, self._headers(*typed), body=data, redirects=0), judge, what=what)

    def _url(self, path: str, query: Mapping[str, str]) -> str:
        return f"{self._access.server}{path}?{urlencode({name: text for name, text in query.items() if text})}"

    def _headers(self, *others: tuple[str, str]) -> list[tuple[str, str]]:
        token = self._access.bearer()
        if token is None:
            return [("Accept", _JSON), *others]
        split_url(self._access.server)[0].refuse_in_clear("the API server's token")
        return [("Accept", _JSON), *others, ("Authorization", f"Bearer {token.reveal()}")]


def _page(found: Object, resource: Resource) -> tuple[Page, str]:
    """The page, and the server's token for the next one; "" for the last."""
    # Objects in a list do not have their own apiVersion and kind.
    kind = {"apiVersion": resource.api, "kind": resource.kind}
    try:
        about = found["metadata"]
        return Page([kind | each for each in found.get("items") or ()], about["resourceVersion"]), about.get(
            "continue", ""
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Unsupported(
            f"reading {resource.plural}: the answer is not a list", hint="is this an API server of Kubernetes?"
        ) from error


def _place(thing: Object) -> tuple[str, str]:
    about = thing["metadata"]
    return about.get("namespace", ""), about["name"]


class _Lines:
    """Splits the pieces of a body into lines, and passes on each line."""

    def __init__(self, what: str, take: Callable[[bytes], None]) -> None:
        self._what = what
        self._take = take
        self._held = bytearray()

    def __call__(self, piece: memoryview) -> None:
        *lines, rest = bytes(piece).split(b"\n")
        for line in lines:
            self._held += line
            whole, self._held = bytes(self._held), bytearray()
            if whole.strip():
                self._take(whole)
        self._held += rest
        if len(self._held) > _MOST_OBJECT_BYTES:
            raise IntegrityError(f"{self._what}: a line has more than {_MOST_OBJECT_BYTES} bytes")


def _change(line: bytes, what: str) -> Change:
    event = _object(line, what)
    if event.get("type") == "ERROR":
        raise refusal_in_a_watch(event.get("object"), what)
    try:
        change = Change(event["type"], event["object"])
        change.version  # noqa: B018 - raises KeyError if it is missing
    except (KeyError, TypeError) as error:
        raise Unsupported(f"{what}: the API server sends no event of a watch") from error
    return change


def _object(text: bytes, what: str) -> Object:
    try:
        thing = read_json(text)
    except ValueError as error:
        raise Unsupported(f"{what}: the answer is not JSON", hint="is this an API server of Kubernetes?") from error
    if not isinstance(thing, dict):
        raise Unsupported(f"{what}: the answer is not an object", hint="is this an API server of Kubernetes?")
    return thing
