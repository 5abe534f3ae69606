"""The agent and the store of a node: the DaemonSet fills it, pods of a restricted namespace are served from it."""

import copy
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster import images
from cluster.api import named
from cluster.models import IRIS
from cluster.place import RESTRICTED, SECCOMP, Place
from cluster.test_wirings import KEYS, MODELS, digests, service, started
from fakes.fake_s3 import FakeS3
from fakes.kserve import KServe
from fakes.real_s3 import ACCESS_KEY_ID, SECRET_ACCESS_KEY

DEPLOY = Path(__file__).parents[2] / "deploy"
NO_IMAGE = "image-not-set.invalid/lading"
SETTINGS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
    "AWS_ENDPOINT_URL": "http://s3.minio.svc:9000",
    "AWS_DEFAULT_REGION": "us-east-1",
}
AGENT = named("DaemonSet", "lading-agent", "lading", "apps/v1")


@pytest.fixture(scope="module")
def manifests(cluster, node):
    """deploy/agent with lading's image and the keys of its bucket."""
    things = [one for one in yaml.safe_load_all(cluster.kubectl("kustomize", DEPLOY / "agent")) if one]
    for thing in things:
        if thing["kind"] == "DaemonSet":
            pod = thing["spec"]["template"]["spec"]
            for container in (*pod["initContainers"], *pod["containers"]):
                assert container["image"] == NO_IMAGE
                container["image"] = images.LADING
            pod["containers"][0]["env"] = [{"name": key, "value": value} for key, value in SETTINGS.items()]
    return sorted(things, key=lambda thing: thing["kind"] != "Namespace")


@pytest.fixture(scope="module")
def agent(api, s3, manifests):
    """The DaemonSet, once it is ready: then what it is told to keep is in the store."""
    assert api.apply(*manifests) == []
    yield api.until(AGENT, is_rolled_out)
    api.delete(AGENT)


def is_rolled_out(thing):
    status = thing.get("status", {})
    return (
        status.get("observedGeneration") == thing.get("metadata", {}).get("generation")
        and status.get("numberReady") == status.get("updatedNumberScheduled") == 1
    )


def pods(api):
    return api.all(named("Pod", "", "lading"))


def test_the_agent_is_ready_when_its_model_is_in_the_store(api, cluster, agent):
    (pod,) = pods(api)
    said = cluster.kubectl(
        "exec", "-n", "lading", pod["metadata"]["name"], "--", "/usr/bin/lading", "store", "ls", "--json"
    )
    assert "s3://models/iris" in said


def test_a_pod_of_a_restricted_namespace_is_served_from_the_store_of_its_node(api, place, kserve, agent):
    volume, claim, thing = yaml.safe_load_all((DEPLOY / "examples/store.yaml").read_text())
    volume["metadata"]["name"] = f"store-{place.name}"
    volume["spec"]["claimRef"]["namespace"] = place.name
    claim["spec"]["volumeName"] = volume["metadata"]["name"]
    assert api.apply(volume) == []
    made = kserve(KEYS, MODELS, folders=("overlays/store",))
    (pod,) = started(place, made, thing, KEYS, MODELS, claim)
    assert place.ask(pod, "/files") == digests(("/mnt/models", IRIS))
    assert "taken from the store" in place.log(pod)
    (mount,) = [one for one in pod["spec"]["initContainers"][0]["volumeMounts"] if one["name"] == "lading-store"]
    assert mount["readOnly"]


def test_an_llm_of_a_restricted_namespace_is_served_from_the_store_too(api, place, agent):
    thing = yaml.safe_load((DEPLOY / "examples/llm-inference-service.yaml").read_text())
    thing["spec"]["model"]["uri"] = "s3://models/iris"
    thing["spec"]["template"]["securityContext"] = SECCOMP
    volume, claim, _ = yaml.safe_load_all((DEPLOY / "examples/store.yaml").read_text())
    volume["metadata"]["name"] = f"store-{place.name}"
    volume["spec"]["claimRef"]["namespace"] = place.name
    claim["spec"]["volumeName"] = volume["metadata"]["name"]
    api.apply(volume)
    made = KServe([], [KEYS, MODELS], image=images.LADING, server=place.model_server())
    (pod,) = started(place, made, thing, KEYS, MODELS, claim)
    assert place.ask(pod, "/files") == digests(("/mnt/models", IRIS))
    assert "taken from the store" in place.log(pod)


def test_a_new_version_of_the_daemonset_keeps_what_is_in_the_store(api, cluster, agent, manifests):
    (before,) = pods(api)
    newer = copy.deepcopy(next(thing for thing in manifests if thing["kind"] == "DaemonSet"))
    newer["spec"]["template"]["metadata"]["annotations"] = {"example.com/version": "2"}
    api.apply(newer)
    api.until(AGENT, is_rolled_out)
    api.until_gone(named("Pod", before["metadata"]["name"], "lading"))
    (after,) = [pod for pod in pods(api) if pod["metadata"]["uid"] != before["metadata"]["uid"]]
    log = cluster.kubectl("logs", "-n", "lading", after["metadata"]["name"], "-c", "agent")
    assert "MiB/s" not in log, log


def test_a_drain_leaves_the_store_and_takes_the_pods(api, cluster, agent, place, kserve):
    (pod,) = started(place, kserve(KEYS, MODELS), service("s3://models/iris"), KEYS, MODELS)
    about = named("Pod", pod["metadata"]["name"], place.name)
    options = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s")
    said = cluster.kubectl("drain", "node1", "--pod-selector", "app!=other", *options)
    assert "node/node1 drained" in said
    api.until_gone(about)
    cluster.kubectl("uncordon", "node1")
    assert pods(api)


def test_the_sidecar_brings_a_new_version_and_the_server_loads_it(api, node, cluster, server, publish):
    """deploy/examples/agent-sidecar.yaml, with a bucket for its registry and a server that knows load and infer."""
    name = "sidecar"
    with Place(cluster, api, name, RESTRICTED) as place:
        configuration, pod = yaml.safe_load_all((DEPLOY / "examples/agent-sidecar.yaml").read_text())
        own = yaml.safe_load(configuration["data"]["lading.yaml"])
        own["deliveries"][0] |= {"uri": "s3://models/changing", "every_s": 1}
        del own["registries"]
        configuration["data"]["lading.yaml"] = yaml.safe_dump(own)
        bucket = FakeS3(server)
        bucket.put("changing/weights.json", b"[1.0]")
        variables = SETTINGS | {"AWS_ENDPOINT_URL": f"http://{publish('s3', name, 9000, server.url)}"}
        server, agent = pod["spec"]["containers"]
        server |= {"image": images.SERVER, "env": [{"name": "MODEL", "value": "/mnt/models/iris"}]}
        server["readinessProbe"] = {"httpGet": {"path": "/v2/health/live", "port": 8080}, "periodSeconds": 1}
        agent["image"] = images.LADING
        agent["readinessProbe"]["periodSeconds"] = 1
        agent["env"] = [{"name": key, "value": value} for key, value in variables.items()]
        assert place.apply(configuration) == []
        started = place.start("iris", pod)
        ready = place.ready(started)
        question = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [[2]]}]}
        assert place.ask(ready, "/v2/models/iris/infer", question)["outputs"][0]["data"] == [2.0]
        bucket.put("changing/weights.json", b"[5.0]")
        wait_for_line(cluster.kubectl_command("logs", "-f", "-n", name, "iris", "-c", "server"), "loaded", 2)
        assert place.ask(ready, "/v2/models/iris/infer", question)["outputs"][0]["data"] == [10.0]


def wait_for_line(command, word, times):
    """Until a followed log has this word so often."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        found = 0
        for line in process.stdout:
            found += word in line
            if found == times:
                break
        process.kill()
    assert found == times
