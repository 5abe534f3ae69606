"""How many workers this machine, or this container, can feed.  Limits come from the cgroup."""

import os
from pathlib import Path
from typing import NamedTuple

SPAN_BYTES = 32 << 20

# What the interpreter and the modules take, and what one more worker takes: a connection's
# buffer, a thread's stack that is really touched, TLS state.  Measured in docs/adr/0003.
_RESERVED_BYTES = 40 << 20
_WORKER_BYTES = 768 << 10
_MOST_WORKERS = 32
_FEWEST_WORKERS = 2
_WORKERS_PER_CPU = 8


class Governor(NamedTuple):
    """The bounds of one transfer."""

    workers: int
    span_bytes: int = SPAN_BYTES


def govern(wanted_workers: int, root: Path = Path("/sys/fs/cgroup")) -> Governor:
    """Bounds from the memory and CPU that this process may use; ``wanted_workers`` zero means "choose"."""
    affordable = _MOST_WORKERS
    memory = memory_limit_bytes(root)
    if memory is not None:
        affordable = (memory - _RESERVED_BYTES) // _WORKER_BYTES
    workers = wanted_workers or round(_WORKERS_PER_CPU * cpu_limit(root))
    return Governor(max(_FEWEST_WORKERS, min(workers, affordable, _MOST_WORKERS)))


def memory_limit_bytes(root: Path) -> int | None:
    """The cgroup's memory limit (v2, or v1), or None."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(root / name)
        # v1 writes "no limit" as a number near 2**63.
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def cpu_limit(root: Path) -> float:
    """CPUs that may be used: of the cgroup's quota and the affinity, whichever is less."""
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota, _, period = _read(root / "cpu.max").partition(" ")
    if not quota:
        quota, period = _read(root / "cpu/cpu.cfs_quota_us"), _read(root / "cpu/cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit() and int(period):
        cpus = min(cpus, int(quota) / int(period))
    return cpus


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
