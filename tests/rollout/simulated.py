"""A service in a cluster and the channel that it follows, on a clock of their own."""

from datetime import UTC, datetime
from typing import NamedTuple

from lading.rollout.conditions import conditions
from lading.rollout.decide import Decision, Observed, decide
from lading.rollout.health import Pod, Service
from lading.rollout.policy import Policy
from lading.rollout.state import Split, State, Version
from lading.rollout.verdict import PASSED, Verdict

CHANNEL = "model-registry://iris@champion"
LOAD_S = 120.0
MIDNIGHT = datetime(2026, 11, 30, tzinfo=UTC).timestamp()  # a Monday


def version(name: str) -> Version:
    return Version(f"model-registry://prod/iris/{name}?pin=sha256:{name[-1] * 64}", name)


class Write(NamedTuple):
    """A pin, and the percentage of the requests that a canary has beside it."""

    at_s: float
    pin: str
    percent: int = 0


class Killed(Exception):
    """The process was killed."""


class World:
    """Pods take two minutes to load; ``damaged`` versions never do, ``hanging`` ones are never ready."""

    def __init__(self, policy: Policy, now_s: float = MIDNIGHT) -> None:
        self.policy, self.now_s = policy, now_s
        self.state, self.known = State(), ()
        self.names: Version | None = version("v1")
        self.owner, self.replicas = "", 2
        # How many other services are changing to what the channel names, or have failed with it.
        self.beside = 0
        self.damaged: set[str] = set()
        self.hanging: set[str] = set()
        # What the checks say of versions; they pass for all others.
        self.verdicts: dict[str, Verdict] = {}
        # What the annotation says, and since when.
        self.carries: Version | None = None
        self.serves = ""
        self.changed_s = now_s
        # The canary, and since when its pods start.
        self.split: Split | None = None
        self.split_s = now_s
        self.no_canary, self.refused = "", ""
        self.writes: list[Write] = []
        self.told: list[tuple[float, str]] = []
        self.ready = False

    def pods(self) -> tuple[Pod, ...]:
        pin = self.carries.pin if self.carries else ""
        loaded = self.now_s >= self.changed_s + LOAD_S
        if not pin or pin == self.serves:
            return (Pod(self.serves, True),) * self.replicas
        if pin in self.damaged and self.now_s >= self.changed_s + 5:
            return (*[Pod(self.serves, True)] * self.replicas, Pod(pin, False, 6, "error[integrity]: weights differ"))
        if pin in self.hanging or not loaded:
            return (*[Pod(self.serves, True)] * self.replicas, Pod(pin, False))
        self.serves, self.ready = pin, True
        return (Pod(pin, True),) * self.replicas

    def canaries(self) -> tuple[Pod, ...]:
        pin = self.split.pin if self.split else ""
        if pin in self.damaged and self.now_s >= self.split_s + 5:
            return (Pod(pin, False, 6, "error[integrity]: weights differ"),)
        ready = pin not in self.hanging and self.now_s >= self.split_s + LOAD_S
        return (Pod(pin, ready),) if pin else ()

    def observed(self) -> Observed:
        pods = self.pods() + self.canaries() if self.replicas else ()
        service = Service(self.ready, pods)
        away = "" if self.names else "cannot connect to registry"
        return Observed(
            CHANNEL, self.names, service, has=self.carries, is_locked=self.carries is not None, owner=self.owner,
            unresolved=away, verdict=self.verdicts.get(self.state.candidate.pin if self.state.candidate else "", PASSED),
            split=self.split, no_canary=self.no_canary, refused=self.refused,
            beside=self.beside,
        )  # fmt: skip

    def cycle(self, *, killed_before: str = "") -> Decision:
        """One cycle; killed before its state is kept, or before its pin is written."""
        decision = decide(self.policy, self.state, self.observed(), self.now_s)
        if killed_before == "keep":
            raise Killed
        self.state = decision.state
        self.known = conditions(self.state, self.known, self.now_s)
        if killed_before == "write":
            raise Killed
        if decision.pin:
            assert self.owner == ""
            self.write(decision.pin, decision.state.split)
        self.told += [(self.now_s, told.reason) for told in decision.news]
        return decision

    def write(self, pin: str, split: Split | None) -> None:
        (found,) = [each for each in map(version, ("v1", "v2", "v3", "v4", "v5")) if each.pin == pin]
        if self.carries != found:
            self.carries, self.changed_s = found, self.now_s
        if split and (self.split is None or self.split.pin != split.pin):
            self.split_s = self.now_s
        self.split = split
        self.writes.append(Write(self.now_s, pin, split.percent if split else 0))

    def run(self, seconds: float) -> None:
        """Cycles, each when the one before wanted it."""
        until_s = self.now_s + seconds
        while True:
            wait_s = self.cycle().wait_s
            assert 0 < wait_s <= max(self.policy.every_s, 10)
            if self.now_s + wait_s > until_s:
                self.now_s = until_s
                return
            self.now_s += max(wait_s, 1.0)

    def condition(self, type_: str) -> str:
        return next(each.status for each in self.known if each.type == type_)
