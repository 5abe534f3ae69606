"""Shared Key signatures for requests without a body, to Blob Storage and Azure Files alike.

Source: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key.
"""

import base64
import binascii
import hmac
from collections.abc import Sequence
from urllib.parse import unquote

from lading.errors import UsageError
from lading.secret import Secret

# Headers whose values are signed without their names, in this order; Content-Length is empty without a body.
_STANDARD = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)


def sign(
    account: str, key: Secret, *, method: str, path: str, query: str, headers: Sequence[tuple[str, str]]
) -> tuple[str, str]:
    """The ``Authorization`` header of a request; ``headers`` hold its ``x-ms-date``.

    ``key`` is base64, ``path`` percent-encoded as it is sent; ``query`` holds ``key=value`` pairs,
    percent-encoded, each key once.  ``UsageError`` when the key is not base64.
    """
    named = {name.lower(): value for name, value in headers}
    standard = "\n".join(named.get(name, "") for name in _STANDARD)
    own = "".join(f"{name}:{named[name].strip()}\n" for name in sorted(named) if name.startswith("x-ms-"))
    pairs = sorted(pair.partition("=") for pair in query.split("&") if pair)
    query = "".join(f"\n{unquote(name).lower()}:{unquote(value)}" for name, _, value in pairs)
    text = f"{method}\n{standard}\n{own}/{account}{path}{query}"
    try:
        secret = base64.b64decode(key.reveal(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError("the storage account's key is not base64", hint="copy key1 or key2 of the account") from error
    signature = base64.b64encode(hmac.digest(secret, text.encode(), "sha256")).decode()
    return ("Authorization", f"SharedKey {account}:{signature}")
