"""Requests to an API server: get, list, create, replace, apply, patch and watch, and what its answers mean.

https://kubernetes.io/docs/reference/using-api/api-concepts/.  Objects are JSON as the server has it; a kind of them is a
``Resource``.  Following one as it changes is ``follow``, one writer among several ``leader``.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from lading.errors import IntegrityError, LadingError, OriginChanged, Unsupported, UsageError
from lading.model.origin import split_url
from lading.network.answer import Answer, status_error
from lading.network.client import HttpClient
from lading.network.wire import Head
from lading.retry import Retry
from lading.settings.kubernetes import Access
from lading.text.json_xml import read_json
from lading.text.printable import printable

Object = dict[str, Any]

FIELD_MANAGER = "lading"
# etcd takes objects of 1.5 MiB; JSON may be somewhat longer than what it keeps.
_MOST_OBJECT_BYTES = 4 << 20
_MOST_PAGE_BYTES = 8 << 20
_PAGE_OBJECTS = 100
_MOST_SAID = 1000
# The server sends a bookmark each minute, and ends a watch by itself after the seconds that are asked for.
_SILENCE_S = 150.0
_WATCH_S = 290
_VERBS = {"GET": "reading", "POST": "creating", "PUT": "writing", "PATCH": "changing"}
_HINTS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "the token or the certificate is missing, wrong or expired",
    HTTPStatus.FORBIDDEN: "it needs a Role that allows this (kubectl auth can-i)",
}
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_OWNER = re.compile('conflict with "([^"]*)"')


class Resource(NamedTuple):
    """A kind of objects: ``Resource("apps/v1", "deployments", "Deployment")``."""

    api: str
    plural: str
    kind: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Where the objects are, or one of them; without a namespace, in all of them."""
        parts = ["apis" if "/" in self.api else "api", self.api]
        parts += ["namespaces", quote(namespace, safe="")] if namespace else []
        parts += [self.plural, quote(name, safe=""), subresource]
        return "/" + "/".join(filter(None, parts))

    def shown(self, namespace: str, name: str = "") -> str:
        """An object as messages call it: ``inferenceservices team-a/iris``."""
        return printable(f"{self.plural} {'/'.join(filter(None, (namespace, name)))}".rstrip())


class Conflict(OriginChanged):
    """An object is not as it was read, is there already, or ``managers`` own what was to be applied."""

    managers: tuple[str, ...] = ()


class Expired(OriginChanged):
    """The server no longer knows this version of a list (410): it must be listed anew."""


class Page(NamedTuple):
    """Some objects of a list, and the version of all of it."""

    objects: list[Object]
    version: str


class Change(NamedTuple):
    """An event of a watch: ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``, whose object has a version alone."""

    kind: str
    object: Object

    @property
    def version(self) -> str:
        return str(self.object["metadata"]["resourceVersion"])


class ApiServer:
    """One API server, from any thread.

    Every request but a watch is repeated as the client of HTTP says, also one that writes: a second apply changes
    nothing, and a second create or replace is a ``Conflict``.  ``manager`` is who writes: the server keeps it for each field.
    """

    def __init__(self, access: Access, http: HttpClient, *, manager: str = FIELD_MANAGER) -> None:
        self.namespace = access.namespace
        self.http = http.reaching(access.network)
        self._access = access
        self._manager = {"fieldManager": manager}
        patient = Retry(http.retry.run, attempts=sys.maxsize)
        self._patient = http.reaching(access.network, http.limits._replace(stall_s=_SILENCE_S), patient)

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        """The object as it is now; ``NotFound`` if there is none."""
        return self._ask("GET", resource, namespace, name)

    def list_all(self, resource: Resource, namespace: str = "", *, labels: str = "") -> list[Object]:
        """All objects there are; ``labels`` selects some of them."""
        try:
            return [each for page in self.pages(resource, namespace, labels=labels) for each in page.objects]
        except Expired:
            return [each for page in self.pages(resource, namespace, labels=labels) for each in page.objects]

    def pages(
        self, resource: Resource, namespace: str = "", *, labels: str = "", patiently: bool = False
    ) -> Iterator[Page]:
        """All objects there are, some at a time; ``Expired`` when that took so long that the server forgot the first.

        A server that is away is waited for, if ``patiently``, until the run ends.
        """
        following, most = "", _PAGE_OBJECTS
        while True:
            query = {"limit": str(most), "continue": following, "labelSelector": labels}
            try:
                found = self._ask(
                    "GET", resource, namespace, query=query, limit_bytes=_MOST_PAGE_BYTES, patiently=patiently
                )
            except IntegrityError:
                # Large objects, perhaps a stranger's, who must not keep the others from being seen.
                if most == 1:
                    raise
                most = max(1, most // 8)
                continue
            page, following = _page(found, resource)
            yield page
            if not following:
                return

    def create(self, resource: Resource, thing: Object) -> Object:
        """Make it; ``Conflict`` if it is there already."""
        return self._ask("POST", resource, _place(thing)[0], body=thing, query=self._manager)

    def replace(self, resource: Resource, thing: Object) -> Object:
        """Write all of it; ``Conflict`` if it is not the version that ``thing`` was read as."""
        return self._ask("PUT", resource, *_place(thing), body=thing, query=self._manager)

    def patch(self, resource: Resource, found: Object, change: Object, *, subresource: str = "") -> Object:
        """Merge ``change`` into the object that was ``found`` (RFC 7396): what is None in it goes.

        With a ``resourceVersion`` in the metadata of ``change``, it is a ``Conflict`` if the object is another version.
        """
        place = (*_place(found), subresource)
        return self._ask("PATCH", resource, *place, body=change, query=self._manager, kind=_MERGE)

    def apply(self, resource: Resource, found: Object, fields: Object, *, subresource: str = "") -> Object:
        """Own exactly ``fields`` of the object that was ``found``, and set them (server-side apply, without force).

        ``Conflict`` names the managers who own one of them with another value.  An object that has gone, or that
        was made anew, is a ``Conflict`` too and is not made: the uid says which one is meant.
        """
        about = {key: found["metadata"][key] for key in ("name", "namespace", "uid") if key in found["metadata"]}
        body = {"apiVersion": resource.api, "kind": resource.kind, "metadata": about, **fields}
        query = {**self._manager, "fieldValidation": "Strict"}
        return self._ask("PATCH", resource, *_place(found), subresource, body=body, query=query, kind=_APPLY)

    def watch(
        self, resource: Resource, namespace: str, version: str, told: Callable[[Change], None], *, labels: str = ""
    ) -> None:
        """Tell every change since ``version`` until the server ends it, after some minutes.

        ``Expired`` when the server no longer knows that version.  A connection that is silent for longer than the
        server's bookmarks are apart is dead: ``Stalled``.
        """
        what = f"watching {resource.shown(namespace)}"
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "labelSelector": labels}
        url = self._url(resource.path(namespace), query | {"timeoutSeconds": str(_WATCH_S)})
        with self._patient.open("GET", url, self._headers(), redirects=0) as answer:
            if answer.head.status != HTTPStatus.OK:
                raise _error(answer.head, _status(answer.error_body()), what)
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
            if answer.head.status not in (HTTPStatus.OK, HTTPStatus.CREATED):
                raise _error(answer.head, _status(answer.error_body()), what)
            return _object(answer.read(limit_bytes), what)

        http = self._patient if patiently else self.http
        # The token is read anew for each attempt: the kubelet rotates it.
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
    """The page, and what its server calls the next one; "" for the last."""
    # Those of a list do not say themselves what they are.
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
    """Takes the pieces of a body, and gives each line of it."""

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
        raise _error(*_told_in_a_watch(event.get("object")), what)
    try:
        change = Change(event["type"], event["object"])
        change.version  # noqa: B018 - one that has none is no change
    except (KeyError, TypeError) as error:
        raise Unsupported(f"{what}: the API server sends no event of a watch") from error
    return change


def _told_in_a_watch(status: object) -> tuple[Head, Object]:
    """The Status that ends a watch, as if it had been the answer."""
    status = status if isinstance(status, dict) else {}
    code = status.get("code")
    return Head(code if isinstance(code, int) else HTTPStatus.INTERNAL_SERVER_ERROR, {}), status


def _object(text: bytes, what: str) -> Object:
    try:
        thing = read_json(text)
    except ValueError as error:
        raise Unsupported(f"{what}: the answer is not JSON", hint="is this an API server of Kubernetes?") from error
    if not isinstance(thing, dict):
        raise Unsupported(f"{what}: the answer is not an object", hint="is this an API server of Kubernetes?")
    return thing


def _status(body: bytes) -> Object:
    """What an API server says went wrong; empty if it is somebody else who answers."""
    try:
        status = read_json(body)
    except ValueError:
        return {}
    return status if isinstance(status, dict) and status.get("kind") == "Status" else {}


def _error(head: Head, status: Object, what: str) -> LadingError:
    """What an answer that is no success stands for; the sentence is the server's own."""
    said = printable(str(status.get("message") or ""))[:_MOST_SAID]
    message = f"{what}: {said}" if said else ""
    # What is applied to an object that was made anew is said to be invalid: its uid may not change.
    if head.status == HTTPStatus.CONFLICT or any(cause.get("field") == "metadata.uid" for cause in _causes(status)):
        error = Conflict(message or f"{what}: it is not as it was read")
        error.managers = tuple(_owners(status))
        return error
    if head.status == HTTPStatus.GONE:
        return Expired(message or f"{what}: this version is no longer known")
    if head.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
        return UsageError(message or f"{what}: the API server does not accept it")
    return status_error(head, what).rephrased(message=message, hint=_HINTS.get(head.status, ""))


def _owners(status: Object) -> Iterator[str]:
    """The managers of the fields in question: no part of the answer but this sentence names them."""
    for cause in _causes(status):
        if cause.get("reason") == "FieldManagerConflict" and (match := _OWNER.match(cause.get("message") or "")):
            yield printable(match[1])


def _causes(status: Object) -> Sequence[Object]:
    return (status.get("details") or {}).get("causes") or ()
