"""The loop: it watches, holds the Lease, and runs the cycles of rollouts that are due.

One thread runs all cycles and renews the Lease; others ask names, and watch.  Only the holder of the Lease writes.
A process may be killed anywhere: the next one reads the states and goes on.
"""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from lading.controller.asking import Asking
from lading.controller.cycles import RESYNC_S, Cycles, NotYet
from lading.controller.managed import Managed, read_managed
from lading.controller.selection import select
from lading.controller.service import KINDS
from lading.controller.shown import Shown
from lading.controller.telling import Telling
from lading.errors import lading_error
from lading.events import Listener
from lading.kubernetes.api_server import ApiServer, Object, Resource
from lading.kubernetes.follow import Key
from lading.kubernetes.leader import Leader
from lading.kubernetes.rollouts import ROLLOUTS
from lading.kubernetes.watched import Watched
from lading.telemetry.otlp import Send
from lading.telemetry.rolls import Rolls

_LOOK_EVERY_S = 1.0
_RENEW_S = 15.0
# The pause after an error of the API server.
_AGAIN_S = 10.0
_NEVER = float("inf")


class Controller:
    """Reconciles in its ``tick``; ``watchers``, and the threads of ``asking``, run beside it.

    ``namespace`` is the one that it manages, "" for all.  ``woken`` ends the loop's wait: whoever has an answer sets
    it.  ``unix_time`` gives the times in states.
    """

    def __init__(
        self,
        server: ApiServer,
        asking: Asking,
        leader: Leader,
        listen: Callable[[str], Listener],
        *,
        namespace: str,
        instance: str,
        woken: threading.Event,
        send: Send = lambda _: None,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._server, self._asking, self._leader = server, asking, leader
        self._namespace, self._woken = namespace, woken
        self._now = server.http.retry.run.clock.now
        self.shown = Shown()
        self._rolls = Rolls(send)
        self._telling = Telling(server, self.shown, listen, instance)
        self._cycles = Cycles(
            server, asking, self.shown, self._rolls, self._telling, leads=leader.holds, unix_time=unix_time
        )
        self._rollouts = Watched(self._wake)
        self._services = {kind: Watched(self._wake) for kind in KINDS}
        self._managed: dict[Key, Managed] = {}
        self._renew_s = self._now()

    def watchers(self) -> dict[str, Callable[[], None]]:
        """Functions by name, each of which must run in a thread of its own until the run is stopped."""
        watchers: dict[str, Callable[[], None]] = {"watch-rollouts": partial(self._watch, ROLLOUTS, self._rollouts)}
        for kind, watched in self._services.items():
            watchers[f"watch-{kind}"] = partial(self._watch, KINDS[kind].resource, watched)
        return watchers

    def _watch(self, resource: Resource, watched: Watched) -> None:
        watched.watch(self._server, resource, self._namespace, partial(self._telling.failed, "", "WatchFailed"))

    def _wake(self, _: Key) -> None:
        self._woken.set()

    def ask_now(self) -> None:
        """Ask every name at once, since a webhook said that one of them has moved."""
        self._asking.questions.hurry()
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
            self._know({})
            self._asking.records.forget()
            return _RENEW_S
        if not (self._rollouts.is_listed and all(each.is_listed for each in self._services.values())):
            return _LOOK_EVERY_S
        self.shown.started()
        self._reconcile_due(self._rollouts.all())
        return self._begin()

    def _reconcile_due(self, rollouts: Mapping[Key, Object]) -> None:
        self._know(rollouts)
        self._asking.records.keep({each.uid for each in self._managed.values()}, self._has_service)
        self._asking.questions.follow(self._wanted())
        for key, managed in self._managed.items():
            self._take_turn(key, self._what_matters(managed), partial(self._cycles.reconcile, managed))
        for key, selection in select(rollouts, {kind: each.all() for kind, each in self._services.items()}).items():
            cycle = partial(self._cycles.select, key, selection, self._has_time)
            self._take_turn(key, selection.changes, cycle)

    def _begin(self) -> float:
        """Hand out what the agendas have due; returns the seconds until one of them, or a rollout, is due."""
        # A rollout that never had its turn waits for the Lease to be renewed, or is for no service at all.
        taken = [memory.due_s for memory in self._cycles.memories.values() if memory.seen is not None]
        next_s = min(taken, default=_NEVER) - self._now() if self._has_time() else 0.0
        for what, agenda in self._asking.agendas().items():
            next_s = min(next_s, agenda.begin())
            self.shown.ended(what, agenda.ended)
        return max(next_s, 0.0)

    def _know(self, rollouts: Mapping[Key, Object]) -> None:
        """Take the rollouts that there are now, and forget all others."""
        self._managed = read_managed(rollouts, self._service, self._managed)
        self._cycles.know(rollouts, self._managed)
        names = {key.shown for key in rollouts}
        self.shown.keep(names)
        self._asking.checks.keep(names)
        self._rolls.keep(names)

    def _service(self, kind: str, key: Key) -> Object | None:
        return self._services[kind].get(key)

    def _has_service(self, kind: str, key: Key) -> bool:
        return self._service(kind, key) is not None

    def _wanted(self) -> dict[str, float]:
        """The names to ask, each with the shortest interval in seconds of the rollouts that follow it."""
        wanted: dict[str, float] = {}
        for managed in self._managed.values():
            if managed.asks:
                exact = dict.fromkeys(self._cycles.memories[managed.key].exact, RESYNC_S)
                every_s = exact | dict.fromkeys(managed.channels, managed.policy.every_s)
                wanted |= {name: min(wanted.get(name, _NEVER), seconds) for name, seconds in every_s.items()}
        return wanted

    def _what_matters(self, managed: Managed) -> object:
        """The inputs of a cycle besides the time: when they change, the cycle is due at once."""
        about, service, questions = managed.rollout["metadata"], managed.service, self._asking.questions
        version = service["metadata"].get("resourceVersion") if service else None
        exact = questions.answer(self._cycles.memories[managed.key].exact)
        said = questions.answer(managed.channels), exact, self._asking.checks.last(managed.shown)
        outcome = self._asking.records.outcome(managed.uid)
        return managed.uid, about.get("generation"), version, managed.rival, said, outcome

    def _take_turn(self, key: Key, seen: object, cycle: Callable[[], float]) -> None:
        """Run a rollout's cycle if it is due, or if ``seen`` has changed; the Lease is renewed between two cycles."""
        memory, now_s = self._cycles.memories[key], self._now()
        if (now_s >= memory.due_s or seen != memory.seen) and self._has_time():
            memory.seen = seen
            memory.due_s = now_s + self._attempt(key, cycle)

    def _has_time(self) -> bool:
        """Whether the Lease is held, and need not be renewed yet."""
        return self._now() < self._renew_s and self._leader.holds()

    def _attempt(self, key: Key, cycle: Callable[[], float]) -> float:
        """Run one cycle; returns the seconds until the next one."""
        try:
            return cycle()
        except NotYet:
            return RESYNC_S
        except Exception as error:  # noqa: BLE001 - one rollout's defect must not end all others
            failure = lading_error(error)
        self.shown.metrics.add("lading_rollout_failures_total", code=failure.code)
        self._telling.failed(key.shown, "ReconcileFailed", failure)
        return _AGAIN_S
