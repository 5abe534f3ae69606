"""``lading agent`` and ``lading health`` as processes."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml

from command_line import ENVIRONMENT, LADING, Slow, lading, serve, write_model
from fakes.nginx import free_port


@pytest.fixture
def config(tmp_path):
    """Writes a configuration with one delivery; gives the environment that names it."""
    write_model(tmp_path / "origin")

    def write(agent: dict | None = None, **delivery) -> dict[str, str]:
        own = {"port": free_port(), **(agent or {})}
        one = {
            "name": "iris",
            "uri": str(tmp_path / "origin"),
            "destination": str(tmp_path / "models/iris"),
            **delivery,
        }
        (tmp_path / "lading.yaml").write_text(yaml.safe_dump({"deliveries": [one], "agent": own}))
        return {"LADING_CONFIG": str(tmp_path / "lading.yaml")}

    return write


@contextmanager
def running(environ: dict[str, str], *options: str):
    process = subprocess.Popen(
        [*LADING, "agent", *options],
        env={**ENVIRONMENT, **environ},
        stderr=subprocess.PIPE,
        text=True,
        # Tests that a shell started in the background have it ignored, and so has what they start.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process, word: str) -> str:
    for line in process.stderr:
        if word in line:
            return line
    pytest.fail(f"{word!r} was not said")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_delivers_answers_probes_and_to_be_stopped_is_no_failure(tmp_path, config, stop):
    environ = config()
    outcome = lading("health", environ=environ)
    assert (outcome.code, outcome.err.splitlines()[-1]) == (
        5,
        "hint: is the agent running? --port says where it listens",
    )
    with running(environ) as agent:
        assert "http://127.0.0.1:" in read_until(agent, "status page: ")
        read_until(agent, "is in place")
        assert (tmp_path / "models/iris/config.json").exists()
        for option in ((), ("--live",), ("--started",)):
            assert lading("health", *option, environ=environ)[:2] == (0, "ok\n")
        agent.send_signal(stop)
        assert agent.wait(20) == 0
        assert agent.stderr.read().splitlines()[-1] == "stopped"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_several_go_on_at_a_time_each_line_names_its_own_and_a_signal_ends_all(tmp_path, config, log_format):
    write_model(tmp_path / "warm")
    slow = Slow()
    with serve(tmp_path, slow.handler()) as url:
        environ = config({"parallel": 3})
        settings = yaml.safe_load((tmp_path / "lading.yaml").read_text())
        slows = [{"name": name, "uri": f"{url}/{name}.bin", "destination": f"{tmp_path}/{name}"} for name in ("a", "b")]
        settings["deliveries"] = [{"name": "warm", "uri": str(tmp_path / "warm")}, *slows]
        settings["store"] = {"path": str(tmp_path / "store")}
        (tmp_path / "lading.yaml").write_text(yaml.safe_dump(settings))
        with running(environ, "--log-format", log_format) as agent:
            try:
                line = read_until(agent, "is in place")
                if log_format == "json":
                    assert json.loads(line)["delivery"] == "warm"
                else:
                    assert line.startswith("warm: sha256:")
                assert slow.begun.wait(30)
                outcome = lading("health", environ=environ)
                assert "waiting for a, b" in outcome.err
                asked = time.monotonic()
                agent.send_signal(signal.SIGTERM)
                assert agent.wait(20) == 0
                assert time.monotonic() - asked < 5
            finally:
                slow.go_on.set()
        assert "kept by agent/warm" in lading("store", "ls", environ=environ).out


def test_health_says_what_is_lacking(tmp_path, config):
    environ = config(uri=str(tmp_path / "nowhere"))
    with running(environ, "--log-format", "json") as agent:
        event = json.loads(read_until(agent, "Failed"))
        assert (event["delivery"], event["code"]) == ("iris", "not-found")
        outcome = lading("health", environ=environ)
        assert outcome.code == 5
        assert "503: waiting for iris" in outcome.err
        assert lading("health", "--live", environ=environ).code == 0


def test_a_configuration_that_breaks_fails_no_probe(tmp_path, config):
    port = free_port()
    environ = config({"port": port})
    with running(environ) as agent:
        read_until(agent, "is in place")
        (tmp_path / "lading.yaml").write_text(f"agent: {{port: {port}}}\ndeliveries: [{{name: x}}]")
        assert lading("health", environ=environ).code == 0
        (tmp_path / "lading.yaml").write_text("deliveries: [")
        assert lading("health", environ=environ).code == 2
        assert lading("health", "--port", str(port), environ=environ).code == 0


def test_health_asks_over_tls_where_the_agent_speaks_it(tmp_path, config):
    from fakes.certificates import Authority

    certificate, key = Authority(tmp_path).write_client(tmp_path, "agent.example")
    environ = config({"certificate": certificate, "key": key, "listen": "0.0.0.0"})
    with running(environ) as agent:
        read_until(agent, "is in place")
        assert lading("health", environ=environ).code == 0


def test_a_change_can_end_the_process_with_a_code(tmp_path, config):
    environ = config(on_change={"exit": 10}, every_s=1)
    with running(environ) as agent:
        assert agent.wait(30) == 10
    with running(environ) as agent:
        read_until(agent, "status page: ")
        write_model(tmp_path / "origin", **{"config.json": b"another"})
        assert agent.wait(30) == 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deliveries: {a: b}", "deliveries is not a list"),
        ("deliveries: [5]", "deliveries, entry 1 is not a mapping"),
        ("deliveries: [{name: iris}]", "delivery iris has no uri"),
        ("agent: {port: 70000}", "agent.port is 70000"),
        ("{deliveries: [{name: m, uri: /m, destination: /m/m}], agent: {listen: 192.0.2.1}}", "192.0.2.1"),
        ("agent: {token: t0ken}", "unknown key 'token'"),
        ("agent: {port: 0}", "no deliveries to keep current"),
    ],
)
def test_a_configuration_that_is_wrong_is_one_error(tmp_path, text, said):
    (tmp_path / "lading.yaml").write_text(text)
    outcome = lading("agent", environ={"LADING_CONFIG": str(tmp_path / "lading.yaml")})
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.startswith("error[")
    assert "Traceback" not in outcome.err


def test_a_port_that_is_taken_says_so(config):
    environ = config()
    with running(environ) as agent:
        read_until(agent, "status page: ")
        outcome = lading("agent", environ=environ)
        port = yaml.safe_load(Path(environ["LADING_CONFIG"]).read_text())["agent"]["port"]
        assert outcome.code == 2
        assert f"error[usage]: port {port} of 127.0.0.1 is taken\nhint: set agent.port" in outcome.err


def test_init_says_how_it_goes_while_it_runs(tmp_path):
    port = free_port()
    slow = Slow()
    with serve(tmp_path, slow.handler()) as url:
        secret = url.replace("://", "://ada:pa55word@")
        pairs = [f"{url}/model.bin", tmp_path / "models", f"{secret}/other.bin", tmp_path / "others"]
        command = [*LADING, "init", *pairs, "--health-port", str(port)]
        process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        try:
            assert slow.begun.wait(30)
            outcome = lading("health", "--port", str(port))
            assert outcome.code == 5
            assert "waiting for init" in outcome.err
            assert lading("health", "--live", "--port", str(port)).code == 0
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().decode()
            assert "not yet in place, delivering" in page
            assert "pa55word" not in page
            slow.go_on.set()
            assert process.wait(30) == 0
        finally:
            slow.go_on.set()
            process.kill()
            process.communicate()


def test_no_secret_of_a_uri_is_shown_anywhere(tmp_path, config):
    port = free_port()
    environ = config({"port": port}, uri="http://user:pa55word@127.0.0.1:1/m?X-Amz-Signature=5ignature")
    with running(environ) as agent:
        said = read_until(agent, "error[")
        text = "".join(
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").read().decode() for path in ("/", "/metrics")
        )
    for secret in ("pa55word", "5ignature"):
        assert secret not in said
        assert secret not in text
    assert os.listdir(tmp_path / "models") in ([], [".iris.versions"]) if (tmp_path / "models").exists() else True
