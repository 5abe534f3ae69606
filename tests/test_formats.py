"""What lading writes for others, and for its own next version, compared with files in ``golden``.

Scripts, dashboards and the next release read these: a difference is a change of a public format.  To accept
one: ``LADING_WRITE_GOLDEN=1 pytest tests/test_formats.py``, and say it in ``changes/``.
"""

import json
import os
import re
from pathlib import Path

import pytest

from command_line import lading, write_model

GOLDEN = Path(__file__).parent / "golden"
# Read before the environment of the tests is emptied.
WRITE = "LADING_WRITE_GOLDEN" in os.environ
# Of times, places and i-nodes, and what is computed of them.
_VARYING = (
    (r'("(?:seconds|mtime_ns|free_bytes)"): [0-9.]+', r"\1: 0"),
    (r'("(?:time|origin|validator)"): "[^"]*"', r'\1: ""'),
    (r"pin=sha256:[0-9a-f]{64}", "pin=sha256:PIN"),
    (r" in [0-9.]+ m?s", " in 0 s"),
    (r"[0-9.]+ [KMGT]iB free", "1 GiB free"),
)


def check(name: str, text: str, *roots: Path) -> None:
    """Compare with a golden file, after what differs from run to run has been given a name."""
    for number, root in enumerate(roots):
        text = text.replace(str(root), f"/ROOT{number or ''}")
    for pattern, replacement in _VARYING:
        text = re.sub(pattern, replacement, text)
    path = GOLDEN / name
    if WRITE:
        path.write_text(text)
    assert text == path.read_text()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def tree(folder: Path) -> str:
    return "".join(f"{path.relative_to(folder)}{'/' * path.is_dir()}\n" for path in sorted(folder.rglob("*")))


def test_the_manifest_of_a_destination(model: Path, tmp_path: Path) -> None:
    lading("pull", model, tmp_path / "dest")
    check("manifest.json", (tmp_path / "dest" / ".lading.manifest").read_text(), tmp_path)


def test_what_a_pull_prints_for_scripts(model: Path, tmp_path: Path) -> None:
    outcome = lading("pull", "--json", model, tmp_path / "dest")
    check("pull.json", outcome.out, tmp_path)


def test_what_a_pull_says_to_people_and_to_a_log(model: Path, tmp_path: Path) -> None:
    said = lading("pull", model, tmp_path / "one")
    logged = lading("pull", "--log-format", "json", model, tmp_path / "two")
    check("pull.txt", said.err + said.out, tmp_path)
    check("pull.log", logged.err + logged.out, tmp_path)


def test_what_resolve_prints(model: Path, tmp_path: Path) -> None:
    check("resolve.txt", lading("resolve", model).out, tmp_path)
    check("resolve.json", lading("resolve", "--json", model).out, tmp_path)


def test_an_error_of_each_form(tmp_path: Path) -> None:
    said = lading("pull", tmp_path / "absent", tmp_path / "dest")
    logged = lading("pull", "--log-format", "json", tmp_path / "absent", tmp_path / "dest")
    check("error.txt", said.err, tmp_path)
    check("error.log", logged.err, tmp_path)


def test_the_lock_file(model: Path, tmp_path: Path) -> None:
    assert lading("lock", model, "-o", tmp_path / "lading.lock").code == 0
    check("lading.lock", (tmp_path / "lading.lock").read_text(), tmp_path)


def test_the_folders_of_a_store(model: Path, tmp_path: Path) -> None:
    lading("pull", model, tmp_path / "dest", environ={"LADING_STORE": str(tmp_path / "store")})
    names = re.sub(r"[0-9a-f]{64}", "SHA256", tree(tmp_path / "store"))
    check("store.txt", re.sub(r"^(\S*/)[0-9a-f]{2}/", r"\1XX/", names, flags=re.M))


def test_the_message_that_kubernetes_shows(model: Path, tmp_path: Path) -> None:
    environ = {"LADING_TERMINATION_LOG": str(tmp_path / "termination")}
    (tmp_path / "termination").touch()
    lading("init", str(model), str(tmp_path / "dest"), environ=environ)
    found = json.loads((tmp_path / "termination").read_text())
    check("termination.json", json.dumps(found, indent=1) + "\n", tmp_path)
