"""Memory, CPU, threads and open files that this process may use, and the bounds that follow from them."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BUFFER_BYTES = 24 << 20
RANGE_BYTES = 32 << 20
# Memory of the interpreter, the modules and a listing. Measured in docs/adr/0003.
_RESERVED_BYTES = 40 << 20
# Memory of a worker: the used part of its thread's stack, a small buffer, TLS state.
_WORKER_BYTES = 192 << 10
# Of the process: standard streams, the lock, the journal, the endpoint.  Of a worker: the file that it writes and its
# connection.
_RESERVED_FILES = 16
_WORKER_FILES = 3
_MOST_WORKERS = 128
FEWEST_WORKERS = 2
_FIRST_WORKERS_PER_CPU = 4
_OWN_CGROUP = Path("/proc/self/cgroup")


class Bounds(NamedTuple):
    """Bounds of a transfer on this machine or container.  ``buffer_bytes`` is for all connections together."""

    most_workers: int
    first_workers: int
    cpus: float
    buffer_bytes: int = BUFFER_BYTES
    range_bytes: int = RANGE_BYTES


def bounds(wanted_workers: int, root: Path = Path("/sys/fs/cgroup"), *, sessions: int = 1) -> Bounds:
    """Bounds from the memory, CPU, threads and open files of this process; ``wanted_workers`` zero means "choose".

    Concurrent ``sessions`` share them equally, except for the CPU, whose use is watched.
    """
    cpus = cpu_limit(root)
    most, buffer_bytes = min(wanted_workers or _MOST_WORKERS, _MOST_WORKERS), BUFFER_BYTES
    memory = memory_limit_bytes(root)
    if memory is not None:
        spare = max(memory - _RESERVED_BYTES, 0) // sessions
        buffer_bytes = min(buffer_bytes, spare // 2)
        most = min(most, spare // 2 // _WORKER_BYTES)
    threads = spare_threads(root)
    if threads is not None:
        # Half of them, like half of the memory: this is not the only process of a pod.
        most = min(most, threads // 2 // sessions)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY:
        most = min(most, max(files - _RESERVED_FILES, 0) // _WORKER_FILES // sessions)
    most = max(most, 1 if wanted_workers == 1 else FEWEST_WORKERS)
    first = wanted_workers or max(FEWEST_WORKERS, round(_FIRST_WORKERS_PER_CPU * cpus))
    return Bounds(most, min(first, most), cpus, buffer_bytes)


def memory_limit_bytes(root: Path, own: Path = _OWN_CGROUP) -> int | None:
    """The least memory limit of the cgroups this process is in (v2, or v1), or None."""
    limits = [
        int(text)
        for group in (*_groups(root, own, ""), *_groups(root / "memory", own, "memory"))
        for name in ("memory.max", "memory.limit_in_bytes")
        # In v1, "no limit" is a number near 2**63.
        if (text := _read(group / name)).isdigit() and int(text) < 1 << 60
    ]
    return min(limits, default=None)


def spare_threads(root: Path, own: Path = _OWN_CGROUP) -> int | None:
    """How many more threads the cgroups of this process (v2, or v1) allow, or None."""
    counts = [(_read(group / "pids.max"), _read(group / "pids.current")) for group in _groups_of_pids(root, own)]
    spare = [
        max(int(most) - (int(current) if current.isdigit() else 0), 0) for most, current in counts if most.isdigit()
    ]
    return min(spare, default=None)


def _groups_of_pids(root: Path, own: Path) -> Iterator[Path]:
    yield from _groups(root, own, "")
    yield from _groups(root / "pids", own, "pids")


def thread_limits(root: Path = Path("/sys/fs/cgroup"), own: Path = _OWN_CGROUP) -> str:
    """The known limits of threads, in words."""
    most = [int(text) for group in _groups_of_pids(root, own) if (text := _read(group / "pids.max")).isdigit()]
    found = [f"pids.max of the cgroup is {min(most)}"] if most else []
    users = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if users != resource.RLIM_INFINITY:
        found.append(f"ulimit -u is {users}")
    # A pod's limit is set in a cgroup above those that its containers see.
    return ", ".join([*found, "podPidsLimit of the kubelet may be lower"])


def cpu_limit(root: Path, own: Path = _OWN_CGROUP) -> float:
    """CPUs that may be used: the least of the cgroups' quotas and the affinity."""
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quotas = [_read(group / "cpu.max").split() for group in _groups(root, own, "")]
    quotas += [
        [_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")]
        for group in _groups(root / "cpu", own, "cpu")
    ]
    for quota in quotas:
        if len(quota) == 2 and all(part.isdigit() for part in quota) and int(quota[1]):
            cpus = min(cpus, int(quota[0]) / int(quota[1]))
    return cpus


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """The process's group under ``root`` and those above it.

    In a container the root is its own group; on a host it is found by cgroups(7)'s /proc/self/cgroup,
    whose lines are "id:controllers:path".
    """
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            group = root / path.lstrip("/")
            while group != root and root in group.parents:
                yield group
                group = group.parent
    yield root


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
