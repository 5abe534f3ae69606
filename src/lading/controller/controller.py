"""The loop: which rollout is due, and one cycle of one rollout.

    observe   the ModelRollout, its service, the pods while something is judged, and the answer of its channel
    decide    the next state                        (lading.rollout.decide)
    keep      the state, in the ModelRollout's status
    write     the pin, if the service carries another
    tell      Events on both, metrics, the log

One thread goes through all cycles; others ask names, watch, and keep the Lease.  Only who holds the Lease writes.
A process may be killed anywhere: the next one reads the states and goes on.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from lading.controller.questions import Answer, Questions
from lading.controller.service import KINDS, PODS, given, lock_text, locked, read_service
from lading.controller.shown import Row, Shown
from lading.errors import Interrupted, LadingError, NotAllowed, NotFound, UsageError, internal_error
from lading.events import Listener, RolloutTold
from lading.kubernetes.api_server import ApiServer, Conflict, Resource
from lading.kubernetes.follow import Followed, Key, follow
from lading.kubernetes.leader import Leader
from lading.kubernetes.recorder import record
from lading.model.pin import split_pin
from lading.model.uri import ModelURI, redact
from lading.rollout.conditions import conditions
from lading.rollout.decide import Decision, Observed, Told, decide
from lading.rollout.policy import Policy
from lading.rollout.resource import read_conditions, read_policy, read_state, read_target, status_of
from lading.rollout.state import State, Version

Object = dict[str, Any]

ROLLOUTS = Resource("lading.dev/v1alpha1", "modelrollouts", "ModelRollout")
NAME = "lading-controller"
_LOOK_EVERY_S = 1.0
_RENEW_S = 15.0
# After an error of the API server.
_AGAIN_S = 10.0
# KServe, or one of its kinds, may be installed later.
_MISSING_S = 60.0
_RESYNC_S = 600.0
_NEVER = float("inf")


class _Watched:
    """What there is of one resource, kept by a thread that watches it."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._objects: dict[Key, Object] = {}
        self._told: set[Key] = set()
        self.is_listed = False

    def get(self, key: Key) -> Object | None:
        with self._lock:
            return self._objects.get(key)

    def all(self) -> dict[Key, Object]:
        with self._lock:
            return dict(self._objects)

    def followed(self) -> Followed:
        return Followed(self._there, self._gone, self.listed)

    def listed(self) -> None:
        """All that there is was told: what was not has gone while nobody watched."""
        with self._lock:
            self._objects = {key: thing for key, thing in self._objects.items() if key in self._told}
            self._told = set()
        self.is_listed = True

    def _there(self, key: Key, thing: Object) -> None:
        with self._lock:
            self._objects[key] = thing
            self._told.add(key)
        self._changed(key)

    def _gone(self, key: Key) -> None:
        with self._lock:
            self._objects.pop(key, None)
        self._changed(key)


class _Place(NamedTuple):
    """A rollout as it is now, and the service that it is for; ``rival`` is an older rollout for the same one."""

    key: Key
    rollout: Object
    kind: str
    service: Object | None
    rival: str

    @property
    def shown(self) -> str:
        return f"{self.key.namespace}/{self.key.name}"

    @property
    def channel(self) -> str:
        """The URI that the service follows; "" if there is none."""
        return KINDS[self.kind].followed(self.service) if self.service else ""

    @property
    def asks(self) -> bool:
        """Whether its channel is to be asked."""
        return bool(self.channel) and not self.rival and self.rollout["spec"].get("update") != "Off"


class _NotYet(Exception):
    """A question must be answered first."""


class Controller:
    """Reconciles in its ``tick``; ``watch`` and the questions' ``serve`` are for other threads.

    ``namespace`` is the one that it looks after, "" for all.  ``now`` gives seconds that never go back, ``unix_time``
    those of states.
    """

    def __init__(
        self,
        server: ApiServer,
        questions: Questions,
        leader: Leader,
        listen: Callable[[str], Listener],
        *,
        namespace: str,
        instance: str,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._server, self._questions, self._leader = server, questions, leader
        self._listen, self._namespace, self._instance = listen, namespace, instance
        self._now, self._unix_time = server.http.retry.run.clock.now, unix_time
        self.woken = threading.Event()
        self.shown = Shown()
        self._rollouts = _Watched(self._wake)
        self._services = {kind: _Watched(self._wake) for kind in KINDS}
        # Uid, state and generation as they were kept last, while this process holds the Lease.
        self._states: dict[Key, tuple[str, State, int]] = {}
        self._due_s: dict[Key, float] = {}
        self._seen: dict[Key, object] = {}
        # Exact versions that pods were given before they were pinned, and whose pin is not known.
        self._exact: dict[Key, str] = {}
        self._renew_s = self._now()

    def watchers(self) -> dict[str, Callable[[], None]]:
        """What must run in threads of its own, by name, until the run is stopped."""
        watchers: dict[str, Callable[[], None]] = {"watch-rollouts": partial(self._watch, ROLLOUTS, self._rollouts)}
        for kind, watched in self._services.items():
            watchers[f"watch-{kind}"] = partial(self._watch, KINDS[kind].resource, watched)
        return watchers

    def _watch(self, resource: Resource, watched: _Watched) -> None:
        while True:
            try:
                follow(self._server, resource, self._namespace, watched.followed())
            except Interrupted:
                return
            except NotFound:
                # There are none.
                watched.listed()
            except LadingError as error:
                self._listen("")(RolloutTold("", "WatchFailed", error.message))
            except Exception as error:  # noqa: BLE001 - without a watch, nothing would follow any more
                self._listen("")(RolloutTold("", "WatchFailed", internal_error(error).message))
            self._server.http.retry.run.wait(_MISSING_S, f"waiting for {resource.plural}")

    def _wake(self, _: Key) -> None:
        self.woken.set()

    def answered(self, _: str) -> None:
        """Call after each new answer of the questions."""
        self.woken.set()

    def ask_now(self) -> None:
        """Ask every name at once: somebody said that one of them has moved."""
        self._questions.hurry()
        self.woken.set()

    def run(self) -> None:
        """Reconcile until the run is stopped, which raises ``Interrupted``."""
        run = self._server.http.retry.run
        try:
            while True:
                run.check("reconciling")
                wait_s = self.tick()
                run.clock.wait(self.woken, min(wait_s, _LOOK_EVERY_S))
        finally:
            self._leader.release()

    def tick(self) -> float:
        """Renew the Lease, and reconcile what is due; seconds until the next one is."""
        self.woken.clear()
        if self._now() >= self._renew_s:
            self._renew_s = self._now() + _RENEW_S
            self._leader.ask()
        leads = self._leader.holds()
        self.shown.leads(leads)
        if not leads:
            # Whoever holds it writes states.
            self._forget(set())
            return _RENEW_S
        if not (self._rollouts.is_listed and all(each.is_listed for each in self._services.values())):
            return _LOOK_EVERY_S
        self.shown.started()
        return self._reconcile_due()

    def _reconcile_due(self) -> float:
        places = self._places()
        self._forget({place.key for place in places})
        self._questions.follow(self._wanted(places))
        for place in places:
            seen = self._what_matters(place)
            if self._leader.holds() and (
                self._now() >= self._due_s.get(place.key, 0.0) or seen != self._seen.get(place.key)
            ):
                self._seen[place.key] = seen
                self._due_s[place.key] = self._now() + self._attempt(place)
        asked_s = self._questions.begin()
        for outcome, number in self._questions.asked.items():
            self.shown.metrics.set("lading_rollout_questions_total", number, outcome=outcome)
        return max(min(asked_s, min(self._due_s.values(), default=_NEVER) - self._now()), 0.0)

    def _places(self) -> list[_Place]:
        places, taken = [], dict[tuple[str, Key], str]()
        for key, rollout in sorted(self._rollouts.all().items(), key=_age):
            kind, name = read_target(rollout["spec"])
            target = Key(key.namespace, name)
            rival = taken.setdefault((kind, target), key.name)
            service = self._services[kind].get(target)
            places.append(_Place(key, rollout, kind, service, rival if rival != key.name else ""))
        return places

    def _wanted(self, places: list[_Place]) -> dict[str, float]:
        """The names to ask, and how often: as the most impatient of those that follow it wants."""
        wanted: dict[str, float] = {}
        for place in places:
            if place.asks:
                every_s = self._policy(place).every_s
                wanted[place.channel] = min(wanted.get(place.channel, _NEVER), every_s)
                if exact := self._exact.get(place.key):
                    wanted[exact] = _RESYNC_S
        return wanted

    def _policy(self, place: _Place) -> Policy:
        try:
            return read_policy(place.rollout["spec"])
        except LadingError:
            return Policy()

    def _forget(self, kept: set[Key]) -> None:
        for known in (self._states, self._due_s, self._seen, self._exact):
            for key in known.keys() - kept:
                del known[key]
        self.shown.keep({f"{key.namespace}/{key.name}" for key in kept})

    def _what_matters(self, place: _Place) -> object:
        """What a cycle depends on, besides the time: it comes at once when that changes."""
        about, service = place.rollout["metadata"], place.service
        version = service["metadata"].get("resourceVersion") if service else None
        exact = self._questions.answer(self._exact.get(place.key, ""))
        return about["uid"], about.get("generation"), version, self._questions.answer(place.channel), exact

    # ---- one cycle ------------------------------------------------------------------------

    def _attempt(self, place: _Place) -> float:
        """One cycle; seconds until the next one."""
        try:
            return self._reconcile(place)
        except _NotYet:
            return _RESYNC_S
        except LadingError as error:
            said = error
        except Exception as error:  # noqa: BLE001 - one rollout's defect must not end all others
            said = internal_error(error)
        self.shown.metrics.add("lading_rollout_failures_total", code=said.code)
        self._listen(place.shown)(RolloutTold(place.shown, "ReconcileFailed", said.message))
        return _AGAIN_S

    def _reconcile(self, place: _Place) -> float:
        before = self._state(place)
        decision = self._decided(place, before)
        self._keep(place, decision.state)
        if decision.pin and place.service and decision.state.wanted:
            self._write(place, decision.state, decision.state.wanted)
        for told in decision.told:
            self._tell(place, told)
        return decision.wait_s

    def _state(self, place: _Place) -> State:
        """What is remembered of the rollout: what this process kept last may not have come back by the watch."""
        known = self._states.get(place.key)
        uid = place.rollout["metadata"]["uid"]
        return known[1] if known and known[0] == uid else read_state(place.rollout.get("status") or {})

    def _decided(self, place: _Place, before: State) -> Decision:
        now_s = self._unix_time()
        try:
            policy = read_policy(place.rollout["spec"])
        except LadingError as error:
            return Decision(before.now("Invalid", now_s, error.message), "", (), _RESYNC_S)
        if lacking := _lacking(place):
            # Whatever comes under this name is another service.
            state = State(
                channel=before.channel, refused=before.refused, history=before.history, since_s=before.since_s
            )
            return Decision(state._replace(phase=before.phase).now("NoTarget", now_s, lacking), "", (), _RESYNC_S)
        assert place.service is not None  # noqa: S101 - nothing is lacking
        return decide(policy, before, self._observed(place, place.service, before), now_s)

    def _observed(self, place: _Place, service: Object, state: State) -> Observed:
        kind, name = KINDS[place.kind], place.channel
        answer = self._questions.answer(name) if place.asks else Answer()
        if answer is None:
            raise _NotYet
        channel = redact(name)
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
        )
        return seen._replace(runs=self._runs(place, pods, seen.found) if seen.found and not text else None)

    def _pods(self, place: _Place, labels: str, state: State) -> list[Object]:
        """The service's pods, where anything depends on them."""
        if not state.is_rolling and state.current is not None:
            return []
        return self._server.list_all(PODS, place.key.namespace, labels=labels)

    def _runs(self, place: _Place, pods: list[Object], found: Version) -> Version | None:
        """The version that the pods of a service without a pin were given."""
        exact = given(pods, found)
        if not exact or exact == str(split_pin(ModelURI.parse(found.pin))[0]):
            return found if exact else None
        self._exact[place.key] = exact
        answer = self._questions.answer(exact)
        if answer is None:
            raise _NotYet
        return answer.version

    def _keep(self, place: _Place, state: State) -> None:
        """Write the state to the rollout's status, if that says something else."""
        was = place.rollout.get("status") or {}
        generation = int(place.rollout["metadata"].get("generation") or 0)
        known = self._states.get(place.key)
        kept = known[1:] if known else (read_state(was), int(was.get("observedGeneration") or 0))
        if kept != (state, generation):
            now_s = self._unix_time()
            status = status_of(state, conditions(state, read_conditions(was), now_s), generation)
            self._server.patch(ROLLOUTS, place.rollout, {"status": status}, subresource="status")
        self._states[place.key] = place.rollout["metadata"]["uid"], state, generation
        self.shown.reconciled(Row(place.shown, f"{place.kind} {read_target(place.rollout['spec']).name}", state))

    def _write(self, place: _Place, state: State, wanted: Version) -> None:
        """Apply the annotation with the pin; who refuses that is told, and the next cycle tries again."""
        assert place.service is not None  # noqa: S101 - a pin is of a service
        kind = KINDS[place.kind]
        try:
            self._server.apply(
                kind.resource, place.service, kind.fields(place.service, lock_text(state.channel, wanted))
            )
        except (Conflict, NotAllowed, UsageError) as error:
            self._tell(
                place, Told("TargetConflict", f"the pin of {wanted} cannot be written: {error.message}", warning=True)
            )
            raise
        self.shown.metrics.add("lading_rollout_pins_written_total", rollout=place.shown)

    def _tell(self, place: _Place, told: Told) -> None:
        """Events on the rollout and its service; they are for people, and none is worth another try."""
        if told.reason == "RolledBack":
            self.shown.metrics.add("lading_rollout_rollbacks_total", rollout=place.shown)
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


def _age(item: tuple[Key, Object]) -> tuple[str, Key]:
    """The order of rollouts: the oldest first."""
    return str(item[1]["metadata"].get("creationTimestamp") or ""), item[0]


def _lacking(place: _Place) -> str:
    """Why there is nothing to roll out, or ""."""
    name = read_target(place.rollout["spec"]).name
    if place.rival:
        return f"the ModelRollout {place.rival}, which is older, looks after {place.kind} {name}"
    if place.service is None:
        return f"there is no {place.kind} {name} here"
    return "" if place.channel else f"{place.kind} {name} has no model with a single URI"
