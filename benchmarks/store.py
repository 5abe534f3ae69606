"""A delivery out of the store against the one that filled it: whole processes, on file systems of their own.

    store.py [--image NAME] [--rounds 5] [--scale 1] [--volumes xfs,btrfs,ext4-link,ext4-copy] [--root DIR] [--results DIR]

Each file system is in a file on a loop device, which needs root, xfsprogs and btrfs-progs, and six times the model's
size below DIR.  Warm means that the store has the model; the listing is asked for each time.
"""

import argparse
import contextlib
import datetime
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import installed
import race
import serve

from lading import api
from lading.settings.settings import Settings

MODEL = "llm"
MODEL_BYTES = 4 << 30
PODS = 100
# In words, what makes each file system, and whether the store may link.
VOLUMES = {
    "xfs": ("XFS, reflink", ["mkfs.xfs", "-q", "-m", "reflink=1"], False),
    "btrfs": ("btrfs, reflink", ["mkfs.btrfs", "-q"], False),
    "ext4-link": ("ext4, hard link", ["mkfs.ext4", "-q"], True),
    "ext4-copy": ("ext4, copy", ["mkfs.ext4", "-q"], False),
}


@contextlib.contextmanager
def volume(root: Path, command: list[str], size_bytes: int) -> Iterator[Path]:
    """A new file system, mounted."""
    image, mounted = root / "volume.img", root / "volume"
    mounted.mkdir(exist_ok=True)
    with image.open("wb") as file:
        file.truncate(size_bytes)
    subprocess.run([*command, str(image)], check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
        image.unlink()


def pull(lading: Sequence[str], destination: Path, env: dict[str, str]) -> float:
    """Seconds of one process."""
    shutil.rmtree(destination, ignore_errors=True)
    subprocess.run(["sync"], check=True)
    started = time.monotonic()
    subprocess.run(
        [*lading, "pull", f"s3://models/{MODEL}", str(destination)], env=env, check=True, capture_output=True
    )
    return time.monotonic() - started


def used_bytes(mounted: Path) -> int:
    """What is used of a volume."""
    subprocess.run(["sync", "-f", str(mounted)], check=True)
    stat = os.statvfs(mounted)
    return (stat.f_blocks - stat.f_bfree) * stat.f_frsize


def measure(name: str, options: argparse.Namespace, root: Path, url: str) -> str:
    """A line of the table."""
    words, command, links = VOLUMES[name]
    # A copy for each of a hundred pods would fill the disk.
    pods = options.rounds if name.endswith("copy") else PODS
    with volume(root, command, round(MODEL_BYTES * options.scale * 6) + (1 << 30)) as mounted:
        config = root / "lading.yaml"
        config.write_text(
            f"store: {{path: {mounted}/store, hard_links: {str(links).lower()}, high: 100%, low: 100%}}\n"
        )
        env = race.environment(url, root) | {"LADING_CONFIG": str(config)}
        with installed.lading(options.image, root) as lading:
            cold = pull(lading, mounted / "cold", env)
            shutil.rmtree(mounted / "cold")
            warm = [pull(lading, mounted / "warm", env) for _ in range(options.rounds)]
            shutil.rmtree(mounted / "warm")
            before_bytes = used_bytes(mounted)
            settings = Settings.load(env)
            for number in range(pods - options.rounds):
                # Not as processes: only the last ones are timed.
                api.pull(f"s3://models/{MODEL}", mounted / f"pod-{number}", settings=settings)
            last = [pull(lading, mounted / f"last-{number}", env) for number in range(options.rounds)]
            each_mib = (used_bytes(mounted) - before_bytes) / pods / (1 << 20)
    median = statistics.median(warm)
    hundredth = f"{statistics.median(last):.2f}" if pods == PODS else "-"
    times = f"{cold:.2f} | {median:.2f} | {min(warm):.2f} to {max(warm):.2f} | {hundredth}"
    return f"| {words} | {times} | {each_mib:,.2f} | {cold / median:.1f} |"


def main() -> int:
    """Measure, and write ``results/store.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--volumes", default=",".join(VOLUMES))
    parser.add_argument("--root", type=Path, default=race.HERE.parent / ".bench")
    parser.add_argument("--results", type=Path, default=race.HERE / "results")
    options = parser.parse_args()
    root = options.root.absolute()
    with serve.serving(root, options.scale):
        url = f"http://127.0.0.1:{serve.PORTS['tcp']}"
        rows = [measure(name, options, root, url) for name in options.volumes.split(",")]
        with installed.lading(options.image, root) as lading:
            machine = race.machine(lading)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [
        "# Store",
        "",
        f"{today}; {machine}; medians of {options.rounds}; scale {options.scale:g}.",
        "",
        f"Seconds of whole processes, with the start of the interpreter and the listing over plain HTTP. `{MODEL}`, 8 × 512 MiB",
        "and a config, from nginx on the same machine into the store on a loop device (cold), and out of it again (warm).",
        "",
        f"The {PODS}th pod is the median of the last {options.rounds} of {PODS} destinations that stay; MiB is what each of them takes.",
        "",
        "| placed on, by | first pod s | second pod s | from, to | hundredth pod s | MiB for each pod | ratio |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    text = "\n".join(lines) + "\n"
    (options.results / "store.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
