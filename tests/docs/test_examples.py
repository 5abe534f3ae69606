import ast
import json
import subprocess
import sys

import pytest
import yaml

from command_line import CATALOG, ENVIRONMENT, EXAMPLES, contents, lading, sha256

VERSIONS = ("v0", "v1", "v2")


@pytest.fixture(scope="module")
def iris():
    return yaml.safe_load((EXAMPLES / "catalog.yaml").read_text())["models"]["iris"]


def test_the_catalog_names_every_version_and_archives_the_first(iris):
    assert tuple(iris["versions"]) == VERSIONS
    assert [entry["state"] for entry in iris["versions"].values()] == ["archived", "live", "live"]
    assert iris["aliases"] == {"champion": "v1", "challenger": "v2"}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_is_the_one_whose_digest_the_catalog_records(iris, version):
    files = contents(EXAMPLES / "iris" / version)
    assert {path: sha256(data) for path, data in files.items()} == iris["versions"][version]["digests"]
    assert any("/" in path for path in files)
    assert sum(map(len, files.values())) < 30_000


@pytest.mark.parametrize("version", VERSIONS)
def test_the_metadata_agree_with_each_other(iris, version):
    folder = EXAMPLES / "iris" / version
    config = json.loads((folder / "config.json").read_text())
    metadata = iris["versions"][version]["metadata"]
    assert config["version"] == version
    assert (folder / "labels.txt").read_text().split() == config["classes"]
    assert (config["accuracy"], config["training"]["algorithm"]) == (metadata["accuracy"], metadata["algorithm"])
    header, *rows = (folder / "evaluation/held-out.csv").read_text().splitlines()
    assert header.split(",") == [*config["input"]["features"], "class"]
    assert len(rows) == config["training"]["held_out_rows"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_accuracy_is_what_the_confusion_matrix_says(version):
    folder = EXAMPLES / "iris" / version
    counts = json.loads((folder / "evaluation/confusion.json").read_text())["counts"]
    right = sum(row[kind] for kind, row in enumerate(counts))
    assert right / sum(map(sum, counts)) == json.loads((folder / "config.json").read_text())["accuracy"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_model_is_onnx_that_holds_its_inputs_and_outputs(version):
    # A full look takes onnxruntime, which train.py's surroundings have and the tests do not.
    model = (EXAMPLES / "iris" / version / "model.onnx").read_bytes()
    config = json.loads((EXAMPLES / "iris" / version / "config.json").read_text())
    assert b"skl2onnx" in model
    for name in (config["input"]["name"], *config["outputs"]):
        assert name.encode() in model


def test_the_archived_version_is_not_delivered(tmp_path):
    outcome = lading("pull", "model-registry://iris/v0", tmp_path / "dest", "--catalog", CATALOG)
    assert outcome.code == 3
    assert "is archived" in outcome.err
    assert not (tmp_path / "dest").exists()


def test_pull_in_python_delivers_the_champion(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "pull_in_python.py", tmp_path / "dest"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[0].startswith("champion is v1: 5 files, ")
    assert done.stdout.splitlines()[-1] == "logistic regression on standardised features, accuracy 0.96"
    assert contents(tmp_path / "dest") == contents(EXAMPLES / "iris/v1")


def test_the_commands_of_the_readme_work_as_written(tmp_path):
    readme = (EXAMPLES / "README.md").read_text()
    commands = [line.split() for line in readme.splitlines() if line.startswith("lading ")]
    assert [command[1] for command in commands] == ["resolve", "pull", "verify"]
    for _, *argv in commands:
        argv = [str(tmp_path / "iris") if word == "/tmp/iris" else word for word in argv]
        outcome = lading(*argv, cwd=EXAMPLES.parent)
        assert outcome.code == 0, outcome.err


def test_every_script_parses_and_says_what_it_does():
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert scripts
    for script in scripts:
        assert ast.get_docstring(ast.parse(script.read_text()))
