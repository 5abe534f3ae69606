"""Rollouts that select services by labels: each of these services gets a ModelRollout of its own.

    ModelRollout fleet          spec.selector
    └── ModelRollout fleet.iris spec.targetRef, the other fields of fleet, and fleet as its owner

So the state of each service is in an object of its own, however many there are.  Kubernetes deletes these objects
with their owner.  Decisions only: ``controller`` applies and deletes.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lading.kubernetes.api_server import Object
from lading.kubernetes.follow import Key
from lading.kubernetes.rollouts import ROLLOUTS
from lading.rollout.in_spec import age, read_target, selected_kind, selects

# The generation of the owner's spec that a rollout has its fields from.
_GENERATION = "lading.dev/generation"


class Selection(NamedTuple):
    """What is to be done for one rollout that selects services.

    ``rollout`` is that one.  ``own`` are the rollouts of its services that there are, by the service's name; ``apply``
    are the fields of those that are missing or have an old spec; ``delete`` are those whose service is no longer
    selected.  ``taken`` are names of rollouts that are needed and belong to somebody else.
    """

    rollout: Object
    own: Mapping[str, Object]
    apply: list[Object]
    delete: list[Object]
    taken: list[str]

    @property
    def changes(self) -> object:
        """All that makes a cycle due at once."""
        names = ([each["metadata"]["name"] for each in part] for part in (self.apply, self.delete))
        return self.rollout["metadata"]["uid"], *names


def select(rollouts: Mapping[Key, Object], services: Mapping[str, Mapping[Key, Object]]) -> dict[Key, Selection]:
    """What is to be done for each rollout that selects services, by its key; ``services`` are by kind.

    A service that a rollout names by itself is left to that one.  Of two rollouts that select a service, the older one
    counts.
    """
    selecting = {key: rollout for key, rollout in sorted(rollouts.items(), key=age) if "selector" in rollout["spec"]}
    owners = {rollout["metadata"]["uid"]: key for key, rollout in selecting.items()}
    owned: dict[Key, dict[str, Object]] = {key: {} for key in selecting}
    taken: set[tuple[str, Key]] = set()
    for key, rollout in rollouts.items():
        if "targetRef" not in rollout["spec"]:
            continue
        kind, name = read_target(rollout["spec"])
        if owner := owners.get(_owner(rollout)):
            owned[owner][name] = rollout
        else:
            taken.add((kind, Key(key.namespace, name)))
    found = {}
    for key, rollout in selecting.items():
        wanted = set(_selected(key, rollout, services, taken))
        taken |= {(selected_kind(rollout["spec"]), Key(key.namespace, name)) for name in wanted}
        found[key] = _selection(rollout, wanted, owned[key], rollouts)
    return found


def _selected(
    key: Key, rollout: Object, services: Mapping[str, Mapping[Key, Object]], taken: set[tuple[str, Key]]
) -> Iterator[str]:
    kind = selected_kind(rollout["spec"])
    for service, thing in services[kind].items():
        if service.namespace == key.namespace and (kind, service) not in taken and selects(rollout["spec"], thing):
            yield service.name


def _selection(
    rollout: Object, wanted: set[str], owned: Mapping[str, Object], rollouts: Mapping[Key, Object]
) -> Selection:
    there = {name: each for name, each in owned.items() if name in wanted}
    apply, taken = [], []
    for name in sorted(wanted):
        fields = _fields(rollout, name)
        if name not in there and Key.of(fields) in rollouts:
            taken.append(fields["metadata"]["name"])
        elif name not in there or _generation(there[name]) != _generation(fields):
            apply.append(fields)
    return Selection(rollout, there, apply, [each for name, each in owned.items() if name not in wanted], taken)


def _fields(rollout: Object, service: str) -> Object:
    """The rollout of one service: metadata and spec."""
    about = rollout["metadata"]
    owner = {
        "apiVersion": ROLLOUTS.api,
        "kind": ROLLOUTS.kind,
        "name": about["name"],
        "uid": about["uid"],
        "controller": True,
    }
    spec = {name: value for name, value in rollout["spec"].items() if name != "selector"}
    return {
        "metadata": {
            "name": f"{about['name']}.{service}",
            "namespace": about["namespace"],
            "annotations": {_GENERATION: str(about.get("generation") or 0)},
            "ownerReferences": [owner],
        },
        "spec": {**spec, "targetRef": {"kind": selected_kind(rollout["spec"]), "name": service}},
    }


def _owner(rollout: Object) -> str:
    """The uid of the rollout that this one belongs to, or ""."""
    for each in rollout["metadata"].get("ownerReferences") or ():
        if each.get("kind") == ROLLOUTS.kind and each.get("controller"):
            return str(each.get("uid") or "")
    return ""


def _generation(rollout: Object) -> str:
    return str((rollout["metadata"].get("annotations") or {}).get(_GENERATION, ""))
