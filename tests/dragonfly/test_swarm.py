"""The real Dragonfly: ten nodes read a model from its origin once, and who lies or dies costs only time."""

import hashlib
import http.client
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dragonfly.swarm import PROGRAMS, PROXY_PORT, Node, Swarm
from fakes.dragonfly_origins import ORIGINS, WEIGHTS, Origin, plain
from fakes.faulty_http import Answer, FaultyServer
from fakes.own_network import entered
from fakes.trees import MIB, content, read_tree
from lading.model.listing import ListedFile, Relay
from lading.network.dragonfly import task_headers

NODES = 10
SIZE_BYTES = 96 * MIB
SMALL_BYTES = 24 * MIB
# No file is another test's.
SEEDS = itertools.count()


@pytest.fixture(scope="module")
def swarm(tmp_path_factory) -> Iterator[Swarm]:
    assert PROGRAMS.exists(), "Dragonfly is not built: run make test-dragonfly"
    with Swarm(NODES, tmp_path_factory.mktemp("dragonfly")) as swarm:
        yield swarm


@pytest.fixture
def pair(tmp_path) -> Iterator[Swarm]:
    """Two nodes of one test, which may kill what it likes."""
    with Swarm(2, tmp_path / "dragonfly") as pair:
        yield pair


@pytest.fixture
def server(swarm) -> Iterator[FaultyServer]:
    with swarm.origin() as server:
        yield server


def deliver(node: Node, origin: Origin, folder: Path) -> list[str]:
    """The names of the events of a delivery that brings what the origin has."""
    done = node.lading(origin, folder / node.name)
    assert done.code == 0, done.err
    assert read_tree(folder / node.name) == origin.files
    return [line.get("event", "") for line in done.logs]


def ask(node: Node, url: str, headers: list[tuple[str, str]]) -> bytes:
    """What the node's dfdaemon answers to a pod that is not lading."""
    with entered(node.network.path):
        connection = http.client.HTTPConnection("127.0.0.1", PROXY_PORT, timeout=60)
        connection.connect()
    with closing(connection):
        connection.request("GET", url, headers=dict(headers))
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()


@pytest.mark.parametrize("make", ORIGINS)
def test_ten_nodes_read_a_model_from_its_origin_once(make, swarm, server, tmp_path):
    origin = make(server, content(SIZE_BYTES, seed=next(SEEDS)))
    with ThreadPoolExecutor(NODES) as pool:
        events = list(pool.map(lambda node: deliver(node, origin, tmp_path), swarm.nodes))
    share, requests = server.sent_bytes / SIZE_BYTES, len(server.requests)
    print(f"\n{make.__name__}: {NODES} nodes, {share:.3f} of the model from its origin, {requests} requests")
    assert not any("RelayFailed" in each or "RelayRefuted" in each for each in events)
    assert share <= 1.1


@pytest.mark.parametrize(
    ("place", "more_bytes"),
    [("the same node", 0), ("the same node", -MIB), ("another node", 0), ("another node", MIB)],
)
def test_a_peer_with_other_bytes_under_the_files_name_is_found_out(place, more_bytes, swarm, server, tmp_path):
    origin = plain(server, content(SMALL_BYTES, seed=next(SEEDS)))
    wrong = content(SMALL_BYTES + more_bytes, seed=next(SEEDS))
    url = server.put("/other.bin", wrong)
    name = f"sha256:{hashlib.sha256(origin.files[WEIGHTS]).hexdigest()}"
    assert ask(swarm.nodes[2], url, task_headers(ListedFile(WEIGHTS, SMALL_BYTES, relay=Relay("", name)), url)) == wrong
    assert "RelayRefuted" in deliver(swarm.nodes[2 if place == "the same node" else 3], origin, tmp_path)


def test_a_dfdaemon_that_has_the_file_of_a_mirror_gives_it(swarm, server, tmp_path):
    weights = content(SMALL_BYTES, seed=next(SEEDS))
    deliver(swarm.nodes[4], plain(server, weights), tmp_path / "first")
    with swarm.origin() as mirror:
        again = plain(mirror, weights)
        mirror.resources[f"/{WEIGHTS}"] = replace(mirror.resources[f"/{WEIGHTS}"], etag='"another"')
        deliver(swarm.nodes[4], again, tmp_path / "again")
        assert mirror.sent_bytes < MIB


def test_a_dfdaemon_hands_on_what_lading_does_not_show_it(swarm, server):
    with swarm.origin() as storage:
        kept = plain(storage, content(MIB, seed=next(SEEDS)))
        server.routes["/"] = lambda _: Answer(302, {"Location": kept.uri})
        url, shown = (
            f"{server.url}/{WEIGHTS}",
            {"Authorization": "login", "X-Token": "token", "Proxy-Authorization": "own"},
        )
        headers = [*shown.items(), *task_headers(ListedFile(WEIGHTS, MIB, "v1"), url)]
        assert ask(swarm.nodes[5], url, headers) == kept.files[WEIGHTS]
        assert {request.headers["proxy-authorization"] for request in server.requests} == {"own"}
        assert {request.headers["x-token"] for request in storage.requests} == {"token"}
        assert not [request for request in storage.requests if "authorization" in request.headers]


def test_without_the_scheduler_models_come_all_the_same(pair, tmp_path):
    pair.kill_scheduler()
    with pair.origin() as server:
        deliver(pair.nodes[1], plain(server, content(SMALL_BYTES, seed=next(SEEDS))), tmp_path)


def test_a_dfdaemon_that_is_killed_half_way_is_told_and_the_origin_is_read(pair, tmp_path):
    node = pair.nodes[1]
    with pair.origin() as server, ThreadPoolExecutor(1) as pool:
        server.pace_bytes_s = 8 * MIB
        delivered = pool.submit(deliver, node, plain(server, content(SMALL_BYTES, seed=next(SEEDS))), tmp_path)
        assert server.wait_for_sent(SMALL_BYTES // 2, 60.0)
        node.kill()
        assert "RelayFailed" in delivered.result()
