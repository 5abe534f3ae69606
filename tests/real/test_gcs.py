"""fake-gcs-server (1.56): a Cloud Storage that somebody else wrote, filled by Google's own client.

It keeps generations, CRC32C, composite objects and encodings; it knows no credentials.
"""

import gzip
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from fakes.trees import MIB, content, facts, read_tree, told, whole_manifest, write_contract_tree
from lading.errors import NotFound, Unsupported
from lading.events import Listed
from lading.settings.limits import Limits

MODEL = {
    "model/config.json": b"{}",
    "model/empty": b"",
    "model/deep/er/weights.bin": content(3 * MIB),
    "model/gr\u00fc\u00dfe c+d%41": b"odd",
    "model-v2/config.json": b"another",
}
FILES = {name.removeprefix("model/"): data for name, data in MODEL.items() if name.startswith("model/")}


@contextmanager
def running(program: str, scheme: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    options = ["-scheme", scheme, "-host", "127.0.0.1", "-port", host.rpartition(":")[2], "-backend", "memory"]
    command = [program, *options, "-external-url", f"{scheme}://{host}", "-public-host", host]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        next(line for line in process.stdout if "server started" in line)
        # It logs every request, and would wait for somebody to read that.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield f"{scheme}://{host}"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def endpoint(program):
    with running(program("fake-gcs-server"), "http") as url:
        yield url


def test_http_where_go_speaks_only_tls_is_told(program, pull, tmp_path):
    with running(program("fake-gcs-server"), "https") as url:
        plain = url.replace("https:", "http:")
        with pytest.raises(Unsupported, match="speaks only TLS") as caught:
            pull("gs://models/model", tmp_path / "dest", variables={"STORAGE_EMULATOR_HOST": plain})
    assert "https://" in caught.value.hint


@pytest.fixture(scope="module")
def client(endpoint):
    return storage.Client("project", AnonymousCredentials(), client_options={"api_endpoint": endpoint})


@pytest.fixture
def bucket(client, request):
    """A bucket of the test's own, with the model in it."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name)[:60].strip("-")
    bucket = client.create_bucket(name)
    for path, data in MODEL.items():
        bucket.blob(path).upload_from_string(data)
    return bucket


@pytest.fixture
def emulated(endpoint) -> dict[str, object]:
    return {"variables": {"STORAGE_EMULATOR_HOST": endpoint}}


def test_the_same_tree_gives_the_same_manifest(client, emulated, tmp_path, pull):
    tree = write_contract_tree(tmp_path / "origin")
    bucket = client.create_bucket("same-tree")
    expected = facts(tree)
    for path in expected:
        # Through the client, one request each: a few of the small ones tell as much as all of them.
        if not path.startswith("small/") or path.startswith("small/00"):
            bucket.blob(f"tree/{path}").upload_from_filename(tree / path)
    bucket.blob("tree/deep/").upload_from_string(b"")
    limits = Limits(stall_s=20.0, connect_s=5.0, attempts=4, workers=4)
    manifest = pull("gs://same-tree/tree", tmp_path / "model", limits=limits, **emulated)
    expected = {
        path: fact for path, fact in expected.items() if not path.startswith("small/") or path.startswith("small/00")
    }
    assert told(manifest) == expected
    assert told(whole_manifest(tmp_path / "model")) == expected


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("/model", FILES),
        ("/model/deep/", {"er/weights.bin": FILES["deep/er/weights.bin"]}),
        ("/model/config.json", {"config.json": b"{}"}),
        ("", MODEL),
    ],
    ids=["prefix", "below", "object", "root"],
)
def test_a_uri_means_what_is_below_it_or_one_object(bucket, emulated, tmp_path, pull, path, files):
    manifest = pull(f"gs://{bucket.name}{path}", tmp_path / "model", verify="strict", range_bytes=MIB, **emulated)
    assert read_tree(tmp_path / "model") == files
    assert all(file.verified and file.validator for file in manifest.files)


def test_a_generation_is_what_the_official_client_sees(bucket, emulated, tmp_path, pull):
    manifest = pull(f"gs://{bucket.name}/model/config.json", tmp_path / "model", **emulated)
    assert manifest.files[0].validator == str(bucket.get_blob("model/config.json").generation)


def test_an_object_that_is_replaced_arrives_in_its_new_version(bucket, emulated, tmp_path, pull):
    versions = iter([b"new" * MIB])

    def swap(event) -> None:
        if isinstance(event, Listed):
            for version in versions:
                bucket.blob("model/deep/er/weights.bin").upload_from_string(version)

    pull(f"gs://{bucket.name}/model", tmp_path / "model", listener=swap, range_bytes=MIB, **emulated)
    assert read_tree(tmp_path / "model") == FILES | {"deep/er/weights.bin": b"new" * MIB}


def test_a_composite_object_is_verified(bucket, emulated, tmp_path, pull):
    parts = [bucket.blob(f"parts/{number}") for number in range(3)]
    for number, part in enumerate(parts):
        part.upload_from_string(content(1000, seed=number))
    whole = bucket.blob("whole/weights.bin")
    whole.compose(parts)
    manifest = pull(f"gs://{bucket.name}/whole", tmp_path / "model", verify="strict", **emulated)
    assert read_tree(tmp_path / "model") == {"weights.bin": b"".join(content(1000, seed=n) for n in range(3))}
    assert manifest.files[0].verified[0].algorithm == "crc32c"


def test_an_object_stored_in_gzip_arrives_decoded(bucket, emulated, tmp_path, pull):
    blob = bucket.blob("packed/config.json")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(b"text" * 1000))
    pull(f"gs://{bucket.name}/packed", tmp_path / "model", **emulated)
    assert read_tree(tmp_path / "model") == {"config.json": b"text" * 1000}


def test_what_is_not_there_is_not_found(bucket, emulated, tmp_path, pull):
    with pytest.raises(NotFound) as caught:
        pull(f"gs://{bucket.name}/modle", tmp_path / "model", **emulated)
    assert "model" in caught.value.hint
    with pytest.raises(NotFound, match="no bucket"):
        pull("gs://no-such-bucket/model", tmp_path / "model", **emulated)
