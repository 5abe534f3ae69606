"""What Kubeflow's own client registers, ``lading init`` brings: the same files, from wherever they are, with logins on both sides."""

import asyncio
import json
from contextlib import contextmanager

import pytest

from command_line import lading
from fakes.fake_hub import FakeHub
from fakes.fake_kubeflow import FakeKubeflow
from fakes.fake_oci import FakeRegistry, basic_only, tar
from fakes.faulty_http import FaultyServer
from fakes.real_s3 import ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY, rclone
from fakes.trees import content, read_tree, whole_manifest, write_tree

# The client's libraries are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

FILES = {"config.json": b"{}", "weights/part-1.bin": content(100_000, seed=1), "weights/empty": b""}
FORMAT = {"model_format_name": "onnx", "model_format_version": "1"}
TOKEN = "se-cret-token"
S3_KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}


@pytest.fixture
def kubeflow(server):
    fake = FakeKubeflow(server)
    fake.token = TOKEN
    return fake


@pytest.fixture
def client(kubeflow):
    from model_registry import ModelRegistry

    # Its own way of running would change asyncio for the whole process.
    return ModelRegistry(kubeflow.url, author="me", is_secure=False, user_token=TOKEN, async_runner=asyncio.run)


@pytest.fixture
def init(kubeflow, tmp_path):
    """Run the container's command with a configuration whose login is in a file."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    login = {"token": {"file": str(tmp_path / "token")}}
    (tmp_path / "log").touch()

    def call(uri: str, environ=None, **options):
        entry = {"name": "kf", "kind": "kubeflow", "url": kubeflow.url, "login": login, **options}
        # YAML is a superset of JSON.
        (tmp_path / "lading.yaml").write_text(json.dumps({"registries": [entry]}))
        about = {"LADING_CONFIG": tmp_path / "lading.yaml", "LADING_TERMINATION_LOG": tmp_path / "log"}
        environ = {key: str(value) for key, value in {**about, **(environ or {})}.items()}
        return lading("init", uri, tmp_path / "models", environ=environ)

    return call


@contextmanager
def _s3(client, tmp_path):
    from model_registry.utils import S3Params

    write_tree(tmp_path / "tree", FILES)
    (tmp_path / "s3" / BUCKET).mkdir(parents=True)
    with rclone(tmp_path / "s3") as endpoint:
        to = S3Params(BUCKET, "iris/v1", endpoint, ACCESS_KEY_ID, SECRET_ACCESS_KEY, "us-east-1")
        about = {"upload_params": to, "version": "v1", **FORMAT}
        client.upload_artifact_and_register_model("iris", str(tmp_path / "tree"), **about)
        assert client.get_model_artifact("iris", "v1").uri.endswith(f"?endpoint={endpoint}&defaultRegion=us-east-1")
        yield S3_KEYS, {}


@contextmanager
def _s3_by_storage_key(client, tmp_path):
    """The keys are those that the configuration has for the artifact's storageKey."""
    write_tree(tmp_path / "s3" / BUCKET / "iris/v1", FILES)
    write_tree(tmp_path / "secret", {name: value.encode() for name, value in S3_KEYS.items()})
    with rclone(tmp_path / "s3") as endpoint:
        uri = f"s3://{BUCKET}/iris/v1?endpoint={endpoint}&defaultRegion=us-east-1"
        client.register_model("iris", uri, version="v1", storage_key="minio", **FORMAT)
        yield {}, {"storage": {"minio": {"folder": str(tmp_path / "secret")}}}


@contextmanager
def _local(client, tmp_path):
    write_tree(tmp_path / "shared/iris", FILES)
    client.register_model("iris", (tmp_path / "shared/iris").as_uri(), version="v1", **FORMAT)
    yield {}, {"folders": [str(tmp_path / "shared")]}


@contextmanager
def _http(client, tmp_path):
    with FaultyServer() as origin:
        uri = origin.put("/iris.tar", tar(*FILES.items()))
        client.register_model("iris", uri, version="v1", **FORMAT)
        yield {"127.0.0.1-headers": '{"X-Token": "x"}'}, {}
        assert {request.headers.get("x-token") for request in origin.requests} == {"x"}


@contextmanager
def _hub(client, tmp_path):
    with FaultyServer() as server:
        hub = FakeHub(server)
        hub.repository("owner/iris", private=True, readers=frozenset({"hf_x"})).commit(FILES)
        client.register_model("iris", "hf://owner/iris", version="v1", **FORMAT)
        yield {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_x"}, {}


@contextmanager
def _oci(client, tmp_path):
    with FaultyServer() as server:
        registry = FakeRegistry(server)
        registry.authorize = basic_only
        registry.put_image(tar(*((f"models/{path}", data) for path, data in FILES.items())), tag="v1")
        client.register_model("iris", registry.uri("v1"), version="v1", **FORMAT)
        login = {"OCI_USERNAME": "user", "OCI_PASSWORD": "password", "OCI_HOST": registry.host}
        yield login | {"KSERVE_OCI_INSECURE_REGISTRY": "true"}, {}


@pytest.mark.parametrize("placed", [_s3, _s3_by_storage_key, _local, _http, _hub, _oci])
def test_a_registered_model_is_brought_byte_for_byte(client, kubeflow, init, tmp_path, placed):
    with placed(client, tmp_path) as (environ, options):
        done = init("model-registry://iris/v1", environ, **options)
        assert done.code == 0, done.err
    assert read_tree(tmp_path / "models") == FILES
    manifest = whole_manifest(tmp_path / "models")
    assert (manifest.registry, manifest.version) == ("kf", "v1")
    assert manifest.metadata["modelFormatName"] == "onnx"
    written = (tmp_path / "models/.lading.manifest").read_text() + done.out + done.err + (tmp_path / "log").read_text()
    for secret in (TOKEN, SECRET_ACCESS_KEY, "hf_x"):
        assert secret not in written


def test_the_client_s_properties_are_digests_and_aliases(client, init, tmp_path):
    import hashlib

    write_tree(tmp_path / "shared", FILES)
    digests = {f"digest.{path}": f"sha256:{hashlib.sha256(data).hexdigest()}" for path, data in FILES.items()}
    uri = (tmp_path / "shared").as_uri()
    model = client.register_model("iris", uri, version="v1", metadata=digests, **FORMAT)
    client.register_model(
        "iris", uri, version="v2", metadata=digests | {"digest.config.json": "md5:" + "0" * 32}, **FORMAT
    )
    model.custom_properties = {"alias.champion": "v1"}
    client.update(model)
    done = init("model-registry://kf/iris@champion", {"LADING_VERIFY": "strict"}, folders=[str(tmp_path)])
    assert done.code == 0, done.err
    done = init("model-registry://iris", folders=[str(tmp_path)])
    assert done.code == 6
    assert "config.json" in done.err
    assert whole_manifest(tmp_path / "models").version == "v1"


def test_a_token_that_is_not_accepted_is_not_told(client, init, tmp_path, kubeflow):
    client.register_model("iris", "s3://b/p", version="v1", **FORMAT)
    kubeflow.token = "another"
    done = init("model-registry://iris")
    assert done.code == 4
    assert "does not accept the login (401, token)" in done.err
    assert TOKEN not in done.err
    assert "does not accept the login" in (tmp_path / "log").read_text()
    assert not (tmp_path / "models").exists()
