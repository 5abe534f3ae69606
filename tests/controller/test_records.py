"""What Kubeflow's registry is told of rollouts, and when it is away."""

import pytest

from controller.conftest import MRO, SERVICES, World
from fakes.fake_kubeflow import FakeKubeflow, text_properties
from fakes.faulty_http import ALWAYS, ANYWHERE, FaultyServer, status

DAMAGED = "error[integrity]: weights: SHA-256 differs"


class Registry:
    def __init__(self, server: FaultyServer, folder) -> None:
        self.api = FakeKubeflow(server)
        self.server = server
        self.model = self.api.model("iris")
        self.ids = {name: self.api.version(self.model, name) for name in ("v1", "v2", "v3")}
        for name, version in self.ids.items():
            self.api.artifact(version, str(folder / name))
        self.champion("v1")
        self.entry = {"name": "kf", "kind": "kubeflow", "url": self.api.url, "folders": [str(folder)]}

    def champion(self, version: str) -> None:
        properties = text_properties(**{"alias.champion": version})
        self.api.change("registered_model", self.model, customProperties=properties)

    def go_away(self) -> None:
        self.server.misbehave(ANYWHERE, status(503, times=ALWAYS))

    @property
    def service(self) -> tuple[str, str]:
        """The version that the service has, and whether it is deployed."""
        (service,) = self.api.kept["inference_service"].values()
        names = {number: name for name, number in self.ids.items()}
        return names[service["modelVersionId"]], service["desiredState"]

    @property
    def served(self) -> list[tuple[str, str]]:
        names = {number: name for name, number in self.ids.items()}
        found = self.api.kept["serve_model"].values()
        return [(names[one["modelVersionId"]], one["lastKnownState"]) for one in found]

    @property
    def writes(self) -> int:
        return sum(one.method != "GET" for one in self.server.requests)


@pytest.fixture
def registry(tmp_path):
    with FaultyServer() as server:
        yield Registry(server, tmp_path)


@pytest.fixture
def settled(world: World, registry) -> World:
    """A service that has v1 and serves it, with a rollout that records."""
    world.registries = [registry.entry]
    world.serve()
    world.roll_out(record=True)
    world.tick()
    world.serve(ready=True)
    world.pods()
    world.tick(60)
    return world


def fail(world: World) -> None:
    """The candidate's pin is written, and its pod finds that it is damaged."""
    world.tick(70)
    world.pods(ready=False, exit_code=6, message=DAMAGED)
    world.tick(10)
    assert world.status["phase"] == "RolledBack"


def test_the_registry_knows_which_version_a_service_has(settled, registry):
    (environment,) = registry.api.kept["serving_environment"].values()
    (service,) = registry.api.kept["inference_service"].values()
    assert (environment["name"], service["name"]) == ("team-a", "iris/iris")
    assert registry.service == ("v1", "DEPLOYED")
    assert registry.served == [("v1", "COMPLETE")]
    assert settled.status["recorded"]["version"] == "v1"


def test_a_version_counts_once_all_pods_serve_it(settled, registry):
    registry.champion("v2")
    settled.tick(70)
    assert (settled.status["phase"], registry.service) == ("Rolling", ("v1", "DEPLOYED"))
    settled.pods()
    settled.tick(10)
    assert registry.service == ("v2", "DEPLOYED")
    assert registry.served == [("v1", "COMPLETE"), ("v2", "COMPLETE")]


def test_a_version_that_was_rolled_back_has_failed_there_with_the_reason(settled, registry):
    registry.champion("v2")
    fail(settled)
    assert registry.service == ("v1", "DEPLOYED")
    assert registry.served == [("v1", "COMPLETE"), ("v2", "FAILED")]
    *_, failed = registry.api.kept["serve_model"].values()
    said = {name: value["string_value"] for name, value in failed["customProperties"].items()}
    assert said["message"] == DAMAGED
    assert said["pin"] == settled.status["refused"][0]["pin"].rpartition("pin=")[2]


def test_nothing_is_told_twice_also_by_another_process(settled, registry):
    writes = registry.writes
    settled.tick(60, times=5)
    settled.start("second")
    settled.tick(70, times=3)
    assert registry.writes == writes


def test_a_service_that_is_deleted_is_undeployed(settled, registry):
    settled.api.remove(SERVICES, "iris")
    settled.tick(10)
    assert registry.service == ("v1", "UNDEPLOYED")
    settled.serve()
    settled.tick(10)
    assert registry.service == ("v1", "DEPLOYED")


@pytest.mark.parametrize("between_s", [0, 3600])
def test_a_service_that_is_deleted_after_its_rollout_is_undeployed(settled, registry, between_s):
    settled.api.remove(MRO, "follow")
    if between_s:
        settled.tick(between_s)
        # Nobody has touched the service.
        assert registry.service == ("v1", "DEPLOYED")
    settled.api.remove(SERVICES, "iris")
    settled.tick(10)
    assert registry.service == ("v1", "UNDEPLOYED")


def test_a_registry_that_is_away_changes_nothing_in_the_rollout_and_is_told_later(settled, registry):
    registry.champion("v2")
    settled.tick(70)
    registry.go_away()
    fail(settled)
    assert settled.pinned == "v1"
    assert "unavailable" in settled.status["unrecorded"]
    assert {"InferenceService NotRecorded", "ModelRollout NotRecorded"} <= set(settled.events())
    asked = len(registry.server.requests)
    settled.tick(5)
    assert len(registry.server.requests) == asked
    registry.server.behave()
    registry.champion("v1")
    settled.tick(70, times=2)
    assert "unrecorded" not in settled.status
    assert registry.served == [("v1", "COMPLETE"), ("v2", "FAILED")]


def test_a_version_that_is_archived_there_does_not_keep_the_others_from_being_told(settled, registry):
    registry.champion("v2")
    settled.tick(70)
    registry.api.change("model_version", registry.ids["v1"], state="ARCHIVED")
    settled.pods()
    settled.tick(10)
    assert registry.service == ("v2", "DEPLOYED")
    assert "unrecorded" not in settled.status


def test_nothing_is_told_unless_it_is_asked_for(settled, registry):
    writes = registry.writes
    settled.roll_out()
    registry.champion("v2")
    fail(settled)
    assert registry.writes == writes


def test_nothing_more_is_told_once_nobody_asks_for_it(settled, registry):
    settled.roll_out()
    settled.tick(10)
    writes = registry.writes
    settled.api.remove(MRO, "follow")
    settled.api.remove(SERVICES, "iris")
    settled.tick(10)
    assert (registry.writes, registry.service) == (writes, ("v1", "DEPLOYED"))


def test_a_report_that_ends_after_the_lease_was_lost_is_no_outcome(settled, registry):
    registry.champion("v2")
    settled.tick(70)
    settled.pods()
    lost = registry.server.before(settled.records.forget, on=lambda one: one.method != "GET")
    registry.server.misbehave(ANYWHERE, lost)
    settled.tick(10)
    # Whoever had the Lease meanwhile may have told more.
    assert settled.records.outcome("uid-of-follow") is None
    settled.tick(10)
    assert registry.service == ("v2", "DEPLOYED")


def test_a_webhook_that_comes_during_a_question_asks_once_more(settled, registry):
    moved = registry.server.before(settled.controller.ask_now, on=lambda one: one.method == "GET")
    registry.server.misbehave(ANYWHERE, moved)
    settled.tick(70)
    registry.champion("v2")
    settled.tick(1)
    assert settled.pinned == "v2"


def test_a_service_that_follows_no_name_says_why_nothing_is_recorded(world):
    world.serve(uri="model-registry://iris/v1")
    world.roll_out(record=True)
    world.tick()
    assert "cannot record deliveries" in world.status["unrecorded"]
