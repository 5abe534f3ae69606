"""The pods of a service: which pins they have, how they are, and which versions they received."""

import json
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from lading.controller.service import ANNOTATION, locked
from lading.kubernetes.api_server import Object, Resource
from lading.model.pin import split_pin
from lading.model.uri import ModelURI
from lading.rollout.health import Pod, Service
from lading.rollout.state import Version
from lading.text.printable import printable

PODS = Resource("v1", "pods", "Pod")
_INITIALIZER = "storage-initializer"
_MOST_SAID = 1000
# More pods than these would not change the judgement.
_MOST_PODS = 1000


def read_service(service: Object, pods: Sequence[Object], channels: Sequence[str]) -> Service:
    """Read the state of the service and its pods."""
    status = service.get("status") or {}
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions") or ())
    model = status.get("modelStatus") or {}
    failure = model.get("lastFailureInfo") or {}
    said = ": ".join(filter(None, (str(failure.get("reason") or ""), str(failure.get("message") or ""))))
    return Service(
        ready,
        tuple(_pod(each, channels) for each in _there(pods)),
        str(model.get("transitionStatus") or ""),
        _said(said),
    )


def given(pods: Sequence[Object], found: Version) -> tuple[str, ...]:
    """The exact URIs of the versions that these pods received, in the form of ``found``; none if no pod reports them.

    lading's termination message on success is one line of JSON (docs/kserve.md): an object, or a list of them.
    """
    exact = [split_pin(ModelURI.parse(part.pin))[0] for part in found.parts]
    for pod in _there(pods):
        versions = _delivered(_ended(pod))
        if len(versions) == len(exact) and any(versions):
            return tuple(map(_of_version, exact, versions))
    return ()


def _delivered(ended: Object) -> list[str]:
    """The registry's version of each model that a storage container delivered, "" for one without; none if unknown."""
    try:
        word = json.loads(str(ended.get("message") or "")) if ended.get("exitCode") == 0 else []
    except ValueError:
        return []
    words = word if isinstance(word, list) else [word]
    versions = [each.get("version") for each in words if isinstance(each, dict)]
    return [version if isinstance(version, str) else "" for version in versions]


def _of_version(exact: ModelURI, version: str) -> str:
    path = f"{exact.path.rpartition('/')[0]}/{quote(version, safe='')}" if version else exact.path
    return str(exact._replace(path=path))


def _there(pods: Sequence[Object]) -> Iterator[Object]:
    """The pods that have not ended and are not terminating."""
    for pod in pods[:_MOST_PODS]:
        over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if not pod["metadata"].get("deletionTimestamp") and not over:
            yield pod


def _pod(pod: Object, channels: Sequence[str]) -> Pod:
    text = str((pod["metadata"].get("annotations") or {}).get(ANNOTATION, ""))
    has = locked(text, channels) if text else None
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
    ended = _ended(pod)
    code = int(ended.get("exitCode") or 0)
    message = _said(str(ended.get("message") or "")) if code else ""
    return Pod(has.pin if has else "", ready, code or None, message, _address(pod))


def _address(pod: Object) -> str:
    """The pod's own IP address; "" if it has none, such as in the network of its node."""
    in_its_own = not (pod.get("spec") or {}).get("hostNetwork")
    return str((pod.get("status") or {}).get("podIP") or "") if in_its_own else ""


def _ended(pod: Object) -> Object:
    """The last ``terminated`` state of the storage container; empty if it has not ended."""
    for status in (pod.get("status") or {}).get("initContainerStatuses") or ():
        if status.get("name") == _INITIALIZER:
            for key in ("state", "lastState"):
                ended = (status.get(key) or {}).get("terminated")
                if isinstance(ended, dict):
                    return ended
    return {}


def _said(text: str) -> str:
    return printable(" ".join(text.split()))[:_MOST_SAID]
