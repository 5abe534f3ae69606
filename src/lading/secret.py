"""Secrets and how long they hold.  Nothing here is printable by accident."""

import base64
from typing import NamedTuple

from lading.errors import Unsupported
from lading.text.printable import printable


class Secret:
    """A string that prints as ``***``; ``reveal`` is the only way to its value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __str__(self) -> str:
        return "***"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Token(NamedTuple):
    """A bearer token.  ``kind`` names who gave it, ``expires_at_s`` is Unix time (None: for ever)."""

    value: Secret
    kind: str
    expires_at_s: float | None = None


class AwsKeys(NamedTuple):
    """What signs an AWS request.  ``kind`` names the provider, ``expires_at_s`` is Unix time.

    ``session_header`` is where the session token goes.
    """

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None
    kind: str
    expires_at_s: float | None = None
    session_header: str = "X-Amz-Security-Token"


def basic(user: str, password: str) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def unix_time(text: str) -> float:
    """Parse an RFC 3339 expiry to Unix seconds; ``Unsupported`` if it is not one."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise Unsupported(f"credentials expire at {printable(text)!r}, which is not a time") from error
