"""An image's layers, and processes that die while they land and are unpacked."""

import signal
from functools import partial
from random import Random

import pytest

from fakes.fake_oci import FakeRegistry, gzipped, tar
from fakes.trees import MIB, content

ENV = {"KSERVE_OCI_INSECURE_REGISTRY": "true"}
PACE_BYTES_S = 40 * MIB
KINDS = ("absent", "older-model")
FILES = {f"weights/{number}.bin": content((1 + number) * MIB, seed=number) for number in range(7)}
LAYERS = [
    gzipped(tar((f"models/{path}", data), ("models/gone", b""), ("models/last", path.encode())))
    for path, data in FILES.items()
] + [gzipped(tar(("models/.wh.gone", b"")))]
TREE = FILES | {"last": list(FILES)[-1].encode()}


@pytest.fixture
def uri(server):
    registry = FakeRegistry(server)
    registry.put_image(*LAYERS, ending="+gzip")
    return registry.uri()


def _kill(process, moment: int, _, total: int) -> None:
    if total >= moment:
        process.kill()


@pytest.mark.parametrize(
    ("new_destination", "seed"), [(KINDS[seed % 2], seed) for seed in range(8)], indirect=["new_destination"]
)
def test_a_process_killed_among_layers_leaves_nothing_partial_and_the_next_delivers(
    server, uri, destination, processes, seed
):
    moment = Random(seed).randrange(sum(map(len, LAYERS)))
    server.pace_bytes_s = PACE_BYTES_S
    process = processes.start("pull", uri, destination.path, env=ENV)
    server.on_sent = partial(_kill, process, moment)
    assert process.wait(timeout=60) == -signal.SIGKILL, process.stderr.read()
    destination.assert_untouched()
    assert server.wait_until_alone(30)
    server.behave()
    assert processes.run("pull", uri, destination.path, env=ENV).returncode == 0
    destination.assert_holds(TREE)


def test_sigterm_ends_a_reader_that_waits_for_its_layer(server, uri, destination, processes):
    # Nothing more comes of any layer, so that the reader waits.
    server.on_sent = lambda request, total: server.closing.wait(10) if total > 5 * MIB else None
    process = processes.start("pull", uri, destination.path, env=ENV)
    while server.sent_bytes < 5 * MIB:
        assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=5) == 143
    destination.assert_untouched()
