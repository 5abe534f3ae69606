"""The manifests as kustomize and helm render them, read by KServe's own models, and what their container does."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from fakes.kserve import matching, validate
from real.conftest import SERVERS

DEPLOY = Path(__file__).parents[2] / "deploy"
OVERLAYS = sorted(folder.name for folder in (DEPLOY / "overlays").iterdir())
NO_IMAGE = "image-not-set.invalid/lading"
DIGEST = f"sha256:{'0' * 64}"
IMAGE = f"registry.example.com/lading@{DIGEST}"
EXAMPLES = sorted((DEPLOY / "examples").iterdir())


def rendered(*command) -> list[dict]:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


@pytest.fixture
def kustomize(program):
    return lambda folder: rendered(program("kustomize"), "build", folder)


@pytest.fixture
def helm(program):
    return lambda *options: rendered(program("helm"), "template", "lading", DEPLOY / "helm/lading", *options)


@pytest.fixture
def edited(program, tmp_path):
    """A copy of deploy/NAME in which the image is set, as docs/in-the-cluster.md says."""

    def edit(name):
        shutil.copytree(DEPLOY, tmp_path / "deploy")
        folder = tmp_path / "deploy" / name
        subprocess.run([program("kustomize"), "edit", "set", "image", f"{NO_IMAGE}={IMAGE}"], cwd=folder, check=True)
        return folder

    return edit


def of_kserve(things: list[dict]) -> list[dict]:
    return [thing for thing in things if thing["apiVersion"].startswith("serving.kserve.io/")]


def containers(things: list[dict]) -> dict[str, dict]:
    return {
        thing["metadata"]["name"]: thing["spec"]["container"]
        for thing in things
        if thing["kind"] == "ClusterStorageContainer"
    }


def variables(container: dict) -> dict[str, str]:
    return {one["name"]: one.get("value") for one in container.get("env", [])}


def without_empty_names(value):
    """Without what KServe's models add to a model that has no name."""
    if isinstance(value, dict):
        return {key: without_empty_names(one) for key, one in value.items() if (key, one) != ("name", "")}
    return [without_empty_names(one) for one in value] if isinstance(value, list) else value


def assert_read_by_kserve(things: list[dict]) -> None:
    """Nothing of them is unknown to KServe's models, and nothing is lacking."""
    python = SERVERS / "kserve/bin/python"
    assert python.exists(), "KServe's package is not installed: run make test-servers"
    done = subprocess.run(
        [python, Path(__file__).with_name("kserve_models.py")], input=json.dumps(things), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert without_empty_names(json.loads(done.stdout)) == things


@pytest.mark.parametrize("name", ["base", *(f"overlays/{name}" for name in OVERLAYS)])
def test_what_kustomize_makes_is_taken_by_kserve(kustomize, name):
    things = kustomize(DEPLOY / name)
    for thing in of_kserve(things):
        validate(thing)
    found = containers(things)
    own = {"overlays/store": {"lading-store"}, "overlays/registry": {"lading-registry"}}.get(name, set())
    assert found.keys() == {"default", "model-registry-storage-initializer", "local-model"} | own
    assert {container["image"] for container in found.values()} == {NO_IMAGE}


def test_before_0_16_kserve_gets_no_field_that_it_does_not_know(kustomize, helm):
    for things in (
        kustomize(DEPLOY / "overlays/kserve-0.15"),
        helm("--set", "image.repository=r,image.tag=1,supportsMultiModelDownload=false"),
    ):
        for thing in things:
            assert thing["spec"].keys() == {"workloadType", "container", "supportedUriFormats"}


def test_the_store_is_where_the_agent_fills_it(kustomize):
    settings = yaml.safe_load((DEPLOY / "agent/lading.yaml").read_text())
    container = containers(kustomize(DEPLOY / "overlays/store"))["lading-store"]
    (mount,) = container["volumeMounts"]
    assert mount["readOnly"]
    assert variables(container)["LADING_STORE"] == settings["store"]["path"]
    assert settings["store"]["path"].startswith(f"{mount['mountPath']}/")


@pytest.mark.parametrize("name", ["store", "registry"])
def test_an_overlay_that_mounts_a_volume_leaves_everything_else_as_it_is(kustomize, name):
    assert kustomize(DEPLOY / "base") == [
        thing for thing in kustomize(DEPLOY / "overlays" / name) if not thing["metadata"]["name"].startswith("lading-")
    ]


def test_the_agent_finds_its_configuration_and_the_images_name_is_set_in_one_place(kustomize, edited):
    things = {thing["kind"]: thing for thing in kustomize(edited("agent"))}
    assert things.keys() == {"Namespace", "ServiceAccount", "DaemonSet", "NetworkPolicy", "ConfigMap"}
    namespace = things.pop("Namespace")["metadata"]["name"]
    assert {thing["metadata"]["namespace"] for thing in things.values()} == {namespace}
    pod = things["DaemonSet"]["spec"]["template"]["spec"]
    assert pod["volumes"][0]["configMap"]["name"] == things["ConfigMap"]["metadata"]["name"]
    assert pod["serviceAccountName"] == things["ServiceAccount"]["metadata"]["name"]
    assert "lading.yaml" in things["ConfigMap"]["data"]
    assert {container["image"] for container in (*pod["initContainers"], *pod["containers"])} == {IMAGE}


def test_kserves_own_models_read_every_overlay_and_example(kustomize):
    # In one process: they take many seconds to load.
    overlays = [thing for name in OVERLAYS for thing in of_kserve(kustomize(DEPLOY / "overlays" / name))]
    examples = [thing for path in EXAMPLES for thing in yaml.safe_load_all(path.read_text())]
    # The package names the parts of the first, and does not have them; the second is lading's own.
    examples = [thing for thing in examples if thing["kind"] not in ("LLMInferenceService", "ModelRollout")]
    assert_read_by_kserve([*overlays, *examples])


def test_the_image_is_set_in_one_place(kustomize, edited):
    folder = edited("base")
    for name in (folder, *(folder.parent / "overlays" / name for name in OVERLAYS)):
        assert {container["image"] for container in containers(kustomize(name)).values()} == {IMAGE}


def test_the_image_is_set_in_an_overlay_of_ones_own(kustomize, tmp_path):
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    folder = tmp_path / "deploy/own"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(
        "resources: [../overlays/proxy]\nconfigurations: [images.yaml]\n"
        f"images: [{{name: {NO_IMAGE}, newName: example.com/lading, digest: 'sha256:0'}}]\n"
    )
    shutil.copy(DEPLOY / "base/images.yaml", folder)
    assert {one["image"] for one in containers(kustomize(folder)).values()} == {"example.com/lading@sha256:0"}


def test_a_proxy_is_told_to_every_container(kustomize):
    for container in containers(kustomize(DEPLOY / "overlays/proxy")).values():
        assert variables(container)["HTTPS_PROXY"] == "http://proxy.example.com:3128"
        assert ".svc" in variables(container)["NO_PROXY"]


def test_the_configuration_of_registries_is_one_that_lading_reads(kustomize):
    from lading.settings.settings import Settings

    container = containers(kustomize(DEPLOY / "overlays/registry"))["lading-registry"]
    settings = Settings.load(
        {name: text for name, text in variables(container).items() if text} | {"MLFLOW_TRACKING_TOKEN": "t"}
    )
    assert settings.registries[0].name == "prod"
    token = settings.registries[0].server.login.token.file
    # Not the pod's default token, which is good for the API server, too.
    assert any(token.startswith(f"{mount['mountPath']}/") for mount in container["volumeMounts"])


def test_the_chart_makes_what_the_base_makes(kustomize, helm):
    ours = {thing["metadata"]["name"]: thing["spec"] for thing in kustomize(DEPLOY / "base")}
    theirs = {thing["metadata"]["name"]: thing["spec"] for thing in helm("--set", "image.repository=r,image.tag=1.0")}
    assert {spec["container"].pop("image") for spec in theirs.values()} == {"r:1.0"}
    assert {spec["container"].pop("image") for spec in ours.values()} == {NO_IMAGE}
    # A value that says what is the default is in the base as an example.
    ours["default"]["container"]["env"].remove({"name": "LADING_VERIFY", "value": "auto"})
    assert theirs == ours


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ("env=null", "image.repository must be set"),
        ("image.repository=r", "image.tag or image.digest must be set"),
        ("image.repository=r,image.digest=latest", "image.digest: Does not match"),
        ("image.repository=r,image.tag=1,lockAnotation=false", "lockAnotation is not allowed"),
        ("image.repository=r,image.tag=1,containers.default.prefixes=s3://", "Expected: array"),
        ("image.repository=r,image.tag=1,containers.mine.prefix=s3://", "prefix is not allowed"),
    ],
)
def test_the_chart_installs_nothing_without_an_image_or_with_a_value_it_does_not_know(program, given, refusal):
    done = subprocess.run(
        [program("helm"), "template", "lading", DEPLOY / "helm/lading", "--set", given], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert refusal in done.stderr


def test_values_of_the_chart(helm):
    things = helm(
        *("--set", f"image.repository=example.com/lading,image.digest={DIGEST},containers.localModel=null"),
        *(
            "--set-json",
            'config={"registries": [{"name": "prod", "kind": "catalog", "path": "/c"}], "verify": "strict"}',
        ),
        *("--set-json", 'env=[{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]'),
    )
    assert_read_by_kserve(things)
    for thing in things:
        validate(thing)
    found = containers(things)
    assert found.keys() == {"default", "model-registry-storage-initializer"}
    for container in found.values():
        assert container["image"] == f"example.com/lading@{DIGEST}"
        assert variables(container)["HTTPS_PROXY"] == "http://proxy:3128"
        config = yaml.safe_load(variables(container)["LADING_CONFIG_YAML"])
        assert config == {"registries": [{"name": "prod", "kind": "catalog", "path": "/c"}], "verify": "strict"}
    assert matching(things, "s3://bucket/model") == ["default"]


def test_the_chart_has_no_fault_that_helm_knows(program):
    done = subprocess.run([program("helm"), "lint", "--strict", DEPLOY / "helm/lading"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
