"""What the nodes of a cluster keep in their stores, so that pods which roll find it there."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lading.errors import UsageError
from lading.model.pin import split_pin
from lading.model.uri import ModelURI
from lading.rollout.in_status import read_state
from lading.rollout.policy import FOLLOWED
from lading.rollout.state import State, Version


def wanted_on_nodes(statuses: Iterable[Mapping[str, Any]]) -> list[str]:
    """The pins of these statuses of ModelRollouts, each once: of what services have, and of what may come to them.

    A status may come from a stranger: what the controller would not ask for is left out.
    """
    versions = (version for status in statuses for version in _wanted(read_state(status)))
    pins = dict.fromkeys(part.pin for version in versions for part in version.parts)
    return [pin for pin in pins if _is_followed(pin)]


def _wanted(state: State) -> Iterator[Version]:
    if state.current:
        yield state.current
    waits = state.phase in ("AwaitingApproval", "Held", "WindowClosed", "Queued")
    if state.candidate and (waits or state.is_moving):
        yield state.candidate


def _is_followed(pin: str) -> bool:
    try:
        uri, digest = split_pin(ModelURI.parse(pin))
    except UsageError:
        return False
    return digest is not None and uri.scheme.lower() in FOLLOWED
