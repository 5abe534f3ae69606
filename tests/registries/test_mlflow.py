"""MLflow's names become versions that are ready, and nothing of what its server says is believed too soon."""

import json
from itertools import count

import pytest
import yaml

from fakes.fake_mlflow import API, PROXY, WRONG_HOST, FakeMlflow
from fakes.faulty_http import Answer, FaultyServer, anything, reset, stall, status
from fakes.registry_entries import registry_entry
from fakes.trees import read_tree
from lading.delivery.request import Request as Wanted
from lading.delivery.resolve import find
from lading.errors import IntegrityError, NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.events import PassedOver
from lading.model.digest import Digest
from lading.model.uri import ModelURI
from lading.registries.federation import candidates_for, open_registry, resolve
from lading.registries.registry import Deployment, NoSuchModel
from lading.settings.registries import RegistryEntry
from lading.settings.settings import Settings

MODEL = {"MLmodel": b"flavors: {}", "model.pkl": b"pickled"}


@pytest.fixture
def mlflow(server) -> FakeMlflow:
    """A model of six versions: 1 in production, 2 in staging, 3 ready, 4 archived, 5 failed, 6 pending."""
    mlflow = FakeMlflow(server)
    about = [
        {"stage": "Production", "tags": {"team": "a"}},
        {"stage": "Staging"},
        {},
        {"stage": "Archived"},
        {"status": "FAILED_REGISTRATION", "status_message": "no such run"},
        {"status": "PENDING_REGISTRATION"},
    ]
    for number, facts in enumerate(about, 1):
        mlflow.add("iris", {**MODEL, "number": b"%d" % number}, **facts)
    mlflow.aliases["iris"] = {"champion": 1, "retired": 4, "hurried": 6, "lost": 9}
    mlflow.logged["m-0001"] = (mlflow.models["iris"][2].location, "LOGGED_MODEL_READY")
    mlflow.logged["m-0002"] = (mlflow.models["iris"][2].location, "LOGGED_MODEL_PENDING")
    return mlflow


@pytest.fixture
def entry(mlflow):
    def make(name: str = "prod", **options) -> RegistryEntry:
        return registry_entry(name, "mlflow", **{"url": mlflow.url, **options})

    return make


@pytest.fixture
def ask(entry, new_session):
    """Resolve through the server: ``ask(uri, variables=…, **options of the entry)``."""

    def call(uri: str, *, variables=None, **options):
        session = new_session(registries=(entry(**options),), variables=variables or {})
        return resolve(ModelURI.parse(uri), session.settings, session.http)

    return call


# ---- what a name stands for ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        # MLflow's own answer to "latest" is 6, which is not ready, or 4, which is archived.
        ("mlflow://iris", "3"),
        ("mlflow://iris/latest", "3"),
        ("mlflow://iris@latest", "3"),
        ("mlflow://iris/2", "2"),
        ("mlflow://iris/002", "2"),
        ("mlflow://iris@champion", "1"),
        ("mlflow://iris/production", "1"),
        ("mlflow://prod/iris", "3"),
        ("mlflow://prod/iris/2", "2"),
        ("mlflow://prod/iris@champion", "1"),
        ("model-registry://iris", "3"),
        ("model-registry://iris/2", "2"),
        ("model-registry://prod/iris@champion", "1"),
        ("models:/iris/2", "2"),
        ("models:/iris/latest", "3"),
        ("models:/iris/LATEST", "3"),
        ("models:/iris/Production", "1"),
        ("models:/iris/staging", "2"),
        ("models:/iris/none", "3"),
        ("models:/iris@champion", "1"),
        ("models://prod/iris/2", "2"),
        # Who asks for an archived version by its number, its alias or its stage means it.
        ("models:/iris/4", "4"),
        ("models:/iris@retired", "4"),
        ("models:/iris/Archived", "4"),
    ],
)
def test_every_form_of_a_name_leads_to_its_version(mlflow, ask, uri, version):
    found = ask(uri)
    assert (found.registry, found.model, found.version) == ("prod", "iris", version)
    path = mlflow.path(mlflow.models["iris"][int(version)])
    assert str(found.uri) == f"mlflow-artifacts://{mlflow.server.url.removeprefix('http://')}/{path}"


def test_a_logged_model_is_found_by_its_id(mlflow, ask):
    found = ask("models:/m-0001")
    assert (found.model, found.version) == ("m-0001", "m-0001")
    assert found.uri.path == "/" + mlflow.path(mlflow.models["iris"][2])
    assert found.metadata["source_run_id"]
    # As a pin names it.
    assert ask("model-registry://prod/m-0001/m-0001") == found


@pytest.mark.parametrize(
    ("uri", "says", "hint"),
    [
        ("models:/irsi/1", "registry prod has no model 'irsi'", "did you mean iris?"),
        ("models:/iris/7", "has no version '7'", "6"),
        ("models:/iris/99999999999999999999", "has no version", ""),
        ("models:/iris/Prodction", "has no version 'Prodction'", ""),
        ("models:/iris/-1", "has no version '-1'", ""),
        ("models:/iris@champ", "has no alias 'champ'", "did you mean champion?"),
        ("models:/iris@lost", "has no version '9'", "6"),
        ("models:/iris/5", "is not ready (FAILED_REGISTRATION: no such run)", "another version"),
        ("models:/iris/6", "is not ready (PENDING_REGISTRATION)", "when it is ready"),
        ("models:/iris@hurried", "version '6' of model 'iris' is not ready", ""),
        ("models:/m-0002", "is not ready (LOGGED_MODEL_PENDING)", ""),
        ("models:/m-0003", "registry prod does not have the logged model 'm-0003'", ""),
    ],
)
def test_what_is_missing_or_not_ready_is_told(ask, uri, says, hint):
    with pytest.raises(NotFound) as caught:
        ask(uri)
    assert says in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize("uri", ["models:/iris/2", "models:/iris/02"])
def test_another_version_than_the_one_that_was_asked_for_is_refused(mlflow, ask, uri):
    mlflow.models["iris"][2] = mlflow.models["iris"][3]
    with pytest.raises(IntegrityError, match="registry prod answers with version '3'"):
        ask(uri)
    assert ask("models:/iris/3").version == "3"


def test_a_model_with_nothing_to_deliver_says_why(mlflow, ask):
    for number in (1, 2, 3):
        del mlflow.models["iris"][number]
    with pytest.raises(NotFound, match="no version that is ready and not archived") as caught:
        ask("mlflow://iris")
    assert "version 6 is not ready (PENDING_REGISTRATION); version 5" in caught.value.hint
    assert "version 4 is in the stage Archived" in caught.value.hint
    with pytest.raises(NotFound, match="in the stage Production"):
        ask("models:/iris/Production")


def test_the_explanation_names_what_was_passed_over(mlflow, entry, new_session):
    session = new_session(registries=(entry(),))
    (candidate,) = candidates_for(ModelURI.parse("mlflow://iris"), session.settings, session.http)
    assert candidate.resolution.considered == (
        ("6", "is not ready (PENDING_REGISTRATION)"),
        ("5", "is not ready (FAILED_REGISTRATION: no such run)"),
        ("4", "is in the stage Archived"),
        ("3", "taken"),
    )


def test_the_newest_version_has_the_greatest_number_over_all_pages(mlflow, ask):
    for _ in range(30):
        mlflow.add("iris", MODEL, stage="Archived")
    mlflow.page_versions = 7
    assert ask("mlflow://iris").version == "3"
    assert len(mlflow.server.requests_for(f"{API}/model-versions/search")) == 5


@pytest.mark.parametrize("name", ["it's", 'say "hi"', "a b/c+d%41", "größe", "模型", "1", "latest", "m-0001"])
def test_any_name_can_be_asked_for(mlflow, ask, name):
    mlflow.add(name, MODEL)
    from urllib.parse import quote

    for uri in ("mlflow://{}", "models:/{}/latest", "models:/{}/1"):
        found = ask(uri.format(quote(name, safe="")))
        assert (found.model, found.version) == (name, "1")
        assert yaml.safe_load(found.generated[0].content) == {"model_name": name, "model_version": "1"}


def test_a_name_that_the_search_cannot_be_told_is_refused_and_a_number_helps(mlflow, ask):
    mlflow.add("a'b\"c", MODEL)
    with pytest.raises(Unsupported, match="both kinds of quotes"):
        ask("mlflow://a'b%22c")
    assert ask("mlflow://a'b%22c/1").version == "1"


def test_what_is_known_of_a_version_becomes_metadata(mlflow, ask):
    mlflow.model_tags["iris"] = {"owner": "me"}
    found = ask("mlflow://iris/1").metadata
    assert found == json.loads(json.dumps(dict(found)))
    assert found["model_description"] == "about iris"
    assert found["model_tags"] == {"owner": "me"}
    assert found["tags"] == {"team": "a"}
    assert found["aliases"] == ["champion"]
    assert (found["status"], found["current_stage"]) == ("READY", "Production")
    assert found["run_id"]
    assert found["creation_timestamp"]


# ---- where its files are ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "uri"),
    [
        ("s3://bucket/1/models/m-1/artifacts", "s3://bucket/1/models/m-1/artifacts"),
        ("gs://bucket/1/m", "gs://bucket/1/m"),
        ("wasbs://models@account.blob.core.windows.net/1/m", "wasbs://models@account.blob.core.windows.net/1/m"),
        ("hdfs://namenode:8020/1/m", "hdfs://namenode:8020/1/m"),
        ("https://models.example.com/m.tar.gz", "https://models.example.com/m.tar.gz"),
        ("mlflow-artifacts:/1/m", "mlflow-artifacts://SERVER/1/m"),
        ("mlflow-artifacts:///1/m", "mlflow-artifacts://SERVER/1/m"),
        ("mlflow-artifacts://other:5000/1/m", "mlflow-artifacts://other:5000/1/m"),
        ("https://other:5000/gateway/api/2.0/mlflow-artifacts/artifacts/1/m", "mlflow-artifacts://other:5000/1/m"),
    ],
)
def test_a_location_becomes_the_uri_that_is_read(mlflow, ask, location, uri):
    mlflow.add("there", {}, location=location)
    assert str(ask("mlflow://there").uri) == uri.replace("SERVER", mlflow.server.url.removeprefix("http://"))


@pytest.mark.parametrize("location", ["/etc", "file:///var/run/secrets", "file:/etc"])
def test_a_folder_of_this_machine_is_read_only_if_the_entry_names_it(mlflow, ask, tmp_path, location):
    mlflow.add("there", {}, location=location)
    with pytest.raises(NotAllowed, match="on this machine"):
        ask("mlflow://there")
    mlflow.add("here", {}, location=f"{tmp_path}/mlruns/1")
    assert ask("mlflow://here", folders=[str(tmp_path)]).uri.path == f"{tmp_path}/mlruns/1"


@pytest.mark.parametrize("location", ["mlruns/1/m", " s3://b/p", "s3://b/p\n"])
def test_a_location_that_is_no_uri_is_told_as_the_registrys(mlflow, ask, location):
    mlflow.add("there", {}, location=location)
    with pytest.raises(UsageError, match="registry prod, version 1 of 'there': "):
        ask("mlflow://there", folders=["/"])


@pytest.mark.parametrize("location", ["mlflow://iris/1", "model-registry://iris"])
def test_a_location_that_is_another_name_is_refused(mlflow, ask, location):
    mlflow.add("there", {}, location=location)
    with pytest.raises(Unsupported, match="another registry name"):
        ask("mlflow://there")


@pytest.fixture
def run(mlflow):
    """The run "abc", with two logged models and a folder of artifacts, and the run "old" of before there were such models."""
    mlflow.runs |= {"abc": "mlflow-artifacts:/1/abc/artifacts", "old": "s3://bucket/1/old/artifacts?region=x"}
    mlflow.put("1/abc/artifacts/plain/MLmodel", b"flavors: {}")
    mlflow.put("1/abc/artifacts/both/more.txt", b"more")
    for model_id, run_id, name in (("m-77", "old", "model"), ("m-78", "abc", "model"), ("m-79", "abc", "both")):
        mlflow.logged[model_id] = (f"mlflow-artifacts:/1/models/{model_id}/artifacts", "LOGGED_MODEL_READY")
        mlflow.logged_by[model_id] = (run_id, name)
    return mlflow


# What a version is said to be, and where it is.
FOLLOWED = {
    "runs:/abc/plain": "/1/abc/artifacts/plain",
    "RUNS:/abc/plain/": "/1/abc/artifacts/plain",
    "runs:///abc/plain": "/1/abc/artifacts/plain",
    "runs:/abc/deep/er/a b+c": "/1/abc/artifacts/deep/er/a b+c",
    "runs:/abc": "/1/abc/artifacts",
    "runs:/abc/it's.here": "/1/abc/artifacts/it's.here",
    "runs:/abc/model": "/1/models/m-78/artifacts",
    "runs:/abc/model/code/deep": "/1/models/m-78/artifacts/code/deep",
    "models:/m-78": "/1/models/m-78/artifacts",
    "models:/iris/2": "IRIS2",
    "models:/iris@champion": "IRIS1",
    "models:/iris/latest": "IRIS3",
    "models:/of-a-run/1": "/1/abc/artifacts/plain",
}


@pytest.mark.parametrize(("location", "path"), FOLLOWED.items())
@pytest.mark.parametrize("asked", ["models:/there/1", "models:/there/latest", "models:/there@champion"])
def test_a_version_that_is_said_to_be_a_run_or_another_is_followed(run, ask, location, path, asked):
    run.add("of-a-run", {}, location="runs:/abc/plain")
    run.add("there", {}, location=location)
    run.aliases["there"] = {"champion": 1}
    found = ask(asked)
    if path.startswith("IRIS"):
        path = "/" + run.path(run.models["iris"][int(path[4:])])
    assert (found.model, found.version, found.uri.scheme, found.uri.path) == ("there", "1", "mlflow-artifacts", path)
    assert found.variables == {"LADING_REGISTRY": "prod"}


def test_a_server_before_version_3_has_only_artifacts(run, ask):
    run.logs_models = False
    run.add("there", {}, location="runs:/abc/model")
    assert ask("mlflow://there").uri.path == "/1/abc/artifacts/model"


def test_where_a_run_keeps_its_artifacts_counts(run, ask):
    run.add("there", {}, location="runs:/old/deep/model")
    assert str(ask("mlflow://there").uri) == "s3://bucket/1/old/artifacts/deep/model?region=x"


def test_a_logged_model_is_looked_for_on_every_page(run, ask):
    for number in range(5):
        run.logged[f"m-9{number}"] = ("mlflow-artifacts:/1/other", "LOGGED_MODEL_READY")
        run.logged_by[f"m-9{number}"] = ("other", "model")
    run.page_versions = 2
    run.add("there", {}, location="runs:/abc/model")
    assert ask("mlflow://there").uri.path == "/1/models/m-78/artifacts"


@pytest.mark.parametrize(
    ("location", "kind", "says"),
    [
        ("runs:/gone/model", NotFound, "the run 'gone'"),
        ("runs:/", Unsupported, "the run ''"),
        ("runs:/abc/both", Unsupported, "both artifacts and the logged model m-79"),
        ("runs:/empty/x", NotFound, "the run 'empty' has no artifacts"),
        ("runs:/pending/pending", NotFound, "is not ready"),
        ("runs://profile@databricks/abc/model", Unsupported, "a name to another server"),
        ("models://other/iris/1", Unsupported, "a name to another server"),
        ("models:/m-none", NotFound, "does not have the logged model 'm-none'"),
        ("models:/m-0001%2Fcode", NotFound, "does not have the logged model 'm-0001/code'"),
        ("models:/irsi/1", NotFound, "has no model 'irsi'"),
        ("models:/iris/9", NotFound, "has no version '9'"),
        ("models:/iris", Unsupported, "names no version"),
        ("models:/there/1", Unsupported, "a chain of names that does not end"),
        ("runs:/local/model", NotAllowed, "on this machine"),
        ("runs:/circle/model", Unsupported, "points to another run for its artifacts"),
    ],
)
def test_a_version_that_leads_nowhere_is_told_by_its_own_name(run, entry, new_session, location, kind, says):
    run.runs |= {"circle": "runs:/circle", "empty": "", "local": "/var/run/secrets", "pending": "s3://bucket/x"}
    run.logged["m-80"] = ("s3://bucket/y", "LOGGED_MODEL_PENDING")
    run.logged_by["m-80"] = ("pending", "pending")
    run.add("there", {}, location=location)
    # Nobody else is asked: this registry has the model.
    session = new_session(registries=(entry(), registry_entry("other", "mlflow", url="http://127.0.0.1:1")))
    with pytest.raises(kind, match=says) as caught:
        resolve(ModelURI.parse("models:/there/1"), session.settings, session.http)
    assert "version 1 of 'there'" in caught.value.message
    assert not isinstance(caught.value, NoSuchModel)


def test_runs_and_logged_models_are_asked_of_the_tracking_server(run, entry, new_session):
    with FaultyServer() as server:
        registry = FakeMlflow(server)
        registry.add("there", {}, location="runs:/abc/model")
        registry.add("there", {}, location="models:/m-78")
        entries = (registry_entry("prod", "mlflow", url=server.url, artifacts_url=run.url),)
        session = new_session(registries=entries)
        for name in ("models:/there/1", "models:/there/2", "models:/m-78"):
            found = resolve(ModelURI.parse(name), session.settings, session.http)
            assert str(found.uri) == f"mlflow-artifacts://{run.url.removeprefix('http://')}/1/models/m-78/artifacts"


def test_a_version_of_a_run_is_delivered(run, entry, pull, tmp_path):
    run.add("there", {}, location="runs:/abc/plain")
    manifest = pull("models:/there/1", tmp_path / "model", registries=(entry(),))
    assert read_tree(tmp_path / "model").keys() == {"MLmodel", "registered_model_meta"}
    assert manifest.version == "1"


def test_a_version_without_artifacts_has_none(mlflow, ask):
    mlflow.add("empty", {}).location = ""
    with pytest.raises(NotFound, match="has no artifacts"):
        ask("mlflow://empty")


@pytest.mark.parametrize("scheme", ["s3", "s3a"])
def test_the_endpoint_that_mlflow_would_use_for_s3_is_used(mlflow, ask, scheme):
    mlflow.add("there", {}, location=f"{scheme}://bucket/m")
    found = ask("mlflow://there", variables={"MLFLOW_S3_ENDPOINT_URL": "http://minio:9000"})
    assert found.variables == {"AWS_ENDPOINT_URL": "http://minio:9000"}


def test_artifacts_may_be_behind_another_server_than_the_registry(mlflow, ask):
    found = ask("mlflow://iris", artifacts_url="https://tracking.example.com/mlflow")
    assert found.uri.authority == "tracking.example.com"


# ---- digests and the file that MLflow's client adds ---------------------------------------------


def test_tags_record_digests_as_in_every_kind_of_registry(mlflow, ask):
    one, two = "ab" * 32, "cd" * 32
    versions = mlflow.models["iris"]
    versions[1].tags = {"digest.weights/a b.bin": f"sha256:{one}", "digests": json.dumps({"größe": f"sha256:{two}"})}
    versions[2].tags = {"sha256": one}
    assert ask("mlflow://iris/1").digests == {"weights/a b.bin": Digest("sha256", one), "größe": Digest("sha256", two)}
    assert ask("mlflow://iris/2").digests == {"": Digest("sha256", one)}


@pytest.mark.parametrize(
    "tags",
    [
        {"sha256": "ab"},
        {"digest.x": "rot13:ab"},
        {"digest.x": ""},
        {"digest.../evil": "crc32:00000000"},
        {"digest./evil": "crc32:00000000"},
        {"digests": "no JSON"},
    ],
)
def test_a_tag_that_holds_no_digest_is_refused(mlflow, ask, tags):
    mlflow.models["iris"][1].tags = tags
    with pytest.raises(IntegrityError, match="digest"):
        ask("mlflow://iris/1")


def test_a_recorded_digest_is_checked(mlflow, entry, pull, tmp_path):
    mlflow.models["iris"][1].tags = {"digest.model.pkl": "sha256:" + "0" * 64}
    with pytest.raises(IntegrityError, match="is expected"):
        pull("mlflow://iris/1", tmp_path / "model", registries=(entry(),))
    assert not (tmp_path / "model" / "model.pkl").exists()


def test_what_mlflows_client_adds_to_a_model_is_delivered_verified_and_pinned(mlflow, entry, pull, tmp_path):
    registries = (entry(),)
    for name in ("iris", "123", "größe: yes"):
        mlflow.add(name, MODEL)
    for uri, name, version in (
        ("mlflow://iris@champion", "iris", "1"),
        ("mlflow://123", "123", "1"),
        ("mlflow://gr%C3%B6%C3%9Fe%3A%20yes", "größe: yes", "1"),
        ("models:/m-0001", None, None),
    ):
        manifest = pull(uri, tmp_path / "model", registries=registries)
        added = manifest.by_path()["registered_model_meta"]
        written = (tmp_path / "model" / "registered_model_meta").read_bytes()
        assert yaml.safe_load(written) == {"model_name": name, "model_version": version}
        assert [str(digest) for digest in added.verified] == [str(added.validator)]


def test_a_file_that_the_model_has_itself_stays_as_it_is(mlflow, entry, pull, tmp_path):
    mlflow.add("own", {**MODEL, "registered_model_meta": b"mine"})
    mlflow.add("plain", {"weights.bin": b"no MLmodel"})
    pull("mlflow://own", tmp_path / "own", registries=(entry(),))
    assert (tmp_path / "own" / "registered_model_meta").read_bytes() == b"mine"
    pull("mlflow://plain", tmp_path / "plain", registries=(entry(),))
    assert read_tree(tmp_path / "plain") == {"weights.bin": b"no MLmodel"}


def test_a_pin_brings_exactly_the_version_whatever_the_name_stands_for_later(
    mlflow, entry, pull, new_session, tmp_path
):
    registries = (entry(),)
    session = new_session(registries=registries)
    pin = find(Wanted("mlflow://iris@champion", tmp_path / "x"), session).listed.pin
    mlflow.aliases["iris"]["champion"] = 2
    assert pull(pin, tmp_path / "model", registries=registries).version == "1"
    mlflow.put(f"{mlflow.path(mlflow.models['iris'][1])}/model.pkl", b"another")
    with pytest.raises(IntegrityError, match="does not match its pin any more"):
        pull(pin, tmp_path / "model", registries=registries)
    assert (tmp_path / "model" / "model.pkl").read_bytes() == b"pickled"


# ---- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "says", "hint"),
    [
        (Answer(401, {"Content-Type": "text/html"}, b"You are not authenticated."), NotAllowed, "401", "wrong"),
        (Answer(403, {"Content-Type": "text/html"}, b"Permission denied"), NotAllowed, "does not allow", "not allowed"),
        (Answer(403, {"Content-Type": "text/plain"}, WRONG_HOST), NotAllowed, "name", "--allowed-hosts"),
        (Answer(302, {"Location": "https://idp/login"}), NotAllowed, "redirects", "login"),
        (Answer(200, {"Content-Type": "text/html"}, b"<html>log in"), NotAllowed, "web page", "login"),
        (Answer(404, {"Content-Type": "text/html"}, b"<!doctype html>"), Unsupported, "404 with a web page", "address"),
        (Answer(200, {}, b"[1, 2]"), Unsupported, "not have MLflow's form", "url"),
        (Answer(200, {}, b'{"registered_model": 5, "model": []}'), Unsupported, "not have MLflow's form", "url"),
        (Answer(200, {}, b"{"), Unsupported, "not JSON", "address"),
        (Answer(400, {}, b'{"error_code": "INVALID_PARAMETER_VALUE"}'), Unsupported, "400", ""),
        (Answer(500, {}, b"{}"), Unavailable, "500", ""),
        (Answer(429, {"Retry-After": "1"}), Unavailable, "429", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("uri", ["mlflow://iris", "models:/m-0001"])
def test_every_refusal_is_its_own_error(mlflow, ask, uri, answer, kind, says, hint):
    mlflow.refuse = lambda request: answer
    with pytest.raises(kind) as caught:
        ask(uri, login={"token": "s3cret"})
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert "s3cret" not in str(caught.value) + caught.value.hint
    assert "registry prod" in str(caught.value)


def test_a_server_that_stumbles_is_asked_again(mlflow, ask):
    mlflow.server.misbehave(f"{API}/registered-models/get", status(503, times=2, on=anything))
    mlflow.server.misbehave(f"{API}/model-versions/search", reset(at=5, on=anything), stall(at=5, on=anything))
    assert ask("mlflow://iris", stall_s=0.2).version == "3"


def test_a_server_that_is_down_is_passed_over_for_the_next(mlflow, entry, new_session, events):
    down = registry_entry("down", "mlflow", url="http://127.0.0.1:1", attempts=1)
    session = new_session(registries=(down, entry()))
    assert resolve(ModelURI.parse("mlflow://iris"), session.settings, session.http, session.listener).registry == "prod"
    assert [event.registry for event in events if isinstance(event, PassedOver)] == ["down"]


ODD = (True, 0, 1.5, [1], {"a": 1}, [[]])


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("key", ["name", "version", "status", "current_stage", "tags"])
@pytest.mark.parametrize("uri", ["mlflow://iris", "mlflow://iris/3"])
def test_a_value_of_another_type_does_not_count_as_none(mlflow, ask, uri, key, odd):
    """Else a version that is archived or pending would be delivered, or one without its digests."""
    version = mlflow.models["iris"][3]
    document = version.document()
    version.document = lambda: document | {key: odd}
    # Which stage it is in does not matter to whoever names a version.
    if (uri, key) == ("mlflow://iris/3", "current_stage"):
        assert ask(uri).version == "3"
        return
    with pytest.raises((IntegrityError, Unsupported)):
        ask(uri)


@pytest.mark.parametrize("uri", ["model-registry://iris", "model-registry://iris/2", "model-registry://iris@champion"])
@pytest.mark.parametrize(
    "body", [b"", b"no route", b'{"detail": "Not Found"}', b'{"error_code": "ENDPOINT_NOT_FOUND"}', b"[]", b"<html>"]
)
def test_a_gateway_that_knows_no_route_is_no_registry_without_the_model(mlflow, entry, new_session, uri, body):
    """Else the next registry would be asked, whose model of that name may be somebody else's."""
    mlflow.refuse = lambda request: Answer(404, {}, body)
    with FaultyServer() as server:
        other = FakeMlflow(server)
        other.add("iris", MODEL)
        other.add("iris", MODEL)
        other.aliases["iris"] = {"champion": 1}
        session = new_session(registries=(entry(), entry("second", url=other.url)))
        with pytest.raises(Unsupported, match="answers 404"):
            resolve(ModelURI.parse(uri), session.settings, session.http)
        assert not server.requests


@pytest.mark.parametrize("key", ["tags", "aliases"])
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_tags_and_aliases_of_a_model_do_not_count_as_none(mlflow, ask, monkeypatch, key, odd):
    document = mlflow._model_document("iris")
    monkeypatch.setattr(mlflow, "_model_document", lambda name: document | {key: odd})
    with pytest.raises(Unsupported, match=f"{key} in registry prod: the answer does not have MLflow's form"):
        ask("mlflow://iris/3")


def test_a_database_that_takes_one_name_for_another_finds_no_model(mlflow, ask, monkeypatch):
    mlflow.models["Iris"] = mlflow.models["iris"]
    document = mlflow._model_document("iris")
    monkeypatch.setattr(mlflow, "_model_document", lambda name: document)
    for uri in ("mlflow://Iris", "mlflow://Iris/2", "mlflow://Iris@champion"):
        with pytest.raises(NoSuchModel, match="has no model 'Iris'") as caught:
            ask(uri)
        assert caught.value.hint == "did you mean iris?"


@pytest.mark.parametrize("model", [{}, {"name": "rose"}, {"name": ""}, {"name": None}])
def test_an_answer_about_no_or_another_model_does_not_say_that_there_is_none(mlflow, ask, monkeypatch, model):
    monkeypatch.setattr(mlflow, "_model_document", lambda name: model)
    with pytest.raises(IntegrityError, match="registry prod answers with name"):
        ask("mlflow://iris")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("mlflow://iris/2", "registry prod answers with name 'rose'"),
        ("models:/m-0001", "registry prod answers with model id 'm-0002'"),
    ],
)
def test_an_answer_about_something_else_is_refused(mlflow, ask, monkeypatch, uri, says):
    document = mlflow.models["iris"][2].document()
    mlflow.models["iris"][2].document = lambda: document | {"name": "rose"}
    about = mlflow._logged_document("m-0001")
    monkeypatch.setattr(mlflow, "_logged_document", lambda _: {"info": about["info"] | {"model_id": "m-0002"}})
    with pytest.raises(IntegrityError, match=says):
        ask(uri)


def test_a_version_that_goes_while_it_is_looked_up_is_told(mlflow, ask):
    def delete(request):
        if request.path.endswith("get-download-uri"):
            mlflow.models["iris"].pop(3, None)

    mlflow.refuse = delete
    with pytest.raises(NotFound, match="was deleted while it was looked up") as caught:
        ask("mlflow://iris")
    assert caught.value.hint == "run again"
    assert ask("mlflow://iris").version == "2"


@pytest.mark.parametrize("listing", ["endless", "barren", "repeated", "foreign", "unordered", "odd", "long"])
def test_a_listing_that_is_no_listing_ends(mlflow, ask, monkeypatch, listing):
    monkeypatch.setattr("lading.registries.mlflow._MOST_VERSIONS", 100)
    numbers = count(1)

    def page(request):
        if not request.path.endswith("model-versions/search"):
            return None
        number = next(numbers)
        version = {"name": "iris", "version": str(10**8 - number), "current_stage": "Archived"}
        version |= {
            "repeated": {"version": "7"},
            "foreign": {"name": "other"},
            "unordered": {"version": str(number)},
            "odd": {"version": {"number": 1}},
            "long": {"version": "9" * 5000},
        }.get(listing, {})
        versions = [] if listing == "barren" else [version]
        return Answer(200, {}, json.dumps({"model_versions": versions, "next_page_token": f"t{number}"}).encode())

    mlflow.refuse = page
    with pytest.raises((IntegrityError, Unsupported)):
        ask("mlflow://iris")
    assert next(numbers) <= 102


@pytest.mark.parametrize("url", ["databricks", "databricks://profile", "databricks-uc", "uc:https://h/x"])
def test_databricks_is_refused_by_name(ask, url):
    with pytest.raises(Unsupported, match="Databricks"):
        ask("mlflow://iris", url=url)
    with pytest.raises(Unsupported, match="Databricks"):
        resolve(ModelURI.parse("mlflow://iris"), Settings.load({"MLFLOW_TRACKING_URI": url}), None)


@pytest.mark.parametrize(
    "url", ["sqlite:///mlflow.db", "postgresql://user:s3cret@db/mlflow", "file:///mlruns", "./mlruns"]
)
def test_a_store_that_is_no_server_is_refused_by_name(ask, url):
    with pytest.raises(Unsupported, match="lading asks MLflow servers") as caught:
        ask("mlflow://iris", url=url)
    assert "mlflow server" in caught.value.hint
    with pytest.raises(Unsupported, match="lading asks MLflow servers"):
        resolve(ModelURI.parse("mlflow://iris"), Settings.load({"MLFLOW_TRACKING_URI": url}), None)
    assert "s3cret" not in str(caught.value)


def test_an_artifact_of_a_version_has_no_name(ask):
    with pytest.raises(UsageError, match="one artifact"):
        ask("mlflow://iris?artifact=onnx")


def test_the_workspace_goes_with_every_request(mlflow, entry, pull, tmp_path):
    (tmp_path / "namespace").write_text("team-a\n")
    registries = (entry(workspace={"file": str(tmp_path / "namespace")}),)
    pull("mlflow://iris", tmp_path / "model", registries=registries)
    assert {request.headers.get("x-mlflow-workspace") for request in mlflow.server.requests} == {"team-a"}


def test_the_login_goes_to_the_servers_of_the_entry_and_nowhere_else(mlflow, entry, pull, tmp_path):
    with FaultyServer() as tracking:
        behind = FakeMlflow(tracking)
        behind.files = mlflow.files
        registries = (entry(artifacts_url=tracking.url, login={"token": "s3cret"}),)
        pull("mlflow://iris", tmp_path / "model", registries=registries)
        for server, calls in ((mlflow.server, API), (tracking, "/api/")):
            assert {request.headers.get("authorization") for request in server.requests} == {"Bearer s3cret"}
            assert all(request.path.startswith(calls) for request in server.requests)
        assert tracking.requests_for(PROXY)
        mlflow.add("away", {}, location="mlflow-artifacts://127.0.0.1:9/1/m")
        with pytest.raises(UsageError, match="on an MLflow server that is not configured"):
            pull("mlflow://away", tmp_path / "away", registries=registries)


# ---- what was delivered ----------------------------------------------------------------------


def test_a_delivery_is_recorded_as_a_tag_of_the_version_and_again_changes_nothing(mlflow, entry, pull, tmp_path):
    variables = {"POD_NAMESPACE": "team-a", "INFERENCE_SERVICE_NAME": "flowers"}
    for _ in range(2):
        manifest = pull("mlflow://iris", tmp_path / "model", registries=(entry(record=True),), variables=variables)
        told = f"{manifest.digest}, {len(manifest.files)} files, {manifest.size_bytes} bytes"
        assert mlflow.models["iris"][3].tags == {"lading.delivered.team-a.flowers": told}


def test_a_logged_model_has_no_version_to_write_to(entry, new_session):
    session = new_session(registries=(entry(),))
    registry = open_registry(entry(), session.settings, session.http)
    found = resolve(ModelURI.parse("models:/m-0001"), session.settings, session.http)
    with pytest.raises(Unsupported):
        registry.record(found, Deployment("delivered", "team-a", "flowers", "COMPLETE", "sha256:0", {}, ""))


# ---- MLflow's own environment ------------------------------------------------------------------

SERVER = "https://mlflow.example.com"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({"MLFLOW_TRACKING_URI": SERVER}, {"url": SERVER}),
        ({"MLFLOW_REGISTRY_URI": SERVER}, {"url": SERVER}),
        ({"MLFLOW_TRACKING_URI": SERVER, "MLFLOW_REGISTRY_URI": SERVER}, {"url": SERVER}),
        (
            {"MLFLOW_TRACKING_URI": "https://tracking", "MLFLOW_REGISTRY_URI": SERVER},
            {"url": SERVER, "artifacts_url": "https://tracking"},
        ),
        (
            {"MLFLOW_TRACKING_URI": SERVER, "MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "s3cret"},
            {
                "url": SERVER,
                "login": {"user": {"env": "MLFLOW_TRACKING_USERNAME"}, "password": {"env": "MLFLOW_TRACKING_PASSWORD"}},
            },
        ),
        (
            {"MLFLOW_TRACKING_URI": "https://me:p%40ss@mlflow.example.com/x"},
            {"url": f"{SERVER}/x", "login": {"user": "me", "password": "p@ss"}},
        ),
        (
            {"MLFLOW_TRACKING_URI": "https://me:s3cret@tracking", "MLFLOW_REGISTRY_URI": "https://me:s3cret@registry"},
            {"url": "https://registry", "artifacts_url": "https://tracking"},
        ),
        (
            {"MLFLOW_TRACKING_URI": SERVER, "MLFLOW_TRACKING_TOKEN": "s3cret", "MLFLOW_TRACKING_USERNAME": "u"},
            {"url": SERVER, "login": {"token": {"env": "MLFLOW_TRACKING_TOKEN"}}},
        ),
        (
            {"MLFLOW_TRACKING_URI": SERVER, "MLFLOW_TRACKING_AWS_SIGV4": "true", "AWS_DEFAULT_REGION": "eu-west-1"},
            {"url": SERVER, "login": {"aws": {"region": {"env": "AWS_DEFAULT_REGION"}, "service": "execute-api"}}},
        ),
        (
            {"MLFLOW_TRACKING_URI": SERVER, "MLFLOW_TRACKING_AUTH": "kubernetes"},
            {"url": SERVER, "login": {"token": {"file": f"{ACCOUNT}/token"}}},
        ),
        (
            {"MLFLOW_TRACKING_URI": SERVER, "MLFLOW_TRACKING_AUTH": "kubernetes-namespaced"},
            {
                "url": SERVER,
                "login": {"token": {"file": f"{ACCOUNT}/token"}},
                "workspace": {"file": f"{ACCOUNT}/namespace"},
            },
        ),
        (
            {
                "MLFLOW_TRACKING_URI": SERVER,
                "MLFLOW_TRACKING_AUTH": "kubernetes-namespaced",
                "MLFLOW_TRACKING_TOKEN": "s3cret",
                "MLFLOW_WORKSPACE": "team-a",
            },
            {"url": SERVER, "login": {"token": {"env": "MLFLOW_TRACKING_TOKEN"}}, "workspace": "team-a"},
        ),
        (
            {
                "MLFLOW_TRACKING_URI": SERVER,
                "MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca.pem",
                "MLFLOW_TRACKING_CLIENT_CERT_PATH": "/me.pem",
            },
            {"url": SERVER, "tls": {"ca": "/ca.pem", "certificate": "/me.pem"}},
        ),
        ({"MLFLOW_TRACKING_URI": f" {SERVER} \n"}, {"url": SERVER}),
        (
            {"MLFLOW_TRACKING_URI": SERVER, "MLFLOW_TRACKING_INSECURE_TLS": "true"},
            {"url": SERVER, "tls": {"verify": False}},
        ),
    ],
)
def test_the_variables_of_mlflows_client_are_the_entry_of_a_registry(environment, options):
    (entry,) = Settings.load(environment).registries
    assert entry == registry_entry("mlflow", "mlflow", **options)
    assert "s3cret" not in repr(entry)


def test_without_an_address_the_variables_are_no_registry():
    assert Settings.load({"MLFLOW_TRACKING_TOKEN": "s3cret", "MLFLOW_WORKSPACE": "w"}).registries == ()


def test_a_configured_registry_wins_over_one_of_that_name_in_the_environment(tmp_path):
    (tmp_path / "lading.yaml").write_text(f"registries: [{{name: mlflow, kind: mlflow, url: '{SERVER}'}}]")
    environment = {"LADING_CONFIG": str(tmp_path / "lading.yaml"), "MLFLOW_TRACKING_URI": "https://other"}
    assert [entry.server.url for entry in Settings.load(environment).registries] == [SERVER]


def test_the_user_of_the_environment_is_asked_as(mlflow, pull, tmp_path):
    environment = {
        "MLFLOW_TRACKING_URI": mlflow.url,
        "MLFLOW_TRACKING_USERNAME": "reader",
        "MLFLOW_TRACKING_PASSWORD": "s3cret",
    }
    registries = Settings.load(environment).registries
    pull("models:/iris/1", tmp_path / "model", registries=registries, variables=environment)
    assert {request.headers.get("authorization") for request in mlflow.server.requests} == {
        "Basic cmVhZGVyOnMzY3JldA=="
    }
