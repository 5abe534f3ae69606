"""The state of a rollout from one cycle to the next; it is kept in the status of the ModelRollout."""

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

# The longest quarantine of a version that was rolled back often.
_MOST_QUARANTINE_S = 7 * 24 * 3600.0
_MOST_REFUSALS = 20

Phase = Literal[
    "Unresolved",  # the channel cannot be resolved, and nothing is pinned
    "Current",  # the service has the version that the channel names
    "Frozen",  # the service has the pin that its owner chose
    "Off",  # the rollout is switched off
    "Available",  # a newer version is known, and only reported
    "NotAllowed",  # the newer version is not in the range of versions
    "AwaitingApproval",
    "Held",  # the channel has not named the newer version for long enough
    "WindowClosed",
    "Queued",  # as many services as may change to the newer version at a time do so
    "Canary",  # pods of its own begin to serve it, beside those of the version before
    "Paused",  # they serve it, for as long as the step's pause takes
    "Rolling",  # its pin is written, and not all pods serve it yet
    "Idle",  # its pin is written, and there is no pod to judge it by
    "RolledBack",  # the newer version failed, and is not tried again yet
    "Blocked",  # another manager owns the pin
    "NoTarget",  # there is no such service, or another rollout has it
    "Invalid",  # the policy cannot be followed
]


class Version(NamedTuple):
    """A pinned URI, the registry's name for the version, and who signed it, as a rule of trust found; "" if none did.

    Of a service with several models, ``pin`` and ``signer`` have a line for each, and ``name`` lists names: "v3, -".
    """

    pin: str
    name: str = ""
    signer: str = ""

    @classmethod
    def of(cls, parts: Sequence["Version"]) -> "Version":
        """The version of a service whose models have these versions."""
        if len(parts) == 1:
            return parts[0]
        pins, names, signers = zip(*parts, strict=True)
        return cls("\n".join(pins), _listed(names, ", "), _listed(signers, "\n"))

    @property
    def parts(self) -> list["Version"]:
        """The version of each model."""
        pins = self.pin.split("\n")
        if len(pins) == 1:
            return [self]
        return list(map(Version, pins, _each(self.name, ", ", len(pins)), _each(self.signer, "\n", len(pins))))

    @property
    def digest(self) -> str:
        """The digest, ``sha256:…``, by which people name the version: that of the pin, or of all pins."""
        if "\n" in self.pin:
            return f"sha256:{hashlib.sha256(self.pin.encode()).hexdigest()}"
        return self.pin.rpartition("pin=")[2]

    def __str__(self) -> str:
        return f"version {self.name} ({self.digest[:19]}…)" if self.name else self.digest[:19] + "…"


def _listed(texts: Sequence[str], mark: str) -> str:
    return mark.join(text or "-" for text in texts) if any(texts) else ""


def _each(text: str, mark: str, number: int) -> list[str]:
    """The texts of a list; empty ones if it has another number of them."""
    found = text.split(mark)
    return ["" if each == "-" else each for each in found] if len(found) == number else [""] * number


class Refusal(NamedTuple):
    """A version that was rolled back: how often, and until when (Unix time) it is not tried again.

    ``cause`` is the reason in one word: ``health.Cause``, or "" in a status of an older version.
    """

    pin: str
    times: int
    until_s: float
    why: str
    cause: str = ""


class Past(NamedTuple):
    """An entry of the history: the result of one change of version."""

    version: Version
    at_s: float
    result: Literal["Pinned", "Adopted", "Succeeded", "RolledBack", "Withdrawn"]
    why: str = ""


class Recorded(NamedTuple):
    """What the registry knows: the version that the service has, and the history up to ``at_s`` (Unix time)."""

    version: Version | None = None
    at_s: float = 0.0


class Canary(NamedTuple):
    """The step of a canary, from 1, and the percentage of the requests; ``reached_s`` (Unix time) is when it served."""

    step: int
    percent: int
    reached_s: float = 0.0


class Split(NamedTuple):
    """The percentage of a service's requests that goes to pods with another pin."""

    pin: str
    percent: int


class State(NamedTuple):
    """The state of one rollout; times are Unix time.

    ``channel`` is the URI that the service follows, or several in lines.
    ``current`` is the last version that worked; ``candidate`` is another version, which the channel has named since
    ``seen_s``.  ``since_s`` is when the phase began; ``unresolved`` is why the channel could not be resolved the last
    time, or "".  ``unrecorded`` is why the registry could not be told the last time, or "".
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
    recorded: Recorded = Recorded()
    unrecorded: str = ""
    canary: Canary | None = None

    @property
    def channels(self) -> list[str]:
        """The URIs of the channel."""
        return self.channel.split("\n") if self.channel else []

    @property
    def is_rolling(self) -> bool:
        """Whether the candidate is being rolled out to all pods."""
        return self.phase in ("Rolling", "Idle")

    @property
    def is_canary(self) -> bool:
        """Whether the candidate has pods of its own, beside those of the current version."""
        return self.phase in ("Canary", "Paused")

    @property
    def is_moving(self) -> bool:
        """Whether the candidate is being rolled out."""
        return self.is_rolling or self.is_canary

    @property
    def is_stalled(self) -> bool:
        """Whether the change needs a person, or another version."""
        return self.phase in ("RolledBack", "Blocked", "NoTarget", "Invalid")

    @property
    def is_settled(self) -> bool:
        """Whether the service has the version that the policy wants now."""
        return not (self.is_moving or self.is_stalled or self.phase == "Unresolved")

    @property
    def split(self) -> Split | None:
        """The split of requests that the service must have now; a canary stays until all pods serve its version."""
        canary = self.canary if self.is_moving else None
        return Split(self.candidate.pin, canary.percent) if canary and self.candidate else None

    @property
    def wanted(self) -> Version | None:
        """The version that the service must have now."""
        return self.candidate if self.is_rolling else self.current

    def now(self, phase: Phase, now_s: float, why: str = "") -> "State":
        """The state in this phase, which began at ``now_s`` unless it is the present one; a canary ends with its rollout."""
        state = self._replace(phase=phase, since_s=self.since_s if phase == self.phase else now_s, why=why)
        return state if state.is_moving else state._replace(canary=None)

    def seeing(self, version: Version | None, now_s: float) -> "State":
        """The state with this version as candidate, seen since ``now_s`` unless it is the present one."""
        if version is not None and self.candidate is not None and version.pin == self.candidate.pin:
            # Who signed it may have become known meanwhile.
            return self._replace(candidate=version)
        return self._replace(candidate=version, seen_s=now_s if version else 0.0)

    def after(self, past: Past, keep: int) -> "State":
        """The state with one more entry of the history, of which it keeps ``keep``."""
        return self._replace(history=(past, *self.history)[:keep])

    def without_service(self) -> "State":
        """What stays of the state without the service: one that appears under its name later is another one."""
        return State(
            channel=self.channel,
            phase=self.phase,
            since_s=self.since_s,
            refused=self.refused,
            history=self.history,
            recorded=self.recorded,
        )

    def refusal(self, pin: str) -> Refusal | None:
        """The refusal of a version; None if there is none."""
        return next((each for each in self.refused if each.pin == pin), None)

    @property
    def cause(self) -> str:
        """The reason for which the candidate was rolled back, in one word; "" if it was not."""
        refusal = self.refusal(self.candidate.pin) if self.candidate and self.phase == "RolledBack" else None
        return refusal.cause if refusal else ""

    def tries(self, pin: str, now_s: float) -> bool:
        """Whether the service is changing to this version, or has failed with it and is in quarantine.

        While there is no pod (``Idle``), nothing is tried, perhaps for days.
        """
        refusal = self.refusal(pin)
        if refusal and now_s < refusal.until_s:
            return True
        return self.is_moving and self.phase != "Idle" and self.candidate is not None and self.candidate.pin == pin

    def refusing(self, pin: str, why: str, cause: str, now_s: float, quarantine_s: float) -> "State":
        """The state with a refusal: the version is not tried again before its quarantine is over."""
        before = self.refusal(pin)
        times = before.times + 1 if before else 1
        until_s = now_s + min(quarantine_s * 2.0 ** min(times - 1, 60), _MOST_QUARANTINE_S)
        others = tuple(each for each in self.refused if each.pin != pin)
        return self._replace(refused=(Refusal(pin, times, until_s, why, cause), *others)[:_MOST_REFUSALS])
