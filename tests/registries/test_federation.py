"""Who is asked for a name, who is asked next, and what is said about it."""

import json
import shutil
from pathlib import Path

import pytest

from command_line import lading, sha256
from fakes.registry_entries import registry_entry
from fakes.told_registry import TOLD, ToldRegistry, ToldSettings
from lading.errors import LadingError, NotAllowed, NotFound, Unavailable, UsageError
from lading.events import PassedOver
from lading.model.paths import FILE_NAME
from lading.model.uri import ModelURI
from lading.registries.federation import candidates_for, resolve
from lading.registries.registry import NoSuchModel
from lading.settings.registries import KINDS, RegistryEntry
from lading.settings.server import ServerSettings
from lading.settings.settings import Settings

URI = "model-registry://iris"


@pytest.fixture(autouse=True)
def asked(monkeypatch) -> list[str]:
    """The names of the registries that were asked."""
    monkeypatch.setitem(KINDS, "told", TOLD)
    monkeypatch.setattr(ToldRegistry, "asked", [])
    return ToldRegistry.asked


def told(name: str, has: dict[str, object] | None = None, *, kind: str = "told", **about) -> RegistryEntry:
    answers = {key: tuple(about.pop(key)) for key in ("models", "namespaces") if key in about}
    return RegistryEntry(name, kind, ToldSettings(has or {}), ServerSettings(**about), **answers)


def first_answer(uri: str, *entries: RegistryEntry, new_session) -> str:
    """Where the name leads; the name of the error if it leads nowhere."""
    session = new_session(registries=entries)
    try:
        found = resolve(ModelURI.parse(uri), session.settings, session.http, session.listener)
    except LadingError as error:
        return type(error).__name__
    return f"{found.registry}:{found.uri}"


HAS = {"iris": "s3://b/iris"}
DOWN = {"iris": "!Unavailable"}
REFUSES = {"iris": "!NotAllowed"}
OLD = {"iris": "!NotFound"}


@pytest.mark.parametrize(
    ("entries", "outcome", "who"),
    [
        # The first that has it.
        ([told("a", HAS), told("b", HAS)], "a:s3://b/iris", ["a"]),
        ([told("a"), told("b", HAS)], "b:s3://b/iris", ["a", "b"]),
        # One that is away is passed over; if nobody else has it, it may have had it.
        ([told("a", DOWN), told("b", HAS)], "b:s3://b/iris", ["a", "b"]),
        ([told("a", DOWN), told("b")], "Unavailable", ["a", "b"]),
        # A refusal, or a version that is not there, is an answer: nobody else may shadow it.
        ([told("a", REFUSES), told("b", HAS)], "NotAllowed", ["a"]),
        ([told("a", OLD), told("b", HAS)], "NotFound", ["a"]),
        # A registry that owns the name answers for it alone, wherever it stands.
        ([told("a", HAS), told("b", HAS, models=["iris*"])], "b:s3://b/iris", ["b"]),
        ([told("a", HAS), told("b", models=["iris*"])], "NoSuchModel", ["b"]),
        ([told("a", HAS), told("b", DOWN, models=["iris*"])], "Unavailable", ["b"]),
        # Of two owners, the second stands in for the first when that is away, and only then.
        ([told("a", DOWN, models=["i*"]), told("b", HAS, models=["*s"])], "b:s3://b/iris", ["a", "b"]),
        ([told("a", models=["i*"]), told("b", HAS, models=["*s"])], "NoSuchModel", ["a"]),
        # One that may not answer for the name is not asked.
        ([told("a", HAS, models=["llm*"]), told("b", HAS)], "b:s3://b/iris", ["b"]),
        ([told("a", HAS, models=["llm*"])], "UsageError", []),
        ([told("a"), told("b")], "NotFound", ["a", "b"]),
        ([told("a")], "NoSuchModel", ["a"]),
    ],
)
def test_who_answers_for_a_name(new_session, asked, entries, outcome, who):
    assert first_answer(URI, *entries, new_session=new_session) == outcome
    assert asked == who


def test_passing_over_a_registry_is_said_aloud(new_session, events):
    first_answer(URI, told("a", DOWN), told("b", HAS), new_session=new_session)
    assert PassedOver("a", "a says !Unavailable") in events


ENTRIES = (
    told("prod", {"iris": "s3://prod"}, url="https://registry.prod.example:8443/x"),
    told("lab", {"iris": "s3://lab", "prod": "s3://a-model-called-prod"}, namespaces=["team-*"]),
    told("tracking", {"iris": "s3://tracking"}, kind="mlflow", url="http://mlflow:5000"),
)


@pytest.mark.parametrize(
    ("uri", "outcome"),
    [
        ("model-registry://iris", "prod:s3://prod"),
        ("model-registry://prod/iris", "prod:s3://prod"),
        ("model-registry://lab/iris/1", "lab:s3://lab"),
        ("model-registry://lab/iris@champion", "lab:s3://lab"),
        # A registry's host stands for it, with its port or without.
        ("model-registry://registry.prod.example:8443/iris/1", "prod:s3://prod"),
        ("model-registry://registry.prod.example/iris", "prod:s3://prod"),
        ("model-registry://registry.prod.example./iris", "prod:s3://prod"),
        ("model-registry://registry.prod.example.:8443/iris", "prod:s3://prod"),
        ("model-registry://registry.prod.example:9999/iris/1", "UsageError"),
        # No other first part is a host, and nobody is asked to find out.
        ("model-registry://evil.example/iris/1", "UsageError"),
        ("model-registry://169.254.169.254/iris", "NotFound"),
        ("model-registry://lab/prod", "lab:s3://a-model-called-prod"),
        ("model-registry://iris?namespace=team-a", "lab:s3://lab"),
        ("model-registry://iris?namespace=other", "UsageError"),
        ("model-registry://prod/iris?namespace=team-a", "UsageError"),
        ("model-registry://iris?colour=red", "UsageError"),
        ("model-registry://iris?namespace=", "UsageError"),
        ("model-registry://iris?namespace=a&namespace=b", "UsageError"),
    ],
)
def test_which_registry_a_uri_means(new_session, asked, uri, outcome):
    entries = [entry for entry in ENTRIES if entry.kind == "told"]
    assert first_answer(uri, *entries, new_session=new_session) == outcome
    assert set(asked) <= {"prod", "lab"}


@pytest.mark.parametrize(
    "uri", ["mlflow://iris/1", "mlflow://tracking/iris", "mlflow://mlflow:5000/iris/1", "models:/iris/1"]
)
def test_names_of_mlflow_are_asked_of_mlflow_alone(monkeypatch, new_session, uri):
    monkeypatch.setitem(KINDS, "mlflow", TOLD)
    assert first_answer(uri, *ENTRIES, new_session=new_session) == "tracking:s3://tracking"
    assert first_answer(uri, *ENTRIES[:2], new_session=new_session) == "UsageError"


def test_a_uri_that_is_no_name_stands_for_itself(new_session, asked):
    assert first_answer("s3://bucket/iris", told("a", HAS), new_session=new_session) == ":s3://bucket/iris"
    assert asked == []


def test_without_a_registry_the_error_says_how_to_get_one(new_session):
    session = new_session()
    with pytest.raises(UsageError) as caught:
        resolve(ModelURI.parse(URI), session.settings, session.http)
    assert "MODEL_REGISTRY_BASE_URL" in caught.value.hint


def test_an_explanation_asks_everybody_and_says_why_somebody_was_not(new_session):
    entries = (told("a", DOWN), told("b", HAS), told("c", REFUSES), told("d", {"iris": "s3://other"}), told("e"))
    others = (told("f", HAS, models=["llm"]),)
    session = new_session(registries=(*entries, *others))
    found = {each.registry: each for each in candidates_for(ModelURI.parse(URI), session.settings, session.http)}
    assert list(found) == ["a", "b", "c", "d", "e", "f"]
    assert isinstance(found["a"].error, Unavailable)
    assert str(found["b"].resolution.uri) == "s3://b/iris"
    assert isinstance(found["c"].error, NotAllowed)
    assert isinstance(found["e"].error, NoSuchModel)
    assert "llm only" in found["f"].why


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("{name: a, kind: catalog, path: /c}", registry_entry("a", "catalog", path="/c")),
        (
            "{name: a, kind: kubeflow, url: 'http://r', models: ['x*'], namespaces: [t]}",
            registry_entry("a", "kubeflow", url="http://r", models=("x*",), namespaces=("t",)),
        ),
    ],
)
def test_an_entry_of_the_configuration(tmp_path: Path, text: str, entry: RegistryEntry):
    (tmp_path / "lading.yaml").write_text(f"registries: [{text}]")
    assert Settings.load({"LADING_CONFIG": str(tmp_path / "lading.yaml")}).registries == (entry,)


@pytest.mark.parametrize("models", ["iris", "{a: b}", "[1]"])
def test_patterns_that_are_no_list_of_texts_are_refused(tmp_path: Path, models: str):
    (tmp_path / "lading.yaml").write_text(f"registries: [{{name: a, kind: catalog, path: c, models: {models}}}]")
    with pytest.raises(UsageError, match="registry a: models is not understood"):
        Settings.load({"LADING_CONFIG": str(tmp_path / "lading.yaml")})


def test_registries_of_the_configuration_come_before_those_of_variables(tmp_path: Path):
    (tmp_path / "lading.yaml").write_text("registries: [{name: a, kind: catalog, path: /c}]")
    settings = Settings.load(
        {
            "LADING_CONFIG": str(tmp_path / "lading.yaml"),
            "LADING_CATALOG": "/d",
            "MODEL_REGISTRY_BASE_URL": "registry:8080",
            "MODEL_REGISTRY_SCHEME": "https",
        }
    )
    assert [entry.kind for entry in settings.registries] == ["catalog", "catalog", "kubeflow"]
    assert settings.registries[2].server.url == "https://registry:8080"


def test_nothing_of_an_entry_is_printed():
    assert "s3cret" not in repr(Settings(registries=(told("a", url="s3cret"),)))


def test_the_explanation_is_printed_before_what_fails(tmp_path):
    for name, target in (("first", "one"), ("second", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / target).mkdir()
        (tmp_path / name / target / "model.bin").write_text(name)
        (tmp_path / f"{name}.yaml").write_text(
            f"models: {{iris: {{versions: {{v1: {{uri: {name}/{target}}}, v0: {{uri: x, state: archived}}}}}}}}"
        )
    (tmp_path / "lading.yaml").write_text(
        "registries: [{name: first, kind: catalog, path: first.yaml}, {name: second, kind: catalog, path: second.yaml}]"
    )
    where = {"cwd": tmp_path, "environ": {"LADING_CONFIG": "lading.yaml"}}
    code, out, _ = lading("resolve", "--explain", URI, **where)
    assert code == 0
    assert "registry first: iris/v1 at first/one (taken)" in out
    assert "registry second: iris/v1 at second/two (not taken: another registry comes first)" in out
    assert "version v0: archived" in out
    assert "conflict: first and second have different models of this name" in out
    code, out, _ = lading("resolve", "--explain", "--json", URI, **where)
    report = json.loads(out)
    assert report["conflicts"] == [["first", "second"]]
    assert [each["taken"] for each in report["candidates"]] == [True, False]
    code, out, _ = lading("resolve", "--explain", f"{URI}/v9", **where)
    assert code == NotFound.exit_code
    assert "registry first: " in out
    assert "registry second: " in out


def test_who_is_asked_for_an_explanation_is_not_asked_again(server, tmp_path):
    catalog = f"models: {{iris: {{versions: {{v1: {{uri: '{server.put('/model.bin', b'1')}'}}}}}}}}".encode()
    url = server.put("/catalog.yaml", catalog)
    (tmp_path / "catalog.yaml").write_text(f"include: [{{url: '{url}', digest: '{sha256(catalog)}'}}]")
    outcome = lading("resolve", "--explain", URI, "--catalog", tmp_path / "catalog.yaml")
    assert outcome.code == 0, outcome.err
    assert f"registry catalog: iris/v1 at {server.url}/model.bin (taken)" in outcome.out
    assert len(server.requests_for("/catalog.yaml")) == 1


@pytest.mark.parametrize("archive", [False, True])
def test_what_a_registry_knows_comes_as_a_file_where_its_entry_asks_for_one(tmp_path, pull, archive):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.bin").write_bytes(b"a")
    if archive:
        shutil.make_archive(str(tmp_path / "model"), "tar", tmp_path / "model")
    text = f"models: {{iris: {{owner: größe, versions: {{v1: {{uri: model{'.tar' if archive else ''}}}}}}}}}"
    (tmp_path / "catalog.yaml").write_text(text)
    entry = registry_entry("c", "catalog", path=str(tmp_path / "catalog.yaml"), metadata_file="about/model.json")

    def brought() -> dict:
        pull("model-registry://iris", tmp_path / "dest", registries=(entry,))
        assert (tmp_path / "dest" / "a.bin").read_bytes() == b"a"
        return json.loads((tmp_path / "dest" / "about" / "model.json").read_text())

    assert brought() == {"registry": "c", "model": "iris", "version": "v1", "metadata": {"owner": "größe"}}
    pin = read_pin(tmp_path / "dest")
    (tmp_path / "catalog.yaml").write_text(text.replace("größe", "somebody else"))
    assert brought()["metadata"] == {"owner": "somebody else"}
    # It is the same model: what people say of it may change.
    assert read_pin(tmp_path / "dest") == pin


def read_pin(destination: Path) -> str:
    return json.loads((destination / FILE_NAME).read_text())["pin"]
