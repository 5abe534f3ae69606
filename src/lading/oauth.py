"""OAuth 2.0 access tokens: one request to a token endpoint (RFC 6749, RFC 7523, RFC 8693)."""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from lading.credentials import Secret, Token
from lading.errors import NotAllowed, Unsupported
from lading.http_client import HttpClient, status_error
from lading.uri import printable

_LIMIT_BYTES = 256 * 1024


def request_token(
    http: HttpClient,
    url: str,
    form: Mapping[str, str],
    *,
    kind: str,
    what: str,
    headers: Iterable[tuple[str, str]] = (),
    hint: str = "",
) -> Token:
    """The token that ``form`` is granted at ``url`` (RFC 6749, 4 and 5).

    ``kind`` names the credential in reports, ``what`` the endpoint in errors.  ``NotAllowed``, with
    ``hint``, when it is refused; no redirect is followed, since the form holds the credential.
    """
    head, body = http.fetch(
        "POST",
        url,
        [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json"), *headers],
        body=urlencode(form).encode(),
        what=what,
        limit_bytes=_LIMIT_BYTES,
        redirects=0,
    )
    if head.status in (400, 401, 403):
        # The description may quote the credential; the code is one of a fixed list (RFC 6749, 5.2).
        code = _parsed(body).get("error")
        shown = f" {printable(code)[:80]}" if isinstance(code, str) else ""
        raise NotAllowed(f"{what} refuses the {kind} credential ({head.status}{shown})", hint=hint)
    if head.status != 200:
        raise status_error(head, what)
    return parse_token(body, kind=kind, what=what)


def parse_token(body: bytes, *, kind: str, what: str) -> Token:
    """The token in a successful answer (RFC 6749, 5.1); ``expires_in`` may be a text, and may be missing."""
    answer = _parsed(body)
    value, lasts_s = answer.get("access_token"), answer.get("expires_in")
    try:
        expires_at_s = None if lasts_s is None else time.time() + float(lasts_s)
    except (TypeError, ValueError) as error:
        raise Unsupported(f"{what} gives a token without a time in which it ends") from error
    if not isinstance(value, str) or not value:
        raise Unsupported(f"{what} does not answer with an access token")
    return Token(Secret(value), kind, expires_at_s)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
