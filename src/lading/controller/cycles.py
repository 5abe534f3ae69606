"""One cycle of one rollout.

    observe   the ModelRollout, its service, its pods while a version is judged, and the answer for its channel
    decide    the next state                        (lading.rollout.decide)
    keep      the state, in the ModelRollout's status
    write     pin and canary, if the service has others
    tell      Events on both, metrics, the log

The cycle of a rollout that selects services writes rollouts in place of a pin.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from lading.controller.asking import Asking
from lading.controller.checking import Asked
from lading.controller.managed import Managed
from lading.controller.pods import PODS, given, read_service
from lading.controller.questions import Answer
from lading.controller.selection import Selection
from lading.controller.service import KINDS, lock_text, locked
from lading.controller.shown import Row, Shown
from lading.controller.telling import Telling
from lading.errors import NotAllowed, UsageError
from lading.kubernetes.api_server import ApiServer, Object
from lading.kubernetes.follow import Key
from lading.kubernetes.refused import Conflict, Missing
from lading.kubernetes.rollouts import ROLLOUTS
from lading.model.pin import split_pin
from lading.model.uri import ModelURI, redact
from lading.rollout.conditions import conditions
from lading.rollout.decide import Decision, Observed, decide, is_up
from lading.rollout.in_spec import read_target, shown_target
from lading.rollout.in_status import read_conditions, read_state, status_of
from lading.rollout.news import News
from lading.rollout.state import State, Version
from lading.rollout.together import together
from lading.telemetry.rolls import Rolls

# The time until the next cycle, if nothing happens before.
RESYNC_S = 600.0
# The time between two sums of the services that a rollout selects.
_LOOK_AT_SERVICES_S = 10.0


class NotYet(Exception):
    """The cycle needs the answer to a question first."""


@dataclass
class Memory:
    """What this process knows of a rollout between two cycles.

    ``state`` is what its status has, decided by the spec of this ``generation``.  ``exact`` are the URIs of the
    versions that the pods of a service without a pin received, while their pins are not known.  ``refused`` is why the
    API server did not take the canary the last time, or "".  ``due_s`` is when the next cycle is due by the clock,
    ``seen`` what the last one depended on.
    """

    uid: str
    state: State
    generation: int
    exact: tuple[str, ...] = ()
    refused: str = ""
    due_s: float = 0.0
    seen: object = None


class Cycles:
    """Runs the cycles of rollouts, in one thread, and remembers what is between them.

    ``leads`` says whether this process may still write.
    """

    def __init__(
        self,
        server: ApiServer,
        asking: Asking,
        shown: Shown,
        rolls: Rolls,
        telling: Telling,
        *,
        leads: Callable[[], bool],
        unix_time: Callable[[], float],
    ) -> None:
        self._server, self._shown, self._rolls, self._telling = server, shown, rolls, telling
        self._questions, self._checks, self._records = asking
        self._leads, self._unix_time = leads, unix_time
        self._managed: Mapping[Key, Managed] = {}
        self.memories: dict[Key, Memory] = {}

    def know(self, rollouts: Mapping[Key, Object], managed: Mapping[Key, Managed]) -> None:
        """Take the rollouts that there are now, and forget all others.

        A state is read from the status once: then this process writes it, and the watch may be behind.
        """
        self._managed = managed
        old, self.memories = self.memories, {}
        for key, rollout in rollouts.items():
            was = old.get(key)
            self.memories[key] = was if was and was.uid == rollout["metadata"]["uid"] else _read(rollout)

    def reconcile(self, managed: Managed) -> float:
        """Run the cycle of a rollout for one service; returns the seconds until the next one."""
        memory = self.memories[managed.key]
        before = memory.state
        decision = self._recorded(managed, before, self._decided(managed, memory))
        self._keep(managed.key, managed.rollout, decision.state)
        self._rolls.follow(managed.shown, before, decision.state)
        # They are needed only until the version that was there is known.
        memory.exact = ()
        if not decision.state.is_canary:
            memory.refused = ""
        if not decision.state.is_moving:
            self._checks.forget(managed.shown)
        try:
            return self._written(managed, memory, decision)
        finally:
            # The state is kept, so the next cycle would not tell it again.
            for news in decision.news:
                self._telling.tell(managed, news)

    def select(self, key: Key, selection: Selection, has_time: Callable[[], bool]) -> float:
        """Give each selected service a rollout of its own, and keep the state of all of them together."""
        refused = [f"{name} belongs to nobody, or to another rollout" for name in selection.taken]
        for fields in selection.apply:
            if not has_time():
                return 0.0
            own = selection.own.get(read_target(fields["spec"]).name, fields)
            try:
                self._server.apply(ROLLOUTS, own, fields)
            except (Conflict, UsageError) as error:
                # Somebody has changed this one by hand, or its name is too long: the others get theirs nevertheless.
                refused.append(error.message)
        for rollout in selection.delete:
            with suppress(Missing, Conflict):
                self._server.delete(ROLLOUTS, rollout)
        states = {name: self.memories[Key.of(own)].state for name, own in selection.own.items()}
        state = together(states, self.memories[key].state, self._unix_time())
        self._keep(key, selection.rollout, state._replace(why="; ".join([state.why, *refused[:3]])))
        if refused:
            raise UsageError("; ".join(refused[:3]))
        return _LOOK_AT_SERVICES_S

    # ---- observe --------------------------------------------------------------------------

    def _observed(self, managed: Managed, service: Object, memory: Memory) -> Observed:
        kind = KINDS[managed.kind]
        answer = self._questions.answer(managed.channels) if managed.asks else Answer()
        if answer is None:
            raise NotYet
        channels = [redact(uri) for uri in managed.channels]
        pods = self._pods(managed, service, memory.state)
        text = kind.lock_text(service)
        seen = Observed(
            channel="\n".join(channels),
            found=None if answer.error else answer.version,
            service=read_service(service, pods, channels),
            has=locked(text, channels) if text else None,
            is_locked=bool(text),
            owner=kind.owner(service),
            unresolved=answer.error,
            split=kind.split(service, channels),
            no_canary=kind.no_canary(service),
            refused=memory.refused,
            beside=self._beside(managed, answer.version),
        )
        return seen._replace(runs=self._runs(memory, pods, seen.found) if seen.found and not text else None)

    def _pods(self, managed: Managed, service: Object, state: State) -> list[Object]:
        """The service's pods, if the decision depends on them; else none."""
        if not state.is_moving and state.current is not None:
            return []
        labels = KINDS[managed.kind].selector(service["metadata"]["name"])
        return self._server.list_all(PODS, managed.key.namespace, labels=labels)

    def _runs(self, memory: Memory, pods: list[Object], found: Version) -> Version | None:
        """The version that the pods of a service without a pin received; None if that is unknown."""
        exact = given(pods, found)
        if not exact or exact == tuple(str(split_pin(ModelURI.parse(part.pin))[0]) for part in found.parts):
            return found if exact else None
        memory.exact = exact
        answer = self._questions.answer(exact)
        if answer is None:
            raise NotYet
        return answer.version

    def _beside(self, managed: Managed, found: Version | None) -> int:
        """How many other services of the namespace are changing to this version, or have failed with it."""
        if found is None or not managed.policy.max_concurrent:
            return 0
        now_s, own = self._unix_time(), managed.key
        others = (key for key in self._managed if key.namespace == own.namespace and key != own)
        return sum(self.memories[key].state.tries(found.pin, now_s) for key in others)

    # ---- decide ---------------------------------------------------------------------------

    def _decided(self, managed: Managed, memory: Memory) -> Decision:
        now_s, policy, before = self._unix_time(), managed.policy, memory.state
        if invalid := managed.invalid or self._checks.refusal(policy.checks):
            return Decision(before.now("Invalid", now_s, invalid), "", (), RESYNC_S)
        if managed.service is None or managed.lacks:
            return Decision(before.without_service().now("NoTarget", now_s, managed.lacks), "", (), RESYNC_S)
        observed = self._observed(managed, managed.service, memory)
        return decide(policy, before, self._checked(managed, before, observed), now_s)

    def _checked(self, managed: Managed, state: State, observed: Observed) -> Observed:
        """What is observed, with the verdict of the policy's checks once the candidate is served."""
        checks = managed.policy.checks
        if not (checks and state.candidate and is_up(state, observed.service)):
            return observed
        pin = state.candidate.pin
        asked = Asked(checks, pin, state.canary.step if state.is_canary and state.canary else 0)
        return observed._replace(verdict=self._checks.verdict(managed.shown, asked, observed.service.addresses(pin)))

    def _recorded(self, managed: Managed, before: State, decision: Decision) -> Decision:
        """The decision with what the registry knows by now; what it lacks is told in another thread."""
        if managed.rival or not managed.policy.record:
            self._records.leave(managed.uid)
            return decision._replace(state=decision.state._replace(unrecorded=""))
        state = self._records.follow(managed.uid, managed.kind, managed.service_key, decision.state)
        news = decision.news
        if state.unrecorded and not before.unrecorded:
            news = (*news, News("NotRecorded", state.unrecorded, warning=True))
        return decision._replace(state=state, news=news)

    # ---- keep and write -------------------------------------------------------------------

    def _keep(self, key: Key, rollout: Object, state: State) -> None:
        """Write the state to the rollout's status, if it has changed."""
        memory, generation = self.memories[key], int(rollout["metadata"].get("generation") or 0)
        if (memory.state, memory.generation) != (state, generation):
            before = read_conditions(rollout.get("status") or {})
            status = status_of(state, conditions(state, before, self._unix_time()), generation)
            self._server.patch(ROLLOUTS, rollout, {"status": status}, subresource="status")
            memory.state, memory.generation = state, generation
        self._shown.reconciled(Row(key.shown, shown_target(rollout["spec"]), state))

    def _written(self, managed: Managed, memory: Memory, decision: Decision) -> float:
        """Write the pin, if the service has another one; returns the seconds until the next cycle."""
        if not (decision.pin and managed.service and decision.state.wanted):
            return decision.wait_s
        if not self._leads():
            # What came before has taken so long that another process may write by now.
            return 0.0
        self._write(managed, memory, managed.service, decision.state.wanted)
        return decision.wait_s

    def _write(self, managed: Managed, memory: Memory, service: Object, wanted: Version) -> None:
        """Apply the annotation with the pin, and the canary; a refusal is reported, and the next cycle tries again."""
        kind, state, split = KINDS[managed.kind], memory.state, memory.state.split
        to_text = partial(lock_text, state.channels, signed=bool(managed.policy.signed_by))
        canary = (split.percent, to_text(state.candidate)) if split and state.candidate else None
        try:
            self._server.apply(kind.resource, service, kind.fields(service, to_text(wanted), canary))
        except (Conflict, NotAllowed, UsageError) as error:
            memory.refused = error.message if canary else ""
            why = f"the pin of {wanted} cannot be written: {error.message}"
            self._telling.tell(managed, News("TargetConflict", why, warning=True))
            raise
        memory.refused = ""
        self._shown.metrics.add("lading_rollout_pins_written_total", rollout=managed.shown)


def _read(rollout: Object) -> Memory:
    status = rollout.get("status") or {}
    return Memory(rollout["metadata"]["uid"], read_state(status), int(status.get("observedGeneration") or 0))
