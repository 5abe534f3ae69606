"""The health of a service's pods with a pin."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from lading.errors import IntegrityError, NotFound, Unsupported, UsageError

# Why a version is rolled back, in one word for conditions and metrics.
Cause = Literal["PodsFailed", "CheckFailed", "DeadlineExceeded", "CanaryRefused"]
# Exit codes of a storage container that a retry does not change.  Credentials, space and an unavailable origin may be
# mended before the deadline.
_FINAL = {kind.exit_code for kind in (UsageError, NotFound, IntegrityError, Unsupported)}


class Pod(NamedTuple):
    """One pod that is not terminating: its pin, the last end of its storage container, and its IP address.

    ``exit_code`` is None if that container has not ended, or ended with 0; ``address`` is "" if checks must not ask it.
    """

    pin: str
    ready: bool
    exit_code: int | None = None
    message: str = ""
    address: str = ""


class Service(NamedTuple):
    """A service's status by KServe, and its pods.

    ``transition`` and ``failure`` are ``status.modelStatus.transitionStatus`` and its ``lastFailureInfo``.
    """

    ready: bool
    pods: tuple[Pod, ...] = ()
    transition: str = ""
    failure: str = ""

    def addresses(self, pin: str) -> tuple[str, ...]:
        """The addresses of the pods that serve ``pin``."""
        return tuple(pod.address for pod in self.pods if pod.pin == pin and pod.ready and pod.address)


class Health(NamedTuple):
    """The health of a pin: all pods serve it, they are still starting, it failed, or there are no pods.

    ``cause`` is a word for what failed, or is waited for.
    """

    word: Literal["serving", "coming", "failed", "idle"]
    why: str = ""
    cause: Cause = "PodsFailed"


def health(service: Service, pin: str, *, beside: bool = False) -> Health:
    """The health of ``pin`` in the service; ``beside`` means that pods with another pin are to stay."""
    if not service.pods:
        return Health("idle", "the service has no pods, and nothing that could be judged")
    own = [pod for pod in service.pods if pod.pin == pin]
    failed = _failed(service, own, beside=beside)
    if failed:
        return Health("failed", failed)
    wanted = own if beside else service.pods
    if own and len(own) == len(wanted) and all(pod.ready for pod in own) and (beside or service.ready):
        return Health("serving")
    return Health("coming", _last_word(own) or f"{sum(pod.ready for pod in own)} of {len(wanted)} pods serve it")


def _failed(service: Service, own: Sequence[Pod], *, beside: bool) -> str:
    for pod in own:
        if pod.exit_code in _FINAL:
            return pod.message or f"the storage container ended with exit code {pod.exit_code}"
    # This status is about the service's main pods: while a pod serves the pin, or has it beside them, about another pin.
    if (
        own
        and not beside
        and service.transition in ("BlockedByFailedLoad", "InvalidSpec")
        and not any(pod.ready for pod in own)
    ):
        return service.failure or service.transition
    return ""


def _last_word(own: Sequence[Pod]) -> str:
    return next((pod.message for pod in own if pod.exit_code), "")
