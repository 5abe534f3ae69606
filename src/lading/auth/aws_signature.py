"""AWS Signature Version 4.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html.  Why it is
not a library's: docs/adr/0001 (the light one takes 80 ms to import, two thirds of a tiny delivery).
"""

import hashlib
import hmac
import time
from collections.abc import Sequence
from functools import lru_cache

from lading.secret import AwsKeys

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
# How the names of headers begin that AWS wants signed.
_SIGNED = ("host", "content-type", "x-amz-")


def sign(
    keys: AwsKeys,
    *,
    method: str,
    host: str,
    path: str,
    query: str,
    headers: Sequence[tuple[str, str]],
    region: str,
    service: str,
    body: bytes = b"",
    at_s: float | None = None,
) -> list[tuple[str, str]]:
    """``headers`` and those that authorise the request, ``Host`` included.

    ``path`` is percent-encoded as it is sent; ``query`` holds ``key=value`` pairs, percent-encoded
    and sorted.  ``at_s`` is Unix time, now by default.  Only the headers are signed that must be: with the others,
    such as Range, a cache in between may ask the origin for pieces of its own (docs/scale.md).
    """
    moment = _moment(int(time.time() if at_s is None else at_s))
    content = hashlib.sha256(body).hexdigest() if body else _EMPTY_SHA256
    sent = [("Host", host), ("X-Amz-Date", moment), ("X-Amz-Content-Sha256", content), *headers]
    if keys.session_token is not None:
        sent.append((keys.session_header, keys.session_token.reveal()))
    lowered = [(name.lower(), value) for name, value in sent]
    canonical = sorted([(name, " ".join(value.split())) for name, value in lowered if name.startswith(_SIGNED)])
    names = ";".join([name for name, _ in canonical])
    lines = "".join([f"{name}:{value}\n" for name, value in canonical])
    request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{content}"
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    begun = _begun_hashes(keys.secret_access_key.reveal(), moment[:8], region, service)
    inner, outer = begun[0].copy(), begun[1].copy()
    inner.update(text.encode())
    outer.update(inner.digest())
    signature = outer.hexdigest()
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={keys.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return [*sent, ("Authorization", authorization)]


@lru_cache(maxsize=8)
def _moment(at_s: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at_s))


@lru_cache(maxsize=8)
def _begun_hashes(secret: str, day: str, region: str, service: str) -> "tuple[hashlib._Hash, hashlib._Hash]":
    """The inner and the outer hash of an HMAC (RFC 2104) that have seen the signing key, to be copied for each request.

    OpenSSL's own HMAC takes four times as long for so few bytes, and lets go of the interpreter lock for them.
    """
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    block = key.ljust(hashlib.sha256().block_size, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in block)), hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
