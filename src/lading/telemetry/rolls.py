"""Traces of rollouts: one for each attempt to roll out a version, from when its channel named it until it was judged.

    rollout
    ├── hold, window, approval, …   it waited, by the phases of the rollout
    ├── write                       its pin could not be written at once
    ├── canary, pause               pods of its own began to serve it, and did, with the number of the canary's step
    ├── judge                       its pods started, and were judged
    └── idle                        there was no pod

The times are those of the states.  A process that takes over begins with the present phase.
"""

from collections.abc import Iterator
from typing import NamedTuple

from lading.rollout.state import Past, Phase, State
from lading.telemetry.otlp import Send, Step
from lading.telemetry.trace import as_text

_NAMES: dict[Phase, str] = {
    "Held": "hold",
    "WindowClosed": "window",
    "AwaitingApproval": "approval",
    "Queued": "queue",
    "RolledBack": "quarantine",
    "Paused": "pause",
    "Rolling": "judge",
}
_NO_ERROR = ("", "")


class _Trail(NamedTuple):
    """The steps of a candidate that have ended; the first one began at ``begun_ns``."""

    begun_ns: int
    steps: list[Step]

    @property
    def end_ns(self) -> int:
        return self.steps[-1].end_ns if self.steps else self.begun_ns


class Rolls:
    """Follows rollouts from cycle to cycle, and sends the trace of each one that has ended."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._trails: dict[str, _Trail] = {}

    def follow(self, rollout: str, before: State, after: State) -> None:
        """Take the state of this rollout before and after a cycle."""
        if before.candidate:
            trail = self._trails.setdefault(rollout, _Trail(_ns(before.since_s), []))
            past = after.history[0] if after.history[:1] != before.history[:1] else None
            if past and past.version.pin == before.candidate.pin:
                self._send(_trace(rollout, before, past, trail))
                self._trails[rollout] = _Trail(_ns(past.at_s), [])
            elif (after.phase, _step_of(after)) != (before.phase, _step_of(before)):
                trail.steps.extend(_steps(before, trail.end_ns, _ns(after.since_s)))
        if after.candidate is None:
            self._trails.pop(rollout, None)
        elif before.candidate is None or after.candidate.pin != before.candidate.pin:
            self._trails[rollout] = _Trail(_ns(after.seen_s), [])

    def keep(self, rollouts: set[str]) -> None:
        """Forget all other rollouts."""
        self._trails = {name: trail for name, trail in self._trails.items() if name in rollouts}


def _trace(rollout: str, before: State, past: Past, trail: _Trail) -> Step:
    error = ("rolled-back", as_text(past.why)) if past.result == "RolledBack" else _NO_ERROR
    steps = [*trail.steps, *_steps(before, trail.end_ns, _ns(past.at_s), error)]
    facts = {
        "lading.rollout": rollout,
        "lading.channel": before.channel,
        "lading.pin": past.version.pin,
        "lading.version": past.version.name,
        "lading.before": before.current.name or before.current.digest if before.current else "",
        "lading.result": past.result,
    }
    attributes = {name: as_text(value) for name, value in facts.items() if value}
    return Step("rollout", trail.begun_ns, steps[-1].end_ns, attributes, (), steps, *error)


def _steps(state: State, begun_ns: int, ended_ns: int, error: tuple[str, str] = _NO_ERROR) -> Iterator[Step]:
    """The steps of the phase of this state; an error is that of the last one."""
    name = _NAMES.get(state.phase, state.phase.lower())
    if state.phase == "Rolling" and _ns(state.since_s) > begun_ns:
        # That phase begins anew until the service has the pin.
        yield Step("write", begun_ns, _ns(state.since_s), {})
        begun_ns = _ns(state.since_s)
    attributes = {"lading.step": _step_of(state)} if state.is_canary else {}
    yield Step(name, begun_ns, max(ended_ns, begun_ns), attributes, (), (), *error)


def _step_of(state: State) -> int:
    return state.canary.step if state.is_canary and state.canary else 0


def _ns(unix_s: float) -> int:
    return int(unix_s * 1e9)
