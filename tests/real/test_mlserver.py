"""A hot update with a real server of the Open Inference Protocol: MLServer, and what Triton's client says to our fake."""

import contextlib
import json
import os
import subprocess
import threading
import time
from http.client import HTTPConnection

import pytest
import yaml

from command_line import LADING, lading
from fakes.fake_v2 import FakeV2
from fakes.mlserver import QUESTION, ask_as_triton, mlserver, write_model
from fakes.nginx import free_port

CLIENTS = 4
REQUESTS = 1000


class Client(threading.Thread):
    """Asks without a pause; ``answers`` are all that it got, failures included."""

    def __init__(self, url: str) -> None:
        super().__init__(name="client")
        self._address = url.removeprefix("http://")
        self.answers: list[str] = []
        self.go_on = True

    def run(self) -> None:
        with contextlib.closing(HTTPConnection(self._address, timeout=60)) as client:
            while self.go_on:
                client.request("POST", "/v2/models/iris/infer", json.dumps(QUESTION))
                answer = client.getresponse()
                body = answer.read()
                good = answer.status == 200
                self.answers.append(json.loads(body)["outputs"][0]["data"][0] if good else f"{answer.status}")


@contextlib.contextmanager
def asking(url: str):
    clients = [Client(url) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        for client in clients:
            client.go_on = False
        for client in clients:
            client.join(60)


def wait_until(happened, what: str) -> None:
    until_s = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < until_s, what
        time.sleep(0.05)


@pytest.fixture
def world(tmp_path):
    """Origin, server and agent; gives the server's URL, ``offer(answer)`` and ``metric(name)``."""
    models = tmp_path / "models"
    models.mkdir()
    port = free_port()
    config = tmp_path / "lading.yaml"
    environment = {**os.environ, "LADING_CONFIG": str(config)}

    def offer(answer: bytes) -> None:
        # In one step, as a registry or a bucket's version would be: never half of one and half of another.
        folder = write_model(tmp_path / f"origin-{answer.decode()}", answer)
        catalog = {"models": {"iris": {"versions": {answer.decode(): {"uri": str(folder)}}}}}
        (tmp_path / "new.yaml").write_text(yaml.safe_dump(catalog))
        (tmp_path / "new.yaml").rename(tmp_path / "catalog.yaml")

    def metric(name: str) -> float:
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=10)) as client:
            client.request("GET", "/metrics")
            lines = client.getresponse().read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    offer(b"one")
    # As an init container brings it, before the server starts.
    assert lading("pull", "model-registry://iris", tmp_path / "first", "--catalog", tmp_path / "catalog.yaml").code == 0
    (models / "iris").symlink_to("../first")
    with mlserver(tmp_path, models) as url:
        on_change = {"load": url, "model": "iris", "ready_s": 60, "probe": QUESTION}
        delivery = {"name": "iris", "uri": "model-registry://iris", "destination": str(models / "iris"), "every_s": 1}
        config.write_text(
            yaml.safe_dump(
                {
                    "deliveries": [{**delivery, "on_change": on_change}],
                    "agent": {"port": port},
                    "registries": [{"name": "catalog", "kind": "catalog", "path": str(tmp_path / "catalog.yaml")}],
                }
            )
        )
        with (tmp_path / "agent.log").open("wb") as log:
            agent = subprocess.Popen([*LADING, "agent"], env=environment, stderr=log)
        try:
            wait_until(lambda: lading("health", environ=environment).code == 0, "the agent is ready")
            yield url, offer, metric
        finally:
            agent.terminate()
            assert agent.wait(20) == 0
            print((tmp_path / "agent.log").read_text())


def test_a_thousand_requests_see_one_change_of_version_and_no_failure(world):
    url, offer, metric = world
    with asking(url) as clients:
        wait_until(lambda: all(len(client.answers) >= 50 for client in clients), "requests before")
        offer(b"two")
        wait_until(lambda: all("two" in client.answers for client in clients), "the new version")
        wait_until(lambda: sum(len(client.answers) for client in clients) >= REQUESTS, "requests after")
    for client in clients:
        changes = [after for before, after in zip(client.answers, client.answers[1:], strict=False) if before != after]
        assert (client.answers[0], changes) == ("one", ["two"])
    assert metric("lading_rollbacks_total") == 0


def test_a_broken_version_is_rolled_back_and_no_request_fails(world):
    url, offer, metric = world
    with asking(url) as clients:
        offer(b"broken")
        wait_until(lambda: metric("lading_rollbacks_total") == 1, "the roll-back")
        count = len(clients[0].answers)
        wait_until(lambda: len(clients[0].answers) >= count + 50, "requests after")
        offer(b"three")
        wait_until(lambda: all(client.answers[-1] == "three" for client in clients), "the next version")
    assert {each for client in clients for each in client.answers} == {"one", "three"}
    assert metric("lading_ready") == 1


def test_a_version_that_loads_and_answers_nothing_is_rolled_back_by_the_probe(world):
    url, offer, metric = world
    offer(b"mute")
    wait_until(lambda: metric("lading_rollbacks_total") == 1, "the roll-back")
    with asking(url) as clients:
        wait_until(lambda: all(client.answers for client in clients), "requests after")
    assert {each for client in clients for each in client.answers} == {"one"}


def test_tritons_client_finds_the_fake_to_be_as_mlserver_is(tmp_path, server):
    models = tmp_path / "models"
    write_model(models / "iris", b"one")
    with mlserver(tmp_path, models) as url:
        real = ask_as_triton(url, models / "iris")
    write_model(models / "iris", b"one")
    assert ask_as_triton(FakeV2(server, models / "iris").url, models / "iris") == real
    assert real[-1] == "ready True"
