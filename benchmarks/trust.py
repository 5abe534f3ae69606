"""What rules of trust cost: a signed delivery against a plain one, and judging formats against not looking.

    trust.py [--rounds 5] [--scale 1] [--root DIR] [--results DIR]

Each row is the median of whole processes on one CPU, the server on the other; every round runs each of a table's
commands once.  Models are signed by the reference program, model_signing, which make test-servers installs.
"""

import argparse
import json
import os
import pickle
import random
import statistics
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import installed
import race
import serve

_SIGNER = race.HERE.parent / ".servers/model-signing/bin/model_signing"
_HEAD = "| | wall ms | CPU ms | requests | wall, ratio | CPU, ratio |\n|---|---|---|---|---|---|"


def _signed(make: Callable[[Path, float], None]) -> Callable[[Path, float], None]:
    def make_signed(folder: Path, scale: float) -> None:
        make(folder, scale)
        key = _key(folder.parents[2])
        signature = ["--private_key", str(key), "--signature", str(folder / "model.sig")]
        subprocess.run([str(_SIGNER), "sign", "key", str(folder), *signature], check=True, capture_output=True)

    return make_signed


def _key(root: Path) -> Path:
    """The private key below ``root``; the public one is beside it."""
    key = root / "models.pem"
    if not key.exists():
        new = ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
        public = ["pkey", "-in", str(key), "-pubout", "-out", str(key.with_suffix(".pub"))]
        for words in (new, public):
            subprocess.run(["openssl", *words], check=True, capture_output=True)
    return key


def _checkpoint(folder: Path, scale: float) -> None:
    """Weights as PyTorch keeps them: in a zip, not compressed, a pickle of names beside the bytes."""
    folder.mkdir(parents=True)
    noise = random.Random(12).randbytes(16 << 20)
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as bundle:
        names = OrderedDict((f"layer.{number}.weight", (number, (4096, 1024))) for number in range(round(64 * scale)))
        bundle.writestr("archive/data.pkl", pickle.dumps(names, 2))
        for number in range(len(names)):
            bundle.writestr(f"archive/data/{number}", noise)


def _arrays(folder: Path, scale: float) -> None:
    """A pickle that is mostly bytes: arrays of a scikit-learn model."""
    folder.mkdir(parents=True)
    noise = random.Random(13).randbytes(4 << 20)
    with (folder / "model.pkl").open("wb") as file:
        pickle.dump([OrderedDict(a=noise[number:]) for number in range(round(256 * scale))], file, 4)


def _objects(folder: Path, scale: float) -> None:
    """A pickle that is mostly instructions: a vocabulary of small objects."""
    folder.mkdir(parents=True)
    with (folder / "vocabulary.pkl").open("wb") as file:
        pickle.dump({f"word-{number}": (number, number / 7) for number in range(round(400_000 * scale))}, file, 4)


_LLM, _MANY = serve.SETS["llm"], serve.SETS["many"]
SETS = {
    "llm": serve.Set(f"{_LLM.what}, signed", _signed(_LLM.make)),
    "many": serve.Set(f"{_MANY.what}, signed", _signed(_MANY.make)),
    "checkpoint": serve.Set("a PyTorch checkpoint of 1 GiB", _checkpoint),
    "arrays": serve.Set("a pickle of arrays, 1 GiB", _arrays),
    "objects": serve.Set("a pickle of 400,000 small objects", _objects),
}


class Case(NamedTuple):
    """One row: its name, and its rule for every origin, {} for none."""

    name: str
    rule: Mapping[str, object]


class Bench(NamedTuple):
    """What runs, where the data is, and how often it runs."""

    lading: Sequence[str]
    root: Path
    rounds: int

    def table(self, name: str, wire: str, cases: Sequence[Case]) -> str:
        """A table of these cases of one set, with the first as the base of its ratios."""
        far = ", each answer 30 ms later" if wire == "far" else ""
        text = "\n".join([f"\n## {SETS[name].what}{far}\n", _HEAD, *self._rows(name, wire, cases)])
        print(text, flush=True)
        return text

    def _rows(self, name: str, wire: str, cases: Sequence[Case]) -> Iterator[str]:
        found: dict[str, list[tuple[float, float, float]]] = {case.name: [] for case in cases}
        for _ in range(self.rounds):
            for case in cases:
                found[case.name].append(self._once(name, wire, case))
        base = found[cases[0].name]
        for each, runs in found.items():
            wall_s, cpu_s, requests = map(statistics.median, zip(*runs, strict=True))
            # Of the same round: what disturbs the machine disturbs both.
            pairs = [(run[0] / plain[0], run[1] / plain[1]) for run, plain in zip(runs, base, strict=True)]
            wall, cpu = map(statistics.median, zip(*pairs, strict=True))
            yield f"| {each} | {1000 * wall_s:.0f} | {1000 * cpu_s:.0f} | {requests:.0f} | {wall:.2f} | {cpu:.2f} |"

    def _once(self, name: str, wire: str, case: Case) -> tuple[float, float, float]:
        env = race.environment(f"http://127.0.0.1:{serve.PORTS[wire]}", self.root)
        if case.rule:
            env["LADING_CONFIG_YAML"] = json.dumps({"trust": [case.rule]})
        out, before = self.root / "out", serve.requests()
        client = race.Client(case.name, [*self.lading, "pull", f"s3://models/{name}", str(out)])
        run = race.run_once(client, "0", env, out, None)
        if run is None:
            raise SystemExit(f"{case.name} failed")
        return run.wall_s, run.cpu_s, serve.requests() - before - 1


def tables(bench: Bench) -> list[str]:
    """All tables."""
    key = {"signature": {"key": str(bench.root / "models.pub")}}
    signed = [Case("plain", {}), Case("signed by a key", key)]
    refuse = Case("damaged files refused", {"formats": {"code": "allow"}})
    scan = Case("the same, and pickles scanned", {"formats": {"code": "scan"}})
    wires = ["tcp", *(["far"] if serve.has_far() else [])]
    return [
        *(bench.table(name, wire, signed) for name in ("llm", "many") for wire in wires),
        *(bench.table(name, "tcp", [Case("plain", {}), refuse, scan]) for name in ("checkpoint", "arrays", "objects")),
    ]


def main() -> int:
    """Measure, and write ``results/trust.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--root", type=Path, default=Path("/dev/shm/lading-bench-trust"))
    parser.add_argument("--results", type=Path, default=race.RESULTS)
    options = parser.parse_args()
    with serve.serving(options.root, options.scale, SETS), installed.lading("", options.root) as lading:
        about = (
            f"{datetime.now(UTC):%Y-%m-%d}; {race.machine(lading)}; load average {os.getloadavg()[0]:.1f} at the start"
        )
        lines = [f"# Trust\n\n{about}; medians of {options.rounds}; scale {options.scale:g}."]
        lines += tables(Bench(lading, options.root, options.rounds))
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "trust.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
