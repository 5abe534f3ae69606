"""Race lading against its peers over the same bytes, and write a table and a chart.

    race.py [--image NAME] [--sets llm,huge,many,tiny] [--wires tcp,tls,far] [--cpus 0] [--rounds 3] [--scale 1]

Whole processes are timed, pinned to ``--cpus``, from and to tmpfs; every round runs each client
once, so that what disturbs the machine disturbs all.  What counts is the ratio to the best peer of
the same round; absolute times move with the machine.  Where the server's CPU seconds come near the wall
time, the client waited for it, and only the CPU seconds compare.
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
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import chart
import installed
import serve

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PEERS = HERE.parent / ".bench"
# It takes ten times as long as the others: it runs in the first round only, and never with a hundred thousand files.
_SLOW = "kserve-storage"
# Of large files, what receiving and writing alone cost: no peer, since it delivers nothing that can be relied on.
_FLOOR = "floor"
# What of a CPU decides how fast bytes are decrypted and hashed, on x86-64 and on arm64.
_FLAGS = ("aes", "vaes", "vpclmulqdq", "avx2", "avx512f", "sha_ni", "pmull", "sha1", "sha2", "sha512")


class Client(NamedTuple):
    """A downloader: its command for an endpoint, a set and an output folder, and variables of its own."""

    name: str
    command: Sequence[str]
    variables: Mapping[str, str] = {}


class Run(NamedTuple):
    """One timed process, and what the server needed for it."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    server_cpu_s: float = 0.0


def clients(lading: Sequence[str], wire: str, url: str, folder: Path, out: Path) -> list[Client]:
    """Everything that races, with the settings under which each is at its best here."""
    name = folder.name
    s5cmd = next(PEERS.glob("peers/lib/python3*/site-packages/s5cmd/bin/s5cmd"), None)
    insecure = ["--no-verify-ssl"] if wire == "tls" else []
    pull = [*lading, "pull", f"s3://models/{name}", str(out)]
    either = ("openssl", "rustls") if wire == "tls" else ()
    floor = [sys.executable, "-S", str(HERE / "floor.py"), f"{url}/models/{name}", str(folder), str(out)]
    return [
        Client("lading", pull),
        *(Client(f"lading/{tls}", pull, {"LADING_TLS": tls}) for tls in either),
        *([Client(_FLOOR, floor)] if wire == "tcp" and name in ("llm", "huge") else []),
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
            _SLOW,
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
        ["taskset", "-c", cpus, *client.command],
        env={**env, **client.variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
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
    runs = all_rounds(lading, name, wire, options)
    medians = {each: median(found.values()) for each, found in runs.items()}
    peers = [each for each in medians if not each.startswith(("lading", _FLOOR))] or list(medians)[:1]
    fastest = min(peers, key=lambda each: medians[each].wall_s, default="")
    thriftiest = min(peers, key=lambda each: medians[each].cpu_s, default="")
    rows = [
        chart.Row(
            name, wire, each, len(found), *medians[each],
            paired(found, runs[fastest], "wall_s"), paired(found, runs[thriftiest], "cpu_s"),
        )
        for each, found in runs.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: row.wall_s)


def all_rounds(lading: Sequence[str], name: str, wire: str, options: argparse.Namespace) -> dict[str, dict[int, Run]]:
    """The runs of each client, by the round."""
    root, out = options.root, options.root / "out"
    url = f"{'https' if wire == 'tls' else 'http'}://127.0.0.1:{serve.PORTS[wire]}"
    folder = root / f"data-{options.scale:g}" / "models" / name
    expected = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    runs: dict[str, dict[int, Run]] = {}
    for turn in range(options.rounds):
        for client in clients(lading, wire, url, folder, out):
            if options.clients and client.name not in options.clients.split(","):
                continue
            if client.name == _SLOW and (turn or name == "swarm"):
                continue
            before_s = serve.cpu_seconds(root)
            run = run_once(client, options.cpus, environment(url, root), out, expected)
            if run is not None:
                served_s = serve.cpu_seconds(root) - before_s
                runs.setdefault(client.name, {})[turn] = run._replace(server_cpu_s=served_s)
    shutil.rmtree(out, ignore_errors=True)
    return runs


def median(runs: Iterable[Run]) -> Run:
    """Of each figure by itself."""
    return Run(*map(statistics.median, zip(*runs, strict=True)))


def paired(runs: Mapping[int, Run], peer: Mapping[int, Run], figure: str) -> chart.Ratio | None:
    """A figure's ratio to the peer's of the same round; None where they have no round in common."""
    ratios = [getattr(runs[turn], figure) / getattr(peer[turn], figure) for turn in runs.keys() & peer.keys()]
    return chart.Ratio(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def machine(lading: Sequence[str] = ()) -> str:
    """In words, what the figures were measured on, and what ``lading`` runs on if that is given."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    facts = {name.strip(): value.strip() for name, _, value in lines}
    has = (facts.get("flags") or facts.get("Features") or "").split()
    about = [f"{each.split()[-1]} {facts[each]}" for each in ("cpu family", "model") if each in facts]
    about += [" ".join(flag for flag in _FLAGS if flag in has)]
    cpu = f"{facts.get('model name') or platform.machine()} ({', '.join(about)})"
    measured = [installed.about(lading)] if lading else []
    return ", ".join((cpu, f"{os.cpu_count()} CPUs", f"Linux {platform.release()}", *measured))


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
            f"{datetime.now(UTC):%Y-%m-%d}; {machine(lading)}; clients on CPU {options.cpus}, {serve.version()} on another; "
            f"scale {options.scale:g}"
        )
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "race.md").write_text(chart.table(rows, about, {k: v.what for k, v in serve.SETS.items()}))
    (options.results / "race.svg").write_text(chart.svg(rows))
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
