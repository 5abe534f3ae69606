"""The state of a rollout that selects services by their labels: that of all of its services together."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from lading.rollout.state import Phase, State
from lading.text.units import count

T = TypeVar("T")

# What needs a person comes first, then what is under way, then what waits.
ORDER: tuple[Phase, ...] = (
    *("Invalid", "Blocked", "RolledBack", "NoTarget"),
    *("Unresolved", "Canary", "Paused", "Rolling", "Idle"),
    *("AwaitingApproval", "NotAllowed", "Available", "WindowClosed", "Held", "Queued"),
    *("Off", "Frozen", "Current"),
)


def together(states: Mapping[str, State], before: State, now_s: float) -> State:
    """The state of all services together, from the state of each by its name.

    The phase is that of the service which needs the most attention.  Channel and versions are those in which all agree.
    """
    if not states:
        return State(phase=before.phase, since_s=before.since_s).now("NoTarget", now_s, "no service has these labels")
    candidates = [state for state in states.values() if state.candidate]
    candidate = _common(state.candidate for state in candidates)
    worst = min(sorted(states), key=lambda name: ORDER.index(states[name].phase))
    summed = State(
        channel=_common(state.channel for state in states.values()) or "",
        current=_common(state.current for state in states.values()),
        candidate=candidate,
        seen_s=min(state.seen_s for state in candidates) if candidate else 0.0,
        phase=before.phase,
        since_s=before.since_s,
        unresolved=next((state.unresolved for state in states.values() if state.unresolved), ""),
    )
    return summed.now(states[worst].phase, now_s, _why(states, worst))


def _why(states: Mapping[str, State], worst: str) -> str:
    """How many services are in which phase, and what the one says that needs the most attention."""
    phases = Counter(state.phase for state in states.values())
    told = ", ".join(f"{phases[phase]} {phase}" for phase in ORDER if phases[phase])
    why = states[worst].why
    return f"{count(len(states), 'service')}: {told}" + (f"; {worst}: {why}" if why else "")


def _common(values: Iterable[T]) -> T | None:
    """The value, if there is only one."""
    different = set(values)
    return different.pop() if len(different) == 1 else None
