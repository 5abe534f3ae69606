"""A store of very many models: time and memory of what is done with all of them, or beside all of them.

    store_size.py [--models 1000,10000,100000] [--root DIR] [--results DIR]

Each model is 100 MiB in one sparse file, and a config: 100,000 models stand for 10 TB.  What is measured is the
CPU of a whole process, with the start of the interpreter: on a node that uses them, names and sizes are in its cache.
"""

import argparse
import datetime
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import race

from lading.model.digest import Digest
from lading.model.manifest import File, Manifest
from lading.settings.store import StoreSettings
from lading.store.store import Store

WEIGHTS_BYTES = 100 << 20
LADING = [sys.executable, "-m", "lading"]


def fill(root: Path, models: int) -> None:
    """Make a store of so many models, all of them used at another time."""
    # A power cut would cost a benchmark only.
    os.fsync = lambda _: None  # type: ignore[assignment]
    store = Store(StoreSettings(path=str(root)))
    for number in range(models):
        key = hashlib.sha256(f"model {number}".encode()).hexdigest()
        folder = store.incoming(key)
        folder.mkdir()
        # Of a thousand origins.
        bucket = f"s3://bucket-{number % 1000:03}"
        uri, origin = f"{bucket}/model-{number:06}", hashlib.sha256(bucket.encode()).hexdigest()
        manifest = Manifest.of(files(folder, number))._replace(requested=uri, resolved=uri, origin=origin)
        store.commit(key, folder, manifest, "auto")
        # A hundred in each hour since 1970, so that an age selects a hundred, however long the runs before it take.
        used_s = number // 100 * 3600 + 1
        os.utime(store.root / "uses" / key, (used_s, used_s))
    store.note_collection()


def files(folder: Path, number: int) -> Iterator[File]:
    """The two files of a model, as they would have been verified."""
    for path, size_bytes in (("weights.safetensors", WEIGHTS_BYTES), ("config.json", 100)):
        with (folder / path).open("wb") as file:
            file.truncate(size_bytes)
        digest = Digest("sha256", hashlib.sha256(f"{path} {number}".encode()).hexdigest())
        yield File(path, size_bytes, Digest("crc32", f"{number:08x}"), '"etag"', (digest,), digest)


def run(store: Path, *arguments: str, **environ: str) -> tuple[float, float]:
    """CPU seconds and peak memory, in MiB, of one process."""
    env = {"PATH": os.environ["PATH"], "LADING_STORE": str(store), **environ}
    with Path(os.devnull).open("w") as nowhere:
        actions = [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1), (os.POSIX_SPAWN_DUP2, nowhere.fileno(), 2)]
        child = os.posix_spawn(LADING[0], [*LADING, *arguments], env, file_actions=actions)
        _, status, usage = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, arguments
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(root: Path, models: int) -> str:
    """A line of the table."""
    store, source = root / "store", root / "source"
    source.mkdir(exist_ok=True)
    (source / "config.json").write_text("{}")
    print(f"filling a store with {models} models", file=sys.stderr)
    fill(store, models)
    config = root / "lading.yaml"
    # The store has no bytes on the disk: only by age can it be too much.
    config.write_text(f"store: {{max_age_s: {time.time() - 1800:.0f}, high: 100%, low: 100%}}\n")
    marks = root / "marks.yaml"
    marks.write_text("store: {high: 100GiB, low: 90GiB}\n")
    run(store, "store", "ls")
    measured = [
        run(store, "store", "ls"),
        run(store, "store", "ls", "--json"),
        run(store, "pull", str(source), str(root / "first"), LADING_CONFIG=str(marks)),
        run(store, "pull", str(source), str(root / "again"), LADING_CONFIG=str(marks)),
        run(store, "store", "prune", LADING_CONFIG=str(marks)),
        run(store, "store", "prune", LADING_CONFIG=str(config)),
    ]
    for folder in (store, root / "first", root / "again"):
        shutil.rmtree(folder)
    return f"| {models:,} | " + " | ".join(f"{seconds:.2f} s, {mib:.0f} MiB" for seconds, mib in measured) + " |"


def main() -> int:
    """Measure, and write ``results/store-size.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="1000,10000,100000")
    parser.add_argument("--root", type=Path, default=race.HERE.parent / ".bench/store-size")
    parser.add_argument("--results", type=Path, default=race.HERE / "results")
    options = parser.parse_args()
    root = options.root.absolute() / "lading-store-size"
    root.mkdir(parents=True, exist_ok=True)
    rows = [measure(root, int(number)) for number in options.models.split(",")]
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [
        "# Store of many models",
        "",
        f"{today}; {race.machine(LADING)}.",
        "",
        "CPU seconds and peak memory of whole processes. Each model is a sparse file of 100 MiB and a config, so that 100,000 models",
        "stand for 10 TB. `first` and `again` are deliveries of a small model beside all others, with watermarks in bytes; `sweep` is",
        "`lading store prune` with nothing to evict, and `evict 100` with a hundred models that are too old.",
        "",
        "| models | `ls` | `ls --json` | `pull`, first | `pull`, again | sweep | evict 100 |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    text = "\n".join(lines) + "\n"
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "store-size.md").write_text(text)
    print(text)
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
