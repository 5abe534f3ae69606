"""Real MLflow servers (3.17): its own client registers, lading resolves and brings the same bytes.

Four of them: one that keeps artifacts on its disk; one with users and S3 behind it; and two that fetch each
artifact from the first one before they send it, with MLflow's present way to serve and with its older one.
"""

import json
import operator
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from functools import reduce
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import pytest

from fakes.fake_mlflow import API, PRESIGNED, PROXY, SERVER_INFO, FakeMlflow
from fakes.faulty_http import FaultyServer
from fakes.real_mlflow import mlflow_client, mlflow_server, wait_for
from fakes.real_s3 import ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY, moto
from fakes.registry_entries import registry_entry
from fakes.trees import MIB, content, read_tree, whole_manifest, write_tree
from lading.controller.records import Records
from lading.errors import NotAllowed, NotFound, Unsupported, UsageError
from lading.events import AlreadyDelivered, Recorded
from lading.kubernetes.follow import Key
from lading.rollout.state import Past, State, Version
from lading.settings.limits import Limits, Network
from lading.settings.settings import Settings

FILES = {
    "MLmodel": b"flavors: {}",
    "empty": b"",
    "deep/er/one": b"1",
    "with space/and+plus & more=41": b"escaped",
    "gr\u00fc\u00dfe-\u6a21": b"unicode",
    "weights.bin": content(3 * MIB),
}
# The older way to serve escapes the name of each file once more.
PLAIN_NAMES = {path: data for path, data in FILES.items() if path.isascii() and " " not in path}
ADMIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "a-long-password"}
NOBODY = {"MLFLOW_TRACKING_USERNAME": "nobody", "MLFLOW_TRACKING_PASSWORD": "another-password"}
WRONG = ADMIN | {"MLFLOW_TRACKING_PASSWORD": "wr0ng"}
LIMITS = Limits(stall_s=20.0, connect_s=5.0, attempts=4, workers=4)
AUTH = """
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///auth.db
admin_username = {MLFLOW_TRACKING_USERNAME}
admin_password = {MLFLOW_TRACKING_PASSWORD}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """URLs by name, and the ids of the models that were logged at "disk"."""
    folder = tmp_path_factory.mktemp("mlflow")
    data = str(write_tree(folder / "data", FILES))
    with ExitStack() as stack:

        def start(name: str, *options: str, **environment: str) -> str:
            return stack.enter_context(mlflow_server(folder / name, *options, **environment))

        database = f"sqlite:///{folder}/disk/mlflow.db"
        disk = start("disk", "--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts"))
        endpoint = stack.enter_context(moto())
        (folder / "auth.ini").write_text(AUTH.format(**ADMIN))
        s3 = start(
            "s3",
            *("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", f"s3://{BUCKET}/mlflow"),
            *("--app-name", "basic-auth"),
            AWS_ACCESS_KEY_ID=ACCESS_KEY_ID,
            AWS_SECRET_ACCESS_KEY=SECRET_ACCESS_KEY,
            AWS_DEFAULT_REGION="us-east-1",
            MLFLOW_S3_ENDPOINT_URL=endpoint,
            MLFLOW_AUTH_CONFIG_PATH=str(folder / "auth.ini"),
            MLFLOW_FLASK_SERVER_SECRET_KEY="a secret of this test",
        )
        wait_for(disk)
        ids = mlflow_client(disk, "fill", data)
        behind = ("--backend-store-uri", database, "--artifacts-destination", f"{disk}{PROXY}")
        elsewhere = start("elsewhere", *behind)
        flask = start("flask", *behind, "--gunicorn-opts", "--timeout 60")
        wait_for(s3)
        mlflow_client(s3, "plain", data, *NOBODY.values(), **ADMIN)
        for url in (elsewhere, flask):
            wait_for(url)
        with sqlite3.connect(folder / "disk/mlflow.db") as connection:
            columns = "name, workspace, creation_time, last_updated_time"
            connection.execute(f"INSERT INTO registered_models ({columns}) VALUES ('hurried', 'default', 1, 1)")
            columns += ", version, current_stage, source, status, status_message"
            for version, status in ((1, "READY"), (2, "FAILED_REGISTRATION"), (3, "PENDING_REGISTRATION")):
                values = ("hurried", "default", 1, 1, version, "None", "mlflow-artifacts:/x", status, f"so {version}")
                connection.execute(
                    f"INSERT INTO model_versions ({columns}) VALUES ({', '.join('?' * len(values))})", values
                )
        connection.close()
        yield {"disk": disk, "s3": s3, "elsewhere": elsewhere, "flask": flask, "ids": ids, "endpoint": endpoint}


@pytest.fixture
def bring(servers, pull, tmp_path):
    """Deliver from one of the servers, as its variables have it: ``bring(uri, "disk", **variables)``."""

    def call(uri: str, name: str = "disk", **variables: str):
        variables = {"MLFLOW_TRACKING_URI": servers[name], **variables}
        registries = Settings.load(variables).registries
        return pull(uri, tmp_path / "model", registries=registries, variables=variables, limits=LIMITS, range_bytes=MIB)

    return call


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        ("mlflow://iris", "3"),
        ("models:/iris/latest", "3"),
        ("models:/iris@latest", "3"),
        ("models:/iris/2", "2"),
        ("models:/iris/Production", "1"),
        ("models:/iris/staging", "2"),
        ("models:/iris/Archived", "4"),
        ("models:/iris@champion", "1"),
        ("model-registry://mlflow/iris/2", "2"),
    ],
)
def test_every_form_of_a_name_brings_its_version(bring, uri, version):
    assert bring(uri).version == version


def test_the_newest_as_mlflow_has_it_is_archived(servers):
    # Why lading asks otherwise.
    with urlopen(f"{servers['disk']}{API}/registered-models/alias?name=iris&alias=latest") as answer:
        assert json.load(answer)["model_version"]["version"] == "4"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("models:/iris/5", "has no version '5'"),
        ("models:/iris@champ", "has no alias 'champ'"),
        ("models:/irsi/1", "has no model 'irsi'"),
        ("models:/hurried/2", r"is not ready \(FAILED_REGISTRATION: so 2\)"),
        ("models:/hurried/3", r"is not ready \(PENDING_REGISTRATION: so 3\)"),
        ("models:/m-0123", "does not have the logged model"),
        ("models:/hurried/1", "has no files"),
        ("mlflow-artifacts:/no/such/folder", "has no files"),
    ],
)
def test_what_is_not_there_is_told(bring, tmp_path, uri, says):
    with pytest.raises(NotFound, match=says):
        bring(uri)
    assert not (tmp_path / "model").exists()


def test_the_folder_is_the_one_that_mlflows_client_downloads(servers, bring, tmp_path):
    uris = ["models:/iris/1", "models:/iris@champion", "models:/plain/1", f"models:/{servers['ids'][1]}"]
    pairs = [part for number, uri in enumerate(uris) for part in (uri, str(tmp_path / f"theirs{number}"))]
    mlflow_client(servers["disk"], "download", *pairs)
    for number, uri in enumerate(uris):
        manifest = bring(uri)
        assert read_tree(tmp_path / "model") == read_tree(tmp_path / f"theirs{number}"), uri
        assert whole_manifest(tmp_path / "model").digest == manifest.digest
    assert {path: data for path, data in read_tree(tmp_path / "theirs2").items() if path in FILES} == FILES


def test_a_version_of_a_run_is_the_folder_that_mlflows_client_downloads(servers, bring, tmp_path):
    run_id = servers["ids"][-2]
    uris = ["models:/by-run/1", "models:/by-run/4", "models:/by-run/latest", f"runs:/{run_id}/model"]
    pairs = [part for number, uri in enumerate(uris) for part in (uri, str(tmp_path / f"theirs{number}"))]
    *same, logged = [read_tree(Path(place)) for place in mlflow_client(servers["disk"], "download", *pairs)]
    for uri, theirs in zip(uris, same, strict=False):
        bring(uri)
        assert read_tree(tmp_path / "model") == theirs, uri
    # Asked for such a version, their client puts the model into a folder "model", where none of its flavors finds it.
    for uri in ("models:/by-run/2", "models:/by-run@champion"):
        bring(uri)
        ours = read_tree(tmp_path / "model")
        assert ours | {"registered_model_meta": b""} == logged | {"registered_model_meta": b""}, uri


def test_a_run_with_both_kinds_of_a_folder_is_refused(bring, tmp_path):
    with pytest.raises(Unsupported, match="both artifacts and the logged model"):
        bring("models:/by-run/3")
    assert not (tmp_path / "model").exists()


def test_what_is_there_is_not_fetched_again(bring, events):
    bring("mlflow://plain")
    bring("mlflow://plain")
    assert len([event for event in events if isinstance(event, AlreadyDelivered)]) == 1


@pytest.mark.parametrize(("name", "files"), [("s3", FILES), ("elsewhere", PLAIN_NAMES), ("flask", PLAIN_NAMES)])
def test_a_server_brings_the_same_bytes_from_wherever_it_keeps_them(bring, tmp_path, name, files):
    manifest = bring("mlflow://plain", name, **(ADMIN if name == "s3" else {}))
    found = read_tree(tmp_path / "model")
    assert {path: data for path, data in found.items() if path in files} == files
    # Presigned URLs bring the digests that the store has.
    verified = manifest.by_path()["weights.bin"].verified
    assert [digest.algorithm for digest in verified] == (["md5"] if name == "s3" else [])


@pytest.mark.parametrize(
    ("uri", "variables", "says"),
    [
        ("mlflow://plain/1", {}, "does not accept the login (401, anonymous)"),
        ("mlflow://plain/1", WRONG, "does not accept the login (401, user and password)"),
        ("mlflow://plain/1", NOBODY, "does not allow it (403, user and password)"),
        ("mlflow-artifacts:/1", {}, "does not accept the login (401, anonymous)"),
        ("mlflow-artifacts:/1", WRONG, "does not accept the login (401, user and password)"),
    ],
)
def test_who_may_not_read_is_refused(bring, tmp_path, uri, variables, says):
    with pytest.raises(NotAllowed) as caught:
        bring(uri, "s3", **variables)
    assert says in str(caught.value)
    assert "wr0ng" not in str(caught.value) + caught.value.hint
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("uri", ["mlflow://iris", "mlflow-artifacts:/1"])
def test_a_name_that_the_server_does_not_answer_to_is_explained(servers, pull, tmp_path, uri):
    # As a service of a cluster is called: the server was not told so.  That it is its own proxy leads there.
    registries = (registry_entry("prod", "mlflow", url="http://mlflow.team.svc:5000"),)
    network = Network(http_proxy=servers["disk"])
    with pytest.raises(NotAllowed, match="does not answer to the name mlflow") as caught:
        pull(uri, tmp_path / "model", registries=registries, network=network)
    assert "--allowed-hosts mlflow.team.svc:5000" in caught.value.hint


def test_a_delivery_is_recorded_as_a_tag_once(servers, pull, tmp_path, events):
    entry = registry_entry("prod", "mlflow", url=servers["disk"], record=True)
    variables = {"POD_NAMESPACE": "team-a", "INFERENCE_SERVICE_NAME": "flowers"}
    for _ in range(2):
        manifest = pull("mlflow://iris/2", tmp_path / "model", registries=(entry,), variables=variables)
    assert [type(event) for event in events].count(Recorded) == 2
    assert tag_of(servers["disk"], 2, "lading.delivered.team-a.flowers").startswith(str(manifest.digest))


def test_how_rollouts_ended_is_a_tag_of_each_version(servers):
    config = {"registries": [{"name": "prod", "kind": "mlflow", "url": servers["disk"]}]}
    records = Records(lambda: Settings.load({"LADING_CONFIG_YAML": json.dumps(config)}), time.monotonic, lambda: None)
    first, second = (Version(f"mlflow://iris/{number}?pin=sha256:{str(number) * 64}", str(number)) for number in (1, 2))
    history = (Past(second, 1_800_000_060.0, "RolledBack", "it is damaged"), Past(first, 1_800_000_000.0, "Pinned"))
    state = State(current=first, history=history)
    for known in (state, state._replace(current=None)):
        records.follow("uid", "InferenceService", Key("team-a", "flowers"), known)
        records.agenda.begin()
        records.agenda.serve(forever=False)
        state = records.follow("uid", "InferenceService", Key("team-a", "flowers"), known)
        assert state.unrecorded == ""
        tags = [tag_of(servers["disk"], number, "lading.rollout.team-a.flowers") for number in (1, 2)]
        became = "COMPLETE" if known.current else "UNDEPLOYED"
        assert tags[0].startswith(f"{became}, sha256:{'1' * 64}, 2027-01-15T08:0")
        assert tags[1] == f"FAILED, sha256:{'2' * 64}, 2027-01-15T08:01:00Z, it is damaged"


def tag_of(url: str, number: int, key: str) -> str:
    with urlopen(f"{url}{API}/model-versions/get?name=iris&version={number}") as answer:
        tags = json.load(answer)["model_version"]["tags"]
    return {tag["key"]: tag["value"] for tag in tags}[key]


def test_a_recorded_digest_is_checked(servers, bring, tmp_path):
    manifest = bring("mlflow://plain")
    right = manifest.by_path()["weights.bin"]
    for value in (f"crc32:{0:08x}", str(right.digest)):
        tag = {"name": "plain", "version": "1", "key": "digest.weights.bin", "value": value}
        request = HttpRequest(f"{servers['disk']}{API}/model-versions/set-tag", json.dumps(tag).encode())
        request.add_header("Content-Type", "application/json")
        with urlopen(request):
            pass
        if value == str(right.digest):
            assert right.digest in bring("mlflow://plain").by_path()["weights.bin"].verified
        else:
            with pytest.raises(Exception, match="is expected"):
                bring("mlflow://plain")


def test_the_container_brings_a_model(servers, tmp_path):
    environment = {"PATH": os.environ["PATH"], "MLFLOW_TRACKING_URI": servers["disk"], "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "lading", "init", "models:/plain/1", str(tmp_path / "models")]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    found = read_tree(tmp_path / "models")
    assert {path: found[path] for path in FILES} == FILES
    assert found.keys() - FILES.keys() == {"registered_model_meta"}


# ---- the fake ----------------------------------------------------------------------------------


def shape(value: object) -> object:
    """What kind of thing each part is; what tells nothing may be left out."""
    if isinstance(value, dict):
        kept = {key: shape(item) for key, item in value.items() if item not in ("", [], {})}
        return {key: item for key, item in kept.items() if key not in ("status_message",)}
    if isinstance(value, list):
        # What any of them has: versions differ in what is known of them.
        shapes = [shape(item) for item in value]
        return [reduce(operator.or_, shapes) if isinstance(shapes[0], dict) else shapes[0]]
    return type(value).__name__


def answered(
    url: str, target: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, object, dict[str, str]]:
    """Status, shape of the JSON and the headers that matter, without what changes from file to file."""
    request = HttpRequest(url + target, body, headers, method=method)
    with ExitStack() as stack:
        try:
            answer = stack.enter_context(urlopen(request))
        except HTTPError as error:
            answer = stack.enter_context(error)
        body = answer.read()
        told = {name.lower() for name in answer.headers}
        document: object = body.startswith((b"<!doctype", b"<!DOCTYPE"))
        with suppress(ValueError):
            document = shape(json.loads(body)) if "json" in answer.headers.get("content-type", "") else document
        return answer.status, document, {name: "" for name in ("etag", "content-range", "location") if name in told}


def test_the_fake_answers_as_the_server_does(servers, tmp_path):
    real = servers["disk"]
    with FaultyServer() as server:
        fake = FakeMlflow(server)
        fake.add("iris", FILES, tags={"team": "a"}, stage="Production")
        fake.add("iris", FILES)
        fake.add("iris", FILES)
        fake.aliases["iris"] = {"champion": 1}
        fake.model_tags["iris"] = {"owner": "me"}
        fake.logged["m-1"] = (fake.models["iris"][1].location, "LOGGED_MODEL_READY")
        fake.logged_by["m-1"] = ("run", "model")
        fake.runs["run"] = "mlflow-artifacts:/1/run/artifacts"
        fake.put("1/run/artifacts/deep/some files/x", b"x")
        run_id = servers["ids"][-2]
        there = {}
        for url in (real, fake.url):
            with urlopen(f"{url}{API}/model-versions/get-download-uri?name=iris&version=1") as answer:
                there[url] = quote(json.load(answer)["artifact_uri"].removeprefix("mlflow-artifacts:/"))
        search = "name%3D'iris'&order_by=version_number%20DESC"
        for target in [
            f"{API}/registered-models/get?name=iris",
            f"{API}/registered-models/get?name=none",
            f"{API}/registered-models/search?max_results=100&filter=name%3D'iris'",
            f"{API}/model-versions/get?name=iris&version=1",
            f"{API}/model-versions/get?name=iris&version=77",
            f"{API}/model-versions/get?name=iris&version=x",
            f"{API}/model-versions/get-download-uri?name=iris&version=1",
            f"{API}/model-versions/get-download-uri?name=iris&version=77",
            f"{API}/model-versions/search?filter={search}&max_results=2",
            f"{API}/model-versions/search?filter=name%3D'none'&order_by=version_number%20DESC&max_results=2",
            f"{API}/logged-models/ID",
            f"{API}/logged-models/m-none",
            f"{API}/runs/get?run_id=RUN",
            f"{API}/runs/get?run_id=none",
            f"{API}/runs/get?run_id=",
            f"{API}/artifacts/list?run_id=RUN&path=model",
            f"{API}/artifacts/list?run_id=RUN&path=deep",
            f"{API}/nothing",
            f"{PROXY}?path=ROOT",
            f"{PROXY}?path=ROOT/nothing",
            f"{PROXY}?path=ROOT/MLmodel",
            f"{PROXY}/ROOT/MLmodel",
            f"{PROXY}/ROOT/nothing",
            f"{PRESIGNED}/ROOT/MLmodel",
            SERVER_INFO,
        ]:
            found = [
                answered(url, target.replace("ROOT", there[url]).replace("ID", model_id).replace("RUN", run))
                for url, model_id, run in ((real, servers["ids"][0], run_id), (fake.url, "m-1", "run"))
            ]
            assert found[0] == found[1], target
        for name, experiments in (("model", ["1"]), ("none", ["1"]), ("model", ["77"])):
            asked = json.dumps({"experiment_ids": experiments, "filter": f"name = '{name}'"}).encode()
            target, kind = f"{API}/logged-models/search", {"Content-Type": "application/json"}
            assert answered(real, target, "POST", asked, **kind) == answered(fake.url, target, "POST", asked, **kind)
        for headers in ({"Range": "bytes=0-0"}, {"Range": "bytes=900000-"}, {"Range": "bytes=0-0", "If-Match": '"x"'}):
            found = [answered(url, f"{PROXY}/{there[url]}/MLmodel", **headers) for url in (real, fake.url)]
            assert found[0][0] == found[1][0], headers


def test_the_etag_of_get_holds_and_the_one_of_head_is_another(servers):
    url = servers["disk"]
    with urlopen(f"{url}{API}/model-versions/get-download-uri?name=plain&version=1") as answer:
        place = f"{url}{PROXY}/{json.load(answer)['artifact_uri'].removeprefix('mlflow-artifacts:/')}/weights.bin"
    etags = []
    for method, headers in (("GET", {}), ("GET", {"Range": "bytes=5-9"}), ("GET", {}), ("HEAD", {})):
        with urlopen(HttpRequest(place, headers=headers, method=method)) as answer:
            etags.append(answer.headers["etag"])
    assert len(set(etags[:3])) == 1
    assert etags[3] != etags[0]
    # It looks like an MD5 and is none.
    assert len(etags[0].strip('"')) == 32


def test_a_server_that_is_not_configured_is_not_asked(servers, pull, tmp_path):
    with pytest.raises(UsageError, match="on an MLflow server that is not configured"):
        pull(servers["disk"].replace("http", "mlflow-artifacts") + "/1", tmp_path / "model")
