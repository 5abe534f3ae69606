"""List what lading needs at run time: each distribution, why it is there, its version, size and licence.

The reasons are those of the table in docs/adr/0001-dependencies.md, and written nowhere else.  Ends
with 1 if a distribution has none, or a reason no distribution, if one has no licence or is imported
nowhere, or if together they are too many or too large.  Looks at what is installed beside this Python.

Then the crates of lading-native: a licence that is not permitted ends with 1, too, and so does what cargo-audit
knows of them, where it is installed.
"""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
REASONS = ROOT / "docs/adr/0001-dependencies.md"
CRATES = ROOT / "native/crates.txt"
# Each lets a program be shipped with what it is built from, if its notice is.
PERMITTED = {"Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-3-Clause", "ISC", "MIT", "Unicode-3.0"}
MOST_MEGABYTES = 30.0
MOST_DISTRIBUTIONS = 8


class Dependency(NamedTuple):
    """One distribution; ``packages`` are the names that it is imported by."""

    name: str
    version: str
    licence: str
    size_bytes: int
    packages: frozenset[str]


def reasons(text: str) -> dict[str, str]:
    """The first two columns of the table whose first is headed "distribution"."""
    table = re.search(r"^\| distribution \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = (line.split("|") for line in table[1].splitlines()) if table else ()
    return {row[1].strip(): row[2].strip() for row in rows}


def dependencies(name: str = "lading") -> list[Dependency]:
    """Everything that ``name``, without an extra, needs here, by name; not itself."""
    found: dict[str, Distribution] = {}
    wanted = [name]
    while wanted:
        for text in distribution(wanted.pop()).requires or ():
            requirement = Requirement(text)
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if needed and canonicalize_name(requirement.name) not in found:
                found[canonicalize_name(requirement.name)] = distribution(requirement.name)
                wanted.append(requirement.name)
    return [_dependency(found[key]) for key in sorted(found)]


def _dependency(found: Distribution) -> Dependency:
    files = [Path(str(file.locate())) for file in found.files or ()]
    about = found.metadata
    told = [about[field].partition("\n")[0] for field in ("License-Expression", "License") if field in about]
    tops = {file.parts[0].partition(".")[0] for file in found.files or () if file.suffix in (".py", ".so")}
    size_bytes = sum(file.stat().st_size for file in files if file.is_file())
    return Dependency(found.name, found.version, "".join(told[:1]), size_bytes, frozenset(tops))


def imported(source: Path) -> set[str]:
    """The first part of every name that a module below ``source`` imports."""
    found = set()
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return {name.partition(".")[0] for name in found}


def problems(found: Iterable[Dependency], why: Mapping[str, str], names: set[str]) -> list[str]:
    """What is wrong, a sentence each; ``names`` is what lading imports."""
    found = list(found)
    told = {canonicalize_name(name) for name, reason in why.items() if reason}
    known = {canonicalize_name(each.name) for each in found}
    wrong = [
        f"{each.name} is there without a reason in {REASONS.name}"
        for each in found
        if canonicalize_name(each.name) not in told
    ]
    wrong += [f"{name} has a reason in {REASONS.name}, and is not there" for name in sorted(told - known)]
    wrong += [f"{each.name} has no licence" for each in found if not each.licence]
    wrong += [f"{each.name} is imported nowhere" for each in found if not each.packages & names]
    megabytes = sum(each.size_bytes for each in found) / 1e6
    if megabytes > MOST_MEGABYTES:
        wrong.append(f"together they are {megabytes:.1f} MB, over the budget of {MOST_MEGABYTES:g}")
    if len(found) > MOST_DISTRIBUTIONS:
        wrong.append(f"they are {len(found)}, over the budget of {MOST_DISTRIBUTIONS}")
    return wrong


def crates(text: str) -> list[tuple[str, str, str]]:
    """Name, version and licence of each line that tools/native/crates.py wrote."""
    rows = (line.split(maxsplit=3) for line in text.splitlines() if not line.startswith("#"))
    return [(name, version, licence) for name, version, _, licence in rows]


def not_permitted(found: Iterable[tuple[str, str, str]]) -> list[str]:
    """A sentence for each crate that is under another licence, also if that is one of several to choose from."""
    split = re.compile(r" (?:OR|AND) |[()]")
    return [
        f"{name} is under {licence}, which tools/dependencies.py does not permit"
        for name, _, licence in found
        if not {part.strip() for part in split.split(licence)} - {""} <= PERMITTED
    ]


def audited() -> list[str]:
    """What the RustSec database has on these crates: looked at only by those who have cargo-audit and can reach it."""
    if not shutil.which("cargo-audit") or not (CRATES.parent / "Cargo.lock").exists():
        print("advisories: not looked at, for cargo-audit is not installed or native/Cargo.lock not made")
        return []
    done = subprocess.run(["cargo-audit", "audit", "--deny", "warnings"], cwd=CRATES.parent, check=False)
    return ["cargo-audit has something to say"] if done.returncode else []


def main() -> int:
    """Print the table and what is wrong."""
    found, why = dependencies(), reasons(REASONS.read_text(encoding="utf-8"))
    told = {canonicalize_name(name): reason for name, reason in why.items()}
    for each in found:
        reason = told.get(canonicalize_name(each.name), "")
        print(f"{each.name:15} {each.version:8} {each.size_bytes / 1e6:5.1f} MB  {each.licence:16} {reason}")
    total = sum(each.size_bytes for each in found) / 1e6
    print(f"{len(found)} distributions, {total:.1f} MB  (budgets {MOST_DISTRIBUTIONS}, {MOST_MEGABYTES:g} MB)")
    built_from = crates(CRATES.read_text(encoding="utf-8"))
    print(f"lading-native (an extra) is built from {len(built_from)} crates:")
    for name, version, licence in built_from:
        print(f"  {name:20} {version:8} {licence}")
    wrong = problems(found, why, imported(ROOT / "src")) + not_permitted(built_from) + audited()
    for sentence in wrong:
        print(f"error: {sentence}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
