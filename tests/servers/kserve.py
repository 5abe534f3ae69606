"""What KServe makes of a ClusterStorageContainer: whether its API takes one, which one it chooses, which container comes of it.

The schemas in ``kserve_crds`` are KServe's own. The rules are those of its admission webhook
(pkg/webhook/admission/pod/storage_initializer_injector.go, pkg/utils/storage.go) and of its agent on nodes
(pkg/controller/v1alpha1/localmodelnode/controller.go).
"""

import hashlib
import posixpath
import re
from pathlib import Path
from typing import Any

import jsonschema
import yaml

Object = dict[str, Any]

_CRDS = Path(__file__).with_name("kserve_crds")
# What a strategic merge matches the items of a list by; a list that is not here is replaced.
_KEYS = {"env": "name", "volumeMounts": "mountPath", "volumeDevices": "devicePath", "ports": "containerPort"}
_ALWAYS_ABSENT = {
    "HF_HUB_ENABLE_HF_TRANSFER": "1",
    "HF_XET_HIGH_PERFORMANCE": "1",
    "HF_XET_NUM_CONCURRENT_RANGE_GETS": "8",
}
_RESOURCES = {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}


def validate(thing: Object) -> None:
    """Raise unless KServe's schema for this kind takes it, with no field that would be dropped unseen."""
    for path in _CRDS.iterdir():
        crd = yaml.safe_load(path.read_text())["spec"]
        if crd["names"]["kind"] == thing["kind"]:
            (version,) = (version for version in crd["versions"] if thing["apiVersion"].endswith(f"/{version['name']}"))
            jsonschema.validate(thing, _closed(version["schema"]["openAPIV3Schema"]))
            return
    raise LookupError(f"no schema of {thing['kind']}")


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def matching(containers: list[Object], uri: str, workload: str = "initContainer") -> list[str]:
    """The names of those that KServe may choose for this URI: of several, any."""
    return [
        one["metadata"]["name"]
        for one in containers
        if one["spec"].get("workloadType", "initContainer") == workload and not one.get("disabled")
        if any(_matches(form, uri) for form in one["spec"]["supportedUriFormats"])
    ]


def _matches(form: Object, uri: str) -> bool:
    if form.get("prefix"):
        return uri.startswith(form["prefix"])
    return re.search(form["regex"], uri) is not None


def init_container(storage: Object, service: Object, env: tuple[Object, ...] = ()) -> Object:
    """The init container of an InferenceService; ``env`` is what KServe takes from Secrets and annotations."""
    predictor = service["spec"]["predictor"]
    if "storageUris" in predictor:
        pairs = [(one["uri"], one.get("mountPath", "/mnt/models")) for one in predictor["storageUris"]]
        folder = posixpath.commonpath([path for _, path in pairs])
        volume = folder.strip("/").replace("/", "-")
    else:
        pairs, folder, volume = (
            [(predictor["model"]["storageUri"], "/mnt/models")],
            "/mnt/models",
            "kserve-provision-location",
        )
    injected = {
        "name": "storage-initializer",
        "image": "kserve/storage-initializer:latest",
        "args": [argument for pair in pairs for argument in pair],
        "env": list(env),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": volume, "mountPath": folder, "readOnly": False}],
        "resources": _RESOURCES,
    }
    container = merged(injected, storage["spec"]["container"])
    known = {one["name"] for one in container["env"]}
    container["env"] += [{"name": key, "value": text} for key, text in _ALWAYS_ABSENT.items() if key not in known]
    return container


def job_container(storage: Object, cache: Object) -> Object:
    """The container of a download job: KServe replaces its arguments and mounts, and merges nothing."""
    uri = cache["spec"]["sourceModelUri"]
    key = hashlib.sha256(uri.encode()).hexdigest()[:16]
    mount = {"name": "kserve-pvc-source", "mountPath": "/mnt/models", "subPath": f"models/{key}", "readOnly": False}
    return {**storage["spec"]["container"], "args": [uri, "/mnt/models"], "volumeMounts": [mount]}


def merged(base: Object, patch: Object) -> Object:
    """A strategic merge of two containers; what ``patch`` says wins.

    https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
    """
    result = dict(base)
    for key, value in patch.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = merged(old, value)
        elif isinstance(old, list) and key in _KEYS:
            given = {one[_KEYS[key]]: one for one in value}
            result[key] = [given.pop(one[_KEYS[key]], one) for one in old] + list(given.values())
        else:
            result[key] = value
    return result
