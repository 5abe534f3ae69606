"""Race lading against its peers over the same bytes, and write a table and a chart.

    race.py [--image NAME] [--sets llm,huge,many,tiny] [--wires tcp,tls,far] [--cpus 0] [--rounds 3] [--scale 1]

Whole processes are timed, pinned to ``--cpus``, from and to tmpfs; every round runs each client
once, so that what disturbs the machine disturbs all. Figures are medians. What counts is the ratio
to the fastest peer of the same row; absolute times move with the machine.
"""

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import chart
import installed
import serve

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PEERS = HERE.parent / ".bench"


class Client(NamedTuple):
    """A downloader: its command for an endpoint, a set and an output folder."""

    name: str
    command: Sequence[str]


class Run(NamedTuple):
    """One timed process."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def clients(lading: Sequence[str], wire: str, url: str, name: str, out: Path) -> list[Client]:
    """Everything that races, with the settings under which each is at its best here."""
    s5cmd = next(PEERS.glob("peers/lib/python3*/site-packages/s5cmd/bin/s5cmd"), None)
    insecure = ["--no-verify-ssl"] if wire == "tls" else []
    return [
        Client("lading", [*lading, "pull", f"s3://models/{name}", str(out)]),
        Client("s5cmd", [str(s5cmd), "--endpoint-url", url, *insecure, "cp", f"s3://models/{name}/*", f"{out}/"]),
        Client(
            "rclone",
            [
                str(PEERS / "peers/bin/rclone"), "copy", "--s3-provider", "Minio", "--s3-endpoint", url,
                "--s3-access-key-id", "a" * 20, "--s3-secret-access-key", "b" * 40, "--ignore-checksum",
                "--no-check-certificate", "--fast-list", "--transfers", "32" if name == "many" else "4",
                f":s3:models/{name}", str(out),
            ],
        ),
        Client(
            "kserve-storage",
            [
                str(PEERS / "kserve/bin/python"), "-c",
                f"from kserve_storage import Storage; Storage.download('s3://models/{name}', '{out}')",
            ],
        ),
    ]  # fmt: skip


def environment(url: str, root: Path) -> dict[str, str]:
    """What every client finds: credentials, endpoint, the certificate, and no proxy of the machine's own."""
    certificate = str(root / "run/cert.pem")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "AWS_ACCESS_KEY_ID": "a" * 20,
        "AWS_SECRET_ACCESS_KEY": "b" * 40,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "S3_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CA_BUNDLE": certificate,
        "SSL_CERT_FILE": certificate,
    }


def run_once(client: Client, cpus: str, env: Mapping[str, str], out: Path, expected_bytes: int | None) -> Run | None:
    """Time one process; None, with a word on stderr, when it failed or did not bring ``expected_bytes``."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    process = subprocess.Popen(
        ["taskset", "-c", cpus, *client.command], env=dict(env), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    wall_s = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = sum(path.stat().st_size for path in out.rglob("*") if path.is_file() and path.name != ".lading.manifest")
    if status or found != (expected_bytes or found):
        print(f"{client.name}: status {status}, {found} of {expected_bytes} bytes: {errors[-300:]!r}", file=sys.stderr)
        return None
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall_s, cpu_s, usage.ru_maxrss / 1024)


def race(lading: Sequence[str], name: str, wire: str, options: argparse.Namespace) -> list[chart.Row]:
    """All rounds of one set over one wire, as rows, the fastest first."""
    root = options.root
    host = "https://127.0.0.1" if wire == "tls" else "http://127.0.0.1"
    url = f"{host}:{serve.PORTS[wire]}"
    out = root / "out"
    files = (root / f"data-{options.scale:g}" / "models" / name).rglob("*")
    expected = sum(path.stat().st_size for path in files if path.is_file())
    runs: dict[str, list[Run]] = {}
    for _ in range(options.rounds):
        for client in clients(lading, wire, url, name, out):
            if options.clients and client.name not in options.clients.split(","):
                continue
            if name == "swarm" and client.name == "kserve-storage":
                # A quarter of an hour.
                continue
            run = run_once(client, options.cpus, environment(url, root), out, expected)
            if run is not None:
                runs.setdefault(client.name, []).append(run)
    shutil.rmtree(out, ignore_errors=True)
    medians = {each: Run(*map(statistics.median, zip(*found, strict=True))) for each, found in runs.items()}
    fastest_peer = min((run.wall_s for each, run in medians.items() if each != "lading"), default=0.0)
    return sorted(
        (
            chart.Row(name, wire, each, *run, run.wall_s / fastest_peer if fastest_peer else 1.0)
            for each, run in medians.items()
        ),
        key=lambda row: row.wall_s,
    )


def machine(lading: Sequence[str] = ()) -> str:
    """In words, what the figures were measured on, with the Python of ``lading`` if that is given."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    python = [installed.python(lading)] if lading else []
    return ", ".join((cpu, f"{os.cpu_count()} CPUs", f"Linux {platform.release()}", *python))


def main() -> int:
    """Race, and write ``results/race.md`` and ``results/race.svg``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="")
    parser.add_argument("--sets", default=",".join(serve.SETS))
    parser.add_argument("--wires", default="tcp,tls,far")
    parser.add_argument("--cpus", default="0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--clients", default="")
    parser.add_argument("--root", type=Path, default=Path("/dev/shm/lading-bench"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    wires = [wire for wire in options.wires.split(",") if wire != "far" or serve.has_far()]
    rows: list[chart.Row] = []
    with serve.serving(options.root, options.scale), installed.lading(options.image, options.root) as lading:
        for name in options.sets.split(","):
            for wire in wires:
                if (wire == "far" and name == "tiny") or (wire != "tcp" and name == "swarm"):
                    continue
                found = race(lading, name, wire, options)
                rows += found
                for row in found:
                    print(chart.line(row), flush=True)
        about = (
            f"{datetime.now(UTC):%Y-%m-%d}; {machine(lading)}; clients on CPU {options.cpus}; medians of {options.rounds}; "
            f"scale {options.scale:g}"
        )
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "race.md").write_text(chart.table(rows, about, {k: v.what for k, v in serve.SETS.items()}))
    (options.results / "race.svg").write_text(chart.svg(rows))
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
