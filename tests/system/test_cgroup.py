"""Bounds from the cgroup, which here is a folder of the test's own."""

import os
import resource
from pathlib import Path

import pytest

from lading.system.cgroup import (
    RANGE_BYTES,
    Bounds,
    bounds,
    cpu_limit,
    memory_limit_bytes,
    spare_threads,
    thread_limits,
)
from lading.transfer.concurrency import Governor

MIB = 1 << 20
CPUS = len(os.sched_getaffinity(0))


def cgroup(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"memory.max": "104857600\n"}, 100 * MIB),
        ({"memory.max": "max\n"}, None),
        ({"memory.max": ""}, None),
        ({"memory.max": "garbage"}, None),
        ({"memory.max": "-1"}, None),
        ({"memory/memory.limit_in_bytes": "1073741824\n"}, 1024 * MIB),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({"memory.max": "max", "memory/memory.limit_in_bytes": "1048576"}, MIB),
    ],
)
def test_the_memory_limit_is_read_from_both_versions(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    assert memory_limit_bytes(cgroup(tmp_path, files)) == limit


def test_the_least_limit_of_ones_own_group_and_those_above_counts(tmp_path: Path) -> None:
    own = tmp_path / "own"
    root = cgroup(tmp_path / "root", {"memory.max": "max", "pods/memory.max": "1000", "pods/a/memory.max": "2000"})
    cgroup(root, {"pods/a/cpu.max": "max 100000", "pods/cpu.max": "50000 100000", "other/memory.max": "1"})
    own.write_text("0::/pods/a\n")
    assert memory_limit_bytes(root, own) == 1000
    assert cpu_limit(root, own) == 0.5
    own.write_text("4:memory:/pod\n3:cpu,cpuacct:/pod\n0::/../../etc\n")
    cgroup(root, {"memory/pod/memory.limit_in_bytes": "3000", "cpu/pod/cpu.cfs_quota_us": "25000"})
    cgroup(root, {"cpu/pod/cpu.cfs_period_us": "100000"})
    assert memory_limit_bytes(root, own) == 3000
    assert cpu_limit(root, own) == 0.25


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, CPUS),
        ({"cpu.max": "max 100000\n"}, CPUS),
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"cpu.max": "100000 100000"}, 1.0),
        ({"cpu.max": "99999900000 100000"}, CPUS),
        ({"cpu.max": "50000"}, CPUS),
        ({"cpu.max": "50000 0"}, CPUS),
        ({"cpu/cpu.cfs_quota_us": "25000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.25),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, CPUS),
    ],
)
def test_the_cpu_limit_is_the_quota_or_the_affinity(tmp_path: Path, files: dict[str, str], cpus: float) -> None:
    assert cpu_limit(cgroup(tmp_path, files)) == cpus


@pytest.mark.parametrize(
    ("memory_mib", "wanted", "least", "most"),
    [
        (None, 0, 128, 128),
        (None, 4, 4, 4),
        (None, 1000, 128, 128),
        (None, 1, 1, 1),
        (1024, 0, 128, 128),
        # KServe's request and smallest common limit.
        (100, 0, 32, 128),
        (64, 0, 16, 64),
        (41, 0, 2, 3),
        (8, 0, 2, 2),
        (0, 32, 2, 2),
    ],
)
def test_workers_and_buffers_fit_into_the_memory(
    tmp_path: Path, memory_mib: int | None, wanted: int, least: int, most: int
) -> None:
    files = {} if memory_mib is None else {"memory.max": str(memory_mib * MIB)}
    found = bounds(wanted, cgroup(tmp_path, files))
    assert least <= found.most_workers <= most
    assert 1 <= found.first_workers <= found.most_workers
    assert found.range_bytes == RANGE_BYTES
    if memory_mib:
        assert found.buffer_bytes <= memory_mib * MIB // 2


def test_several_at_a_time_share_the_memory(tmp_path: Path) -> None:
    root = cgroup(tmp_path, {"memory.max": str(100 * MIB)})
    alone, beside = bounds(0, root), bounds(0, root, sessions=3)
    assert 3 * beside.buffer_bytes <= (100 - 40) * MIB // 2
    assert 3 * beside.most_workers <= alone.most_workers * 2
    assert beside.most_workers < alone.most_workers or alone.most_workers == 128


@pytest.mark.parametrize(
    ("files", "spare"),
    [
        ({}, None),
        ({"pids.max": "max\n"}, None),
        ({"pids.max": "garbage"}, None),
        ({"pids.max": "20\n", "pids.current": "5\n"}, 15),
        ({"pids.max": "20"}, 20),
        ({"pids.max": "5", "pids.current": "9"}, 0),
        ({"pids/pids.max": "12", "pids/pids.current": "2"}, 10),
        ({"pids/pids.max": "max", "pids.max": "4", "pids.current": "1"}, 3),
        ({"pods/pids.max": "10", "pods/pids.current": "8", "pods/a/pids.max": "9", "pods/a/pids.current": "1"}, 2),
        ({"pods/a/pids.max": "max", "other/pids.max": "1"}, None),
        ({"pids/v1/pids.max": "7", "pids/v1/pids.current": "1", "pids/pids.max": "max"}, 6),
    ],
)
def test_the_threads_that_may_still_be_started_are_read_from_both_versions(
    tmp_path: Path, files: dict[str, str], spare: int | None
) -> None:
    own = tmp_path / "own"
    own.write_text("8:pids:/v1\n0::/pods/a\n")
    assert spare_threads(cgroup(tmp_path / "root", files), own) == spare


@pytest.mark.parametrize(("spare", "sessions", "most"), [(1000, 1, 128), (20, 1, 10), (20, 5, 2), (3, 1, 2), (0, 1, 2)])
def test_workers_take_half_of_the_threads(tmp_path: Path, spare: int, sessions: int, most: int) -> None:
    root = cgroup(tmp_path, {"pids.max": str(spare + 7), "pids.current": "7"})
    assert bounds(0, root, sessions=sessions).most_workers == most


@pytest.mark.parametrize(
    ("files", "sessions", "most"), [(1024, 1, 128), (64, 1, 16), (64, 4, 4), (20, 1, 2), (8, 1, 2)]
)
def test_workers_fit_into_the_limit_of_open_files(tmp_path: Path, files: int, sessions: int, most: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        found = bounds(0, tmp_path, sessions=sessions).most_workers
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == most


def test_the_limits_of_threads_are_named(tmp_path: Path) -> None:
    said = thread_limits(cgroup(tmp_path, {"pids.max": "20"}), tmp_path / "own")
    assert "pids.max of the cgroup is 20" in said
    assert "podPidsLimit" in said


def test_half_a_cpu_begins_with_fewer_workers_than_all_of_them(tmp_path: Path) -> None:
    few = bounds(0, cgroup(tmp_path / "few", {"cpu.max": "50000 100000"})).first_workers
    assert 2 <= few < bounds(0, tmp_path / "none").first_workers


def test_the_cgroup_of_this_very_machine_gives_sensible_bounds() -> None:
    assert 2 <= bounds(0).first_workers <= bounds(0).most_workers <= 128


class Origin:
    """An origin of so many ms and so many MB/s, on a machine whose CPU moves so many; time is its own."""

    def __init__(self, latency_s: float, origin_mb_s: float, cpu_mb_s: float, file_bytes: int) -> None:
        self.latency_s, self.origin, self.cpu, self.file = latency_s, origin_mb_s * 1e6, cpu_mb_s * 1e6, file_bytes
        self.now_s = self.cpu_s = 0.0
        self.work = 0

    def run(self, governor: Governor, seconds: float) -> list[int]:
        limits = []
        for _ in range(round(seconds / 0.1)):
            per_worker = self.file / (self.latency_s + self.file / self.cpu)
            rate = min(governor.limit * per_worker, self.origin, self.cpu)
            self.now_s += 0.1
            self.cpu_s += 0.1 * rate / self.cpu
            self.work += round(rate * 0.1)
            governor.observe(self.now_s, self.cpu_s, self.work)
            limits.append(governor.limit)
        return limits


ONE_CPU = Bounds(most_workers=128, first_workers=4, cpus=1.0)


def test_on_ones_own_machine_the_first_workers_are_enough() -> None:
    near = Origin(latency_s=0.0, origin_mb_s=1e6, cpu_mb_s=1500, file_bytes=32 * MIB)
    assert set(near.run(Governor(ONE_CPU, 0.0), 10)) == {4}


def test_small_files_far_away_get_a_hundred_workers_within_a_second() -> None:
    far = Origin(latency_s=0.03, origin_mb_s=1e6, cpu_mb_s=1000, file_bytes=80 * 1024)
    assert far.run(Governor(ONE_CPU, 0.0), 1)[-1] == 128


def test_more_workers_than_the_origin_can_feed_are_given_up() -> None:
    slow = Origin(latency_s=0.03, origin_mb_s=50, cpu_mb_s=1000, file_bytes=1 << 20)
    limits = slow.run(Governor(ONE_CPU, 0.0), 30)
    assert max(limits[20:]) <= 8
    assert limits[-1] >= 4


def test_trouble_halves_once_for_all_who_met_it_and_is_remembered() -> None:
    governor = Governor(ONE_CPU._replace(first_workers=64), 0.0)
    for _ in range(64):
        governor.trouble(1.0)
    assert governor.limit == 32
    far = Origin(latency_s=0.03, origin_mb_s=1e6, cpu_mb_s=1000, file_bytes=80 * 1024)
    far.now_s = 1.0
    assert set(far.run(governor, 4)) == {32}
    assert far.run(governor, 3)[-1] == 128


def test_no_more_workers_are_wanted_than_there_are_threads_for() -> None:
    governor = Governor(ONE_CPU, 0.0)
    governor.cap(3, 0.0)
    far = Origin(latency_s=0.03, origin_mb_s=1e6, cpu_mb_s=1000, file_bytes=80 * 1024)
    assert max(far.run(governor, 60)) == 3
    governor.trouble(far.now_s)
    assert governor.limit == 2


def test_trouble_without_end_leaves_two_workers() -> None:
    governor = Governor(ONE_CPU, 0.0)
    for second in range(20):
        governor.trouble(float(second))
    assert governor.limit == 2
