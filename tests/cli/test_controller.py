"""``lading controller`` as a process."""

import json
import signal
import subprocess
import threading
from functools import partial

import pytest

from command_line import ENVIRONMENT, LADING, MEASURED, lading
from fakes.fake_api_server import FakeApiServer
from fakes.faulty_http import ALWAYS, anything, status
from fakes.nginx import free_port

MRO = "apis/lading.dev/v1alpha1/modelrollouts"
LEASE = "/apis/coordination.k8s.io/v1/leases/team-a/lading-controller"


@pytest.mark.parametrize("config", ["controller: {urls: [ftp://models]}", "agent: {port: none}"])
def test_wrong_settings_are_named_before_a_cluster_that_cannot_be_reached(tmp_path, config):
    environ = {"LADING_CONFIG_YAML": config, "KUBECONFIG": str(tmp_path / "none")}
    outcome = lading("controller", environ=environ)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error[usage]: LADING_CONFIG_YAML: {config.partition(':')[0]}.")


@pytest.fixture
def environ(server, tmp_path):
    """Names the server's cluster, in which KServe has no LLMInferenceServices."""
    server.misbehave("/apis/serving.kserve.io/v1alpha2/llminferenceservices", status(404, on=anything, times=ALWAYS))
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team-a"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {"token": "t0ken"}}],
    }
    (tmp_path / "config").write_text(json.dumps(document))
    config = json.dumps({"agent": {"port": free_port(), "listen": "127.0.0.1"}})
    return {**ENVIRONMENT, **MEASURED, "KUBECONFIG": str(tmp_path / "config"), "LADING_CONFIG_YAML": config}


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_controller_that_is_stopped_gives_its_lease_back_and_says_no_more_than_that(server, environ, stop):
    cluster, written = FakeApiServer(server), threading.Event()
    cluster.put(MRO, "iris", spec={"targetRef": {"kind": "InferenceService", "name": "iris"}})
    path = "/apis/lading.dev/v1alpha1/namespaces/team-a/modelrollouts/iris/status"
    server.misbehave(path, server.before(written.set, on=anything))
    with subprocess.Popen(
        [*LADING, "controller"],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that a shell started in the background have it ignored, and so has what they start.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert written.wait(20)
        assert cluster.objects[LEASE]["spec"]["holderIdentity"]
        process.send_signal(stop)
        said = process.communicate(timeout=20)[1]
    assert process.returncode == 0
    assert said.splitlines()[-1] == "stopped"
    assert "Traceback" not in said
    assert cluster.objects[LEASE]["spec"]["holderIdentity"] == ""
