"""What users of the library may rely on, and that whoever shows how to use it relies on nothing else."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lading
from command_line import ENVIRONMENT, EXAMPLES, write_model
from lading.errors import IntegrityError, NotFound

ROOT = EXAMPLES.parent
PAGE = (ROOT / "docs/python.md").read_text()
USERS = sorted([*(ROOT / "examples").glob("*.py"), *(ROOT / "compat").rglob("*.py")])
MODULES = {"lading": lading, "lading.errors": lading.errors, "lading.events": lading.events}


def test_these_names_are_public() -> None:
    assert lading.__all__ == [
        *(
            "Audit",
            "Digest",
            "File",
            "LadingError",
            "ListedFile",
            "Listing",
            "Manifest",
            "Request",
            "Settings",
            "__version__",
        ),
        *("errors", "events", "pull", "pull_all", "redact", "resolve", "sentence", "verify"),
    ]


def test_every_public_name_is_there_and_told_on_the_page() -> None:
    table = PAGE.partition("| name |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) == {*lading.__all__, "Event", "Listener"} - {"__version__"}
    for name in lading.__all__:
        assert getattr(lading, name)


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'pull_some'"):
        lading.pull_some  # noqa: B018 - reading it is the test


def taken(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Every name that is taken from lading, and the module that it is taken from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (("lading", alias.name) for alias in node.names if alias.name.startswith("lading."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "lading":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in MODULES:
            yield ast.unparse(node.value), node.attr


def is_public(module: str, name: str) -> bool:
    return name in lading.__all__ if module == "lading" else module in MODULES and hasattr(MODULES[module], name)


@pytest.mark.parametrize("user", USERS, ids=lambda path: path.name)
def test_the_examples_and_compat_use_public_names_alone(user: Path) -> None:
    assert [pair for pair in taken(ast.parse(user.read_text())) if not is_public(*pair)] == []


def test_what_uses_lading_is_seen() -> None:
    found = {pair for user in USERS for pair in taken(ast.parse(user.read_text()))}
    assert {("lading", "pull"), ("lading", "pull_all"), ("lading.events", "Event")} <= found
    assert list(taken(ast.parse("import lading.deliver"))) == [("lading", "lading.deliver")]
    assert not is_public("lading.deliver", "deliver")


def test_the_page_s_examples_run_one_after_the_other(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    first, second, third, *others = done.stdout.splitlines()
    assert first.startswith("sha256:")
    assert second.startswith("v1 model-registry://catalog/iris/v1?pin=sha256:")
    assert third == "True () () ()"
    assert others[-1].startswith("not-found there is no file or folder examples/iris/v3 ")
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"iris", "champion", "v1", "v2"}
    assert (tmp_path / "models/v2/model.onnx").read_bytes() == (EXAMPLES / "iris/v2/model.onnx").read_bytes()


def test_verify_names_what_is_wrong(tmp_path: Path) -> None:
    lading.pull(str(write_model(tmp_path / "model")), tmp_path / "dest", settings=lading.Settings())
    assert lading.verify(tmp_path / "dest").is_clean
    (tmp_path / "dest/config.json").write_bytes(b'{"a": 2}')
    (tmp_path / "dest/weights/empty").unlink()
    audit = lading.verify(tmp_path / "dest")
    assert (audit.is_clean, audit.changed, audit.missing) == (False, ("config.json",), ("weights/empty",))
    with pytest.raises(NotFound):
        lading.verify(tmp_path / "model")


def test_of_several_models_none_appears_when_one_fails(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_model(tmp_path / "one", **{"a.bin": b"a"})
    wrong = lading.Digest.parse("sha256:" + "0" * 64)
    requests = [
        lading.Request(str(tmp_path / "model"), tmp_path / "first"),
        lading.Request(str(tmp_path / "one/a.bin"), tmp_path / "second", wrong),
    ]
    with pytest.raises(IntegrityError):
        lading.pull_all(requests, settings=lading.Settings())
    assert not list(tmp_path.glob("first/*.json"))
    assert not list(tmp_path.glob("second/*"))


def test_sentences_and_redacted_uris_may_be_printed() -> None:
    assert (
        lading.sentence(lading.events.Waiting("/mnt/\x1b[2J")) == "waiting: another process delivers to /mnt/\\x1b[2J"
    )
    assert lading.redact("https://user:s3cret@host/\x1b[2J") == "https://***@host/\\x1b[2J"
