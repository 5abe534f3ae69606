"""What happened, as frozen values.  Core code tells a listener; logs and progress bars listen."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """The root of all events."""


@dataclass(frozen=True, slots=True)
class Resolved(Event):
    """A name became an exact source URI (both redacted)."""

    requested: str
    resolved: str
    registry: str
    version: str


@dataclass(frozen=True, slots=True)
class Listed(Event):
    """The source told its files."""

    uri: str
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class AlreadyDelivered(Event):
    """The destination holds exactly what was asked for; nothing is fetched."""

    destination: str


@dataclass(frozen=True, slots=True)
class Waiting(Event):
    """Another process delivers into the same destination."""

    destination: str


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """Verified bytes of an earlier attempt are used again."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """How far the transfer is; sent several times a second."""

    done_bytes: int
    total_bytes: int
    done_files: int
    total_files: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Retried(Event):
    """An attempt failed and will be made again."""

    what: str
    why: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class Unverified(Event):
    """Files nobody vouches for: the origin declared no digest for them."""

    files: int
    example: str


@dataclass(frozen=True, slots=True)
class Unpacking(Event):
    """An archive becomes a tree."""

    name: str


@dataclass(frozen=True, slots=True)
class Delivered(Event):
    """The model is in place."""

    destination: str
    files: int
    size_bytes: int
    seconds: float
    digest: str


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener for callers that do not want to know."""
