"""How a version is made: where it stands, what keeps it from being built, and what is said of how it was built."""

import hashlib
import importlib
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = ("pyproject.toml", "CHANGELOG.md", "changes/README.md", "changes/template.jinja")


@pytest.fixture
def release(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("release")


@pytest.fixture
def tree(release, tmp_path):
    """A repository that has what a version is written into, one change, and nothing else."""
    for name in (*FILES, *release.PLACES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "changes/iris.added.md").write_text("Iris is [brought](../docs/iris.md).\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_the_version_is_the_same_wherever_it_stands_now(release):
    assert len(set(release.stated(ROOT).values())) == 1


def test_preparing_writes_the_version_everywhere_and_empties_changes(release, tree):
    release.prepare(tree, "7.8.9")
    assert set(release.stated(tree).values()) == {"7.8.9"}
    assert release.disagreements(tree, "7.8.9") == []
    assert release.fragments(tree) == []
    changelog = (tree / "CHANGELOG.md").read_text()
    assert changelog.startswith("# Changelog\n")
    assert "\n### Added\n\n- Iris is [brought](docs/iris.md).\n" in changelog
    (tree / "changes/iris.fixed.md").write_text("Iris wilts no more.\n")
    release.prepare(tree, "7.9.0")
    changelog = (tree / "CHANGELOG.md").read_text()
    assert "- Iris wilts no more.\n\n## 7.8.9 (" in changelog
    assert changelog.index("## 7.9.0") < changelog.index("## 7.8.9")


@pytest.mark.parametrize("version", ["", "v1.2.3", "1.2", "1.2.3rc1", "1.2.3 4"])
def test_nothing_but_a_version_is_prepared(release, tree, version):
    with pytest.raises(release.Refused, match="is no version"):
        release.prepare(tree, version)
    assert release.stated(tree) == release.stated(ROOT)


def test_a_version_without_a_change_is_not_prepared(release, tree):
    (tree / "changes/iris.added.md").unlink()
    with pytest.raises(release.Refused, match="nothing to release"):
        release.prepare(tree, "7.8.9")


def test_what_is_no_clean_checkout_of_the_tag_is_refused_with_every_reason(release, tree, monkeypatch):
    monkeypatch.delenv("BASE", raising=False)
    (tree / "pyproject.toml").write_text("")
    with pytest.raises(release.Refused) as refused:
        release.build(tree, "7.8.9")
    for reason in (
        "src/lading/__init__.py says",
        "compat/pyproject.toml says",
        "CHANGELOG.md has no 7.8.9",
        "changes/iris.added.md is not in the changelog",
        "not committed",
        "no tag v7.8.9",
        "BASE names no Debian by digest",
    ):
        assert reason in str(refused.value)


def test_a_checkout_of_the_tag_is_taken(release, tree, monkeypatch):
    release.prepare(tree, "7.8.9")
    for command in (
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "b"],
        ["tag", "v7.8.9"],
    ):
        subprocess.run(["git", *command], cwd=tree, check=True)
    monkeypatch.setenv("BASE", "docker.io/library/debian@sha256:" + "0" * 64)
    release.check_tag(tree, "7.8.9")


@pytest.fixture
def provenance(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("provenance")


def test_a_statement_names_each_file_by_its_digest(provenance, tmp_path):
    (tmp_path / "a.whl").write_bytes(b"wheel")
    said = provenance.statement([tmp_path / "a.whl"], {"version": "1"}, [{"name": "source"}], {})
    assert said["subject"] == [{"name": "a.whl", "digest": {"sha256": hashlib.sha256(b"wheel").hexdigest()}}]
    assert said["predicate"]["buildDefinition"]["externalParameters"] == {"version": "1"}
    assert said["predicate"]["buildDefinition"]["resolvedDependencies"] == [{"name": "source"}]


def test_a_base_is_a_material_if_a_digest_says_which_it_was(provenance):
    digest = "a" * 64
    source, *locks = provenance.materials(ROOT, "c0ffee", "1.2.3", "local", {})
    assert source == {"name": "source", "digest": {"gitCommit": "c0ffee"}}
    assert [lock["name"] for lock in locks] == ["requirements/runtime.txt", "requirements/build.txt"]
    *_, base = provenance.materials(ROOT, "c0ffee", "1.2.3", f"docker.io/library/debian@sha256:{digest}", {})
    assert base == {"uri": "docker://docker.io/library/debian", "digest": {"sha256": digest}}


def test_a_workflow_is_named_as_the_builder(provenance):
    now = datetime(2026, 12, 1, tzinfo=UTC)
    environ = {
        "GITHUB_SERVER_URL": "https://forge.example.com",
        "GITHUB_REPOSITORY": "o/lading",
        "GITHUB_WORKFLOW_REF": "o/lading/.github/workflows/release.yml@refs/tags/v1.2.3",
        "GITHUB_RUN_ID": "7",
        "GITHUB_RUN_ATTEMPT": "1",
    }
    said = provenance.run_details(now, now, environ)
    assert said["builder"]["id"] == "https://forge.example.com/" + environ["GITHUB_WORKFLOW_REF"]
    assert said["metadata"]["invocationId"] == "https://forge.example.com/o/lading/actions/runs/7/attempts/1"
    assert said["metadata"]["startedOn"] == "2026-12-01T00:00:00Z"
    source, *_ = provenance.materials(ROOT, "c0ffee", "1.2.3", "", environ)
    assert source["uri"] == "git+https://forge.example.com/o/lading@refs/tags/v1.2.3"
    assert provenance.run_details(now, now, {})["builder"] == {"id": provenance.BY_HAND}
