import json
import tarfile

import pytest

import lading as library
from command_line import CATALOG, EXAMPLES, contents, lading, serve, sha256, write_model
from lading.settings.settings import Settings

CHAMPION = "model-registry://iris@champion"


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "dest"


def manifest_in(dest):
    """What is in the folder's manifest but the times of the files there."""
    manifest = json.loads((dest / ".lading.manifest").read_text())
    assert [file.pop("mtime_ns") for file in manifest["files"]] == [
        (dest / file["path"]).stat().st_mtime_ns for file in manifest["files"]
    ]
    return manifest


def without_time(manifest):
    return {key: value for key, value in manifest.items() if key != "seconds"}


def test_a_local_folder_is_delivered_file_for_file(model, dest):
    outcome = lading("pull", model, dest)
    assert outcome.code == 0, outcome.err
    assert contents(dest) == contents(model)
    assert outcome.out == ""
    assert f"delivered 3 files, 1008 B to {dest} in " in outcome.err


def test_one_file_is_not_called_files(tmp_path, dest):
    write_model(tmp_path, **{"model.bin": b"abc"})
    outcome = lading("pull", tmp_path / "model.bin", dest)
    assert outcome.code == 0
    assert f"delivered 1 file, 3 B to {dest} in " in outcome.err


def test_a_file_uri_and_a_relative_path_are_the_same_model(model, tmp_path):
    by_path = lading("pull", "model", "one", "--json", cwd=tmp_path).json
    by_uri = lading("pull", f"file://{model}", tmp_path / "two", "--json").json
    assert by_path["digest"] == by_uri["digest"]
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(model)


def test_a_name_in_a_catalog_is_delivered_with_its_provenance(dest):
    outcome = lading("pull", CHAMPION, dest, "--catalog", CATALOG, "--json")
    assert outcome.code == 0, outcome.err
    assert contents(dest) == contents(EXAMPLES / "iris/v1")
    manifest = outcome.json
    assert manifest["requested"] == CHAMPION
    assert (manifest["registry"], manifest["version"]) == ("catalog", "v1")
    assert manifest["metadata"]["accuracy"] == 0.96
    assert {file["path"]: file["verified"] for file in manifest["files"]} == {
        path: [sha256(content)] for path, content in contents(dest).items()
    }
    assert f"{CHAMPION} is {EXAMPLES}/iris/v1 (registry catalog, version v1)" in outcome.err


def test_the_catalog_may_come_from_the_environment(dest):
    outcome = lading("pull", "model-registry://iris/v2", dest, environ={"LADING_CATALOG": CATALOG})
    assert outcome.code == 0, outcome.err
    assert contents(dest) == contents(EXAMPLES / "iris/v2")


def test_a_file_comes_over_http(model, dest):
    with serve(model) as address:
        outcome = lading("pull", f"{address}/config.json", dest)
    assert outcome.code == 0, outcome.err
    assert contents(dest) == {"config.json": b'{"a": 1}'}


def test_an_archive_over_http_becomes_its_tree(model, dest, tmp_path):
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(model, arcname="")
    with serve(tmp_path) as address:
        outcome = lading("pull", f"{address}/model.tar.gz", dest)
    assert outcome.code == 0, outcome.err
    assert contents(dest) == contents(model)
    assert "unpacking model.tar.gz" in outcome.err


def test_a_second_pull_finds_nothing_to_do(model, dest):
    lading("pull", model, dest)
    before = (dest / "config.json").stat()
    outcome = lading("pull", model, dest)
    assert outcome.code == 0
    assert f"{dest} already holds the model; nothing to do" in outcome.err
    assert (dest / "config.json").stat() == before


def test_json_prints_the_manifest_that_is_in_the_folder(model, dest):
    assert lading("pull", model, dest, "--json").json == manifest_in(dest)


def test_the_library_delivers_what_the_command_delivers(tmp_path):
    command = lading("pull", CHAMPION, tmp_path / "command", "--catalog", CATALOG, "--json").json
    settings = Settings.load({"LADING_CATALOG": CATALOG})
    manifest = library.pull(CHAMPION, tmp_path / "library", settings=settings)
    assert without_time(manifest.to_json()) == without_time(command)
    assert contents(tmp_path / "library") == contents(tmp_path / "command")


def test_the_library_resolves_what_the_command_resolves():
    command = lading("resolve", CHAMPION, "--catalog", CATALOG, "--json").json
    manifest = library.resolve(CHAMPION, settings=Settings.load({"LADING_CATALOG": CATALOG}))
    assert [(file.path, file.size_bytes) for file in manifest.files] == [
        (file["path"], file["size"]) for file in command["files"]
    ]
    for field in ("requested", "resolved", "registry", "version"):
        assert getattr(manifest, field) == command[field]
    assert dict(manifest.metadata) == command["metadata"]


@pytest.mark.parametrize(
    ("flags", "environ", "paths"),
    [
        (["--allow", "*.json"], {}, {"config.json"}),
        (["--allow", "*.json", "--allow", "weights/*"], {}, {"config.json", "weights/part-1.bin", "weights/empty"}),
        (["--allow", "*p*"], {}, {"weights/part-1.bin", "weights/empty"}),
        (["--ignore", "weights/"], {}, {"config.json"}),
        (["--allow", "weights/", "--ignore", "*empty"], {}, {"weights/part-1.bin"}),
        ([], {"STORAGE_ALLOW_PATTERNS": '["*.json", "*.bin"]'}, {"config.json", "weights/part-1.bin"}),
        ([], {"STORAGE_ALLOW_PATTERNS": '"*.json"'}, {"config.json"}),
        ([], {"STORAGE_ALLOW_PATTERNS": "*.json, *empty"}, {"config.json", "weights/empty"}),
        ([], {"STORAGE_IGNORE_PATTERNS": '["weights/*"]'}, {"config.json"}),
        (["--allow", "*.bin"], {"STORAGE_ALLOW_PATTERNS": "*.json"}, {"weights/part-1.bin"}),
    ],
)
def test_patterns_choose_the_files(model, dest, flags, environ, paths):
    outcome = lading("pull", model, dest, *flags, environ=environ)
    assert outcome.code == 0, outcome.err
    assert contents(dest).keys() == paths


def test_the_right_digest_is_recorded_as_what_verified_the_file(tmp_path, dest):
    write_model(tmp_path, **{"model.bin": b"abc"})
    outcome = lading("pull", tmp_path / "model.bin", dest, "--digest", sha256(b"abc"), "--verify", "strict", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["files"][0]["verified"] == [sha256(b"abc")]


def test_log_format_json_writes_one_object_per_line(model, dest):
    outcome = lading("pull", model, dest, "--log-format", "json")
    assert [line["event"] for line in outcome.logs] == ["Listed", "Unverified", "Delivered"]
    for line in outcome.logs:
        assert line["level"] == "info"
        assert line["time"].endswith("Z")
        assert line["message"]
    delivered = outcome.logs[-1]
    assert delivered["files"] == 3
    assert delivered["size_bytes"] == 1008
    assert delivered["destination"] == str(dest)
    assert delivered["digest"] == manifest_in(dest)["digest"]


def test_the_environment_can_ask_for_json_logs(model, dest):
    outcome = lading("pull", model, dest, environ={"LADING_LOG_FORMAT": "json"})
    assert outcome.logs[-1]["event"] == "Delivered"
