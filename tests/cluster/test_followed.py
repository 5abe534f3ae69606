"""Services that follow an alias, from end to end: registries, the controller as it is shipped, pods, and a client who asks all the time.

KServe's controller is played: its Deployments are those that ``fakes.kserve`` makes, and the status of a service says
what KServe's would.
"""

import http.client
import json
import re
import threading
from contextlib import ExitStack, suppress
from typing import Any, Protocol, Self
from urllib.request import Request, urlopen

import pytest
import yaml

from cluster import images
from cluster.api import Refused, named
from cluster.conftest import DEPLOY, Mlflow
from cluster.place import SECCOMP, Place
from fakes.fake_kubeflow import FakeKubeflow, text_properties
from fakes.faulty_http import FaultyServer
from fakes.kserve import KServe
from lading.controller.service import ANNOTATION, KINDS
from lading.kubernetes.rollouts import ROLLOUTS

SERVICES = KINDS["InferenceService"].resource
SPACE = "lading-controller"
TOKEN = "a-token-for-the-page"
# What a version answers to a row with a single one is its weight.
QUESTION = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [[1]]}]}


class Registry(Protocol):
    """A registry with the model iris, whose alias ``champion`` is followed."""

    channel: str
    entry: dict[str, Any]

    def add(self, number: int, weights: bytes, sha256: str = "") -> None:
        """Register a version; ``sha256`` is what the registry says of it."""

    def name(self, number: int) -> str:
        """What it calls this version."""

    def champion(self, number: int) -> None:
        """Move the alias."""

    def told(self, number: int) -> str:
        """What it was told last of this version in the service."""


class InKubeflow:
    channel = "model-registry://kf/iris@champion"

    def __init__(self, server: FaultyServer, host: str) -> None:
        self._server, self._files = server, f"http://{host}/files"
        self._api = FakeKubeflow(server)
        self._model = self._api.model("iris")
        self._ids: dict[int, str] = {}
        self.entry = {"name": "kf", "kind": "kubeflow", "url": f"http://{host}"}

    def add(self, number: int, weights: bytes, sha256: str = "") -> None:
        self._server.put(f"/files/{number}/weights.json", weights)
        properties = text_properties(sha256=sha256) if sha256 else {}
        self._ids[number] = self._api.version(self._model, self.name(number), customProperties=properties)
        self._api.artifact(self._ids[number], f"{self._files}/{number}/weights.json")

    def name(self, number: int) -> str:
        return f"v{number}"

    def champion(self, number: int) -> None:
        properties = text_properties(**{"alias.champion": self.name(number)})
        self._api.change("registered_model", self._model, customProperties=properties)

    def told(self, number: int) -> str:
        (service,) = self._api.kept["inference_service"].values()
        if (service["modelVersionId"], service["desiredState"]) == (self._ids[number], "UNDEPLOYED"):
            return "UNDEPLOYED"
        served = self._api.kept["serve_model"].values()
        return next(one["lastKnownState"] for one in served if one["modelVersionId"] == self._ids[number])


class InMlflow:
    channel = "models:/iris@champion"

    def __init__(self, server: Mlflow, service: str) -> None:
        self._url, self._tag = server.url, f"lading.rollout.{service}"
        self.entry = {"name": "ml", "kind": "mlflow", "url": f"http://{server.host}"}
        self._ask("POST", "/mlflow/registered-models/create", {"name": "iris"})
        self._run = self._ask("POST", "/mlflow/runs/create", {"experiment_id": "0"})["run"]["info"]

    def add(self, number: int, weights: bytes, sha256: str = "") -> None:
        source = f"{self._run['artifact_uri']}/{number}"
        path = source.removeprefix("mlflow-artifacts:")
        self._ask("PUT", f"/mlflow-artifacts/artifacts{path}/weights.json", weights)
        tags = [{"key": "digest.weights.json", "value": f"sha256:{sha256}"}] if sha256 else []
        about = {"name": "iris", "source": source, "run_id": self._run["run_id"], "tags": tags}
        made = self._ask("POST", "/mlflow/model-versions/create", about)
        assert made["model_version"]["version"] == self.name(number)

    def name(self, number: int) -> str:
        return str(number)

    def champion(self, number: int) -> None:
        about = {"name": "iris", "alias": "champion", "version": self.name(number)}
        self._ask("POST", "/mlflow/registered-models/alias", about)

    def told(self, number: int) -> str:
        found = self._ask("GET", f"/mlflow/model-versions/get?name=iris&version={number}")["model_version"]
        tags = {tag["key"]: tag["value"] for tag in found["tags"]}
        return tags[self._tag].partition(",")[0]

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/octet-stream" if isinstance(body, bytes) else "application/json"}
        with urlopen(Request(f"{self._url}/api/2.0{path}", data, headers, method=method), timeout=60) as answer:
            return json.loads(answer.read() or b"{}")


class Played:
    """KServe's controller for one service: a Deployment of two pods, a Service, and the status.

    https://github.com/kserve/kserve/blob/master/pkg/apis/serving/v1beta1/inference_service_status.go
    """

    def __init__(self, place: Place, kserve: KServe, name: str) -> None:
        self._place, self._kserve = place, kserve
        self.thing = named(SERVICES.kind, name, place.name, SERVICES.api)
        self._labels = {"serving.kserve.io/inferenceservice": name, "component": "predictor"}
        self._about = {"name": f"{name}-predictor", "namespace": place.name}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kserve-{name}")

    def __enter__(self) -> Self:
        ports = [{"name": "http", "port": 80, "targetPort": 8080}]
        service = {"apiVersion": "v1", "kind": "Service", "metadata": self._about}
        self._place.api.apply({**service, "spec": {"selector": self._labels, "ports": ports}})
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def address(self) -> str:
        service = named("Service", self._about["name"], self._place.name)
        return str(self._place.api.get(service)["spec"]["clusterIP"])

    def until_rolled(self) -> None:
        """All pods have the pin of the service, and are ready."""

        def is_so(thing) -> bool:
            if not thing:
                return False
            status, wanted = thing.get("status", {}), self._place.api.get(self.thing)["spec"]["predictor"]
            numbers = [status.get(key) for key in ("replicas", "updatedReplicas", "readyReplicas")]
            has = thing["spec"]["template"]["metadata"].get("annotations")
            is_seen = status.get("observedGeneration") == thing["metadata"]["generation"]
            return has == wanted.get("annotations") and is_seen and numbers == [2, 2, 2]

        self._place.api.until(named("Deployment", self._about["name"], self._place.name, "apps/v1"), is_so)

    def pods(self) -> list[dict[str, Any]]:
        """The pods that nobody has deleted."""
        chosen = ",".join(f"{key}={value}" for key, value in self._labels.items())
        found = self._place.api.all(named("Pod", "", self._place.name), labelSelector=chosen)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def _run(self) -> None:
        # The service may be deleted at any time.
        while not self._stop.wait(0.5):
            with suppress(Refused):
                self._reconcile(self._place.api.get(self.thing))

    def _reconcile(self, service: dict[str, Any]) -> None:
        (template,) = self._kserve.pods(service).values()
        template["metadata"]["labels"] |= self._labels
        template["spec"]["terminationGracePeriodSeconds"] = 5
        spec = {"replicas": 2, "selector": {"matchLabels": self._labels}, "template": template}
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": self._about}
        self._place.api.apply({**deployment, "spec": spec})
        found = self._place.api.get(deployment).get("status", {})
        available = {one["type"]: one["status"] for one in found.get("conditions", [])}.get("Available", "False")
        status = {"conditions": [{"type": "Ready", "status": available}], "modelStatus": self._model_status()}
        self._place.api.set_status(self.thing, status)

    def _model_status(self) -> dict[str, Any]:
        for pod in self.pods():
            for container in pod.get("status", {}).get("containerStatuses", []):
                ended = container.get("lastState", {}).get("terminated") or container["state"].get("terminated")
                if ended:
                    why = {"reason": "ModelLoadFailed", "exitCode": ended["exitCode"], "message": "it cannot be loaded"}
                    return {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": why}
        return {"transitionStatus": "UpToDate"}


class Client:
    """Asks a service all the time, by a connection of its own each time, and keeps the answers and the failures."""

    def __init__(self, place: Place, address: str) -> None:
        self._place, self._address = place, address
        self.answers: list[float] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"client-{address}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._place.cluster.within():
            while not self._stop.wait(0.1):
                try:
                    self.answers.append(self._answer())
                except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
                    # Pods are ready a second before the node sends them requests for the first time.
                    if self.answers:
                        self.failures.append(repr(error))

    def _answer(self) -> float:
        connection = http.client.HTTPConnection(self._address, 80, timeout=10)
        try:
            connection.request("POST", "/v2/models/iris/infer", json.dumps(QUESTION))
            (output,) = json.loads(connection.getresponse().read())["outputs"]
            return float(output["data"][0])
        finally:
            connection.close()


class Followed:
    """A service that follows an alias of a registry, and what is told about it."""

    def __init__(self, place: Place, kserve: KServe, name: str, registry: Registry) -> None:
        self.place, self.name, self.registry = place, name, registry
        self.played = Played(place, kserve, name)
        self._rollout = named(ROLLOUTS.kind, name, place.name, ROLLOUTS.api)

    def apply(self) -> None:
        model = {"modelFormat": {"name": "sklearn"}, "storageUri": self.registry.channel}
        spec = {"predictor": {"serviceAccountName": "default", "securityContext": SECCOMP, "model": model}}
        self.place.api.apply({**self.played.thing, "spec": spec})
        target = {"kind": SERVICES.kind, "name": self.name}
        rules = {"every": "10s", "hold": "0s", "record": True, "rollback": {"deadline": "4m"}}
        rules["checks"] = [{"name": "plausible", "http": {"path": "/plausible"}}]
        self.place.api.apply({**self._rollout, "spec": {"targetRef": target, **rules}})

    def delete(self) -> None:
        """The service goes; the rollout says that it is gone once the registry knows it."""
        self.place.api.delete(self.played.thing)
        self.place.api.until(self._rollout, lambda thing: "pin" not in thing["status"]["recorded"])

    def until(self, phase: str, number: int, candidate: int | None = None) -> dict[str, Any]:
        """The status, once the service has this version, the other one is its candidate, and the registry knows it."""
        wanted = [self.registry.name(number), candidate and self.registry.name(candidate)]

        def is_so(thing) -> bool:
            status = thing.get("status", {})
            has = [status.get(key, {}).get("version") for key in ("current", "candidate")]
            known = [status.get("recorded", {}).get("at"), *(past["at"] for past in status.get("history", [])[:1])]
            return status.get("phase") == phase and has == wanted and known[0] == known[-1]

        return self.place.api.until(self._rollout, is_so, 240)["status"]

    def all_serve(self, weight: float) -> None:
        """Both pods come to have the pin of the service, and answer with this version."""
        self.played.until_rolled()
        pods = self.played.pods()
        assert len(pods) == 2
        assert len({pod["metadata"]["annotations"][ANNOTATION] for pod in pods}) == 1
        for pod in pods:
            (output,) = self.place.ask(pod, "/v2/models/iris/infer", QUESTION)["outputs"]
            assert output["data"] == [weight]

    def is_told(self, status: dict[str, Any], number: int, why: str) -> None:
        """Everywhere: that this version was rolled back to the second one, and why."""
        assert why in status["message"]
        (stalled,) = [one for one in status["conditions"] if one["type"] == "Stalled"]
        assert (stalled["status"], stalled["message"]) == ("True", status["message"])
        for kind in (SERVICES.kind, ROLLOUTS.kind):
            (said,) = [one for one in self._events(kind) if one.split()[1] == self.registry.name(number)]
            assert why in said
        assert self.registry.told(number) == "FAILED"
        assert self.registry.told(2) == "COMPLETE"

    def _events(self, kind: str) -> list[str]:
        """What Events say of versions that were rolled back."""
        query = f"involvedObject.name={self.name},involvedObject.kind={kind},reason=RolledBack"
        return [one["message"] for one in self.place.api.all(named("Event", "", self.place.name), fieldSelector=query)]


@pytest.fixture
def controller(cluster, api, node, kinds, tmp_path):
    """``controller(registries)`` starts ``deploy/controller`` with them; gives the pod."""
    made = [thing for thing in yaml.safe_load_all(cluster.kubectl("kustomize", DEPLOY / "controller")) if thing]
    made.sort(key=lambda thing: thing["kind"] != "Namespace")

    def controller(registries):
        for thing in made:
            if thing["kind"] == "ConfigMap":
                config = yaml.safe_load(thing["data"]["lading.yaml"])
                thing["data"]["lading.yaml"] = yaml.safe_dump({**config, "registries": registries})
            if thing["kind"] == "Deployment":
                thing["spec"]["template"]["spec"]["containers"][0]["image"] = images.LADING
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "lading-controller", "namespace": SPACE}}
        api.apply(made[0], {**secret, "stringData": {"token": TOKEN}}, *made[1:])
        started = named("Deployment", "lading-controller", SPACE, "apps/v1")
        api.until(started, lambda thing: thing.get("status", {}).get("readyReplicas"))
        (pod,) = api.all(named("Pod", "", SPACE), labelSelector="app.kubernetes.io/name=lading-controller")
        return pod

    yield controller
    with suppress(AssertionError):
        # It may not have been started.
        print(cluster.kubectl("logs", "-n", SPACE, "deployment/lading-controller"))
    for thing in made:
        if thing["kind"] not in ("Namespace", "CustomResourceDefinition"):
            with suppress(Refused):
                api.delete(thing)


@pytest.fixture
def followed(place, storage, server, publish, mlflow, cluster):
    """Two services, whose pods read the same registries as the controller."""
    with cluster.within():
        registries = {
            "by-kubeflow": InKubeflow(server, publish("registry", place.name, 8080, server.url)),
            "by-mlflow": InMlflow(mlflow, f"{place.name}.by-mlflow"),
        }
    config = json.dumps({"registries": [registry.entry for registry in registries.values()]})
    containers = storage()
    for one in containers:
        env = one["spec"]["container"].get("env", [])
        kept = [variable for variable in env if variable["name"] == "LADING_LOCK_TEXT"]
        one["spec"]["container"]["env"] = [*kept, {"name": "LADING_CONFIG_YAML", "value": config}]
    kserve = KServe(containers, image=images.LADING, server=place.model_server())
    return [Followed(place, kserve, name, registry) for name, registry in registries.items()]


def metrics(place: Place, pod: dict[str, Any]) -> str:
    request = Request(f"http://{pod['status']['podIP']}:9090/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    with urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def test_pods_follow_an_alias_and_versions_that_fail_go_back_while_clients_are_served(
    cluster, place, followed, controller
):
    with cluster.within(), ExitStack() as stack:
        for each in followed:
            each.registry.add(1, b"[1.0]")
            each.registry.add(2, b"[2.0]")
            each.registry.add(3, b"[3.0]", sha256="0" * 64)
            each.registry.add(4, b"this is no model")
            each.registry.add(5, b"[-5.0]")
            each.registry.champion(1)
        pod = controller([each.registry.entry for each in followed])
        for each in followed:
            each.apply()
            stack.enter_context(each.played)
        for each in followed:
            each.until("Current", 1)
            each.all_serve(1.0)
        clients = [stack.enter_context(Client(place, each.played.address())) for each in followed]

        for each in followed:
            each.registry.champion(2)
        for each in followed:
            each.until("Current", 2)
            each.all_serve(2.0)
            assert each.registry.told(2) == "COMPLETE"

        for number, why in ((3, "error[integrity]"), (4, "ModelLoadFailed"), (5, "check plausible")):
            for each in followed:
                each.registry.champion(number)
            for each in followed:
                each.is_told(each.until("RolledBack", 2, number), number, why)
                each.all_serve(2.0)

        told = metrics(place, pod)
        for each, client in zip(followed, clients, strict=True):
            rollbacks = re.findall(rf'rollbacks_total{{rollout="{place.name}/{each.name}".*}} (\d+)', told)
            assert sum(map(int, rollbacks)) == 3
            assert client.failures == []
            # The last one was served until its check had failed.
            assert set(client.answers) == {1.0, 2.0, -5.0}
        for each in followed:
            each.delete()
            assert each.registry.told(2) == "UNDEPLOYED"
