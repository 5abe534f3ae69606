"""A service of KServe: the URIs that it follows, its pin, and the owner of that field.

The pin is one key of a map of annotations, which KServe copies to the pods' template.  Beside it, only ``spec.canary``
is written: KServe copies all annotations and labels, and a change would restart the pods.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lading.delivery import lockfile
from lading.delivery.request import without_choice
from lading.errors import LadingError
from lading.kubernetes.api_server import FIELD_MANAGER, Object, Resource
from lading.model.pin import split_pin
from lading.model.uri import ModelURI
from lading.rollout.state import Split, Version
from lading.text.printable import printable

ANNOTATION = "lading.dev/lock"
_MOUNTED = ("pvc://", "oci://", "oci+native://")
# The name of the canary's predictor; KServe calls its pods SERVICE-candidate-predictor-….
CANDIDATE = "candidate"
_MOST_NAME = 63
_MODE = "serving.kserve.io/deploymentMode"
# The second one is its name before KServe 0.16.
_STANDARD = "Standard", "RawDeployment"


class Kind(NamedTuple):
    """A kind of service: the paths of its models' URIs and of its maps of annotations, and the labels of its pods.

    At a path of ``uris`` is a URI, or a list of objects with the key ``uri``.
    """

    resource: Resource
    uris: tuple[tuple[str, ...], ...]
    annotations: tuple[tuple[str, ...], ...]
    labels: str
    has_canary: bool = False

    def followed(self, service: Object) -> tuple[str, ...]:
        """The URIs of the service's models, as KServe passes them to its pods.

        KServe mounts volumes and images by itself: what else the service has is delivered.
        """
        found = [uri for path in self.uris for uri in _uris(_at(service, ("spec", *path)))]
        return tuple([uri for uri in found if not uri.startswith(_MOUNTED)] or found)

    def maps(self, service: Object) -> list[tuple[str, ...]]:
        """The paths below the spec of the service's maps of annotations; an LLM's prefill is optional."""
        parents = {path: _at(service, ("spec", *path[:-1])) for path in self.annotations}
        return [path for path, parent in parents.items() if len(path) == 1 or isinstance(parent, dict)]

    def lock_text(self, service: Object) -> str:
        """The text of the service's annotation; "" if its maps have different ones."""
        texts = [str((_at(service, ("spec", *path)) or {}).get(ANNOTATION, "")) for path in self.maps(service)]
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

    def split(self, service: Object, channels: Sequence[str]) -> Split | None:
        """The service's canary, if it is lading's own; None if there is none."""
        entries = _at(service, ("spec", "canary")) if self.has_canary else None
        if not isinstance(entries, list) or not entries or _owner(service, ("canary",)):
            return None
        text = _at(entries[0], ("predictor", "annotations", ANNOTATION))
        has = locked(text, channels) if isinstance(text, str) else None
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
            named = printable(mode) or "not known"
            return f"its deployment mode is {named}, and lading splits requests in mode Standard alone"
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
        (("predictor", "model", "storageUri"), ("predictor", "storageUris")),
        (("predictor", "annotations"),),
        "serving.kserve.io/inferenceservice={name},component=predictor",
        has_canary=True,
    ),
    "LLMInferenceService": Kind(
        Resource("serving.kserve.io/v1alpha2", "llminferenceservices", "LLMInferenceService"),
        (("model", "uri"), ("model", "lora", "adapters")),
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


def lock_text(channels: Sequence[str], version: Version, *, signed: bool = False) -> str:
    """The text of a lock file that has this version: a pin for each of the URIs that the service follows.

    If ``signed``, pods demand their signers as well.
    """
    parts = zip(channels, version.parts, strict=True)
    return lockfile.dumps({uri: _entry(part, signed=signed) for uri, part in parts})


def _entry(version: Version, *, signed: bool) -> Object:
    signature = {"signature": {"signer": version.signer}} if signed and version.signer else {}
    return {"pin": version.pin, "version": version.name, **signature}


def locked(text: str, channels: Sequence[str]) -> Version | None:
    """The version that the text of a lock file has for these URIs; None if it lacks one of them."""
    try:
        models = lockfile.parse_lock(text.encode(), "")
        entries = [models[uri] for uri in channels]
        if any(split_pin(ModelURI.parse(entry["pin"]))[1] is None for entry in entries):
            return None
    except (LadingError, KeyError):
        return None
    return Version.of([_version(entry) for entry in entries])


def _version(entry: Object) -> Version:
    return Version(entry["pin"], str(entry.get("version") or ""), entry.get("signature", {}).get("signer", ""))


def _uris(found: Any) -> Iterator[str]:
    """The URIs at a path of a service's spec, without what chose the container; one with a line break is none."""
    for each in found if isinstance(found, list) else [{"uri": found}]:
        uri = each.get("uri") if isinstance(each, dict) else None
        if isinstance(uri, str) and "\n" not in uri:
            yield without_choice(uri)


def _at(thing: Any, path: Sequence[str]) -> Any:
    for part in path:
        thing = thing.get(part) if isinstance(thing, dict) else None
    return thing
