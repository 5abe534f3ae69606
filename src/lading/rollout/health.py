"""How the pods of a service are with a pin."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from lading.errors import IntegrityError, NotFound, Unsupported, UsageError

# A storage container that ends so ends so again.  Credentials, space and an origin may come back before the deadline.
_FINAL = {kind.exit_code for kind in (UsageError, NotFound, IntegrityError, Unsupported)}


class Pod(NamedTuple):
    """One pod that is not on its way out: the pin that it carries, and how its storage container ended last.

    ``exit_code`` is None where that has not ended, or ended well.
    """

    pin: str
    ready: bool
    exit_code: int | None = None
    message: str = ""


class Service(NamedTuple):
    """A service as KServe tells of it, and its pods.

    ``transition`` and ``failure`` are ``status.modelStatus.transitionStatus`` and its ``lastFailureInfo``.
    """

    ready: bool
    pods: tuple[Pod, ...] = ()
    transition: str = ""
    failure: str = ""


class Health(NamedTuple):
    """How a pin does: all pods serve it, they are still coming, it failed, or there is no pod to judge by."""

    word: Literal["serving", "coming", "failed", "idle"]
    why: str = ""


def health(service: Service, pin: str) -> Health:
    """How ``pin`` does in the service."""
    if not service.pods:
        return Health("idle", "the service has no pods, and nothing that could be judged")
    own = [pod for pod in service.pods if pod.pin == pin]
    failed = _failed(service, own)
    if failed:
        return Health("failed", failed)
    if len(own) == len(service.pods) and all(pod.ready for pod in own) and service.ready:
        return Health("serving")
    return Health("coming", _last_word(own) or f"{sum(pod.ready for pod in own)} of {len(service.pods)} pods serve it")


def _failed(service: Service, own: Sequence[Pod]) -> str:
    for pod in own:
        if pod.exit_code in _FINAL:
            return pod.message or f"the storage container ended with exit code {pod.exit_code}"
    # Of the service as a whole: while a pod serves the pin, it tells of another one.
    if own and service.transition in ("BlockedByFailedLoad", "InvalidSpec") and not any(pod.ready for pod in own):
        return service.failure or service.transition
    return ""


def _last_word(own: Sequence[Pod]) -> str:
    return next((pod.message for pod in own if pod.exit_code), "")
