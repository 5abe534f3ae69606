"""The ModelRollouts that name a service, each with its policy and that service."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lading.controller.service import KINDS
from lading.errors import lading_error
from lading.kubernetes.api_server import Object
from lading.kubernetes.follow import Key
from lading.rollout.in_spec import age, read_policy, read_target
from lading.rollout.policy import Policy

FindService = Callable[[str, Key], Object | None]


class Managed(NamedTuple):
    """A rollout and the service that it manages.

    ``service`` is None if there is none.  ``channels`` are the URIs that it follows, one for each of its models.
    ``rival`` is the name of an older rollout for the same service, or "".  ``invalid`` is why the spec cannot be
    followed, or ""; ``policy`` is then perhaps the default one.
    """

    key: Key
    rollout: Object
    kind: str
    service_key: Key
    service: Object | None
    rival: str
    channels: tuple[str, ...]
    policy: Policy
    invalid: str

    @property
    def shown(self) -> str:
        return self.key.shown

    @property
    def uid(self) -> str:
        return str(self.rollout["metadata"]["uid"])

    @property
    def asks(self) -> bool:
        """Whether the rollout needs the answer for its channel."""
        return bool(self.channels) and not self.rival and self.rollout["spec"].get("update") != "Off"

    @property
    def lacks(self) -> str:
        """Why the rollout has no service to manage, or ""."""
        name = f"{self.kind} {self.service_key.name}"
        if self.rival:
            return f"the ModelRollout {self.rival}, which is older, looks after {name}"
        if self.service is None:
            return f"there is no {name} here"
        return "" if self.channels else f"{name} has no model with a URI"


def read_managed(
    rollouts: Mapping[Key, Object], find: FindService, before: Mapping[Key, Managed]
) -> dict[Key, Managed]:
    """The rollouts that name a service, from the oldest on: of several for one service, the oldest manages it.

    One of ``before`` is taken as it is if its objects are still the same.
    """
    found: dict[Key, Managed] = {}
    oldest: dict[tuple[str, Key], str] = {}
    for key, rollout in sorted(rollouts.items(), key=age):
        if "targetRef" not in rollout["spec"]:
            continue
        kind, name = read_target(rollout["spec"])
        target = Key(key.namespace, name)
        first = oldest.setdefault((kind, target), key.name)
        rival, service, was = first if first != key.name else "", find(kind, target), before.get(key)
        if was and was.rollout is rollout and was.service is service and was.rival == rival:
            found[key] = was
        else:
            found[key] = _read(key, rollout, kind, target, service, rival)
    return found


def _read(key: Key, rollout: Object, kind: str, target: Key, service: Object | None, rival: str) -> Managed:
    channels = KINDS[kind].followed(service) if service else ()
    try:
        policy = read_policy(rollout["spec"])
        invalid = _unlike(policy, channels)
    except Exception as error:  # noqa: BLE001 - one rollout's defect must not end all others
        policy, invalid = Policy(), lading_error(error).message
    return Managed(key, rollout, kind, target, service, rival, channels, policy, invalid)


def _unlike(policy: Policy, channels: Sequence[str]) -> str:
    """Why ``spec.pin`` cannot be that of the service's models, or ""."""
    if not channels or not policy.pin or len(policy.pin.parts) == len(channels):
        return ""
    return (
        f"spec.pin needs a line for each model that the service has from registries ({len(channels)}), "
        f"and has {len(policy.pin.parts)}"
    )
