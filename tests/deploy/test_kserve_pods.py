"""The pods that tests run are those that KServe makes: compared with what its own webhook and controllers made."""

from pathlib import Path

import pytest
import yaml

from fakes.kserve import KServe

TREE = Path(__file__).parents[2]
RECORDED = yaml.safe_load((TREE / "tests/fakes/kserve_pods.yaml").read_text())
SERVICES = {one["given"]["metadata"]["name"]: one for one in RECORDED["services"] if "pods" in one}
(CACHE,) = (one for one in RECORDED["services"] if "job" in one)


def storage(name, *variables):
    """The base's container with the image and, of its variables, those that it had then."""
    found = yaml.safe_load((TREE / f"deploy/base/{name}.yaml").read_text())
    container = found["spec"]["container"]
    container |= {"image": "localhost/lading:test"}
    if variables:
        container["env"] = [one for one in container["env"] if one["name"] in variables]
    return found


@pytest.fixture
def kserve():
    return KServe(
        [storage("default", "LADING_LOCK_TEXT"), storage("local-model")], [*RECORDED["inputs"], CACHE["given"]]
    )


def about_the_model(pod):
    """Of a pod, what the record has."""
    spec = pod["spec"]
    (server,) = spec["containers"]
    found = {"serviceAccountName": spec["serviceAccountName"]}
    if pod["metadata"]["annotations"]:
        found["annotations"] = pod["metadata"]["annotations"]
    if "imagePullSecrets" in spec:
        found["imagePullSecrets"] = spec["imagePullSecrets"]
    for init in spec.get("initContainers", []):
        found["init"] = {key: value for key, value in init.items() if key != "imagePullPolicy"}
    found |= {"mount": server["volumeMounts"], "volumes": spec["volumes"]}
    found |= {one["name"]: one["value"] for one in server["env"] if one["name"] == "STORAGE_URI"}
    return found


def in_any_order(pod):
    """Volumes are named: their order says nothing.  The API server fills in defaults."""
    pod["volumes"] = {one["name"]: one for one in pod["volumes"]}
    for one in pod["volumes"].values():
        one.get("secret", {}).setdefault("defaultMode", 0o644)
    for one in pod.get("init", {}).get("env", []):
        one.get("valueFrom", {}).get("fieldRef", {}).setdefault("apiVersion", "v1")
    return pod


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_the_pods_that_kserve_makes_of_it(kserve, name):
    made = {of: in_any_order(about_the_model(pod)) for of, pod in kserve.pods(SERVICES[name]["given"]).items()}
    assert made == {of: in_any_order(pod) for of, pod in SERVICES[name]["pods"].items()}


def test_a_cache_of_a_model_has_the_job_that_kserve_makes_of_it(kserve):
    assert kserve.job(CACHE["given"], "node1") == CACHE["job"]
