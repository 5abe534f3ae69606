"""docs/cluster-tests.md names the tests that there are, all of them, and what they assert."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("test_wirings", "test_origins", "test_beside_others", "test_pod_failures", "test_node_store")
PAGE = (ROOT / "docs/cluster-tests.md").read_text()
# Of each row: what a user sees, and the test's name.
ROWS = {test: text for text, test in re.findall(r"\| ?([^|]*?) ?\| `(test_\w+)` \|$", PAGE, re.MULTILINE)}


def functions_of(name):
    tree = ast.parse((ROOT / f"tests/cluster/{name}.py").read_text())
    return {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")}


def test_the_page_names_every_wiring_and_every_failure_that_is_tested():
    tested = set().union(*map(functions_of, FILES))
    assert tested <= ROWS.keys()
    assert ROWS.keys() <= tested | functions_of("test_applied").keys()


def ends():
    """Each test of a failure that lading tells, with the exit code and the kind of error that it asserts."""
    for name, function in functions_of("test_pod_failures").items():
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "as_documented":
                code, kind = (one.value for one in call.args[2:])
                yield pytest.param(name, code, kind, id=name)


@pytest.mark.parametrize(("name", "code", "kind"), list(ends()))
def test_a_failure_has_the_exit_code_and_the_kind_that_its_test_asserts(name, code, kind):
    assert re.match(rf"(exit code )?{code}, `error\[{kind}\]: ", ROWS[name]), ROWS[name]
