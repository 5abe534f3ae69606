"""The data for the controller's HTTP server: metrics, probes, and a page with every rollout.  Safe from any thread."""

import threading
from collections.abc import Mapping
from typing import NamedTuple

from lading import __version__
from lading.agent.metrics import METRICS as AGENTS
from lading.agent.metrics import Metric, Metrics
from lading.agent.page import POLICY, ago, document, text
from lading.rollout.state import Past, State
from lading.text.units import count

METRICS = {
    "lading_build_info": AGENTS["lading_build_info"],
    "lading_rollout_leader": Metric("gauge", "1 while this process holds the Lease, and writes", ()),
    "lading_rollout_phase": Metric("gauge", "1, with the phase that it is in", ("rollout", "phase")),
    "lading_rollout_phase_since_timestamp_seconds": Metric("gauge", "when that phase began", ("rollout",)),
    "lading_rollout_version_info": Metric(
        "gauge", "1, with the version that the service has", ("rollout", "version", "pin")
    ),
    "lading_rollout_canary_percent": Metric(
        "gauge", "the candidate's part of the requests; 0 without a canary", ("rollout",)
    ),
    "lading_rollout_resolved": Metric("gauge", "1 while its channel could be asked the last time", ("rollout",)),
    "lading_rollout_pins_written_total": Metric("counter", "pins that were written to the service", ("rollout",)),
    "lading_rollout_rollbacks_total": Metric("counter", "versions that were rolled back", ("rollout", "reason")),
    "lading_rollout_failures_total": Metric("counter", "cycles that failed, by the kind of the error", ("code",)),
    "lading_rollout_questions_total": Metric("counter", "questions to registries and sources", ("outcome",)),
    "lading_rollout_checks_total": Metric("counter", "rounds of the checks of versions that are served", ("outcome",)),
    "lading_rollout_records_total": Metric("counter", "reports to registries", ("outcome",)),
    "lading_webhooks_total": AGENTS["lading_webhooks_total"],
}


class Row(NamedTuple):
    """One rollout on the page: its name with its namespace, the service, and the state."""

    rollout: str
    service: str
    state: State


class Shown:
    """The rollouts in their state after their last cycle."""

    def __init__(self) -> None:
        self.metrics = Metrics(METRICS)
        self.metrics.set("lading_build_info", 1.0, version=__version__)
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        self._is_started = False

    def started(self) -> None:
        """Note that all watched objects were listed once."""
        self._is_started = True

    def leads(self, leads: bool) -> None:
        """Note whether this process holds the Lease, and so writes."""
        self.metrics.set("lading_rollout_leader", float(leads))

    def ended(self, what: str, numbers: Mapping[str, int]) -> None:
        """Note how many ``questions``, ``checks`` or ``records`` have ended, by their outcome."""
        for outcome, number in numbers.items():
            self.metrics.set(f"lading_rollout_{what}_total", number, outcome=outcome)

    def reconciled(self, row: Row) -> None:
        """Note a rollout's state after its cycle."""
        with self._lock:
            self._rows[row.rollout] = row
        name, state = row.rollout, row.state
        self.metrics.only("lading_rollout_phase", rollout=name, phase=state.phase)
        self.metrics.set("lading_rollout_phase_since_timestamp_seconds", state.since_s, rollout=name)
        percent = state.canary.percent if state.canary else 0
        self.metrics.set("lading_rollout_canary_percent", percent, rollout=name)
        self.metrics.set("lading_rollout_resolved", float(not state.unresolved), rollout=name)
        if current := state.current:
            self.metrics.only("lading_rollout_version_info", rollout=name, version=current.name, pin=current.pin)
        else:
            self.metrics.remove("lading_rollout_version_info", rollout=name)

    def keep(self, rollouts: set[str]) -> None:
        """Forget all other rollouts: they were deleted, or another process manages them."""
        with self._lock:
            gone = self._rows.keys() - rollouts
            self._rows = {name: row for name, row in self._rows.items() if name in rollouts}
        for name in gone:
            self.metrics.forget(name, "rollout")

    def unstarted(self) -> list[str]:
        return [] if self._is_started else ["lists of the cluster's objects"]

    def unready(self) -> list[str]:
        return self.unstarted()

    def page(self, now_s: float) -> tuple[str, str]:
        with self._lock:
            rows = sorted(self._rows.values())
        good = sum(row.state.is_settled for row in rows)
        body = "".join(_article(row, now_s) for row in rows)
        return document(f"lading: {good} of {count(len(rows), 'service')} as wanted", body), POLICY


def _article(row: Row, now_s: float) -> str:
    state = row.state
    kind = "good" if state.is_settled else "bad" if state.is_stalled else "soon"
    facts = [("service", row.service), ("follows", ", ".join(state.channels))]
    if state.current:
        facts += [("has", str(state.current)), *(("pin", part.pin) for part in state.current.parts)]
    if state.candidate:
        facts.append(("newer", f"{state.candidate}, named for the first time {ago(state.seen_s, now_s)}"))
    if state.canary:
        facts.append(("canary", f"step {state.canary.step}, {state.canary.percent} % of the requests"))
    facts += [("why", state.why), ("not asked", state.unresolved), ("not recorded", state.unrecorded)]
    facts += [("refused", f"{each.pin}: {each.why}") for each in state.refused]
    lines = [f"<dt>{text(name)}</dt><dd>{text(said)}</dd>" for name, said in facts if said]
    head = f"<header><h2>{text(row.rollout)}</h2><span>{state.phase}, {text(ago(state.since_s, now_s))}</span></header>"
    past = "".join(_past(each, now_s) for each in state.history)
    return f'<article class="{kind}">{head}<dl>{"".join(lines)}</dl><table>{past}</table></article>'


def _past(past: Past, now_s: float) -> str:
    words = (str(past.version), past.result, ago(past.at_s, now_s), past.why)
    return f"<tr>{''.join(f'<td>{text(word)}</td>' for word in words)}</tr>"
