"""What an MLflow server's proxy has, from wherever it keeps it; its traps and faults."""

import json
from dataclasses import replace

import pytest

from fakes.destination import Destination
from fakes.fake_mlflow import BUCKET, PRESIGNED, PROXY, SERVER_INFO, FakeMlflow
from fakes.faulty_http import ALWAYS, Answer, Fault, FaultyServer, anything, cut, redirect, reset, status, wrong_byte
from fakes.registry_entries import registry_entry
from fakes.trees import MIB, content, read_tree
from lading.errors import IntegrityError, LadingError, NotAllowed, NotFound, Unsupported, Untrusted, UsageError
from lading.events import AlreadyDelivered
from lading.model.uri import ModelURI
from lading.settings.limits import Limits
from lading.settings.trust import Formats, TrustRule

BIG = content(MIB)
FILES = {
    "MLmodel": b"flavors: {}",
    "empty": b"",
    "deep/er/one": b"1",
    "deep/er/two": b"2",
    "deep-er/one": b"another",
    "with space/and+plus & more=41": b"escaped",
    "gr\u00fc\u00dfe-\u6a21": b"unicode",
    "weights/big.bin": BIG,
}
ROOT = "1/models/m-1/artifacts"
RANGE_BYTES = MIB // 4
SHORT = Limits(stall_s=0.3, connect_s=5.0, attempts=4, workers=4)


def fill(mlflow: FakeMlflow) -> FakeMlflow:
    for path, data in FILES.items():
        mlflow.put(f"{ROOT}/{path}", data)
    mlflow.put("1/models/m-10/artifacts/MLmodel", b"of another model")
    return mlflow


@pytest.fixture(params=["disk", "s3", "elsewhere", "elsewhere-flask"])
def mlflow(request, server) -> FakeMlflow:
    """A server that keeps its files in each of the places that there are."""
    return fill(FakeMlflow(server, store=request.param))


@pytest.fixture
def disk(server) -> FakeMlflow:
    return fill(FakeMlflow(server))


@pytest.fixture
def s3(server) -> FakeMlflow:
    return fill(FakeMlflow(server, store="s3"))


@pytest.fixture
def bring(server, pull, tmp_path):
    """Deliver what is below a path of the proxy: ``bring(uri, **options of the entry)``."""

    def call(uri: str = f"mlflow-artifacts:/{ROOT}", *, limits=SHORT, listener=lambda event: None, **options):
        registries = (registry_entry("prod", "mlflow", **{"url": server.url, **options}),)
        destination = tmp_path / "destination"
        return pull(uri, destination, registries=registries, range_bytes=RANGE_BYTES, limits=limits, listener=listener)

    return call


@pytest.fixture
def destination(tmp_path) -> Destination:
    return Destination(tmp_path / "destination")


# ---- what is delivered -----------------------------------------------------------------------


def test_the_files_below_a_path_are_delivered_from_wherever_the_server_keeps_them(mlflow, bring, destination):
    bring(login={"token": "s3cret"})
    destination.assert_holds(FILES)
    for request in mlflow.server.requests:
        # A presigned URL is for another server: the login is not.
        login = None if request.path.startswith(BUCKET) else "Bearer s3cret"
        assert request.headers.get("authorization") == login


def test_one_file_is_delivered_under_its_base_name(mlflow, bring, destination):
    bring(f"mlflow-artifacts:/{ROOT}/weights/big.bin")
    destination.assert_holds({"big.bin": BIG})


@pytest.mark.parametrize("store", ["disk", "s3"])
def test_what_is_there_is_not_fetched_again(server, bring, store, events):
    fill(FakeMlflow(server, store=store))
    bring()
    server.behave()
    bring()
    assert [event for event in events if isinstance(event, AlreadyDelivered)]
    assert server.sent_bytes < 10_000


@pytest.mark.parametrize("store", ["disk", "s3"])
def test_large_files_are_fetched_in_parts(server, bring, store):
    fill(FakeMlflow(server, store=store))
    bring()
    path = PROXY if store == "disk" else BUCKET
    ranges = [r.headers.get("range") for r in server.requests_for(f"{path}/{ROOT}/weights/big.bin")]
    assert {f"bytes={at}-{at + RANGE_BYTES - 1}" for at in range(0, MIB, RANGE_BYTES)} <= set(ranges)


@pytest.mark.parametrize("store", ["elsewhere", "elsewhere-flask"])
def test_a_server_that_fetches_each_file_itself_is_asked_once_for_each(server, bring, store):
    fill(FakeMlflow(server, store=store))
    bring()
    assert len(server.requests_for(f"{PROXY}/{ROOT}/weights/big.bin")) == 1


def test_presigned_urls_bring_the_digests_of_the_store(s3, bring):
    manifest = bring()
    assert {digest.algorithm for file in manifest.files if file.size_bytes for digest in file.verified} == {"md5"}
    assert not s3.server.requests_for(PROXY + "/" + ROOT + "/weights/big.bin")


def test_the_etag_of_the_proxy_is_not_taken_for_an_md5(disk, bring):
    # It looks like one.
    assert not any(file.verified for file in bring().files if file.size_bytes)


def test_a_path_before_the_api_is_kept(server, bring, destination):
    fill(FakeMlflow(server, prefix="/gateway/mlflow"))
    bring(url=f"{server.url}/gateway/mlflow/")
    destination.assert_holds(FILES)


# ---- which server ----------------------------------------------------------------------------


def test_the_uri_names_a_server_that_is_configured(disk, bring, destination):
    authority = disk.server.url.removeprefix("http://")
    bring(f"mlflow-artifacts://{authority}/{ROOT}")
    destination.assert_holds(FILES)


def test_a_server_that_is_not_configured_is_not_asked(disk, bring, destination):
    with FaultyServer() as stranger:
        with pytest.raises(UsageError, match="on an MLflow server that is not configured"):
            bring(stranger.url.replace("http", "mlflow-artifacts") + f"/{ROOT}")
        assert not stranger.requests
    destination.assert_untouched()


def test_of_several_servers_the_uri_names_one(disk, pull, tmp_path):
    with FaultyServer(host="localhost") as other:
        entries = tuple(registry_entry(url[7:], "mlflow", url=url) for url in (other.url, disk.server.url))
        with pytest.raises(UsageError, match="could be on any of") as caught:
            pull(f"mlflow-artifacts:/{ROOT}", tmp_path / "x", registries=entries)
        assert "mlflow-artifacts://host:port/path" in caught.value.hint
        pull(disk.server.url.replace("http", "mlflow-artifacts") + f"/{ROOT}", tmp_path / "x", registries=entries)
        assert read_tree(tmp_path / "x") == FILES
        assert not other.requests


def test_of_several_workspaces_at_one_server_the_one_that_resolved_the_name_is_asked(disk, pull, tmp_path):
    disk.add("iris", {"model.pkl": b"pickled"})
    entries = tuple(
        registry_entry(name, "mlflow", url=disk.url, workspace=name, namespaces=(name,))
        for name in ("team-a", "team-b")
    )
    pull("model-registry://iris?namespace=team-b", tmp_path / "x", registries=entries)
    assert {request.headers["x-mlflow-workspace"] for request in disk.server.requests} == {"team-b"}


@pytest.mark.parametrize(
    "uri",
    [
        "mlflow-artifacts:/",
        "mlflow-artifacts://SERVER/",
        "mlflow-artifacts:/1/m?token=s3cret",
        "mlflow-artifacts:/1/m#s3cret=1",
        "mlflow-artifacts://user:s3cret@SERVER/1/m",
    ],
)
def test_what_is_no_path_of_artifacts_is_refused(disk, bring, uri):
    with pytest.raises(UsageError, match="is not a path of artifacts") as caught:
        bring(uri.replace("SERVER", disk.server.url.removeprefix("http://")))
    assert "s3cret" not in str(caught.value)
    assert not disk.server.requests


# ---- traps -----------------------------------------------------------------------------------


def test_nothing_there_is_told_with_what_is_near(mlflow, bring, destination):
    with pytest.raises(NotFound, match="has no files") as caught:
        bring("mlflow-artifacts:/1/models/m-1/artefacts")
    assert caught.value.hint == "did you mean artifacts?"
    destination.assert_untouched()


@pytest.mark.parametrize("name", ["a%41", "a%2Fb", "a#b"])
def test_a_name_that_the_server_would_read_as_another_is_refused(disk, bring, destination, name):
    disk.put(f"{ROOT}/aA", b"another file")
    disk.put(f"{ROOT}/{name}", b"this file")
    with pytest.raises(Unsupported, match="cannot send a file that is called"):
        bring()
    destination.assert_untouched()


def listing(*items: object) -> Answer:
    return Answer(200, {}, json.dumps({"files": items}).encode())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (listing({"path": "../evil", "is_dir": False, "file_size": 1}), Unsupported),
        (listing({"path": "..", "is_dir": True}), IntegrityError),
        (listing({"path": "..", "is_dir": False}), IntegrityError),
        (listing({"path": "", "is_dir": True}), IntegrityError),
        (listing({"path": ".lading", "is_dir": True}), IntegrityError),
        (listing({"path": "same", "is_dir": True}), IntegrityError),
        (listing({"path": "a", "file_size": 1}, {"path": "a", "file_size": 1}), IntegrityError),
        (listing({"path": "a", "file_size": -1}), Unsupported),
        (listing({"path": "a", "file_size": "many"}), Unsupported),
        (listing({"path": "a", "is_dir": "yes"}), Unsupported),
        (listing({"path": 5}), Unsupported),
        (listing({"name": "a"}), Unsupported),
        (listing("a"), Unsupported),
        (Answer(200, {}, b'{"files": 5}'), Unsupported),
        (Answer(200, {}, b'{"files": [{"path": "a"}], "next_page_token": "t"}'), Unsupported),
        (Answer(200, {}, b'{"error_code": "INTERNAL_ERROR"}'), Unsupported),
        (listing({"path": "a"}, {"path": "a"}), IntegrityError),
        (Answer(200, {}, b"[]"), Unsupported),
        (Answer(200, {}, b"null"), Unsupported),
        (Answer(200, {}, b"{"), Unsupported),
        (Answer(200, {"Content-Type": "text/html"}, b"<html>log in"), NotAllowed),
        (Answer(200, {}, b" " * (33 << 20)), IntegrityError),
    ],
)
def test_a_listing_that_is_none_is_refused(disk, bring, destination, answer, kind):
    disk.refuse = lambda request: answer if request.path == PROXY else None
    with pytest.raises(kind):
        bring()
    destination.assert_untouched()


def test_sizes_may_be_texts_zeros_or_missing(disk, bring, destination):
    def as_text(request):
        if request.path == PROXY and request.query.endswith("m-1%2Fartifacts"):
            items = [{"path": "MLmodel", "is_dir": False, "file_size": str(len(FILES["MLmodel"]))}]
            return listing(*items, {"path": "empty", "file_size": 0}, {"path": "gr\u00fc\u00dfe-\u6a21"})
        return None

    disk.refuse = as_text
    bring()
    destination.assert_holds({path: FILES[path] for path in ("MLmodel", "empty", "gr\u00fc\u00dfe-\u6a21")})


@pytest.mark.parametrize("named", ["Mlmodel", "MLmodel"])
def test_a_file_that_is_not_what_was_listed_is_not_delivered(disk, bring, destination, named):
    def lie(request):
        if request.path == PROXY and request.query.endswith("m-1%2Fartifacts"):
            return listing({"path": named, "file_size": 5})
        return None

    disk.refuse = lie
    if named == "MLmodel":
        # The answer for the file itself is right, and what is delivered is that.
        bring()
        destination.assert_holds({"MLmodel": FILES["MLmodel"]})
        return
    with pytest.raises(NotFound):
        bring()
    destination.assert_untouched()


# ---- changes and faults ------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 2])
def test_parts_of_two_versions_are_never_put_together(disk, bring, destination, after):
    path = f"{PROXY}/{ROOT}/weights/big.bin"
    new = content(MIB, seed=9)

    def reads_parts(request):
        return request.headers.get("range") not in (None, "bytes=0-0")

    disk.server.misbehave(
        path, disk.server.before(lambda: disk.put(f"{ROOT}/weights/big.bin", new), after=after, on=reads_parts)
    )
    bring(limits=SHORT._replace(workers=1))
    destination.assert_holds(FILES | {"weights/big.bin": new})


def test_answers_under_no_etag_are_not_put_together(disk, bring, destination):
    def strip(request, answer):
        return replace(answer, headers={name: text for name, text in answer.headers.items() if name != "ETag"})

    disk.server.misbehave(
        f"{PROXY}/{ROOT}/weights/big.bin",
        Fault(strip, times=ALWAYS, on=lambda request: request.headers.get("range") != "bytes=0-0"),
    )
    bring()
    destination.assert_holds(FILES)
    # In one stream, at last: what was asked for in parts was not taken.
    assert "range" not in disk.server.requests_for(f"{PROXY}/{ROOT}/weights/big.bin")[-1].headers


def test_a_file_without_a_version_starts_anew_when_it_breaks_off(server, bring, destination):
    fill(FakeMlflow(server, store="elsewhere"))
    server.misbehave(f"{PROXY}/{ROOT}/weights/big.bin", cut(at=500_000, on=anything), reset(at=900_000, on=anything))
    bring()
    destination.assert_holds(FILES)


def test_presigned_urls_that_end_are_asked_for_anew(s3, bring, destination):
    seen = []

    def end(request):
        # Each URL holds for three requests.
        if request.path.startswith(BUCKET):
            seen.append(request.query)
            if seen.count(request.query) > 3:
                s3.ended.add(request.query.partition("=")[2])

    s3.refuse = end
    bring()
    destination.assert_holds(FILES)
    assert len(s3.server.requests_for(f"{PRESIGNED}/{ROOT}/weights/big.bin")) > 1


def test_a_store_that_refuses_presigned_urls_while_it_is_read_ends_the_delivery(s3, bring, destination):
    def refuse(request):
        part = request.path.endswith("big.bin") and request.headers.get("range") not in (None, "bytes=0-0")
        return Answer(403) if part and request.path.startswith(BUCKET) else None

    s3.refuse = refuse
    with pytest.raises(NotAllowed) as caught:
        bring()
    assert "se-cret" not in str(caught.value) + caught.value.hint
    destination.assert_untouched()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(403),
        Answer(404),
        Answer(500),
        Answer(501, {}, b'{"error_code": "NOT_IMPLEMENTED"}'),
        Answer(200, {}, b'{"url": "http://127.0.0.1:1/bucket/x", "headers": {}}'),
        Answer(200, {}, b'{"url": "http://store.invalid/x"}'),
        Answer(200, {}, b'{"url": "ftp://store/x"}'),
        Answer(200, {}, b'{"url": 5}'),
        Answer(200, {}, b'{"url": "http://127.0.0.1:1/", "headers": [1]}'),
        Answer(200, {}, b"[]"),
    ],
)
def test_the_proxy_is_read_where_presigned_urls_do_not_work(s3, bring, destination, answer):
    s3.refuse = lambda request: answer if request.path.startswith(PRESIGNED) else None
    bring(attempts=1)
    destination.assert_holds(FILES)


@pytest.mark.parametrize("code", [404, 403, 401])
def test_a_server_that_does_not_say_what_it_offers_is_read_through_its_proxy(disk, bring, destination, code):
    disk.server.misbehave(SERVER_INFO, status(code, times=ALWAYS, on=anything))
    bring()
    destination.assert_holds(FILES)


def test_headers_that_a_presigned_url_needs_are_sent(s3, bring, destination):
    def presign(request):
        if not request.path.startswith(PRESIGNED):
            return None if "x-needed" in request.headers or not request.path.startswith(BUCKET) else Answer(400)
        name = request.path.removeprefix(f"{PRESIGNED}/")
        url = f"{s3.server.url}{BUCKET}/{name}?X-Amz-Signature=se-cret-0"
        return Answer(200, {}, json.dumps({"url": url, "headers": {"X-Needed": "yes"}}).encode())

    s3.refuse = presign
    bring()
    destination.assert_holds(FILES)
    assert not s3.server.requests_for(f"{PROXY}/{ROOT}/MLmodel")


def test_a_wrong_byte_from_the_store_is_found(s3, bring, destination):
    s3.server.misbehave(f"{BUCKET}/{ROOT}/weights/big.bin", wrong_byte(300_000, times=ALWAYS))
    with pytest.raises(IntegrityError):
        bring()
    destination.assert_untouched()


def test_the_login_does_not_follow_a_redirect(disk, bring, destination):
    with FaultyServer(host="localhost") as elsewhere:
        disk.server.misbehave(f"{PROXY}/{ROOT}/MLmodel", redirect(f"{elsewhere.url}/x"))
        with pytest.raises(LadingError):
            bring(login={"token": "s3cret"})
        assert not elsewhere.requests
    destination.assert_untouched()


def test_a_login_that_is_rotated_while_files_are_read_is_read_anew(disk, bring, destination, tmp_path):
    (tmp_path / "token").write_text("first")

    def end(request):
        if request.path.endswith("big.bin") and request.headers.get("range") not in (None, "bytes=0-0"):
            (tmp_path / "token").write_text("second")
            return Answer(401) if request.headers["authorization"] == "Bearer first" else None
        return None

    disk.refuse = end
    bring(login={"token": {"file": str(tmp_path / "token")}})
    destination.assert_holds(FILES)


def test_a_server_that_fetches_the_file_itself_is_waited_for_longer(server, bring, destination):
    fill(FakeMlflow(server, store="elsewhere"))
    hold = {"count": 0}

    def slow(request, total):
        # Longer than the patience with other servers, and only as long as that takes to notice.
        if request.path.endswith("big.bin") and not hold["count"]:
            hold["count"] = 1
            server.closing.wait(0.4)

    server.on_sent = slow
    bring()
    destination.assert_holds(FILES)
    assert len(server.requests_for(f"{PROXY}/{ROOT}/weights/big.bin")) == 1


# ---- what a run has logged -------------------------------------------------------------------

RUN = "150eda2c4bed451b8e96932d35e4477b"


def test_what_a_run_has_is_delivered_from_wherever_the_server_says(mlflow, bring, destination):
    mlflow.runs[RUN] = "mlflow-artifacts:/1/models/m-1"
    bring(f"runs:/{RUN}/artifacts", login={"token": "s3cret"})
    destination.assert_holds(FILES)


def test_a_run_s_uri_may_say_which_server_is_meant(disk, pull, tmp_path):
    disk.runs[RUN] = f"mlflow-artifacts:/{ROOT}"
    with FaultyServer(host="localhost") as other:
        entries = tuple(registry_entry(url[7:], "mlflow", url=url) for url in (other.url, disk.server.url))
        with pytest.raises(UsageError, match="could be on any of") as caught:
            pull(f"runs:/{RUN}", tmp_path / "x", registries=entries)
        assert "runs://host:port/path" in caught.value.hint
        pull(disk.server.url.replace("http", "runs") + f"/{RUN}/deep", tmp_path / "x", registries=entries)
        assert read_tree(tmp_path / "x") == {"er/one": b"1", "er/two": b"2"}
        assert not other.requests


def test_a_logged_model_of_that_name_is_what_the_run_has(disk, bring, destination):
    disk.runs[RUN] = "mlflow-artifacts:/1/elsewhere"
    disk.logged["m-1"] = (f"mlflow-artifacts:/{ROOT}", "LOGGED_MODEL_READY")
    bring(f"runs:/{RUN}/model")
    destination.assert_holds(FILES)


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("/etc", NotAllowed),
        ("file:///var/run/secrets", NotAllowed),
        ("models:/iris/1", Unsupported),
        (f"runs:/{RUN}", Unsupported),
    ],
)
def test_a_run_leads_to_no_file_of_this_machine_and_to_no_name(disk, bring, destination, location, error):
    disk.runs[RUN] = location
    with pytest.raises(error):
        bring(f"runs:/{RUN}")
    destination.assert_untouched()


def test_a_run_does_not_lead_past_the_rule_of_trust_for_the_place_of_its_files(disk, pull, destination, tmp_path):
    disk.runs[RUN] = f"mlflow-artifacts:/{ROOT}"
    entry = registry_entry("prod", "mlflow", url=disk.server.url)
    place = f"mlflow-artifacts://{disk.server.url.removeprefix('http://')}/{ROOT}"
    rule = TrustRule(ModelURI.parse(place), formats=Formats(code="allow"))
    with pytest.raises(Untrusted, match=f"runs:/{RUN} leads to {place}"):
        pull(f"runs:/{RUN}", tmp_path / "destination", registries=(entry,), trust=(rule,))
    destination.assert_untouched()
    pull(f"runs:/{RUN}", tmp_path / "destination", registries=(entry,), trust=(rule._replace(prefix=None),))
    destination.assert_holds(FILES)


@pytest.mark.parametrize("token", ["again", 5, None])
def test_a_search_for_a_run_s_logged_models_that_contradicts_itself_is_no_answer(disk, bring, destination, token):
    disk.runs[RUN] = f"mlflow-artifacts:/{ROOT}"
    answer = Answer(200, {}, json.dumps({"models": [], "next_page_token": token}).encode())
    disk.refuse = lambda request: answer if request.path.endswith("logged-models/search") else None
    with pytest.raises((IntegrityError, Unsupported)):
        bring(f"runs:/{RUN}/deep")
    destination.assert_untouched()


def test_a_run_that_is_not_there_is_not_found(disk, bring, destination):
    with pytest.raises(NotFound):
        bring("runs:/lost/model")
    destination.assert_untouched()


@pytest.mark.parametrize("uri", ["runs:/", "runs:/a/b?token=s3cret", "runs:/a#b", "runs://user:s3cret@h/a"])
def test_what_names_no_run_is_refused(disk, bring, destination, uri):
    with pytest.raises(UsageError) as caught:
        bring(uri)
    assert "s3cret" not in str(caught.value) + caught.value.hint
    destination.assert_untouched()


def test_a_run_needs_a_server(pull, tmp_path):
    with pytest.raises(UsageError, match="not configured") as caught:
        pull(f"runs:/{RUN}/model", tmp_path / "x")
    assert "MLFLOW_TRACKING_URI" in caught.value.hint
