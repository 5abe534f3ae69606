"""A state as conditions of Kubernetes, for kubectl wait, Argo CD and Flux.

https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md

Ready        the service has the version that the policy wants
Reconciling  the service is changing to that version
Stalled      the change needs a person, or another version
Resolved     the last question to the channel was answered
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from lading.rollout.state import State


class Condition(NamedTuple):
    """A condition of Kubernetes; ``since_s`` (Unix time) is when its status last changed."""

    type: str
    status: Literal["True", "False"]
    reason: str
    message: str
    since_s: float


def conditions(state: State, before: Sequence[Condition], now_s: float) -> tuple[Condition, ...]:
    """The conditions of a state; a condition with an unchanged status keeps the time of its last change."""
    stalled = state.is_stalled
    wanted = (
        ("Ready", state.is_settled, state.phase, state.why),
        ("Reconciling", not (state.is_settled or stalled), state.phase, state.why),
        ("Stalled", stalled, state.cause or state.phase, state.why if stalled else ""),
        ("Resolved", not state.unresolved, "Unreachable" if state.unresolved else "Resolved", state.unresolved),
    )
    known = {each.type: each for each in before}
    return tuple(_condition(known.get(type_), type_, holds, reason, why, now_s) for type_, holds, reason, why in wanted)


def _condition(before: Condition | None, type_: str, holds: bool, reason: str, why: str, now_s: float) -> Condition:
    status: Literal["True", "False"] = "True" if holds else "False"
    since_s = before.since_s if before and before.status == status else now_s
    return Condition(type_, status, reason, why, since_s)
