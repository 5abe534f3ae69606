"""The image, as Kubernetes runs it: a restricted pod, in a network that has this test's servers and nothing else."""

import gzip
import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

import pytest

import lading
from fakes.certificate_cases import BELIEVED
from fakes.fake_kubeflow import FakeKubeflow
from fakes.fake_mlflow import FakeMlflow
from fakes.fake_oci import FakeRegistry, tar
from fakes.fake_s3 import FakeS3
from fakes.faulty_http import ALWAYS, FaultyServer, anything, stall, status
from fakes.image import ENGINE, ROOT, build, podman
from fakes.trees import MIB, content, read_tree, whole_manifest
from lading.model.digest import HEX_DIGITS

FILES = {"config.json": b"{}", "empty": b"", "weights/a.bin": content(2 * MIB)}
MOST_BYTES = 16e6
# No user of the image, and of no group that it knows, as OpenShift and Istio have it.
ANYBODY = "1000730000:0"
S3 = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "S3_MAX_ATTEMPTS": "1"}


@pytest.fixture(scope="module")
def about(image):
    return json.loads(podman("inspect", image, check=True).stdout)[0]


@pytest.fixture(scope="module")
def root(image, tmp_path_factory):
    """The image's file system, as a folder and as the size that a registry would give it."""
    folder = tmp_path_factory.mktemp("root")
    container = podman("create", *ENGINE, image, check=True).stdout.strip()
    packed = folder.with_suffix(".tar")
    podman("export", "--output", packed, container, check=True)
    podman("rm", container, check=True)
    subprocess.run(["tar", "-C", folder, "-xf", packed], check=True)
    return folder


@pytest.fixture
def server(server_of_pods):
    return server_of_pods


class Outcome(NamedTuple):
    code: int
    err: str
    last_word: str

    @property
    def provenance(self):
        return json.loads(self.last_word)


class Pod:
    """One run of the image under the restricted pod security standard, with an emptyDir and a termination log."""

    def __init__(self, image, network, folder):
        self.models, self._log = folder / "models", folder / "termination-log"
        self.models.mkdir()
        self.models.chmod(0o777)
        self._log.touch()
        self._log.chmod(0o666)
        self._image, self._network = image, network
        self.name = f"lading-test-{os.getpid()}"

    def command(self, *arguments, environ=None, user=ANYBODY, memory="64m", mounts=(), room=""):
        for_models = f"type=bind,source={self.models},destination=/mnt/models"
        if room:
            for_models = f"type=tmpfs,destination=/mnt/models,tmpfs-size={room},tmpfs-mode=1777"
        return [
            *("podman", "run", "--rm", *ENGINE, "--name", self.name, "--network", f"ns:{self._network.path}"),
            *("--user", user, "--passwd=false", "--read-only", "--read-only-tmpfs=false"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--memory", memory, "--memory-swap", memory, "--mount", for_models),
            *("--mount", f"type=bind,source={self._log},destination=/dev/termination-log"),
            *(word for source, place in mounts for word in ("--volume", f"{source}:{place}:ro")),
            *(word for name, value in (environ or {}).items() for word in ("--env", f"{name}={value}")),
            *(self._image, *arguments),
        ]

    def run(self, *arguments, **options):
        return self.end(self.start(*arguments, **options))

    def start(self, *arguments, **options):
        return subprocess.Popen(
            self.command(*arguments, **options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self, process):
        _, err = process.communicate(timeout=60)
        return Outcome(process.returncode, err, self._log.read_text())


@pytest.fixture
def pod(image, network, tmp_path):
    return Pod(image, network, tmp_path)


# ---- what is in it


def test_nothing_runs_in_it_but_lading_and_its_interpreter(root):
    programs = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o111 and ".so" not in path.name
    }
    assert programs == {"usr/bin/lading", "usr/bin/python3.13"}
    special = [path for path in root.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o6000]
    assert special == []
    writable = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & 0o002
    }
    assert writable == {"mnt", "mnt/models", "tmp"}


def test_it_is_small(root):
    with open(root.with_suffix(".tar"), "rb") as file:
        assert len(gzip.compress(file.read(), 6)) < MOST_BYTES


def test_it_trusts_debians_authorities_and_not_those_of_the_machine_that_built_it(root):
    bundle = (root / "etc/ssl/certs/ca-certificates.crt").read_text()
    assert bundle.count("BEGIN CERTIFICATE") > 100
    for local in Path("/usr/local/share/ca-certificates").glob("*.crt"):
        assert local.read_text().strip() not in bundle


def test_its_bill_of_materials_lists_every_distribution_and_package_with_its_licence(root, sources):
    inside = (root / "usr/share/sbom/lading.cdx.json").read_text()
    assert (sources / "build/lading.cdx.json").read_text() == inside
    bill = json.loads(inside)
    assert bill["metadata"]["component"]["name"] == "lading"
    assert bill["metadata"]["component"]["version"] == lading.__version__
    found = {each["purl"].partition("@")[0] for each in bill["components"]}
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE)
    assert {purl for purl in found if "pypi" in purl} == {f"pkg:pypi/{name}" for name in (*locked, "lading-native")}
    crates = re.findall(r"^([a-z0-9_-]+) ", (ROOT / "native/crates.txt").read_text(), re.MULTILINE)
    assert {purl for purl in found if "cargo" in purl} == {f"pkg:cargo/{name}" for name in crates}
    assert {"pkg:deb/debian/libc6", "pkg:deb/debian/libssl3t64", "pkg:deb/debian/python3.13-minimal"} <= found
    assert all(each["licenses"] for each in bill["components"])
    packages = {purl.rpartition("/")[2] for purl in found if "deb" in purl}
    assert {path.name for path in (root / "var/lib/dpkg/status.d").iterdir()} == packages
    assert {path.parent.name for path in root.glob("usr/share/doc/*/copyright")} == packages


def test_it_says_what_it_is(about, sources):
    assert about["Config"]["User"] == "1000:1000"
    assert about["Config"]["Entrypoint"] == ["/usr/bin/lading", "init"]
    labels = about["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == lading.__version__
    assert {f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses", "revision")} <= set(
        labels
    )


def test_the_same_inputs_give_the_same_layers(about, image, sources):
    again = build(sources, "localhost/lading:tested-again", FRESH="1")
    layers = json.loads(podman("inspect", again, check=True).stdout)[0]["RootFS"]["Layers"]
    assert layers == about["RootFS"]["Layers"]


def test_every_module_of_lading_can_be_imported_in_it(image):
    package = ROOT / "src"
    places = [path.relative_to(package).with_suffix("") for path in package.rglob("*.py")]
    names = sorted(
        {".".join(p.parent.parts if p.name == "__init__" else p.parts) for p in places} - {"lading.__main__"}
    )
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    done = podman("run", "--rm", *ENGINE, "--entrypoint", "/usr/bin/python3", image, "-I", "-c", code, *names)
    assert done.returncode == 0, done.stderr


def test_every_digest_but_that_of_an_extra_can_be_computed_in_it(image):
    code = (
        "from lading.model.digest import HEX_DIGITS, Digest; from lading.model.checksums import SequentialHash;"
        "wanted = [Digest(name, '0' * digits) for name, digits in HEX_DIGITS.items() if name != 'blake3'];"
        "hashes = [SequentialHash(each, 1) for each in wanted];"
        "[each.update(memoryview(b'x')) for each in hashes]; [print(each.digest().algorithm) for each in hashes]"
    )
    done = podman("run", "--rm", *ENGINE, "--entrypoint", "/usr/bin/python3", image, "-I", "-c", code)
    assert done.stdout.split() == [name for name in HEX_DIGITS if name != "blake3"], done.stderr


def test_it_speaks_no_older_tls_than_1_2_and_knows_names_of_the_hosts_file_first(image):
    code = (
        "import socket; from lading.network.certificates import new_context; from lading.settings.limits import Network;"
        "context = new_context(Network());"
        "print(context.minimum_version.name, len(context.get_ca_certs()) > 100, socket.gethostbyname('model.test'))"
    )
    run = ("run", "--rm", *ENGINE, "--network", "none", "--add-host", "model.test:127.0.0.9")
    done = podman(*run, "--entrypoint", "/usr/bin/python3", image, "-I", "-c", code)
    assert done.stdout == "TLSv1_2 True 127.0.0.9\n", done.stderr


# ---- what it brings


def from_s3(server, tmp_path):
    bucket = FakeS3(server)
    for path, data in FILES.items():
        bucket.put(f"iris/{path}", data)
    return "s3://models/iris", S3 | {"AWS_ENDPOINT_URL": server.url}, ()


def from_http(server, tmp_path):
    packed = gzip.compress(tar(*FILES.items()))
    return server.put("/iris.tar.gz", packed), {}, ()


def from_oci(server, tmp_path):
    registry = FakeRegistry(server)
    registry.put_image(tar(*((f"models/{path}", data) for path, data in FILES.items())))
    return registry.uri(), {"KSERVE_OCI_INSECURE_REGISTRY": "true"}, ()


def from_catalog(server, tmp_path):
    uri, environ, _ = from_s3(server, tmp_path)
    entry = {"name": "catalog", "kind": "catalog", "path": "/etc/lading/catalog.yaml"}
    # JSON is YAML.
    (tmp_path / "lading.yaml").write_text(json.dumps({"registries": [entry]}))
    (tmp_path / "catalog.yaml").write_text(json.dumps({"models": {"iris": {"versions": {"v1": {"uri": uri}}}}}))
    return (
        "model-registry://iris/v1",
        environ,
        [(tmp_path / name, f"/etc/lading/{name}") for name in ("lading.yaml", "catalog.yaml")],
    )


def from_mlflow(server, tmp_path):
    FakeMlflow(server).add("iris", FILES)
    return "model-registry://iris/1", {"MLFLOW_TRACKING_URI": server.url}, ()


def from_kubeflow(server, tmp_path):
    uri, environ, _ = from_s3(server, tmp_path)
    FakeKubeflow(server).register("iris", "v1", uri)
    address = {"MODEL_REGISTRY_BASE_URL": server.url.partition("://")[2], "MODEL_REGISTRY_SCHEME": "http"}
    return "model-registry://iris/v1", environ | address, ()


ORIGINS = [from_s3, from_http, from_oci, from_catalog, from_mlflow, from_kubeflow]


@pytest.mark.parametrize(("user", "memory"), [("1000:1000", "1g"), (ANYBODY, "64m")])
@pytest.mark.parametrize("origin", ORIGINS, ids=lambda origin: origin.__name__)
def test_a_model_comes_from_any_origin(pod, server, tmp_path, origin, user, memory):
    uri, environ, mounts = origin(server, tmp_path)
    outcome = pod.run(uri, "/mnt/models", environ=environ, mounts=mounts, user=user, memory=memory)
    assert outcome.code == 0, outcome.err
    assert read_tree(pod.models) == FILES
    manifest = whole_manifest(pod.models)
    facts = outcome.provenance
    assert (facts["uri"], facts["digest"]) == (manifest.resolved, str(manifest.digest))
    assert (facts["files"], facts["bytes"]) == (len(FILES), sum(map(len, FILES.values())))
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in pod.models.rglob("*")}
    assert owners == {tuple(map(int, user.split(":")))}


@pytest.mark.parametrize("memory", ["64m", "1g"])
def test_a_model_may_be_larger_than_the_memory(pod, server, memory):
    bucket = FakeS3(server)
    files = {f"part-{number}.bin": content(48 * MIB, seed=number) for number in range(3)}
    for path, data in files.items():
        bucket.put(f"llm/{path}", data)
    outcome = pod.run("s3://models/llm", "/mnt/models", environ=S3 | {"AWS_ENDPOINT_URL": server.url}, memory=memory)
    assert outcome.code == 0, outcome.err
    assert read_tree(pod.models) == files


def test_two_models_come_together(pod, server, tmp_path):
    base, environ, _ = from_s3(server, tmp_path)
    adapter, _, _ = from_http(server, tmp_path)
    outcome = pod.run(base, "/mnt/models/base", adapter, "/mnt/models/adapters/one", environ=environ)
    assert outcome.code == 0, outcome.err
    assert read_tree(pod.models / "base") == read_tree(pod.models / "adapters/one") == FILES
    assert [facts["files"] for facts in outcome.provenance] == [len(FILES)] * 2


def test_a_private_authority_is_trusted_if_it_is_mounted(pod, network, tmp_path):
    # As old scripts make it, which the image's Python would refuse by itself.
    case = BELIEVED["no key identifiers and no key usage"](tmp_path)
    with network.within():
        secure = FaultyServer(case.server, host="localhost")
    with secure:
        url = secure.put("/model.bin", b"model")
        refused = pod.run(url, "/mnt/models")
        assert (refused.code, read_tree(pod.models)) == (4, {})
        assert "certificate" in refused.last_word
        environ = {"CA_BUNDLE_CONFIGMAP_NAME": "ca", "CA_BUNDLE_VOLUME_MOUNT_POINT": "/etc/ssl/custom-certs"}
        mounts = [(case.bundle, "/etc/ssl/custom-certs/cabundle.crt")]
        outcome = pod.run(url, "/mnt/models", environ=environ, mounts=mounts)
    assert outcome.code == 0, outcome.err
    assert read_tree(pod.models) == {"model.bin": b"model"}


# ---- how it fails


def not_found(server):
    return ("s3://models/irsi", "/mnt/models"), {}


def not_allowed(server):
    server.misbehave("", status(403, times=ALWAYS, on=anything))
    return ("s3://models/iris", "/mnt/models"), {}


def unavailable(server):
    # Not of this network: what is not this test's server cannot be reached.
    return ("http://192.0.2.1/model.bin", "/mnt/models"), {}


def integrity(server):
    return (server.url + "/model.bin", "/mnt/models", "--digest", f"sha256:{'0' * 64}"), {}


def no_space(server):
    return ("s3://models/iris", "/mnt/models"), {"room": "1m"}


def usage(server):
    return ("s3://models/iris",), {}


def unsupported(server):
    return ("ftp://models/iris", "/mnt/models"), {}


FAILURES = {not_found: 3, not_allowed: 4, unavailable: 5, integrity: 6, no_space: 7, usage: 2, unsupported: 8}


@pytest.mark.parametrize(("failure", "code"), FAILURES.items(), ids=lambda each: getattr(each, "__name__", each))
def test_a_failure_is_said_where_kubernetes_looks(pod, server, tmp_path, failure, code):
    _, environ, _ = from_s3(server, tmp_path)
    server.put("/model.bin", b"model")
    arguments, options = failure(server)
    outcome = pod.run(*arguments, environ=environ, **options)
    assert outcome.code == code, outcome.err
    kind = failure.__name__.replace("_", "-")
    assert re.fullmatch(rf"error\[{kind}\]: [^\n]+ \([^\n]+\)", outcome.last_word)
    # The log's last lines are the same, which the kubelet shows if there is no termination log.
    assert outcome.err.splitlines()[-2].startswith(f"error[{kind}]: ")
    assert outcome.err.splitlines()[-1].startswith("hint: ")
    assert list(pod.models.glob("[!.]*")) == []
    assert not (pod.models / ".lading.manifest").exists()


def test_a_pod_that_is_deleted_ends_at_once_and_leaves_what_the_next_needs(pod, server):
    bucket = FakeS3(server)
    data = content(8 * MIB)
    bucket.put("llm/weights.bin", data)
    environ = S3 | {"AWS_ENDPOINT_URL": server.url}
    server.misbehave(bucket.path("llm/weights.bin"), stall(at=4 * MIB))
    half = threading.Event()
    server.on_sent = lambda _, total: half.set() if total >= 4 * MIB else None
    process = pod.start("s3://models/llm", "/mnt/models", environ=environ)
    assert half.wait(30)
    podman("kill", "--signal", "TERM", pod.name, check=True)
    outcome = pod.end(process)
    assert outcome.code == 128 + signal.SIGTERM, outcome.err
    assert outcome.last_word.startswith("error[interrupted]: ")
    assert [path.name for path in pod.models.iterdir()] == [".lading"]
    assert pod.run("s3://models/llm", "/mnt/models", environ=environ).code == 0
    assert read_tree(pod.models) == {"weights.bin": data}
