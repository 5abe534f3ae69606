"""ModelRollouts at the API server itself: the schema, the shipped rights, and a controller that has no others.

No node is needed: pods are never scheduled, and their status is written here, as a kubelet would write it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from cluster.api import Refused, named
from cluster.conftest import name_for
from cluster.place import Place
from cluster.single_node import API
from fakes.trees import write_tree
from lading.controller.pods import PODS
from lading.controller.service import ANNOTATION, KINDS
from lading.kubernetes.api_server import ApiServer
from lading.kubernetes.rollouts import ROLLOUTS
from lading.settings.kubernetes import read_access
from lading.settings.limits import Network
from lading.settings.store import StoreSettings
from lading.settings.variables import Variables
from lading.store.store import Store

DEPLOY = Path(__file__).parents[2] / "deploy"
CHANNEL = "model-registry://iris@champion"
SERVICES = KINDS["InferenceService"].resource
PIN = f"model-registry://prod/iris/v3?pin=sha256:{'5f' * 32}"
ACCOUNT = "lading-controller"
READY = {"conditions": [{"type": "Ready", "status": "True"}]}
HELM = DEPLOY.parent / ".servers/bin/helm"
CONTROLLERS = {"ServiceAccount", "ConfigMap", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Deployment"}


@pytest.fixture
def place(cluster, api, kinds, request):
    with Place(cluster, api, name_for(request)) as place:
        yield place


LLM = {"kind": "LLMInferenceService", "name": "iris"}


def step(percent: int, pause: str = "0s") -> dict:
    return {"percent": percent, "pause": pause}


def rollout(place, name="iris", **spec):
    about = {"name": name, "namespace": place.name}
    spec = {"targetRef": {"kind": "InferenceService", "name": "iris"}, **spec}
    spec = {field: value for field, value in spec.items() if value is not None}
    return {"apiVersion": ROLLOUTS.api, "kind": ROLLOUTS.kind, "metadata": about, "spec": spec}


@pytest.mark.parametrize("one_namespace", ["true", "false"])
def test_the_charts_controller_is_taken_without_a_warning(place, one_namespace):
    values = f"image.repository=r,image.tag=1,controller.enabled=true,controller.oneNamespace={one_namespace}"
    command = [HELM, "template", "lading", DEPLOY / "helm/lading", "--namespace", place.name, "--set", values]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    things = [thing for thing in yaml.safe_load_all(done.stdout) if thing and thing["kind"] in CONTROLLERS]
    kinds = {thing["kind"] for thing in things}
    assert CONTROLLERS - kinds == (set() if one_namespace == "false" else {"ClusterRole", "ClusterRoleBinding"})
    of_the_cluster = [thing for thing in things if thing["kind"].startswith("Cluster")]
    assert place.api.apply(*of_the_cluster) == []
    assert place.apply(*(thing for thing in things if thing not in of_the_cluster)) == []
    for thing in of_the_cluster:
        place.api.delete(thing)


# ---- the schema -------------------------------------------------------------------------------


def test_everything_that_a_rollout_can_ask_for_is_taken_and_the_rest_has_its_defaults(api, place):
    _, example = yaml.safe_load_all((DEPLOY / "examples/rollout.yaml").read_text())
    digest = f"sha256:{'5f' * 32}"
    more = {"approve": digest, "approveStep": {"version": digest, "step": 2}, "pin": PIN, "history": 7, "record": True}
    more["strategy"] = {"type": "Canary", "canary": {"steps": [step(10, "10m"), step(50, "Approval")]}}
    ready = {"path": "/v2/health/ready", "port": 8080, "status": 200}
    more["checks"] = [{"name": "ready", "http": ready, "timeout": "10s"}]
    more["checks"].append({"name": "errors", "prometheus": {"query": "up", "min": 0, "max": 0.01}})
    assert api.apply(rollout(place, **example["spec"], **more)) == []
    api.apply(rollout(place, "least"))
    spec = api.get(named(ROLLOUTS.kind, "least", place.name, ROLLOUTS.api))["spec"]
    assert (spec["update"], spec["every"], spec["hold"], spec["history"]) == ("Auto", "60s", "5m", 5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"update": "Sometimes"}, "Unsupported value"),
        ({"update": False}, "expected string"),
        ({"every": "5s"}, "at least 10s"),
        ({"every": "soon"}, "spec.every"),
        ({"hold": "-5m"}, "spec.hold"),
        ({"window": {"cron": "0 2 * *", "length": "1h"}}, "five fields of numbers"),
        ({"window": {"cron": "0 2 * * 1-5"}}, "spec.window.length"),
        ({"window": {"cron": "0 2 * * 1-5", "length": "169h"}}, "at most 168h"),
        ({"allow": {}}, "spec.allow"),
        ({"allow": {"versions": "latest"}}, "spec.allow.versions"),
        ({"allow": {"signedBy": []}}, "spec.allow.signedBy"),
        ({"rollback": {"deadline": "0s"}}, "spec.rollback.deadline"),
        ({"history": 0}, "spec.history"),
        ({"approve": "v3"}, "spec.approve"),
        ({"pin": "model-registry://iris/v3"}, "spec.pin"),
        ({"targetRef": {"kind": "Deployment", "name": "iris"}}, "spec.targetRef.kind"),
        ({"strategy": {"type": "Canary"}}, "type Canary goes with canary"),
        ({"strategy": {"type": "Canary", "canary": {"steps": []}}}, "strategy.canary.steps"),
        ({"strategy": {"type": "Canary", "canary": {"steps": [step(50), step(10)]}}}, "the same percentage or more"),
        ({"strategy": {"type": "Canary", "canary": {"steps": [step(100)]}}}, "percent"),
        ({"targetRef": LLM, "strategy": {"type": "Canary", "canary": {"steps": [step(9)]}}}, "no canary for an LLM"),
        ({"checks": [{"name": "a"}]}, "either http or prometheus"),
        ({"checks": [{"name": "a", "http": {"path": "/", "url": "http://b/"}}]}, "either a path or a url"),
        ({"checks": [{"name": "a", "http": {"url": "http://b/", "port": 1}}]}, "a port belongs to a path"),
        ({"checks": [{"name": "a", "http": {"url": "http://u:p@b/"}}]}, "http.url"),
        ({"checks": [{"name": "a", "prometheus": {"query": "up"}}]}, "needs min or max"),
        ({"checks": [{"name": "a", "http": {"path": "/"}, "timeout": "11s"}]}, "timeout"),
        ({"checks": [{"name": "a", "http": {"path": "/"}}] * 2}, "duplicate entries"),
        ({"approveStep": {"version": "v3", "step": 1}}, "approveStep.version"),
        ({"targetRef": None}, "either a targetRef or a selector"),
        ({"selector": {"kind": "InferenceService", "matchLabels": {"a": "b"}}}, "either a targetRef or a selector"),
        ({"targetRef": None, "selector": {"kind": "InferenceService", "matchLabels": {}}}, "spec.selector.matchLabels"),
        ({"maxConcurrent": 0}, "spec.maxConcurrent"),
    ],
)
def test_what_cannot_be_meant_is_refused(api, place, wrong, said):
    with pytest.raises(Refused, match=said):
        api.apply(rollout(place, **wrong))


def test_a_rollout_stays_with_its_service(api, place):
    api.apply(rollout(place))
    with pytest.raises(Refused, match="stays with its service"):
        api.apply(rollout(place, targetRef={"kind": "InferenceService", "name": "law"}))


def test_kubectl_explains_the_fields(cluster, kinds):
    said = cluster.kubectl("explain", "modelrollout.spec.hold")
    assert "to and fro moves nothing" in " ".join(said.split())


# ---- the controller, with the rights that are shipped -----------------------------------------


class Cluster:
    """What a person and KServe do in one namespace, as an administrator."""

    def __init__(self, cluster, place, session, folder) -> None:
        self.cluster, self.place, self.folder = cluster, place, folder
        access = read_access(Variables(), Network(), kubeconfig=str(cluster.pki / "admin.kubeconfig"))
        self.admin = ApiServer(access, session.http, manager="kubelet")
        self.catalog = folder / "catalog.yaml"
        for name in ("v1", "v2"):
            write_tree(folder / name, {"weights": name.encode()})

    def champion(self, version: str) -> None:
        versions = {name: {"uri": name, "state": "live"} for name in ("v1", "v2")}
        models = {"iris": {"aliases": {"champion": version}, "versions": versions}}
        fresh = self.catalog.with_suffix(".new")
        fresh.write_text(yaml.safe_dump({"models": models}))
        fresh.replace(self.catalog)

    def may(self, rules_in: str, namespace: str = "") -> None:
        """A ServiceAccount that may do what this file of ``deploy/`` says, and nothing else."""
        self.place.apply(named("ServiceAccount", ACCOUNT))
        binding = {"subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.place.name}]}
        for path in (rules_in, "controller/rbac.yaml"):
            for thing in yaml.safe_load_all((DEPLOY / path).read_text()):
                if thing["kind"].endswith("Binding"):
                    thing |= binding
                if thing["kind"].startswith("Cluster") and path == rules_in:
                    self.place.api.apply(thing)
                elif not thing["kind"].startswith("Cluster"):
                    self.place.apply(thing)

    @contextmanager
    def controller(self, *options: str, server: str = API, registries: Sequence[dict] = ()):
        """``lading controller`` as that ServiceAccount."""
        catalog = {"name": "catalog", "kind": "catalog", "path": str(self.catalog)}
        config = {"registries": [*registries] or [catalog], "agent": {"port": 0}}
        (self.folder / "lading.yaml").write_text(yaml.safe_dump(config))
        command = self.cluster.client(sys.executable, "-m", "lading", "controller", *options)
        environment = {
            "PATH": "/usr/bin",
            "KUBECONFIG": str(self._log_in(ACCOUNT, server)),
            "LADING_CONFIG": str(self.folder / "lading.yaml"),
        }
        with (self.folder / "log").open("ab") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
            try:
                yield process
            finally:
                process.kill()
        print((self.folder / "log").read_text())

    def _log_in(self, account: str, server: str = API) -> Path:
        """A kubeconfig with a token of this ServiceAccount."""
        path = f"/api/v1/namespaces/{self.place.name}/serviceaccounts/{account}/token"
        token = self.place.api.post(
            path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        )
        authority = str(self.cluster.pki / "ca.crt")
        who = {
            "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": authority}}],
            "users": [{"name": "u", "user": {"token": token["status"]["token"]}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": self.place.name}}],
            "current-context": "c",
        }
        (self.folder / account).write_text(yaml.safe_dump(who))
        return self.folder / account

    @contextmanager
    def agent(self):
        """``lading agent`` of a node with the ServiceAccount of deploy/agent-prefetch; its words, line by line."""
        self.place.apply(named("ServiceAccount", "lading-agent"))
        for thing in yaml.safe_load_all((DEPLOY / "agent-prefetch/rbac.yaml").read_text()):
            subject = {"kind": "ServiceAccount", "name": "lading-agent", "namespace": self.place.name}
            self.place.api.apply(thing | ({"subjects": [subject]} if "subjects" in thing else {}))
        registry = {"name": "catalog", "kind": "catalog", "path": str(self.catalog)}
        own = {"port": 0, "prefetch": {"namespace": self.place.name}}
        config = {"registries": [registry], "store": {"path": str(self.folder / "store")}, "agent": own}
        (self.folder / "agent.yaml").write_text(yaml.safe_dump(config))
        command = self.cluster.client(sys.executable, "-m", "lading", "agent")
        environment = {
            "PATH": "/usr/bin",
            "KUBECONFIG": str(self._log_in("lading-agent")),
            "LADING_CONFIG": str(self.folder / "agent.yaml"),
        }
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process.stderr
            finally:
                process.kill()

    def tell(self, *words: str) -> str:
        """What ``lading rollout`` says to an administrator."""
        command = self.cluster.client(sys.executable, "-m", "lading", "rollout", *words, "-n", self.place.name)
        environment = {"PATH": "/usr/bin", "KUBECONFIG": str(self.cluster.pki / "admin.kubeconfig")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def serve(self, **annotations: str) -> None:
        predictor = {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": CHANNEL}}
        if annotations:
            predictor["annotations"] = annotations
        about = {"name": "iris", "namespace": self.place.name}
        thing = {"apiVersion": SERVICES.api, "kind": SERVICES.kind, "metadata": about, "spec": {"predictor": predictor}}
        self.place.api.apply(thing)

    def pod(self, lock: str, status: dict, name: str = "iris-0") -> None:
        """A pod that KServe makes of the service, as its kubelet says it is."""
        labels = {"serving.kserve.io/inferenceservice": "iris", "component": "predictor"}
        about = {"name": name, "namespace": self.place.name, "labels": labels, "annotations": {ANNOTATION: lock}}
        security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        security |= {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        container = {"name": "server", "image": "none.invalid/none", "securityContext": security}
        spec = {"schedulerName": "nobody", "containers": [container]}
        # A new one: with the status of the old one it would serve the new version at once.
        self.cluster.kubectl("delete", "pod", name, "-n", self.place.name, "--ignore-not-found", "--now")
        self.place.api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec})
        self.admin.patch(PODS, self.admin.get(PODS, name, self.place.name), {"status": status}, subresource="status")

    def ready(self) -> None:
        """The service is ready, and its pod serves what its annotation says."""
        status = {**READY, "deploymentMode": "Standard"}
        self.admin.patch(SERVICES, self.service, {"status": status}, subresource="status")
        self.pod(self.lock, READY)

    @property
    def named(self) -> dict:
        return named(SERVICES.kind, "iris", self.place.name, SERVICES.api)

    @property
    def service(self) -> dict:
        return self.admin.get(SERVICES, "iris", self.place.name)

    @property
    def lock(self) -> str:
        return self.service["spec"]["predictor"].get("annotations", {}).get(ANNOTATION, "")

    def label(self, **labels: str) -> None:
        self.admin.patch(SERVICES, self.service, {"metadata": {"labels": labels}})

    def until(self, phase: str, version: str = "", name: str = "iris") -> dict:
        """The status, once it says so."""

        def is_so(thing) -> bool:
            status = thing.get("status", {})
            has = status.get("candidate" if phase == "Rolling" else "current", {}).get("version", "")
            return status.get("phase") == phase and version in ("", has)

        return self.place.api.until(named(ROLLOUTS.kind, name, self.place.name, ROLLOUTS.api), is_so)["status"]

    def until_all_have(self, version: str) -> float:
        """Seconds until every service has this version in its annotation."""
        started_s = time.monotonic()
        lacking = {""}
        while lacking:
            assert time.monotonic() < started_s + 400
            services = self.admin.list_all(SERVICES, self.place.name)
            lacking = {each["metadata"]["name"] for each in services if not has(each, version)}
            for name in sorted(lacking)[-1:]:
                self.until_one_has(name, version)
        return time.monotonic() - started_s

    def until_pinned(self, version: str) -> None:
        self.until_one_has("iris", version)

    def until_one_has(self, name: str, version: str) -> None:
        def is_so(thing) -> bool:
            return has(thing, version)

        self.place.api.until(named(SERVICES.kind, name, self.place.name, SERVICES.api), is_so, 400)


def has(service: dict, version: str) -> bool:
    """Whether the service's annotation has this version."""
    lock = service["spec"]["predictor"].get("annotations", {}).get(ANNOTATION)
    return bool(lock) and {entry["version"] for entry in json.loads(lock)["models"].values()} == {version}


@pytest.fixture
def world(cluster, place, new_session, tmp_path):
    with cluster.within():
        world = Cluster(cluster, place, new_session(), tmp_path)
        world.champion("v1")
        world.serve()
        place.api.apply(rollout(place, every="10s", hold="0s"))
        yield world


def test_an_alias_moves_and_the_service_follows_with_the_shipped_rights_alone(world):
    world.may("controller/rbac.yaml")
    with world.controller():
        world.until_pinned("v1")
        world.ready()
        world.until("Current", "v1")
        world.champion("v2")
        world.until_pinned("v2")
        world.until("Rolling", "v2")
        world.ready()
        status = world.until("Current", "v2")
    assert [past["result"] for past in status["history"]] == ["Succeeded", "Pinned"]
    (own,) = [each for each in world.service["metadata"]["managedFields"] if each["manager"] == "lading"]
    assert own["fieldsV1"] == {"f:spec": {"f:predictor": {"f:annotations": {f"f:{ANNOTATION}": {}}}}}
    said = world.cluster.kubectl("describe", "inferenceservice", "iris", "--namespace", world.place.name)
    assert "RolloutStarted" in said
    table = world.cluster.kubectl("get", "mro", "--namespace", world.place.name).splitlines()
    assert table[0].split() == [
        "NAME",
        "SERVICE",
        "UPDATE",
        "PHASE",
        "VERSION",
        "CANDIDATE",
        "CANARY",
        "READY",
        "SINCE",
    ]
    assert table[1].split()[:5] == ["iris", "iris", "Auto", "Current", "v2"]


def test_a_damaged_version_goes_back_in_a_namespaced_install_with_its_role(world):
    world.may("controller-namespaced/role.yaml")
    with world.controller("--namespace", world.place.name):
        world.until_pinned("v1")
        world.ready()
        world.until("Current", "v1")
        world.champion("v2")
        world.until_pinned("v2")
        ended = {"exitCode": 6, "message": "error[integrity]: weights: SHA-256 differs", "reason": "Error"}
        init = {"name": "storage-initializer", "state": {"terminated": ended}, "ready": False, "restartCount": 1}
        init |= {"image": "lading", "imageID": "lading"}
        world.pod(world.lock, {"conditions": [{"type": "Ready", "status": "False"}], "initContainerStatuses": [init]})
        world.until_pinned("v1")
        status = world.until("RolledBack", "v1")
    assert status["message"] == ended["message"]
    assert {each["type"]: each["status"] for each in status["conditions"]}["Stalled"] == "True"


def test_a_person_approves_goes_back_and_goes_on_from_a_terminal(world):
    world.may("controller/rbac.yaml")
    world.place.api.apply(rollout(world.place, every="10s", hold="0s", update="Approve"))
    with world.controller():
        world.until_pinned("v1")
        world.ready()
        world.until("Current", "v1")
        world.champion("v2")
        world.until("AwaitingApproval", "v1")
        assert world.tell("ls").splitlines()[1].split()[-2:] == ["v1", "v2"]
        assert world.tell("approve", "iris").startswith("iris may go to version v2 ")
        world.until_pinned("v2")
        world.ready()
        world.until("Current", "v2")
        assert world.tell("back", "iris").startswith("iris goes back to version v1 ")
        world.until_pinned("v1")
        world.ready()
        world.until("Frozen", "v1")
        assert world.tell("resume", "iris") == f"iris follows {CHANNEL} again\n"
        world.until_pinned("v2")
    assert "Succeeded" in world.tell("show", "iris")


def test_a_canary_comes_and_goes_by_apply_without_force(world):
    world.may("controller/rbac.yaml")
    canary = {"type": "Canary", "canary": {"steps": [step(10)]}}
    world.place.api.apply(rollout(world.place, every="10s", hold="0s", strategy=canary))
    with world.controller():
        world.until_pinned("v1")
        world.ready()
        world.until("Current", "v1")
        world.champion("v2")
        world.until("Canary")
        (entry,) = world.place.api.until(world.named, lambda thing: thing["spec"].get("canary"))["spec"]["canary"]
        assert entry["trafficPercent"] == 10
        world.pod(entry["predictor"]["annotations"][ANNOTATION], READY, "iris-candidate-0")
        world.until_pinned("v2")
        world.pod(world.lock, READY)
        world.until("Current", "v2")
        world.place.api.until(world.named, lambda thing: "canary" not in thing["spec"])
    (own,) = [each for each in world.service["metadata"]["managedFields"] if each["manager"] == "lading"]
    assert own["fieldsV1"] == {"f:spec": {"f:predictor": {"f:annotations": {f"f:{ANNOTATION}": {}}}}}


def test_a_pin_that_git_applies_is_left_alone_and_said(world):
    world.may("controller/rbac.yaml")
    mine = json.dumps({"format": 1, "models": {CHANNEL: {"pin": PIN, "version": "v3"}}})
    world.serve(**{ANNOTATION: mine})
    with world.controller():
        status = world.until("Blocked", "v3")
    assert "tests owns the annotation" in status["message"]
    assert world.lock == mine


def test_a_controller_that_is_killed_is_followed_by_another(world):
    world.may("controller/rbac.yaml")
    with world.controller():
        world.until_pinned("v1")
        world.ready()
        world.until("Current", "v1")
        world.champion("v2")
        world.until_pinned("v2")
    world.ready()
    with world.controller():
        assert world.until("Current", "v2")["history"][0]["result"] == "Succeeded"


def test_services_are_selected_by_labels_and_their_rollouts_go_with_their_owner(world):
    world.may("controller/rbac.yaml")
    rollouts = {"apiVersion": ROLLOUTS.api, "kind": ROLLOUTS.kind, "metadata": {"namespace": world.place.name}}
    selector = {"kind": "InferenceService", "matchLabels": {"tier": "gold"}}
    fleet = rollout(
        world.place,
        "fleet",
        targetRef=None,
        selector=selector,
        every="10s",
        maxConcurrent=3,
    )
    world.place.api.delete(rollout(world.place))
    world.label(tier="gold")
    world.place.api.apply(fleet)
    with world.controller():
        world.until_pinned("v1")
        world.ready()
        world.until("Current", "v1", name="fleet.iris")
        assert world.until("Current", "v1", name="fleet")["message"] == "1 service: 1 Current"
        # A field that is taken away from the one is taken away from the other, and what a person set there stays.
        assert world.tell("pause", "fleet.iris").startswith("fleet.iris stays at version v1")
        del fleet["spec"]["maxConcurrent"]
        world.place.api.apply({**fleet, "spec": {**fleet["spec"], "history": 3}})
        own = world.place.api.until(
            named(ROLLOUTS.kind, "fleet.iris", world.place.name, ROLLOUTS.api),
            lambda thing: thing["spec"]["history"] == 3,
        )
        assert "maxConcurrent" not in own["spec"]
        assert "v1?pin=" in own["spec"]["pin"]
        world.label(tier="silver")
        world.place.api.until_gone(named(ROLLOUTS.kind, "fleet.iris", world.place.name, ROLLOUTS.api))
        world.label(tier="gold")
        world.until("Current", "v1", name="fleet.iris")
    world.place.api.delete(fleet)
    world.place.api.until_gone(named(ROLLOUTS.kind, "fleet.iris", world.place.name, ROLLOUTS.api))
    assert world.place.api.all(rollouts) == []
    assert has(world.service, "v1")


def test_a_node_has_a_candidate_in_its_store_while_it_is_held(world):
    world.may("controller/rbac.yaml")
    world.place.api.apply(rollout(world.place, every="10s", hold="1h"))
    with world.controller(), world.agent() as said:
        world.until_pinned("v1")
        world.ready()
        assert any("v1" in line for line in said)
        world.champion("v2")
        world.until("Held", "v1")
        assert any("v2" in line for line in said)
    store = Store(StoreSettings(path=str(world.folder / "store")))
    kept = [store.folder(key) for key, names in store.references.by_key().items() if names]
    assert sorted((folder / "weights").read_text() for folder in kept) == ["v1", "v2"]
    assert has(world.service, "v1")


def test_without_the_rights_it_says_what_it_may_not_do(world):
    world.place.apply(named("ServiceAccount", ACCOUNT))
    with world.controller() as process:
        assert process.wait(60) == 4
    assert "leases" in (world.folder / "log").read_text()
