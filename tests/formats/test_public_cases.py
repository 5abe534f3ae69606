"""The table in docs/trust.md says of the cases of public scanners' test suites what is refused, and nothing more."""

import io
import os
import pickle
import re
from pathlib import Path

import pytest

from formats.public_cases import CASES, Case
from lading.formats.inspector import Inspector, any_pickle
from lading.formats.pickles import scanned_code

WRITE = "LADING_WRITE_GOLDEN" in os.environ
PAGE = Path(__file__).parents[2] / "docs/trust.md"
HEAD = "| | what | after | | `code: refuse` | `code: scan` |\n|---|---|---|---|---|---|\n"


def refused(case: Case, inspector: Inspector) -> int:
    """How many of the files are refused by the defaults: as code or as damaged."""
    found = [inspector.inspect(path, io.BytesIO(data), len(data)) for path, data in case.files]
    return sum(bool(finding.code or finding.fault) for finding in found)


def verdict(case: Case, inspector: Inspector) -> str:
    number, all_of_them = refused(case, inspector), len(case.files)
    if number in (0, all_of_them):
        return "refused" if number else "**passes**" if case.harmful else "passes"
    return f"{number} of {all_of_them} refused"


def row(case: Case) -> str:
    verdicts = " | ".join(verdict(case, Inspector(look)) for look in (any_pickle, scanned_code))
    return f"| {len(case.files)} | {case.what} | {case.after} | {'' if case.harmful else 'harmless'} | {verdicts} |\n"


def test_the_table_says_what_is_refused_and_what_passes():
    table = HEAD + "".join(map(row, CASES))
    page = PAGE.read_text()
    if WRITE:
        PAGE.write_text(re.sub(re.escape(HEAD) + r"(\|.*\n)*", lambda _: table, page))
    assert table in PAGE.read_text(), "write it anew: LADING_WRITE_GOLDEN=1 pytest tests/formats/test_public_cases.py"


@pytest.mark.parametrize("case", [case for case in CASES if not case.harmful], ids=lambda case: case.what)
def test_what_is_called_harmless_runs_nothing(case):
    """Its pickles are loaded with no name allowed but those that they are about."""
    allowed = {"OrderedDict": dict, "_rebuild_tensor_v2": tuple, "FloatStorage": tuple, "LogisticRegression": object}

    class Harmless(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            return allowed[name]

    for path, data in case.files:
        if path.endswith(".pkl"):
            Harmless(io.BytesIO(data)).load()
