"""A service of KServe and its pods: the URI that it follows, its pin, the owner of that field, and its health.

The pin is one key of a map of annotations, which KServe copies to the pods' template.  Beside it, only ``spec.canary``
is written: KServe copies all annotations and labels, and a change would restart the pods.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from lading.delivery import lockfile
from lading.delivery.request import without_choice
from lading.errors import LadingError
from lading.kubernetes.api_server import FIELD_MANAGER, Object, Resource
from lading.model.pin import split_pin
from lading.model.uri import ModelURI
from lading.rollout.health import Pod, Service
from lading.rollout.state import Split, Version
from lading.text.printable import printable

ANNOTATION = "lading.dev/lock"
PODS = Resource("v1", "pods", "Pod")
# The name of the canary's predictor; KServe calls its pods SERVICE-candidate-predictor-….
CANDIDATE = "candidate"
_MOST_NAME = 63
_MODE = "serving.kserve.io/deploymentMode"
# The second one is its name before KServe 0.16.
_STANDARD = "Standard", "RawDeployment"
_INITIALIZER = "storage-initializer"
_MOST_SAID = 1000
# More pods than these would not change the judgement.
_MOST_PODS = 1000


class Kind(NamedTuple):
    """A kind of service: the paths of its model's URI and of its maps of annotations, and the labels of its pods."""

    resource: Resource
    uri: tuple[str, ...]
    annotations: tuple[tuple[str, ...], ...]
    labels: str
    has_canary: bool = False

    def followed(self, service: Object) -> str:
        """The URI of the service's model, as KServe passes it to the pods; "" if it has none."""
        found = _at(service["spec"], self.uri)
        return without_choice(found) if isinstance(found, str) else ""

    def maps(self, service: Object) -> list[tuple[str, ...]]:
        """The paths below the spec of the service's maps of annotations; an LLM's prefill is optional."""
        return [
            path for path in self.annotations if len(path) == 1 or isinstance(_at(service["spec"], path[:-1]), dict)
        ]

    def lock_text(self, service: Object) -> str:
        """The text of the service's annotation; "" if its maps have different ones."""
        texts = [str((_at(service["spec"], path) or {}).get(ANNOTATION, "")) for path in self.maps(service)]
        return texts[0] if len(set(texts)) == 1 else ""

    def fields(self, service: Object, text: str, canary: tuple[int, str] | None = None) -> Object:
        """The fields to apply for this annotation: one key in each of the maps, and nothing else.

        A canary, the percentage of its requests and the text of its own annotation, is all of ``spec.canary``.
        """
        spec: Object = {}
        for path in self.maps(service):
            place = spec
            for part in path:
                place = place.setdefault(part, {})
            place[ANNOTATION] = text
        if canary:
            percent, own = canary
            # KServe merges the rest of the predictor into it, but wants its model here, too.
            predictor = {
                "name": CANDIDATE,
                "annotations": {ANNOTATION: own},
                "model": service["spec"]["predictor"]["model"],
            }
            spec["canary"] = [{"trafficPercent": percent, "predictor": predictor}]
        return {"spec": spec}

    def split(self, service: Object, channel: str) -> Split | None:
        """The service's canary, if it is lading's own; None if there is none."""
        entries = service["spec"].get("canary") if self.has_canary else None
        if not isinstance(entries, list) or not entries or _owner(service, ("canary",)):
            return None
        text = _at(entries[0], ("predictor", "annotations", ANNOTATION))
        has = locked(text, channel) if isinstance(text, str) else None
        percent = _at(entries[0], ("trafficPercent",))
        return Split(has.pin if has else "", percent if isinstance(percent, int) else 0)

    def no_canary(self, service: Object) -> str:
        """Why the service can have no canary of lading's, or ""."""
        if not self.has_canary:
            return f"KServe has none for an {self.resource.kind}"
        if owner := _owner(service, ("canary",)):
            return f"{owner} owns spec.canary"
        mode = str(_at(service, ("status", "deploymentMode")) or _at(service, ("metadata", "annotations", _MODE)) or "")
        if mode not in _STANDARD:
            return f"its deployment mode is {printable(mode) or 'not known'}, and lading splits requests in mode Standard alone"
        if isinstance(_at(service, ("spec", "predictor", "workerSpec")), dict):
            return "its predictor spans several nodes"
        if len(f"{service['metadata']['name']}-{CANDIDATE}-predictor") > _MOST_NAME:
            return f"its name, with -{CANDIDATE}-predictor, has more than {_MOST_NAME} characters"
        return ""

    def owner(self, service: Object) -> str:
        """The name of another manager that owns the annotation, or ""."""
        owners = (_owner(service, (*path, ANNOTATION)) for path in self.annotations)
        return next(filter(None, owners), "")

    def selector(self, name: str) -> str:
        """The label selector of the pods that have the model."""
        return self.labels.format(name=name)


# In an InferenceService, only the predictor's pods have the model.
KINDS = {
    "InferenceService": Kind(
        Resource("serving.kserve.io/v1beta1", "inferenceservices", "InferenceService"),
        ("predictor", "model", "storageUri"),
        (("predictor", "annotations"),),
        "serving.kserve.io/inferenceservice={name},component=predictor",
        has_canary=True,
    ),
    "LLMInferenceService": Kind(
        Resource("serving.kserve.io/v1alpha2", "llminferenceservices", "LLMInferenceService"),
        ("model", "uri"),
        (("annotations",), ("prefill", "annotations")),
        "app.kubernetes.io/name={name},app.kubernetes.io/part-of=llminferenceservice,kserve.io/component=workload",
    ),
}


def _owner(service: Object, path: Sequence[str]) -> str:
    """The name of another manager that owns the field at ``path`` below the spec, or ""."""
    for entry in service["metadata"].get("managedFields") or ():
        manager = str(entry.get("manager") or "")
        if manager != FIELD_MANAGER and _at(entry, ("fieldsV1", "f:spec", *(f"f:{part}" for part in path))) is not None:
            return printable(manager) or "somebody"
    return ""


def lock_text(channel: str, version: Version, *, signed: bool = False) -> str:
    """The text of a lock file that has this version for the channel; if ``signed``, pods demand its signer as well."""
    signature = {"signature": {"signer": version.signer}} if signed and version.signer else {}
    return lockfile.dumps({channel: {"pin": version.pin, "version": version.name, **signature}})


def locked(text: str, channel: str) -> Version | None:
    """The version that the text of a lock file has for the channel."""
    try:
        entry = lockfile.parse_lock(text.encode(), "").get(channel)
        if entry is None or split_pin(ModelURI.parse(entry["pin"]))[1] is None:
            return None
    except LadingError:
        return None
    return Version(entry["pin"], str(entry.get("version") or ""), entry.get("signature", {}).get("signer", ""))


def read_service(service: Object, pods: Sequence[Object], channel: str) -> Service:
    """Read the state of the service and its pods."""
    status = service.get("status") or {}
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions") or ())
    model = status.get("modelStatus") or {}
    failure = model.get("lastFailureInfo") or {}
    said = ": ".join(filter(None, (str(failure.get("reason") or ""), str(failure.get("message") or ""))))
    return Service(
        ready,
        tuple(_pod(each, channel) for each in _there(pods)),
        str(model.get("transitionStatus") or ""),
        _said(said),
    )


def given(pods: Sequence[Object], found: Version) -> str:
    """The exact URI of the version that these pods received, in the form of ``found``; "" if no pod reports it.

    lading's termination message on success is one line of JSON (docs/kserve.md).
    """
    for pod in _there(pods):
        ended = _ended(pod)
        try:
            word = json.loads(str(ended.get("message") or "")) if ended.get("exitCode") == 0 else {}
        except ValueError:
            continue
        version = word.get("version") if isinstance(word, dict) else None
        if isinstance(version, str) and version:
            exact = split_pin(ModelURI.parse(found.pin))[0]
            return str(exact._replace(path=f"{exact.path.rpartition('/')[0]}/{quote(version, safe='')}"))
    return ""


def _there(pods: Sequence[Object]) -> Iterator[Object]:
    """The pods that have not ended and are not terminating."""
    for pod in pods[:_MOST_PODS]:
        over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if not pod["metadata"].get("deletionTimestamp") and not over:
            yield pod


def _pod(pod: Object, channel: str) -> Pod:
    text = str((pod["metadata"].get("annotations") or {}).get(ANNOTATION, ""))
    has = locked(text, channel) if text else None
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


def _at(thing: Any, path: Sequence[str]) -> Any:
    for part in path:
        thing = thing.get(part) if isinstance(thing, dict) else None
    return thing
