"""The ModelRollout: reading the policy from its spec, reading the state from its status, and writing the status.

The schema in deploy/controller/crd.yaml says what the API server accepts, and what each field means.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, get_args

from lading.errors import UsageError
from lading.model.pin import split_pin
from lading.model.uri import ModelURI
from lading.rollout.conditions import Condition
from lading.rollout.policy import Approved, Policy, Step
from lading.rollout.schedule import Cron, Window, time_zone
from lading.rollout.state import Canary, Past, Phase, Recorded, Refusal, State, Version
from lading.rollout.verdict import Check, HttpCheck, QueryCheck
from lading.settings.ranges import parse_range
from lading.text.printable import printable

Object = dict[str, Any]

_DURATION = re.compile(r"(0|[1-9][0-9]{0,5})(s|m|h)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}
_PATH = re.compile(r"/[A-Za-z0-9/._~:=-]*(\?[A-Za-z0-9/._~:=&-]*)?")
# The pause of a step that a person ends.
APPROVAL = "Approval"
# A message is for people, and the server refuses objects of more than 1.5 MiB.
_MOST_SAID = 1000


class Target(NamedTuple):
    """The service that a rollout is for, in its own namespace."""

    kind: str
    name: str


def read_target(spec: Mapping[str, Any]) -> Target:
    """Read the service that this spec names."""
    return Target(str(spec["targetRef"]["kind"]), str(spec["targetRef"]["name"]))


def selected_kind(spec: Mapping[str, Any]) -> str:
    """The kind of the services that this spec selects by labels."""
    return str(spec["selector"]["kind"])


def selects(spec: Mapping[str, Any], service: Object) -> bool:
    """Whether this spec selects the service: it has all of the labels."""
    wanted: Object = spec["selector"]["matchLabels"]
    return wanted.items() <= (service["metadata"].get("labels") or {}).items()


def shown_target(spec: Mapping[str, Any]) -> str:
    """What a rollout is for: ``InferenceService iris``, or ``InferenceService tier=gold`` of a selector."""
    if "selector" in spec:
        labels = ",".join(f"{name}={value}" for name, value in sorted(spec["selector"]["matchLabels"].items()))
        return f"{selected_kind(spec)} {labels}"
    return " ".join(read_target(spec))


def age(item: tuple[Any, Object]) -> tuple[str, Any]:
    """The sort key of rollouts by their keys: the oldest first."""
    return str(item[1]["metadata"].get("creationTimestamp") or ""), item[0]


def read_policy(spec: Mapping[str, Any]) -> Policy:
    """Read the policy of this spec; ``UsageError`` for values that the schema accepts and that make no sense."""
    own = Policy()
    allow, rollback, window = spec.get("allow") or {}, spec.get("rollback") or {}, spec.get("window")
    versions = str(allow.get("versions") or "")
    parse_range(versions)
    return Policy(
        update=spec.get("update") or own.update,
        every_s=_seconds(spec, "every", own.every_s),
        hold_s=_seconds(spec, "hold", own.hold_s),
        window=_window(window) if window else None,
        versions=versions,
        signed_by=tuple(map(str, allow.get("signedBy") or ())),
        approve=str(spec.get("approve") or ""),
        pin=_pin(str(spec["pin"])) if spec.get("pin") else None,
        deadline_s=_seconds(rollback, "deadline", own.deadline_s),
        quarantine_s=_seconds(rollback, "quarantine", own.quarantine_s),
        max_concurrent=int(spec.get("maxConcurrent") or own.max_concurrent),
        keep=int(spec.get("history") or own.keep),
        checks=tuple(map(_check, spec.get("checks") or ())),
        record=spec.get("record") is True,
        steps=_steps(spec.get("strategy") or {}),
        approved=_approved(spec["approveStep"]) if spec.get("approveStep") else None,
    )


def _steps(strategy: Mapping[str, Any]) -> tuple[Step, ...]:
    if strategy.get("type") != "Canary":
        return ()
    steps = tuple(
        Step(int(each["percent"]), None if each["pause"] == APPROVAL else _seconds(each, "pause", 0.0))
        for each in (strategy.get("canary") or {}).get("steps") or ()
    )
    percents = [step.percent for step in steps]
    if not steps or percents != sorted(percents) or not 0 < percents[0] <= percents[-1] < 100:
        raise UsageError("the steps of a canary have no growing percentages", hint="write, for example, 10 and 50")
    return steps


def _approved(item: Mapping[str, Any]) -> Approved:
    return Approved(str(item["version"]), int(item["step"]))


def _check(item: Mapping[str, Any]) -> Check:
    name, timeout_s = printable(str(item["name"])), _seconds(item, "timeout", HttpCheck._field_defaults["timeout_s"])
    if query := item.get("prometheus"):
        least, most = query.get("min"), query.get("max")
        return QueryCheck(
            name,
            str(query["query"]),
            None if least is None else float(least),
            None if most is None else float(most),
            timeout_s,
        )
    http, own = item["http"], HttpCheck("")
    path, url = str(http.get("path") or ""), str(http.get("url") or "")
    if bool(path) == bool(url):
        raise UsageError(f"check {name} needs either a path or a url")
    if path and not _PATH.fullmatch(path):
        raise UsageError(f"check {name} has the path {printable(path)!r}", hint="for example /v2/health/ready")
    return HttpCheck(
        name, path, int(http.get("port") or own.port), url, int(http.get("status") or own.status), timeout_s
    )


def _window(item: Mapping[str, Any]) -> Window:
    zone = time_zone(str(item["timeZone"])) if item.get("timeZone") else UTC
    return Window(Cron.parse(str(item["cron"])), _seconds(item, "length", 0.0), zone)


def _pin(text: str) -> Version:
    for line in text.split("\n"):
        uri, pin = split_pin(ModelURI.parse(line))
        if pin is None:
            raise UsageError(
                f"{uri.redacted()} has no pin", hint="lading resolve shows the pin of what a URI names now"
            )
    return Version(text)


def _seconds(item: Mapping[str, Any], key: str, default: float) -> float:
    text = item.get(key)
    if text is None:
        return default
    match = _DURATION.fullmatch(str(text))
    if match is None:
        raise UsageError(f"{key} is {printable(str(text))!r}", hint="write, for example, 30s, 10m or 24h")
    return float(match[1]) * _UNIT_S[match[2]]


# ---- status -----------------------------------------------------------------------------------


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
            why=str(status.get("message") or ""),
            unresolved=str(status.get("unresolved") or ""),
            refused=tuple(
                Refusal(
                    str(each["pin"]),
                    int(each["times"]),
                    _unix(each["until"]),
                    str(each.get("message") or ""),
                    str(each.get("reason") or ""),
                )
                for each in status.get("refused") or ()
            ),
            history=tuple(
                Past(_version(each), _unix(each["at"]), each["result"], str(each.get("message") or ""))
                for each in status.get("history") or ()
            ),
            recorded=_recorded(status.get("recorded")),
            unrecorded=str(status.get("unrecorded") or ""),
            canary=_canary(canary) if canary else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return State()


def read_conditions(status: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Read the conditions of this status; none if they cannot be read."""
    try:
        return tuple(
            Condition(
                str(each["type"]),
                "True" if each["status"] == "True" else "False",
                str(each["reason"]),
                str(each.get("message") or ""),
                _unix(each["lastTransitionTime"]),
            )
            for each in status.get("conditions") or ()
        )
    except (KeyError, TypeError, ValueError):
        return ()


def status_of(state: State, conditions: Sequence[Condition], generation: int) -> Object:
    """The whole status as a merge patch (RFC 7396), in which None removes a field."""
    return {
        "observedGeneration": generation,
        "channel": state.channel or None,
        "phase": state.phase,
        "phaseSince": iso(state.since_s),
        "message": state.why[:_MOST_SAID] or None,
        "unresolved": state.unresolved[:_MOST_SAID] or None,
        "current": _told(state.current) if state.current else None,
        "candidate": {**_told(state.candidate), "seenAt": iso(state.seen_s)} if state.candidate else None,
        "canary": _told_canary(state.canary) if state.canary else None,
        "refused": [
            _without_none(
                {
                    "pin": each.pin,
                    "times": each.times,
                    "until": iso(each.until_s),
                    "reason": each.cause or None,
                    "message": each.why[:_MOST_SAID],
                }
            )
            for each in state.refused
        ],
        "history": [
            {
                **_without_none(_told(each.version)),
                "at": iso(each.at_s),
                "result": each.result,
                "message": each.why[:_MOST_SAID],
            }
            for each in state.history
        ],
        "recorded": _told_record(state.recorded) if state.recorded != Recorded() else None,
        "unrecorded": state.unrecorded[:_MOST_SAID] or None,
        "conditions": [
            {
                "type": each.type,
                "status": each.status,
                "reason": each.reason,
                "message": each.message[:_MOST_SAID],
                "lastTransitionTime": iso(each.since_s),
                "observedGeneration": generation,
            }
            for each in conditions
        ],
    }


def _canary(item: Mapping[str, Any]) -> Canary:
    return Canary(int(item["step"]), int(item["percent"]), _unix(item["reachedAt"]) if item.get("reachedAt") else 0.0)


def _told_canary(canary: Canary) -> Object:
    reached = iso(canary.reached_s) if canary.reached_s else None
    return {"step": canary.step, "percent": canary.percent, "reachedAt": reached}


def _told(version: Version) -> Object:
    # None removes an old name: without the key, a merge patch would keep the name of another version.
    return {
        "pin": version.pin,
        "digest": version.digest,
        "version": version.name or None,
        "signedBy": version.signer or None,
    }


def _told_record(recorded: Recorded) -> Object:
    version = recorded.version or Version("")
    return {"pin": version.pin or None, "version": version.name or None, "at": iso(recorded.at_s)}


def _recorded(item: Mapping[str, Any] | None) -> Recorded:
    if not item:
        return Recorded()
    # The history has whole seconds, too.
    return Recorded(_version(item) if item.get("pin") else None, _unix(item["at"]))


def _without_none(item: Object) -> Object:
    """An item of a list without its None: a merge patch replaces lists as they are."""
    return {key: value for key, value in item.items() if value is not None}


def _version(item: Mapping[str, Any]) -> Version:
    return Version(str(item["pin"]), str(item.get("version") or ""), str(item.get("signedBy") or ""))


def iso(unix_s: float) -> str:
    """A Unix time as Kubernetes writes it (RFC 3339, seconds, UTC)."""
    return f"{datetime.fromtimestamp(int(unix_s), UTC):%Y-%m-%dT%H:%M:%SZ}"


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
