"""The controller's cycles: what it keeps, writes and tells, with an API server and a catalog."""

import json
from collections import Counter

import pytest

from controller.conftest import CHANNEL, LLMS, MRO, SERVICES
from fakes.fake_api_server import refusal
from fakes.faulty_http import ALWAYS, Fault, status
from fakes.oms_signer import Signer
from lading.controller.service import ANNOTATION
from lading.trust.public_key import read_public_keys

GET = "GET"
STATUS = "/apis/lading.dev/v1alpha1/namespaces/team-a/modelrollouts/follow/status"
SERVICE = "/apis/serving.kserve.io/v1beta1/namespaces/team-a/inferenceservices/iris"
DAMAGED = "error[integrity]: weights: SHA-256 differs"


@pytest.fixture
def settled(world):
    """A service that has v1 and serves it."""
    world.serve()
    world.roll_out()
    world.tick()
    world.serve(ready=True)
    world.pods()
    world.tick(60)
    return world


def test_a_new_service_is_pinned_and_the_rollout_says_so(world):
    world.serve()
    world.roll_out()
    world.tick()
    assert world.pinned == "v1"
    assert world.status["phase"] == "Current"
    assert world.status["observedGeneration"] == 1
    assert world.status["current"]["version"] == "v1"
    assert world.events() == ["InferenceService RolloutPinned", "ModelRollout RolloutPinned"]


def test_an_alias_that_moves_takes_the_service_along(settled):
    settled.champion("v2")
    settled.tick(70)
    assert (settled.pinned, settled.status["phase"]) == ("v2", "Rolling")
    settled.pods(ready=False)
    settled.tick(10)
    assert settled.status["phase"] == "Rolling"
    settled.pods()
    settled.tick(10)
    assert (settled.status["phase"], settled.status["current"]["version"]) == ("Current", "v2")
    assert "candidate" not in settled.status
    assert [each["result"] for each in settled.status["history"]] == ["Succeeded", "Pinned"]


def test_a_damaged_version_is_rolled_back_and_told_everywhere(settled):
    settled.champion("v2")
    settled.tick(70)
    settled.pods(ready=False, exit_code=6, message=DAMAGED)
    settled.tick(10)
    assert (settled.pinned, settled.status["phase"], settled.status["message"]) == ("v1", "RolledBack", DAMAGED)
    assert settled.status["refused"][0]["message"] == DAMAGED
    stalled = {each["type"]: each["status"] for each in settled.status["conditions"]}["Stalled"]
    assert stalled == "True"
    assert {"InferenceService RolledBack", "ModelRollout RolledBack"} <= set(settled.events())
    text = settled.controller.shown.metrics.text()
    assert 'lading_rollout_rollbacks_total{rollout="team-a/follow",reason="PodsFailed"} 1' in text
    assert DAMAGED in settled.controller.shown.page(settled.unix_s)[0]


def test_a_roll_back_that_cannot_be_written_at_once_is_told_nevertheless(settled):
    settled.champion("v2")
    settled.tick(70)
    settled.pods(ready=False, exit_code=6, message=DAMAGED)
    settled.server.misbehave(SERVICE, status(503, times=2, on=lambda one: one.method == "PATCH"))
    settled.tick(10)
    assert (settled.told[-1], settled.status["phase"]) == ("ReconcileFailed", "RolledBack")
    assert {"InferenceService RolledBack", "ModelRollout RolledBack"} <= set(settled.events())
    text = settled.controller.shown.metrics.text()
    assert 'lading_rollout_rollbacks_total{rollout="team-a/follow",reason="PodsFailed"} 1' in text


def test_exactly_one_key_of_a_service_is_written_and_without_force(settled):
    settled.champion("v2")
    settled.tick(70)
    writes = [
        one for one in settled.server.requests if one.method != GET and one.path.endswith("/inferenceservices/iris")
    ]
    assert len(writes) == 2
    for one in writes:
        body = json.loads(one.body)
        assert one.headers["content-type"] == "application/apply-patch+yaml"
        assert "force" not in one.query
        assert body.keys() == {"apiVersion", "kind", "metadata", "spec"}
        assert body["metadata"].keys() == {"name", "namespace", "uid"}
        assert body["spec"].keys() == {"predictor"}
        assert body["spec"]["predictor"].keys() == {"annotations"}
        assert body["spec"]["predictor"]["annotations"].keys() == {ANNOTATION}


def test_nothing_is_written_while_nothing_changes(settled):
    settled.server.requests.clear()
    settled.tick(60, times=20)
    assert {one.path.split("/")[-1] for one in settled.server.requests if one.method != GET} == {"lading-controller"}


def test_a_registry_that_is_away_changes_nothing(settled):
    settled.catalog.unlink()
    settled.tick(70)
    assert (settled.pinned, settled.status["phase"]) == ("v1", "Current")
    assert "not-found" in settled.status["unresolved"]
    settled.champion("v1")
    settled.tick(70)
    assert "unresolved" not in settled.status
    assert settled.written == ["v1"]


def test_a_service_that_runs_is_adopted_and_what_its_pods_were_given_is_known(world):
    world.champion("v2")
    world.serve(ready=True)
    world.pods("", message=json.dumps({"uri": "file:///v1", "registry": "catalog", "version": "v1"}))
    world.roll_out(hold="1h")
    world.tick(61, times=3)
    assert (world.status["phase"], world.status["current"]["version"]) == ("Held", "v1")
    assert world.status["candidate"]["version"] == "v2"
    assert world.written == []
    # What the pods were given is known, and is not asked again.
    asked = world.questions.agenda.ended["answered"]
    world.tick(3600)
    assert world.questions.agenda.ended["answered"] == asked + 1
    assert world.written == ["v2"]


def test_a_pin_that_another_manager_owns_is_left_alone(settled):
    fields = {"f:spec": {"f:predictor": {"f:annotations": {".": {}, f"f:{ANNOTATION}": {}}}}}
    settled.serve(ready=True, managedFields=[{"manager": "argocd-controller", "fieldsV1": fields}])
    settled.champion("v2")
    settled.tick(70)
    assert (settled.written, settled.status["phase"]) == (["v1"], "Blocked")
    assert "argocd-controller" in settled.status["message"]


def test_a_conflict_is_told_and_not_forced(settled):
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl-edit": …'}
    conflict = Fault(
        lambda *_: refusal(409, "Apply failed with 1 conflict", details={"causes": [cause]}),
        on=lambda one: one.method == "PATCH",
        times=ALWAYS,
    )
    settled.server.misbehave(SERVICE, conflict)
    settled.champion("v2")
    settled.tick(70)
    assert "InferenceService TargetConflict" in settled.events()
    assert settled.status["phase"] == "Rolling"
    assert all("force" not in one.query for one in settled.server.requests)


def test_of_two_rollouts_for_one_service_the_older_one_counts(settled):
    settled.roll_out("another", pin=f"model-registry://catalog/iris/v3?pin=sha256:{'0' * 64}")
    settled.tick(60)
    assert settled.one(MRO, "another")["status"]["phase"] == "NoTarget"
    assert "follow" in settled.one(MRO, "another")["status"]["message"]
    assert settled.written == ["v1"]


def test_a_service_that_is_not_there_yet_is_waited_for(world):
    world.roll_out()
    world.tick()
    assert world.status["phase"] == "NoTarget"
    world.serve()
    world.tick()
    assert (world.status["phase"], world.pinned) == ("Current", "v1")


def test_a_service_that_is_made_anew_is_pinned_to_what_the_channel_names_now(settled):
    settled.api.remove(SERVICES, "iris")
    settled.champion("v3")
    settled.tick(70)
    assert settled.status["phase"] == "NoTarget"
    assert "lading_rollout_version_info{" not in settled.controller.shown.metrics.text()
    settled.serve()
    settled.tick(70)
    assert settled.pinned == "v3"


def test_an_llm_has_its_pin_in_both_maps(world):
    spec = {"model": {"uri": CHANNEL}, "prefill": {"replicas": 1}}
    world.api.put(LLMS, "llm", spec=spec)
    world.roll_out(kind="LLMInferenceService", of="llm")
    world.tick()
    spec = world.one(LLMS, "llm")["spec"]
    assert spec["annotations"] == spec["prefill"]["annotations"]
    assert json.loads(spec["annotations"][ANNOTATION])["models"][CHANNEL]["version"] == "v1"


def test_several_models_of_a_service_are_pinned_by_one_text_and_change_together(world):
    other = "model-registry://iris/v3"
    uris = [{"uri": uri, "mountPath": "/mnt"} for uri in (CHANNEL, "pvc://claim/base", f"store+{other}")]
    world.api.put(SERVICES, "iris", spec={"predictor": {"storageUris": uris}})
    world.roll_out()
    world.tick()
    assert versions(world.lock) == {CHANNEL: "v1", other: "v3"}
    assert (world.status["channel"], world.status["current"]["version"]) == (f"{CHANNEL}\n{other}", "v1, v3")
    world.champion("v2")
    world.tick(70)
    assert versions(world.lock) == {CHANNEL: "v2", other: "v3"}
    world.pods(ready=False, exit_code=6, message=DAMAGED)
    world.tick(10)
    assert versions(world.lock) == {CHANNEL: "v1", other: "v3"}
    assert world.status["phase"] == "RolledBack"


def test_a_pin_of_fewer_models_than_the_service_has_is_invalid(world):
    uris = [{"uri": uri} for uri in (CHANNEL, "model-registry://iris/v3")]
    world.api.put(SERVICES, "iris", spec={"predictor": {"storageUris": uris}})
    world.roll_out(pin=f"model-registry://catalog/iris/v1?pin=sha256:{'1' * 64}")
    world.tick()
    assert (world.lock, world.status["phase"]) == ("", "Invalid")
    assert (
        "spec.pin needs a line for each model that the service has from registries (2), and has 1"
        in world.status["message"]
    )


def test_one_of_several_names_that_is_not_known_changes_nothing(world):
    uris = [{"uri": uri} for uri in (CHANNEL, "model-registry://nobody")]
    world.api.put(SERVICES, "iris", spec={"predictor": {"storageUris": uris}})
    world.roll_out()
    world.tick()
    assert (world.lock, world.status["phase"]) == ("", "Unresolved")
    assert "nobody" in world.status["unresolved"]


def test_several_models_that_run_are_adopted_as_they_are(world):
    other = "model-registry://iris/v3"
    spec = {"predictor": {"storageUris": [{"uri": CHANNEL}, {"uri": other}]}}
    world.champion("v2")
    world.api.put(SERVICES, "iris", spec=spec, status={"conditions": [{"type": "Ready", "status": "True"}]})
    world.pods("", message=json.dumps([{"version": "v1"}, {"version": "v3"}]))
    world.roll_out(hold="1h")
    world.tick(61, times=3)
    assert (world.status["phase"], world.status["current"]["version"]) == ("Held", "v1, v3")
    assert world.status["candidate"]["version"] == "v2, v3"
    assert world.lock == ""


def test_the_adapters_of_an_llm_are_pinned_with_it(world):
    other = "model-registry://iris/v3"
    spec = {"model": {"uri": CHANNEL, "lora": {"adapters": [{"name": "law", "uri": other}]}}}
    world.api.put(LLMS, "llm", spec=spec)
    world.roll_out(kind="LLMInferenceService", of="llm")
    world.tick()
    assert versions(world.one(LLMS, "llm")["spec"]["annotations"][ANNOTATION]) == {CHANNEL: "v1", other: "v3"}


def versions(lock: str) -> dict[str, str]:
    return {uri: entry["version"] for uri, entry in json.loads(lock)["models"].items()}


@pytest.mark.parametrize(
    "uri", ["file:///etc", "/etc", "http://metadata/latest", "git+http://inside/x.git", "pvc://a/b"]
)
def test_a_service_cannot_make_the_controller_read_files_or_ask_hosts(world, uri):
    world.serve(uri=uri)
    world.roll_out()
    world.tick()
    assert world.status["phase"] == "Unresolved"
    assert "does not ask" in world.status["unresolved"]


@pytest.mark.parametrize(
    "spec",
    [
        {"window": {"cron": "0 25 * * *", "length": "1h"}},
        {"window": {"cron": "0 2 * * *", "length": "1h", "timeZone": "Mars/Olympus"}},
        {"allow": {"versions": "latest"}},
        {"hold": "soon"},
        {"pin": "model-registry://iris/v1"},
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(world, spec):
    world.serve()
    world.roll_out(**spec)
    world.tick()
    assert world.status["phase"] == "Invalid"
    assert world.lock == ""


@pytest.mark.parametrize(
    "hostile",
    [
        {"spec": {"predictor": {"model": {"storageUri": CHANNEL}, "annotations": {ANNOTATION: lock}}}}
        for lock in ("null", "[]", json.dumps({"format": 1, "models": {CHANNEL: {"pin": 5}}}), "{" * 9000, "\0")
    ]
    + [
        {"spec": {"predictor": {"model": {"storageUri": 7}}}},
        {"spec": {"predictor": "model"}},
        {"spec": None},
        {"spec": {}},
        {"spec": {"predictor": {"storageUris": [7, {"uri": 7}, {"uri": "s3://a\nfile:///etc"}]}}},
        {"status": {"conditions": "Ready", "modelStatus": []}},
        {"metadata": {"managedFields": ["lading"]}},
    ],
)
def test_what_nobody_expects_of_one_service_stops_no_other(world, hostile):
    spec = {"predictor": {"model": {"storageUri": CHANNEL}}}
    fields = {"spec": spec, **hostile}
    world.api.put(SERVICES, "hostile", **{name: value for name, value in fields.items() if value is not None})
    world.roll_out("a", of="hostile")
    world.serve()
    world.roll_out()
    world.tick(70, times=2)
    assert world.pinned == "v1"


def test_a_rollout_for_no_service_does_not_keep_the_loop_busy(world):
    world.put_rollout("odd")
    world.tick()
    assert world.controller.tick() > 0


def test_many_services_that_follow_one_name_ask_one_question(world):
    for number in range(20):
        world.serve(f"iris-{number}")
        world.roll_out(f"follow-{number}", of=f"iris-{number}")
    world.tick()
    assert world.questions.agenda.ended == {"answered": 1, "failed": 0}
    assert len({json.dumps(world.one(SERVICES, f"iris-{number}")["spec"]) for number in range(20)}) == 1


def test_as_many_services_change_as_the_bound_says_also_after_a_new_start(world):
    world.pods("")
    for number in range(5):
        world.serve(f"iris-{number}")
        world.roll_out(f"follow-{number}", of=f"iris-{number}", maxConcurrent=2)
    world.tick()
    world.champion("v2")
    world.tick(70)
    assert phases(world) == {"Rolling": 2, "Queued": 3}
    world.start("second")
    world.tick()
    world.tick(61, times=2)
    assert phases(world) == {"Rolling": 2, "Queued": 3}


def phases(world) -> Counter[str]:
    return Counter(thing["status"]["phase"] for path, thing in world.api.objects.items() if path.startswith(f"/{MRO}/"))


def test_a_webhook_makes_every_question_due_now(settled):
    settled.champion("v2")
    settled.tick(1)
    assert settled.pinned == "v1"
    settled.controller.ask_now()
    settled.tick(1)
    assert settled.pinned == "v2"


def test_only_who_holds_the_lease_writes(settled):
    first = settled.controller
    settled.start("second")
    settled.champion("v2")
    settled.tick(70)
    # The first one has renewed nothing for 70 s, and the second sees the Lease for the first time.
    assert settled.pinned == "v1"
    settled.tick(61)
    assert settled.pinned == "v2"
    writes = len(settled.written)
    first.tick()
    assert "\nlading_rollout_leader 0\n" in first.shown.metrics.text()
    assert len(settled.written) == writes


def test_a_cycle_that_outlasts_the_lease_writes_no_pin_before_it_is_renewed(settled):
    def hang() -> None:
        settled.clock.seconds += 46

    settled.server.misbehave(STATUS, settled.server.before(hang, on=lambda one: one.method == "PATCH"))
    settled.champion("v2")
    settled.server.requests.clear()
    settled.tick(70)
    written = [one.path for one in settled.server.requests if one.method in ("PATCH", "PUT")]
    after = written[written.index(STATUS) + 1 :]
    assert (after[0].rpartition("/")[2], after[-1]) == ("lading-controller", SERVICE)


@pytest.mark.parametrize("writes", range(24))
def test_killed_after_any_write_the_next_one_goes_on(world, writes):
    world.serve()
    world.roll_out()
    world.killed_after(writes, 6, _go_on)
    assert (world.status["phase"], world.status["current"]["version"], world.pinned) == ("RolledBack", "v2", "v2")
    assert [each["result"] for each in world.status["history"]] == ["RolledBack", "Succeeded", "Pinned"]


def _go_on(world, step):
    """A day in six steps: v1 is pinned, v2 rolls out and is served, v3 is damaged."""
    champion = ("v1", "v1", "v2", "v2", "v3", "v3")[step]
    world.champion(champion)
    if step in (1, 3):
        world.serve(ready=True)
        world.pods()
    if step == 5:
        world.pods(ready=False, exit_code=6, message=DAMAGED)
    world.tick(70, times=2)


# ---- who has signed ----------------------------------------------------------------------------


@pytest.fixture
def signers(world, tmp_path):
    """v1 is signed by the first, v2 by the second, and the controller's rule trusts both."""
    both = Signer(), Signer()
    for name, signer in zip(("v1", "v2"), both, strict=True):
        (tmp_path / name / "model.sig").write_bytes(signer.sign({"weights": name.encode()}))
    (tmp_path / "keys").write_bytes(b"".join(signer.public_pem for signer in both))
    world.trust = [{"signature": {"key": str(tmp_path / "keys")}}]
    return [f"key sha256:{read_public_keys(signer.public_pem)[0].fingerprint}" for signer in both]


def test_a_rollout_takes_what_its_signers_signed_and_its_pods_demand_them(world, signers):
    world.serve()
    world.roll_out(allow={"signedBy": signers[:1]})
    world.tick()
    assert json.loads(world.lock)["models"][CHANNEL]["signature"] == {"signer": signers[0]}
    assert world.status["current"]["signedBy"] == signers[0]
    world.serve(ready=True)
    world.pods()
    world.champion("v2")
    world.tick(70)
    assert (world.pinned, world.status["phase"]) == ("v1", "NotAllowed")
    assert world.status["message"].endswith(f"is signed by {signers[1]}")
    # The next process knows who signed from the status alone.
    world.start("second")
    world.roll_out(allow={"signedBy": signers})
    world.tick(70, times=3)
    assert json.loads(world.lock)["models"][CHANNEL]["signature"] == {"signer": signers[1]}


def test_without_such_a_policy_the_pods_demand_nobody(world, signers):
    world.serve()
    world.roll_out()
    world.tick()
    assert (world.pinned, world.status["current"]["signedBy"]) == ("v1", signers[0])
    assert "signature" not in world.lock


def test_rules_that_change_are_noticed_while_the_version_stays(world, signers):
    trust, world.trust = world.trust, []
    world.serve()
    world.roll_out(allow={"signedBy": signers[:1]})
    world.tick()
    assert (world.pinned, world.status["phase"]) == ("", "NotAllowed")
    world.trust = trust
    world.tick(70)
    assert (world.pinned, world.status["phase"]) == ("v1", "Current")
