"""The fake registry is one to Kubeflow's own client, and its answers are what the published schema describes."""

import asyncio
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.fake_kubeflow import API, V1, FakeKubeflow
from fakes.faulty_http import Answer, FaultyServer, Request
from fakes.registry_entries import registry_entry
from lading.model.reference import Reference
from lading.model.uri import ModelURI
from lading.registries.federation import open_registry
from lading.registries.registry import Deployment, DeploymentState, Resolution

# The client's libraries are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

SCHEMA = Path(__file__).with_name("kubeflow-model-registry.openapi.yaml")
_NAME = "urn:kubeflow"
FORMAT = {"model_format_name": "onnx", "model_format_version": "1"}


@cache
def _schema() -> dict[str, Any]:
    return yaml.load(SCHEMA.read_text(), yaml.CSafeLoader)


class Described:
    """Holds what is asked and answered against the published schema; ``wrong`` is what does not fit."""

    def __init__(self) -> None:
        from referencing import Registry
        from referencing.jsonschema import DRAFT4

        self.wrong: list[str] = []
        self.seen: set[tuple[str, str, int]] = set()
        self._registry = Registry().with_resource(_NAME, DRAFT4.create_resource(_schema()))

    def watch(self, server: FaultyServer) -> None:
        route = server.routes[f"{API}/"]

        def answer(request: Request) -> Answer:
            given = route(request)
            try:
                self._check(request, given)
            except Exception as error:  # noqa: BLE001 - in the server's thread nobody would see it
                self.wrong.append(f"{request.method} {request.target}: {error!r}")
            return given

        for root in (API, V1):
            server.routes[f"{root}/"] = answer

    def _check(self, request: Request, answer: Answer) -> None:
        # The schema is that of v1alpha3; v1 is the same but for what is not used here.
        asked = request.path.replace(f"{V1}/", f"{API}/")
        path = next(path for path in _schema()["paths"] if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", path), asked))
        operation = _schema()["paths"][path][request.method.lower()]
        self.seen.add((request.method, path.removeprefix(API), answer.status))
        if request.body:
            self._fits(operation["requestBody"], json.loads(request.body), f"what is sent to {path}")
        described = operation["responses"].get(str(answer.status))
        if described is None:
            self.wrong.append(f"{request.method} {path} may not answer {answer.status}")
        else:
            self._fits(self._resolved(described), json.loads(answer.body), f"the answer of {path}")

    def _resolved(self, described: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in described:
            return described
        return _schema()["components"]["responses"][described["$ref"].rpartition("/")[2]]

    def _fits(self, described: dict[str, Any], document: object, what: str) -> None:
        from openapi_schema_validator import OAS30Validator

        reference = described["content"]["application/json"]["schema"]["$ref"]
        validator = OAS30Validator({"$ref": _NAME + reference}, registry=self._registry)
        self.wrong += [f"{what}: {error.message}" for error in validator.iter_errors(document)]


@pytest.fixture
def kubeflow(server):
    return FakeKubeflow(server)


@pytest.fixture
def described(kubeflow, server):
    watching = Described()
    watching.watch(server)
    return watching


@pytest.fixture
def client(kubeflow):
    from model_registry import ModelRegistry

    # Its own way of running would change asyncio for the whole process.
    return ModelRegistry(kubeflow.url, author="me", is_secure=False, user_token="x", async_runner=asyncio.run)


def test_kubeflow_s_own_client_takes_the_fake_for_a_registry(client, described):
    client.register_model("iris", "s3://b/v1", version="v1", **FORMAT, metadata={"a": 1, "b": 1.5, "c": True, "d": "x"})
    client.register_model("iris", "s3://b/v2", version="v2", **FORMAT, storage_key="minio", model_source_kind="kfp")
    model = client.get_registered_model("iris")
    assert (model.name, model.owner) == ("iris", "me")
    assert [version.name for version in client.get_model_versions("iris").page_size(1)] == ["v1", "v2"]
    assert [version.name for version in client.get_model_versions("iris").descending()] == ["v2", "v1"]
    version = client.get_model_version("iris", "v1")
    assert version.custom_properties == {"a": 1, "b": 1.5, "c": True, "d": "x"}
    artifact = client.get_model_artifact("iris", "v2")
    assert (artifact.uri, artifact.state, artifact.storage_key) == ("s3://b/v2", "UNKNOWN", "minio")
    assert [found.name for found in client.get_registered_models()] == ["iris"]
    assert client.get_registered_model("lost") is None
    assert client.get_model_version("iris", "v3") is None
    assert not described.wrong
    assert len(described.seen) > 8


def test_the_client_changes_what_the_fake_keeps(client, described):
    model = client.register_model("iris", "s3://b/v1", version="v1", **FORMAT)
    model.custom_properties = {"alias.champion": "v1"}
    client.update(model)
    artifact = client.get_model_artifact("iris", "v1")
    artifact.custom_properties = {"sha256": "0" * 64}
    client.update(artifact)
    assert client.get_registered_model("iris").custom_properties == {"alias.champion": "v1"}
    assert client.get_model_artifact("iris", "v1").custom_properties == {"sha256": "0" * 64}
    assert not described.wrong


def test_what_lading_asks_and_says_is_as_the_schema_describes(client, kubeflow, described, new_session):
    # The client itself cannot: it looks for the name first, and the server refuses to.
    kubeflow.register("größe", "v1", "s3://b/v1")
    client.register_model("iris", "s3://b/v1", version="v1", **FORMAT)
    session = new_session()
    registry = open_registry(registry_entry("kf", "kubeflow", url=kubeflow.url), session.settings, session.http)
    for reference in (Reference("größe"), Reference("iris"), Reference("iris", "v1")):
        assert registry.resolve(reference).uri == ModelURI.parse("s3://b/v1")
    found = registry.resolve(Reference("iris"))
    states: tuple[DeploymentState, ...] = ("COMPLETE", "COMPLETE", "FAILED", "CANCELED", "UNDEPLOYED", "COMPLETE")
    for state in states:
        registry.record(
            found, Deployment("rollout", "team-a", "iris", state, f"sha256:0@{state}", {"message": "x"}, "")
        )
    assert isinstance(found, Resolution)
    assert not described.wrong
    assert {path for method, path, _ in described.seen if method == "POST"} >= {
        "/serving_environments",
        "/inference_services",
        "/inference_services/{inferenceserviceId}/serves",
    }
