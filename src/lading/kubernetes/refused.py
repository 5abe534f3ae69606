"""What an API server refuses, as errors with its own message.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from lading.errors import LadingError, NotFound, OriginChanged, UsageError
from lading.network.answer import status_error
from lading.network.wire import Head
from lading.text.json_xml import read_json
from lading.text.printable import printable

_MOST_SAID = 1000
_HINTS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "the token or the certificate is missing, wrong or expired",
    HTTPStatus.FORBIDDEN: "it needs a Role that allows this (kubectl auth can-i)",
}
_OWNER = re.compile('conflict with "([^"]*)"')


class Conflict(OriginChanged):
    """An object has changed since it was read, exists already, or ``managers`` own fields that were to be applied."""

    managers: tuple[str, ...] = ()


class Expired(OriginChanged):
    """The server no longer knows this version of a list (410): it must be listed again."""


class Missing(NotFound):
    """The server has answered that there is no such object or resource; a server without an address is no answer."""


def refusal(head: Head, body: bytes, what: str) -> LadingError:
    """The error for a response without success."""
    return _error(head, _status(body), what)


def refusal_in_a_watch(status: object, what: str) -> LadingError:
    """The error for the Status that ends a watch."""
    status = status if isinstance(status, dict) else {}
    code = status.get("code")
    return _error(Head(code if isinstance(code, int) else HTTPStatus.INTERNAL_SERVER_ERROR, {}), status, what)


def _status(body: bytes) -> Mapping[str, Any]:
    """The Status object in an error's body; empty if the body has none, as from a proxy."""
    try:
        status = read_json(body)
    except ValueError:
        return {}
    return status if isinstance(status, dict) and status.get("kind") == "Status" else {}


def _error(head: Head, status: Mapping[str, Any], what: str) -> LadingError:
    said = printable(str(status.get("message") or ""))[:_MOST_SAID]
    message = f"{what}: {said}" if said else ""
    # Applying to an object that was created again is "invalid", since the uid may not change.
    if head.status == HTTPStatus.CONFLICT or any(cause.get("field") == "metadata.uid" for cause in _causes(status)):
        conflict = Conflict(message or f"{what}: it is not as it was read")
        conflict.managers = tuple(_owners(status))
        return conflict
    if head.status == HTTPStatus.GONE:
        return Expired(message or f"{what}: this version is no longer known")
    if head.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY):
        return UsageError(message or f"{what}: the API server does not accept it")
    error = status_error(head, what).rephrased(message=message, hint=_HINTS.get(head.status, ""))
    return Missing(error.message) if head.status == HTTPStatus.NOT_FOUND else error


def _owners(status: Mapping[str, Any]) -> Iterator[str]:
    """The managers of the fields in conflict; the response names them only in these messages."""
    for cause in _causes(status):
        if cause.get("reason") == "FieldManagerConflict" and (match := _OWNER.match(cause.get("message") or "")):
            yield printable(match[1])


def _causes(status: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return (status.get("details") or {}).get("causes") or ()
