"""The next state of a rollout, and the pin to write: a function of policy, state, what is observed, and the time.

The pin to write, and the canary beside it, follow from the state alone.  So a process may be killed between any two
steps: the next one reads the state, sees what the service carries, and goes on.

    ask       which version does the channel name?
    decide    the next state                             (here)
    keep      the state, in the ModelRollout's status
    write     pin and canary, if the service has others
    tell      events, metrics
"""

from typing import NamedTuple

from lading.rollout.health import Health, Service, health
from lading.rollout.news import News, news
from lading.rollout.policy import Policy
from lading.rollout.state import Canary, Past, Phase, Split, State, Version
from lading.rollout.verdict import Verdict
from lading.settings.ranges import in_range
from lading.text.units import duration

# The time between two cycles while pods change, here or where the rollout waits for another one.
_LOOK_S = 10.0


class Observed(NamedTuple):
    """The observed facts of one service.

    ``found`` is the version that its channel names; None if that is unknown, and ``unresolved`` says why.

    ``has`` is the version that its annotation has for the channel; ``is_locked`` says whether it has the annotation at
    all, and ``owner`` is another manager of that field, or "".  ``runs`` is the version that its pods received, if it
    is known.  ``verdict`` is what the policy's checks say of the candidate; it is asked for while ``is_up``.

    ``split`` is the service's canary, if it is lading's own; ``no_canary`` is why it can have none, and ``refused`` why
    the API server did not take it the last time, or "".  ``beside`` is how many other services of the namespace are
    changing to ``found``, or have failed with it.
    """

    channel: str
    found: Version | None
    service: Service
    has: Version | None = None
    is_locked: bool = False
    owner: str = ""
    unresolved: str = ""
    runs: Version | None = None
    verdict: Verdict = Verdict("unknown", "its checks are not asked yet")
    split: Split | None = None
    no_canary: str = ""
    refused: str = ""
    beside: int = 0

    @property
    def pin(self) -> str:
        """The pin in the annotation, or ""."""
        return self.has.pin if self.has else ""


class Decision(NamedTuple):
    """The next state, the ``pin`` to write ("" for none), what to tell, and the seconds until the next cycle."""

    state: State
    pin: str
    news: tuple[News, ...]
    wait_s: float


def decide(policy: Policy, before: State, observed: Observed, now_s: float) -> Decision:
    """Decide the next state, the pin to write, and when to look again; ``now_s`` is Unix time."""
    state = before._replace(unresolved=observed.unresolved)
    if observed.channel != state.channel:
        # Another model: the state of the one before says nothing about it.
        state = State(observed.channel, since_s=now_s, unresolved=observed.unresolved, recorded=before.recorded)
    if policy.pin:
        policy = policy._replace(pin=_as_known(policy.pin, state))
    state = _next(policy, state, observed, now_s)
    return Decision(state, _to_write(policy, state, observed), news(before, state), _wait_s(policy, state, now_s))


def _as_known(pin: Version, state: State) -> Version:
    """The version of a pin in the spec, with its name from the history; the spec has only the pin."""
    return next((past.version for past in state.history if past.version.pin == pin.pin), pin)


def _next(policy: Policy, state: State, observed: Observed, now_s: float) -> State:
    if observed.owner:
        return _left_alone(state, observed).now("Blocked", now_s, f"{observed.owner} owns the annotation with the pin")
    if policy.update == "Off":
        return _left_alone(state, observed).now("Off", now_s)
    if state.is_moving and state.candidate and state.current:
        judged = _stepped if state.is_canary else _judged
        return judged(policy, state, state.candidate, state.current, observed, now_s)
    wanted = policy.pin or observed.found
    if state.current is None:
        return _first(policy, state, wanted, observed, now_s)
    if wanted is None:
        # A registry that is unavailable changes nothing.
        return state
    if wanted.pin == state.current.pin:
        return state.seeing(None, now_s).now("Frozen" if policy.pin else "Current", now_s)
    state = state.seeing(wanted, now_s)
    state = state.now(*_why_not_now(policy, state, wanted, observed.beside, now_s))
    # A pin of the owner comes at once.
    return (
        _first_step(policy, state, observed, now_s) if state.is_rolling and policy.steps and not policy.pin else state
    )


def _left_alone(state: State, observed: Observed) -> State:
    """The state of a service that somebody else manages: the current version is that of its annotation, if any."""
    if observed.has and observed.pin != (state.current.pin if state.current else ""):
        state = state._replace(current=observed.has)
    return state.seeing(None, 0.0)


def _first(policy: Policy, state: State, wanted: Version | None, observed: Observed, now_s: float) -> State:
    """The first state of a service, or of a service with another model."""
    there = observed.has
    if observed.service.ready and not observed.is_locked:
        # To pin the version that runs would restart the pods for nothing.
        there = observed.runs or observed.found
    if there:
        adopted = Past(there, now_s, "Adopted")
        return state._replace(current=there).after(adopted, policy.keep).now("Current", now_s)
    if wanted is None:
        return state.now("Unresolved", now_s, observed.unresolved)
    if not policy.pin:
        if why := _wrong_signer(policy, wanted):
            return state.seeing(wanted, now_s).now("NotAllowed", now_s, why)
        if policy.update == "Notify":
            return state.seeing(wanted, now_s).now("Available", now_s)
    return (
        state.seeing(None, now_s)
        ._replace(current=wanted)
        .after(Past(wanted, now_s, "Pinned"), policy.keep)
        .now("Current", now_s)
    )


def _why_not_now(policy: Policy, state: State, wanted: Version, beside: int, now_s: float) -> tuple[Phase, float, str]:
    """The phase for a candidate, the time and the reason: ``Rolling`` if it is taken now, else why not."""
    refusal = state.refusal(wanted.pin)
    if refusal and now_s < refusal.until_s:
        return "RolledBack", now_s, refusal.why
    if policy.pin:
        return "Rolling", now_s, ""
    # Of several models, some may be in no registry.
    names = [part.name for part in wanted.parts if part.name] or [""]
    if policy.versions and not all(in_range(policy.versions, [name]) for name in names):
        return "NotAllowed", now_s, f"{wanted} is not in the range {policy.versions}"
    if why := _wrong_signer(policy, wanted):
        return "NotAllowed", now_s, why
    if policy.update == "Notify":
        return "Available", now_s, ""
    if policy.update == "Approve" and policy.approve != wanted.digest:
        return "AwaitingApproval", now_s, f"its digest is {wanted.digest}"
    if now_s < state.seen_s + policy.hold_s:
        return "Held", now_s, ""
    if policy.window and now_s < policy.window.opens_s(now_s):
        return "WindowClosed", now_s, ""
    if policy.max_concurrent and beside >= policy.max_concurrent:
        # No numbers: each change of the message would be written to the status of each service that waits.
        return "Queued", now_s, "as many services as maxConcurrent allows are changing to it, or have failed with it"
    return "Rolling", now_s, ""


def _wrong_signer(policy: Policy, wanted: Version) -> str:
    """Why the signer of a version is not one of those whom the policy names; "" if that is one, or it names none."""
    others = [part.signer for part in wanted.parts if part.signer not in policy.signed_by]
    if not (policy.signed_by and others):
        return ""
    return f"{wanted} is signed by {others[0] or 'nobody whom a rule of trust has found'}"


def _judged(
    policy: Policy, state: State, candidate: Version, current: Version, observed: Observed, now_s: float
) -> State:
    """The state of a candidate whose pin is written, or will be: judged by the health of its pods."""
    named = policy.pin or observed.found
    if named and named.pin == current.pin:
        return _settled(policy, state, Past(candidate, now_s, "Withdrawn", "the channel names the one before again"))
    if observed.pin != candidate.pin:
        # The service does not have the pin yet: the deadline counts from when it does.
        return state._replace(phase="Rolling", since_s=now_s)
    found = _health(policy, state, observed, candidate)
    if found.word == "serving":
        return _settled(policy, state._replace(current=candidate), Past(candidate, now_s, "Succeeded"))
    if found.word == "idle":
        return state.now("Idle", now_s, found.why)
    return _waited(policy, state.now("Rolling", now_s, found.why), candidate, found, now_s)


def _first_step(policy: Policy, state: State, observed: Observed, now_s: float) -> State:
    if observed.no_canary:
        return state.now("Invalid", now_s, f"the service can have no canary: {observed.no_canary}")
    return _at_step(policy, state, 1, now_s)


def _at_step(policy: Policy, state: State, number: int, now_s: float) -> State:
    canary = Canary(number, policy.steps[number - 1].percent)
    return state.now("Canary", now_s)._replace(since_s=now_s, canary=canary)


def _stepped(
    policy: Policy, state: State, candidate: Version, current: Version, observed: Observed, now_s: float
) -> State:
    """The state of a candidate with pods of its own: judged by them, and given more of the requests step by step."""
    named, canary = policy.pin or observed.found, state.canary
    if policy.pin and policy.pin.pin == candidate.pin:
        return state.now("Rolling", now_s)
    if policy.pin or (named and named.pin == current.pin):
        return _settled(policy, state, Past(candidate, now_s, "Withdrawn", "the channel or a pin names another one"))
    if canary is None or observed.split != state.split:
        if observed.refused:
            return _rolled_back(policy, state, candidate, Health("failed", observed.refused, "CanaryRefused"), now_s)
        # The service does not have the canary yet: the deadline counts from when it does.
        return state._replace(phase="Canary", since_s=now_s)
    found = _health(policy, state, observed, candidate)
    if found.word == "idle":
        return state._replace(phase="Canary", since_s=now_s, why=found.why)
    if found.word != "serving":
        return _waited(policy, state.now("Canary", now_s, found.why), candidate, found, now_s)
    canary = canary._replace(reached_s=canary.reached_s or now_s)
    if why := _why_paused(policy, candidate, canary, now_s):
        return state.now("Paused", now_s, why)._replace(canary=canary)
    if canary.step < len(policy.steps):
        return _at_step(policy, state, canary.step + 1, now_s)
    return state.now("Rolling", now_s)


def _why_paused(policy: Policy, candidate: Version, canary: Canary, now_s: float) -> str:
    """Why the step is not over yet, or ""; a step that the policy does not have any more is over."""
    if canary.step > len(policy.steps):
        return ""
    pause_s = policy.steps[canary.step - 1].pause_s
    at = f"step {canary.step} of {len(policy.steps)}, {canary.percent} % of the requests"
    if pause_s is not None:
        return "" if now_s >= canary.reached_s + pause_s else f"{at}, for {duration(pause_s)}"
    approved = policy.approved
    is_approved = approved and approved.digest == candidate.digest and approved.step >= canary.step
    return "" if is_approved else f"{at}, until it is approved"


def _waited(policy: Policy, state: State, candidate: Version, found: Health, now_s: float) -> State:
    """The state of a candidate that is not served: waited for until the deadline, unless it has failed."""
    if found.word == "coming":
        if now_s < state.since_s + policy.deadline_s:
            return state
        what = "its checks did not pass" if found.cause == "CheckFailed" else "not all pods served it"
        why = f"{what} within {duration(policy.deadline_s)}: {found.why}"
        found = Health("failed", why, "DeadlineExceeded")
    return _rolled_back(policy, state, candidate, found, now_s)


def _rolled_back(policy: Policy, state: State, candidate: Version, failed: Health, now_s: float) -> State:
    state = state.refusing(candidate.pin, failed.why, failed.cause, now_s, policy.quarantine_s)
    past = Past(candidate, now_s, "RolledBack", failed.why)
    return state.after(past, policy.keep).now("RolledBack", now_s, failed.why)


def is_up(state: State, service: Service) -> bool:
    """Whether the candidate is served, so that its checks are asked."""
    candidate = state.candidate if state.is_moving else None
    return candidate is not None and health(service, candidate.pin, beside=state.is_canary).word == "serving"


def _health(policy: Policy, state: State, observed: Observed, candidate: Version) -> Health:
    """The health of the candidate's pods; if they serve it, what the checks say."""
    found, verdict = health(observed.service, candidate.pin, beside=state.is_canary), observed.verdict
    if found.word != "serving" or not policy.checks or verdict.word == "passed":
        return found
    return Health("failed" if verdict.word == "failed" else "coming", verdict.why, "CheckFailed")


def _settled(policy: Policy, state: State, past: Past) -> State:
    return state.after(past, policy.keep).seeing(None, past.at_s).now("Current", past.at_s)


def _to_write(policy: Policy, state: State, observed: Observed) -> str:
    wanted = state.wanted
    if wanted is None or observed.owner or policy.update == "Off":
        return ""
    if wanted.pin == observed.pin and state.split == observed.split:
        return ""
    # A service that was adopted has no pin before its first change.
    adopted = all(past.result == "Adopted" for past in state.history)
    return "" if adopted and not state.is_moving else wanted.pin


def _wait_s(policy: Policy, state: State, now_s: float) -> float:
    """Seconds until time alone can change the state; at most ``every_s``, when the registry is asked again."""
    if state.phase == "Queued" or (state.is_moving and state.phase != "Idle"):
        return _LOOK_S
    moments = [now_s + policy.every_s]
    if state.phase == "Held":
        moments.append(state.seen_s + policy.hold_s)
    if state.phase == "WindowClosed" and policy.window:
        moments.append(policy.window.opens_s(now_s))
    if state.phase == "RolledBack" and state.candidate and (refusal := state.refusal(state.candidate.pin)):
        moments.append(refusal.until_s)
    # One that has passed changed nothing: the channel's answer is missing.
    return min(moment for moment in moments if moment > now_s) - now_s
