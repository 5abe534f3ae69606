"""A pin stands for exactly what was listed; a lock file keeps pins."""

import json
from pathlib import Path

import pytest

from command_line import lading
from lading.errors import IntegrityError
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.pin import pin_of, pinned, split_pin
from lading.model.uri import ModelURI

PIN = Digest("sha256", "0" * 64)
SHA = Digest("sha256", "1" * 64)
MD5 = Digest("md5", "2" * 32)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/model",
        "https://host/a?versionId=1",
        "git+https://host/repo@main#subdirectory=a",
        "model-registry://prod/iris/1?artifact=x",
        "hf://owner/model@refs%2Fpr%2F1",
        "/a/path",
        "./model?x=1",
        "models:/iris/1",
    ],
)
def test_a_pin_is_put_on_any_uri_and_taken_off_again(text):
    uri = ModelURI.parse(text)
    assert split_pin(uri) == (uri, None)
    assert split_pin(ModelURI.parse(str(pinned(uri, PIN)))) == (uri, PIN)
    assert str(PIN) in pinned(uri, PIN).redacted()


def test_a_checksum_alone_is_no_pin():
    checksum = (Digest("crc32c", "0" * 8),)
    one, other = (pin_of(Listing.of([ListedFile("a", 1, version, checksum)]), {}) for version in ("v1", "v2"))
    assert one != other


@pytest.mark.parametrize("value", ["1", "sha256:0", "SHA256:" + "0" * 64, "md5:" + "0" * 64, "sha256:" + "G" * 64])
def test_a_query_key_of_the_origins_own_is_not_a_pin(value):
    uri = ModelURI.parse(f"https://host/a?pin={value}")
    assert split_pin(uri) == (uri, None)


def test_a_pin_changes_with_each_name_size_digest_and_validator_and_nothing_else():
    files = [ListedFile("a", 1, "v1"), ListedFile("b", 2, "v1", (MD5,)), ListedFile("c", 3, "v1", (SHA, MD5))]
    pin = pin_of(Listing.of(files), {})
    assert pin == pin_of(Listing.of(reversed(files)), {})
    # Where there is a digest, the name of the version at this origin says nothing more.
    assert pin == pin_of(Listing.of([files[0], files[1]._replace(validator="v2"), files[2]._replace(locator="x")]), {})
    others = [
        pin_of(Listing.of(files[:2]), {}),
        pin_of(Listing.of([files[0]._replace(path="z"), *files[1:]]), {}),
        pin_of(Listing.of([files[0]._replace(size_bytes=9), *files[1:]]), {}),
        pin_of(Listing.of([files[0]._replace(validator="v2"), *files[1:]]), {}),
        pin_of(Listing.of([files[0], files[1]._replace(declared=()), files[2]]), {}),
        pin_of(Listing.of(files), {"a": SHA}),
    ]
    assert len({pin, *others}) == len(others) + 1


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.bin").write_bytes(b"one")
    (tmp_path / "catalog.yaml").write_text(
        "models: {iris: {versions: {v1: {uri: model}, v2: {uri: model, digest: 'crc32c:00000000', state: archived}}}}"
    )
    return tmp_path


def resolved(where: Path, uri: str) -> dict:
    return lading("resolve", "--json", uri, "--catalog", "catalog.yaml", cwd=where).json


@pytest.mark.parametrize("uri", ["./model", "model-registry://iris", "model-registry://iris/v1?artifact=x"])
def test_the_pin_that_resolve_prints_brings_the_model_until_it_changes(model, uri):
    pin = resolved(model, uri)["pin"]
    assert pull(model, pin).code == 0
    assert resolved(model, pin)["pin"] == pin
    (model / "model" / "a.bin").write_bytes(b"two")
    refused = pull(model, pin)
    assert refused.code == IntegrityError.exit_code
    assert "does not match its pin any more" in refused.err
    assert (model / "dest" / "a.bin").read_bytes() == b"one"
    assert pull(model, uri).code == 0


def pull(where: Path, uri: str, *options: str):
    return lading("pull", uri, "dest", "--catalog", "catalog.yaml", *options, cwd=where)


def test_the_pin_of_a_name_names_its_registry_and_version(model):
    assert resolved(model, "model-registry://iris")["pin"].startswith("model-registry://catalog/iris/v1?pin=sha256:")
    assert json.loads((model / "dest" / ".lading.manifest").read_text() if pull(model, "./model").code else "{}") == {}
    assert json.loads((model / "dest" / ".lading.manifest").read_text())["pin"].startswith("./model?pin=sha256:")


def test_a_lock_file_brings_what_was_locked_and_refuses_anything_else(model):
    locked = lading("lock", "model-registry://iris", "./model", "--catalog", "catalog.yaml", cwd=model)
    assert locked.code == 0, locked.err
    kept = json.loads((model / "lading.lock").read_text())
    assert list(kept["models"]) == ["./model", "model-registry://iris"]
    assert kept["models"]["model-registry://iris"]["version"] == "v1"
    assert kept["models"]["./model"]["bytes"] == 3
    assert pull(model, "model-registry://iris", "--locked", "lading.lock").code == 0
    # A newer version does not slip in.
    (model / "new").mkdir()
    (model / "new" / "a.bin").write_bytes(b"new")
    text = (
        (model / "catalog.yaml")
        .read_text()
        .replace("v2: {uri: model, digest: 'crc32c:00000000', state: archived}", "v2: {uri: new}")
    )
    (model / "catalog.yaml").write_text(text)
    assert resolved(model, "model-registry://iris")["version"] == "v2"
    again = lading(
        "init",
        "model-registry://iris",
        "dest",
        cwd=model,
        environ={"LADING_LOCK": "lading.lock", "LADING_CATALOG": "catalog.yaml"},
    )
    assert again.code == 0, again.err
    assert (model / "dest" / "a.bin").read_bytes() == b"one"
    (model / "model" / "a.bin").write_bytes(b"two")
    assert pull(model, "model-registry://iris", "--locked", "lading.lock").code == IntegrityError.exit_code
    # What is not in it is not brought.
    missing = pull(model, "model-registry://iri", "--locked", "lading.lock")
    assert missing.code == 3
    assert "did you mean model-registry://iris" in missing.err


@pytest.fixture
def init(model):
    """``lading init`` with variables, as a pod has them: ``init(LADING_LOCK_TEXT=…)``."""

    def init(uri: str = "./model", *options: str, **variables: str):
        environ = {"LADING_CATALOG": "catalog.yaml", **variables}
        return lading("init", uri, "dest", *options, cwd=model, environ=environ)

    return init


def lock_text(model, *uris: str) -> str:
    assert lading("lock", *uris, "--catalog", "catalog.yaml", "-o", "text.lock", cwd=model).code == 0
    return (model / "text.lock").read_text()


def test_the_text_of_a_lock_file_in_a_variable_is_as_good_as_the_file(model, init):
    text = lock_text(model, "model-registry://iris")
    assert init("model-registry://iris", LADING_LOCK_TEXT=text).code == 0
    (model / "model" / "a.bin").write_bytes(b"two")
    refused = init("model-registry://iris", LADING_LOCK_TEXT=text)
    assert refused.code == IntegrityError.exit_code
    assert (model / "dest" / "a.bin").read_bytes() == b"one"
    missing = init("model-registry://iri", LADING_LOCK_TEXT=text)
    assert missing.code == 3
    assert (
        "LADING_LOCK_TEXT does not lock model-registry://iri\nhint: did you mean model-registry://iris" in missing.err
    )


def test_a_pod_without_the_annotation_has_an_empty_variable_and_brings_what_there_is(init):
    assert init(LADING_LOCK_TEXT="").code == 0


def test_a_lock_file_of_the_command_line_goes_before_the_variable(model, init):
    text = lock_text(model, "model-registry://iris")
    lock_text(model, "./model")
    assert init("./model", LADING_LOCK_TEXT=text).code == 3
    assert init("./model", "--locked", "text.lock", LADING_LOCK_TEXT=text).code == 0


def test_what_is_locked_is_what_a_uri_stands_for_now_whatever_the_variable_says(model):
    text = lock_text(model, "./model")
    (model / "model" / "a.bin").write_bytes(b"two")
    assert lading("lock", "./model", cwd=model, environ={"LADING_LOCK_TEXT": text}).code == 0
    assert (model / "lading.lock").read_text() != text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "LADING_LOCK_TEXT is not a lock file"),
        (" \n", "LADING_LOCK_TEXT is not a lock file"),
        ("text", "LADING_LOCK_TEXT is not a lock file"),
        ("[" * 60_000, "LADING_LOCK_TEXT is not a lock file"),
        ('{"format": 2, "models": {}}', "LADING_LOCK_TEXT is not a lock file of format 1"),
        ('{"format": 1, "models": {"./model": {"pin": "./model"}}}', "LADING_LOCK_TEXT has no pin for ./model"),
        ("{}" + " " * (64 << 10), "LADING_LOCK_TEXT has 65538 bytes, of at most 65536"),
    ],
)
def test_a_variable_that_is_no_lock_file_is_one_error(model, init, text, words):
    refused = init(LADING_LOCK_TEXT=text)
    assert (refused.code, refused.err.splitlines()[0]) == (2, f"error[usage]: {words}")
    assert not (model / "dest").exists()


def test_a_lock_file_and_its_text_are_not_both_given(init):
    refused = init(LADING_LOCK_TEXT="{}", LADING_LOCK="lading.lock")
    assert (refused.code, refused.err.splitlines()[0]) == (
        2,
        "error[usage]: LADING_LOCK and LADING_LOCK_TEXT are both set",
    )


def test_locking_again_keeps_the_other_entries_and_moves_its_own(model):
    lading("lock", "./model", cwd=model)
    before = json.loads((model / "lading.lock").read_text())["models"]
    (model / "model" / "a.bin").write_bytes(b"three")
    lading("lock", "model-registry://iris", "--catalog", "catalog.yaml", cwd=model)
    both = json.loads((model / "lading.lock").read_text())["models"]
    assert both["./model"] == before["./model"]
    lading("lock", "./model", cwd=model)
    assert json.loads((model / "lading.lock").read_text())["models"]["./model"] != before["./model"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", 2),
        ("[]", 2),
        ('{"format": 2, "models": {}}', 2),
        ('{"format": 1, "models": {"./model": {}}}', 2),
        ('{"format": 1, "models": {"./model": {"pin": "./model"}}}', 2),
        ('{"format": 1, "models": {}}', 3),
    ],
)
def test_a_file_that_is_no_lock_is_refused(model, text, code):
    (model / "lading.lock").write_text(text)
    found = pull(model, "./model", "--locked", "lading.lock")
    assert found.code == code
    assert not (model / "dest").exists()


def test_a_lock_file_holds_no_secret_and_a_signed_url_is_given_again(model, server):
    uri = server.put("/model.bin", b"content") + "?X-Amz-Signature=s3cret"
    assert lading("lock", uri, cwd=model).code == 0
    assert "s3cret" not in (model / "lading.lock").read_text()
    assert lading("pull", uri.replace("s3cret", "an0ther"), "dest", "--locked", "lading.lock", cwd=model).code == 0
    server.put("/model.bin", b"changed", etag='"v2"')
    assert lading("pull", uri, "dest", "--locked", "lading.lock", cwd=model).code == IntegrityError.exit_code
