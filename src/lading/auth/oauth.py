"""OAuth 2.0 access tokens: one request to a token endpoint (RFC 6749, RFC 7523, RFC 8693)."""

import hashlib
import json
import math
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from lading.errors import NotAllowed, Unsupported, UsageError
from lading.network.answer import status_error
from lading.network.client import HttpClient
from lading.secret import Secret, Token
from lading.text.json_xml import read_json
from lading.text.printable import printable

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
        raise status_error(head, what, quoted=False)
    return parse_token(body, kind=kind, what=what)


def parse_token(body: bytes, *, kind: str, what: str) -> Token:
    """The token in a successful answer (RFC 6749, 5.1); ``expires_in`` may be a text, and may be missing."""
    answer = _parsed(body)
    value, lasts_s = answer.get("access_token"), answer.get("expires_in")
    try:
        expires_at_s = None if lasts_s is None else time.time() + float(lasts_s)
        if expires_at_s is not None and not math.isfinite(expires_at_s):
            raise ValueError(lasts_s)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unsupported(f"{what} gives a token whose lifetime is not a number of seconds") from error
    if not isinstance(value, str) or not value:
        raise Unsupported(f"{what} does not answer with an access token")
    return Token(Secret(value), kind, expires_at_s)


def signed_jwt(claims: Mapping[str, Any], private_key: str, *, key_id: str = "") -> str:
    """``claims``, signed with RS256 (RFC 7519, RFC 7518, 3.3); ``private_key`` is PEM text."""
    # 12 MB and 50 ms to load: only for those who sign.
    from awscrt.crypto import RSA, RSASignatureAlgorithm

    header = {"alg": "RS256", "typ": "JWT"} | ({"kid": key_id} if key_id else {})
    text = b".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
    try:
        key = RSA.new_private_key_from_pem_data(private_key)
        signature = key.sign(RSASignatureAlgorithm.PKCS1_5_SHA256, hashlib.sha256(text).digest())
    except RuntimeError as error:
        raise UsageError("the private key is not an RSA key in PEM", hint="is it whole, with its line ends?") from error
    return b".".join((text, _base64url(signature))).decode()


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        answer = read_json(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
