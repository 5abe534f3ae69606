"""The same tree gives the same manifest, and the same files, through every source."""

import mmap
import shutil
import subprocess
from contextlib import contextmanager
from functools import partial

import pytest

from fakes.certificates import Authority
from fakes.fake_azure import FakeAzure, azure_settings
from fakes.fake_gcs import FakeGcs
from fakes.fake_hub import FakeHub
from fakes.fake_mlflow import FakeMlflow
from fakes.fake_modelscope import FakeModelScope
from fakes.fake_oci import FakeRegistry
from fakes.fake_webhdfs import FakeWebHdfs
from fakes.faulty_http import FaultyServer
from fakes.git_server import GitServer
from fakes.real_s3 import BUCKET, client, fill_moto, moto, rclone, s3_settings
from fakes.trees import MIB, facts, mapped_tree, told, whole_manifest, write_contract_tree
from lading.settings.limits import Limits, Network
from lading.settings.registries import RegistryEntry

LIMITS = Limits(stall_s=20.0, connect_s=5.0, attempts=4, workers=4)


@pytest.fixture(scope="module")
def buckets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("buckets")
    write_contract_tree(folder / BUCKET / "tree")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def tree(buckets):
    return buckets / BUCKET / "tree"


@pytest.fixture(scope="module")
def expected(tree):
    return facts(tree)


@pytest.fixture(scope="module")
def tar(tree, tmp_path_factory):
    archive = tmp_path_factory.mktemp("archive") / "tree.tar"
    # By tar(1) and not by tarfile, which is what reads it.
    subprocess.run(["tar", "-C", tree, "--format=pax", "-cf", archive, "."], check=True)
    yield archive
    archive.unlink()


@pytest.fixture
def destination(tmp_path):
    yield tmp_path / "model"
    shutil.rmtree(tmp_path / "model", ignore_errors=True)


@contextmanager
def _local(request):
    yield str(request.getfixturevalue("tree")), {}


@contextmanager
def _file_uri(request):
    yield request.getfixturevalue("tree").as_uri(), {}


@contextmanager
def _http(request, tls=None, settings=None):
    with request.getfixturevalue("tar").open("rb") as file, FaultyServer(tls) as server:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        yield server.put("/tree.tar", content), settings or {}


@contextmanager
def _https(request):
    authority = Authority(request.getfixturevalue("tmp_path"))
    network = Network(ca_files=(authority.bundle,))
    with _http(request, authority.server_context("127.0.0.1"), {"network": network}) as found:
        yield found


@contextmanager
def _s3_by_rclone(request):
    with rclone(request.getfixturevalue("buckets")) as endpoint:
        yield f"s3://{BUCKET}/tree", s3_settings(endpoint)


@contextmanager
def _s3_by_moto(request):
    with moto() as endpoint:
        fill_moto(request.getfixturevalue("tree"), "tree")
        for marker in ("tree/", "tree/deep/", "tree/nothing-but-a-marker/"):
            client(endpoint).put_object(Bucket=BUCKET, Key=marker, Body=b"")
        yield f"s3://{BUCKET}/tree", s3_settings(endpoint)


@contextmanager
def _git(request):
    folder = request.getfixturevalue("tmp_path")
    with FaultyServer() as server, request.getfixturevalue("tree").joinpath("weights.bin").open("rb") as large:
        origin = GitServer(server, folder)
        model = origin.create()
        shutil.copytree(
            request.getfixturevalue("tree"), model.work, dirs_exist_ok=True, ignore=lambda *_: ["weights.bin"]
        )
        # As models are kept in git: the large file in Git LFS.
        content = memoryview(mmap.mmap(large.fileno(), 0, access=mmap.ACCESS_READ))
        model.commit({"weights.bin": model.pointer(content)})
        origin.keep(content)
        yield model.url, {}
    shutil.rmtree(model.bare)
    shutil.rmtree(model.work)


@contextmanager
def _gcs(request):
    with FaultyServer() as server:
        bucket = FakeGcs(server)
        for path, data in mapped_tree(request.getfixturevalue("tree")).items():
            bucket.put(f"tree/{path}", data)
        for marker in ("tree/", "tree/deep/", "tree/nothing-but-a-marker/"):
            bucket.put(marker, b"")
        yield "gs://models/tree", {"variables": {"STORAGE_EMULATOR_HOST": server.url}}


@contextmanager
def _azure(request, service):
    with FaultyServer() as server:
        azure = FakeAzure(server)
        for path, data in mapped_tree(request.getfixturevalue("tree")).items():
            azure.put(f"tree/{path}", data)
        for marker in ("tree/", "tree/deep/", "tree/nothing-but-a-marker/"):
            azure.blobs[marker] = azure.blobs["tree/empty"]
        yield f"http://lading.{service}.core.windows.net/models/tree", azure_settings(server)


@contextmanager
def _hugging_face(request):
    with FaultyServer() as server, FaultyServer(host="localhost") as content_network:
        FakeHub(server, content_network).repository("owner/tree").commit(mapped_tree(request.getfixturevalue("tree")))
        yield "hf://owner/tree", {"variables": {"HF_ENDPOINT": server.url}}


@contextmanager
def _modelscope(request):
    with FaultyServer() as server, FaultyServer(host="localhost") as content_network:
        FakeModelScope(server, content_network).model("owner/tree").commit(mapped_tree(request.getfixturevalue("tree")))
        yield "modelscope://owner/tree", {"variables": {"MODELSCOPE_ENDPOINT": server.url}}


@contextmanager
def _oci(request):
    with request.getfixturevalue("tar").open("rb") as file, FaultyServer() as server:
        registry = FakeRegistry(server)
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        registry.put_artifact(registry.put_blob(content, "application/vnd.kitops.modelkit.model.v1.tar"))
        yield registry.uri(), {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}}


@contextmanager
def _hdfs(request):
    with FaultyServer() as server, FaultyServer(host="localhost") as datanode:
        cluster = FakeWebHdfs(server, datanode, block_bytes=128 * MIB)
        for path, data in mapped_tree(request.getfixturevalue("tree")).items():
            cluster.put(f"/models/tree/{path}", data)
        cluster.make_folder("/models/tree/nothing")
        # Its checksums are asked for file by file, and have their own test.
        yield "hdfs://models/tree", {"variables": {"HDFS_NAMENODE": server.url}, "verify": "off"}


@pytest.mark.parametrize(
    "served",
    [
        _local,
        _file_uri,
        _http,
        _https,
        _s3_by_rclone,
        _s3_by_moto,
        partial(_azure, service="blob"),
        partial(_azure, service="file"),
        _gcs,
        _git,
        _hugging_face,
        _modelscope,
        _oci,
        _hdfs,
    ],
    ids=[
        "path",
        "file",
        "tar-over-http",
        "tar-over-https",
        "s3-rclone",
        "s3-moto",
        "azure-blob",
        "azure-files",
        "gcs",
        "git",
        "hugging-face",
        "modelscope",
        "oci",
        "hdfs",
    ],
)
def test_the_same_tree_gives_the_same_manifest_through_every_source(request, served, expected, destination, pull):
    with served(request) as (uri, settings):
        manifest = pull(uri, destination, limits=LIMITS, **settings)
    assert told(manifest) == expected
    assert told(whole_manifest(destination)) == expected


def test_an_mlflow_server_sends_all_but_the_name_that_it_cannot_send(tree, expected, destination, pull):
    unspeakable = "with space/and+plus & more=%41?#"
    with FaultyServer() as server:
        mlflow = FakeMlflow(server)
        for path, data in mapped_tree(tree).items():
            if path != unspeakable:
                mlflow.put(f"1/tree/{path}", data)
        registries = (RegistryEntry("prod", "mlflow", {"url": server.url}),)
        manifest = pull("mlflow-artifacts:/1/tree", destination, limits=LIMITS, registries=registries)
    assert told(manifest) == {path: about for path, about in expected.items() if path != unspeakable}
    assert told(whole_manifest(destination)) == told(manifest)
