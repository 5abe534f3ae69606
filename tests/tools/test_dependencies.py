"""The two checks on what is shipped: a distribution without a reason, and a module in the image that nobody imports."""

import importlib
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.syspath_prepend(ROOT / "tools/image")
    return importlib.import_module


def test_every_distribution_is_explained_and_used_and_within_the_budgets(tool):
    dependencies = tool("dependencies")
    why = dependencies.reasons(dependencies.REASONS.read_text())
    assert dependencies.problems(dependencies.dependencies(), why, dependencies.imported(ROOT / "src")) == []


@pytest.mark.parametrize(
    ("about", "why", "said"),
    [
        ({}, {}, "left-pad is there without a reason in 0001-dependencies.md"),
        ({}, {"left-pad": ""}, "left-pad is there without a reason in 0001-dependencies.md"),
        ({}, {"Left.Pad": "pads", "isal": "CRCs"}, "isal has a reason in 0001-dependencies.md, and is not there"),
        ({"licence": ""}, {"left-pad": "pads"}, "left-pad has no licence"),
        ({"packages": frozenset({"leftpad"})}, {"left-pad": "pads"}, "left-pad is imported nowhere"),
        ({"size_bytes": 31_000_000}, {"left-pad": "pads"}, "together they are 31.0 MB, over the budget of 30"),
    ],
)
def test_what_is_wrong_with_a_distribution_is_said(tool, about, why, said):
    dependencies = tool("dependencies")
    known = {"name": "left-pad", "version": "1", "licence": "MIT", "size_bytes": 1, "packages": frozenset({"left_pad"})}
    found = [dependencies.Dependency(**known | about)]
    assert dependencies.problems(found, why, {"left_pad"}) == [said]


def test_too_many_are_too_many(tool):
    dependencies = tool("dependencies")
    found = [dependencies.Dependency(f"d{n}", "1", "MIT", 1, frozenset({"d"})) for n in range(9)]
    why = {each.name: "why not" for each in found}
    assert dependencies.problems(found, why, {"d"}) == ["they are 9, over the budget of 8"]


def test_every_crate_is_under_a_permitted_licence(tool):
    dependencies = tool("dependencies")
    found = dependencies.crates(dependencies.CRATES.read_text())
    assert {name for name, _, _ in found} >= {"pyo3", "ring", "rustls"}
    assert dependencies.not_permitted(found) == []
    [said] = dependencies.not_permitted([("odd", "1", "(MIT OR GPL-3.0-only) AND Unicode-3.0")])
    assert "odd is under" in said


def test_no_lock_is_kept_and_each_crate_is_named_with_its_checksum(tool):
    dependencies = tool("dependencies")
    lines = [line for line in dependencies.CRATES.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9_-]+ [0-9.]+ [0-9a-f]{64} \S.*", line) for line in lines)
    listed = subprocess.run(["git", "ls-files", "native"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "Cargo.lock" not in listed
    assert "registry" not in (ROOT / "native/Cargo.toml").read_text()


@pytest.fixture
def site(tmp_path):
    """lading, which imports ``used`` and, in a function, ``used.later``; beside it a module that nobody imports."""
    files = {
        "lading/__init__.py": "",
        "lading/main.py": "import used\ndef f():\n    from used import later\n",
        "used/__init__.py": "",
        "used/later.py": "import in_library\n",
        "used/never.py": "",
        "planted.py": "import used.never\n",
    }
    for name, text in files.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(text)
    (tmp_path / "library").mkdir()
    (tmp_path / "library/in_library.py").touch()
    (tmp_path / "library/not_wanted.py").touch()
    return tmp_path / "site"


def test_the_image_gets_the_modules_that_an_import_leads_to(tool, site):
    found = tool("closure").modules(site, [site.parent / "library"], by_name=())
    assert set(found) == {"lading", "lading.main", "used", "used.later", "in_library"}


def test_a_module_in_the_image_that_no_import_leads_to_is_named(tool, site):
    strays = tool("closure").strays(site, [site.parent / "library"], by_name=())
    assert [path.name for path in strays] == ["not_wanted.py", "planted.py", "never.py"]
