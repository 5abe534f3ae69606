"""The lock of lading-native is made anew for each build, and is the one that native/crates.txt describes."""

import importlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not shutil.which("cargo"), reason="cargo is not installed")


@pytest.fixture
def crates(monkeypatch, tmp_path):
    """The tool, on a copy: what it is asked to find is not what is built."""
    # Where rustup and cargo have what they keep.
    monkeypatch.setenv("HOME", pwd.getpwuid(os.getuid()).pw_dir)
    monkeypatch.syspath_prepend(ROOT / "tools/native")
    tool = importlib.import_module("crates")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/lib.rs").touch()
    for name in ("Cargo.toml", "crates.txt"):
        shutil.copy(ROOT / "native" / name, tmp_path)
    monkeypatch.setattr(tool, "NATIVE", tmp_path)
    monkeypatch.setattr(tool, "CRATES", tmp_path / "crates.txt")
    monkeypatch.setattr(tool, "LOCK", tmp_path / "Cargo.lock")
    return tool


def change(tool, name: str, **fields: str) -> None:
    lines = [str(each._replace(**fields) if each.name == name else each) for each in tool.told()]
    tool.CRATES.write_text("\n".join(lines) + "\n")


def test_the_lock_is_made_of_exactly_these(crates):
    assert crates.main("lock") == 0
    assert crates.found() == crates.told()


def test_another_checksum_is_refused(crates, capsys):
    change(crates, "ring", checksum="0" * 64)
    assert crates.main("lock") == 1
    assert "error: only in crates.txt: ring" in capsys.readouterr().err


def test_a_crate_that_is_not_told_is_refused(crates, capsys):
    crates.CRATES.write_text("".join(f"{each}\n" for each in crates.told() if each.name != "untrusted"))
    assert crates.main("lock") == 1
    assert "error: only in what cargo resolved: untrusted" in capsys.readouterr().err


def test_an_older_version_is_taken_where_the_file_says_so_and_its_checksum_looked_at(crates, capfd):
    change(crates, "libc", version="0.2.190", checksum="0" * 64)
    with pytest.raises(subprocess.CalledProcessError):
        crates.make_lock(crates.told())
    assert "checksum for `libc v0.2.190`" in capfd.readouterr().err
