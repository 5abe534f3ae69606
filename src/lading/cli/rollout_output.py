"""What ``lading rollout`` prints: a table of ModelRollouts, or all of one."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from lading.kubernetes.api_server import Object
from lading.rollout.in_spec import shown_target
from lading.rollout.state import State, Version
from lading.text.printable import printable
from lading.text.units import count, duration


class Rollout(NamedTuple):
    """One ModelRollout, read from the API server."""

    found: Object
    state: State

    @property
    def name(self) -> str:
        return printable(self.found["metadata"]["name"])

    @property
    def spec(self) -> Object:
        return dict(self.found["spec"])

    @property
    def target(self) -> str:
        return printable(shown_target(self.spec))


def row(rollout: Rollout, *, wide: bool) -> list[str]:
    """The cells of one rollout; ``wide`` with its namespace."""
    state, place = rollout.state, rollout.found["metadata"].get("namespace", "")
    return [
        *([place] if wide else []),
        rollout.name,
        rollout.target,
        str(rollout.spec.get("update") or ""),
        state.phase,
        _age(state.since_s),
        _name(state.current),
        _name(state.candidate),
    ]


def table(rows: list[list[str]]) -> Iterator[str]:
    """The lines of a table, with columns as wide as their widest cell."""
    rows = [[printable(cell) or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def told(rollout: Rollout) -> Iterator[str]:
    """All of one rollout, a fact in each line."""
    state = rollout.state
    facts = [
        ("service", rollout.target),
        *(("channel", uri) for uri in state.channels),
        ("update", str(rollout.spec.get("update") or "")),
        ("phase", _phase(state)),
        ("unresolved", state.unresolved),
        ("unrecorded", state.unrecorded),
        *(("stays at", pin) for pin in str(rollout.spec.get("pin") or "").split("\n")),
        ("current", shown(state.current)),
        ("candidate", shown(state.candidate)),
        ("canary", f"step {state.canary.step}, {state.canary.percent} % of the requests" if state.canary else ""),
    ]
    for refusal in state.refused:
        times = count(refusal.times, "time")
        version = shown(Version(refusal.pin))
        facts.append(("refused", f"{version}, {times}, until {_moment(refusal.until_s)}: {refusal.why}"))
    for past in state.history:
        why = f": {past.why}" if past.why else ""
        facts.append(("history", f"{_moment(past.at_s)}  {past.result}  {shown(past.version)}{why}"))
    for name, value in facts:
        if value:
            yield f"{name:10}  {printable(value)}"


def _phase(state: State) -> str:
    since = f", for {_age(state.since_s)}" if state.since_s else ""
    return f"{state.phase}{since}" + (f": {state.why}" if state.why else "")


def shown(version: Version | None) -> str:
    """A version with its name and its whole digest, which people copy from here."""
    return " ".join(filter(None, (version.name, version.digest))) if version else ""


def _name(version: Version | None) -> str:
    return (version.name or version.digest[:19]) if version else ""


def _age(since_s: float) -> str:
    return duration(max(0.0, time.time() - since_s)) if since_s else ""


def _moment(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))


def facts(found: Object) -> dict[str, Any]:
    """What is printed of one rollout as JSON."""
    about = found["metadata"]
    place = {key: about.get(key, "") for key in ("namespace", "name")}
    return {**place, "spec": found["spec"], "status": found.get("status") or {}}
