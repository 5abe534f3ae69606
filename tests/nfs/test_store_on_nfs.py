"""The store on NFS: a real server and two real clients, in the machine that boot.sh boots."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from command_line import LADING, Outcome
from fakes.trees import MIB, content, read_tree, whole_manifest
from lading.events import Materialized
from lading.settings.store import StoreSettings
from lading.store.inspection import verify
from lading.store.store import Store
from lading.system import disk

NFS, MOUNTSTATS = Path("/nfs"), Path("/proc/self/mountstats")
WEIGHTS = content(24 * MIB)


class Nodes(NamedTuple):
    """One folder of an export, as both clients see it, and as the server does."""

    a: Path
    b: Path
    server: Path


@pytest.fixture(params=["4.2", "3"])
def version(request) -> str:
    return request.param


@pytest.fixture
def share(version):
    """Make a new folder of an export."""

    def make(export: str, mode: int = 0o755) -> Nodes:
        place = Path("/srv") / export / os.urandom(4).hex()
        place.mkdir()
        place.chmod(mode)
        return Nodes(*(NFS / version / client / export / place.name for client in "ab"), place)

    return make


@pytest.fixture
def nodes(share) -> Nodes:
    return share("xfs")


def by(node: Path, **settings) -> StoreSettings:
    return StoreSettings(path=str(node / "store"), **{"high": "100%", "low": "100%"} | settings)


@pytest.fixture
def start(tmp_path) -> Iterator:
    """Start ``lading pull`` on a node, by the store there."""
    running = []

    def pull(uri: str, node: Path, name: str = "model") -> subprocess.Popen[str]:
        config = tmp_path / "lading.yaml"
        config.write_text("store: {high: 100%, low: 100%}\n")
        env = {
            "PATH": os.environ["PATH"],
            "LADING_LOG_FORMAT": "json",
            "LADING_STORE": str(node / "store"),
            "LADING_CONFIG": str(config),
        }
        process = subprocess.Popen([*LADING, "pull", uri, str(node / name)], env=env, text=True, stderr=subprocess.PIPE)
        running.append(process)
        return process

    yield pull
    for process in running:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> Outcome:
    _, said = process.communicate(timeout=120)
    return Outcome(process.returncode, "", said)


def comes_at_last(pull: Callable[[], subprocess.Popen[str]]) -> bool:
    """Whether a delivery succeeds; syncfs(2) may tell it of what an earlier process could not write, once."""
    return any(ended(pull()).code == 0 for _ in range(3))


@pytest.fixture
def gate(server) -> Iterator[threading.Event]:
    """The origin stops after 8 MiB until this is set."""
    opened = threading.Event()
    server.on_sent = lambda _, total: total < 8 * MIB or opened.wait(120)
    yield opened
    opened.set()


def wait_for(process: subprocess.Popen[str], event: str) -> None:
    assert any(json.loads(line).get("event") == event for line in process.stderr), f"{event} was not told"


def test_two_nodes_fetch_a_model_once(server, gate, nodes, start):
    uri = server.put("/model.bin", WEIGHTS)
    first = start(uri, nodes.a, "first")
    assert server.wait_for_sent(8 * MIB, 60)
    second = start(uri, nodes.b, "second")
    wait_for(second, "WaitingForStore")
    gate.set()
    for process in (first, second):
        assert ended(process).code == 0
    assert server.asked_bytes == len(WEIGHTS)
    for name in ("first", "second"):
        assert read_tree(nodes.server / name) == {"model.bin": WEIGHTS}
        whole_manifest(nodes.server / name)


def test_a_model_that_another_node_has_just_brought_is_seen_at_once(server, nodes, pull):
    uri = server.put("/model.bin", b"model")
    pull(uri, nodes.a / "first", store=by(nodes.a / "other"))
    (key,) = Store(by(nodes.a / "other")).keys()
    there = Store(by(nodes.b))
    assert not there.has(key)
    pull(uri, nodes.a / "second", store=by(nodes.a))
    assert there.has(key)


def test_another_node_goes_on_where_one_was_killed(server, gate, nodes, start):
    uri = server.put("/model.bin", WEIGHTS)
    first = start(uri, nodes.a)
    while not any(path.read_text().count("\n") > 1 for path in nodes.server.glob("store/incoming/*/.lading/journal")):
        assert first.poll() is None, first.stderr.read()
    first.kill()
    first.wait()
    gate.set()
    assert server.wait_until_alone(60)
    second = ended(start(uri, nodes.b))
    assert second.code == 0, second.err
    assert "Resumed" in {line.get("event") for line in second.logs}
    assert read_tree(nodes.server / "model") == {"model.bin": WEIGHTS}


def count(operation: str, version: str, export: str) -> int:
    """How often client a has asked the server for this operation."""
    [of_mount] = re.findall(f" mounted on /nfs/{version}/a/{export} (.*?)(?=\ndevice |$)", MOUNTSTATS.read_text(), re.S)
    found = re.search(rf"^\s*{operation}: (\d+)", of_mount, re.M)
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    ("version", "export", "way", "operation"),
    [("4.2", "xfs", "1 by reflink", "CLONE"), ("4.2", "ext4", "1 by copy", "COPY"), ("3", "xfs", "1 by copy", "WRITE")],
)
def test_a_second_pod_gets_it_by(server, share, pull, events, version, export, way, operation):
    nodes, before = share(export, 0o777), count(operation, version, export)
    uri = server.put("/model.bin", WEIGHTS)
    for name in ("first", "second"):
        pull(uri, nodes.a / name, store=by(nodes.a))
        whole_manifest(nodes.server / name)
    assert server.asked_bytes == len(WEIGHTS)
    assert {event.ways for event in events if isinstance(event, Materialized)} == {way}
    assert count(operation, version, export) > before


def test_what_a_node_needs_no_other_one_evicts(server, nodes, pull):
    pull(server.put("/model.bin", b"model"), nodes.a / "model", store=by(nodes.a))
    here, there = Store(by(nodes.a)), Store(by(nodes.b))
    (key,) = there.keys()
    with here.lease(key):
        assert there.leases.held() == {key}
    assert there.leases.held() == set()


def test_what_another_node_evicts_while_it_is_placed_is_fetched_again(server, nodes, pull, monkeypatch):
    uri = server.put("/model.bin", WEIGHTS)
    pull(uri, nodes.a / "first", store=by(nodes.a))
    store = Store(by(nodes.b))
    keys = store.keys()

    def evict_and_copy(*_: object) -> bool:
        while keys:
            store.remove(keys.pop())
        return False

    monkeypatch.setattr(disk, "_clone", evict_and_copy)
    pull(uri, nodes.a / "second", store=by(nodes.a))
    assert read_tree(nodes.server / "second") == {"model.bin": WEIGHTS}
    assert verify(store).rotten == ()


def test_a_server_that_is_full_sooner_than_it_said_gets_no_model(server, share, start):
    nodes, filler = share("small"), Path("/srv/small/filler")
    weights = WEIGHTS[: 12 * MIB]
    uri = server.put("/model.bin", weights)

    def fill(_: object, total: int) -> None:
        if total > MIB and not filler.exists():
            free = os.statvfs("/srv/small")
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - 4 * MIB)

    server.on_sent = fill
    try:
        failed = ended(start(uri, nodes.a))
        assert failed.logs[-1]["code"] == "no-space", failed.err
        assert not (nodes.server / "model").exists()
        assert os.listdir(nodes.server / "store/models") == []
    finally:
        server.on_sent = lambda *_: None
        assert server.wait_until_alone(60)
        filler.unlink(missing_ok=True)
    assert comes_at_last(lambda: start(uri, nodes.a))
    assert read_tree(nodes.server / "model") == {"model.bin": weights}


def test_a_delivery_goes_on_when_the_server_comes_back(server, gate, nodes, start):
    uri = server.put("/model.bin", WEIGHTS)
    process = start(uri, nodes.a)
    assert server.wait_for_sent(8 * MIB, 60)
    subprocess.run(["rpc.nfsd", "0"], check=True)
    gate.set()
    subprocess.run(["rpc.nfsd", "8"], check=True)
    assert ended(process).code == 0
    assert read_tree(nodes.server / "model") == {"model.bin": WEIGHTS}


@pytest.mark.parametrize("version", ["4.2"])
def test_a_node_that_was_cut_off_and_comes_back_damages_nothing(server, gate, nodes, start):
    uri = server.put("/model.bin", WEIGHTS)
    lost = start(uri, nodes.a, "lost")
    assert server.wait_for_sent(8 * MIB, 60)
    subprocess.run(["ip", "link", "set", "to-a", "down"], check=True)
    try:
        gate.set()
        # Once the server has given up what a had locked, after the time of its lease.
        second = ended(start(uri, nodes.b, "second"))
        assert second.code == 0, second.err
    finally:
        subprocess.run(["ip", "link", "set", "to-a", "up"], check=True)
    # What it had locked is another's by now, so that it may fail; it can be run again.
    came_back = ended(lost)
    assert came_back.code == 0 or came_back.logs[-1]["code"] == "unavailable", came_back.err
    assert comes_at_last(lambda: start(uri, nodes.a, "lost"))
    for name in ("lost", "second"):
        assert read_tree(nodes.server / name) == {"model.bin": WEIGHTS}
    assert verify(Store(by(nodes.b))).rotten == ()


def test_root_is_told_what_the_server_refuses(server, share, start):
    nodes = share("ext4")
    refused = ended(start(server.put("/model.bin", WEIGHTS), nodes.a))
    assert refused.logs[-1]["code"] == "not-allowed"
    assert "root_squash" in refused.err
