"""A namespace of one test: pods are started in it, watched and asked."""

import hashlib
import http.client
import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from cluster import images
from cluster.api import Api, Object, Refused, named
from cluster.single_node import Cluster

# As KServe's runtimes have it; that the pod has a seccomp profile is the service's matter.
_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "runAsNonRoot": True,
}
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
# The ConfigMap of certificate authorities that KServe mounts, if its own ConfigMap names it.
BUNDLE = "global-ca-bundle"
SECCOMP = {"seccompProfile": {"type": "RuntimeDefault"}}
# Of each pod that became ready, when it was what, in seconds since it was asked for, as the kubelet tells it once a second;
# and how long its storage initializer ran, as containerd knows it.
TIMELINES: list[tuple[str, dict[str, float]]] = []


class Place:
    def __init__(self, cluster: Cluster, api: Api, name: str, labels: dict[str, str] = RESTRICTED) -> None:
        self.cluster, self.api, self.name = cluster, api, name
        self._asked: dict[str, float] = {}
        space = named("Namespace", name)
        space["metadata"]["labels"] = labels
        api.apply(space)
        # Pods are refused until it is there.
        api.until(named("ServiceAccount", "default", name), bool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        """Everything in it goes while the next test runs."""
        for pod in self.api.all(named("Pod", "", self.name)):
            with suppress(Refused):
                self.api.delete(named("Pod", pod["metadata"]["name"], self.name), gracePeriodSeconds=0)
        self.api.delete(named("Namespace", self.name))

    def model_server(self, **about: Any) -> Object:
        """The container that a runtime brings."""
        probe = {"httpGet": {"path": "/v2/health/ready", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 10}
        return {
            "image": images.SERVER,
            "env": [{"name": "MODEL_NAME", "value": "iris"}],
            "readinessProbe": probe,
            "securityContext": _SECURITY,
            **about,
        }

    def apply(self, *things: Object) -> list[str]:
        """Objects of this namespace, wherever they say that they are."""
        return self.api.apply(*({**one, "metadata": {**one["metadata"], "namespace": self.name}} for one in things))

    def installed(self, venv: Path) -> tuple[list[Object], list[Object]]:
        """Volumes, and mounts of them, with which a container of the image MACHINE has this environment of Python.

        They are claims, since the restricted standard forbids a ``hostPath``.
        """
        home = re.search(r"^home = (.*)/bin$", (venv / "pyvenv.cfg").read_text(), re.MULTILINE)[1]
        volumes, mounts = [], []
        for folder in dict.fromkeys(("/usr", home, str(venv.resolve()))):
            name = f"machine-{hashlib.sha256(folder.encode()).hexdigest()[:8]}"
            self.apply(*local_volume(self.name, name, folder))
            claim = named("PersistentVolumeClaim", name, self.name)
            self.api.until(claim, lambda thing: thing.get("status", {}).get("phase") == "Bound")
            volumes.append({"name": name, "persistentVolumeClaim": {"claimName": name, "readOnly": True}})
            mounts.append({"name": name, "mountPath": folder, "readOnly": True})
        return volumes, mounts

    def start(self, name: str, template: Object, **spec: Any) -> Object:
        """A pod of a Deployment's template; whoever gives none of its end is asked for at once."""
        about = {**template["metadata"], "name": name, "namespace": self.name}
        pod = {"terminationGracePeriodSeconds": 2, **template["spec"], **spec}
        thing = {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": pod}
        self._asked[name] = time.monotonic()
        self.api.apply(thing)
        return named("Pod", name, self.name)

    def ready(self, pod: Object, timeout_s: float = 120) -> Object:
        """The pod once its server answers; a storage initializer that fails is an error here."""
        seen: dict[str, float] = {}

        def is_ready(thing: Object) -> bool:
            ended = last_end(thing)
            assert not ended or ended["exitCode"] == 0, ended
            for stage in stages(thing):
                seen.setdefault(stage, time.monotonic() - self._asked[pod["metadata"]["name"]])
            return "ready" in seen

        found = self.api.until(pod, is_ready, timeout_s)
        if initialized := last_end(found):
            seen["initializer"] = self.cluster.ran_s(initialized["containerID"])
        TIMELINES.append((f"{self.name}/{pod['metadata']['name']}", seen))
        return found

    def failed(self, pod: Object, timeout_s: float = 120) -> Object:
        """How the storage initializer ended, when it first did."""
        return last_end(self.api.until(pod, last_end, timeout_s))

    def ask(self, pod: Object, path: str, question: Object | None = None) -> Any:
        """What the pod's server answers."""
        client = http.client.HTTPConnection(pod["status"]["podIP"], 8080, timeout=30)
        with self.cluster.within():
            client.connect()
        client.request("POST" if question else "GET", path, json.dumps(question) if question else None)
        answer = client.getresponse()
        body = answer.read()
        client.close()
        assert answer.status == 200, body
        return json.loads(body)

    def kubectl(self, *arguments: str) -> str:
        return self.cluster.kubectl("--namespace", self.name, *arguments)

    def describe(self, pod: Object) -> str:
        return self.kubectl("describe", "pod", pod["metadata"]["name"])

    def log(self, pod: Object, container: str = "storage-initializer", *options: str) -> str:
        return self.kubectl("logs", pod["metadata"]["name"], "-c", container, *options)


def last_end(pod: Object, name: str = "storage-initializer") -> Object:
    """How the storage initializer ended last, or nothing."""
    for status in pod.get("status", {}).get("initContainerStatuses", []):
        if status["name"] == name:
            return status["state"].get("terminated") or status["lastState"].get("terminated") or {}
    return {}


def stages(pod: Object) -> list[str]:
    """What has happened to a pod so far."""
    status = pod.get("status", {})
    true = {one["type"] for one in status.get("conditions", []) if one["status"] == "True"}
    first = next(iter(status.get("initContainerStatuses", [])), {"state": {}})["state"]
    return [
        *(["scheduled"] if "PodScheduled" in true else []),
        *(["started"] if {"running", "terminated"} & first.keys() else []),
        *(["delivered"] if "Initialized" in true else []),
        *(["ready"] if "Ready" in true else []),
    ]


def local_volume(namespace: str, name: str, folder: str) -> Iterator[Object]:
    """A folder of the node, as a claim: yaml of deploy/examples/store.yaml has the same shape."""
    wanted = {"storageClassName": namespace, "accessModes": ["ReadWriteOnce"]}
    terms = [{"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}]
    yield {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            **wanted,
            "capacity": {"storage": "1Gi"},
            "local": {"path": folder},
            "claimRef": {"namespace": namespace, "name": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        },
    }
    yield {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {**wanted, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": f"{namespace}-{name}"},
    }
