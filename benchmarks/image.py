"""What lading's image weighs and how soon it starts, beside the Python packages of KServe's storage initializer.

    image.py IMAGE [--rounds 40] [--results DIR]

Of the reference only the Python packages are there to be measured, not the base image that they are
installed in.  A start is the least of all rounds: what else the machine does only ever adds.  The
processes in the image are started and timed inside one container, so that what podman and runc need
does not count; a line of its own says how much that is.
"""

import argparse
import gzip
import http.server
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import installed
import race

ENGINE = ("podman", "run", "--rm", "--runtime", "runc", "--ulimit", "nofile=4096", "--ulimit", "nproc=4096")
REFERENCE = race.PEERS / "kserve"
# Nothing but what the interpreter has built in: it runs in the image, which has no modules to spare.
_TIME = """
import os, sys, time
times = []
for turn in range(int(sys.argv[1])):
    words = [word.replace("TURN", str(turn)) for word in sys.argv[2:]]
    quiet = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_WRONLY, 0) for number in (1, 2)]
    began = time.perf_counter()
    child = os.posix_spawn(words[0], words, os.environ, file_actions=quiet)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, words
    times.append(time.perf_counter() - began)
print(min(times))
"""
_DOWNLOAD = "from kserve_storage import Storage; Storage.download({!r}, {!r})"


class Weight(NamedTuple):
    """A folder: its files, and what gzip makes of it, as registries keep layers."""

    files: int
    size_bytes: int
    packed_bytes: int


def weigh(folder: Path, *leave_out: str) -> Weight:
    """Of everything below ``folder`` but these names in it."""
    kept = [path for path in folder.iterdir() if not any(path.match(name) for name in leave_out)]
    files = [file for path in kept for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    sizes = [file.stat().st_size for file in files if not file.is_symlink()]
    names = sorted(path.name for path in kept)
    packed = subprocess.run(["tar", "-C", folder, "-c", *names], capture_output=True, check=True).stdout
    return Weight(len(sizes), sum(sizes), len(gzip.compress(packed, 6)))


@contextmanager
def tiny_model() -> Iterator[str]:
    """The URL of a model of 1 KiB."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        extensions_map = {"": "application/octet-stream"}  # noqa: RUF012 - as its class has it

        def log_message(self, *_: object) -> None:
            pass

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.bin").write_bytes(bytes(1024))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Handler(*a, directory=folder)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_address[1]}/model.bin"
            server.shutdown()


def in_image(image: str, rounds: int, *words: str) -> float:
    """Seconds that a process takes inside a container."""
    mounts = ("--network", "host", "--read-only", "--tmpfs", "/mnt/models:mode=1777")
    python = ("--entrypoint", "/usr/bin/python3", image, "-I", "-c", _TIME, str(rounds), *words)
    return float(subprocess.run([*ENGINE, *mounts, *python], capture_output=True, text=True, check=True).stdout)


def here(rounds: int, *words: str) -> float:
    """Seconds that a process takes on this machine."""
    run = [sys.executable, "-I", "-c", _TIME, str(rounds), *words]
    return float(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


def whole(image: str, rounds: int) -> float:
    """Seconds until ``podman run … lading --version`` has ended."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run(
            [*ENGINE, "--entrypoint", "/usr/bin/lading", image, "--version"], capture_output=True, check=True
        )
        times.append(time.perf_counter() - began)
    return min(times)


def sizes(image: str) -> list[tuple[str, str, str]]:
    """Rows: what, lading's image, the reference's packages."""
    site = next(REFERENCE.glob("lib/python3*/site-packages"))
    # What a venv has by itself.
    own = ("pip", "pip-*", "setuptools", "setuptools-*", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
    theirs = weigh(site, *own)
    distributions = len([path for path in site.glob("*.dist-info") if not re.match("(pip|setuptools)-", path.name)])
    with installed.unpacked(image) as root:
        ours = weigh(root)
        python = weigh(root / "usr/lib/python3/dist-packages")
        bill = json.loads((root / "usr/share/sbom/lading.cdx.json").read_text())
    debian = sum(each["purl"].startswith("pkg:deb") for each in bill["components"])
    # lading itself is what the bill is of.
    own_distributions = len(bill["components"]) - debian + 1
    return [
        ("compressed (gzip), MB", f"**{ours.packed_bytes / 1e6:.1f}**; of that Python packages {python.packed_bytes / 1e6:.1f}", f"{theirs.packed_bytes / 1e6:.1f}"),
        ("unpacked, MB", f"**{ours.size_bytes / 1e6:.1f}**; of that Python packages {python.size_bytes / 1e6:.1f}", f"{theirs.size_bytes / 1e6:.1f}"),
        ("files", f"**{ours.files}**", str(theirs.files)),
        ("Python distributions", f"**{own_distributions}**", str(distributions)),
        ("Debian packages", f"**{debian}**, each in part", "its base image's"),
    ]  # fmt: skip


def starts(image: str, rounds: int) -> list[tuple[str, str, str]]:
    """Rows: what, in lading's image, the reference on this machine."""
    python = str(REFERENCE / "bin/python")
    with tempfile.TemporaryDirectory() as out, tiny_model() as url:
        version = in_image(image, rounds, "/usr/bin/lading", "--version")
        pull = in_image(image, rounds, "/usr/bin/lading", "init", url, "/mnt/models/TURN")
        imported = here(rounds, python, "-c", "from kserve_storage import Storage")
        download = here(rounds, python, "-c", _DOWNLOAD.format(url, f"{out}/TURN"))
    return [
        ("process until it knows what it is to do, s", f"**{version:.2f}** (`lading --version`)", f"{imported:.2f} (`import kserve_storage`)"),
        ("process for a model of 1 KiB over HTTP, s", f"**{pull:.2f}**", f"{download:.2f}"),
        ("`podman run`, the whole of it, s", f"{whole(image, max(rounds // 3, 1)):.2f} (`lading --version`)", ""),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write ``results/image.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--results", type=Path, default=race.RESULTS)
    options = parser.parse_args(arguments)
    if shutil.which("podman") is None:
        print("podman is not installed: run make test-servers", file=sys.stderr)
        return 1
    rows = sizes(options.image) + starts(options.image, options.rounds)
    text = (
        f"# Image\n\n{datetime.now(UTC):%Y-%m-%d}; {race.machine()}; starts are the least of {options.rounds}.\n\n"
        "The reference is kserve-storage as requirements/kserve.txt locks it: its Python packages alone, without the\n"
        "interpreter, the libraries and the base image that they are installed in.\n\n"
        "| | lading's image, all of it | the reference's Python packages |\n|---|---|---|\n"
    )
    text += "".join(f"| {' | '.join(row)} |\n" for row in rows)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "image.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
