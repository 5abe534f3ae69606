"""Makes native/Cargo.lock from native/crates.txt, so that every build has exactly these crates.

  crates.py lock     make the lock; ends with 1 if a crate, a version or a checksum is another than the file says
  crates.py update   resolve anew, and write the file

A lock that cargo writes names the registry that it was made with; ours are the names, versions and checksums alone.
Only what is built for Linux is in the file: cargo also locks what other systems would need, and never fetches it.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

NATIVE = Path(__file__).resolve().parent.parent.parent / "native"
CRATES = NATIVE / "crates.txt"
LOCK = NATIVE / "Cargo.lock"
TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl")  # fmt: skip
HEAD = "# Every crate that lading-native is built from: name, version, SHA-256, licence.  Made by tools/native/crates.py update\n"


class Crate(NamedTuple):
    """One line of the file."""

    name: str
    version: str
    checksum: str
    licence: str

    @classmethod
    def parse(cls, line: str) -> "Crate":
        """``str`` of a crate gives the line."""
        name, version, checksum, licence = line.split(maxsplit=3)
        return cls(name, version, checksum, licence)

    def __str__(self) -> str:
        return f"{self.name} {self.version} {self.checksum} {self.licence}"


def told() -> list[Crate]:
    """What the file says."""
    lines = CRATES.read_text(encoding="utf-8").splitlines()
    return [Crate.parse(line) for line in lines if line and not line.startswith("#")]


def found() -> list[Crate]:
    """What the lock has for Linux; cargo fetches what it does not have yet."""
    checksums = {(each["name"], each["version"]): each.get("checksum", "") for each in _locked()}
    crates = set()
    for target in TARGETS:
        graph = json.loads(_cargo("metadata", "--format-version", "1", "--locked", "--filter-platform", target))
        reached = {each["id"] for each in graph["resolve"]["nodes"]}
        for each in graph["packages"]:
            if each["id"] in reached and each["source"]:
                key = (each["name"], each["version"])
                crates.add(Crate(*key, checksums[key], each["license"] or "unknown"))
    return sorted(crates)


def make_lock(wanted: list[Crate]) -> None:
    """Let cargo resolve with a preference for these versions: it takes what an older lock has, where that will do."""
    LOCK.unlink(missing_ok=True)
    _cargo("generate-lockfile")
    have = {(each["name"], each["version"]) for each in _locked()}
    if all((each.name, each.version) in have for each in wanted):
        return
    source = next(each["source"] for each in _locked() if "source" in each)
    lines = ["version = 4"]
    for each in wanted:
        lines += ["[[package]]", f'name = "{each.name}"', f'version = "{each.version}"']
        lines += [f'source = "{source}"', f'checksum = "{each.checksum}"']
    LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _cargo("metadata", "--format-version", "1", "--filter-platform", TARGETS[0])


def _locked() -> list[dict[str, Any]]:
    packages: list[dict[str, Any]] = tomllib.loads(LOCK.read_text(encoding="utf-8"))["package"]
    return packages


def _cargo(*arguments: str) -> bytes:
    return subprocess.run(["cargo", "--quiet", *arguments], cwd=NATIVE, check=True, stdout=subprocess.PIPE).stdout


def main(command: str) -> int:
    """One of the two commands."""
    if command == "update":
        LOCK.unlink(missing_ok=True)
        _cargo("generate-lockfile")
        CRATES.write_text(HEAD + "".join(f"{each}\n" for each in found()), encoding="utf-8")
        return 0
    wanted = told()
    make_lock(wanted)
    there = found()
    for each in sorted(set(wanted) ^ set(there)):
        where = CRATES.name if each in wanted else "what cargo resolved"
        print(f"error: only in {where}: {each}", file=sys.stderr)
    return int(wanted != there)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except subprocess.CalledProcessError:
        sys.exit(1)  # cargo has said why
