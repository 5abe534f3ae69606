"""The report about a service to the registry of its model: how rollouts ended, and which version the service has now.

It follows from the history and from what the registry was told before.  So a registry that was unavailable is told
everything later, and nothing is told twice.
"""

from typing import Literal, NamedTuple

from lading.rollout.state import Past, Recorded, State, Version

Ended = Literal["COMPLETE", "FAILED", "CANCELED", "UNDEPLOYED"]
_ENDED: dict[str, Ended] = {
    "Pinned": "COMPLETE",
    "Adopted": "COMPLETE",
    "Succeeded": "COMPLETE",
    "RolledBack": "FAILED",
    "Withdrawn": "CANCELED",
}


class Record(NamedTuple):
    """One entry: what became of a version, at ``at_s`` (Unix time, 0 if unknown)."""

    version: Version
    ended: Ended
    at_s: float = 0.0
    why: str = ""


class Report(NamedTuple):
    """Entries in the order in which they must be told, and what the registry knows after them."""

    records: tuple[Record, ...]
    recorded: Recorded


def report(state: State) -> Report | None:
    """The report that the registry lacks; None if it knows everything."""
    told, current = state.recorded, state.current
    new = [past for past in reversed(state.history) if past.at_s > told.at_s]
    if not new and _pin(told.version) == _pin(current):
        return None
    known = Recorded(current, max([told.at_s, *(past.at_s for past in new)]))
    records = [_record(past) for past in new]
    had = [told.version, *(each.version for each in records if each.ended == "COMPLETE")]
    gone = {each.pin: each for each in had if each and each.pin != _pin(current)}
    records += [Record(each, "UNDEPLOYED", known.at_s) for each in gone.values()]
    if current:
        # Last, and each time: a storage container may have recorded a delivery of another version meanwhile.
        last = next((past for past in state.history if past.version.pin == current.pin), None)
        now = _record(last) if last and _ENDED[last.result] == "COMPLETE" else Record(current, "COMPLETE")
        records = [*(each for each in records if each != now), now]
    return Report(tuple(records), known)


def _record(past: Past) -> Record:
    return Record(past.version, _ENDED[past.result], past.at_s, past.why)


def _pin(version: Version | None) -> str:
    return version.pin if version else ""
