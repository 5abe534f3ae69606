"""The status of a ModelRollout: its state and conditions, read and written.

The schema in deploy/controller/crd.yaml says what each field means.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, get_args

from lading.rollout.conditions import Condition
from lading.rollout.state import Canary, Past, Phase, Recorded, Refusal, State, Version

Object = dict[str, Any]

# A message is for people, and the server refuses objects of more than 1.5 MiB.
_MOST_SAID = 1000


def read_state(status: Mapping[str, Any]) -> State:
    """Read the state from this status; an empty state if there is none, or it cannot be read."""
    try:
        phase: Phase = status["phase"]
        if phase not in get_args(Phase):
            return State()
        candidate, canary = status.get("candidate"), status.get("canary")
        return State(
            channel=str(status.get("channel") or ""),
            current=_version(status["current"]) if status.get("current") else None,
            candidate=_version(candidate) if candidate else None,
            seen_s=_unix(candidate["seenAt"]) if candidate else 0.0,
            phase=phase,
            since_s=_unix(status["phaseSince"]),
            why=_text(status, "message"),
            unresolved=_text(status, "unresolved"),
            refused=tuple(map(_refusal, status.get("refused") or ())),
            history=tuple(map(_past, status.get("history") or ())),
            recorded=_recorded(status.get("recorded")),
            unrecorded=_text(status, "unrecorded"),
            canary=_canary(canary) if canary else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return State()


def read_conditions(status: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Read the conditions of this status; none if they cannot be read."""
    try:
        return tuple(map(_condition, status.get("conditions") or ()))
    except (AttributeError, KeyError, TypeError, ValueError):
        return ()


def status_of(state: State, conditions: Sequence[Condition], generation: int) -> Object:
    """The whole status as a merge patch (RFC 7396), in which None removes a field."""
    return {
        "observedGeneration": generation,
        "channel": state.channel or None,
        "phase": state.phase,
        "phaseSince": iso(state.since_s),
        "message": _said(state.why) or None,
        "unresolved": _said(state.unresolved) or None,
        "current": _told(state.current) if state.current else None,
        "candidate": {**_told(state.candidate), "seenAt": iso(state.seen_s)} if state.candidate else None,
        "canary": _told_canary(state.canary) if state.canary else None,
        "refused": list(map(_told_refusal, state.refused)),
        "history": list(map(_told_past, state.history)),
        "recorded": _told_record(state.recorded) if state.recorded != Recorded() else None,
        "unrecorded": _said(state.unrecorded) or None,
        "conditions": [_told_condition(each, generation) for each in conditions],
    }


# ---- its parts, each read and told ------------------------------------------------------------


def _version(item: Mapping[str, Any]) -> Version:
    return Version(str(item["pin"]), _text(item, "version"), _text(item, "signedBy"))


def _told(version: Version) -> Object:
    # None removes an old name: without the key, a merge patch would keep the name of another version.
    return {
        "pin": version.pin,
        "digest": version.digest,
        "version": version.name or None,
        "signedBy": version.signer or None,
    }


def _canary(item: Mapping[str, Any]) -> Canary:
    return Canary(int(item["step"]), int(item["percent"]), _unix(item["reachedAt"]) if item.get("reachedAt") else 0.0)


def _told_canary(canary: Canary) -> Object:
    reached = iso(canary.reached_s) if canary.reached_s else None
    return {"step": canary.step, "percent": canary.percent, "reachedAt": reached}


def _refusal(item: Mapping[str, Any]) -> Refusal:
    until_s = _unix(item["until"])
    return Refusal(str(item["pin"]), int(item["times"]), until_s, _text(item, "message"), _text(item, "reason"))


def _told_refusal(refusal: Refusal) -> Object:
    about = {"pin": refusal.pin, "times": refusal.times, "until": iso(refusal.until_s)}
    return _without_none({**about, "reason": refusal.cause or None, "message": _said(refusal.why)})


def _past(item: Mapping[str, Any]) -> Past:
    return Past(_version(item), _unix(item["at"]), item["result"], _text(item, "message"))


def _told_past(past: Past) -> Object:
    version = _without_none(_told(past.version))
    return {**version, "at": iso(past.at_s), "result": past.result, "message": _said(past.why)}


def _recorded(item: Mapping[str, Any] | None) -> Recorded:
    if not item:
        return Recorded()
    # The history has whole seconds, too.
    return Recorded(_version(item) if item.get("pin") else None, _unix(item["at"]))


def _told_record(recorded: Recorded) -> Object:
    version = recorded.version or Version("")
    return {"pin": version.pin or None, "version": version.name or None, "at": iso(recorded.at_s)}


def _condition(item: Mapping[str, Any]) -> Condition:
    since_s = _unix(item["lastTransitionTime"])
    holds = item["status"] == "True"
    return Condition(
        str(item["type"]), "True" if holds else "False", str(item["reason"]), _text(item, "message"), since_s
    )


def _told_condition(condition: Condition, generation: int) -> Object:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": _said(condition.message),
        "lastTransitionTime": iso(condition.since_s),
        "observedGeneration": generation,
    }


def _without_none(item: Object) -> Object:
    """An item of a list without its None: a merge patch replaces lists as they are."""
    return {key: value for key, value in item.items() if value is not None}


def _text(item: Mapping[str, Any], key: str) -> str:
    return str(item.get(key) or "")


def _said(text: str) -> str:
    return text[:_MOST_SAID]


def iso(unix_s: float) -> str:
    """A Unix time as Kubernetes writes it (RFC 3339, seconds, UTC)."""
    return f"{datetime.fromtimestamp(int(unix_s), UTC):%Y-%m-%dT%H:%M:%SZ}"


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
