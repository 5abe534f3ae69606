"""What the first, the second, the tenth and the hundredth pod of a node wait for, and the second and tenth node: whole processes.

    store.py [--image NAME] [--scale 1] [--volumes xfs,btrfs,ext4-link,ext4-copy] [--root DIR] [--results DIR]

Each file system is in a file on a loop device, which needs root, xfsprogs, btrfs-progs and nginx, and four times the
model's size below DIR.  The listing is asked for each time.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import installed
import race
import serve

MODEL = "llm"
MODEL_BYTES = 4 << 30
PODS, COPIES, NODES = 100, 10, 10
# Medians are over so many pods or nodes, up to the one that is named; of the second, from it on.
AROUND = 5
# In words, what makes each file system, and whether the store may link.
VOLUMES = {
    "xfs": ("XFS, reflink", ["mkfs.xfs", "-q", "-m", "reflink=1"], False),
    "btrfs": ("btrfs, reflink", ["mkfs.btrfs", "-q"], False),
    "ext4-link": ("ext4, hard link", ["mkfs.ext4", "-q"], True),
    "ext4-copy": ("ext4, copy", ["mkfs.ext4", "-q"], False),
}
CACHE_PORT = 9702
# The recipe of docs/scale.md for a bucket, which writes down what the origin sent.
CACHE = """
worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 1024; }}
http {{
  log_format origin $upstream_bytes_received; log_subrequest on; access_log {folder}/origin.log origin;
  client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  map $http_if_match $unpinned {{ default 0; "" 1; }}
  proxy_cache_path {folder}/cache keys_zone=models:10m max_size=100g use_temp_path=off;
  server {{
    listen 127.0.0.1:{port};
    proxy_http_version 1.1;
    proxy_cache models;
    proxy_cache_valid 200 206 1h;
    proxy_cache_lock on;
    proxy_cache_lock_timeout 60s;
    slice 1m;
    location / {{
      proxy_pass {origin};
      proxy_set_header Range $slice_range;
      proxy_set_header If-Match $http_if_match;
      proxy_cache_key $uri$is_args$args$slice_range$http_if_match;
      proxy_cache_bypass $unpinned;
      proxy_no_cache $unpinned;
    }}
  }}
}}
"""


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


@contextlib.contextmanager
def cache(folder: Path, origin: str) -> Iterator[str]:
    """A cache, nginx, in front of ``origin``; gives its URL."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(CACHE.format(folder=folder, port=CACHE_PORT, origin=origin))
    subprocess.run(["nginx", "-c", config], check=True, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{CACHE_PORT}"
    finally:
        subprocess.run(["nginx", "-c", config, "-s", "quit"], check=False, capture_output=True)
        # It may be removing its own files still.
        shutil.rmtree(folder, ignore_errors=True)


def sent_mib(folder: Path) -> float:
    """What a cache has read from its origin so far."""
    counts = (line.split(",") for line in (folder / "origin.log").read_text().split("\n"))
    return sum(int(count) for each in counts for count in each if count.strip().isdigit()) / (1 << 20)


def pull(lading: Sequence[str], destination: Path, env: Mapping[str, str]) -> float:
    """Seconds of one process, which finds nothing that is still to be written to the disk."""
    subprocess.run(["sync"], check=True)
    started = time.monotonic()
    command = [*lading, "pull", f"s3://models/{MODEL}", str(destination)]
    subprocess.run(command, env=env, check=True, capture_output=True)
    return time.monotonic() - started


def used_mib(mounted: Path) -> float:
    """What is used of a volume."""
    subprocess.run(["sync", "-f", str(mounted)], check=True)
    stat = os.statvfs(mounted)
    return (stat.f_blocks - stat.f_bfree) * stat.f_frsize / (1 << 20)


def configured(root: Path, url: str, store: Path, *, links: bool = False) -> dict[str, str]:
    """The environment of a process whose store is at ``store``."""
    config = root / "lading.yaml"
    config.write_text(f"store: {{path: {store}, hard_links: {str(links).lower()}, high: 100%, low: 100%}}\n")
    # Unsigned, so that a cache may keep it.
    return race.environment(url, root) | {"LADING_CONFIG": str(config), "awsAnonymousCredential": "true"}


def median(seconds: Sequence[float]) -> str:
    """As the tables have it; nothing where nothing was measured."""
    return f"{statistics.median(seconds):.2f}" if seconds else "-"


def pods(name: str, lading: Sequence[str], options: argparse.Namespace, root: Path, url: str) -> str:
    """A line of the table of pods."""
    words, command, links = VOLUMES[name]
    copies = name.endswith("copy")
    with volume(root, command, round(MODEL_BYTES * options.scale * 4) + (2 << 30)) as mounted:
        env = configured(root, url, mounted / "store", links=links)
        first = pull(lading, mounted / "pod-1", env)
        before_mib = used_mib(mounted)
        seconds: list[float] = []
        for number in range(2, (COPIES if copies else PODS) + 1):
            destination = mounted / f"pod-{number}"
            seconds.append(pull(lading, destination, env))
            each_mib = (used_mib(mounted) - before_mib) / (1 if copies else number - 1)
            if copies:
                # A copy for each would fill the disk.
                shutil.rmtree(destination)
    second, tenth = seconds[:AROUND], seconds[COPIES - 1 - AROUND : COPIES - 1]
    hundredth = seconds[-AROUND:] if len(seconds) >= PODS - 1 else []
    times = f"{first:.2f} | {median(second)} | {median(tenth)} | {median(hundredth)}"
    return f"| {words} | {times} | {min(seconds):.2f} to {max(seconds):.2f} | {each_mib:,.2f} |"


def nodes(lading: Sequence[str], options: argparse.Namespace, root: Path, url: str) -> list[str]:
    """The lines of the table of nodes, each with a store of its own."""
    rows = []

    def fetch(number: int, url: str) -> float:
        node = mounted / f"node-{number}"
        seconds = pull(lading, node / "pod", configured(root, url, node / "store"))
        shutil.rmtree(node)
        return seconds

    with volume(root, VOLUMES["xfs"][1], round(MODEL_BYTES * options.scale * 2) + (2 << 30)) as mounted:
        straight = [fetch(number, url) for number in range(3)]
        rows.append(
            f"| each, straight from the origin | {median(straight)} | {MODEL_BYTES * options.scale / (1 << 20):,.0f} |"
        )
        with cache(root / "cache", url) as cached:
            first, first_mib = fetch(1, cached), sent_mib(root / "cache")
            later = [fetch(number, cached) for number in range(2, NODES + 1)]
            later_mib = (sent_mib(root / "cache") - first_mib) / len(later)
    rows.append(f"| first, through the cache | {first:.2f} | {first_mib:,.0f} |")
    rows.append(f"| second, through the cache | {later[0]:.2f} | {later_mib:,.2f} |")
    rows.append(f"| tenth, through the cache | {median(later[-AROUND:])} | {later_mib:,.2f} |")
    return rows


def main() -> int:
    """Measure, and write ``results/store.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--volumes", default=",".join(VOLUMES))
    parser.add_argument("--root", type=Path, default=race.HERE.parent / ".bench")
    parser.add_argument("--results", type=Path, default=race.HERE / "results")
    options = parser.parse_args()
    root = options.root.absolute()
    model = {MODEL: serve.SETS[MODEL]}
    with serve.serving(root, options.scale, model), installed.lading(options.image, root) as lading:
        url = f"http://127.0.0.1:{serve.PORTS['tcp']}"
        of_pods = [pods(name, lading, options, root, url) for name in options.volumes.split(",")]
        of_nodes = nodes(lading, options, root, url)
        machine = race.machine(lading)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [
        "# Store",
        "",
        f"{today}; {machine}; {serve.version()}; scale {options.scale:g}.",
        "",
        f"Seconds of whole processes, with the start of the interpreter and the listing over plain HTTP. `{MODEL}`, at scale 1",
        f"{serve.SETS[MODEL].what}, comes from nginx on the same machine to loop devices on one disk.",
        "",
        "## Pods of one node",
        "",
        "The first pod fetches the model into the store, and all others get it from there. Medians of five pods: 2 to 6, 6 to 10,",
        f"96 to 100. All pods keep what they got, except copies: of those there are {COPIES}, each removed before the next. `MiB` is",
        "what the destination of one pod takes.",
        "",
        "| placed on, by | first pod s | second | tenth | hundredth | from, to | MiB for each pod |",
        "|---|---|---|---|---|---|---|",
        *of_pods,
        "",
        "## Nodes behind one cache",
        "",
        "Each node has a store of its own on XFS, and one pod; one node after the other, so that no network is shared. The cache is",
        "nginx with the recipe of docs/scale.md. The tenth is the median of nodes 6 to 10.",
        "",
        "| node | s | MiB from the origin |",
        "|---|---|---|",
        *of_nodes,
    ]
    text = "\n".join(lines) + "\n"
    (options.results / "store.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
