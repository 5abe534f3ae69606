"""Everything in deploy/ as an API server takes it: validated, without a warning, in namespaces that enforce ``restricted``."""

import copy
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster import images
from cluster.api import Refused, named
from cluster.place import RESTRICTED, SECCOMP
from fakes.kserve import KServe

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = sorted(path.name for path in (DEPLOY / "overlays").iterdir())
EXAMPLES = sorted((DEPLOY / "examples").glob("*.yaml"))
NO_IMAGE = "image-not-set.invalid/lading"
HELM = ROOT / ".servers/bin/helm"


def loaded(text):
    return [thing for thing in yaml.safe_load_all(text) if thing]


@pytest.fixture
def spaces(api, node):
    """The namespaces that manifests name, and lading's own kind of objects."""
    for name in ("models", "kserve", "team-a"):
        space = named("Namespace", name)
        space["metadata"]["labels"] = RESTRICTED
        api.apply(space)
    kind = yaml.safe_load((DEPLOY / "controller/crd.yaml").read_text())
    api.apply(kind)
    api.until(kind, lambda thing: "Established" in json.dumps(thing.get("status", {}).get("conditions")))


@pytest.fixture
def kustomized(cluster, tmp_path):
    def kustomized(name):
        shutil.copytree(DEPLOY, tmp_path / "deploy")
        return loaded(cluster.kubectl("kustomize", tmp_path / "deploy" / name))

    return kustomized


def of_kserve(thing):
    return thing["kind"] in ("InferenceService", "LLMInferenceService")


@pytest.mark.parametrize(
    "name", ["base", "agent", "controller", "controller-namespaced", *(f"overlays/{name}" for name in OVERLAYS)]
)
def test_what_kustomize_makes_is_taken_without_a_warning(api, spaces, kustomized, name):
    things = kustomized(name)
    things.sort(key=lambda thing: thing["kind"] != "Namespace")
    assert api.apply(*things) == []
    for thing in things:
        if thing["kind"] not in ("Namespace", "CustomResourceDefinition"):
            api.delete(thing)


def test_what_helm_makes_is_taken_without_a_warning(api, spaces):
    command = [HELM, "template", "lading", DEPLOY / "helm/lading", "--set", "image.repository=r,image.tag=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    things = loaded(done.stdout)
    assert len(things) == 3
    assert api.apply(*things) == []
    for thing in things:
        api.delete(thing)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_taken_without_a_warning_where_restricted_is_enforced(api, spaces, storage, path):
    # KServe's services come as the pods that it makes of them: its own kinds are checked against its schema in test_deploy.
    kserve = KServe(storage("overlays/store", "overlays/registry"), image=images.LADING, server=server())
    for thing in loaded(path.read_text()):
        if thing["kind"] == "LLMInferenceService":
            # The presets of these have it.
            thing["spec"]["template"]["containers"] = [server(**SECCOMP)]
        for one in pods_of(kserve, thing) if of_kserve(thing) else [thing]:
            one["metadata"].setdefault("namespace", "models")
            assert api.apply(one, dry_run=True) == []


def server(**security):
    security |= {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    return {"name": "main", "image": images.SERVER, "securityContext": security}


def pods_of(kserve, service):
    for name, template in kserve.pods(service).items():
        about = {**template["metadata"], "name": name, "namespace": service["metadata"]["namespace"]}
        spec = {**template["spec"], "serviceAccountName": "default"}
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}


def service(uri, **predictor):
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": uri}
    spec = {"predictor": {"securityContext": SECCOMP, "model": model, **predictor}}
    about = {"name": "iris", "namespace": "models"}
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": about, "spec": spec}


def test_a_service_without_a_seccomp_profile_is_refused_with_any_initializer(api, spaces, storage):
    kserve = KServe(storage(), image=images.LADING, server=server())
    (pod,) = pods_of(kserve, service("s3://models/iris", securityContext={}))
    with pytest.raises(Refused, match=r'violates PodSecurity "restricted.*container "kserve-container" must set'):
        api.apply(pod, dry_run=True)


def test_oci_fetch_is_refused_there_since_its_container_has_no_security_context(api, spaces, storage):
    kserve = KServe(storage(), image=images.LADING, server=server())
    (pod,) = pods_of(kserve, service("oci+fetch://registry.example.com/iris:v1"))
    with pytest.raises(Refused, match=r'container "storage-initializer" must set'):
        api.apply(pod, dry_run=True)


@pytest.mark.parametrize(
    ("overlay", "prefix", "volume"), [("store", "store+", "lading-store"), ("registry", "token+", "registry-token")]
)
def test_an_overlay_that_mounts_a_volume_harms_no_other_service(api, spaces, storage, overlay, prefix, volume):
    kserve = KServe(storage(f"overlays/{overlay}"), image=images.LADING, server=server())
    (others,) = pods_of(kserve, service("s3://models/iris"))
    assert api.apply(others, dry_run=True) == []
    (chosen,) = pods_of(kserve, service(f"{prefix}s3://models/iris"))
    with pytest.raises(Refused, match=rf'volumeMounts\[\d\].name: Not found: "{volume}"'):
        api.apply(chosen, dry_run=True)


def test_a_field_that_kserve_does_not_know_is_refused(api, spaces, storage):
    wrong = copy.deepcopy(storage()[0])
    wrong["spec"]["volumes"] = []
    with pytest.raises(Refused, match=r"spec.volumes: field not declared in schema"):
        api.apply(wrong, dry_run=True)
