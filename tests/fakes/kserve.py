"""What KServe makes of its objects: which container it chooses, and the pods that come of a service.

The schemas in ``kserve_crds`` are KServe's own.  The rules are those of its admission webhook
(pkg/webhook/admission/pod/storage_initializer_injector.go, oci_fetch.go, pkg/utils/storage.go, pkg/credentials), of its
controllers (pkg/controller/v1alpha2/llmisvc) and of its agent on nodes (pkg/controller/v1alpha1/localmodelnode).
``kserve_pods.yaml`` records what KServe itself made in a cluster; ``test_kserve_pods.py`` compares.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator
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
_IMAGE = "kserve/storage-initializer:latest"
_MODELS = "/mnt/models"
_VOLUME = "kserve-provision-location"
# Annotations of a Secret or a ServiceAccount, and the variables that come of them.
_S3 = {
    "s3-usehttps": "S3_USE_HTTPS",
    "s3-endpoint": "S3_ENDPOINT",
    "s3-region": "AWS_DEFAULT_REGION",
    "s3-usevirtualbucket": "S3_USER_VIRTUAL_BUCKET",
    "s3-useanoncredential": "awsAnonymousCredential",
    "s3-verifyssl": "S3_VERIFY_SSL",
    "s3-cabundle": "AWS_CA_BUNDLE",
}
# Keys of a Secret with a principal of Azure, and the variables of the same names.
_AZURE = (
    *("AZURE_SUBSCRIPTION_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_STORAGE_ACCESS_KEY"),
    *("AZURE_ACCESS_TOKEN", "AZURE_ACCESS_EXPIRES_ON_SECONDS", "AZURE_ACCOUNT_NAME", "AZURE_SERVICE_URL"),
)


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


class KServe:
    """What is made in a namespace that has ``objects``: Secrets, ServiceAccounts, and caches of models.

    ``image``, ``insecure_oci`` and ``ca_bundle`` (the name of a ConfigMap) are those of KServe's own ConfigMap; ``server``
    is the container that a runtime brings.
    """

    def __init__(
        self,
        storage: list[Object],
        objects: list[Object] = [],  # noqa: B006, is never written to
        image: str = _IMAGE,
        server: Object = {},  # noqa: B006
        *,
        insecure_oci: bool = False,
        ca_bundle: str = "",
    ) -> None:
        self.storage = {one["metadata"]["name"]: one for one in storage}
        self._objects = {(one["kind"], one["metadata"]["name"]): one for one in objects}
        self._image, self._server = image, {**server, "name": "kserve-container"}
        self._insecure_oci, self._ca_bundle = insecure_oci, ca_bundle

    def pods(self, service: Object) -> dict[str, Object]:
        """The templates of the pods by the names of their Deployments."""
        name, spec = service["metadata"]["name"], service["spec"]
        if service["kind"] == "LLMInferenceService":
            made = {f"{name}-kserve": self._of_llm(spec, spec)}
            if "prefill" in spec:
                # Its router beside the server asks the API server for the pods of the other kind.
                made[f"{name}-kserve"]["spec"]["serviceAccountName"] = f"{name}-kserve"
                made[f"{name}-kserve-prefill"] = self._of_llm(spec, spec["prefill"])
            return made
        made = {f"{name}-predictor": self._of_component(spec["predictor"])}
        if "transformer" in spec:
            made[f"{name}-transformer"] = self._of_component(spec["transformer"])
        for one in spec.get("canary", []):
            made[f"{name}-{one['predictor']['name']}-predictor"] = self._of_component(one["predictor"])
        return made

    def job(self, cache: Object, node: str) -> Object:
        """The Job that downloads a LocalModelCache to a node: KServe merges nothing into its container."""
        spec = cache["spec"]
        (name,) = matching(list(self.storage.values()), spec["sourceModelUri"], "localModelDownloadJob")
        container = job_container(self.storage[name], cache)
        if "storage" in spec:
            container["env"] = [
                *container.get("env", []),
                _of_secret("STORAGE_CONFIG", "storage-config", spec["storage"]["key"]),
            ]
        claim = {"claimName": f"{cache['metadata']['name']}-{spec['nodeGroups'][0]}"}
        pod = {
            "containers": [container],
            "nodeSelector": {"kubernetes.io/hostname": node},
            "restartPolicy": "Never",
            "securityContext": {"fsGroup": 1000},
            "volumes": [{"name": "kserve-pvc-source", "persistentVolumeClaim": claim}],
        }
        return {"backoffLimit": 6, "ttlSecondsAfterFinished": 3600, "template": {"spec": pod}}

    def _of_component(self, component: Object) -> Object:
        component = dict(component)
        model = component.pop("model", {})
        (server,) = component.pop("containers", [self._server])
        chosen = component.pop("storageContainerName", None)
        uris = component.pop("storageUris", None)
        about = {"annotations": component.pop("annotations", {}), "labels": component.pop("labels", {})}
        for key in ("name", "minReplicas", "maxReplicas"):
            component.pop(key, None)
        pod = {"serviceAccountName": "default", **component, "volumes": list(component.get("volumes", []))}
        uri = model.get("storageUri") or _variable(server, "STORAGE_URI")
        if "storage" in model:
            init, mount = self._from_configuration(*self._stored(model["storage"]))
        elif uri and uri.startswith("oci+fetch://"):
            init, mount = self._of_oci(uri, pod)
        else:
            pairs = [(one["uri"], one.get("mountPath", _MODELS)) for one in uris or []] or [(uri, _MODELS)]
            init, mount = self._from_container(pairs, pod, chosen, volume=None if uris else _VOLUME)
        pod["volumes"].append({"name": mount["name"], "emptyDir": {}})
        pod["initContainers"] = [*component.get("initContainers", []), init]
        pod["containers"] = [_serving(server, mount)]
        return {"metadata": about, "spec": pod}

    def _from_container(
        self, pairs: list[tuple[str, str]], pod: Object, chosen: str | None, volume: str | None
    ) -> tuple[Object, Object]:
        """By the ClusterStorageContainer that the first URI matches."""
        names = matching(list(self.storage.values()), pairs[0][0])
        assert chosen in (None, *names), f"{chosen} does not take {pairs[0][0]}"
        credentials, mounts, volumes = self._credentials(pod["serviceAccountName"])
        container = _container(self._image, pairs, volume)
        model_mount = dict(container["volumeMounts"][0])
        container = merged(container, self.storage[chosen or names[0]]["spec"]["container"])
        _add(container, [*credentials, *_hints()])
        container["volumeMounts"] += mounts
        pod["volumes"] += volumes
        if self._ca_bundle:
            self._add_authorities(container, pod)
        # A volume that the container mounts comes after the model's.
        pod["volumes"].sort(key=lambda one: one in volumes)
        return container, {**model_mount, "readOnly": True}

    def _add_authorities(self, container: Object, pod: Object) -> None:
        place = "/etc/ssl/custom-certs"
        _add(
            container,
            [
                {"name": "CA_BUNDLE_CONFIGMAP_NAME", "value": self._ca_bundle},
                {"name": "CA_BUNDLE_VOLUME_MOUNT_POINT", "value": place},
            ],
        )
        container["volumeMounts"].append({"name": self._ca_bundle, "mountPath": place, "readOnly": True})
        pod["volumes"].append({"name": self._ca_bundle, "configMap": {"name": self._ca_bundle}})

    def _from_configuration(self, uri: str, env: list[Object]) -> tuple[Object, Object]:
        """By the ConfigMap: no ClusterStorageContainer matches what stands for the URI until then."""
        container = _container(self._image, [(uri, _MODELS)], _VOLUME)
        _add(container, [*env, *_hints()])
        return container, {"name": _VOLUME, "mountPath": _MODELS, "readOnly": True}

    def _of_oci(self, uri: str, pod: Object) -> tuple[Object, Object]:
        volume = "kserve-oci-fetch-docker-config"
        container = _container(self._image, [(uri.replace("oci+fetch", "oci", 1), _MODELS)], "mnt-models")
        if self._insecure_oci:
            _add(container, [{"name": "KSERVE_OCI_INSECURE_REGISTRY", "value": "true"}])
        for secret in pod.get("imagePullSecrets", [])[:1]:
            _add(container, [{"name": "KSERVE_OCI_DOCKER_CONFIG", "value": "/mnt/oci-fetch-auth/config.json"}])
            container["volumeMounts"].insert(0, {"name": volume, "mountPath": "/mnt/oci-fetch-auth", "readOnly": True})
            items = [{"key": ".dockerconfigjson", "path": "config.json"}]
            pod["volumes"].append(
                {"name": volume, "secret": {"secretName": secret["name"], "items": items, "defaultMode": 0o400}}
            )
        return container, {"name": "mnt-models", "mountPath": _MODELS}

    def _stored(self, storage: Object) -> tuple[str, list[Object]]:
        """The URI that a key of the Secret ``storage-config`` makes, and the variables."""
        kept = json.loads(self._objects["Secret", "storage-config"]["stringData"][storage["key"]])
        parameters = storage.get("parameters")
        env = [_of_secret("STORAGE_CONFIG", "storage-config", storage["key"])]
        if parameters:
            text = json.dumps(parameters, separators=(",", ":"), sort_keys=True)
            env.append({"name": "STORAGE_OVERRIDE_CONFIG", "value": text})
        bucket = (parameters or {}).get("bucket", kept["bucket"])
        return f"{kept['type']}://{bucket}/{storage['path']}", env

    def _of_llm(self, spec: Object, workload: Object) -> Object:
        """The base model, and adapters below a parent that all have."""
        template = dict(workload.get("template", {}))
        (server,) = template.pop("containers", [self._server])
        pod = {"serviceAccountName": "default", **template, "volumes": list(template.get("volumes", []))}
        about = {"annotations": workload.get("annotations", {}), "labels": {}}
        if not spec.get("storageInitializer", {}).get("enabled", True):
            return {"metadata": about, "spec": {**pod, "containers": [server]}}
        uri = spec["model"]["uri"]
        for cache in self._caches(uri):
            mount = {
                "name": "kserve-pvc-source",
                "mountPath": _MODELS,
                "readOnly": True,
                "subPath": f"{_cached(cache)}/",
            }
            claim = {"claimName": f"{cache['metadata']['name']}-{cache['spec']['nodeGroups'][0]}"}
            pod["volumes"].append({"name": mount["name"], "persistentVolumeClaim": claim})
            return {"metadata": about, "spec": {**pod, "containers": [_serving(server, mount)]}}
        adapters = spec["model"].get("lora", {}).get("adapters", [])
        pairs = [(uri, _MODELS), *((one["uri"], f"/mnt/lora/{one['name']}") for one in adapters)]
        container = _container(self._image, pairs, _VOLUME)
        mount = {**container["volumeMounts"][0], "readOnly": True}
        own = [one for one in pod.get("initContainers", []) if one["name"] == container["name"]]
        for one in own:
            container = merged(container, one)
        if uri.startswith("hf://"):
            _add(container, _hints())
        else:
            credentials, mounts, volumes = self._credentials(pod["serviceAccountName"])
            _add(container, credentials)
            container["volumeMounts"] += mounts
            pod["volumes"] += volumes
        pod["initContainers"] = [*(one for one in pod.get("initContainers", []) if one not in own), container]
        pod["volumes"].append({"name": _VOLUME, "emptyDir": {}})
        return {"metadata": about, "spec": {**pod, "containers": [_serving(server, mount)]}}

    def _caches(self, uri: str) -> Iterator[Object]:
        for (kind, _), one in self._objects.items():
            if kind == "LocalModelCache" and one["spec"]["sourceModelUri"] == uri:
                yield one

    def _credentials(self, account: str) -> tuple[list[Object], list[Object], list[Object]]:
        """Variables, mounts and volumes of what a ServiceAccount has."""
        found = self._objects.get(("ServiceAccount", account), {})
        env: list[Object] = list(_s3_settings(found)) if found else []
        mounts: list[Object] = []
        volumes: list[Object] = []
        for reference in found.get("secrets", []):
            secret = self._objects["Secret", reference["name"]]
            name, data = secret["metadata"]["name"], secret["stringData"]
            if "AWS_ACCESS_KEY_ID" in data:
                env += [_of_secret(key, name, key) for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
                env += _s3_settings(secret)
            elif "gcloud-application-credentials.json" in data:
                path = "/var/secrets/gcloud-application-credentials.json"
                env.append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": path})
                mounts.append({"name": "user-gcp-sa", "mountPath": "/var/secrets/", "readOnly": True})
                volumes.append({"name": "user-gcp-sa", "secret": {"secretName": name}})
            elif "AZURE_CLIENT_SECRET" in data:
                env += [_of_secret(key, name, key) for key in _AZURE if key in data]
            elif "AZURE_STORAGE_ACCESS_KEY" in data:
                env.append(_of_secret("AZURE_STORAGE_ACCESS_KEY", name, "AZURE_STORAGE_ACCESS_KEY"))
            elif "https-host" in data:
                env.append({"name": f"{data['https-host']}-headers", "value": data["headers"]})
            elif "HDFS_NAMENODE" in data:
                mounts.append({"name": "hdfs-secrets", "mountPath": "/var/secrets/kserve-hdfscreds", "readOnly": True})
                volumes.append({"name": "hdfs-secrets", "secret": {"secretName": name}})
            elif "HF_TOKEN" in data:
                env.append(_of_secret("HF_TOKEN", name, "HF_TOKEN"))
        return env, mounts, volumes


def _s3_settings(thing: Object) -> Iterator[Object]:
    given = thing["metadata"].get("annotations", {})
    for key, variable in _S3.items():
        if value := given.get(f"serving.kserve.io/{key}"):
            yield {"name": variable, "value": value}
            if key == "s3-endpoint":
                scheme = "http" if given.get("serving.kserve.io/s3-usehttps") == "0" else "https"
                yield {"name": "AWS_ENDPOINT_URL", "value": f"{scheme}://{value}"}


def _of_secret(variable: str, secret: str, key: str) -> Object:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _hints() -> list[Object]:
    return [{"name": key, "value": text} for key, text in _ALWAYS_ABSENT.items()]


def _variable(container: Object, name: str) -> str | None:
    return next((one["value"] for one in container.get("env", []) if one["name"] == name), None)


def _cached(cache: Object) -> str:
    return f"models/{hashlib.sha256(cache['spec']['sourceModelUri'].encode()).hexdigest()[:16]}"


def _add(container: Object, env: list[Object]) -> None:
    """Variables that the container does not have yet."""
    known = {one["name"] for one in container["env"]}
    container["env"] = [*container["env"], *(one for one in env if one["name"] not in known)]


def _container(image: str, pairs: list[tuple[str, str]], volume: str | None) -> Object:
    """The storage initializer before anything is merged into it; its volume is mounted at the parent of all paths."""
    folder = posixpath.commonpath([path for _, path in pairs])
    return {
        "name": "storage-initializer",
        "image": image,
        "args": [argument for pair in pairs for argument in pair],
        "env": [],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": volume or folder.strip("/").replace("/", "-"), "mountPath": folder}],
        "resources": _RESOURCES,
    }


def _serving(server: Object, mount: Object) -> Object:
    """The server's container, to which the model is mounted, and whose STORAGE_URI is a path then."""
    env = [
        {**one, "value": mount["mountPath"]} if one["name"] == "STORAGE_URI" else one for one in server.get("env", [])
    ]
    return {**server, "env": env, "volumeMounts": [*server.get("volumeMounts", []), mount]}


def init_container(storage: Object, service: Object, env: tuple[Object, ...] = ()) -> Object:
    """The init container of an InferenceService that one ClusterStorageContainer is for; ``env`` is what credentials give."""
    (pod,) = KServe([storage]).pods(service).values()
    container: Object = pod["spec"]["initContainers"][-1]
    own = len(storage["spec"]["container"].get("env", []))
    given = container["env"][:own]
    names = {one["name"] for one in given}
    return {**container, "env": [*given, *(one for one in env if one["name"] not in names), *container["env"][own:]]}


def job_container(storage: Object, cache: Object) -> Object:
    """The container of a download job: KServe replaces its arguments and mounts, and merges nothing."""
    mount = {"name": "kserve-pvc-source", "mountPath": _MODELS, "subPath": _cached(cache)}
    return {**storage["spec"]["container"], "args": [cache["spec"]["sourceModelUri"], _MODELS], "volumeMounts": [mount]}


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
