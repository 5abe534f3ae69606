"""Real MLflow servers, and its client, from the venv that ``make test-servers`` makes for them."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

# Makes the command that is run of the one that is meant, as for a network namespace.
Within = Callable[..., list[str]]
BIN = Path(__file__).parents[2] / ".servers/mlflow/bin"
_START_S = 120.0


@contextmanager
def mlflow_server(
    folder: Path, *options: str, address: str = "127.0.0.1", within: Within | None = None, **environment: str
) -> Iterator[str]:
    """The URL of a server that keeps its database and log in ``folder``; it may not be ready yet (``wait_for``)."""
    assert (BIN / "mlflow").exists(), "MLflow is not installed: run make test-servers"
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(BIN / "mlflow"), "server", "--host", address, "--port", str(port), "--workers", "1", *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            within(*command) if within else command,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=_environment({"HOME": str(folder), **environment}),
            start_new_session=True,
        )
    try:
        yield f"http://{address}:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str) -> None:
    """Until the server at ``url`` answers."""
    until = time.monotonic() + _START_S
    while True:
        try:
            with urlopen(f"{url}/health"):
                return
        except (URLError, ConnectionError):
            assert time.monotonic() < until, f"the MLflow server at {url} does not start"
            time.sleep(0.2)


def mlflow_client(url: str, *arguments: str, within: Within | None = None, **environment: str) -> list[str]:
    """What MLflow's own client does there; the JSON that it prints last, if any."""
    command = [str(BIN / "python"), "-W", "ignore", str(Path(__file__).with_name("mlflow_client.py")), *arguments]
    result = subprocess.run(
        within(*command) if within else command,
        capture_output=True,
        text=True,
        env=_environment({"MLFLOW_TRACKING_URI": url, **environment}),
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("[")]
    return json.loads(lines[-1]) if lines else []


def _environment(more: dict[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        **more,
    }
