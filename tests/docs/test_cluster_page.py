"""docs/cluster-tests.md names the tests that there are, and all of them."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ("test_wirings", "test_pod_failures", "test_node_store")
PAGE = (ROOT / "docs/cluster-tests.md").read_text()


def functions_of(name):
    tree = ast.parse((ROOT / f"tests/cluster/{name}.py").read_text())
    return {one.name for one in tree.body if isinstance(one, ast.FunctionDef) and one.name.startswith("test_")}


def test_the_page_names_every_wiring_and_every_failure_that_is_tested():
    named = set(re.findall(r"`(test_\w+)` \|$", PAGE, re.MULTILINE))
    assert set().union(*map(functions_of, FILES)) <= named
    assert named <= set().union(*map(functions_of, (*FILES, "test_applied")))
