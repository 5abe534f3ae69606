"""Dragonfly on one machine: a scheduler, and a dfdaemon in a network namespace for each node; ``tools/dragonfly.sh`` builds both.

    hub       10.88.0.1     the scheduler, the origin, and a bridge
    node N    10.88.1.N     a dfdaemon, whose proxy listens on the namespace's loopback; node 1 is a seed peer

Neither a manager nor a database runs.  Needs root.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import yaml

from command_line import ENVIRONMENT, LADING, Outcome
from fakes.dragonfly_origins import Origin
from fakes.faulty_http import FaultyServer
from fakes.own_network import OwnNetwork, entered

SCHEDULER_VERSION = "2.5.1"
DFDAEMON_VERSION = "1.5.10"
PROGRAMS = Path(__file__).parents[2] / ".servers/dragonfly"
HUB = "10.88.0.1"
PROXY_PORT = 4001
# How often the scheduler looks for parents, each 0.5 s, before it sends a node to the origin.  Its own 4 are too few for a thousand
# nodes at the same moment (benchmarks/results/dragonfly.md).
ATTEMPTS = 40
_STARTS_WITHIN_S = 60.0


class Node:
    """One node: its network, and its dfdaemon while that runs."""

    def __init__(self, number: int, network: OwnNetwork, folder: Path) -> None:
        self.address = f"10.88.1.{number}"
        self.name = f"node-{number}"
        self.network = network
        self.folder = folder / self.name
        self.is_seed = number == 1
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "dfdaemon.yaml"
        config.write_text(yaml.safe_dump(self._config()))
        dynconfig = self.folder / "dynconfig.yaml"
        dynconfig.write_text(yaml.safe_dump({"scheduler": {"addrs": [f"{HUB}:8002"]}}))
        command = [
            str(PROGRAMS / f"dfdaemon-{DFDAEMON_VERSION}"),
            "--config",
            str(config),
            "--dynconfig",
            str(dynconfig),
        ]
        command += ["--log-dir", str(self.folder / "logs"), "--log-level", "info"]
        self.process = _run_in(self.network, command, self.folder / "output")
        _wait_until_open(self.network, "127.0.0.1", PROXY_PORT, self.process)

    def _config(self) -> dict[str, Any]:
        return {
            "host": {"ip": self.address, "hostname": self.name},
            "server": {"pluginDir": str(self.folder / "plugins"), "cacheDir": str(self.folder / "cache")},
            "download": {"server": {"socketPath": str(self.folder / "dfdaemon.sock")}},
            "scheduler": {"announceInterval": "2s"},
            "seedPeer": {"enable": self.is_seed, "type": "super"},
            "storage": {"dir": str(self.folder / "storage"), "keep": False},
            "proxy": {"server": {"ip": "127.0.0.1", "port": PROXY_PORT}},
        }

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def lading(self, origin: Origin, destination: Path, **rule: str) -> Outcome:
        """Deliver a model by this node's dfdaemon."""
        proxy = {"prefix": origin.uri, "url": f"http://127.0.0.1:{PROXY_PORT}", "dragonfly": True, **rule}
        variables = {name: str(text) for name, text in origin.settings.get("variables", {}).items()}
        environ = {
            **ENVIRONMENT,
            "S3_MAX_ATTEMPTS": "4",
            **variables,
            "LADING_CONFIG_YAML": json.dumps({"proxies": [proxy]}),
        }
        command = [
            "nsenter",
            f"--net={self.network.path}",
            *LADING,
            "pull",
            origin.uri,
            str(destination),
            "--log-format",
            "json",
        ]
        done = subprocess.run(
            command, env={**environ, "PATH": os.environ["PATH"]}, capture_output=True, timeout=300, check=False
        )
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


class Swarm:
    """The scheduler and ``count`` nodes; a context manager.  ``origin()`` makes a server that all nodes reach."""

    def __init__(self, count: int, folder: Path, *, attempts: int = ATTEMPTS) -> None:
        self._count = count
        self._attempts = attempts
        self._folder = folder
        self._stack = ExitStack()
        self.nodes: list[Node] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.hub = stack.enter_context(OwnNetwork())
            _ip(self.hub, "link add bridge type bridge")
            _ip(self.hub, f"addr add {HUB}/16 dev bridge")
            _ip(self.hub, "link set bridge up")
            self.start_scheduler()
            stack.callback(self.kill_scheduler)
            for number in range(1, self._count + 1):
                network = stack.enter_context(OwnNetwork())
                node = Node(number, network, self._folder)
                holder = network.path.split("/")[2]
                _ip(self.hub, f"link add veth{number} type veth peer name eth0 netns {holder}")
                _ip(self.hub, f"link set veth{number} master bridge up")
                _ip(network, f"addr add {node.address}/16 dev eth0")
                _ip(network, "link set eth0 up")
                node.start()
                stack.callback(node.kill)
                self.nodes.append(node)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_scheduler(self) -> None:
        folder = self._folder / "scheduler"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "scheduler.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "server": {
                        "advertiseIP": HUB,
                        "listenIP": HUB,
                        "port": 8002,
                        "host": "hub",
                        "logDir": str(folder / "logs"),
                        "pluginDir": str(folder / "plugins"),
                        "cacheDir": str(folder / "cache"),
                        "dataDir": str(folder / "data"),
                        "workHome": str(folder),
                    },
                    "scheduler": {"retryBackToSourceLimit": self._attempts, "retryLimit": self._attempts + 1},
                    "job": {"enable": False},
                    "metrics": {"enable": False},
                }
            )
        )
        command = [str(PROGRAMS / f"scheduler-{SCHEDULER_VERSION}"), "--config", str(config)]
        command += ["--dynconfig", str(folder / "dynconfig.yaml")]
        self.scheduler: subprocess.Popen[bytes] | None = _run_in(self.hub, command, folder / "output")
        _wait_until_open(self.hub, HUB, 8002, self.scheduler)

    def kill_scheduler(self) -> None:
        if self.scheduler is not None:
            self.scheduler.send_signal(signal.SIGKILL)
            self.scheduler.wait()
            self.scheduler = None

    @contextmanager
    def origin(self) -> Iterator[FaultyServer]:
        with self.hub.within():
            server = FaultyServer(host=HUB, address=HUB)
        with server:
            yield server


def _ip(network: OwnNetwork, command: str) -> None:
    subprocess.run(["nsenter", f"--net={network.path}", "ip", *command.split()], check=True)


def _run_in(network: OwnNetwork, command: list[str], output: Path) -> "subprocess.Popen[bytes]":
    with output.open("ab") as log:
        return subprocess.Popen(
            ["nsenter", f"--net={network.path}", *command], stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
        )


def _wait_until_open(network: OwnNetwork, address: str, port: int, process: "subprocess.Popen[bytes]") -> None:
    until_s = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < until_s:
        assert process.poll() is None, f"{process.args} has ended"
        with suppress(OSError), entered(network.path), socket.create_connection((address, port), 1.0):
            return
        time.sleep(0.1)
    raise AssertionError(f"{process.args} does not listen")
