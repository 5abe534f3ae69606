"""The loop: it runs the cycles of rollouts that are due.  One cycle of one rollout:

    observe   the ModelRollout, its service, its pods while a version is judged, and the answer for its channel
    decide    the next state                        (lading.rollout.decide)
    keep      the state, in the ModelRollout's status
    write     pin and canary, if the service has others
    tell      Events on both, metrics, the log

One thread runs all cycles and renews the Lease; others ask names, and watch.  Only the holder of the Lease writes.
A process may be killed anywhere: the next one reads the states and goes on.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from lading.controller.checking import Asked, Checks
from lading.controller.questions import Answer, Questions
from lading.controller.records import Records
from lading.controller.selection import Selection, select
from lading.controller.service import KINDS, PODS, given, lock_text, locked, read_service
from lading.controller.shown import Row, Shown
from lading.errors import LadingError, NotAllowed, NotFound, UsageError, lading_error
from lading.events import Listener, RolloutTold
from lading.kubernetes.api_server import ApiServer, Conflict, Object, Resource
from lading.kubernetes.follow import Key
from lading.kubernetes.leader import Leader
from lading.kubernetes.recorder import record
from lading.kubernetes.rollouts import ROLLOUTS
from lading.kubernetes.watched import Watched
from lading.model.pin import split_pin
from lading.model.uri import ModelURI, redact
from lading.rollout.conditions import conditions
from lading.rollout.decide import Decision, Observed, Told, decide, is_up
from lading.rollout.policy import Policy
from lading.rollout.resource import (
    age,
    read_conditions,
    read_policy,
    read_state,
    read_target,
    shown_target,
    status_of,
)
from lading.rollout.state import State, Version
from lading.rollout.together import together
from lading.telemetry.otlp import Send
from lading.telemetry.rolls import Rolls

NAME = "lading-controller"
_LOOK_EVERY_S = 1.0
_RENEW_S = 15.0
# The pause after an error of the API server.
_AGAIN_S = 10.0
_RESYNC_S = 600.0
# The time between two sums of the services that a rollout selects.
_LOOK_AT_SERVICES_S = 10.0
_NEVER = float("inf")


class _Place(NamedTuple):
    """A rollout and its service; ``rival`` is an older rollout for the same service, or ""."""

    key: Key
    rollout: Object
    kind: str
    service: Object | None
    rival: str

    @property
    def shown(self) -> str:
        return self.key.shown

    @property
    def uid(self) -> str:
        return str(self.rollout["metadata"]["uid"])

    @property
    def channel(self) -> str:
        """The URI that the service follows, or several in lines; "" if there is none."""
        return KINDS[self.kind].followed(self.service) if self.service else ""

    @property
    def asks(self) -> bool:
        """Whether the rollout needs the answer for its channel."""
        return bool(self.channel) and not self.rival and self.rollout["spec"].get("update") != "Off"


class _Kept(NamedTuple):
    """The state in a rollout's status, and the generation of the spec that it was decided by."""

    uid: str
    state: State
    generation: int


class _NotYet(Exception):
    """The cycle needs the answer to a question first."""


class Controller:
    """Reconciles in its ``tick``; ``watchers``, and the agendas of questions, checks and records, are for other threads.

    ``namespace`` is the one that it manages, "" for all.  ``woken`` ends the loop's wait; whoever has an answer sets it.
    ``unix_time`` gives the times in states.
    """

    def __init__(
        self,
        server: ApiServer,
        questions: Questions,
        checks: Checks,
        records: Records,
        leader: Leader,
        listen: Callable[[str], Listener],
        *,
        namespace: str,
        instance: str,
        woken: threading.Event,
        send: Send = lambda _: None,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._server, self._questions, self._checks = server, questions, checks
        self._records, self._leader = records, leader
        self._listen, self._namespace, self._instance = listen, namespace, instance
        self._now, self._unix_time = server.http.retry.run.clock.now, unix_time
        self._woken = woken
        self.shown = Shown()
        self._rolls = Rolls(send)
        self._rollouts = Watched(self._wake)
        self._services = {kind: Watched(self._wake) for kind in KINDS}
        self._kept: dict[Key, _Kept] = {}
        self._places: list[_Place] = []
        self._due_s: dict[Key, float] = {}
        self._seen: dict[Key, object] = {}
        # URIs of exact versions that pods received before their service was pinned, while the pin is not known.
        self._exact: dict[Key, str] = {}
        # Why the API server did not take a canary the last time.
        self._refused: dict[Key, str] = {}
        self._renew_s = self._now()

    def watchers(self) -> dict[str, Callable[[], None]]:
        """Functions by name, each of which must run in a thread of its own until the run is stopped."""
        watchers: dict[str, Callable[[], None]] = {"watch-rollouts": partial(self._watch, ROLLOUTS, self._rollouts)}
        for kind, watched in self._services.items():
            watchers[f"watch-{kind}"] = partial(self._watch, KINDS[kind].resource, watched)
        return watchers

    def _watch(self, resource: Resource, watched: Watched) -> None:
        watched.watch(self._server, resource, self._namespace, self._watch_failed)

    def _watch_failed(self, error: LadingError) -> None:
        self._listen("")(RolloutTold("", "WatchFailed", error.message))

    def _wake(self, _: Key) -> None:
        self._woken.set()

    def ask_now(self) -> None:
        """Ask every name at once, since a webhook said that one of them has moved."""
        self._questions.hurry()
        self._woken.set()

    def run(self) -> None:
        """Reconcile until the run is stopped, which raises ``Interrupted``."""
        run = self._server.http.retry.run
        try:
            while True:
                run.check("reconciling")
                wait_s = self.tick()
                run.clock.wait(self._woken, min(wait_s, _LOOK_EVERY_S))
        finally:
            self._leader.release()

    def tick(self) -> float:
        """Renew the Lease, and reconcile the rollouts that are due; returns the seconds until the next is due."""
        self._woken.clear()
        if self._now() >= self._renew_s:
            self._renew_s = self._now() + _RENEW_S
            self._leader.ask()
        leads = self._leader.holds()
        self.shown.leads(leads)
        if not leads:
            # The holder of the Lease writes the states.
            self._forget(set())
            self._records.forget()
            return _RENEW_S
        if not (self._rollouts.is_listed and all(each.is_listed for each in self._services.values())):
            return _LOOK_EVERY_S
        self.shown.started()
        return self._reconcile_due()

    def _reconcile_due(self) -> float:
        rollouts = self._rollouts.all()
        self._places = self._read_places(rollouts)
        uids = {place.uid for place in self._places}
        self._records.keep(uids, lambda kind, key: bool(self._services[kind].get(key)))
        self._forget(set(rollouts))
        for key, rollout in rollouts.items():
            self._know(key, rollout)
        self._questions.follow(self._wanted(self._places))
        for place in self._places:
            self._take_turn(place.key, self._what_matters(place), partial(self._reconcile, place))
        for key, selection in select(rollouts, {kind: each.all() for kind, each in self._services.items()}).items():
            self._take_turn(key, selection.changes, partial(self._select, key, selection))
        agendas = {"questions": self._questions.agenda, "checks": self._checks.agenda, "records": self._records.agenda}
        next_s = [agenda.begin() for agenda in agendas.values()]
        for what, agenda in agendas.items():
            self.shown.ended(what, agenda.ended)
        return max(min(*next_s, min(self._due_s.values(), default=_NEVER) - self._now()), 0.0)

    def _take_turn(self, key: Key, seen: object, cycle: Callable[[], float]) -> None:
        """Run a rollout's cycle if it is due, or if ``seen`` has changed; the Lease is renewed between two cycles."""
        now_s = self._now()
        is_due = now_s >= self._due_s.get(key, 0.0) or seen != self._seen.get(key)
        if is_due and now_s < self._renew_s and self._leader.holds():
            self._seen[key] = seen
            self._due_s[key] = now_s + self._attempt(key, cycle)

    def _read_places(self, rollouts: Mapping[Key, Object]) -> list[_Place]:
        places, taken = [], dict[tuple[str, Key], str]()
        for key, rollout in sorted(rollouts.items(), key=age):
            if "targetRef" not in rollout["spec"]:
                continue
            kind, name = read_target(rollout["spec"])
            target = Key(key.namespace, name)
            rival = taken.setdefault((kind, target), key.name)
            service = self._services[kind].get(target)
            places.append(_Place(key, rollout, kind, service, rival if rival != key.name else ""))
        return places

    def _wanted(self, places: list[_Place]) -> dict[str, float]:
        """The names to ask, each with the shortest interval in seconds of the rollouts that follow it."""
        wanted: dict[str, float] = {}
        for place in places:
            if place.asks:
                exact = dict.fromkeys(filter(None, self._exact.get(place.key, "").split("\n")), _RESYNC_S)
                every_s = exact | dict.fromkeys(place.channel.split("\n"), self._policy(place).every_s)
                wanted |= {name: min(wanted.get(name, _NEVER), seconds) for name, seconds in every_s.items()}
        return wanted

    def _policy(self, place: _Place) -> Policy:
        try:
            return read_policy(place.rollout["spec"])
        except LadingError:
            return Policy()

    def _forget(self, kept: set[Key]) -> None:
        for known in (self._kept, self._due_s, self._seen, self._exact, self._refused):
            for key in known.keys() - kept:
                del known[key]
        names = {key.shown for key in kept}
        self.shown.keep(names)
        self._checks.keep(names)
        self._rolls.keep(names)

    def _what_matters(self, place: _Place) -> object:
        """The inputs of a cycle besides the time: when they change, the cycle is due at once."""
        about, service = place.rollout["metadata"], place.service
        version = service["metadata"].get("resourceVersion") if service else None
        exact = self._questions.answer(self._exact.get(place.key, ""))
        said = self._questions.answer(place.channel), exact, self._checks.last(place.shown)
        outcome = self._records.outcome(place.uid)
        return place.uid, about.get("generation"), version, place.rival, said, outcome

    # ---- one cycle ------------------------------------------------------------------------

    def _attempt(self, key: Key, cycle: Callable[[], float]) -> float:
        """Run one cycle; returns the seconds until the next one."""
        try:
            return cycle()
        except _NotYet:
            return _RESYNC_S
        except Exception as error:  # noqa: BLE001 - one rollout's defect must not end all others
            said = lading_error(error)
        self.shown.metrics.add("lading_rollout_failures_total", code=said.code)
        self._listen(key.shown)(RolloutTold(key.shown, "ReconcileFailed", said.message))
        return _AGAIN_S

    def _reconcile(self, place: _Place) -> float:
        before = self._kept[place.key].state
        decision = self._recorded(place, before, self._decided(place, before))
        self._keep(place.key, place.rollout, decision.state)
        self._rolls.follow(place.shown, before, decision.state)
        if not decision.state.is_canary:
            self._refused.pop(place.key, None)
        # It is needed only until the version that was there is known.
        self._exact.pop(place.key, None)
        try:
            if decision.pin and place.service and decision.state.wanted:
                self._write(place, decision.state, decision.state.wanted)
        finally:
            # The state is kept, so the next cycle would not tell it again.
            for told in decision.told:
                self._tell(place, told)
        return decision.wait_s

    def _select(self, key: Key, selection: Selection) -> float:
        """Give each selected service a rollout of its own, and keep the state of all of them together."""
        refused = [f"{name} belongs to nobody, or to another rollout" for name in selection.taken]
        for fields in selection.apply:
            if self._now() >= self._renew_s:
                return 0.0
            own = selection.own.get(read_target(fields["spec"]).name, fields)
            try:
                self._server.apply(ROLLOUTS, own, fields)
            except Conflict as error:
                # Somebody has changed this one by hand: the others get their fields nevertheless.
                refused.append(error.message)
        for rollout in selection.delete:
            with suppress(NotFound, Conflict):
                self._server.delete(ROLLOUTS, rollout)
        states = {name: self._kept[Key.of(own)].state for name, own in selection.own.items()}
        state = together(states, self._kept[key].state, self._unix_time())
        self._keep(key, selection.rollout, state._replace(why="; ".join([state.why, *refused[:3]])))
        if refused:
            raise UsageError("; ".join(refused[:3]))
        return _LOOK_AT_SERVICES_S

    def _know(self, key: Key, rollout: Object) -> None:
        """Read the state from the status, unless this process wrote it last: the watch may be behind."""
        uid, was = rollout["metadata"]["uid"], rollout.get("status") or {}
        known = self._kept.get(key)
        if known is None or known.uid != uid:
            self._kept[key] = _Kept(uid, read_state(was), int(was.get("observedGeneration") or 0))

    def _decided(self, place: _Place, before: State) -> Decision:
        now_s = self._unix_time()
        try:
            policy = read_policy(place.rollout["spec"])
            problem = self._checks.refusal(policy.checks) or _unlike(policy, place)
        except LadingError as error:
            problem = error.message
        if problem:
            return Decision(before.now("Invalid", now_s, problem), "", (), _RESYNC_S)
        if lacking := _lacking(place):
            # A service that appears under this name later is another one.
            state = State(
                channel=before.channel,
                refused=before.refused,
                history=before.history,
                since_s=before.since_s,
                recorded=before.recorded,
            )
            return Decision(state._replace(phase=before.phase).now("NoTarget", now_s, lacking), "", (), _RESYNC_S)
        assert place.service is not None  # noqa: S101 - nothing is lacking
        observed = self._observed(place, place.service, before)
        return decide(policy, before, self._checked(place, policy, before, observed), now_s)

    def _checked(self, place: _Place, policy: Policy, state: State, observed: Observed) -> Observed:
        """What is observed, with the verdict of the policy's checks once the candidate is served."""
        if not (policy.checks and state.candidate and is_up(state, observed.service)):
            return observed
        pin = state.candidate.pin
        asked = Asked(policy.checks, pin, state.canary.step if state.is_canary and state.canary else 0)
        return observed._replace(verdict=self._checks.verdict(place.shown, asked, observed.service.addresses(pin)))

    def _observed(self, place: _Place, service: Object, state: State) -> Observed:
        kind, name = KINDS[place.kind], place.channel
        answer = self._questions.answer(name) if place.asks else Answer()
        if answer is None:
            raise _NotYet
        channel = "\n".join(map(redact, name.split("\n")))
        pods = self._pods(place, kind.selector(service["metadata"]["name"]), state)
        text = kind.lock_text(service)
        seen = Observed(
            channel=channel,
            found=None if answer.error else answer.version,
            service=read_service(service, pods, channel),
            has=locked(text, channel) if text else None,
            is_locked=bool(text),
            owner=kind.owner(service),
            unresolved=answer.error,
            split=kind.split(service, channel),
            no_canary=kind.no_canary(service),
            refused=self._refused.get(place.key, ""),
            beside=self._beside(place, answer.version),
        )
        return seen._replace(runs=self._runs(place, pods, seen.found) if seen.found and not text else None)

    def _beside(self, place: _Place, found: Version | None) -> int:
        """How many other services of the namespace are changing to this version, or have failed with it."""
        if found is None or not place.rollout["spec"].get("maxConcurrent"):
            return 0
        now_s = self._unix_time()
        keys = (other.key for other in self._places if other.key.namespace == place.key.namespace)
        return sum(self._kept[key].state.tries(found.pin, now_s) for key in keys if key != place.key)

    def _pods(self, place: _Place, labels: str, state: State) -> list[Object]:
        """The service's pods, if the decision depends on them; else none."""
        if not state.is_moving and state.current is not None:
            return []
        return self._server.list_all(PODS, place.key.namespace, labels=labels)

    def _runs(self, place: _Place, pods: list[Object], found: Version) -> Version | None:
        """The version that the pods of a service without a pin received; None if that is unknown."""
        exact = given(pods, found)
        if not exact or exact == "\n".join(str(split_pin(ModelURI.parse(part.pin))[0]) for part in found.parts):
            return found if exact else None
        self._exact[place.key] = exact
        answer = self._questions.answer(exact)
        if answer is None:
            raise _NotYet
        return answer.version

    def _recorded(self, place: _Place, before: State, decision: Decision) -> Decision:
        """The decision with what the registry knows by now; what it lacks is told in another thread."""
        if place.rival or not self._policy(place).record:
            self._records.leave(place.uid)
            return decision._replace(state=decision.state._replace(unrecorded=""))
        kind, name = read_target(place.rollout["spec"])
        state = self._records.follow(place.uid, kind, Key(place.key.namespace, name), decision.state)
        told = decision.told
        if state.unrecorded and not before.unrecorded:
            told = (*told, Told("NotRecorded", state.unrecorded, warning=True))
        return decision._replace(state=state, told=told)

    def _keep(self, key: Key, rollout: Object, state: State) -> None:
        """Write the state to the rollout's status, if it has changed."""
        generation = int(rollout["metadata"].get("generation") or 0)
        kept = self._kept[key]._replace(state=state, generation=generation)
        if kept != self._kept[key]:
            before = read_conditions(rollout.get("status") or {})
            status = status_of(state, conditions(state, before, self._unix_time()), generation)
            self._server.patch(ROLLOUTS, rollout, {"status": status}, subresource="status")
            self._kept[key] = kept
        self.shown.reconciled(Row(key.shown, shown_target(rollout["spec"]), state))

    def _write(self, place: _Place, state: State, wanted: Version) -> None:
        """Apply the annotation with the pin, and the canary; a refusal is reported, and the next cycle tries again."""
        assert place.service is not None  # noqa: S101 - a pin is of a service
        kind, split = KINDS[place.kind], state.split
        to_text = partial(lock_text, state.channel, signed=bool(self._policy(place).signed_by))
        canary = (split.percent, to_text(state.candidate)) if split and state.candidate else None
        try:
            self._server.apply(kind.resource, place.service, kind.fields(place.service, to_text(wanted), canary))
        except (Conflict, NotAllowed, UsageError) as error:
            self._refused[place.key] = error.message if canary else ""
            self._tell(
                place, Told("TargetConflict", f"the pin of {wanted} cannot be written: {error.message}", warning=True)
            )
            raise
        self._refused.pop(place.key, None)
        self.shown.metrics.add("lading_rollout_pins_written_total", rollout=place.shown)

    def _tell(self, place: _Place, told: Told) -> None:
        """Record Events on the rollout and its service; they are only for people, so failures are not retried."""
        if told.reason == "RolledBack":
            self.shown.metrics.add("lading_rollout_rollbacks_total", rollout=place.shown, reason=told.cause)
        self._listen(place.shown)(RolloutTold(place.shown, told.reason, told.message))
        for about in filter(None, (place.rollout, place.service)):
            try:
                record(
                    self._server,
                    about,
                    reason=told.reason,
                    action="Rollout",
                    note=told.message,
                    by=f"lading.dev/{NAME}",
                    instance=self._instance,
                    type_="Warning" if told.warning else "Normal",
                )
            except LadingError as error:
                self.shown.metrics.add("lading_rollout_failures_total", code=error.code)


def _unlike(policy: Policy, place: _Place) -> str:
    """Why ``spec.pin`` cannot be that of the service's models, or ""."""
    models = len(place.channel.split("\n")) if place.channel else 0
    if not models or not policy.pin or len(policy.pin.parts) == models:
        return ""
    return f"spec.pin needs a line for each model that the service has from registries ({models}), and has {len(policy.pin.parts)}"


def _lacking(place: _Place) -> str:
    """Why the rollout has no service to manage, or ""."""
    name = read_target(place.rollout["spec"]).name
    if place.rival:
        return f"the ModelRollout {place.rival}, which is older, looks after {place.kind} {name}"
    if place.service is None:
        return f"there is no {place.kind} {name} here"
    return "" if place.channel else f"{place.kind} {name} has no model with a URI"
