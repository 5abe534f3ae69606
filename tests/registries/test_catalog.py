"""Names become pinned URIs: the parsing of references, and the catalog, through ``lading.pull``."""

import datetime
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lading
from fakes.registry_entries import registry_entry
from lading.errors import IntegrityError, NotFound, Unsupported, UsageError
from lading.model.manifest import Manifest
from lading.model.paths import FILE_NAME
from lading.model.reference import Reference, parse_reference
from lading.model.uri import ModelURI
from lading.settings.settings import Settings

KNOWN = {"prod", "a/b"}


@pytest.mark.parametrize(
    ("text", "named", "reference"),
    [
        ("model-registry://iris", "", Reference("iris")),
        ("model-registry://iris/", "", Reference("iris")),
        ("model-registry://iris/v1", "", Reference("iris", "v1")),
        ("model-registry://iris/v1/", "", Reference("iris", "v1")),
        ("model-registry://iris@champion", "", Reference("iris", alias="champion")),
        ("MODEL-REGISTRY://iris", "", Reference("iris")),
        ("model-registry:///iris/v1", "", None),
        ("model-registry://prod/iris/v1", "prod", Reference("iris", "v1")),
        ("model-registry://prod/iris@champion", "prod", Reference("iris", alias="champion")),
        # A model may be called as a registry is.
        ("model-registry://prod", "", Reference("prod")),
        ("model-registry://a%2Fb/iris/v1", "a/b", Reference("iris", "v1")),
        # Percent-encoding: a slash, an at sign, a space within a name.
        ("model-registry://org%2Firis/v1", "", Reference("org/iris", "v1")),
        ("model-registry://iris/1.0%2Fbeta", "", Reference("iris", "1.0/beta")),
        ("model-registry://me%40home", "", Reference("me@home")),
        ("model-registry://my%20model@the%20best", "", Reference("my model", alias="the best")),
        ("model-registry://gr%C3%B6%C3%9Fe", "", Reference("größe")),
        ("model-registry://", "", None),
        ("model-registry:///", "", None),
        ("model-registry://iris//v1", "", None),
        ("model-registry://iris@", "", None),
        ("model-registry://@champion", "", None),
        ("model-registry://iris/v1@champion", "", None),
        ("model-registry://other/iris/v1", "", None),
        ("model-registry://prod/iris/v1/x", "", None),
        ("model-registry://iris?version=1", "", None),
        ("model-registry://iris#v1", "", None),
        ("model-registry://gr%F6%DFe", "", None),
        ("model-registry://iris/v%FF", "", None),
        ("model-registry://iris@%C3", "", None),
        ("model-registry://iris?artifact=%FF", "", None),
        ("model-registry://gr%EF%BF%BDe", "", Reference("gr\ufffde")),
        ("mlflow://iris", "", Reference("iris")),
        ("mlflow://iris/2", "", Reference("iris", "2")),
        ("mlflow://iris@champion", "", Reference("iris", alias="champion")),
        ("mlflow://prod/iris/2", "prod", Reference("iris", "2")),
        ("models:/iris/2", "", Reference("iris", "2")),
        ("models:/iris/Staging", "", Reference("iris", "Staging")),
        ("models:/iris/latest", "", Reference("iris", "latest")),
        ("models:/iris@champion", "", Reference("iris", alias="champion")),
        ("models:/org%2Firis/2", "", Reference("org/iris", "2")),
        ("models:/m-0123", "", Reference("m-0123", "m-0123")),
        # A single part is an id for MLflow, never the newest version of a model.
        ("models:/iris", "", None),
        ("models:/", "", None),
        ("models:/iris/2/weights", "", None),
        # Without an authority no registry is named, whatever a registry is called.
        ("models:/prod/2", "", Reference("prod", "2")),
        ("models://prod/iris/2", "prod", Reference("iris", "2")),
        ("models://prod/m-0123", "prod", Reference("m-0123", "m-0123")),
        ("models://prod/iris", "", None),
        ("models://other/iris/2", "", None),
    ],
)
def test_a_reference_is_what_it_says_or_refused(text: str, named: str, reference: Reference | None) -> None:
    if reference is None:
        with pytest.raises(UsageError):
            parse_reference(ModelURI.parse(text), KNOWN)
    else:
        assert parse_reference(ModelURI.parse(text), KNOWN) == (named, reference)


@pytest.mark.parametrize("authority", ["databricks", "profile@databricks", "scope:prefix@databricks"])
def test_the_registry_of_databricks_is_refused_by_name(authority: str) -> None:
    with pytest.raises(Unsupported, match="Databricks"):
        parse_reference(ModelURI.parse(f"models://{authority}/main.models.iris/1"), KNOWN)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(NAMES, NAMES, st.booleans())
def test_any_name_can_be_asked_for_when_it_is_percent_encoded(model: str, other: str, alias: bool) -> None:
    mark = "@" if alias else "/"
    text = f"model-registry://{quote(model, safe='')}{mark}{quote(other, safe='')}"
    wanted = Reference(model, alias=other) if alias else Reference(model, other)
    assert parse_reference(ModelURI.parse(text), set()) == ("", wanted)


# ---- the catalog, end to end ---------------------------------------------------------------

Pull = Callable[[str], Manifest]


@pytest.fixture
def catalog(tmp_path: Path) -> Callable[[str], Pull]:
    """Write a catalog beside three versions of a model; returns what pulls through it."""
    for version in ("v1", "v2", "v3"):
        (tmp_path / "models" / version).mkdir(parents=True)
        (tmp_path / "models" / version / "model.bin").write_text(version)

    def write(text: str) -> Pull:
        (tmp_path / "catalog.yaml").write_text(text)
        entry = registry_entry("catalog", "catalog", path=str(tmp_path / "catalog.yaml"))

        def pull(uri: str) -> Manifest:
            return lading.pull(uri, tmp_path / "dest", settings=Settings(registries=(entry,)))

        return pull

    return write


IRIS = """
models:
  iris:
    description: of flowers
    aliases: {champion: v1, gone: v3}
    versions:
      v1: {uri: models/v1, metadata: {format: sklearn}}
      v2: {uri: ./models/v2}
      v3: {uri: models/v3, state: archived}
"""


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        ("model-registry://iris", "v2"),
        ("model-registry://iris/v1", "v1"),
        ("model-registry://iris/v2", "v2"),
        ("model-registry://iris@champion", "v1"),
        ("model-registry://catalog/iris/v1", "v1"),
        ("model-registry://catalog/iris@champion", "v1"),
    ],
)
def test_a_name_brings_its_version(catalog: Callable[[str], Pull], tmp_path: Path, uri: str, version: str) -> None:
    manifest = catalog(IRIS)(uri)
    assert (tmp_path / "dest" / "model.bin").read_text() == version
    assert (manifest.registry, manifest.version, manifest.requested) == ("catalog", version, uri)
    assert manifest.resolved == str(tmp_path / "models" / version)
    assert manifest.metadata["description"] == "of flowers"
    assert manifest.metadata.get("format") == ("sklearn" if version == "v1" else None)


@pytest.mark.parametrize(
    ("uri", "says", "hint"),
    [
        ("model-registry://irsi", "has no model 'irsi'", "did you mean iris?"),
        ("model-registry://iris/v4", "has no version 'v4'", "v"),
        ("model-registry://iris/v3", "is archived", "model-registry://iris/v2"),
        ("model-registry://iris@gone", "is archived", "model-registry://iris/v2"),
        ("model-registry://iris@champio", "has no alias 'champio'", "did you mean champion?"),
    ],
)
def test_what_is_not_there_is_told_with_what_is_near(
    catalog: Callable[[str], Pull], tmp_path: Path, uri: str, says: str, hint: str
) -> None:
    with pytest.raises(NotFound) as caught:
        catalog(IRIS)(uri)
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert not (tmp_path / "dest").exists()


def test_a_model_whose_versions_are_all_archived_has_no_newest(catalog: Callable[[str], Pull]) -> None:
    with pytest.raises(NotFound, match="no live version"):
        catalog("models: {m: {versions: {v1: {uri: models/v1, state: archived}}}}")("model-registry://m")


@pytest.mark.parametrize("name", ["iris", "org/my model", "100%41", "me@home", "größe?#"])
def test_the_name_that_an_archived_version_leads_to_can_be_asked_for(
    catalog: Callable[[str], Pull], tmp_path: Path, name: str
) -> None:
    versions = {"old": {"uri": "models/v1", "state": "archived"}, "1.0/b%20": {"uri": "models/v2"}}
    pull = catalog(json.dumps({"models": {name: {"versions": versions}}}))
    with pytest.raises(NotFound) as caught:
        pull(f"model-registry://{quote(name, safe='')}/old")
    assert pull(caught.value.hint.rpartition(" ")[2]).version == "1.0/b%20"


def test_the_newest_version_is_the_last_one_written_and_not_the_greatest_name(
    catalog: Callable[[str], Pull], tmp_path: Path
) -> None:
    catalog("models: {m: {versions: {'9': {uri: models/v1}, '10': {uri: models/v2}}}}")("model-registry://m")
    assert (tmp_path / "dest" / "model.bin").read_text() == "v2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models: {m: {versions: {1: {uri: models/v1}}}}", "not text put it in quotes"),
        ("models: {m: {versions: {1.10: {uri: models/v1}}}}", "not text put it in quotes"),
        ("models: {5: {versions: {}}}", "not text put it in quotes"),
        ("models: {m: {versions: {v: {uri: models/v1, sate: archived}}}}", "unknown key 'sate'"),
        ("models: {m: {versions: {v: {uri: models/v1, state: retired}}}}", "state 'retired'"),
        ("models: {m: {versions: {v: {state: live}}}}", "has no uri"),
        ("models: {m: {versions: {v: {uri: 5}}}}", "has no uri"),
        ("models: {m: {versions: {v: {uri: 'model-registry://m/w'}}}}", "another registry name"),
        ("models: {m: {versions: {v: {uri: 'models:/m/w'}}}}", "another registry name"),
        ("models: {m: {versions: {v: {uri: 'mlflow://m/w'}}}}", "another registry name"),
        ("models: {m: {versions: {v: models/v1}}}", "is not a mapping"),
        ("models: {m: {versions: [v1]}}", "is not a mapping"),
        ("models: [m]", "is not a mapping"),
        ("models: {m: {versions: {v: {uri: models/v1, digest: 'sha256:ab'}}}}", "not a sha256 digest"),
        ("models: {m: {versions: {v: {uri: models/v1, digest: 'rot13:ab'}}}}", "not a digest"),
        (
            "models: {m: {versions: {v: {uri: models/v1, digests: {a: 'crc32:00000000'}, digest: 'crc32:00000000'}}}}",
            "both",
        ),
        ("models: {m: {aliases: [champion], versions: {v: {uri: models/v1}}}}", "is not a mapping"),
        ("models: {m: {aliases: {a: w}, versions: {v: {uri: models/v1}}}}", "the alias a names the version 'w', which"),
        ("models: {m: {aliases: {a: 1}, versions: {'1': {uri: models/v1}}}}", "alias a is 1, which is not text put it"),
        (
            "models: {m: {versions: {u: {urri: models/v1}, v: {uri: models/v1}}}}",
            "m/u has the unknown key 'urri' did you mean uri?",
        ),
        ("models: {m: {versions: {v: {uri: models/v1, colour: red}}}}", "known: uri, digest, digests, state, metadata"),
        ("modles: {m: {versions: {v: {uri: models/v1}}}}", "unknown key 'modles' did you mean models?"),
        (
            "models: {m: {verions: {v: {uri: models/v1}}}}",
            "m has no versions verions is metadata; did you mean versions?",
        ),
        ("models: {m: }", "m has no versions write versions:"),
        ('models: {m: {versions: {v: {uri: "a\\nb"}}}}', "m/v: the URI a\\x0ab holds a control character"),
        ("models: {m: {versions: {v: {uri: models/v1, digest: abc}}}}", "m/v: digest: 'abc' is not a digest write ALG"),
        ("models: {m: {versions: {v: {uri: models/v1, digests: {a.bin: 5}}}}}", "m/v: digests: a.bin: '5' is not a"),
        (
            "models: {m: {versions: {v: {uri: models/v1, digests: {../a.bin: 'crc32:00000000'}}}}}",
            "the path '../a.bin', which has",
        ),
        ("include: [{url: 'https://h.test/x', digest: abc}]", "include: https://h.test/x: 'abc' is not a digest"),
        ("models: {m: {versions: {v: {uri: models/v1}, v: {uri: models/v2}}}}", "given twice"),
    ],
)
def test_a_wrong_catalog_is_refused_and_nothing_is_delivered(
    catalog: Callable[[str], Pull], tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        catalog(text)("model-registry://m@champion" if "aliases" in text else "model-registry://m")
    assert f"catalog {tmp_path}/catalog.yaml: " in str(caught.value) or "given twice" in says
    assert says in f"{caught.value} {caught.value.hint}"
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize(
    "uri", ["s33://b/m", "ftp://u:se-cret@h/m", "run:/a/b", "gss://b", "S3A3://b", "model:/iris/1"]
)
def test_a_uri_of_a_registry_that_nothing_reads_is_told_as_its_entry(catalog: Callable[[str], Pull], uri: str) -> None:
    with pytest.raises(Unsupported) as caught:
        catalog(f"models: {{my m: {{versions: {{'1': {{uri: '{uri}'}}}}}}}}")("model-registry://my%20m")
    assert caught.value.message.startswith("registry catalog, version '1' of 'my m': lading does not read ")
    # How a URI should be written is no advice for whoever wrote none.
    assert caught.value.hint.startswith("change it in that registry")
    assert "se-cret" not in caught.value.message


@pytest.mark.parametrize(("uri", "why"), [("pvc://claim/m", "KServe mounts it"), ("dbfs:/models/m", "only Databricks")])
def test_a_uri_of_a_registry_that_is_refused_by_name_keeps_its_reason(
    catalog: Callable[[str], Pull], uri: str, why: str
) -> None:
    with pytest.raises(Unsupported, match=r"^registry catalog, version 'v' of 'm': lading does not read ") as caught:
        catalog(f"models: {{m: {{versions: {{v: {{uri: '{uri}'}}}}}}}}")("model-registry://m")
    assert why in caught.value.hint


def test_a_uri_of_a_registry_that_is_wrong_is_told_as_its_entry(catalog: Callable[[str], Pull]) -> None:
    with pytest.raises(UsageError, match=r"^registry catalog, version 'v' of 'm': s3:///m is not an S3 URI"):
        catalog("models: {m: {versions: {v: {uri: 's3:///m'}}}}")("model-registry://m")


@pytest.mark.parametrize("text", ["", "models:", "models: {}"])
def test_a_catalog_without_models_has_none(catalog: Callable[[str], Pull], text: str) -> None:
    with pytest.raises(NotFound, match="has no model"):
        catalog(text)("model-registry://m")


def test_a_digest_of_the_only_file_is_checked(catalog: Callable[[str], Pull], tmp_path: Path) -> None:
    right = sha256(b"v1").hexdigest()
    manifest = catalog(f"models: {{m: {{versions: {{v: {{uri: models/v1, digest: 'sha256:{right}'}}}}}}}}")(
        "model-registry://m"
    )
    assert [str(digest) for digest in manifest.files[0].verified] == [f"sha256:{right}"]


@pytest.mark.parametrize("key", ["digest: 'sha256:%s'", "digests: {model.bin: 'sha256:%s'}"])
def test_a_digest_that_the_bytes_do_not_have_refuses_them(
    catalog: Callable[[str], Pull], tmp_path: Path, key: str
) -> None:
    pull = catalog("models: {m: {versions: {v: {uri: models/v1, %s}}}}" % (key % ("0" * 64)))
    with pytest.raises(IntegrityError, match="is expected"):
        pull("model-registry://m")
    assert not (tmp_path / "dest" / "model.bin").exists()
    assert not (tmp_path / "dest" / FILE_NAME).exists()


def test_a_digest_of_a_file_that_the_origin_lacks_refuses_the_model(catalog: Callable[[str], Pull]) -> None:
    pull = catalog("models: {m: {versions: {v: {uri: models/v1, digests: {lost.bin: 'crc32:00000000'}}}}}")
    with pytest.raises(IntegrityError, match=r"lost\.bin"):
        pull("model-registry://m")


def test_one_digest_for_several_files_is_a_usage_error(catalog: Callable[[str], Pull], tmp_path: Path) -> None:
    (tmp_path / "models/v1/second").touch()
    pull = catalog("models: {m: {versions: {v: {uri: models/v1, digest: 'crc32:00000000'}}}}")
    with pytest.raises(UsageError, match="2 files"):
        pull("model-registry://m")


@pytest.mark.parametrize("path", ["../evil", "/evil", ".lading.manifest"])
def test_a_digest_for_a_path_that_leaves_is_refused(catalog: Callable[[str], Pull], path: str) -> None:
    pull = catalog(
        "models: {m: {versions: {v: {uri: models/v1, digests: {'PATH': 'crc32:00000000'}}}}}".replace("PATH", path)
    )
    with pytest.raises(UsageError, match="digests has the path"):
        pull("model-registry://m")


def test_a_relative_path_starts_at_the_catalog_and_an_absolute_one_does_not(
    catalog: Callable[[str], Pull], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    for uri in ("models/v1", str(tmp_path / "models/v1"), f"file://{tmp_path}/models/v1"):
        assert catalog(f"models: {{m: {{versions: {{v: {{uri: '{uri}'}}}}}}}}")("model-registry://m").files


def test_metadata_that_json_does_not_know_is_delivered_as_text(catalog: Callable[[str], Pull], tmp_path: Path) -> None:
    # YAML reads 2024-05-01 as a date: it must not end a delivery after the last byte.
    manifest = catalog(
        "models: {m: {trained: 2024-05-01, versions: {v: {uri: models/v1, metadata: "
        "{at: 2024-05-01 10:00:00, deep: {2024-05-02: x, 1: y}, tags: !!set {a, b}, raw: !!binary aGk=, n: 1.5, t: [yes]}}}}}"
    )("model-registry://m")
    assert manifest.metadata["trained"] == str(datetime.date(2024, 5, 1))
    assert manifest.metadata["n"] == 1.5
    assert manifest.metadata["t"] == [True]
    stored = json.loads((tmp_path / "dest" / FILE_NAME).read_text())
    assert stored["metadata"] == json.loads(json.dumps(dict(manifest.metadata)))


def test_registries_are_asked_in_order_and_the_first_that_knows_the_name_answers(tmp_path: Path) -> None:
    entries = []
    for name, models in (("one", ["a"]), ("two", ["a", "b"])):
        for model in models:
            (tmp_path / name / model).mkdir(parents=True)
            (tmp_path / name / model / "file").write_text(name)
        text = "".join(f"  {model}: {{versions: {{v: {{uri: {name}/{model}}}}}}}\n" for model in models)
        (tmp_path / f"{name}.yaml").write_text("models:\n" + text)
        entries.append(registry_entry(name, "catalog", path=str(tmp_path / f"{name}.yaml")))
    settings = Settings(registries=tuple(entries))

    def found(uri: str) -> str:
        return lading.pull(uri, tmp_path / "dest", settings=settings).registry

    assert found("model-registry://a") == "one"
    assert found("model-registry://b") == "two"
    assert found("model-registry://two/a/v") == "two"
    with pytest.raises(NotFound, match=r"no registry \(one, two\) has model-registry://c"):
        found("model-registry://c")
    with pytest.raises(NotFound, match="registry one has no model 'b'"):
        found("model-registry://one/b/v")


def test_a_name_needs_a_registry(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none is configured"):
        lading.pull("model-registry://iris", tmp_path / "dest", settings=Settings())


def test_a_catalog_that_is_not_there_is_named(tmp_path: Path) -> None:
    entry = registry_entry("c", "catalog", path=str(tmp_path / "lost.yaml"))
    with pytest.raises(NotFound, match=r"lost\.yaml"):
        lading.resolve("model-registry://iris", settings=Settings(registries=(entry,)))


def test_a_moved_alias_moves_the_destination(catalog: Callable[[str], Pull], tmp_path: Path) -> None:
    catalog(IRIS)("model-registry://iris@champion")
    catalog(IRIS.replace("champion: v1", "champion: v2"))("model-registry://iris@champion")
    assert (tmp_path / "dest" / "model.bin").read_text() == "v2"
    assert Manifest.loads((tmp_path / "dest" / FILE_NAME).read_text()).version == "v2"


def test_a_version_that_one_registry_has_archived_is_not_taken_from_the_next(tmp_path: Path) -> None:
    for name, state in (("first", "archived"), ("second", "live")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_text(name)
        (tmp_path / f"{name}.yaml").write_text(
            f"models: {{iris: {{versions: {{v1: {{uri: {name}, state: {state}}}}}}}}}\n"
        )
    entries = tuple(
        registry_entry(name, "catalog", path=str(tmp_path / f"{name}.yaml")) for name in ("first", "second")
    )
    with pytest.raises(NotFound, match="archived"):
        lading.pull("model-registry://iris/v1", tmp_path / "out", settings=Settings(registries=entries))
    assert not (tmp_path / "out").exists()
    lading.pull("model-registry://second/iris/v1", tmp_path / "out", settings=Settings(registries=entries))
    assert (tmp_path / "out/model").read_text() == "second"


def test_a_registry_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "second.yaml").write_text("models: {iris: {versions: {v1: {uri: /nowhere}}}}\n")
    entries = tuple(
        registry_entry(name, "catalog", path=str(tmp_path / f"{name}.yaml")) for name in ("first", "second")
    )
    with pytest.raises(NotFound, match=r"first\.yaml"):
        lading.pull("model-registry://iris/v1", tmp_path / "out", settings=Settings(registries=entries))
