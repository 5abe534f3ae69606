"""Pauses that origins ask for, and a limit of requests, hold for every process of a node."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from fakes.faulty_http import Answer, FaultyServer, anything, status
from lading.errors import DeadlineExceeded, Unavailable
from lading.model.origin import Origin
from lading.model.uri import ModelURI
from lading.network.client import HttpClient
from lading.network.pace import Pace
from lading.retry import Retry, Run, SystemClock
from lading.settings.limits import Limits, Network
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings
from lading.settings.variables import Variables
from lading.sources.schemes import open_source

HUB = Origin("https", "hub.example", 443)


@pytest.fixture
def process(clock):
    """Make the client of another process; those with the same folder are on one node."""
    with ExitStack() as stack:

        def make(folder: Path | str = "", *, attempts: int = 3, requests_per_s: float = 0.0) -> HttpClient:
            run = Run(threading.Event(), clock)
            client = HttpClient(Network(), Limits(), Retry(run, attempts), pace=Pace(run, requests_per_s, str(folder)))
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def pace(clock, tmp_path) -> Pace:
    """Of a process that has asked for nothing yet."""
    return Pace(Run(threading.Event(), clock), folder=str(tmp_path))


@pytest.fixture
def noted(clock, tmp_path) -> Path:
    """The file of a pause of the hub, as another process has left it."""
    Pace(Run(threading.Event(), clock), folder=str(tmp_path)).pause(HUB, "/", 55.0)
    [path] = tmp_path.iterdir()
    return path


def test_one_process_is_told_to_pause_and_the_others_of_the_node_do(server, process, tmp_path, clock):
    url = server.put("/model.bin", b"weights")
    server.misbehave("/model.bin", status(429, headers={"Retry-After": "55"}, on=anything))
    with pytest.raises(Unavailable, match="429"):
        process(tmp_path, attempts=1).fetch("GET", url)
    with pytest.raises(Unavailable, match="asked for a pause") as caught:
        process(tmp_path, attempts=1).fetch("GET", url)
    assert 50 < caught.value.retry_after_s <= 55
    assert len(server.requests) == 1
    assert process(tmp_path).fetch("GET", url)[1] == b"weights"
    assert 50 < clock.seconds <= 60.5
    assert len(server.requests) == 2


def test_another_node_and_another_origin_are_not_paused(server, process, tmp_path):
    with FaultyServer() as other:
        server.misbehave("/", status(429, headers={"Retry-After": "55"}, on=anything))
        other.put("/", b"there")
        with pytest.raises(Unavailable):
            process(tmp_path, attempts=1).fetch("GET", server.url)
        assert process(tmp_path).fetch("GET", other.url)[1] == b"there"
    server.put("/", b"here")
    assert process().fetch("GET", server.url)[1] == b"here"


def test_a_pause_of_the_api_does_not_hold_up_files(pace):
    pace.pause(HUB, "/api/models/owner/model", 55.0)
    pace.wait(HUB, "/owner/model/resolve/main/config.json")
    with pytest.raises(Unavailable):
        pace.wait(HUB, "/api/models")


@pytest.mark.parametrize("end_s", [-55.0, 305.0, 1e9])
def test_a_file_with_an_end_that_no_origin_can_ask_for_is_ignored(pace, noted, end_s):
    os.utime(noted, (0, time.time() + end_s))
    pace.wait(HUB, "/")


@pytest.mark.parametrize(
    "put",
    [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/proc/self/mem"), lambda path: path.write_bytes(b"\0" * 99)],
    ids=["folder", "fifo", "link", "content"],
)
def test_whatever_is_in_the_place_of_a_file_ends_no_delivery(pace, noted, put):
    noted.unlink()
    put(noted)
    os.utime(noted, (0, 0), follow_symlinks=False)
    pace.wait(HUB, "/")
    pace.pause(HUB, "/", 7.0)
    with pytest.raises(Unavailable):
        pace.wait(HUB, "/")


def test_without_a_folder_that_can_be_written_a_process_keeps_its_own_pauses(clock, tmp_path):
    pace = Pace(Run(threading.Event(), clock), folder=str(tmp_path / "missing"))
    pace.pause(HUB, "/", 7.0)
    with pytest.raises(Unavailable):
        pace.wait(HUB, "/")
    clock.seconds = 7.1
    pace.wait(HUB, "/")
    assert not list(tmp_path.iterdir())


def test_a_limit_of_requests_holds_after_the_first_second(server, process, clock):
    server.routes["/"] = lambda request: Answer(200)
    client = process(requests_per_s=10.0)
    for _ in range(10):
        client.fetch("GET", server.url)
    assert clock.seconds == 0
    for _ in range(20):
        client.fetch("GET", server.url)
    assert clock.seconds == pytest.approx(2.0)


_SENDS = """
import sys, threading, time
from lading.model.origin import Origin
from lading.network.pace import Pace
from lading.retry import Run

pace = Pace(Run(threading.Event()), 100.0, sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
for _ in range(60):
    pace.wait(Origin("https", "hub.example", 443), "/")
print(time.monotonic())
"""


def test_the_processes_of_a_node_send_no_more_than_one_of_them_may(tmp_path):
    command = [sys.executable, "-c", _SENDS, str(tmp_path)]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(3)
        ]
        assert all(process.stdout.readline() for process in processes)
        began_s = time.monotonic()
        for process in processes:
            process.stdin.close()
        ended_s = max(float(process.stdout.read()) for process in processes)
    # 180 requests, of which 100 may be sent at once.  Little less if a process was held up while it held the lock.
    assert ended_s - began_s > 0.7


def test_a_request_waits_for_those_of_another_process_to_the_same_origin(clock, tmp_path):
    run = Run(threading.Event(), clock)
    one, other = Pace(run, 0.01, str(tmp_path)), Pace(run, 0.01, str(tmp_path))
    one.wait(HUB, "/")
    other.wait(HUB._replace(port=444), "/")
    assert clock.seconds == 0
    other.wait(HUB, "/api/models")
    assert 90 < clock.seconds <= 100


@pytest.mark.parametrize(
    "put",
    [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("/proc/self/mem"),
        lambda path: path.write_bytes(b"\0" * 99),
        lambda path: (path.touch(), os.utime(path, (0, time.time() + 3600))),
        lambda path: (path.touch(), os.utime(path, ns=(0, (1 << 63) - 1))),
        lambda path: (path.touch(), os.utime(path, (0, -3600))),
        lambda path: path.parent.rmdir(),
    ],
    ids=["folder", "fifo", "link", "content", "in an hour", "at the end of time", "before 1970", "no place"],
)
def test_whatever_is_in_the_place_of_a_count_limits_nobody_more(clock, tmp_path, put):
    (tmp_path / "pauses").mkdir()
    pace = Pace(Run(threading.Event(), clock), 10.0, str(tmp_path / "pauses"))
    pace.wait(HUB, "/")
    [path] = (tmp_path / "pauses").iterdir()
    path.unlink()
    put(path)
    for _ in range(9):
        pace.wait(HUB, "/")
    assert clock.seconds == 0
    for _ in range(20):
        pace.wait(HUB, "/")
    assert clock.seconds >= 2.0


def test_whoever_holds_a_count_delays_nobody_for_long(clock, tmp_path):
    pace = Pace(Run(threading.Event(), clock), 10.0, str(tmp_path))
    pace.wait(HUB, "/")
    [path] = tmp_path.iterdir()
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        pace.wait(HUB, "/")
    assert 0 < clock.seconds < 0.1


def test_whoever_cannot_send_a_request_before_the_deadline_fails_at_once(clock):
    pace = Pace(Run(threading.Event(), clock, deadline_s=50.0), 0.01)
    pace.wait(HUB, "/")
    with pytest.raises(DeadlineExceeded, match=r"before the next request to https://hub\.example"):
        pace.wait(HUB, "/")
    assert clock.seconds == 0


def test_a_wait_that_no_clock_can_count_is_as_long_as_it_can_be():
    stop = threading.Event()
    stop.set()
    assert SystemClock().wait(stop, float("inf"))


@pytest.mark.parametrize(("locks", "counts"), [(True, 1), (False, 0)])
def test_deliveries_that_share_a_store_count_where_locks_can_be_trusted(server, pull, tmp_path, locks, counts):
    uri = server.put("/model.bin", b"weights")
    store = StoreSettings(path=str(tmp_path / "store"), high="100%", low="100%", locks=locks)
    pull(uri, tmp_path / "model", store=store, limits=Limits(requests_per_s=1000.0))
    assert len(list((tmp_path / "store" / "pauses").glob("*.requests"))) == counts


def test_a_registry_that_asked_for_a_pause_is_not_asked_without_tls(process, tmp_path, clock):
    """KSERVE_OCI_INSECURE_REGISTRY asks http where there is no https: a pause says nothing of that."""
    Pace(Run(threading.Event(), clock), folder=str(tmp_path)).pause(HUB, "/v2/", 55.0)
    variables = Variables({"KSERVE_OCI_INSECURE_REGISTRY": "true"})
    uri = ModelURI.parse(f"oci://{HUB.host}/m:1")
    source = open_source(uri, Settings(variables=variables), process(tmp_path, attempts=1))
    with pytest.raises(Unavailable, match=r"https://hub\.example asked for a pause"):
        source.list()
