"""Telling registries how rollouts ended, and which versions services have.

A registry that does not take a report is told again later, and nothing waits for it.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

from lading.controller.agenda import Agenda
from lading.errors import NotFound, UsageError, lading_error
from lading.events import ignore
from lading.kubernetes.follow import Key
from lading.model.pin import split_pin
from lading.model.uri import ModelURI
from lading.registries.deployments import tell
from lading.registries.federation import entry_of, resolve
from lading.registries.registry import Deployment
from lading.rollout.in_status import iso
from lading.rollout.record import Record, Report, report
from lading.rollout.state import Recorded, State
from lading.session import Session
from lading.settings.settings import Settings

# The pause after a failure; it doubles with each further one.
_AGAIN_S = 60.0
_MOST_AGAIN_S = 3600.0
# Registries have limits for texts.
_MOST_SAID = 500


class Outcome(NamedTuple):
    """A report that a registry took, or why it did not (``error``, else "")."""

    report: Report
    error: str


class _Job(NamedTuple):
    """A report to tell; ``final`` if the rollout of the service was deleted."""

    service: Key
    report: Report
    failures: int = 0
    final: bool = False


class Records:
    """The reports that registries lack, and what became of each rollout's last one.  Rollouts are known by their uids.

    One thread calls the methods, another one works on the ``agenda``.  ``told`` is called after each attempt.
    """

    def __init__(self, load: Callable[[], Settings], now: Callable[[], float], told: Callable[[], None]) -> None:
        self._load, self._told = load, told
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._outcomes: dict[str, Outcome] = {}
        # By kind and name of a service: the uid of its rollout, and what the registry knows.  A service may be deleted
        # after its rollout.
        self._known: dict[tuple[str, Key], tuple[str, Recorded]] = {}
        self.agenda = Agenda(self._tell, now, ("recorded", "failed"))

    def follow(self, uid: str, kind: str, service: Key, state: State) -> State:
        """The state with what the registry knows by now; what it lacks is told as soon as it can be."""
        if outcome := self.outcome(uid):
            recorded = state.recorded if outcome.error else outcome.report.recorded
            state = state._replace(recorded=recorded, unrecorded=outcome.error)
        self._known[kind, service] = uid, state.recorded
        if lacking := report(state):
            self._want(uid, service, lacking)
        else:
            with self._lock:
                self._jobs.pop(uid, None)
        return state

    def leave(self, uid: str) -> None:
        """Tell nothing more about this rollout, also when its service is deleted."""
        with self._lock:
            self._jobs.pop(uid, None)
        self._known = {place: known for place, known in self._known.items() if known[0] != uid}

    def keep(self, uids: set[str], is_there: Callable[[str, Key], bool]) -> None:
        """Forget all other rollouts; of those whose services are gone, too (not ``is_there``), that is told first."""
        with self._lock:
            self._jobs = {uid: job for uid, job in self._jobs.items() if uid in uids or job.final}
            self._outcomes = {uid: each for uid, each in self._outcomes.items() if uid in uids}
        for (kind, service), (uid, recorded) in list(self._known.items()):
            if uid not in uids and not is_there(kind, service):
                del self._known[kind, service]
                if lacking := report(State(recorded=recorded)):
                    self._want(uid, service, lacking, final=True)

    def forget(self) -> None:
        """Forget everything: another process tells it."""
        with self._lock:
            self._jobs, self._outcomes, self._known = {}, {}, {}

    def outcome(self, uid: str) -> Outcome | None:
        """The outcome of the last attempt; None before the first one."""
        with self._lock:
            return self._outcomes.get(uid)

    def _want(self, uid: str, service: Key, lacking: Report, *, final: bool = False) -> None:
        with self._lock:
            was = self._jobs.get(uid)
            is_new = was is None or was.report != lacking
            if is_new:
                self._jobs[uid] = _Job(service, lacking, final=final)
        if is_new:
            self.agenda.put(uid)

    def _tell(self, uid: str) -> str:
        with self._lock:
            job = self._jobs.get(uid)
        if job is None:
            return ""
        error = self._attempt(job)
        with self._lock:
            if uid not in self._jobs:
                # Another process tells it now, or nobody: the outcome is not about what that one knows.
                return "failed" if error else "recorded"
            self._outcomes[uid] = Outcome(job.report, error)
            is_same = self._jobs[uid] is job
            if is_same and error:
                self._jobs[uid] = job._replace(failures=job.failures + 1)
            elif is_same:
                del self._jobs[uid]
        if is_same and error:
            self.agenda.put(uid, min(_AGAIN_S * 2.0 ** min(job.failures, 10), _MOST_AGAIN_S))
        self._told()
        return "failed" if error else "recorded"

    def _attempt(self, job: _Job) -> str:
        """Tell the whole report; returns why that failed, or ""."""
        try:
            with Session(self._load(), ignore) as session:
                for each in job.report.records:
                    _tell(each, job.service, session)
        except Exception as error:  # noqa: BLE001 - one report's defect must not end all others
            failure = lading_error(error)
            return f"error[{failure.code}]: {failure.message}"
        return ""


def _tell(record: Record, service: Key, session: Session) -> None:
    parts = record.version.parts
    for part in parts:
        _tell_one(record._replace(version=part), service, session, is_only=len(parts) == 1)


def _tell_one(record: Record, service: Key, session: Session, *, is_only: bool) -> None:
    """Tell the registry of one model; of several models, some may be in no registry."""
    name = split_pin(ModelURI.parse(record.version.pin))[0]
    try:
        resolution = resolve(name, session.settings, session.http)
    except NotFound:
        # It was removed or archived there, so nothing can be recorded for it.
        return
    entry = entry_of(resolution, session.settings)
    if entry is None:
        if not is_only:
            return
        raise UsageError(f"{name.redacted()} is not a name in a registry, so nothing can be recorded for it")
    tell(entry, resolution, _deployment(record, service), session.settings, session.http)


def _deployment(record: Record, service: Key) -> Deployment:
    digest, why = record.version.digest, record.why[:_MOST_SAID]
    at = iso(record.at_s) if record.at_s else ""
    facts = {name: said for name, said in (("pin", digest), ("at", at), ("message", why)) if said}
    summary = ", ".join(filter(None, (record.ended, digest, at, why)))
    identity = f"{digest}@{at}" if at else digest
    return Deployment("rollout", service.namespace, service.name, record.ended, identity, facts, summary)
