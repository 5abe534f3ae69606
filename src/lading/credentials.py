"""Secrets and how long they hold.  Nothing here is printable by accident."""

from typing import NamedTuple


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
    """What signs an AWS request.  ``kind`` names the provider, ``expires_at_s`` is Unix time."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None
    kind: str
    expires_at_s: float | None = None
