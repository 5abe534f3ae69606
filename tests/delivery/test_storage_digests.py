"""Digests in a storage secret: whoever gives the credentials of a storage may say what its models are."""

import json
from pathlib import Path

import pytest

from command_line import Outcome, contents, lading, sha256, write_model

FILES = {"a.bin": b"one", "deep/b.bin": b"two"}
WRONG = sha256(b"another")


class Place:
    def __init__(self, folder: Path) -> None:
        self.model, self.dest = write_model(folder / "model", **FILES), folder / "dest"
        self.file = str(self.model / "a.bin")

    def init(self, uri: object, digests: object, override: object = None, **variables: str) -> Outcome:
        variables["STORAGE_CONFIG"] = json.dumps({"type": "s3", "digests": digests})
        if override is not None:
            variables["STORAGE_OVERRIDE_CONFIG"] = json.dumps({"digests": override})
        return lading("init", str(uri), self.dest, environ=variables)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_digest_that_is_given_for_the_model_must_hold(place):
    right = {path: sha256(data) for path, data in FILES.items()}
    assert place.init(place.model, {str(place.model): right}).code == 0
    assert contents(place.dest) == FILES
    refused = place.init(place.model, {str(place.model): right | {"deep/b.bin": WRONG}})
    assert refused.code == 6
    assert f"deep/b.bin has {sha256(b'two')}, but {WRONG} is expected" in refused.err
    assert contents(place.dest) == FILES


def test_a_model_of_one_file_has_one_digest(place):
    assert place.init(place.file, {place.file: sha256(b"one")}).code == 0
    assert place.init(place.file, {place.file: WRONG}).code == 6
    assert place.init(place.model, {str(place.model): WRONG}).code == 2


@pytest.mark.parametrize("spelling", ["{}/", "file://{}", "file://{}/"])
def test_digests_of_another_model_do_not_count_and_a_slash_makes_no_other(place, spelling):
    assert place.init(place.model, {str(place.model / "deep"): {"b.bin": WRONG}}).code == 0
    uri = spelling.format(place.model)
    assert place.init(uri, {uri.rstrip("/"): {"a.bin": WRONG}}).code == 6
    assert place.init(uri.rstrip("/"), {uri: {"a.bin": WRONG}}).code == 6


def test_parameters_of_a_service_add_digests_and_take_none_away(place):
    digests = {str(place.model): {"a.bin": WRONG}}
    assert place.init(place.model, digests, {}).code == 6
    # KServe's parameters are texts.
    assert place.init(place.model, digests, json.dumps({str(place.model): {"a.bin": sha256(b"one")}})).code == 6
    assert place.init(place.model, {}, json.dumps(digests)).code == 6


def test_the_digest_that_kserve_names_must_hold_as_well(place):
    for given, named in ((WRONG, sha256(b"one")), (sha256(b"one"), WRONG)):
        assert place.init(place.file, {place.file: given}, VERIFICATION_DIGEST=named).code == 6
    assert not place.dest.exists() or contents(place.dest) == {}


def test_a_model_that_lacks_such_a_file_is_refused(place):
    refused = place.init(place.model, {str(place.model): {"gone.bin": WRONG}})
    assert refused.code == 6
    assert f"{place.model} lacks 'gone.bin', whose digest a storage JSON gives" in refused.err


def test_a_mounted_key_of_the_secret_is_read_for_the_uris_of_its_prefix(place, tmp_path):
    key = tmp_path / "minio"
    key.write_text(json.dumps({"type": "s3", "digests": {f"file://{place.model}": {"a.bin": WRONG}}}))
    rule = {"prefix": f"file://{place.model}", "variables": {"STORAGE_CONFIG": {"file": str(key)}}}
    environ = {"LADING_CONFIG_YAML": json.dumps({"credentials": [rule]})}
    assert lading("pull", f"file://{place.model}", place.dest, environ=environ).code == 6
    key.write_text("{}")
    assert lading("pull", f"file://{place.model}", place.dest, environ=environ).code == 0


@pytest.mark.parametrize("name", ["STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"])
@pytest.mark.parametrize("quoted", [False, True])
def test_a_model_that_is_named_twice_is_refused(place, name, quoted):
    """Of two digests, each must hold: a reader of JSON would take the last one."""
    one, other = (f'"{place.file}": "{digest}"' for digest in (WRONG, sha256(b"one")))
    digests = f"{{{one}, {other}}}"
    spec = f'{{"type": "s3", "digests": {json.dumps(digests) if quoted else digests}}}'
    refused = lading("init", place.file, place.dest, environ={name: spec})
    assert refused.code == 2
    assert refused.err.startswith(f"error[usage]: {name}")
    assert not place.dest.exists()


@pytest.mark.parametrize(
    "digests",
    ["[", "s3cret", 5, ["s3cret"], {"s3://b/m": "s3cret"}, {"s3://b/m": {"a": 5}}, {"": WRONG}, {"s3://b/m": [WRONG]}],
)
def test_digests_that_cannot_be_read_are_one_error_that_quotes_nothing(place, digests):
    refused = place.init(place.model, digests)
    assert (refused.code, refused.err.splitlines()[0]) == (
        2,
        "error[usage]: STORAGE_CONFIG: its digests are not understood",
    )
    assert "s3cret" not in refused.err
    assert not place.dest.exists()
