"""A canary in deployment mode Standard: what is written to ``spec.canary``, and when it goes."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

import fakes.kserve
from controller.conftest import CHANNEL, LLMS, SERVICES
from fakes.fake_api_server import refusal
from fakes.faulty_http import ALWAYS, Fault, FaultyServer, status
from lading.controller import checking
from lading.controller.service import ANNOTATION, KINDS

STEPS = [{"percent": 10, "pause": "1m"}, {"percent": 50, "pause": "1m"}]
SERVICE = "/apis/serving.kserve.io/v1beta1/namespaces/team-a/inferenceservices/iris"


def strategy(steps=STEPS):
    return {"type": "Canary", "canary": {"steps": steps}}


@pytest.fixture
def pinned(world):
    """A service that has v1, and whose next version will be a canary first."""
    world.serve()
    world.roll_out(strategy=strategy())
    world.tick()
    world.serve(ready=True)
    world.pods()
    world.tick(60)
    return world


@pytest.fixture
def begun(pinned):
    """A service that has v1, and v2 as a canary."""
    pinned.champion("v2")
    pinned.tick(70)
    return pinned


def version(lock: str) -> str:
    return json.loads(lock)["models"][CHANNEL]["version"]


def test_a_canary_has_its_own_pin_beside_that_of_the_service(begun):
    canary = begun.canary
    assert (canary["trafficPercent"], canary["predictor"]["name"]) == (10, "candidate")
    assert version(canary["predictor"]["annotations"][ANNOTATION]) == "v2"
    assert canary["predictor"]["model"] == {"storageUri": CHANNEL}
    assert (begun.pinned, begun.status["phase"]) == ("v1", "Canary")
    assert begun.status["canary"] == {"step": 1, "percent": 10}


def test_a_canary_gets_more_until_its_version_is_on_all_pods(begun):
    seen = []
    for _ in range(20):
        begun.canary_pods()
        if begun.pinned == "v2":
            begun.pods()
        begun.tick(30)
        now = (begun.pinned, begun.canary.get("trafficPercent", 0), begun.status["phase"])
        seen += [now] if now not in seen else []
    assert seen == [
        ("v1", 10, "Paused"),
        ("v1", 50, "Canary"),
        ("v1", 50, "Paused"),
        ("v2", 50, "Rolling"),
        ("v2", 0, "Current"),
    ]
    assert "canary" not in begun.status
    assert begun.one(SERVICES)["spec"].keys() == {"predictor"}
    assert {"InferenceService CanaryStep", "InferenceService CanaryPaused"} <= set(begun.events())


def test_the_page_and_the_metrics_say_what_the_canary_gets(begun):
    assert "step 1, 10 % of the requests" in begun.controller.shown.page(begun.unix_s)[0]
    assert 'lading_rollout_canary_percent{rollout="team-a/follow"} 10' in begun.controller.shown.metrics.text()


def test_a_damaged_canary_goes_and_the_service_keeps_its_pin(begun):
    writes = len(begun.written)
    begun.canary_pods(ready=False, exit_code=6, message="error[integrity]: weights differ")
    begun.tick(10)
    assert (begun.pinned, begun.canary, begun.status["phase"]) == ("v1", {}, "RolledBack")
    assert begun.written[writes:] == ["v1"]
    assert begun.status["message"] == "error[integrity]: weights differ"


def test_a_failed_model_of_the_service_says_nothing_of_the_canary(begun):
    service = begun.one(SERVICES)
    status = service["status"] | {"modelStatus": {"transitionStatus": "BlockedByFailedLoad"}}
    begun.api.put(SERVICES, "iris", **{**service, "status": status})
    begun.canary_pods(ready=False)
    begun.tick(10)
    assert begun.status["phase"] == "Canary"


def test_checks_ask_the_pods_of_the_canary_alone(begun, monkeypatch):
    monkeypatch.setattr(checking, "may_be_asked", lambda _: True)
    with FaultyServer() as asked:
        asked.put("/ready", b"")
        check = {"name": "ready", "http": {"path": "/ready", "port": urlsplit(asked.url).port}}
        begun.roll_out(strategy=strategy(), checks=[check])
        begun.canary_pods()
        begun.tick(10)
        assert begun.status["phase"] == "Paused"
        assert len(asked.requests) == 1
        asked.misbehave("/ready", status(500, times=ALWAYS))
        begun.tick(10, times=4)
    assert (begun.status["phase"], begun.pinned, begun.canary) == ("RolledBack", "v1", {})
    assert begun.status["refused"][0]["reason"] == "CheckFailed"


def test_a_canary_has_the_form_of_the_one_whose_pods_kserve_made():
    """What KServe made of it, each pod with its own lock, is in tests/deploy/test_kserve_pods.py."""
    recorded = yaml.safe_load(Path(fakes.kserve.__file__).with_name("kserve_pods.yaml").read_text())
    (service,) = [one["given"] for one in recorded["services"] if "canary" in one["given"]["spec"]]
    (given,) = service["spec"]["canary"]
    kind = KINDS["InferenceService"]
    (made,) = kind.fields(service, "old", (10, "new"))["spec"]["canary"]
    # KServe takes it from the service's own predictor, as everything else that is not said here.
    del given["predictor"]["serviceAccountName"]
    assert made == given


def test_a_person_approves_a_step(begun):
    begun.roll_out(strategy=strategy([{"percent": 10, "pause": "Approval"}]))
    begun.canary_pods()
    begun.tick(3600)
    assert (begun.status["phase"], begun.status["message"]) == (
        "Paused",
        "step 1 of 1, 10 % of the requests, until it is approved",
    )
    digest = begun.status["candidate"]["digest"]
    approved = {"version": digest, "step": 1}
    begun.roll_out(strategy=strategy([{"percent": 10, "pause": "Approval"}]), approveStep=approved)
    begun.tick(10)
    assert (begun.pinned, begun.status["phase"]) == ("v2", "Rolling")


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"mode": "Knative"}, "its deployment mode is Knative"),
        ({"mode": ""}, "its deployment mode is not known"),
        (
            {"managedFields": [{"manager": "argocd", "fieldsV1": {"f:spec": {"f:canary": {}}}}]},
            "argocd owns spec.canary",
        ),
    ],
)
def test_a_service_that_can_have_no_canary_keeps_its_pin_and_says_why(world, about, said):
    world.serve()
    world.roll_out(strategy=strategy())
    world.tick()
    world.serve(ready=True, **about)
    world.pods()
    world.champion("v2")
    world.tick(70)
    assert (world.pinned, world.canary, world.status["phase"]) == ("v1", {}, "Invalid")
    assert said in world.status["message"]
    assert "InferenceService PolicyRefused" in world.events()


def test_a_long_name_leaves_no_room_for_that_of_the_canary(world):
    name = "iris-" + "a" * 45
    world.serve(name)
    world.roll_out(of=name, strategy=strategy())
    world.tick()
    world.serve(name, ready=True)
    world.champion("v2")
    world.tick(70)
    assert "has more than 63 characters" in world.status["message"]


def test_an_llm_has_no_canary(world):
    world.api.put(LLMS, "llm", spec={"model": {"uri": CHANNEL}})
    world.roll_out(kind="LLMInferenceService", of="llm", strategy=strategy())
    world.tick()
    world.champion("v2")
    world.tick(70)
    assert world.status["phase"] == "Invalid"
    assert "KServe has none for an LLMInferenceService" in world.status["message"]


def test_a_kserve_without_canaries_is_told_of_and_not_asked_for_ever(pinned):
    world = pinned
    unknown = Fault(
        lambda *_: refusal(400, 'strict decoding error: unknown field "spec.canary"'),
        on=lambda one: one.method == "PATCH",
        times=ALWAYS,
    )
    world.server.misbehave(SERVICE, unknown)
    service = world.one(SERVICES)
    world.champion("v2")
    world.tick(70)
    # The fault is in the answer alone.
    world.api.put(SERVICES, "iris", **service)
    world.tick(10)
    assert (world.pinned, world.status["phase"]) == ("v1", "RolledBack")
    assert "unknown field" in world.status["message"]
    assert world.status["refused"][0]["reason"] == "CanaryRefused"


@pytest.mark.parametrize(
    "canary",
    [
        "candidate",
        [5],
        [{"trafficPercent": 10}],
        [{"trafficPercent": "ten"}],
        [{"trafficPercent": 10, "predictor": {"annotations": {ANNOTATION: "{"}}}],
        [{"predictor": {"annotations": [ANNOTATION]}}, {}],
    ],
    ids=str,
)
def test_what_nobody_expects_of_a_canary_is_replaced(begun, canary):
    service = begun.one(SERVICES)
    spec = service["spec"] | {"canary": canary}
    begun.api.put(SERVICES, "iris", **{**service, "spec": spec})
    begun.tick(10)
    assert begun.canary["trafficPercent"] == 10
    assert begun.status["phase"] == "Canary"


@pytest.mark.parametrize("writes", range(0, 40, 2))
def test_killed_after_any_write_of_a_canary_the_next_one_goes_on(world, writes):
    world.serve()
    world.roll_out(strategy=strategy())
    world.killed_after(writes, 9, _go_on)
    assert (world.status["phase"], world.status["current"]["version"], world.pinned) == ("RolledBack", "v2", "v2")
    assert [each["result"] for each in world.status["history"]] == ["RolledBack", "Succeeded", "Pinned"]
    assert world.canary == {}


def _go_on(world, step):
    """v1 is pinned, v2 comes in two steps and is served, v3 is damaged."""
    world.champion("v1" if step < 2 else "v2" if step < 7 else "v3")
    if step:
        world.serve(ready=True)
        world.pods()
    if step == 8:
        world.canary_pods(ready=False, exit_code=6, message="error[integrity]: weights differ")
    else:
        world.canary_pods()
    world.tick(70, times=2)
