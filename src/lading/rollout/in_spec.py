"""The spec of a ModelRollout: the service that it is for, and the policy.

The schema in deploy/controller/crd.yaml says what the API server accepts, and what each field means.
"""

import re
from collections.abc import Mapping
from datetime import UTC
from typing import Any, NamedTuple

from lading.errors import UsageError
from lading.model.pin import split_pin
from lading.model.uri import ModelURI
from lading.rollout.policy import Approved, Policy, Step
from lading.rollout.schedule import Cron, Window, time_zone
from lading.rollout.state import Version
from lading.rollout.verdict import Check, HttpCheck, QueryCheck
from lading.settings.ranges import parse_range
from lading.text.printable import printable

Object = dict[str, Any]

_DURATION = re.compile(r"(0|[1-9][0-9]{0,5})(s|m|h)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}
_PATH = re.compile(r"/[A-Za-z0-9/._~:=-]*(\?[A-Za-z0-9/._~:=&-]*)?")
# The pause of a step that a person ends.
APPROVAL = "Approval"


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
