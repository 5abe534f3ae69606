"""The Hub: which repository a URI names, what is delivered of it, and what every refusal says."""

import hashlib
import json
from urllib.parse import unquote

import pytest

from fakes.fake_hub import LFS_BYTES, FakeHub
from fakes.faulty_http import ALWAYS, ANYWHERE, Answer, FaultyServer, anything, reset, status
from fakes.trees import content, read_tree, whole_manifest
from lading.errors import IntegrityError, NotAllowed, NotFound, OriginChanged, Unavailable, Unsupported, UsageError
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.uri import ModelURI
from lading.settings.huggingface import read_hugging_face
from lading.settings.settings import Settings
from lading.settings.variables import Variables
from lading.sources.huggingface import HuggingFaceSource, _parse

WEIGHTS = content(4 * LFS_BYTES)
FILES = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "config.json": b"{}",
    "empty": b"",
    "deep/er/with space & more%41?#.txt": b"names",
    "model.safetensors": WEIGHTS,
}
RANGE_BYTES = LFS_BYTES
TOKEN = "hf_reader"


@pytest.fixture
def cdn():
    with FaultyServer(host="localhost") as server:
        yield server


@pytest.fixture
def hub(server, cdn):
    return FakeHub(server, cdn)


@pytest.fixture
def model(hub):
    model = hub.repository("owner/model")
    model.commit(FILES)
    return model


@pytest.fixture
def fetch(hub, pull, tmp_path):
    """Deliver from the fake, with these variables beside it; what has arrived."""

    def call(uri: str, folder: str = "model", **given) -> dict[str, bytes]:
        variables = {"HF_ENDPOINT": hub.server.url} | given.pop("variables", {})
        pull(uri, tmp_path / folder, variables=variables, range_bytes=RANGE_BYTES, **given)
        return read_tree(tmp_path / folder)

    return call


# ---- URIs --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "kind", "name", "revision", "path"),
    [
        ("hf://gpt2", "models", "gpt2", "main", ""),
        ("hf://gpt2:v1", "models", "gpt2", "v1", ""),
        ("hf://gpt2@v1/config.json", "models", "gpt2", "v1", "config.json"),
        ("hf://owner/model", "models", "owner/model", "main", ""),
        ("hf://owner/model/", "models", "owner/model", "main", ""),
        ("hf://owner/model:v1.0", "models", "owner/model", "v1.0", ""),
        ("hf://owner/model:refs/pr/1", "models", "owner/model", "refs/pr/1", ""),
        ("hf://owner/model:feature/a@b", "models", "owner/model", "feature/a@b", ""),
        ("hf://owner/model@v1/deep/er", "models", "owner/model", "v1", "deep/er"),
        ("hf://owner/model@feature%2Fa/x", "models", "owner/model", "feature/a", "x"),
        ("hf://owner/model@refs/pr/1/x", "models", "owner/model", "refs/pr/1", "x"),
        ("hf://owner/model/a#b", "models", "owner/model", "main", "a#b"),
        ("hf://datasets/squad", "datasets", "squad", "main", ""),
        ("hf://datasets/owner/name@v2/data", "datasets", "owner/name", "v2", "data"),
        ("hf://spaces/owner/name", "spaces", "owner/name", "main", ""),
        ("hf://models/owner/model", "models", "owner/model", "main", ""),
    ],
)
def test_a_uri_names_a_repository_a_revision_and_a_path(uri, kind, name, revision, path):
    assert _parse(ModelURI.parse(uri)) == (kind, name, revision, path)


@pytest.mark.parametrize(
    "uri",
    [
        "hf://",
        "hf:///owner/model",
        "hf://owner//model",
        "hf://owner/.hidden",
        "hf://../api",
        "hf://owner/..",
        "hf://owner/model:",
        "hf://owner/model@",
        "hf://owner/model@v1/../x",
        "hf://owner/model?revision=v1",
        "hf://own er/model",
        "hf://owner/model:\udcff",
        "hf://owner/model@\udcff",
        "hf://owner/model@main/\udcff",
    ],
)
def test_what_names_no_repository_is_refused(uri):
    with pytest.raises(UsageError):
        _parse(ModelURI.parse(uri))


@pytest.mark.parametrize("uri", ["hf://buckets/owner/name", "hf://kernels/owner/name"])
def test_what_is_no_git_repository_is_not_read(uri):
    with pytest.raises(Unsupported, match="models, datasets and spaces"):
        _parse(ModelURI.parse(uri))


# ---- deliveries --------------------------------------------------------------------------


def test_a_model_is_delivered_as_the_repository_has_it_and_nothing_else(hub, model, fetch, tmp_path):
    assert fetch("hf://owner/model") == FILES
    manifest = whole_manifest(tmp_path / "model")
    assert manifest.resolved == f"hf://owner/model@{model.refs['main']}"
    checked = {file.path: file.verified for file in manifest.files}
    assert checked["model.safetensors"] == (Digest("sha256", hashlib.sha256(WEIGHTS).hexdigest()),)
    # git hash-object of "{}".
    assert checked["config.json"] == (Digest("git-sha1", "9e26dfeeb6e641a33dae4961196235bdb965b21b"),)
    assert all(checked.values())


def test_strict_verification_accepts_all_of_it(model, fetch):
    assert fetch("hf://owner/model", verify="strict") == FILES


def test_the_commit_is_found_first_and_everything_is_asked_for_by_it(hub, model, fetch):
    fetch("hf://owner/model")
    commit = model.refs["main"]
    first, *others = [request.path for request in hub.server.requests]
    assert first == "/api/models/owner/model/revision/main"
    assert [path for path in others if commit not in path] == []


def test_a_commit_that_is_asked_for_is_no_other_one(hub, model, fetch):
    asked = "0" * 40
    body = json.dumps({"sha": model.refs["main"]}).encode()
    hub.server.misbehave(f"/api/models/owner/model/revision/{asked}", status(200, body, on=anything, times=ALWAYS))
    with pytest.raises(IntegrityError, match="another commit"):
        fetch(f"hf://owner/model@{asked}")


@pytest.mark.parametrize("uri", ["hf://gpt2", "hf://gpt2:main", "hf://gpt2@main"])
def test_a_canonical_model_has_one_name(hub, fetch, uri):
    hub.repository("gpt2").commit({"config.json": b"2"})
    assert fetch(uri) == {"config.json": b"2"}


@pytest.mark.parametrize(
    "uri", ["hf://owner/model:refs/pr/1", "hf://owner/model@refs/pr/1", "hf://owner/model@refs%2Fpr%2F1"]
)
def test_a_revision_may_hold_slashes(model, fetch, uri):
    model.commit({"config.json": b"of the request"}, ref="refs/pr/1")
    assert fetch(uri) == {"config.json": b"of the request"}


@pytest.mark.parametrize("kind", ["datasets", "spaces"])
def test_datasets_and_spaces_are_read_too(hub, fetch, kind, tmp_path):
    repository = hub.repository("owner/name", kind)
    repository.commit({"data/a.txt": b"a", "big": WEIGHTS})
    assert fetch(f"hf://{kind}/owner/name") == {"data/a.txt": b"a", "big": WEIGHTS}
    assert whole_manifest(tmp_path / "model").resolved == f"hf://{kind}/owner/name@{repository.refs['main']}"


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("deep", {"er/with space & more%41?#.txt": b"names"}),
        ("deep/er/", {"with space & more%41?#.txt": b"names"}),
        ("config.json", {"config.json": b"{}"}),
        ("deep/er/with space & more%41?#.txt".replace("?", "!"), {"with space & more%41!#.txt": b"!"}),
    ],
)
def test_a_folder_or_one_file_is_delivered(model, fetch, path, files):
    # A "?" ends the path of a URI.
    model.put("deep/er/with space & more%41!#.txt", b"!")
    found = fetch(f"hf://owner/model@main/{path}")
    assert files.items() <= found.items()
    assert found.keys() - files.keys() <= {"er/with space & more%41!#.txt", "with space & more%41!#.txt"}


def test_a_folder_ends_at_its_boundary(model, fetch):
    model.put("deeper/x", b"x")
    assert "x" not in fetch("hf://owner/model@main/deep")


def test_a_listing_of_many_pages_is_whole(hub, fetch):
    hub.page_entries = 7
    files = {f"{number % 5}/{number:03}.json": b"%d" % number for number in range(60)}
    hub.repository("owner/many").commit(files)
    assert fetch("hf://owner/many") == files


def test_the_next_page_is_asked_of_the_endpoint_whoever_the_link_names(hub, model, fetch, cdn):
    hub.page_entries = 2
    hub.next_host = cdn.url
    assert fetch("hf://owner/model", variables={"HF_TOKEN": ""}) == FILES
    assert [request.path for request in cdn.requests if not request.path.startswith("/signed/")] == []


def test_a_listing_without_end_is_refused(hub, model, fetch):
    tree = f"/api/models/owner/model/tree/{model.refs['main']}"
    link = {"Link": f'<{hub.server.url}{tree}?recursive=true&expand=false>; rel="next"'}
    hub.server.misbehave(tree, status(200, b"[]", headers=link, on=anything, times=ALWAYS))
    with pytest.raises(IntegrityError, match="does not end"):
        fetch("hf://owner/model")


@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize(("name", "why"), [("../../etc/passwd", r"\.\."), ("", "empty")])
def test_a_name_that_nobody_may_have_is_refused(hub, model, fetch, name, why, tree):
    hub.tree, hub.blobs = tree, False
    listing = [{"type": "file", "path": name, "size": 1}] if tree else {"siblings": [{"rfilename": name}]}
    place = f"/api/models/owner/model/{'tree' if tree else 'revision'}/{model.refs['main']}"
    hub.server.misbehave(place, status(200, json.dumps(listing).encode(), on=anything, times=ALWAYS))
    with pytest.raises(IntegrityError, match=why):
        fetch("hf://owner/model")


def test_a_repository_that_was_renamed_is_followed_with_the_token(hub, fetch):
    hub.repository("new/name", private=True, readers=frozenset({TOKEN})).commit(FILES)
    answer = hub.server.routes["/"]

    def renamed(request):
        if "old/name" not in request.target:
            return answer(request)
        return Answer(307, {"Location": request.target.replace("old/name", "new/name")})

    hub.server.routes["/"] = renamed
    assert fetch("hf://old/name", variables={"HF_TOKEN": TOKEN}) == FILES


@pytest.mark.parametrize(
    "answer",
    [b"<html>welcome</html>", b"[", b"null", b'{"sha": "main"}', b'{"sha": 7}', b'["\\udc80"]', b"[" * 100_000],
)
def test_what_is_not_the_hub_is_told_apart(hub, fetch, answer):
    hub.server.routes["/"] = lambda request: Answer(200, {}, answer)
    with pytest.raises(Unsupported, match="does not answer as the Hugging Face Hub does") as caught:
        fetch("hf://owner/model")
    assert "HF_ENDPOINT" in caught.value.hint


@pytest.mark.parametrize(
    "listing",
    [
        b'{"error": 1}',
        b'["a"]',
        b'[{"type": "file"}]',
        b'[{"type": "file", "path": "a", "size": "1"}]',
        b'[{"type": "file", "path": "a", "size": -1}]',
    ],
)
def test_a_listing_that_makes_no_sense_is_refused(hub, model, fetch, listing):
    tree = f"/api/models/owner/model/tree/{model.refs['main']}"
    hub.server.misbehave(tree, status(200, listing, on=anything, times=ALWAYS))
    with pytest.raises(Unsupported, match="does not answer"):
        fetch("hf://owner/model")


# ---- signed URLs ---------------------------------------------------------------------------


def test_the_ranges_of_a_file_share_one_redirect(hub, model, fetch, cdn):
    fetch("hf://owner/model", limits=Settings().limits._replace(workers=1))
    asked = hub.server.requests_for(model.file_path("model.safetensors"))
    assert (len(asked), len(cdn.requests)) == (1, 4)


def test_a_signed_url_that_has_expired_is_asked_for_anew(hub, model, fetch, cdn):
    hub.link_uses = 2
    assert fetch("hf://owner/model", limits=Settings().limits._replace(workers=1)) == FILES
    asked = hub.server.requests_for(model.file_path("model.safetensors"))
    assert (len(asked), len(cdn.requests)) == (2, 5)


def test_after_a_transfer_that_failed_the_hub_is_asked_again_who_has_the_content(hub, model, fetch, cdn):
    cdn.misbehave(ANYWHERE, reset(at=0, after=1, on=anything))
    assert fetch("hf://owner/model", limits=Settings().limits._replace(workers=1)) == FILES
    assert len(hub.server.requests_for(model.file_path("model.safetensors"))) == 2


def test_a_delivery_that_was_interrupted_goes_on_with_another_signed_url(hub, model, fetch, cdn):
    cdn.misbehave(ANYWHERE, reset(at=0, after=2, on=anything, times=ALWAYS))
    with pytest.raises(Unavailable):
        fetch("hf://owner/model", limits=Settings().limits._replace(workers=1))
    cdn.behave()
    assert fetch("hf://owner/model") == FILES
    assert cdn.asked_bytes == len(WEIGHTS) - 2 * RANGE_BYTES


def test_no_token_goes_to_who_has_the_content(hub, fetch, cdn):
    private = hub.repository("owner/private", private=True, readers=frozenset({TOKEN}))
    private.commit(FILES)
    assert fetch("hf://owner/private", variables={"HF_TOKEN": TOKEN}) == FILES
    assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in hub.server.requests)
    assert cdn.requests
    assert TOKEN not in repr(cdn.requests)


# ---- mirrors -------------------------------------------------------------------------------


@pytest.mark.parametrize("blobs", [True, False], ids=["digests-in-the-info", "digests-in-the-headers"])
@pytest.mark.parametrize("path", ["", "/deep", "/config.json"])
def test_a_mirror_without_a_listing_is_read_by_what_it_tells_of_the_repository(
    hub, model, fetch, tmp_path, blobs, path
):
    hub.tree, hub.blobs = False, blobs
    expected = {
        "": FILES,
        "/deep": {"er/with space & more%41?#.txt": b"names"},
        "/config.json": {"config.json": b"{}"},
    }
    assert fetch(f"hf://owner/model@main{path}", verify="strict") == expected[path]


def test_a_mirror_that_tells_no_digest_is_read_unverified(hub, model, fetch, tmp_path):
    hub.tree = hub.blobs = False
    silent = status(200, b"{}", on=lambda request: request.method == "HEAD")
    hub.server.misbehave(model.file_path("config.json"), silent)
    assert fetch("hf://owner/model") == FILES
    manifest = whole_manifest(tmp_path / "model")
    assert [file.path for file in manifest.files if not file.verified] == ["config.json"]


@pytest.mark.parametrize("size", ["\xb2", "1" * 5000, "-1", "x"])
def test_a_mirror_whose_size_of_a_file_makes_no_sense_tells_none(hub, model, fetch, size):
    hub.tree = hub.blobs = False
    told = {"X-Linked-Size": size, "X-Linked-Etag": hashlib.sha256(b"{}").hexdigest()}
    odd = status(302, headers=told, on=lambda request: request.method == "HEAD")
    hub.server.misbehave(model.file_path("config.json"), odd)
    assert fetch("hf://owner/model", verify="strict") == FILES


def test_an_endpoint_may_be_a_path_of_a_host(hub, model, fetch):
    route = hub.server.routes.pop("/")
    prefix = "/artifactory/api/huggingfaceml/models"
    hub.server.routes[prefix] = lambda request: route(
        type(request)(request.method, request.target[len(prefix) :], request.headers)
    )
    assert fetch("hf://owner/model", variables={"HF_ENDPOINT": hub.server.url + prefix + "/"}) == FILES


# ---- refusals ------------------------------------------------------------------------------


@pytest.fixture
def refused(hub, model, fetch, tmp_path):
    """The error of a delivery that must leave nothing behind."""

    def call(uri: str, kind: type[Exception], token: str = ""):
        with pytest.raises(kind) as caught:
            fetch(uri, variables={"HF_TOKEN": token})
        assert not (tmp_path / "model").exists() or read_tree(tmp_path / "model") == {}
        return caught.value

    return call


@pytest.mark.parametrize(("token", "hint"), [("", "HF_TOKEN"), (TOKEN, "this token")])
def test_a_repository_that_is_not_there_may_be_private(hub, refused, token, hint):
    hub.tokens = frozenset({TOKEN})
    error = refused("hf://author/auth-model", NotFound, token)
    assert "no such repository" in error.message
    assert hint in error.hint


def test_a_gated_repository_is_refused_at_once_and_says_where_its_conditions_are(hub, refused):
    hub.repository("owner/gated", gated=True, readers=frozenset({TOKEN})).commit(FILES)
    error = refused("hf://owner/gated", NotAllowed)
    assert "is gated" in error.message
    assert f"{hub.server.url}/owner/gated" in error.hint
    assert "HF_TOKEN" in error.hint
    assert [request.path for request in hub.server.requests if "/resolve/" in request.path] == []


def test_a_token_that_has_not_accepted_the_conditions_is_told_so(hub, refused):
    hub.tokens = frozenset({"hf_stranger"})
    hub.repository("owner/gated", gated=True, readers=frozenset({TOKEN})).commit(FILES)
    error = refused("hf://owner/gated", NotAllowed, "hf_stranger")
    assert "accept its conditions" in error.hint
    assert "HF_TOKEN" not in error.hint


def test_who_has_accepted_gets_a_gated_repository(hub, fetch):
    hub.repository("owner/gated", gated=True, readers=frozenset({TOKEN})).commit(FILES)
    assert fetch("hf://owner/gated", variables={"HF_TOKEN": TOKEN}) == FILES


def test_a_token_that_has_expired_is_told_apart(refused):
    error = refused("hf://owner/model", NotAllowed, "hf_expired")
    assert "expired" in error.hint


def test_a_revision_that_is_not_there_names_those_that_are_near(model, refused):
    model.commit(FILES, ref="v1.0")
    error = refused("hf://owner/model:v1", NotFound)
    assert "no such revision" in error.message
    assert "v1.0" in error.hint


def test_a_file_that_is_not_there_names_those_that_are_near(refused):
    error = refused("hf://owner/model@main/confg.json", NotFound)
    assert "config.json" in error.hint


def test_an_empty_repository_is_not_found(hub, refused):
    hub.repository("owner/empty").commit({})
    assert "has no files" in refused("hf://owner/empty", NotFound).message


def test_a_file_that_is_too_large_for_http_is_told_so(hub, model, new_session, cdn):
    source = HuggingFaceSource(
        ModelURI.parse("hf://owner/model"),
        Settings(variables=Variables({"HF_ENDPOINT": hub.server.url})),
        new_session().http,
    )
    file = source.list().by_path()["model.safetensors"]
    cdn.misbehave(ANYWHERE, status(400, on=anything, times=ALWAYS))
    for size, hint in ((400 * 10**9, "Xet"), (10**9, "")):
        with pytest.raises(Unsupported, match="400 Bad Request") as caught:
            source.read(file._replace(size_bytes=size), ByteRange(0, 100), None)
        assert hint in caught.value.hint
        assert bool(hint) == bool(caught.value.hint)


def test_an_endpoint_that_is_no_hub_is_doubted(hub, refused):
    hub.server.routes["/"] = lambda request: Answer(404)
    assert "HF_ENDPOINT" in refused("hf://owner/model", NotFound).hint


def test_a_rate_limit_is_waited_for(hub, model, fetch, clock):
    limited = status(429, headers={"RateLimit": '"api";r=0;t=55'}, on=anything)
    hub.server.misbehave("/api/models/owner/model/revision/main", limited)
    hub.server.misbehave(model.file_path("config.json"), status(429, headers={"RateLimit": '"resolvers";r=0;t=99'}))
    assert fetch("hf://owner/model") == FILES
    assert 55 <= clock.waits[0] <= 60.5
    # Other files may wait with it.
    assert 99 <= clock.waits[1] <= 108.9


def test_a_commit_that_is_gone_is_looked_for_anew(hub, model, fetch):
    def squash():
        gone = model.refs["main"]
        model.put("config.json", b"new")
        del model.commits[gone]

    reads_config = lambda request: "/resolve/" in request.path  # noqa: E731
    hub.server.misbehave(ANYWHERE, hub.server.before(squash, on=reads_config))
    assert fetch("hf://owner/model") == FILES | {"config.json": b"new"}


def test_a_commit_that_goes_each_time_ends_the_delivery(hub, model, fetch):
    hub.server.misbehave(
        ANYWHERE,
        status(404, headers={"X-Error-Code": "RevisionNotFound"}, times=ALWAYS, on=lambda r: "/resolve/" in r.path),
    )
    with pytest.raises(OriginChanged):
        fetch("hf://owner/model")


def test_another_delivery_of_the_same_commit_asks_for_no_file(hub, model, fetch):
    fetch("hf://owner/model")
    hub.server.behave()
    model.put("config.json", b"newer")
    assert fetch("hf://owner/model")["config.json"] == b"newer"
    read = [unquote(request.path.rpartition("/")[2]) for request in hub.server.requests if "/resolve/" in request.path]
    assert read == ["config.json"]


# ---- settings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "token", "endpoint"),
    [
        ({}, None, "https://huggingface.co"),
        ({"HF_TOKEN": "hf_a\n"}, "hf_a", "https://huggingface.co"),
        ({"HUGGING_FACE_HUB_TOKEN": "hf_b"}, "hf_b", "https://huggingface.co"),
        ({"HF_TOKEN": "hf_a", "HUGGING_FACE_HUB_TOKEN": "hf_b"}, "hf_a", "https://huggingface.co"),
        ({"HF_ENDPOINT": "https://mirror.example/"}, None, "https://mirror.example"),
        ({"HF_ENDPOINT": "mirror.example"}, None, "https://mirror.example"),
    ],
)
def test_the_hubs_variables(variables, token, endpoint):
    hub = read_hugging_face(Variables(variables))
    assert (hub.token.reveal() if hub.token else None, hub.endpoint) == (token, endpoint)


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/huggingface/token"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/cache"}, "/cache/huggingface/token"),
        ({"HOME": "/home/me", "HF_HOME": "/hf"}, "/hf/token"),
        ({"HF_TOKEN_PATH": "/mnt/token"}, "/mnt/token"),
        ({}, ""),
    ],
)
def test_the_place_of_the_token_file(variables, place):
    assert read_hugging_face(Variables(variables)).token_file == place


def test_a_token_file_is_used_and_a_named_one_must_be_there(hub, fetch, tmp_path):
    hub.repository("owner/private", private=True, readers=frozenset({TOKEN})).commit(FILES)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert fetch("hf://owner/private", variables={"HF_TOKEN_PATH": str(tmp_path / "token")}) == FILES
    assert fetch("hf://owner/private", "again", variables={"HF_HOME": str(tmp_path)}) == FILES
    with pytest.raises(NotAllowed, match="missing"):
        fetch("hf://owner/private", variables={"HF_TOKEN_PATH": str(tmp_path / "missing")})
    with pytest.raises(NotFound, match="repository"):
        fetch("hf://owner/private", variables={"HF_HOME": str(tmp_path / "missing")})


def test_kserves_storage_json_serves_the_hub(hub, model, fetch):
    config = f'{{"type": "hf", "endpoint": "{hub.server.url}", "token": "{TOKEN}"}}'
    settings = Settings.load({"STORAGE_CONFIG": config, "HF_ENDPOINT": "http://elsewhere.invalid"})
    found = read_hugging_face(settings.variables)
    assert (found.endpoint, found.token.reveal()) == (hub.server.url, TOKEN)


def test_what_its_client_is_tuned_by_has_no_effect(model, fetch):
    tuned = {"HF_HUB_ENABLE_HF_TRANSFER": "1", "HF_XET_HIGH_PERFORMANCE": "1", "HF_XET_NUM_CONCURRENT_RANGE_GETS": "8"}
    assert fetch("hf://owner/model", variables=tuned | {"HF_HUB_OFFLINE": "1"}) == FILES
