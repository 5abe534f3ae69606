"""What was delivered where is told to the registry, if it is to be told, and never fails a delivery."""

import json
import re
from typing import ClassVar

import pytest

from fakes.fake_kubeflow import API, FakeKubeflow
from fakes.faulty_http import ALWAYS, ANYWHERE, Answer, reset, stall, status
from fakes.registry_entries import registry_entry
from fakes.told_registry import TOLD, ToldRegistry, ToldSettings
from fakes.trees import write_tree
from lading.errors import UsageError
from lading.events import AlreadyDelivered, Delivered, NotRecorded, Recorded
from lading.model.uri import ModelURI
from lading.registries import deployments, federation
from lading.settings.limits import Limits
from lading.settings.registries import KINDS, RegistryEntry
from lading.settings.server import ServerSettings

FILES = {"config.json": b"{}", "weights/a.bin": b"abc" * 100}
WHERE = {"POD_NAMESPACE": "team-a", "INFERENCE_SERVICE_NAME": "shop"}


@pytest.fixture
def kubeflow(server, tmp_path):
    write_tree(tmp_path / "origin", FILES)
    return FakeKubeflow(server)


@pytest.fixture
def deliver(kubeflow, pull, tmp_path):
    """Deliver a name: ``deliver("iris", to="model", record=True)``."""

    def call(name: str, *, to: str = "model", variables=None, record: object = True, **options):
        entry = registry_entry("kf", "kubeflow", url=kubeflow.url, folders=[str(tmp_path)], record=record, **options)
        about = WHERE if variables is None else variables
        return pull(f"model-registry://{name}", tmp_path / to, registries=(entry,), variables=about)

    return call


def kept(kubeflow: FakeKubeflow, kind: str) -> list[dict]:
    return list(kubeflow.kept[kind].values())


def writes(kubeflow: FakeKubeflow) -> list[str]:
    return [
        f"{request.method} {request.path.removeprefix(API)}"
        for request in kubeflow.server.requests
        if request.method != "GET"
    ]


def test_a_delivery_is_told_once_it_is_in_place(kubeflow, deliver, events, tmp_path):
    version = kubeflow.register("iris", "v1", str(tmp_path / "origin"))
    manifest = deliver("iris")
    assert [type(event) for event in events[-2:]] == [Delivered, Recorded]
    (environment,) = kept(kubeflow, "serving_environment")
    (service,) = kept(kubeflow, "inference_service")
    (served,) = kept(kubeflow, "serve_model")
    assert environment["name"] == "team-a"
    assert service["name"] == "shop/iris"
    assert (service["modelVersionId"], service["desiredState"]) == (version, "DEPLOYED")
    assert service["registeredModelId"] == kept(kubeflow, "registered_model")[0]["id"]
    assert (served["modelVersionId"], served["lastKnownState"]) == (version, "COMPLETE")
    said = {key: value["string_value"] for key, value in served["customProperties"].items()}
    assert said == {
        "uri": str(tmp_path / "origin"),
        "digest": str(manifest.digest),
        "destination": str(tmp_path / "model"),
        "files": "2",
        "bytes": "302",
    }


def test_the_same_again_changes_nothing(kubeflow, deliver, events, tmp_path):
    kubeflow.register("iris", "v1", str(tmp_path / "origin"))
    deliver("iris")
    before = json.dumps(kubeflow.kept)
    kubeflow.server.requests.clear()
    for replica in ("model", "replica"):
        deliver("iris", to=replica)
    assert not writes(kubeflow)
    assert json.dumps(kubeflow.kept) == before
    assert any(isinstance(event, AlreadyDelivered) for event in events)
    assert sum(isinstance(event, Recorded) for event in events) == 3


def test_another_version_moves_the_service_and_another_model_has_one_of_its_own(kubeflow, deliver, tmp_path):
    kubeflow.register("iris", "v1", str(tmp_path / "origin"))
    deliver("iris")
    second = kubeflow.register("iris", "v2", str(tmp_path / "origin"))
    kubeflow.register("größe/2", "v1", str(tmp_path / "origin"))
    deliver("iris")
    deliver("gr%C3%B6%C3%9Fe%2F2")
    services = {service["name"]: service["modelVersionId"] for service in kept(kubeflow, "inference_service")}
    assert services.keys() == {"shop/iris", "shop/gr%C3%B6%C3%9Fe%2F2"}
    assert services["shop/iris"] == second
    assert len(kept(kubeflow, "serve_model")) == 3
    assert len(kept(kubeflow, "serving_environment")) == 1


@pytest.mark.parametrize("forgets", [False, True])
def test_a_service_that_was_taken_down_is_up_again(kubeflow, deliver, tmp_path, forgets):
    kubeflow.forgets = forgets
    kubeflow.register("iris", "v1", str(tmp_path / "origin"))
    deliver("iris")
    (service,) = kept(kubeflow, "inference_service")
    properties = {"url": {"metadataType": "MetadataStringValue", "string_value": "http://x"}}
    service.update(desiredState="UNDEPLOYED", customProperties=properties, runtime="triton")
    deliver("iris")
    assert service["desiredState"] == "DEPLOYED"
    # What others wrote there is left alone.
    assert (service["customProperties"], service["runtime"]) == (properties, "triton")


@pytest.mark.parametrize("path", ["/serving_environments", "/inference_services", "/serves"])
def test_two_replicas_at_the_same_moment_say_it_once(kubeflow, deliver, events, tmp_path, path):
    kubeflow.register("iris", "v1", str(tmp_path / "origin"))
    route = kubeflow.server.routes[f"{API}/"]

    def twice(request) -> Answer:
        if request.method == "POST" and request.path.endswith(path):
            # The other replica was a moment faster.
            route(request)
        return route(request)

    kubeflow.server.routes[f"{API}/"] = twice
    deliver("iris")
    assert isinstance(events[-1], Recorded)
    assert [len(kept(kubeflow, kind)) for kind in ("serving_environment", "inference_service", "serve_model")] == [
        1
    ] * 3


@pytest.mark.parametrize("record", [False, "false", "no"])
def test_nothing_is_told_unless_it_is_asked_for(kubeflow, deliver, events, tmp_path, record):
    kubeflow.register("iris", "v1", str(tmp_path / "origin"))
    deliver("iris", record=record)
    assert isinstance(events[-1], Delivered)
    assert not writes(kubeflow)


@pytest.mark.parametrize(
    ("variables", "record", "why"),
    [
        ({}, True, "POD_NAMESPACE and INFERENCE_SERVICE_NAME"),
        ({"POD_NAMESPACE": "team-a"}, True, "POD_NAMESPACE and INFERENCE_SERVICE_NAME"),
    ],
)
def test_what_is_missing_for_it_is_told_and_the_delivery_stands(
    kubeflow, deliver, events, tmp_path, variables, record, why
):
    kubeflow.register("iris", "v1", str(tmp_path / "origin"))
    deliver("iris", variables=variables, record=record)
    assert isinstance(events[-1], NotRecorded)
    assert why in events[-1].why
    assert not writes(kubeflow)


def test_whether_to_record_is_said_plainly_or_refused(kubeflow, deliver, tmp_path):
    kubeflow.register("iris", "v1", str(tmp_path / "origin"))
    with pytest.raises(UsageError, match="record of registry kf is 'perhaps'"):
        deliver("iris", variables=WHERE, record="perhaps")


@pytest.mark.parametrize("path", ["/serving_environment", "/inference_service", "/serves"])
@pytest.mark.parametrize(
    "fault",
    [
        lambda: status(401),
        lambda: status(403),
        lambda: status(409),
        lambda: status(500),
        lambda: status(503, headers={"Retry-After": "3000"}),
        lambda: status(200, b"<html>"),
        lambda: status(200, b"[]"),
        lambda: status(200, b'{"name": "x", "id": "../../evil"}'),
        lambda: reset(0),
        lambda: stall(0),
    ],
    ids=["401", "403", "409", "500", "503", "html", "list", "id", "reset", "stall"],
)
def test_a_registry_that_does_not_take_it_is_told_and_the_delivery_stands(
    kubeflow, deliver, events, clock, tmp_path, fault, path
):
    kubeflow.register("iris", "v1", str(tmp_path / "origin"))
    fault = fault()
    fault.times = ALWAYS
    fault.on = lambda request: path in request.path
    kubeflow.server.misbehave(ANYWHERE, fault)
    deliver("iris", stall_s=0.5)
    assert isinstance(events[-1], NotRecorded)
    assert isinstance(events[-2], Delivered)
    # Nobody waits for it: a pod does not start before this process has ended.
    assert not clock.waits
    assert (tmp_path / "model/config.json").read_bytes() == b"{}"


class Defective(ToldRegistry):
    """Notes the patience that it was made with, and has a defect where it records."""

    patience: ClassVar[list[tuple[float, float, int]]] = []

    def __init__(self, entry, settings, http) -> None:
        super().__init__(entry, settings, http)
        self.patience.append((settings.limits.connect_s, settings.limits.stall_s, http.retry.attempts))

    def record(self, resolution, deployment) -> None:
        raise ZeroDivisionError


@pytest.fixture
def defective(monkeypatch, tmp_path) -> RegistryEntry:
    monkeypatch.setitem(KINDS, "defective", TOLD._replace(opens=f"{__name__}:Defective"))
    monkeypatch.setattr(Defective, "patience", [])
    origin = write_tree(tmp_path / "origin", FILES)
    return RegistryEntry("kf", "defective", ToldSettings({"iris": str(origin)}), ServerSettings(record=True))


def test_a_defect_of_the_recording_itself_does_not_fail_the_delivery(defective, pull, events, tmp_path):
    pull("model-registry://iris", tmp_path / "model", registries=(defective,), variables=WHERE)
    assert isinstance(events[-1], NotRecorded)
    assert re.fullmatch(
        r"ZeroDivisionError at (registries/deployments\.py:\d+(, )?)+ \(this is a defect of lading: .*\)",
        events[-1].why,
    )


def test_a_kind_that_records_nothing_says_so(kubeflow, pull, events, tmp_path):
    artifact = {"artifactType": "model-artifact", "uri": str(tmp_path / "origin")}
    kubeflow.publish("source", "iris", artifact)
    options = {"url": kubeflow.url, "source": "source", "folders": [str(tmp_path)], "record": True}
    entry = registry_entry("cat", "kubeflow-catalog", **options)
    pull("model-registry://iris", tmp_path / "model", registries=(entry,), variables=WHERE)
    assert events[-1] == NotRecorded("cat", "a registry of the kind kubeflow-catalog cannot record deliveries")


def test_a_delivery_that_fails_is_not_told(kubeflow, deliver, tmp_path):
    kubeflow.register("iris", "v1", str(tmp_path / "nothing"))
    with pytest.raises(Exception, match="nothing"):
        deliver("iris")
    assert not writes(kubeflow)


def test_the_registry_of_a_namespace_is_told_itself(kubeflow, new_session, tmp_path):
    from lading.model.manifest import Manifest
    from lading.settings.limits import Network

    kubeflow.register("iris", "v1", "s3://b/p")
    entry = registry_entry("kf", "kubeflow", url="http://kf:80", record=True, namespaces=("team-a",))
    session = new_session(registries=(entry,), network=Network(http_proxy=kubeflow.url), variables=WHERE)
    uri = ModelURI.parse("model-registry://iris?namespace=team-a")
    found = federation.resolve(uri, session.settings, session.http)
    told = []
    deployments.record(found, Manifest(()), "/mnt", session.settings, session.http, told.append)
    assert told == [Recorded("kf", "team-a", "shop")]
    assert {request.headers["host"] for request in kubeflow.server.requests} == {
        "model-registry-service.team-a.svc.cluster.local"
    }


def test_the_patience_for_it_is_short_and_the_delivery_s_is_not_changed(defective, pull, tmp_path):
    limits = Limits(stall_s=600.0, connect_s=2.0)
    pull("model-registry://iris", tmp_path / "model", registries=(defective,), variables=WHERE, limits=limits)
    assert Defective.patience == [(2.0, 600.0, 6), (2.0, 5.0, 1)]
