"""A catalog in several files, and the schema that says the same to editors."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from command_line import CATALOG
from fakes.registry_entries import registry_entry
from lading.errors import IntegrityError, LadingError, NotFound, UsageError
from lading.model.uri import ModelURI
from lading.registries.federation import resolve

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "catalog.schema.json").read_text())


def model(name: str, uri: str = "s3://b/x") -> str:
    return f"models: {{{name}: {{versions: {{v1: {{uri: '{uri}'}}}}}}}}\n"


@pytest.fixture
def look_up(tmp_path, new_session):
    """Where ``name`` leads in the catalog at ``path``, which is relative to the test's folder."""

    def find(name: str, path: str | list[str] = "catalog.yaml") -> str:
        paths = [str(tmp_path / each) for each in ([path] if isinstance(path, str) else path)]
        entry = registry_entry("c", "catalog", path=paths if isinstance(path, list) else paths[0])
        session = new_session(registries=(entry,))
        return str(resolve(ModelURI.parse(f"model-registry://{name}"), session.settings, session.http).uri)

    return find


def test_several_files_and_folders_are_one_catalog(tmp_path, look_up):
    (tmp_path / "teams").mkdir()
    (tmp_path / "teams" / "a.yaml").write_text(model("a", "near"))
    (tmp_path / "teams" / "b.yml").write_text(model("b"))
    (tmp_path / "teams" / "..data.yaml").write_text(model("hidden"))
    (tmp_path / "teams" / "notes.txt").write_text("no catalog")
    (tmp_path / "catalog.yaml").write_text(model("c"))
    both = ["teams", "catalog.yaml"]
    assert look_up("a", both) == str(tmp_path / "teams" / "near")
    assert look_up("b", both) == look_up("c", both) == "s3://b/x"
    with pytest.raises(NotFound):
        look_up("hidden", both)


def test_an_included_file_has_its_own_folder(tmp_path, look_up):
    (tmp_path / "teams").mkdir()
    (tmp_path / "teams" / "a.yaml").write_text(model("a", "near"))
    (tmp_path / "catalog.yaml").write_text("include: [teams/a.yaml]\n" + model("c"))
    assert look_up("a") == str(tmp_path / "teams" / "near")
    assert look_up("c") == "s3://b/x"


def including(url: str, text: bytes) -> str:
    return f"include: [{{url: '{url}', digest: 'sha256:{sha256(text).hexdigest()}'}}]\n"


def test_a_file_from_elsewhere_is_included_by_its_digest(tmp_path, look_up, server):
    text = model("far").encode()
    (tmp_path / "catalog.yaml").write_text(including(server.put("/c.yaml", text), text))
    assert look_up("far") == "s3://b/x"
    server.put("/c.yaml", model("far", "s3://evil/x").encode())
    with pytest.raises(IntegrityError, match="is expected"):
        look_up("far")


@pytest.mark.parametrize("uri", ["/etc/passwd", "near", "file:///etc/passwd"])
def test_a_file_from_elsewhere_does_not_choose_files_of_this_machine(tmp_path, look_up, server, uri):
    text = model("far", uri).encode()
    (tmp_path / "catalog.yaml").write_text(including(server.put("/c.yaml", text), text))
    with pytest.raises(UsageError, match="file of this machine"):
        look_up("far")


@pytest.mark.parametrize(
    ("root", "other", "says"),
    [
        ("include: [other.yaml]\n" + model("a"), model("a"), "a is also in"),
        ("include: [other.yaml]", "include: [catalog.yaml]", "includes others itself"),
        ("include: [missing.yaml]", "", "there is no file"),
        ("include: {}", "", None),
        ("modles: {}", "", "unknown key 'modles'"),
        ("models: {a: {about: &it [*it], versions: {v1: {uri: s3://b/x}}}}", "", "holds itself"),
        ("include: other.yaml", "", "include is not a list"),
        ("include: [{url: 'https://h/c.yaml'}]", "", "with their digest"),
        ("include: [{url: 'https://h/c.yaml', digest: 'sha256:1'}]", "", "sha256 digest"),
        (f"include: [{{url: 'https://h/c.yaml', digest: 'md5:{'1' * 32}'}}]", "", "can be forged"),
        (f"include: [{{url: 'https://h/c.yaml', digest: 'git-sha1:{'1' * 40}'}}]", "", "can be forged"),
    ],
)
def test_what_cannot_be_put_together_is_refused(tmp_path, look_up, root, other, says):
    (tmp_path / "catalog.yaml").write_text(root)
    (tmp_path / "other.yaml").write_text(other)
    with pytest.raises(LadingError, match=says or "has no model"):
        look_up("a")


def test_a_catalog_elsewhere_that_is_not_there_is_said_so(tmp_path, look_up, server):
    (tmp_path / "catalog.yaml").write_text(including(f"{server.url}/c.yaml", b""))
    with pytest.raises(NotFound, match="the catalog"):
        look_up("a")


# ---- the schema -------------------------------------------------------------------------------


def accepted(document: object) -> bool:
    return Draft202012Validator(SCHEMA).is_valid(document)


def test_the_schema_is_one_and_accepts_the_example():
    Draft202012Validator.check_schema(SCHEMA)
    assert accepted(yaml.safe_load(Path(CATALOG).read_text()))


VERSION = {"uri": "s3://b/m"}
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("version", "good"),
    [
        (VERSION, True),
        (VERSION | {"digest": DIGEST}, True),
        (VERSION | {"digests": {"a": DIGEST}, "state": "archived", "metadata": {"x": 1}}, True),
        (VERSION | {"digests": {}, "digest": DIGEST}, None),
        (VERSION | {"digests": {"a": DIGEST}, "digest": DIGEST}, False),
        (VERSION | {"digest": "sha256:0"}, False),
        (VERSION | {"digest": "blake3:" + "0" * 64}, True),
        (VERSION | {"digest": "blake2b:" + "0" * 128}, True),
        (VERSION | {"digest": "blake4:" + "0" * 64}, False),
        (VERSION | {"state": "gone"}, False),
        (VERSION | {"colour": "red"}, False),
        ({"uri": "model-registry://x"}, False),
        ({"uri": ""}, False),
        ({}, False),
    ],
)
def test_the_schema_and_lading_refuse_the_same(tmp_path, look_up, version, good):
    document = {"models": {"a": {"versions": {"v1": version}}}}
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(document))
    try:
        look_up("a/v1" if version.get("state") != "archived" else "a")
        loads = True
    except NotFound:
        loads = version.get("state") == "archived"
    except LadingError:
        loads = False
    if good is not None:
        assert accepted(document) == loads == good
