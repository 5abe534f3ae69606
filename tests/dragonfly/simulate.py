"""A thousand nodes on Dragonfly's real scheduler: what the origin is asked and sends, and what the scheduler needs.

The nodes are simulated (``simulation/``), and move no bytes.  ``make simulate-dragonfly NODES=1000`` prints the report of one run;
figures are in benchmarks/results/dragonfly.md.
"""

import argparse
import json
import math
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from dragonfly.swarm import ATTEMPTS, HUB, Swarm
from lading.model.listing import ListedFile
from lading.network.dragonfly import task_headers

SOURCE = Path(__file__).parent / "simulation"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def build(folder: Path) -> Path:
    """The program of the nodes, made of their source."""
    program = folder / "simulation"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=SOURCE, check=True)
    return program


def simulate(
    program: Path,
    folder: Path,
    nodes: int,
    *,
    files: int = 1,
    file_bytes: int = 5_000_000_000,
    within_s: float = 0.0,
    seeds: int = 1,
    half_way: str = "",
    attempts: int = ATTEMPTS,
) -> dict[str, Any]:
    """The report of one run, which ends when every node that lives has the model.

    The nodes begin ``within_s``, by chance, and some of them are ``seeds``.  When the origin has sent half a model,
    ``half_way`` happens: "seed-dies", "scheduler-dies" and starts again at once, or "scheduler-stops", which means that it is asked to.
    """
    piece_bytes = _piece_bytes(file_bytes)
    options = {
        "nodes": nodes,
        "files": files,
        "pieces": math.ceil(file_bytes / piece_bytes),
        "piece-bytes": piece_bytes,
        "within": f"{within_s}s",
        "seeds": seeds,
        "kill-seed": str(half_way == "seed-dies").lower(),
        "scheduler": f"{HUB}:8002",
        "address": HUB,
    }
    command = [str(program), *(f"--{name}={value}" for name, value in options.items())]
    with Swarm(0, folder, attempts=attempts) as swarm:
        inside = ["nsenter", f"--net={swarm.hub.path}"]
        with subprocess.Popen([*inside, *command], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            used = []
            for line in process.stdout:
                report = json.loads(line)
                if report["event"] == "joined":
                    began_s, idle = time.monotonic(), _used(swarm)
                elif report["event"] == "half" and half_way.startswith("scheduler"):
                    used.append(_used(swarm))
                    _end_scheduler(swarm, half_way)
            assert process.wait() == 0
        assert swarm.scheduler is not None
        if swarm.scheduler.poll() is None:
            used.append(_used(swarm))
        return {
            **report,
            "nodes": nodes,
            "seconds": round(time.monotonic() - began_s, 1),
            "scheduler_cpu_s": round(sum(cpu_s for cpu_s, _ in used) - idle[0], 2),
            "scheduler_memory_mib": {"with hosts": idle[1], "most": max(mib for _, mib in used)},
        }


def _end_scheduler(swarm: Swarm, how: str) -> None:
    if how == "scheduler-dies":
        swarm.kill_scheduler()
        swarm.start_scheduler()
    elif swarm.scheduler is not None:
        swarm.scheduler.terminate()


def _piece_bytes(file_bytes: int) -> int:
    """What lading asks dfdaemon for."""
    headers = dict(task_headers(ListedFile("file", file_bytes), "http://origin/file"))
    return int(headers["X-Dragonfly-Piece-Length"].removesuffix("MiB")) << 20


def _used(swarm: Swarm) -> tuple[float, int]:
    """Seconds of a CPU that the scheduler has taken, and MiB of memory that it had at most."""
    assert swarm.scheduler is not None
    process = Path(f"/proc/{swarm.scheduler.pid}")
    ticks = process.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]
    lines = process.joinpath("status").read_text().splitlines()
    most = next(line for line in lines if line.startswith("VmHWM:"))
    return sum(map(int, ticks)) / _TICKS_PER_S, int(most.split()[1]) >> 10


def main() -> None:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--files", type=int, default=1, help="of the model")
    parser.add_argument("--file-bytes", type=int, default=5_000_000_000)
    parser.add_argument("--within-s", type=float, default=0.0, help="nodes begin within this time, by chance")
    parser.add_argument("--seeds", type=int, default=1, help="how many nodes are seed peers")
    parser.add_argument("--half-way", choices=("seed-dies", "scheduler-dies", "scheduler-stops"), default="")
    parser.add_argument(
        "--attempts", type=int, default=ATTEMPTS, help="of the scheduler to find parents; its default is 4"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="simulation-") as folder:
        report = simulate(
            build(Path(folder)),
            Path(folder),
            given.nodes,
            files=given.files,
            file_bytes=given.file_bytes,
            within_s=given.within_s,
            seeds=given.seeds,
            half_way=given.half_way,
            attempts=given.attempts,
        )
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
