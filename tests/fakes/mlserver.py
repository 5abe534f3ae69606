"""MLServer in its own venv, with a model that answers what its file says; and Triton's client, which it comes with."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from fakes.nginx import free_port
from fakes.trees import write_tree

VENV = Path(__file__).parents[2] / ".servers" / "mlserver"
_RUNTIME = """
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse
from mlserver.utils import get_model_uri

class Answering(MLModel):
    async def load(self):
        with open(await get_model_uri(self.settings), "rb") as file:
            self._answer = file.read().decode()
        if self._answer == "broken":
            raise RuntimeError("the model cannot be read")
        return True

    async def predict(self, payload):
        if self._answer == "mute":
            raise RuntimeError("no answer")
        output = StringCodec.encode_output("answer", [self._answer])
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
# What Triton's client asks, and what it gets: the same of every server of the protocol.
_CLIENT = """
import sys, numpy
import tritonclient.http as triton

client = triton.InferenceServerClient(sys.argv[1], network_timeout=60)
print("live", client.is_server_live())
client.load_model("iris")
print("ready", client.is_model_ready("iris"))
question = triton.InferInput("question", [1], "BYTES")
question.set_data_from_numpy(numpy.array([b"?"], dtype=object), binary_data=False)
outputs = [triton.InferRequestedOutput("answer", binary_data=False)]
answer = client.infer("iris", [question], outputs=outputs).get_response()["outputs"][0]
print("answer", answer["data"])
open(sys.argv[2] + "/answer", "w").write("broken")
try:
    client.load_model("iris")
except triton.InferenceServerException as error:
    print("broken", error.status())
print("ready", client.is_model_ready("iris"))
"""
QUESTION = {"inputs": [{"name": "question", "shape": [1], "datatype": "BYTES", "data": ["?"]}]}


def write_model(folder: Path, answer: bytes, *, with_runtime: bool = False) -> Path:
    """A model for this server, whose answer this is; ``with_runtime`` also the code that it needs."""
    about = {"name": "iris", "implementation": "answering.Answering", "parameters": {"uri": "./answer"}}
    code = {"answering.py": _RUNTIME.encode()} if with_runtime else {}
    return write_tree(folder, {"model-settings.json": json.dumps(about).encode(), "answer": answer, **code})


@contextmanager
def mlserver(folder: Path, models: Path) -> Iterator[str]:
    """Serve what is in ``models`` until the block ends; gives the URL."""
    program = VENV / "bin" / "mlserver"
    assert program.exists(), "mlserver is not installed: run make test-servers"
    write_tree(folder, {"answering.py": _RUNTIME.encode()})
    port = free_port()
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    (models / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0, "debug": False}))
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "start", models], env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        until_s = time.monotonic() + 120
        while not _is_live(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until_s, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def ask_as_triton(url: str, model: Path) -> list[str]:
    """What Triton's own client finds at a server, whose model is in this folder and is broken on the way."""
    command: list[str | Path] = [VENV / "bin" / "python", "-c", _CLIENT, url.removeprefix("http://"), model]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _is_live(port: int) -> bool:
    client = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        client.request("GET", "/v2/health/ready")
        return client.getresponse().status == 200
    except OSError:
        time.sleep(0.2)
        return False
    finally:
        client.close()
