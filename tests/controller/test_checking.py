"""What the controller asks of a version that is served, and whom it does not ask."""

import json
import socketserver
import threading
from urllib.parse import urlsplit

import pytest

from controller.conftest import MRO
from fakes.faulty_http import Answer, FaultyServer, status
from lading.controller import checking
from lading.controller.checking import Asked, Checks, may_be_asked
from lading.rollout.verdict import HttpCheck, QueryCheck
from lading.settings.settings import Settings

QUERY = "/api/v1/query"


@pytest.fixture
def asked():
    """The server that is asked: a pod, a URL that is allowed, or Prometheus."""
    with FaultyServer() as asked:
        asked.put("/ready", b"ready")
        yield asked


@pytest.fixture
def rolling(world, asked, monkeypatch):
    """A service whose pod serves v2, which its checks are to judge."""
    monkeypatch.setattr(checking, "may_be_asked", lambda address: address == "127.0.0.1")
    world.allowed = {"prometheus": asked.url, "urls": [f"{asked.url}/"]}

    def rolling(*wanted):
        world.serve()
        world.roll_out(checks=list(wanted))
        world.tick()
        world.serve(ready=True)
        world.pods()
        world.champion("v2")
        world.tick(70)
        assert (world.pinned, world.status["phase"]) == ("v2", "Rolling")
        world.pods()
        return world

    return rolling


def ready(asked, path="/ready", **http):
    return {"name": "ready", "http": {"path": path, "port": urlsplit(asked.url).port, **http}, "timeout": "2s"}


def results(asked, *values, kind="vector"):
    """Prometheus answers with these values."""
    result = [{"metric": {}, "value": [1.0, value]} for value in values] if kind == "vector" else [1.0, values[0]]
    body = {"status": "success", "data": {"resultType": kind, "result": result}}
    asked.routes[QUERY] = lambda request: Answer(200, {}, json.dumps(body).encode())


def query(**limits):
    return {"name": "errors", "prometheus": {"query": 'rate(errors{a="b"}[5m])', **limits}}


def test_pods_are_asked_once_they_serve_the_version(rolling, asked):
    world = rolling(ready(asked))
    assert asked.requests == []
    world.tick(10)
    assert world.status["phase"] == "Current"
    (one,) = asked.requests
    assert (one.method, one.target) == ("GET", "/ready")
    assert not {"authorization", "cookie"} & one.headers.keys()


def test_a_check_that_fails_three_times_is_rolled_back_and_told_everywhere(rolling, asked):
    world = rolling(ready(asked, "/lost"))
    world.tick(10, times=2)
    assert (world.status["phase"], world.pinned) == ("Rolling", "v2")
    world.tick(10)
    said = f"check ready: {asked.url}/lost answered 404, not 200"
    assert (world.status["phase"], world.status["message"], world.pinned) == ("RolledBack", said, "v1")
    assert world.status["refused"][0]["reason"] == "CheckFailed"
    stalled = next(each for each in world.status["conditions"] if each["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"], stalled["message"]) == ("True", "CheckFailed", said)
    assert "InferenceService RolledBack" in world.events()
    text = world.controller.shown.metrics.text()
    assert 'lading_rollout_rollbacks_total{rollout="team-a/follow",reason="CheckFailed"} 1' in text
    assert 'lading_rollout_checks_total{outcome="failed"} 3' in text
    assert said in world.controller.shown.page(world.unix_s)[0]


def test_a_version_that_is_tried_again_is_asked_again(rolling, asked):
    asked.misbehave("/ready", status(503, times=3))
    world = rolling(ready(asked))
    world.tick(10, times=3)
    assert (world.status["phase"], world.pinned) == ("RolledBack", "v1")
    world.pods()
    world.tick(3600)
    assert (world.status["phase"], world.pinned) == ("Rolling", "v2")
    world.pods()
    world.tick(10)
    assert (world.status["phase"], world.pinned) == ("Current", "v2")
    assert len(asked.requests) == 4


def test_a_check_that_fails_once_is_an_accident(rolling, asked):
    asked.misbehave("/ready", status(503, times=2))
    world = rolling(ready(asked))
    world.tick(10, times=3)
    assert world.status["phase"] == "Current"


def test_a_redirect_is_not_followed(rolling, asked):
    asked.routes["/moved"] = lambda request: Answer(302, {"Location": f"{asked.url}/ready"})
    world = rolling(ready(asked, "/moved"))
    world.tick(10, times=3)
    assert world.status["phase"] == "RolledBack"
    assert {one.path for one in asked.requests} == {"/moved"}


def test_a_url_is_asked_that_the_configuration_allows(rolling, asked):
    world = rolling({"name": "answers", "http": {"url": f"{asked.url}/ready"}})
    world.tick(10)
    assert world.status["phase"] == "Current"


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"http": {"url": "http://169.254.169.254/latest"}}, "controller.urls does not allow http://169.254.169.254"),
        ({"http": {"url": "https://kubernetes.default.svc/api"}}, "does not allow"),
        ({"prometheus": {"query": "up", "min": 1}}, "names no controller.prometheus"),
    ],
)
def test_what_the_configuration_does_not_allow_is_not_asked(world, asked, check, said):
    world.serve()
    world.roll_out(checks=[{"name": "a", **check}])
    world.tick()
    assert (world.status["phase"], world.lock) == ("Invalid", "")
    assert said in world.status["message"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "169.254.169.254",
        "fe80::1",
        "::ffff:127.0.0.1",
        "224.0.0.1",
        "",
        "iris",
        "10.0.0.1/8",
    ],
)
def test_what_is_no_pods_own_address_is_not_asked(address):
    assert not may_be_asked(address)


def test_the_address_of_a_pod_may_be_asked():
    assert may_be_asked("10.244.0.7")
    assert may_be_asked("fd00:10:244::7")


def test_pods_in_the_network_of_their_node_are_not_asked(rolling, asked):
    world = rolling(ready(asked))
    pod = world.one("api/v1/pods", "iris-0")
    world.api.put("api/v1/pods", "iris-0", **{**pod, "spec": {"hostNetwork": True}})
    world.tick(10, times=4)
    assert (world.status["phase"], asked.requests) == ("Rolling", [])
    assert "no pod that can be asked" in world.status["message"]


@pytest.mark.parametrize(
    ("kind", "values", "phase"),
    [
        ("vector", ["0.001", "0"], "Current"),
        ("scalar", ["0"], "Current"),
        ("vector", ["0.001", "0.5"], "RolledBack"),
        ("vector", ["+Inf"], "RolledBack"),
        ("vector", [], "Rolling"),
        ("vector", ["NaN"], "Rolling"),
        ("vector", ["many"], "Rolling"),
        ("matrix", ["1"], "Rolling"),
    ],
)
def test_a_query_is_judged_by_its_samples(rolling, asked, kind, values, phase):
    results(asked, *values, kind=kind)
    world = rolling(query(max=0.01))
    world.tick(10, times=3)
    assert world.status["phase"] == phase
    assert asked.requests[0].query == "query=rate%28errors%7Ba%3D%22b%22%7D%5B5m%5D%29&timeout=5s"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {}, b"<html>"),
        Answer(200, {}, b"[]"),
        Answer(200, {}, b'{"data": {"resultType": "scalar", "result": 5}}'),
        Answer(200, {}, b'{"data": {"resultType": "vector", "result": [{"value": [1]}]}}'),
        Answer(200, {}, b'"' + b"a" * (300 << 10) + b'"'),
        Answer(400, {}, b'{"status": "error", "error": "parse error\\u001b[2J"}'),
        Answer(302, {"Location": "http://169.254.169.254/"}, b""),
        Answer(503, {}, b""),
    ],
    ids=lambda answer: f"{answer.status} {bytes(answer.body[:30])!r}",
)
def test_an_answer_of_prometheus_that_is_none_judges_nothing(rolling, asked, answer):
    asked.routes[QUERY] = lambda request: answer
    world = rolling(query(max=1))
    world.tick(10, times=4)
    assert world.status["phase"] == "Rolling"
    assert world.status["message"].startswith("check errors: ")
    assert world.status["message"].isprintable()


def ask(checks: Checks) -> None:
    checks.agenda.begin()
    checks.agenda.serve(forever=False)


class Dripping(socketserver.BaseRequestHandler):
    """Answers with a head that never ends, a byte at a time."""

    def handle(self):
        try:
            while not self.server.ended.wait(0.02):
                self.request.sendall(b"H")
        except OSError:
            return


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(clock, monkeypatch):
    """As a pod might, to keep the controller from asking others."""
    monkeypatch.setattr(checking, "may_be_asked", lambda _: True)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping) as server:
        server.ended = threading.Event()
        threading.Thread(target=server.serve_forever, name="dripping", daemon=True).start()
        found = Checks(Settings, clock, lambda: None)
        check = Asked((HttpCheck("ready", path="/", port=server.server_address[1], timeout_s=0.2),), "pin")
        for _ in range(3):
            found.verdict("team-a/iris", check, ("127.0.0.1",))
            ask(found)
            clock.seconds += 10
        server.ended.set()
        server.shutdown()
    assert found.last("team-a/iris").word == "failed"


def test_a_verdict_is_on_one_version_alone(clock, asked):
    found = Checks(Settings, clock, lambda: None)
    queries = (QueryCheck("q", "up", least=1),)
    found.verdict("team-a/iris", Asked(queries, "one"), ())
    found.verdict("team-a/iris", Asked(queries, "two"), ())
    ask(found)
    assert found.last("team-a/iris") == found.verdict("team-a/iris", Asked(queries, "two"), ())
    found.keep(set())
    assert found.last("team-a/iris").why == "its checks are not asked yet"


def test_checks_are_not_asked_while_no_version_is_rolled_out(world, asked):
    world.allowed = {"urls": [f"{asked.url}/"]}
    world.serve(ready=True)
    world.roll_out(checks=[{"name": "a", "http": {"url": f"{asked.url}/ready"}}])
    world.pods()
    world.tick(10, times=3)
    assert asked.requests == []
    assert world.one(MRO, "follow")["status"]["phase"] == "Current"
