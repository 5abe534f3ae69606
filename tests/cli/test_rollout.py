"""``lading rollout``: what it shows of ModelRollouts, and which field of them it writes."""

import json

import pytest

from command_line import lading
from fakes.fake_api_server import FakeApiServer
from fakes.faulty_http import ANYWHERE, anything, status

COLLECTION = "apis/lading.dev/v1alpha1/modelrollouts"
CHANNEL = "model-registry://iris@champion"
DIGESTS = {name: f"sha256:{digit * 64}" for name, digit in {"v2": "2", "v3": "3", "v4": "4"}.items()}


def version(name, **more):
    pin = f"model-registry://prod/iris/{name}?pin={DIGESTS[name]}"
    return {"pin": pin, "digest": DIGESTS[name], "version": name, **more}


WAITING = {
    "channel": CHANNEL,
    "phase": "AwaitingApproval",
    "phaseSince": "2026-11-29T05:00:00Z",
    "message": f"its digest is {DIGESTS['v4']}",
    "unrecorded": "error[unavailable]: the registry is away",
    "current": version("v3"),
    "candidate": version("v4", seenAt="2026-11-29T04:00:00Z"),
    "history": [
        version("v3", at="2026-11-20T10:00:00Z", result="Succeeded", message=""),
        version("v4", at="2026-11-19T10:00:00Z", result="RolledBack", message="v4 did\x1b not load"),
        version("v2", at="2026-11-10T10:00:00Z", result="Pinned", message=""),
    ],
    "refused": [{"pin": version("v4")["pin"], "times": 2, "until": "2026-11-21T10:00:00Z", "message": "did not load"}],
}
CURRENT = {**WAITING, "phase": "Current", "candidate": None, "message": None}


@pytest.fixture
def cluster(server):
    return FakeApiServer(server)


@pytest.fixture
def rollout(cluster):
    """Make one: ``rollout("iris", WAITING, update="Approve")``."""

    def rollout(name="iris", state=WAITING, namespace="team-a", **spec) -> None:
        target = {"kind": "InferenceService", "name": name}
        spec = {"targetRef": target, "update": "Approve", **spec}
        cluster.put(COLLECTION, name, namespace, spec=spec, status=state)

    return rollout


@pytest.fixture
def run(cluster, tmp_path):
    """``lading rollout …`` against that cluster, in the namespace team-a."""
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team-a"}}],
        "clusters": [{"name": "c", "cluster": {"server": cluster.url}}],
        "users": [{"name": "u", "user": {"token": "t0ken"}}],
    }
    (tmp_path / "config").write_text(json.dumps(document))
    return lambda *words: lading("rollout", *words, environ={"KUBECONFIG": str(tmp_path / "config"), "TZ": "UTC"})


@pytest.fixture
def written(server):
    """The fields that were written, by merge patches."""

    def written() -> list[dict]:
        patches = [request for request in server.requests if request.method == "PATCH"]
        assert all(request.headers["content-type"] == "application/merge-patch+json" for request in patches)
        assert all("fieldManager=lading-cli" in request.query for request in patches)
        return [json.loads(request.body)["spec"] for request in patches]

    return written


# ---- what is shown -----------------------------------------------------------------------------


def test_ls_tells_of_each_rollout_of_the_namespace_what_it_has_and_waits_for(run, rollout):
    rollout()
    rollout("law", {}, update="Auto")
    rollout("other", CURRENT, namespace="team-b")
    outcome = run("ls")
    assert outcome.code == 0, outcome.err
    head, iris, law = (line.split() for line in outcome.out.splitlines())
    assert head == ["NAME", "SERVICE", "UPDATE", "PHASE", "SINCE", "VERSION", "CANDIDATE"]
    assert iris[:5] == ["iris", "InferenceService", "iris", "Approve", "AwaitingApproval"]
    assert iris[-2:] == ["v3", "v4"]
    assert law[3:5] == ["Auto", "Unresolved"]
    assert [each["name"] for each in run("ls", "--json").json] == ["iris", "law"]


def test_a_rollout_of_many_services_shows_the_labels_that_select_them(run, cluster):
    selector = {"kind": "InferenceService", "matchLabels": {"team": "tabular", "tier": "gold"}}
    cluster.put(COLLECTION, "fleet", spec={"selector": selector, "update": "Auto"}, status=CURRENT)
    assert "InferenceService team=tabular,tier=gold" in run("ls").out
    assert "service     InferenceService team=tabular,tier=gold" in run("show", "fleet").out


def test_ls_of_all_namespaces_names_them(run, rollout):
    rollout()
    rollout("other", CURRENT, namespace="team-b")
    lines = run("ls", "-A").out.splitlines()
    assert [line.split()[:2] for line in lines] == [["NAMESPACE", "NAME"], ["team-a", "iris"], ["team-b", "other"]]
    assert run("ls", "-n", "team-c").out == "no rollouts in team-c\n"


def test_show_tells_all_that_people_decide_by(run, rollout):
    rollout()
    outcome = run("show", "iris")
    assert outcome.code == 0, outcome.err
    facts = [line.split("  ", 1) for line in outcome.out.splitlines()]
    told = {name: value.strip() for name, value in facts}
    assert told["channel"] == CHANNEL
    assert told["current"] == f"v3 {DIGESTS['v3']}"
    assert told["candidate"] == f"v4 {DIGESTS['v4']}"
    assert told["phase"].startswith("AwaitingApproval, for ")
    assert told["phase"].endswith(f": its digest is {DIGESTS['v4']}")
    assert told["unrecorded"] == "error[unavailable]: the registry is away"
    assert "2 times, until 2026-11-21 10:00: did not load" in told["refused"]
    history = [value.strip() for name, value in facts if name == "history"]
    assert history[1] == f"2026-11-19 10:00  RolledBack  v4 {DIGESTS['v4']}: v4 did\\x1b not load"
    assert run("show", "iris", "--json").json["status"]["phase"] == "AwaitingApproval"


def test_a_name_that_there_is_not_gets_a_hint(run, rollout):
    rollout()
    outcome = run("show", "irsi")
    assert outcome.code == 3
    assert "hint: did you mean iris?" in outcome.err


def test_a_cluster_that_does_not_know_rollouts(run, server):
    server.misbehave(ANYWHERE, status(404, on=anything, times=9))
    outcome = run("ls")
    assert outcome.code == 3
    assert "apply deploy/controller" in outcome.err


def test_a_server_that_is_away_is_to_be_asked_again_and_nothing_resumes(run, server):
    server.misbehave(ANYWHERE, status(503, on=anything, times=1))
    outcome = run("ls")
    assert outcome.code == 5
    assert outcome.err.endswith("\nhint: run it again later\n")


def test_a_cluster_that_is_nowhere(tmp_path):
    outcome = lading("rollout", "ls", environ={"HOME": str(tmp_path)})
    assert outcome.code == 3
    assert outcome.err.splitlines()[0] == f"error[not-found]: there is no kubeconfig {tmp_path}/.kube/config"


def test_a_server_whose_name_nobody_knows_is_no_cluster_without_rollouts(run, cluster, tmp_path):
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(kubeconfig.read_text().replace(cluster.url, "http://nowhere.invalid"))
    outcome = run("ls")
    assert outcome.code != 0
    assert "nowhere.invalid" in outcome.err
    assert "deploy/controller" not in outcome.err


# ---- approve ------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", [[], ["sha256:4444"]])
def test_approve_writes_the_digest_of_the_candidate(run, rollout, written, digest):
    rollout()
    outcome = run("approve", "iris", *digest)
    assert outcome.out == "iris may go to version v4 (sha256:444444444444…)\n"
    assert written() == [{"approve": DIGESTS["v4"]}]


def test_approve_of_another_digest_than_the_candidates_writes_nothing(run, rollout, written):
    rollout()
    outcome = run("approve", "iris", "sha256:5")
    assert outcome.code == 2
    assert f"the candidate of iris is another one: v4 {DIGESTS['v4']}" in outcome.err
    assert written() == []


@pytest.mark.parametrize(
    ("state", "update", "code", "words"),
    [
        (CURRENT, "Approve", 3, "iris has no candidate to approve"),
        (WAITING, "Auto", 2, "iris waits for nobody's approval: its update is Auto"),
    ],
)
def test_approve_where_nothing_waits_for_it_says_so(run, rollout, written, state, update, code, words):
    rollout(state=state, update=update)
    outcome = run("approve", "iris")
    assert (outcome.code, words in outcome.err) == (code, True)
    assert written() == []


PAUSED = {**WAITING, "phase": "Paused", "canary": {"step": 2, "percent": 50, "reachedAt": "2026-11-29T05:00:00Z"}}


def steps(pause):
    return {"type": "Canary", "canary": {"steps": [{"percent": 10, "pause": "1m"}, {"percent": 50, "pause": pause}]}}


def test_approve_ends_the_step_of_a_canary_that_waits_for_it(run, rollout, written):
    rollout(state=PAUSED, update="Auto", strategy=steps("Approval"))
    assert "canary      step 2, 50 % of the requests" in run("show", "iris").out
    outcome = run("approve", "iris")
    assert outcome.out == "iris may go to version v4 (sha256:444444444444…), past step 2\n"
    assert written() == [{"approveStep": {"version": DIGESTS["v4"], "step": 2}}]


def test_a_step_that_waits_for_its_time_is_not_approved(run, rollout, written):
    rollout(state=PAUSED, update="Auto", strategy=steps("1h"))
    assert "waits for nobody's approval" in run("approve", "iris").err
    assert written() == []


def test_back_during_a_canary_is_the_version_that_it_would_replace(run, rollout, written):
    rollout(state=PAUSED, strategy=steps("1h"))
    run("back", "iris")
    assert written() == [{"pin": version("v3")["pin"]}]


# ---- pause, resume, back ------------------------------------------------------------------------


def test_pause_stays_at_what_the_service_has_and_resume_follows_again(run, rollout, written):
    rollout()
    assert run("pause", "iris").out == "iris stays at version v3 (sha256:333333333333…)\n"
    rollout(pin=version("v3")["pin"])
    assert f"stays at    {version('v3')['pin']}" in run("show", "iris").out
    assert run("resume", "iris").out == f"iris follows {CHANNEL} again\n"
    assert written() == [{"pin": version("v3")["pin"]}, {"pin": None}]


def test_what_is_not_paused_is_not_resumed(run, rollout, written):
    rollout()
    outcome = run("resume", "iris")
    assert (outcome.code, "iris is not paused" in outcome.err) == (2, True)
    assert written() == []


def test_what_has_no_version_yet_cannot_stay_at_it(run, rollout, written):
    rollout(state={})
    assert run("pause", "iris").code == 2
    assert run("back", "iris").code == 3
    assert written() == []


def test_back_goes_to_the_last_version_that_served_before(run, rollout, written):
    rollout(state=CURRENT)
    outcome = run("back", "iris")
    assert outcome.out.startswith("iris goes back to version v2 ")
    assert written() == [{"pin": version("v2")["pin"]}]


def test_back_from_a_version_that_is_being_rolled_out_is_the_one_that_serves(run, rollout, written):
    rollout(state={**WAITING, "phase": "Rolling"})
    assert run("back", "iris", "--json").json == {"name": "iris", "pin": version("v3")["pin"]}
    assert written() == [{"pin": version("v3")["pin"]}]


@pytest.mark.parametrize("wanted", ["v2", DIGESTS["v2"], "sha256:2222"])
def test_back_to_a_version_of_the_history(run, rollout, written, wanted):
    rollout()
    assert run("back", "iris", "--to", wanted).code == 0
    assert written() == [{"pin": version("v2")["pin"]}]


def test_back_to_a_version_that_never_served_is_refused(run, rollout, written):
    rollout()
    outcome = run("back", "iris", "--to", "v4")
    assert outcome.code == 3
    assert "iris has no version v4 in its history" in outcome.err
    assert written() == []


@pytest.mark.parametrize("verb", ["pause", "back"])
def test_nothing_is_told_to_a_rollout_that_is_off(run, rollout, written, verb):
    rollout(state=CURRENT, update="Off")
    outcome = run(verb, "iris")
    assert (outcome.code, "iris is Off" in outcome.err) == (2, True)
    assert written() == []
