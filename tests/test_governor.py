"""Bounds from the cgroup, which here is a folder of the test's own."""

import os
from pathlib import Path

import pytest

from lading.transfer.governor import SPAN_BYTES, cpu_limit, govern, memory_limit_bytes

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
        (None, 4, 4, 4),
        (None, 1000, 32, 32),
        (None, 1, 2, 2),
        (1024, 32, 32, 32),
        # KServe's request and smallest common limit.
        (100, 32, 2, 32),
        (48, 32, 2, 31),
        (41, 32, 2, 2),
        (8, 32, 2, 2),
        (0, 0, 2, 2),
    ],
)
def test_workers_fit_into_the_memory(
    tmp_path: Path, memory_mib: int | None, wanted: int, least: int, most: int
) -> None:
    files = {} if memory_mib is None else {"memory.max": str(memory_mib * MIB)}
    governor = govern(wanted, cgroup(tmp_path, files))
    assert least <= governor.workers <= most
    assert governor.span_bytes == SPAN_BYTES


def test_half_a_cpu_gives_fewer_workers_than_all_of_them(tmp_path: Path) -> None:
    few = govern(0, cgroup(tmp_path / "few", {"cpu.max": "50000 100000"})).workers
    assert 2 <= few < govern(0, tmp_path / "none").workers <= 32


def test_the_cgroup_of_this_very_machine_gives_sensible_bounds() -> None:
    assert 2 <= govern(0).workers <= 32
