"""What there is to tell of a rollout after a cycle: what differs between its state before and after."""

from typing import NamedTuple

from lading.rollout.state import Phase, State


class News(NamedTuple):
    """Something that happened, for an Event of Kubernetes; ``cause`` is why a version was rolled back."""

    reason: str
    message: str
    warning: bool = False
    cause: str = ""


_REASONS: dict[Phase, tuple[str, str]] = {
    "Invalid": ("PolicyRefused", "{why}"),
    "Canary": ("CanaryStep", "{candidate} gets {percent} % of the requests"),
    "Paused": ("CanaryPaused", "{candidate} is served: {why}"),
    "Available": ("ModelVersionFound", "the channel names {candidate}"),
    "NotAllowed": ("ModelNotAllowed", "{why}"),
    "AwaitingApproval": ("ModelAwaitsApproval", "{candidate} waits for approval: {why}"),
    "Held": ("ModelHeld", "the channel names {candidate}, which is held"),
    "WindowClosed": ("ModelWaits", "{candidate} waits for the window to open"),
    "Rolling": ("RolloutStarted", "{candidate} is rolled out"),
    "RolledBack": ("RolledBack", "{candidate} was rolled back to {current}: {why}"),
    "Blocked": ("TargetConflict", "{why}"),
}
_AGAIN = ("ModelQuarantined", "{candidate} was rolled back before, and is not tried again yet: {why}")
_RESULTS = {
    "Pinned": "is pinned",
    "Adopted": "is what the service has: nothing is written before its first change",
    "Succeeded": "is served by all pods",
    "Withdrawn": "is taken back, since the channel names the version before again",
}


def news(before: State, after: State) -> tuple[News, ...]:
    """What is to be told after a cycle, each once."""
    found = []
    if after.unresolved and not before.unresolved:
        found.append(News("RegistryUnreachable", after.unresolved, warning=True))
    if after.history[:1] != before.history[:1] and after.history and after.phase != "RolledBack":
        last = after.history[0]
        found.append(News(f"Rollout{last.result}", f"{last.version} {_RESULTS[last.result]}"))
    if after.phase in _REASONS and _moment(after) != _moment(before):
        again = after.phase == "RolledBack" and after.history == before.history
        reason, text = _AGAIN if again else _REASONS[after.phase]
        percent = after.canary.percent if after.canary else 0
        message = text.format(candidate=after.candidate, current=after.current, why=after.why, percent=percent)
        found.append(News(reason, message, warning=after.is_stalled, cause=after.cause))
    return tuple(found)


def _moment(state: State) -> tuple[object, ...]:
    """What a report is made of once; a canary that begins to serve again has reached its step before."""
    step, _, reached_s = state.canary or (0, 0, 0.0)
    return ("Paused" if state.is_canary and reached_s else state.phase), state.candidate, step
