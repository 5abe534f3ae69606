"""No hint offers what was asked for: where that is there and still is nothing to deliver, through every source."""

import json
from contextlib import contextmanager

import pytest

from fakes.fake_azure import FakeAzure, azure_settings
from fakes.fake_gcs import FakeGcs
from fakes.fake_hub import FakeHub
from fakes.fake_kubeflow import API, FakeKubeflow
from fakes.fake_mlflow import FakeMlflow
from fakes.fake_oci import INDEX, FakeRegistry, digest_of
from fakes.fake_s3 import FakeS3
from fakes.fake_webhdfs import FakeWebHdfs
from fakes.faulty_http import ALWAYS, status
from lading.errors import NotFound
from lading.settings.registries import RegistryEntry

BESIDE = "model-v2"


def says(document, **when):
    return status(200, json.dumps(document).encode(), times=ALWAYS, **when)


@contextmanager
def _s3(server):
    bucket = FakeS3(server)
    bucket.put("model/", b"")
    bucket.put(f"{BESIDE}/a", b"a")
    settings = {"variables": {"AWS_ENDPOINT_URL": server.url, "awsAnonymousCredential": "true"}}
    yield ["s3://models/model", "s3://models/model/"], settings


@contextmanager
def _gcs(server):
    bucket = FakeGcs(server)
    bucket.put("model/", b"")
    bucket.put(f"{BESIDE}/a", b"a")
    yield ["gs://models/model", "gs://models/model/"], {"variables": {"STORAGE_EMULATOR_HOST": server.url}}


@contextmanager
def _azure_blob(server):
    azure = FakeAzure(server)
    azure.put("model/", b"")
    azure.put(f"{BESIDE}/a", b"a")
    base = "http://lading.blob.core.windows.net/models"
    yield [f"{base}/model", f"{base}/model/"], azure_settings(server)


@contextmanager
def _azure_files(server):
    azure = FakeAzure(server)
    azure.folders.add("model")
    azure.put(f"{BESIDE}/a", b"a")
    base = "http://lading.file.core.windows.net/models"
    yield [f"{base}/model", f"{base}/model/"], azure_settings(server)


@contextmanager
def _hdfs(server):
    cluster = FakeWebHdfs(server)
    cluster.make_folder("/model")
    cluster.put(f"/{BESIDE}/a", b"a")
    yield ["hdfs://model", "hdfs://model/"], {"variables": {"HDFS_NAMENODE": server.url}}


@contextmanager
def _mlflow_artifacts(server):
    mlflow = FakeMlflow(server)
    mlflow.put(f"1/{BESIDE}/a", b"a")
    listed = {"files": [{"path": "model", "is_dir": True}, {"path": BESIDE, "is_dir": True}]}
    server.misbehave("/api/2.0/mlflow-artifacts/artifacts", says(listed, on=lambda request: request.query == "path=1"))
    registries = (RegistryEntry("prod", "mlflow", {"url": server.url}),)
    yield ["mlflow-artifacts:/1/model"], {"registries": registries}


@contextmanager
def _hugging_face(server):
    commit = FakeHub(server).repository("owner/name").commit({f"{BESIDE}/a": b"a"})
    place = f"/api/models/owner/name/tree/{commit}"
    server.misbehave(place, says([{"type": "directory", "path": "model"}, {"type": "directory", "path": BESIDE}]))
    server.misbehave(f"{place}/model", says([]))
    yield ["hf://owner/name@main/model", "hf://owner/name@main/model/"], {"variables": {"HF_ENDPOINT": server.url}}


@contextmanager
def _oci_tag_without_a_manifest(server):
    registry = FakeRegistry(server)
    for tag in ("model", BESIDE):
        registry.put_files({"a": b"a"}, tag=tag)
    server.misbehave(registry.path("manifests", "model"), status(404, times=ALWAYS))
    yield [registry.uri("model")], {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}}


@contextmanager
def _oci_index_without_its_manifest(server):
    registry = FakeRegistry(server)
    entry = {"mediaType": INDEX, "digest": digest_of(b"deleted"), "size": 1}
    registry.put_manifest("model", {"mediaType": INDEX, "manifests": [entry]})
    yield [registry.uri("model")], {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}}


@contextmanager
def _kubeflow_version(server):
    registry = FakeKubeflow(server)
    model = registry.model("iris")
    for name in ("model", BESIDE):
        registry.version(model, name)
    # Its search and its list do not agree.
    lists = f"{API}/registered_models/{model}/versions"
    server.misbehave(lists, says({"items": [], "size": 0, "pageSize": 500, "nextPageToken": ""}))
    server.misbehave(f"{API}/model_version", status(404, times=ALWAYS))
    yield ["model-registry://iris/model"], {"registries": (RegistryEntry("prod", "kubeflow", {"url": server.url}),)}


@contextmanager
def _mlflow_model(server):
    registry = FakeMlflow(server)
    for name in ("model", BESIDE):
        registry.add(name, {"a": b"a"})
    server.misbehave("/api/2.0/mlflow/registered-models/get", status(404, times=ALWAYS))
    yield ["models:/model/1"], {"registries": (RegistryEntry("prod", "mlflow", {"url": server.url}),)}


SERVED = [
    _s3,
    _gcs,
    _azure_blob,
    _azure_files,
    _hdfs,
    _mlflow_artifacts,
    _hugging_face,
    _oci_tag_without_a_manifest,
    _oci_index_without_its_manifest,
    _kubeflow_version,
    _mlflow_model,
]


@pytest.mark.parametrize("served", SERVED, ids=lambda served: served.__name__.strip("_"))
def test_no_source_and_no_registry_offers_what_was_asked_for(served, server, tmp_path, pull):
    with served(server) as (uris, settings):
        for uri in uris:
            with pytest.raises(NotFound) as caught:
                pull(uri, tmp_path / "model", **settings)
            words = caught.value.hint.replace("?", "").replace(",", "").split()
            assert not {"model", "model/"} & set(words), caught.value.hint
    assert not (tmp_path / "model").exists()


def test_what_is_beside_an_empty_folder_is_offered(server, tmp_path, pull):
    with _s3(server) as (uris, settings), pytest.raises(NotFound) as caught:
        pull(uris[1], tmp_path / "model", **settings)
    assert caught.value.hint == f"did you mean {BESIDE}/?"
