"""What a delivery costs, in numbers that do not depend on the machine: requests, system calls, memory.

Times are for ``benchmarks/``; these guard what the times come from.
"""

import collections
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import MEASURED
from fakes.certificates import Authority
from fakes.fake_s3 import FakeS3, S3Object
from fakes.faulty_http import FaultyServer
from fakes.oms_signer import Signer
from fakes.real_s3 import s3_anonymous
from fakes.trees import MIB, content
from lading.settings.limits import Limits
from lading.settings.trust import TrustRule
from lading.trust.public_key import read_public_keys

CGROUP = Path("/sys/fs/cgroup")
LARGE = content(96 * MIB)
SMALL = S3Object(b"small")
# For a mebibyte, by LADING_TLS: encrypted bytes come in smaller pieces.
RECEIVES = {"": 1, "openssl": 8, "rustls": 4}


@pytest.fixture
def s3(server) -> dict[str, object]:
    return s3_anonymous(server.url)


@pytest.fixture(params=["plain HTTP", "openssl", "rustls"])
def wire(request, tmp_path, monkeypatch) -> Iterator[FaultyServer]:
    """A server, over plain HTTP and over TLS by each of the two that speak it; ``run`` reaches it so."""
    if request.param == "plain HTTP":
        with FaultyServer() as server:
            yield server
        return
    if request.param == "rustls":
        pytest.importorskip("lading_native", reason="lading-native is not installed (make native)")
    authority = Authority(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", authority.bundle)
    monkeypatch.setenv("LADING_TLS", request.param)
    with FaultyServer(authority.server_context("localhost"), "localhost") as server:
        yield server


def methods(server) -> dict[str, int]:
    return dict(collections.Counter(request.method for request in server.requests))


# A process of its own between pytest and what is measured: the peak of a child counts what its
# parent held when it forked.
MEASURE = """
import os, resource, sys
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
"""


def run(server, *arguments: object, before: tuple[str, ...] = ()) -> tuple[int, int]:
    """A delivery as a process of its own: its exit code, and its peak memory in bytes."""
    command = [*before, sys.executable, "-m", "lading", *map(str, arguments)]
    # To measure coverage costs more than a delivery.
    environment = {name: text for name, text in os.environ.items() if name not in MEASURED}
    environment |= {"AWS_ENDPOINT_URL": server.url, "awsAnonymousCredential": "true"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], env=environment, capture_output=True, text=True, check=True
    )
    code, peak = done.stdout.split()[-2:]
    return int(code), int(peak)


def test_a_small_file_is_one_request_and_the_listing_another(server, bucket, pull, s3, tmp_path):
    for number in range(300):
        bucket.put(f"model/{number:03}", b"small")
    pull("s3://models/model", tmp_path / "model", **s3)
    assert methods(server) == {"GET": 301}


def test_a_large_file_is_one_request_a_range_and_one_for_its_digest(server, bucket, pull, s3, tmp_path):
    bucket.put("model/weights", LARGE)
    pull("s3://models/model", tmp_path / "model", **s3)
    assert methods(server) == {"GET": 1 + 3, "HEAD": 1}


def test_a_delivery_that_is_there_already_costs_the_listing_only(server, bucket, pull, s3, tmp_path):
    for number in range(300):
        bucket.put(f"model/{number:03}", b"small")
    pull("s3://models/model", tmp_path / "model", **s3)
    server.behave()
    pull("s3://models/model", tmp_path / "model", **s3)
    assert methods(server) == {"GET": 1}


def test_an_http_file_is_one_byte_to_ask_and_one_request_a_span(server, pull, tmp_path):
    pull(server.put("/weights.bin", LARGE), tmp_path / "model")
    assert methods(server) == {"GET": 1 + 3}


def test_connections_are_kept_and_no_more_than_workers(server, bucket, pull, s3, tmp_path):
    for number in range(500):
        bucket.put(f"model/{number:03}", b"small")
    pull("s3://models/model", tmp_path / "model", limits=Limits(workers=4), **s3)
    # One for the listing; it goes on as a worker's.
    assert server.connections_made <= 4


def test_a_mebibyte_costs_few_system_calls(wire, tmp_path):
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    FakeS3(wire).put("model/weights", LARGE)
    counts = tmp_path / "counts"
    code, _ = run(
        wire, "pull", "s3://models/model", tmp_path / "model", before=(strace, "-f", "-c", "-U", "name,calls", "-o", str(counts))
    )  # fmt: skip
    if code and "attach" in counts.read_text(errors="replace"):
        pytest.skip("this machine does not let one process trace another")
    assert code == 0
    calls = {
        line.split()[0]: int(line.split()[1])
        for line in counts.read_text().splitlines()
        if line.split()[1:2] and line.split()[1].isdigit()
    }
    mebibytes = len(LARGE) // MIB
    # A write each, and its receives; and some more where the server is slower than the client.
    assert calls["pwrite64"] <= 1.5 * mebibytes
    assert calls["recvfrom"] <= (RECEIVES[os.environ.get("LADING_TLS", "")] + 1) * mebibytes
    # The journal has a line for every 4 MiB; messages and the manifest are some more.
    assert calls["write"] <= mebibytes // 4 + 10
    assert calls.get("poll", 0) + calls.get("select", 0) <= 20


def test_a_range_is_moved_without_allocating_for_its_bytes(server, bucket, pull, s3, tmp_path):
    bucket.put("model/weights", LARGE)
    pull("s3://models/model", tmp_path / "first", **s3)
    tracemalloc.start()
    try:
        pull("s3://models/model", tmp_path / "model", limits=Limits(workers=2), **s3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Two buffers for two connections; the server, in this process too, slices what it sends.
    assert peak < 8 * MIB


def test_memory_does_not_follow_the_size_of_the_model(wire, tmp_path):
    bucket = FakeS3(wire)
    bucket.put("small/weights", LARGE[: 8 * MIB])
    for number in range(6):
        bucket.put(f"large/{number}", LARGE)
    assert run(wire, "pull", "s3://models/small", tmp_path / "small")[0] == 0
    code, peak = run(wire, "pull", "s3://models/large", tmp_path / "large")
    assert code == 0
    # 64 MiB above the interpreter, which takes about 12.
    assert peak < 76 * MIB


def test_a_hundred_thousand_objects_are_listed_in_bounded_memory(server, bucket, tmp_path):
    for number in range(100_000):
        bucket.objects[f"swarm/{number % 100:02}/{number:06}"] = SMALL
    bucket.page_keys = 25_000
    code, peak = run(server, "resolve", "s3://models/swarm")
    assert code == 0
    assert peak < 150 * MIB


def test_sixty_four_mebibytes_of_memory_are_enough(wire, tmp_path):
    group = CGROUP / "memory" / "lading-test" if (CGROUP / "memory").is_dir() else CGROUP / "lading-test"
    limit = "memory.limit_in_bytes" if (CGROUP / "memory").is_dir() else "memory.max"
    try:
        group.mkdir(exist_ok=True)
        (group / limit).write_text(str(64 * MIB))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error.strerror}")
    try:
        bucket = FakeS3(wire)
        for number in range(6):
            bucket.put(f"large/{number}", LARGE)
        for number in range(500):
            bucket.put(f"large/small/{number:03}", b"small")
        enter = ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
        assert run(wire, "pull", "s3://models/large", tmp_path / "large", before=enter)[0] == 0
        assert run(wire, "verify", tmp_path / "large")[0] == 0
    finally:
        group.rmdir()


def test_a_rule_of_trust_costs_no_request(server, s3, pull, tmp_path):
    """The signature is read before the weights, and not once more with them."""
    signer, bucket = Signer(), FakeS3(server)
    files = {f"part-{number}.bin": content(1000, number) for number in range(20)}
    for path, data in (files | {"model.sig": signer.sign(files)}).items():
        bucket.put(f"model/{path}", data)
    asked = []
    for name, trust in (("plain", ()), ("trusted", (TrustRule(None, read_public_keys(signer.public_pem)),))):
        server.requests.clear()
        pull("s3://models/model", tmp_path / name, trust=trust, **s3)
        asked.append(methods(server))
    assert asked[0] == asked[1] == {"GET": 22}
