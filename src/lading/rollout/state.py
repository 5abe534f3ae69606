"""What is remembered of a rollout from one cycle to the next; it is kept in the status of the ModelRollout."""

from typing import Literal, NamedTuple

# Of a version that was rolled back often.
_MOST_QUARANTINE_S = 7 * 24 * 3600.0
_MOST_REFUSALS = 20

Phase = Literal[
    "Unresolved",  # nobody could say what the channel names, and nothing is pinned
    "Current",  # the service has what the channel names
    "Frozen",  # it has the pin that its owner chose
    "Off",  # nobody looks
    "Available",  # a newer version is known, and only told
    "NotAllowed",  # the range of versions leaves it out
    "AwaitingApproval",
    "Held",  # it has not been named for long enough
    "WindowClosed",
    "Rolling",  # its pin is written, and pods have not all come to serve it
    "Idle",  # its pin is written, and there is no pod to judge it by
    "RolledBack",  # it did not do, and is not tried again yet
    "Blocked",  # another manager owns the pin
    "NoTarget",  # there is no such service, or another rollout has it
    "Invalid",  # what its owner asks for cannot be done
]


class Version(NamedTuple):
    """A pinned URI, and what the registry calls it."""

    pin: str
    name: str = ""

    @property
    def digest(self) -> str:
        """The pin's digest, which names the version to people: ``sha256:…``."""
        return self.pin.rpartition("pin=")[2]

    def __str__(self) -> str:
        return f"version {self.name} ({self.digest[:19]}…)" if self.name else self.digest[:19] + "…"


class Refusal(NamedTuple):
    """A version that was rolled back, how often, and until when (Unix time) it is not tried again."""

    pin: str
    times: int
    until_s: float
    why: str


class Past(NamedTuple):
    """How a version came to the service, or did not."""

    version: Version
    at_s: float
    result: Literal["Pinned", "Adopted", "Succeeded", "RolledBack", "Withdrawn"]
    why: str = ""


class State(NamedTuple):
    """One rollout; times are Unix time.

    ``current`` is the last version that did, ``candidate`` the one that the channel names beside it, named since
    ``seen_s``.  ``since_s`` is when the phase began; ``unresolved`` why the channel could not be asked last time.
    """

    channel: str = ""
    current: Version | None = None
    candidate: Version | None = None
    seen_s: float = 0.0
    phase: Phase = "Unresolved"
    since_s: float = 0.0
    why: str = ""
    unresolved: str = ""
    refused: tuple[Refusal, ...] = ()
    history: tuple[Past, ...] = ()

    @property
    def is_rolling(self) -> bool:
        """Whether the service is to have the candidate now."""
        return self.phase in ("Rolling", "Idle")

    @property
    def wanted(self) -> Version | None:
        """What the service is to have now."""
        return self.candidate if self.is_rolling else self.current

    def now(self, phase: Phase, now_s: float, why: str = "") -> "State":
        """In this phase, since ``now_s`` if it is another one."""
        return self._replace(phase=phase, since_s=self.since_s if phase == self.phase else now_s, why=why)

    def seeing(self, version: Version | None, now_s: float) -> "State":
        """With what the channel names beside the current version."""
        if version is not None and self.candidate is not None and version.pin == self.candidate.pin:
            return self
        return self._replace(candidate=version, seen_s=now_s if version else 0.0)

    def after(self, past: Past, keep: int) -> "State":
        """With one more entry of the history."""
        return self._replace(history=(past, *self.history)[:keep])

    def refusal(self, pin: str) -> Refusal | None:
        """What is known against a version."""
        return next((each for each in self.refused if each.pin == pin), None)

    def refusing(self, pin: str, why: str, now_s: float, quarantine_s: float) -> "State":
        """With a version that is not tried again before its quarantine is over."""
        before = self.refusal(pin)
        times = before.times + 1 if before else 1
        until_s = now_s + min(quarantine_s * 2.0 ** min(times - 1, 60), _MOST_QUARANTINE_S)
        others = tuple(each for each in self.refused if each.pin != pin)
        return self._replace(refused=(Refusal(pin, times, until_s, why), *others)[:_MOST_REFUSALS])
