"""What verification costs, archives against ``curl | tar``, and what a second CPU brings.

    costs.py [--image NAME] [--rounds 3] [--scale 1] [--root DIR] [--results DIR]

Each row is the median of whole processes; every round runs each of a table's commands once, so that
what disturbs the machine disturbs all.  The server has a CPU of its own but in the last table.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import installed
import race
import serve
from awscrt import checksums

_PLAIN, _SECURE = f"http://127.0.0.1:{serve.PORTS['tcp']}", f"https://127.0.0.1:{serve.PORTS['tls']}"
_HEAD = "| | wall s | CPU s | ratio |\n|---|---|---|---|"
_TWO = "two CPUs, one of them the server's too"
_BLOCK_BYTES = 1 << 20


def digests(path: Path) -> dict[str, str]:
    """The file's digests, as ``--digest`` takes them."""
    crcs: dict[str, tuple[Callable[[bytes, int], int], int]] = {
        "crc32": (checksums.crc32, 8),
        "crc32c": (checksums.crc32c, 8),
        "crc64nvme": (checksums.crc64nvme, 16),
    }
    running = dict.fromkeys(crcs, 0)
    hashes = {name: hashlib.new(name) for name in ("md5", "sha1", "sha256", "sha512")}
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            for name, (function, _) in crcs.items():
                running[name] = function(block, running[name])
            for each in hashes.values():
                each.update(block)
    found = {name: f"{running[name]:0{digits}x}" for name, (_, digits) in crcs.items()}
    return found | {name: each.hexdigest() for name, each in hashes.items()}


def medians(
    commands: Mapping[str, Sequence[str]], cpus: str, env: dict[str, str], out: Path, rounds: int
) -> dict[str, race.Run]:
    """The median run of each command, which writes to ``out``."""
    runs: dict[str, list[race.Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            run = race.run_once(race.Client(name, command), cpus, env, out, None)
            if run is not None:
                runs[name].append(run)
    shutil.rmtree(out, ignore_errors=True)
    return {name: race.median(found) for name, found in runs.items() if found}


def rows(found: dict[str, race.Run], base: str) -> list[str]:
    """Lines of a table; the ratio is of wall times, to ``base``."""
    return [
        f"| {name} | {run.wall_s:.2f} | {run.cpu_s:.2f} | {run.wall_s / found[base].wall_s:.2f} |"
        for name, run in found.items()
    ]


def make_archive(kind: str, models: Path) -> Path:
    """A tree of text and noise, 2 GiB at full size, as .tar.gz, .tar.zst or .zip; packed fast, which unpacking hardly feels."""
    folder = models / "archives"
    tree = folder.parent.parent / "tree"
    archive = folder / {"gzip": "model.tar.gz", "zstd": "model.tar.zst", "zip": "model.zip"}[kind]
    folder.mkdir(exist_ok=True)
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    for source in sorted((models / "llm").glob("*.safetensors")):
        # Half of it compresses, as weights in a format of text or with zeros do.
        data = source.read_bytes()
        noise = data[: len(data) // 4]
        (tree / source.name).write_bytes(noise + noise.hex().encode()[: len(noise)])
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            for path in sorted(tree.iterdir()):
                packed.write(path, path.name)
    else:
        packer = {"gzip": "gzip -1", "zstd": "zstd -q -1"}[kind]
        subprocess.run(["tar", "-C", tree, "-I", packer, "-cf", archive, "."], check=True)
    shutil.rmtree(tree)
    return archive


class Bench(NamedTuple):
    """What runs, where all is, and how often it runs."""

    lading: Sequence[str]
    models: Path
    root: Path
    rounds: int

    def table(self, title: str, commands: Mapping[str, Sequence[str]], url: str, cpus: str = "0") -> str:
        """A table of these commands, with the first as the base of its ratios."""
        found = medians(commands, cpus, race.environment(url, self.root), self.out, self.rounds)
        text = "\n".join([f"\n## {title}\n", _HEAD, *rows(found, next(iter(commands)))])
        print(text, flush=True)
        return text

    @property
    def out(self) -> Path:
        """Where each command writes."""
        return self.root / "out"


def verification(bench: Bench) -> list[str]:
    """What each digest costs, on one CPU and on two."""
    url = f"{_PLAIN}/models/huge/weights.bin"
    pull = [*bench.lading, "pull", url, str(bench.out)]
    commands: dict[str, Sequence[str]] = {"nothing but the manifest's CRC-32": pull}
    for name, value in digests(bench.models / "huge/weights.bin").items():
        commands[name] = [*pull, "--digest", f"{name}:{value}"]
    return [
        bench.table(f"A digest for 2 GiB over plain HTTP, {title}", commands, _PLAIN, cpus)
        for cpus, title in (("0", "one CPU"), ("0,1", _TWO))
    ]


def unpacking(bench: Bench) -> list[str]:
    """Archives, beside the tools that everybody has; one at a time is kept."""
    tables = []
    for kind in ("gzip", "zstd", "zip"):
        archive = make_archive(kind, bench.models)
        url, out = f"{_PLAIN}/models/archives/{archive.name}", bench.out
        flags = {"gzip": "-xz", "zstd": "--zstd -x"}.get(kind)
        if flags:
            name, usual = "curl and tar", f"curl -s {url} | tar -C {out} {flags}"
        else:
            name = "curl, then zipfile"
            usual = f"curl -s -o {out}/.zip {url} && {sys.executable} -m zipfile -e {out}/.zip {out} && rm {out}/.zip"
        commands = {name: ["sh", "-c", usual], "lading": [*bench.lading, "pull", url, str(out)]}
        size = f"{archive.stat().st_size >> 20} MiB"
        tables.append(bench.table(f"A {kind} archive of {size}, one CPU", commands, _PLAIN))
        if kind == "zip":
            tables.append(bench.table(f"The same on {_TWO}", commands, _PLAIN, "0,1"))
        archive.unlink()
    return tables


def second_cpu(bench: Bench) -> list[str]:
    """``llm`` over TLS on one CPU and on two, by each that speaks it; the server, on one of them, needs its part."""
    return [_second_cpu(bench, tls) for tls in ("openssl", "rustls")]


def _second_cpu(bench: Bench, tls: str) -> str:
    pull = {"lading": [*bench.lading, "pull", "s3://models/llm", str(bench.out)]}
    env = race.environment(_SECURE, bench.root) | {"LADING_TLS": tls}
    found: dict[str, race.Run] = {}
    served: dict[str, float] = {}
    for cpus, name in (("0", "one CPU"), ("0,1", _TWO)):
        before_s = serve.cpu_seconds(bench.root)
        found[name] = medians(pull, cpus, env, bench.out, bench.rounds)["lading"]
        served[name] = (serve.cpu_seconds(bench.root) - before_s) / bench.rounds
    one = found["one CPU"]
    most = 2 * one.wall_s / (one.cpu_s + served["one CPU"])
    text = "\n".join([f"\n## llm over TLS by {tls}\n", _HEAD, *rows(found, "one CPU")])
    text += (
        f"\n\nThe server takes {served['one CPU']:.2f} s of CPU itself: with both on two CPUs, nothing could be more than "
        f"{most:.2f} times as fast as on one; this is {one.wall_s / found[_TWO].wall_s:.2f} times."
    )
    print(text, flush=True)
    return text


def main() -> int:
    """Measure, and write ``results/costs.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--root", type=Path, default=Path("/dev/shm/lading-bench"))
    parser.add_argument("--results", type=Path, default=race.RESULTS)
    options = parser.parse_args()
    with serve.serving(options.root, options.scale), installed.lading(options.image, options.root) as lading:
        bench = Bench(lading, options.root / f"data-{options.scale:g}" / "models", options.root, options.rounds)
        lines = [f"# Costs\n\n{race.machine(lading)}; medians of {options.rounds}; scale {options.scale:g}."]
        lines += [*verification(bench), *unpacking(bench), *second_cpu(bench)]
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "costs.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
