"""Processes that are killed, stopped, or meet another one: what they leave, and how the next one goes on."""

import signal
import socket
import subprocess
import threading
from contextlib import ExitStack, suppress
from functools import partial
from random import Random

import pytest

from fakes.fake_s3 import S3Object
from fakes.faulty_http import ALWAYS, anything, reads, redirect, stall, status
from fakes.trees import MIB, content
from lading.text.units import size

# Larger than one range, and many that are smaller: both kinds are in the air when the process dies.
FILES = {"weights.bin": content(34 * MIB)} | {
    f"shards/{number:03}.bin": content(200 * 1024, seed=number) for number in range(200)
}
OBJECTS = {f"model/{path}": S3Object(data) for path, data in FILES.items()}
TOTAL_BYTES = sum(map(len, FILES.values()))
# So slow that the journal is written several times on the way, and no slower.
PACE_BYTES_S = 80 * MIB
KINDS = ("absent", "older-model")
# Three ranges: all of them under way when the process dies.
LARGE = content(96 * MIB)
NOTE_BYTES = 4 * MIB
PIECE_BYTES = MIB


@pytest.fixture
def uri(bucket):
    bucket.objects |= OBJECTS
    return "s3://models/model"


@pytest.fixture
def env(server) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": server.url, "awsAnonymousCredential": "true"}


class Hold:
    """Holds back what is left of objects after so many bytes; ``reached`` is set then, ``release`` ends it."""

    def __init__(self, server, after: int) -> None:
        self.reached, self._released = threading.Event(), threading.Event()
        self._after = after
        server.on_sent = self._count

    def _count(self, request, total: int) -> None:
        if total >= self._after and not request.query:
            self.reached.set()
            self._released.wait(60)

    def release(self) -> None:
        self._released.set()


def _kill(process, moment: int, _, total: int) -> None:
    if total >= moment:
        process.kill()


@pytest.mark.parametrize(
    ("new_destination", "seed"), [(KINDS[seed % 2], seed) for seed in range(20)], indirect=["new_destination"]
)
def test_a_killed_process_leaves_nothing_partial_and_the_next_fetches_the_rest(
    server, uri, env, destination, processes, seed
):
    moment = Random(seed).randrange(TOTAL_BYTES)
    server.pace_bytes_s = PACE_BYTES_S
    process = processes.start("pull", uri, destination.path, env=env)
    server.on_sent = partial(_kill, process, moment)
    assert process.wait(timeout=60) == -signal.SIGKILL
    destination.assert_nothing_partial(FILES)
    received = destination.received_bytes()
    assert server.wait_until_alone(30)
    server.behave()
    assert processes.run("pull", uri, destination.path, env=env).returncode == 0
    destination.assert_holds(FILES)
    assert server.asked_bytes == TOTAL_BYTES - received, sorted(
        (request.method, request.path, request.headers.get("range", "")) for request in server.requests
    )


def test_a_process_killed_again_and_again_arrives_at_the_end(server, uri, env, destination, processes):
    random = Random(0)
    received = 0
    server.pace_bytes_s = PACE_BYTES_S
    while True:
        assert server.wait_until_alone(30)
        server.asked_bytes = 0
        process = processes.start("pull", uri, destination.path, env=env)
        moment = server.sent_bytes + random.randrange(30 * MIB, 60 * MIB)
        server.on_sent = partial(_kill, process, moment)
        if process.wait(timeout=60) == 0:
            break
        destination.assert_nothing_partial(FILES)
        # What has landed is never lost again.
        assert destination.received_bytes() >= received
        received = destination.received_bytes()
    destination.assert_holds(FILES)
    assert server.asked_bytes == TOTAL_BYTES - received
    assert received > 0


def _landed_at_least(destination, size_bytes: int, process) -> bool:
    """Wait until the journal promises so much."""
    for _ in range(600):
        if destination.received_bytes() >= size_bytes:
            return True
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)
            return False
    return False


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM], ids=lambda stop: stop.name)
@pytest.mark.parametrize(
    ("new_destination", "seed", "rate"),
    [("absent", 0, "0"), ("older-model", 1, "0"), ("absent", 2, "200MiB")],
    indirect=["new_destination"],
)
def test_what_has_landed_of_ranges_that_are_under_way_is_not_fetched_again(
    server, destination, processes, seed, stop, rate
):
    uri, workers = server.put("/weights.bin", LARGE), 3
    hold = Hold(server, after=Random(seed).randrange(24 * MIB, len(LARGE)))
    command = ("pull", uri, destination.path, "--max-rate", rate)
    process = processes.start(*command, env={"S3_MAX_FILE_CONCURRENCY": str(workers)})
    assert hold.reached.wait(30)
    # Of each range, what is not noted yet and a piece that is not whole yet.
    sent = server.sent_bytes
    assert _landed_at_least(destination, sent - workers * (NOTE_BYTES + PIECE_BYTES), process)
    process.send_signal(stop)
    process.wait(timeout=5)
    hold.release()
    assert server.wait_until_alone(30)
    destination.assert_untouched()
    received = destination.received_bytes()
    if stop == signal.SIGTERM:
        # Everything that is in the stage, but for where the last block of a range is not full.
        staged = (destination.path / ".lading" / "stage" / "weights.bin").read_bytes()
        written = sum(4096 for at in range(0, len(staged), 4096) if any(staged[at : at + 4096]))
        assert received > written - workers * 4096
    assert server.wait_until_alone(30)
    server.behave()
    again = processes.start(*command)
    assert f"resumed: {size(received)} had been received already" in again.communicate(timeout=60)[1]
    destination.assert_holds({"weights.bin": LARGE})
    assert server.asked_bytes == len(LARGE) - received


def test_sigterm_ends_a_transfer_within_five_seconds_and_the_next_run_resumes(server, uri, env, destination, processes):
    hold = Hold(server, after=60 * MIB)
    process = processes.start("pull", uri, destination.path, env=env)
    assert hold.reached.wait(30)
    process.terminate()
    assert process.wait(timeout=5) == 143
    hold.release()
    assert server.wait_until_alone(30)
    destination.assert_untouched()
    received = destination.received_bytes()
    assert received > 0
    server.behave()
    assert processes.run("pull", uri, destination.path, env=env).returncode == 0
    destination.assert_holds(FILES)
    assert server.asked_bytes == TOTAL_BYTES - received


@pytest.mark.parametrize(
    "fault",
    [
        stall(0, times=ALWAYS, on=anything),
        status(503, headers={"Retry-After": "200"}, times=ALWAYS, on=anything),
    ],
    ids=["stalled", "waiting-to-try-again"],
)
@pytest.mark.parametrize("path", ["/models/", "/models/model/weights.bin"], ids=["listing", "reading"])
def test_sigterm_ends_whatever_is_waited_for(server, bucket, env, destination, processes, fault, path):
    uri = "s3://models/model"
    bucket.put("model/weights.bin", b"weights")
    server.misbehave(path, fault)
    process = processes.start("pull", uri, destination.path, env=env)
    assert server.wait_for_request(path, timeout_s=30)
    process.terminate()
    assert process.wait(timeout=5) == 143
    destination.assert_untouched()


def test_sigterm_ends_many_connections_that_are_being_made(server, destination, processes):
    uri = server.put("/weights.bin", bytes(300 * MIB))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, ExitStack() as stack:
        # Nobody accepts, and the queue is full: whoever connects now waits.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        server.misbehave("/weights.bin", redirect(f"http://127.0.0.1:{deaf.getsockname()[1]}/", on=reads))
        process = processes.start("pull", uri, destination.path, env={"S3_MAX_FILE_CONCURRENCY": "8"})
        assert server.wait_for_request("/weights.bin", timeout_s=30, count=9)
        process.terminate()
        assert process.wait(timeout=5) == 143
    destination.assert_untouched()


def test_a_second_process_waits_and_then_finds_it_done(server, uri, env, destination, processes):
    hold = Hold(server, after=10 * MIB)
    first = processes.start("pull", uri, destination.path, env=env)
    assert hold.reached.wait(30)
    second = processes.start("pull", uri, destination.path, env=env)
    assert any("waiting: another process" in line for line in second.stderr)
    destination.assert_untouched()
    hold.release()
    assert first.wait(timeout=60) == 0
    _, rest = second.communicate(timeout=60)
    assert second.returncode == 0
    assert "already holds the model" in rest
    destination.assert_holds(FILES)
    assert server.asked_bytes == TOTAL_BYTES


def test_a_second_process_takes_over_from_one_that_is_killed(server, uri, env, destination, processes):
    hold = Hold(server, after=40 * MIB)
    first = processes.start("pull", uri, destination.path, env=env)
    assert hold.reached.wait(30)
    second = processes.start("pull", uri, destination.path, env=env)
    assert any("waiting: another process" in line for line in second.stderr)
    first.kill()
    hold.release()
    assert second.wait(timeout=60) == 0
    destination.assert_holds(FILES)


def test_sigterm_ends_a_process_that_waits_for_another(server, uri, env, destination, processes):
    hold = Hold(server, after=10 * MIB)
    first = processes.start("pull", uri, destination.path, env=env)
    assert hold.reached.wait(30)
    second = processes.start("pull", uri, destination.path, env=env)
    assert any("waiting: another process" in line for line in second.stderr)
    second.terminate()
    assert second.wait(timeout=5) == 143
    hold.release()
    assert first.wait(timeout=60) == 0
    destination.assert_holds(FILES)


def test_strays_of_an_earlier_attempt_are_gone(uri, anonymous, destination, pull):
    stray = destination.path / ".lading" / "stage" / "stray.bin"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"stray")
    (destination.path / ".lading" / "journal.next").write_text("torn")
    pull(uri, destination.path, **anonymous)
    destination.assert_holds(FILES)
