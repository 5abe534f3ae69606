"""ModelScope: which model a URI names, that its listing is whole, and what every refusal says."""

import hashlib

import pytest

from fakes.fake_hub import LFS_BYTES
from fakes.fake_modelscope import FakeModelScope
from fakes.faulty_http import ALWAYS, ANYWHERE, Answer, Fault, FaultyServer, anything, cut, status, wrong_byte
from fakes.trees import content, read_tree, whole_manifest
from lading.errors import IntegrityError, NotAllowed, NotFound, Unsupported, UsageError
from lading.model.digest import Digest
from lading.model.uri import ModelURI
from lading.settings.modelscope import read_modelscope
from lading.settings.settings import Settings
from lading.sources import modelscope
from lading.sources.modelscope import ModelScopeSource

WEIGHTS = content(4 * LFS_BYTES)
FILES = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "configuration.json": b"{}",
    "empty": b"",
    "deep/er/with space & more%41?#.txt": b"names",
    "model.safetensors": WEIGHTS,
}
LISTING = "/api/v1/models/owner/model/repo/files"
READING = "/api/v1/models/owner/model/repo"
RANGE_BYTES = LFS_BYTES
TOKEN = "ms-reader"


@pytest.fixture
def cdn():
    with FaultyServer(host="localhost") as server:
        yield server


@pytest.fixture
def scope(server, cdn):
    return FakeModelScope(server, cdn)


@pytest.fixture
def model(scope):
    model = scope.model("owner/model")
    model.commit(FILES)
    return model


@pytest.fixture
def fetch(scope, pull, tmp_path):
    """Deliver from the fake, with these variables beside it; what has arrived."""

    def call(uri: str, folder: str = "model", **given) -> dict[str, bytes]:
        variables = {"MODELSCOPE_ENDPOINT": scope.server.url} | given.pop("variables", {})
        pull(uri, tmp_path / folder, variables=variables, range_bytes=RANGE_BYTES, **given)
        return read_tree(tmp_path / folder)

    return call


# ---- URIs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "name", "revision"),
    [
        ("modelscope://owner/model", "owner/model", "master"),
        ("modelscope://owner/model/", "owner/model", "master"),
        ("ms://owner/model", "owner/model", "master"),
        ("modelscope://owner/model:v1.0", "owner/model", "v1.0"),
        ("ms://owner/model:feature/a@b", "owner/model", "feature/a@b"),
    ],
)
def test_a_uri_names_a_model_and_a_revision(uri, name, revision, new_session):
    source = ModelScopeSource(ModelURI.parse(uri), Settings(), new_session().http)
    assert (source._id, source._revision) == (name, revision)


@pytest.mark.parametrize(
    "uri",
    [
        "modelscope://",
        "modelscope://model",
        "modelscope://owner/model/file",
        "modelscope://owner/model:",
        "modelscope://../model",
        "modelscope://owner/..",
        "modelscope://owner/model?revision=v1",
        "modelscope://owner/model#v1",
        "modelscope:/owner",
    ],
)
def test_what_names_no_model_is_refused(uri, new_session):
    with pytest.raises(UsageError, match="does not name a model"):
        ModelScopeSource(ModelURI.parse(uri), Settings(), new_session().http)


# ---- deliveries --------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["modelscope://owner/model", "ms://owner/model:master"])
def test_a_model_is_delivered_as_the_site_has_it_and_nothing_else(model, fetch, tmp_path, uri):
    assert fetch(uri, verify="strict") == FILES
    manifest = whole_manifest(tmp_path / "model")
    assert manifest.resolved == f"modelscope://owner/model:{model.refs['master']}"
    checked = {file.path: file.verified for file in manifest.files}
    assert checked["model.safetensors"] == (Digest("sha256", hashlib.sha256(WEIGHTS).hexdigest()),)
    assert checked["configuration.json"] == (Digest("sha256", hashlib.sha256(b"{}").hexdigest()),)


@pytest.mark.parametrize("names_commits", [True, False])
@pytest.mark.parametrize("folder_by_folder", [True, False])
def test_a_branch_that_moves_meanwhile_is_not_mixed(scope, model, fetch, monkeypatch, names_commits, folder_by_folder):
    scope.names_commits = names_commits
    if folder_by_folder:
        scope.most_entries = 6
        monkeypatch.setattr(modelscope, "_MOST_ENTRIES", 6)
    moved = scope.server.before(lambda: model.commit({path: b"new " + path.encode() for path in FILES}))
    scope.server.misbehave(READING, moved)
    assert fetch("ms://owner/model") == FILES


def test_a_site_that_names_no_commit_leaves_the_uri_as_it_is(scope, model, fetch, tmp_path):
    scope.names_commits = False
    fetch("ms://owner/model")
    assert whole_manifest(tmp_path / "model").resolved == "ms://owner/model"


def test_a_listing_that_was_cut_off_is_made_folder_by_folder(scope, fetch):
    files = {f"{number % 3}/{number % 7}/{number:05}.json": b"%d" % number for number in range(60)}
    scope.model("owner/many").commit(files | {"top.json": b"top"})
    scope.most_entries = 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modelscope, "_MOST_ENTRIES", 20)
        assert fetch("ms://owner/many") == files | {"top.json": b"top"}


@pytest.mark.parametrize("place", ["", "deep/er/"])
@pytest.mark.parametrize("count", [3000, 3001])
def test_a_folder_that_cannot_be_listed_whole_is_refused(scope, fetch, place, count):
    scope.model("owner/wide").commit({f"{place}{number:05}": b"" for number in range(count)})
    with pytest.raises(Unsupported, match="3000 or more entries") as caught:
        fetch("ms://owner/wide")
    assert "deep/er" in caught.value.message or not place


def test_a_folder_that_just_fits_is_delivered(scope, fetch):
    files = {f"{number:05}": b"" for number in range(2999)}
    scope.model("owner/wide").commit(files)
    assert fetch("ms://owner/wide") == files


def test_folders_without_end_are_refused(scope, model, fetch, monkeypatch):
    monkeypatch.setattr(modelscope, "_MOST_ENTRIES", 2)
    monkeypatch.setattr(modelscope, "_MOST_LISTINGS", 50)

    def deeper(request, answer):
        folder = request.query.partition("Root=")[2].replace("%2F", "/")
        place = f"{folder}/x" if folder else "x"
        entry = f'{{"Type": "tree", "Path": "{place}"}}'
        body = entry if "Recursive=False" in request.query else f"{entry}, {entry}"
        return Answer(200, {}, b'{"Code": 200, "Data": {"Files": [%b]}}' % body.encode())

    scope.server.misbehave(LISTING, Fault(deeper, times=ALWAYS, on=anything))
    with pytest.raises(IntegrityError, match="does not end"):
        fetch("ms://owner/model")


def test_a_small_file_whose_transfer_broke_off_is_read_from_its_start(scope, model, fetch):
    # The site sends all of it, whatever range is asked for.
    model.put("notes.txt", content(50_000))
    broken = cut(10_000, times=2, on=lambda request: "notes.txt" in request.query)
    scope.server.misbehave(READING, broken)
    assert fetch("ms://owner/model")["notes.txt"] == content(50_000)
    asked = [request for request in scope.server.requests_for(READING) if "notes.txt" in request.query]
    assert [request.headers.get("range") for request in asked] == [None] * 3


def _named_otherwise(request, answer):
    return answer.with_headers(X_Linked_ETag=f'"{"0" * 64}"')


def test_a_content_network_that_sends_something_else_is_found_out_at_once(scope, model, fetch, cdn):
    cdn.misbehave(ANYWHERE, Fault(_named_otherwise, on=anything))
    assert fetch("ms://owner/model") == FILES


def test_a_name_of_the_content_network_that_is_no_digest_yields_to_the_listed_one(scope, model, fetch, cdn):
    cdn.misbehave(ANYWHERE, Fault(_named_otherwise, times=ALWAYS, on=anything))
    assert fetch("ms://owner/model") == FILES
    cdn.misbehave(ANYWHERE, wrong_byte(100, times=ALWAYS, on=anything))
    with pytest.raises(IntegrityError):
        fetch("ms://owner/model", "damaged")


def test_without_a_digest_in_the_listing_the_content_networks_own_is_checked(scope, model, fetch, tmp_path):
    def silent(request, answer):
        return Answer(200, answer.headers, answer.body.replace(b'"Sha256": "', b'"Other": "'))

    scope.server.misbehave(LISTING, Fault(silent, times=ALWAYS, on=anything))
    assert fetch("ms://owner/model", limits=Settings().limits._replace(workers=1)) == FILES
    unverified = [file.path for file in whole_manifest(tmp_path / "model").files if not file.verified]
    # Told by an answer with all of a file, not with a range of it.
    assert "configuration.json" in unverified


def test_another_delivery_asks_only_for_what_has_changed(scope, model, fetch):
    fetch("ms://owner/model")
    scope.server.behave()
    model.put("configuration.json", b"newer")
    assert fetch("ms://owner/model")["configuration.json"] == b"newer"
    assert len(scope.server.requests_for(READING)) == 1


@pytest.mark.parametrize(("name", "why"), [("../../etc/passwd", r"\.\."), ("", "empty")])
def test_a_name_that_nobody_may_have_is_refused(scope, model, fetch, name, why):
    listing = f'{{"Code": 200, "Data": {{"Files": [{{"Path": "{name}", "Type": "blob", "Size": 1}}]}}}}'
    scope.server.misbehave(LISTING, status(200, listing.encode(), on=anything, times=ALWAYS))
    with pytest.raises(IntegrityError, match=why):
        fetch("ms://owner/model")


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>welcome</html>",
        b"[]",
        b'{"Code": 200, "Data": null}',
        b'{"Code": 200, "Data": {"Files": {}}}',
        b'{"Code": 200, "Data": {"Files": [1]}}',
        b'{"Code": 200, "Data": {"Files": [{"Path": 1}]}}',
        b'{"Code": 200, "Data": {"Files": [{"Path": "a", "Size": -1}]}}',
        b'{"Code": 200, "Data": {"Files": [{"Path": "a", "Size": "1"}]}}',
        b'{"Code": 200, "Data": {"Files": [{"Path": "\\udc80", "Size": 1}]}}',
        b"[" * 100_000,
    ],
)
def test_what_is_not_modelscope_is_told_apart(scope, fetch, answer):
    scope.server.routes["/api/v1/models/"] = lambda request: Answer(200, {}, answer)
    with pytest.raises(Unsupported, match="does not answer as ModelScope does") as caught:
        fetch("ms://owner/model")
    assert "MODELSCOPE_ENDPOINT" in caught.value.hint


# ---- signed URLs and tokens ------------------------------------------------------------------


def test_a_signed_url_serves_all_ranges_until_it_has_expired(scope, model, fetch, cdn):
    scope.link_uses = 2
    assert fetch("ms://owner/model", limits=Settings().limits._replace(workers=1)) == FILES
    asked = [request for request in scope.server.requests_for(READING) if "safetensors" in request.query]
    assert (len(asked), len(cdn.requests)) == (2, 5)


def test_no_token_goes_to_who_has_the_content(scope, fetch, cdn):
    scope.model("owner/private", readers=frozenset({TOKEN})).commit(FILES)
    assert fetch("ms://owner/private", variables={"MODELSCOPE_API_TOKEN": f"{TOKEN}\n"}) == FILES
    for request in scope.server.requests:
        assert (request.headers["authorization"], request.headers["cookie"]) == (
            f"Bearer {TOKEN}",
            f"m_session_id={TOKEN}",
        )
    assert cdn.requests
    assert TOKEN not in repr(cdn.requests)


# ---- refusals --------------------------------------------------------------------------------


def test_a_model_that_is_not_there_is_told_from_a_revision_that_is_not(model, fetch):
    model.commit(FILES, ref="v1.0")
    with pytest.raises(NotFound, match="no such model") as caught:
        fetch("ms://author/auth-model")
    assert "MODELSCOPE_API_TOKEN" in caught.value.hint
    with pytest.raises(NotFound, match="no such revision") as caught:
        fetch("ms://owner/model:v1")
    assert "v1.0" in caught.value.hint


@pytest.mark.parametrize(("token", "hint"), [("", "MODELSCOPE_API_TOKEN"), ("stranger", "wrong, has expired")])
def test_a_private_model_is_refused_with_what_to_do(scope, fetch, token, hint):
    scope.model("owner/private", readers=frozenset({TOKEN})).commit(FILES)
    with pytest.raises(NotAllowed) as caught:
        fetch("ms://owner/private", variables={"MODELSCOPE_API_TOKEN": token})
    assert hint in caught.value.hint


def test_an_error_in_an_answer_that_says_200_is_an_error(scope, model, fetch):
    scope.server.misbehave(LISTING, status(200, b'{"Code": 403, "Data": null}', on=anything, times=ALWAYS))
    with pytest.raises(NotAllowed):
        fetch("ms://owner/model")


def test_a_model_without_files_is_not_found(scope, fetch):
    scope.model("owner/empty").commit({})
    with pytest.raises(NotFound, match="has no files"):
        fetch("ms://owner/empty")


@pytest.mark.parametrize(
    ("variables", "token", "endpoint"),
    [
        ({}, None, "https://www.modelscope.cn"),
        ({"MODELSCOPE_API_TOKEN": "ms-a\n"}, "ms-a", "https://www.modelscope.cn"),
        ({"MODELSCOPE_ENDPOINT": "https://www.modelscope.ai/"}, None, "https://www.modelscope.ai"),
        ({"MODELSCOPE_ENDPOINT": "modelscope.ai"}, None, "https://modelscope.ai"),
        (
            {"STORAGE_CONFIG": '{"type": "modelscope", "token": "ms-b", "endpoint": "https://mirror.example"}'},
            "ms-b",
            "https://mirror.example",
        ),
    ],
)
def test_modelscopes_variables(variables, token, endpoint):
    scope = read_modelscope(Settings.load(variables).variables)
    assert (scope.token.reveal() if scope.token else None, scope.endpoint) == (token, endpoint)
