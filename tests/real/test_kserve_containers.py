"""The containers that KServe makes of our manifests and an example, run as Kubernetes would run them."""

import subprocess
from pathlib import Path

import pytest
import yaml

from fakes.fake_kubeflow import FakeKubeflow
from fakes.fake_s3 import FakeS3
from fakes.image import ENGINE
from fakes.kserve import init_container, job_container
from fakes.trees import content, read_tree, whole_manifest, write_tree

DEPLOY = Path(__file__).parents[2] / "deploy"
MODEL = {"config.json": b"{}", "empty": b"", "weights/a.bin": content(300_000)}
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


def storage(name, **variables):
    """A ClusterStorageContainer of the base; ``variables`` replace those that it has."""
    found = yaml.safe_load((DEPLOY / f"base/{name}.yaml").read_text())
    if variables:
        found["spec"]["container"]["env"] = [{"name": name, "value": text} for name, text in variables.items()]
    return found


def example(name):
    return yaml.safe_load((DEPLOY / f"examples/{name}.yaml").read_text())


def secret(**values):
    """What KServe makes of a Secret: references, whose values the kubelet looks up."""
    return tuple({"name": key, "valueFrom": {"secretKeyRef": {"name": "s3", "key": key}}} for key in values)


class Kubelet:
    """Runs a container's specification.  ``secrets`` are values by key, ``folders`` what is mounted, by path."""

    def __init__(self, image, network, folder):
        self._image, self._network, self._folder = image, network, folder
        self.secrets = {}
        self.folders = {}
        self.log = folder / "termination-log"

    def volume(self, path):
        """The folder of an emptyDir that is mounted at this path, which anybody may write to."""
        if path not in self.folders:
            self.folders[path] = self._folder / path.strip("/").replace("/", "-")
            self.folders[path].mkdir()
            self.folders[path].chmod(0o777)
        return self.folders[path]

    def run(self, container):
        self.log.write_text("")
        self.log.chmod(0o666)
        done = subprocess.run(self._command(container), capture_output=True, text=True, timeout=120)
        return done.returncode, done.stderr

    def _command(self, container):
        security, limits = container["securityContext"], container["resources"]["limits"]
        assert security["runAsNonRoot"]
        command = ["podman", "run", "--rm", *ENGINE, "--network", f"ns:{self._network.path}", "--passwd=false"]
        if security["readOnlyRootFilesystem"]:
            command += ["--read-only", "--read-only-tmpfs=false"]
        if not security["allowPrivilegeEscalation"]:
            command += ["--security-opt", "no-new-privileges"]
        command += [f"--cap-drop={name}" for name in security["capabilities"]["drop"]]
        memory = limits["memory"].removesuffix("i").lower()
        command += ["--memory", memory, "--memory-swap", memory]
        for one in container["env"]:
            command += ["--env", f"{one['name']}={self._value(one)}"]
        for mount in container["volumeMounts"]:
            command += ["--volume", f"{self.volume(mount['mountPath'])}:{mount['mountPath']}"]
        for path, folder in self.folders.items():
            if path not in {mount["mountPath"] for mount in container["volumeMounts"]}:
                command += ["--volume", f"{folder}:{path}:ro"]
        command += ["--volume", f"{self.log}:/dev/termination-log"]
        return [*command, self._image, *container["args"]]

    def _value(self, variable):
        match variable:
            case {"valueFrom": {"secretKeyRef": {"key": key}}}:
                return self.secrets[key]
            case {"valueFrom": {"fieldRef": _}}:
                # The pods have no annotations.
                return ""
        return variable["value"]


@pytest.fixture
def server(server_of_pods):
    return server_of_pods


@pytest.fixture
def kubelet(image, network, tmp_path):
    return Kubelet(image, network, tmp_path)


@pytest.fixture
def s3(server):
    bucket = FakeS3(server)
    for path, data in MODEL.items():
        bucket.put(f"iris/{path}", data)
        bucket.put(f"llm/{path}", data)
    bucket.put("adapters/law/a.bin", b"law")
    return bucket


def endpoint(s3):
    """What KServe makes of a Secret's annotations."""
    return {"name": "AWS_ENDPOINT_URL", "value": s3.server.url}


def test_an_inference_service(kubelet, s3):
    kubelet.secrets = KEYS
    container = init_container(storage("default"), example("inference-service"), (*secret(**KEYS), endpoint(s3)))
    code, err = kubelet.run(container)
    assert code == 0, err
    assert read_tree(kubelet.volume("/mnt/models")) == MODEL
    whole_manifest(kubelet.volume("/mnt/models"))
    assert '"uri": "s3://models/iris"' in kubelet.log.read_text()


def test_an_inference_service_whose_model_is_not_there(kubelet, s3):
    service = example("inference-service")
    service["spec"]["predictor"]["model"]["storageUri"] = "s3://models/irs"
    kubelet.secrets = KEYS
    code, _ = kubelet.run(init_container(storage("default"), service, (*secret(**KEYS), endpoint(s3))))
    assert code == 3
    assert kubelet.log.read_text().startswith("error[not-found]: s3://models/irs ")


def test_an_inference_service_with_several_models(kubelet, s3):
    kubelet.secrets = KEYS
    container = init_container(storage("default"), example("several-models"), (*secret(**KEYS), endpoint(s3)))
    code, err = kubelet.run(container)
    assert code == 0, err
    volume = kubelet.volume("/mnt")
    assert read_tree(volume / "models") == MODEL
    assert read_tree(volume / "adapters/law") == {"a.bin": b"law"}


def test_a_download_job_into_what_others_left(kubelet, s3):
    container = job_container(storage("local-model"), example("local-model-cache"))
    container["env"] = [
        *container["env"],
        *({"name": name, "value": text} for name, text in KEYS.items()),
        endpoint(s3),
    ]
    write_tree(kubelet.volume("/mnt/models"), {"old.bin": b"old"})
    for _ in range(2):
        code, err = kubelet.run(container)
        assert code == 0, err
        assert read_tree(kubelet.volume("/mnt/models")) == MODEL


def test_a_name_in_a_registry_that_asks_for_the_pods_token(kubelet, s3, server):
    registry = FakeKubeflow(server)
    registry.token = "of-the-pod"
    registry.register("iris", "v1", "s3://models/iris")
    token = kubelet.volume("/var/run/secrets/registry")
    write_tree(token, {"token": b"of-the-pod"})
    chosen = yaml.safe_load((DEPLOY / "overlays/registry/registry.yaml").read_text())
    configuration, _, _ = chosen["spec"]["container"]["env"]
    configuration["value"] = configuration["value"].replace("https://model-registry.kubeflow.svc:8443", server.url)
    chosen["spec"]["container"]["env"] = [configuration]
    kubelet.secrets = KEYS
    service = example("registry-token")
    service["spec"]["predictor"]["model"]["storageUri"] = "token+model-registry://prod/iris/v1"
    code, err = kubelet.run(init_container(chosen, service, (*secret(**KEYS), endpoint(s3))))
    assert code == 0, err
    assert read_tree(kubelet.volume("/mnt/models")) == MODEL


def test_the_folder_of_a_node_is_given_to_the_agents_user(image, tmp_path):
    pod = yaml.safe_load((DEPLOY / "agent/daemonset.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["initContainers"]
    security = container["securityContext"]
    (mount,) = container["volumeMounts"]
    entrypoint, *arguments = container["command"]
    command = ["podman", "run", "--rm", *ENGINE, "--network", "none", "--passwd=false"]
    command += ["--read-only", "--read-only-tmpfs=false", "--security-opt", "no-new-privileges"]
    command += ["--user", f"{security['runAsUser']}:{security['runAsGroup']}"]
    command += [f"--cap-drop={name}" for name in security["capabilities"]["drop"]]
    command += [f"--cap-add={name}" for name in security["capabilities"]["add"]]
    command += ["--volume", f"{tmp_path}:{mount['mountPath']}", "--entrypoint", entrypoint, image, *arguments]
    # As the kubelet makes it, and a second time.
    tmp_path.chmod(0o755)
    for _ in range(2):
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        owner = tmp_path.stat()
        assert (owner.st_uid, owner.st_gid) == (
            pod["securityContext"]["runAsUser"],
            pod["securityContext"]["runAsGroup"],
        )
