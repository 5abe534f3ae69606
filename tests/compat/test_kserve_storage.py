"""The package kserve_storage by lading, as KServe's model servers call it.

What the real package does with the same calls: tests/real/test_upgrade.py.
"""

import json
import logging
import os
import sys
import tarfile
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from fakes.trees import read_tree, write_tree
from lading.errors import LadingError, NotFound

COMPAT = Path(__file__).parents[2] / "compat"
sys.path.insert(0, str(COMPAT))

import kserve_storage  # noqa: E402 - it is a distribution of its own
from kserve_storage import Storage, configure_logging, logger  # noqa: E402
from kserve_storage.storage_errors import get_storage_error_message, raise_storage_error  # noqa: E402


@pytest.fixture(autouse=True)
def _temporary_folders_are_here(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("S3_MAX_ATTEMPTS", "1")


@pytest.fixture
def s3(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.server.url)
    monkeypatch.setenv("awsAnonymousCredential", "true")
    return bucket


def temporary(tmp_path) -> list[str]:
    return os.listdir(tmp_path / "temporary")


# What is delivered where: objects, the URI after the bucket, and the files that come of it.
KEYS = [
    ({"model.bin": b"1"}, "model.bin", {"model.bin": b"1"}),
    ({"a/b/model": b"1"}, "a/b/model", {"model": b"1"}),
    ({"a/1": b"1", "a/2": b"2"}, "a", {"1": b"1", "2": b"2"}),
    ({"a/1": b"1", "a/2": b"2"}, "a/", {"1": b"1", "2": b"2"}),
    ({"a/b/1": b"1", "a/c/1": b"2"}, "a", {"b/1": b"1", "c/1": b"2"}),
    ({"a/a/a/1": b"1"}, "a", {"a/a/1": b"1"}),
    ({"1": b"1", "b/2": b"2"}, "", {"1": b"1", "b/2": b"2"}),
    ({"a/": b"", "a/1": b"1"}, "a", {"1": b"1"}),
    # On purpose not as the real package has it: empty files come, and siblings of the prefix do not.
    ({"a/__init__.py": b"", "a/1": b"1"}, "a", {"__init__.py": b"", "1": b"1"}),
    ({"a/1": b"1", "a2/1": b"2", "ab": b"3"}, "a", {"1": b"1"}),
]


@pytest.mark.parametrize(("objects", "key", "files"), KEYS)
def test_keys_become_paths(s3, tmp_path, objects, key, files):
    for name, data in objects.items():
        s3.put(name, data)
    folder = str(tmp_path / "m")
    assert Storage.download(f"s3://models/{key}", folder) == folder
    assert read_tree(tmp_path / "m") == files


def packed(kind: str) -> bytes:
    buffer = BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("model.bin", b"packed")
    else:
        with tarfile.open(fileobj=buffer, mode=kind) as archive:
            info = tarfile.TarInfo("model.bin")
            info.size = 6
            archive.addfile(info, BytesIO(b"packed"))
    return buffer.getvalue()


PLAIN = {"model.bin": b"packed"}
HTTP = [
    ("/m/model.bin", b"packed", "application/octet-stream", PLAIN),
    ("/m/model.joblib", b"1", "application/octet-stream", {"model.joblib": b"1"}),
    ("/m/model", b"1", "application/octet-stream", {"model": b"1"}),
    ("/m/model.zip", packed("zip"), "application/zip", PLAIN),
    ("/m/model.zip", packed("zip"), "application/x-zip-compressed", PLAIN),
    ("/m/model.zip", packed("zip"), "application/zip-compressed", PLAIN),
    ("/m/model.tar", packed("w"), "application/x-tar", PLAIN),
    ("/m/model.tar.gz", packed("w:gz"), "application/x-tar", PLAIN),
    ("/m/model.tar.gz", packed("w:gz"), "application/x-gtar", PLAIN),
    ("/m/model.tar.gz", packed("w:gz"), "application/x-gzip", PLAIN),
    ("/m/model.tgz", packed("w:gz"), "application/gzip", PLAIN),
    # Which the real package refuses: the content type does not decide.
    ("/m/model.json", b"{}", "application/json", {"model.json": b"{}"}),
    ("/m/model.txt", b"1", "text/plain", {"model.txt": b"1"}),
    ("/m/model.zip", packed("zip"), "application/octet-stream", PLAIN),
    ("/m/model.tar.gz", packed("w:gz"), "application/octet-stream", PLAIN),
]


@pytest.mark.parametrize(("path", "body", "kind", "files"), HTTP)
def test_files_and_archives_over_http(server, tmp_path, path, body, kind, files):
    server.put(path, body, headers={"Content-Type": kind})
    Storage.download(f"{server.url}{path}", str(tmp_path / "m"))
    assert read_tree(tmp_path / "m") == files


def test_headers_of_a_host_are_sent(server, tmp_path, monkeypatch):
    server.put("/model.bin", b"1")
    monkeypatch.setenv("127.0.0.1-headers", json.dumps({"Authorization": "Bearer t"}))
    Storage.download(f"{server.url}/model.bin", str(tmp_path / "m"))
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer t"}


def test_a_url_without_a_file_name_is_an_error(server, tmp_path):
    with pytest.raises(RuntimeError):
        Storage.download(f"{server.url}/", str(tmp_path / "m"))


def test_a_local_path_without_a_folder_stays_where_it_is(tmp_path):
    model = str(write_tree(tmp_path / "model", PLAIN))
    assert Storage.download(model) == model
    assert Storage.download(f"file://{model}") == model
    assert Storage.download(f"{model}/model.bin") == f"{model}/model.bin"
    assert temporary(tmp_path) == []


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_local_path_is_delivered_to_a_folder(tmp_path, form):
    model = write_tree(tmp_path / "model", PLAIN)
    folder = str(tmp_path / "new/m")
    assert Storage.download(form.format(model), folder) == folder
    assert read_tree(tmp_path / "new/m") == PLAIN
    # The real package makes links, which end with their source.
    assert not (tmp_path / "new/m/model.bin").is_symlink()


def test_a_path_of_the_working_folder(tmp_path, monkeypatch):
    write_tree(tmp_path / "model", PLAIN)
    monkeypatch.chdir(tmp_path)
    assert Storage.download("model") == "model"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("file:///nothing/here", "Local path file:///nothing/here does not exist."),
        ("/mnt/pvc/nothing", "Cannot locate source uri /mnt/pvc/nothing for PVC"),
        ("foo://bar", "Cannot recognize storage type for foo://bar"),
        ("no-such-folder", "Cannot recognize storage type for no-such-folder"),
        ("pvc://claim/model", "Cannot recognize storage type for pvc://claim/model"),
    ],
)
def test_what_is_nowhere_is_an_error_in_kserves_words(tmp_path, uri, said):
    with pytest.raises(Exception, match=f"^{said}"):
        Storage.download(uri, str(tmp_path / "m"))
    assert not (tmp_path / "m").exists()


def test_models_that_are_mounted_later_are_not_brought(tmp_path):
    folder = str(tmp_path / "m")
    assert Storage.download("/mnt/models-of-the-agent", folder) == folder
    assert os.listdir(folder) == []


def test_without_a_folder_there_is_a_new_one_each_time(s3, tmp_path):
    s3.put("a/model.bin", b"packed")
    one, two = Storage.download("s3://models/a"), Storage.download("s3://models/a")
    assert one != two
    assert sorted(map(os.path.basename, (one, two))) == sorted(temporary(tmp_path))
    assert read_tree(Path(one)) == read_tree(Path(two)) == PLAIN


def test_a_failure_leaves_no_folder_that_was_made_for_it(s3, tmp_path):
    with pytest.raises(RuntimeError):
        Storage.download("s3://models/nothing")
    assert temporary(tmp_path) == []


def test_patterns_come_from_the_call_or_else_from_the_environment(s3, tmp_path, monkeypatch):
    for name in ("a.bin", "b.txt", "c.json"):
        s3.put(f"a/{name}", name.encode())
    monkeypatch.setenv("STORAGE_ALLOW_PATTERNS", '["*.bin"]')
    Storage.download("s3://models/a", str(tmp_path / "1"))
    Storage.download("s3://models/a", str(tmp_path / "2"), allow_patterns=["*.txt", "*.json"], ignore_patterns=["c*"])
    Storage.download("s3://models/a", str(tmp_path / "3"), allow_patterns=[])
    assert [sorted(read_tree(tmp_path / name)) for name in "123"] == [
        ["a.bin"],
        ["b.txt"],
        ["a.bin", "b.txt", "c.json"],
    ]


def test_several_models_come_in_their_order(s3, tmp_path):
    for name in ("one", "two"):
        s3.put(f"{name}/model.bin", name.encode())
    here = str(write_tree(tmp_path / "here", PLAIN))
    folders = [str(tmp_path / name) for name in ("b", "a", "c")]
    uris = ["s3://models/two", "s3://models/one", here]
    assert Storage.download_files(uris, folders) == folders
    assert [read_tree(Path(folder))["model.bin"] for folder in folders] == [b"two", b"one", b"packed"]


def test_when_one_of_several_fails_none_appears(s3, tmp_path):
    s3.put("one/model.bin", b"1")
    folders = [str(tmp_path / name) for name in ("a", "b")]
    with pytest.raises(RuntimeError, match=r"^S3 resource not found\. s3://models/nothing"):
        Storage.download_files(["s3://models/one", "s3://models/nothing"], folders)
    assert [os.listdir(folder) for folder in folders] == [[], []]


@pytest.mark.parametrize(("uris", "folders"), [(["s3://models/a"], []), ([], ["m"]), (["s3://models/a"], ["m", "n"])])
def test_a_uri_for_each_folder(tmp_path, uris, folders):
    with pytest.raises(ValueError):
        Storage.download_files(uris, [str(tmp_path / folder) for folder in folders])
    assert os.listdir(tmp_path) == ["temporary"]


def test_nothing_for_nothing():
    assert Storage.download_files([], []) == []


def test_errors_are_runtime_errors_with_what_happened_as_their_cause(s3, tmp_path):
    with pytest.raises(RuntimeError, match=r"^S3 resource not found\. ") as caught:
        Storage.download("s3://models/nothing", str(tmp_path / "m"))
    assert isinstance(caught.value.__cause__, NotFound)
    s3.refuse = lambda request: "AccessDenied"
    with pytest.raises(RuntimeError, match=r"^S3 authentication failed\. "):
        Storage.download("s3://models/a", str(tmp_path / "m"))
    with pytest.raises(RuntimeError, match=r"^Failed to connect to HTTP endpoint\. "):
        Storage.download("http://127.0.0.1:1/model.bin", str(tmp_path / "m"))


def test_the_environment_stays_as_it_was(s3, tmp_path, monkeypatch):
    s3.put("a/model.bin", b"1")
    monkeypatch.setenv("STORAGE_CONFIG", json.dumps({"type": "s3", "access_key_id": "id", "secret_access_key": "s"}))
    monkeypatch.setenv("CA_BUNDLE_VOLUME_MOUNT_POINT", "")
    before = dict(os.environ)
    Storage.download("s3://models/a", str(tmp_path / "m"))
    assert dict(os.environ) == before


def test_what_happens_is_logged_without_secrets(s3, server, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("storage"), "propagate", True)
    s3.put("a/model.bin", b"1")
    with caplog.at_level(logging.INFO, "storage.initializer"):
        Storage.download("s3://models/a", str(tmp_path / "m"))
        with pytest.raises(RuntimeError):
            Storage.download(f"{server.url}/none.bin?sig=hunter2", str(tmp_path / "n"))
    assert "s3://models/a: 1 file, 1 B" in caplog.text
    assert "HTTP error for http://" in caplog.text
    assert "hunter2" not in caplog.text


def test_logging_is_set_up_by_default_from_a_mapping_or_from_a_file(tmp_path):
    configuration = {"version": 1, "disable_existing_loggers": False, "loggers": {"storage": {"level": "ERROR"}}}
    for given, level in (
        (None, logging.INFO),
        (configuration, logging.ERROR),
        (tmp_path / "logging.json", logging.ERROR),
        (tmp_path / "logging.yaml", logging.ERROR),
    ):
        logging.getLogger("storage").setLevel(logging.NOTSET)
        if isinstance(given, Path):
            given.write_text(json.dumps(configuration))
        configure_logging(str(given) if isinstance(given, Path) else given)
        assert logger.getEffectiveLevel() == level
    assert logger.name == "storage.initializer"


def test_the_helper_for_errors_of_others():
    with pytest.raises(RuntimeError, match=r"^HTTP error: boom$") as caught:
        raise_storage_error("HTTP", "http://host/a?token=hunter2", ValueError("boom"))
    assert isinstance(caught.value.__cause__, ValueError)
    assert (
        get_storage_error_message("S3", NotFound("gone", hint="look"), "b") == "S3 resource 'b' not found. gone (look)"
    )
    assert get_storage_error_message("S3", LadingError("odd")) == "S3 error: odd"


def test_names_that_are_imported_from_it():
    assert {"Storage", "logger", "configure_logging"} <= set(kserve_storage.__all__)
    assert kserve_storage.kserve_storage.MODEL_MOUNT_DIRS == "/mnt/models"
