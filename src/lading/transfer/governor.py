"""How many workers run at a time: bounds from the cgroup, and within them what the transfer itself shows."""

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lading.errors import Unavailable
from lading.http_client import BUFFER_BYTES

SPAN_BYTES = 32 << 20

# What the interpreter, the modules and a listing take. Measured in docs/adr/0003.
_RESERVED_BYTES = 40 << 20
# A thread's stack that is really touched, a small buffer, TLS state.
_WORKER_BYTES = 192 << 10
# Standard streams, the lock, the journal, the endpoint; of a worker the file that lands, and what it is read from.
_RESERVED_FILES = 16
_WORKER_FILES = 3
_MOST_WORKERS = 128
_FEWEST_WORKERS = 2
_FIRST_WORKERS_PER_CPU = 4

# What beginning a file weighs against moving bytes, so that one rate fits large files and small ones.
FILE_WORK_BYTES = 64 << 10
_LOOK_EVERY_S = 0.05
_OWN_CGROUP = Path("/proc/self/cgroup")
_GAIN = 1.1
_BUSY = 0.85
_IDLE = 0.3
_HOLD_S = 2.0
_MOST_HOLD_S = 30.0
_HOLD_AFTER_TROUBLE_S = 5.0


class Bounds(NamedTuple):
    """What this machine or container can feed.  ``buffer_bytes`` is for all connections together."""

    most_workers: int
    first_workers: int
    cpus: float
    buffer_bytes: int = BUFFER_BYTES
    span_bytes: int = SPAN_BYTES


def bounds(wanted_workers: int, root: Path = Path("/sys/fs/cgroup"), *, sessions: int = 1) -> Bounds:
    """Bounds from the memory, CPU, threads and open files of this process; ``wanted_workers`` zero means "choose".

    All but the CPU, which is watched, are shared by as many ``sessions`` at a time.
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
        # Half of them, as of the memory: this is not the only process of a pod.
        most = min(most, threads // 2 // sessions)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY:
        most = min(most, max(files - _RESERVED_FILES, 0) // _WORKER_FILES // sessions)
    most = max(most, 1 if wanted_workers == 1 else _FEWEST_WORKERS)
    first = wanted_workers or max(_FEWEST_WORKERS, round(_FIRST_WORKERS_PER_CPU * cpus))
    return Bounds(most, min(first, most), cpus, buffer_bytes)


class Governor:
    """Finds how many workers are worth it: more while that moves more, fewer when the origin is in trouble.

    On one's own machine a few workers keep the CPU busy, and more would only contend for it; far
    away most of a worker's time is waiting, and many are needed.  So ``limit`` doubles, or more, while
    the CPU is not busy and the last step paid, and halves when an origin says that it is too much
    (additive increase would take minutes to reach a hundred; a model is here before that).
    """

    def __init__(self, bounds: Bounds, now_s: float) -> None:
        self.limit = bounds.first_workers
        self._bounds = bounds
        self._seen = (now_s, 0.0, 0)
        self._before = 0
        self._rate = 0.0
        self._hold_s = _HOLD_S
        self._hold_until_s = now_s
        self._trouble_at_s = float("-inf")

    def observe(self, now_s: float, cpu_s: float, work_bytes: int) -> None:
        """Adjust ``limit`` to what was done so far: CPU seconds spent, and bytes moved (plus files, weighed)."""
        then_s, cpu_before_s, work_before = self._seen
        passed_s = now_s - then_s
        if passed_s < _LOOK_EVERY_S:
            return
        self._seen = (now_s, cpu_s, work_bytes)
        rate = (work_bytes - work_before) / passed_s
        if self._before:
            if rate < self._rate * _GAIN:
                self.limit, self._hold_until_s = self._before, now_s + self._hold_s
                self._hold_s = min(self._hold_s * 2, _MOST_HOLD_S)
            self._before = 0
        self._rate = rate
        busy = (cpu_s - cpu_before_s) / passed_s / self._bounds.cpus
        if work_bytes and busy < _BUSY and now_s >= self._hold_until_s and self.limit < self._bounds.most_workers:
            # In great steps until one was too great.
            factor = 4 if busy < _IDLE and self._hold_s == _HOLD_S else 2
            self._before, self.limit = self.limit, min(self.limit * factor, self._bounds.most_workers)

    def cap(self, workers: int, now_s: float) -> None:
        """There are no more than these: the system has no thread for another one."""
        self._bounds = self._bounds._replace(most_workers=workers)
        self.limit = min(self.limit, workers)
        self._before = 0
        self._hold_until_s = now_s + self._hold_s

    def trouble(self, now_s: float) -> None:
        """An origin asked for patience, or did not answer: halve, once for all who were told at the same time."""
        if now_s - self._trouble_at_s < _LOOK_EVERY_S:
            return
        self._trouble_at_s = now_s
        self.limit = max(min(_FEWEST_WORKERS, self._bounds.most_workers), self.limit // 2)
        self._before = 0
        self._hold_until_s = now_s + _HOLD_AFTER_TROUBLE_S


def memory_limit_bytes(root: Path, own: Path = _OWN_CGROUP) -> int | None:
    """The least memory limit of the cgroups this process is in (v2, or v1), or None."""
    limits = [
        int(text)
        for group in (*_groups(root, own, ""), *_groups(root / "memory", own, "memory"))
        for name in ("memory.max", "memory.limit_in_bytes")
        # v1 writes "no limit" as a number near 2**63.
        if (text := _read(group / name)).isdigit() and int(text) < 1 << 60
    ]
    return min(limits, default=None)


def spare_threads(root: Path, own: Path = _OWN_CGROUP) -> int | None:
    """How many more threads the cgroups this process is in (v2, or v1) let start, or None."""
    counts = [(_read(group / "pids.max"), _read(group / "pids.current")) for group in _groups_of_pids(root, own)]
    spare = [
        max(int(most) - (int(current) if current.isdigit() else 0), 0) for most, current in counts if most.isdigit()
    ]
    return min(spare, default=None)


def _groups_of_pids(root: Path, own: Path) -> Iterator[Path]:
    yield from _groups(root, own, "")
    yield from _groups(root / "pids", own, "pids")


def start_thread(thread: threading.Thread) -> bool:
    """Start a thread; false where the system refuses one more."""
    try:
        thread.start()
    except RuntimeError:
        # All that Python says of EAGAIN (pthread_create(3)).
        return False
    return True


def no_thread(what: str) -> Unavailable:
    """The error of a thread that cannot be started, and without which nothing goes on."""
    return Unavailable(f"the system refuses a thread {what}", hint=f"raise its limit: {thread_limits()}")


def thread_limits(root: Path = Path("/sys/fs/cgroup"), own: Path = _OWN_CGROUP) -> str:
    """The limits of threads that are known here, in words."""
    most = [int(text) for group in _groups_of_pids(root, own) if (text := _read(group / "pids.max")).isdigit()]
    found = [f"pids.max of the cgroup is {min(most)}"] if most else []
    users = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if users != resource.RLIM_INFINITY:
        found.append(f"ulimit -u is {users}")
    # That of a pod is set above what its containers see.
    return ", ".join([*found, "podPidsLimit of the kubelet may be lower"])


def cpu_limit(root: Path, own: Path = _OWN_CGROUP) -> float:
    """CPUs that may be used: of the cgroups' quotas and the affinity, whichever is least."""
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
