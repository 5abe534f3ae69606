"""Simulated nodes on the real scheduler do what real ones do (test_swarm.py): the same requests for the same model."""

from pathlib import Path

import pytest

from dragonfly.simulate import build, simulate
from fakes.trees import MIB

NODES = 10
PIECES = 24
SIZE_BYTES = PIECES * 4 * MIB


# Before a test has a home of its own, where Go would look in vain for what it has compiled.
@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("simulation"))


def test_ten_simulated_nodes_read_a_model_from_its_origin_once(program, tmp_path):
    # Without a seed peer, for which the scheduler looks only every 30 s.
    report = simulate(program, tmp_path, NODES, file_bytes=SIZE_BYTES, within_s=1.0, seeds=0)
    origin = report["origin"]
    assert report["nodes_with_model"] == NODES
    assert sum(origin["bytes"].values()) == SIZE_BYTES
    assert sum(origin["requests_for_pieces"].values()) + origin["requests_for_size"] == PIECES + NODES
