"""What verification costs, archives against ``curl | tar``, and what a second CPU brings.

    costs.py [--rounds 3] [--scale 1] [--root DIR] [--results DIR]

Each row is the median of whole processes; every round runs each of a table's commands once, so that
what disturbs the machine disturbs all.  The server has a CPU of its own but in the last table.
"""

import argparse
import hashlib
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import race
import serve
from awscrt import checksums

LADING = str(race.HERE.parent / ".venv/bin/lading")
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
    return {name: race.Run(*map(statistics.median, zip(*found, strict=True))) for name, found in runs.items() if found}


def rows(found: dict[str, race.Run], base: str) -> list[str]:
    """Lines of a table; the ratio is of wall times, to ``base``."""
    return [
        f"| {name} | {run.wall_s:.2f} | {run.cpu_s:.2f} | {run.wall_s / found[base].wall_s:.2f} |"
        for name, run in found.items()
    ]


def make_archives(models: Path) -> dict[str, Path]:
    """One tree of text and noise as .tar.gz, .tar.zst and .zip, made once."""
    folder = models / "archives"
    tree = folder.parent.parent / "tree"
    names = {"gzip": "model.tar.gz", "zstd": "model.tar.zst", "zip": "model.zip"}
    if not (folder / names["zip"]).exists():
        folder.mkdir(parents=True, exist_ok=True)
        tree.mkdir(exist_ok=True)
        for source in sorted((models / "llm").iterdir())[:3]:
            # Half of it compresses, as weights in a format of text or with zeros do.
            data = source.read_bytes()[: 256 << 20]
            (tree / source.name).write_bytes(
                data[: len(data) // 2] + data[: len(data) // 2].hex().encode()[: len(data) // 2]
            )
        subprocess.run(["tar", "-C", tree, "-czf", folder / names["gzip"], "."], check=True)
        subprocess.run(["tar", "-C", tree, "--zstd", "-cf", folder / names["zstd"], "."], check=True)
        subprocess.run(
            [sys.executable, "-m", "zipfile", "-c", folder / names["zip"], *sorted(map(str, tree.iterdir()))],
            check=True,
        )
        shutil.rmtree(tree)
    return {kind: folder / name for kind, name in names.items()}


def main() -> int:
    """Measure, and write ``results/costs.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--root", type=Path, default=Path("/dev/shm/lading-bench"))
    parser.add_argument("--results", type=Path, default=race.RESULTS)
    options = parser.parse_args()
    models, out = options.root / f"data-{options.scale:g}" / "models", options.root / "out"
    plain, secure = f"http://127.0.0.1:{serve.PORTS['tcp']}", f"https://localhost:{serve.PORTS['tls']}"
    head = "| | wall s | CPU s | ratio |\n|---|---|---|---|"
    lines = [f"# Costs\n\n{race.machine()}; medians of {options.rounds}; scale {options.scale:g}.\n"]
    with serve.serving(options.root, options.scale):
        archives = make_archives(models)
        url = f"{plain}/models/huge/weights.bin"
        commands: dict[str, Sequence[str]] = {"nothing but the manifest's CRC-32": [LADING, "pull", url, str(out)]}
        for name, value in digests(models / "huge/weights.bin").items():
            commands[name] = [LADING, "pull", url, str(out), "--digest", f"{name}:{value}"]
        for cpus, title in (("0", "one CPU"), ("0,1", "two CPUs, one of them the server's too")):
            found = medians(commands, cpus, race.environment(plain, options.root), out, options.rounds)
            lines += [f"\n## A digest for 2 GiB over plain HTTP, {title}\n\n{head}", *rows(found, next(iter(commands)))]
        for kind, path in archives.items():
            url = f"{plain}/models/archives/{path.name}"
            commands = {"lading": [LADING, "pull", url, str(out)]}
            flags = {"gzip": "-xz", "zstd": "--zstd -x"}.get(kind)
            if flags:
                commands = {"curl and tar": ["sh", "-c", f"curl -s {url} | tar -C {out} {flags}"], **commands}
            else:
                fetch = (
                    f"curl -s -o {out}/.zip {url} && {sys.executable} -m zipfile -e {out}/.zip {out} && rm {out}/.zip"
                )
                commands = {"curl, then zipfile": ["sh", "-c", fetch], **commands}
            found = medians(commands, "0", race.environment(plain, options.root), out, options.rounds)
            lines += [
                f"\n## A {kind} archive of {path.stat().st_size >> 20} MiB, one CPU\n\n{head}",
                *rows(found, next(iter(commands))),
            ]
        pull = {"lading": [LADING, "pull", "s3://models/llm", str(out)]}
        env = race.environment(secure, options.root)
        one, two = (medians(pull, cpus, env, out, options.rounds) for cpus in ("0", "0,1"))
        found = {"one CPU": one["lading"], "two CPUs, one of them the server's too": two["lading"]}
        lines += [f"\n## llm over TLS\n\n{head}", *rows(found, "one CPU")]
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "costs.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
