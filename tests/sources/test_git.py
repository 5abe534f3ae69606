"""git's own server: ``git http-backend``, whose answers are those of most servers there are."""

import json
import os

import pytest

from fakes.certificates import Authority
from fakes.faulty_http import ALWAYS, Answer, Fault, FaultyServer, probes
from fakes.git_server import PASSWORD, USER, GitServer, git, new_repository
from fakes.trees import MIB, content, read_tree, told, whole_manifest
from lading.errors import DeadlineExceeded, IntegrityError, NotAllowed, NotFound, OriginChanged, Unsupported, UsageError
from lading.events import AlreadyDelivered
from lading.model.uri import ModelURI
from lading.settings.limits import Limits
from lading.settings.settings import Settings
from lading.sources.git import GitSource
from lading.sources.http import HttpSource
from lading.sources.schemes import open_source

BIG = content(2 * MIB)
# Alike, so that git sends one as what it adds to the other.
LINES = b"\n".join(b"line %d" % number for number in range(5000))
FILES = {
    "config.json": b"{}",
    "empty": b"",
    "weights/big.bin": BIG,
    "weights/lines": LINES,
    "weights/more-lines": LINES + b"\nand one more",
    "weights-old/a b+c%41#?.txt": b"beside",
}
MODEL = "/git/model.git"
UPLOAD_PACK = f"{MODEL}/git-upload-pack"


# As git asks for, where a proxy drops that, and where one asks for the version between.
ANY_VERSION = pytest.mark.parametrize(
    "protocol", [None, "", "version=1"], ids=["version 2", "version 0", "version 1"], indirect=True
)


@pytest.fixture
def protocol(request):
    """What the server hears of the version that is asked for, if not what was sent."""
    return getattr(request, "param", None)


@pytest.fixture
def origin(server, tmp_path, protocol):
    (tmp_path / "git").mkdir()
    origin = GitServer(server, tmp_path / "git")
    if protocol is not None:
        origin.protocol = lambda asked: protocol
    return origin


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    new_repository(folder, "model.git").commit(FILES)
    return folder


@pytest.fixture
def model(origin, prepared):
    return origin.create(like=prepared)


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "destination"


def packet(line):
    return b"%04x" % (len(line) + 4) + line


def asks_for_a_pack(request) -> bool:
    return b"command=fetch" in request.body or b"side-band-64k" in request.body


@ANY_VERSION
def test_exactly_the_files_of_the_default_branch_come(model, destination, pull):
    manifest = pull(model.url, destination)
    assert read_tree(destination) == FILES
    assert told(whole_manifest(destination)) == told(manifest)
    assert all(file.verified for file in manifest.files)
    assert {file.verified[0].algorithm for file in manifest.files if file.size_bytes} == {"git-sha1"}


@pytest.mark.parametrize("filters", ["true", "false"])
def test_a_server_that_leaves_nothing_out_gives_the_same(model, server, destination, pull, filters):
    model.configure("uploadpack.allowFilter", filters)
    pull(model.url, destination)
    assert read_tree(destination) == FILES
    packs = len([request for request in server.requests if asks_for_a_pack(request)])
    # Listed, and the large file's size and content; or all at once.
    assert packs == (3 if filters == "true" else 1)


@ANY_VERSION
def test_a_server_that_leaves_files_out_and_does_not_give_them_alone_gives_all_at_once(
    model, server, destination, pull
):
    refusal = b"0031ERR upload-pack: not our ref 000000000000000\n0000"
    single = Fault(
        lambda request, answer: Answer(200, answer.headers, refusal),
        times=ALWAYS,
        on=lambda request: asks_for_a_pack(request) and b"deepen" not in request.body,
    )
    server.misbehave(UPLOAD_PACK, single)
    pull(model.url, destination)
    assert read_tree(destination) == FILES


@ANY_VERSION
@pytest.mark.parametrize("annotated", [False, True])
def test_a_ref_is_a_branch_a_tag_or_a_commit_and_the_commit_is_the_pin(model, tmp_path, pull, annotated):
    first = model.commit({"version": b"1"}, branch="feature/one")
    model.tag("v1.0", annotated=annotated)
    last = model.commit({"version": b"2"})
    refs = {"": last, "@main": last, "@feature/one": first, "@feature%2Fone": first, "@v1.0": first, f"@{first}": first}
    refs |= {"@refs/tags/v1.0": first, "@refs/heads/main": last}
    for number, (ref, commit) in enumerate(refs.items()):
        manifest = pull(model.url + ref, tmp_path / str(number))
        assert (tmp_path / str(number) / "version").read_bytes() == (b"1" if commit == first else b"2"), ref
        assert manifest.resolved == f"{model.url}@{commit}"
        assert not (tmp_path / str(number) / ".git").exists()


def test_a_scheme_may_be_written_in_capitals(model, destination, pull):
    pull(model.url.replace("git+http", "GIT+HTTP"), destination)
    assert read_tree(destination) == FILES


@ANY_VERSION
def test_a_branch_comes_before_a_tag_of_the_same_name(model, destination, pull):
    model.commit({"version": b"tag"}, branch="other")
    model.tag("same")
    model.commit({"version": b"branch"}, branch="same")
    pull(f"{model.url}@same", destination)
    assert (destination / "version").read_bytes() == b"branch"


@ANY_VERSION
@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("mian", "did you mean main?"),
        ("abcdef1", "all of its 40 digits"),
        ("0" * 40, ""),
        ("refs/heads/no", "main"),
    ],
)
def test_a_ref_that_is_not_there_is_not_found(model, destination, pull, ref, hint):
    with pytest.raises(NotFound) as caught:
        pull(f"{model.url}@{ref}", destination)
    assert hint in caught.value.hint
    assert not destination.exists()


@ANY_VERSION
def test_a_repository_that_is_not_there_or_empty_is_not_found(origin, destination, pull):
    empty = origin.create("empty.git")
    with pytest.raises(NotFound, match="no commit"):
        pull(empty.url, destination)
    with pytest.raises(NotFound, match="404"):
        pull(f"git+{origin.server.url}/git/none", destination)
    assert not destination.exists()


def test_what_does_not_speak_git_is_told_apart(server, model, destination, pull):
    server.put("/page/info/refs", b"<html>")
    with pytest.raises(NotFound, match="not a git repository"):
        pull(f"git+{server.url}/page", destination)
    headers = {"Content-Type": "application/x-git-upload-pack-advertisement"}
    for greeting, says in (
        (b"abc", "as a git server does"),
        (b"a" * 40 + b" HEAD\0side-band-64k ofs-delta\n", "single commits"),
        (b"a" * 40 + b" HEAD\0shallow multi_ack\n", "single commits"),
        (b"a" * 40 + b" HEAD\0shallow side-band-64k object-format=sha256\n", "not by sha1"),
    ):
        told = b"001e# service=git-upload-pack\n0000" + packet(greeting) + b"0000"
        server.misbehave(f"{MODEL}/info/refs", Fault(lambda *_, told=told: Answer(200, headers, told)))
        with pytest.raises(Unsupported, match=says):
            pull(model.url, destination)
    assert not destination.exists()


@pytest.mark.parametrize("protocol", ["", "version=1"], indirect=True)
def test_a_commit_that_an_older_server_does_not_give_is_explained(model, tmp_path, pull, protocol):
    first = model.commit({"version": b"1"})
    second = model.commit({"version": b"2"})
    git("update-ref", "refs/heads/main", first, cwd=model.bare)
    with pytest.raises(NotFound, match=f"does not give the commit {second}") as caught:
        pull(f"{model.url}@{second}", tmp_path / "refused")
    assert "Git-Protocol" in caught.value.hint
    assert not (tmp_path / "refused").exists()
    git("update-ref", "refs/heads/main", second, cwd=model.bare)
    for commit, version in ((first, b"1"), (second, b"2")):
        pull(f"{model.url}@{commit}", tmp_path / commit)
        assert (tmp_path / commit / "version").read_bytes() == version


@pytest.mark.parametrize("protocol", [""], indirect=True)
def test_an_older_server_is_asked_for_large_files_alone_where_it_gives_them(model, server, destination, pull, protocol):
    model.configure("uploadpack.allowAnySHA1InWant", "true")
    pull(model.url, destination)
    assert read_tree(destination) == FILES
    assert len([request for request in server.requests if asks_for_a_pack(request)]) == 3


@pytest.mark.parametrize(
    ("folder", "files"),
    [
        ("weights", {"big.bin": BIG, "lines": LINES, "more-lines": LINES + b"\nand one more"}),
        ("/weights/", {"big.bin": BIG, "lines": LINES, "more-lines": LINES + b"\nand one more"}),
        ("weights-old", {"a b+c%41#?.txt": b"beside"}),
        ("config.json", {"config.json": b"{}"}),
    ],
)
def test_a_subdirectory_is_a_folder_or_file_of_the_repository(model, destination, pull, folder, files):
    manifest = pull(f"{model.url}@main#subdirectory={folder}", destination)
    assert read_tree(destination) == files
    assert manifest.resolved.endswith(f"#subdirectory={folder}")


@pytest.mark.parametrize("folder", ["weight", "config.json/x", "weights/none"])
def test_a_subdirectory_that_is_not_there_is_not_found(model, destination, pull, folder):
    with pytest.raises(NotFound, match="there is no"):
        pull(f"{model.url}#subdirectory={folder}", destination)
    assert not destination.exists()


@pytest.mark.parametrize(
    "tail",
    ["#main", "#subdirectory=", "#subdirectory=../x", "#egg=x", "@", "?ref=main", "@a b", "@a#subdirectory=x&y=z"],
)
def test_another_tail_of_the_uri_is_refused(model, server, destination, pull, tail):
    with pytest.raises(UsageError):
        pull(model.url + tail, destination)
    assert not server.requests


def test_patterns_choose_files_and_a_single_archive_is_unpacked(model, tmp_path, pull):
    pull(model.url, tmp_path / "chosen", allow=("*.json", "weights/*"), ignore=("*lines",))
    assert set(read_tree(tmp_path / "chosen")) == {"config.json", "weights/big.bin"}
    git("archive", "--format=tar.gz", "--output", tmp_path / "model.tar.gz", "HEAD", cwd=model.work)
    git("rm", "--quiet", "-r", ".", cwd=model.work)
    model.commit({"model.tar.gz": (tmp_path / "model.tar.gz").read_bytes()})
    pull(model.url, tmp_path / "unpacked")
    assert read_tree(tmp_path / "unpacked") == FILES


@ANY_VERSION
def test_what_is_delivered_already_is_not_fetched_again(model, server, destination, pull, events):
    pull(model.url, destination)
    server.requests.clear()
    pull(model.url, destination)
    assert AlreadyDelivered(str(destination)) in events
    model.commit({"config.json": b"new"})
    server.requests.clear()
    pull(model.url, destination)
    assert read_tree(destination) == FILES | {"config.json": b"new"}
    # The large file was listed, and not read.
    assert len([request for request in server.requests if asks_for_a_pack(request)]) == 2


def test_a_delivery_that_failed_is_tried_again(model, server, destination, pull):
    server.misbehave(UPLOAD_PACK, Fault(lambda *_: Answer(404), after=2))
    with pytest.raises(NotFound):
        pull(model.url, destination)
    pull(model.url, destination)
    assert read_tree(destination) == FILES


def test_the_deadline_ends_a_listing_that_goes_on(model, server, destination, pull, clock):
    model.configure("uploadpack.allowFilter", "false")

    def pass_time(request, total) -> None:
        clock.seconds += 31 if asks_for_a_pack(request) else 0

    server.on_sent = pass_time
    with pytest.raises(DeadlineExceeded, match="the time for http://"):
        pull(model.url, destination, limits=Limits(deadline_s=30))
    assert not destination.exists()


@pytest.mark.parametrize(
    ("user", "variables", "kind"),
    [
        (f"{USER}:correct%20horse@", {}, "user and password in the URI"),
        (f"{USER}@", {"GIT_PASSWORD": PASSWORD}, "user and password in the URI"),
        ("", {"GIT_USERNAME": USER, "GIT_PASSWORD": PASSWORD}, "GIT_USERNAME and GIT_PASSWORD"),
        (f"{USER}:correct%20horse@", {"GIT_USERNAME": "b", "GIT_PASSWORD": "c"}, "user and password in the URI"),
    ],
)
def test_a_user_and_password_come_from_the_uri_or_from_variables(
    origin, model, destination, pull, new_session, user, variables, kind
):
    origin.private = True
    uri = model.url.replace("://", f"://{user}")
    pull(uri, destination, variables=variables)
    assert read_tree(destination) == FILES
    assert PASSWORD not in (destination / ".lading.manifest").read_text()
    session = new_session(variables=variables)
    assert open_source(ModelURI.parse(uri), session.settings, session.http).credential_kind == kind


@ANY_VERSION
@pytest.mark.parametrize("variables", [{}, {"GIT_USERNAME": USER, "GIT_PASSWORD": "wrong"}])
def test_a_private_repository_is_refused_without_them(origin, model, destination, pull, variables):
    origin.private = True
    with pytest.raises(NotAllowed):
        pull(model.url, destination, variables=variables)
    assert not destination.exists()


def test_storage_json_of_type_git_says_who_asks():
    config = {"type": "git", "username": USER, "password": PASSWORD}
    variables = Settings.load({"STORAGE_CONFIG": json.dumps(config)}).variables
    assert (variables["GIT_USERNAME"], variables["GIT_PASSWORD"]) == (USER, PASSWORD)


def test_a_repository_that_has_moved_to_another_host_is_named_and_not_asked(model, server, destination, pull):
    with FaultyServer(host="localhost") as elsewhere:
        moved = Fault(lambda request, _: Answer(301, {"Location": elsewhere.url + request.target}), times=ALWAYS)
        server.misbehave(f"{MODEL}/info/refs", moved)
        elsewhere.routes["/"] = server.correct_answer
        with pytest.raises(Unsupported, match="has moved to http://localhost"):
            pull(model.url, destination)


def test_a_repository_that_has_moved_on_its_host_is_followed(origin, model, server, destination, pull):
    model.bare.rename(origin.folder / "moved.git")

    def move(request, _) -> Answer:
        return Answer(301, {"Location": request.target.replace("model.git", "moved.git")})

    server.misbehave(f"{MODEL}/info/refs", Fault(move, times=ALWAYS))
    pull(model.url, destination)
    assert read_tree(destination) == FILES


@ANY_VERSION
def test_links_are_delivered_as_the_files_that_they_lead_to(model, destination, pull):
    for link, target in {
        "link.json": "config.json",
        "deep/up": "../weights",
        "deep/chain": "up/lines",
        "again": "link.json",
        "here": "./deep/../empty",
    }.items():
        (model.work / link).parent.mkdir(exist_ok=True)
        os.symlink(target, model.work / link)
    model.commit()
    pull(model.url, destination)
    weights = {path.removeprefix("weights/"): data for path, data in FILES.items() if path.startswith("weights/")}
    assert read_tree(destination) == FILES | {
        "link.json": b"{}",
        "again": b"{}",
        "here": b"",
        "deep/chain": LINES,
        **{f"deep/up/{path}": data for path, data in weights.items()},
    }
    assert not [path for path in destination.rglob("*") if path.is_symlink()]


def test_a_link_may_lead_out_of_the_subdirectory_and_not_out_of_the_repository(model, destination, pull):
    (model.work / "part").mkdir()
    os.symlink("../config.json", model.work / "part/config.json")
    model.commit()
    pull(f"{model.url}#subdirectory=part", destination)
    assert read_tree(destination) == {"config.json": b"{}"}


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/etc/passwd", "out of the repository"),
        ("../../etc/passwd", "out of the repository"),
        ("nowhere", "leads nowhere"),
        ("config.json/x", "leads nowhere"),
        ("link", "to itself"),
        ("../weights", "a folder that holds it"),
        ("..", "a folder that holds it"),
    ],
)
def test_a_link_that_leads_nowhere_or_away_is_refused(model, destination, pull, target, why):
    os.symlink(target, model.work / "weights/link")
    os.symlink("../config.json", model.work / "weights/fine")
    if target == "link":
        (model.work / "weights/link").unlink()
        os.symlink("link", model.work / "weights/link")
    model.commit()
    with pytest.raises(Unsupported, match=why):
        pull(model.url, destination)
    assert not destination.exists()


def test_a_submodule_is_refused_and_can_be_left_out(model, tmp_path, pull):
    commit = git("rev-parse", "HEAD", cwd=model.work)
    git("update-index", "--add", "--cacheinfo", f"160000,{commit},parts/other", cwd=model.work)
    git("commit", "--quiet", "--message", "m", cwd=model.work)
    git("push", "--quiet", str(model.bare), "HEAD:main", cwd=model.work)
    with pytest.raises(Unsupported, match="parts/other is a submodule"):
        pull(model.url, tmp_path / "whole")
    pull(f"{model.url}#subdirectory=weights", tmp_path / "part")
    assert set(read_tree(tmp_path / "part")) == {"big.bin", "lines", "more-lines"}


def test_a_name_that_lading_keeps_for_itself_is_refused(model, destination, pull):
    model.commit({".lading.manifest": b"{}"})
    with pytest.raises(IntegrityError, match="keeps for itself"):
        pull(model.url, destination)
    assert not destination.exists()


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("git+https://h/x", GitSource),
        ("git+http://h/x.git@main", GitSource),
        ("GIT+HTTPS://h/x", GitSource),
        ("https://h/x.git", GitSource),
        ("https://user:pass@h/x.git#subdirectory=y", GitSource),
        # KServe's own clones each of these.
        ("https://raw.githubusercontent.com/o/r/main/model.bin", HttpSource),
        ("https://o.github.io/model.bin", HttpSource),
        ("https://h/x.git/raw/model.bin", HttpSource),
        ("https://h/model.bin?ref=x.git", HttpSource),
        ("http://h/x.git", HttpSource),
    ],
)
def test_git_is_only_what_says_so(new_session, uri, kind):
    session = new_session()
    assert type(open_source(ModelURI.parse(uri), session.settings, session.http)) is kind


def test_a_repository_is_reached_through_tls_by_its_plain_url(tmp_path, pull, destination):
    authority = Authority(tmp_path)
    (tmp_path / "git").mkdir()
    with FaultyServer(authority.server_context("127.0.0.1")) as server:
        origin = GitServer(server, tmp_path / "git")
        model = origin.create()
        commit = model.commit({"lfs.bin": model.pointer(BIG)})
        origin.keep(BIG)
        settings = Settings.load({"AWS_CA_BUNDLE": authority.bundle})
        uri = model.url.removeprefix("git+")
        manifest = pull(uri, destination, network=settings.network)
        assert (read_tree(destination), manifest.resolved) == ({"lfs.bin": BIG}, f"git+{uri}@{commit}")
        origin.link = lambda oid: {"href": f"http://127.0.0.1:1/{oid}"}
        with pytest.raises(NotAllowed, match="unencrypted"):
            pull(uri, tmp_path / "other", network=settings.network)


class TestLfs:
    """Git LFS."""

    @pytest.fixture
    def large(self, origin, model):
        """The repository with BIG in Git LFS."""
        origin.keep(BIG)
        model.commit({"weights/big.bin": model.pointer(BIG)})
        return model

    @pytest.mark.parametrize("ranges", [True, False])
    def test_objects_come_in_the_place_of_their_pointers(self, origin, large, server, destination, pull, ranges):
        origin.lfs_ranges = ranges
        manifest = pull(large.url, destination, range_bytes=MIB)
        assert read_tree(destination) == FILES
        found = manifest.by_path()["weights/big.bin"]
        assert [digest.algorithm for digest in found.verified] == ["sha256"]
        parts = [request for request in server.requests if "/lfs-objects/" in request.path and not probes(request)]
        assert len(parts) == (2 if ranges else 1)

    def test_credentials_go_to_the_server_and_the_link_s_headers_to_the_object_only(
        self, origin, large, server, destination, pull
    ):
        origin.private = True
        with FaultyServer(host="localhost") as elsewhere:
            elsewhere.routes["/"] = server.correct_answer
            origin.link = lambda oid: {
                "href": f"{elsewhere.url}/lfs-objects/{oid}",
                "header": {"X-Ticket": f"for-{oid}"},
            }
            pull(large.url, destination, variables={"GIT_USERNAME": USER, "GIT_PASSWORD": PASSWORD})
            assert read_tree(destination) == FILES
            assert all("authorization" in request.headers for request in server.requests)
            assert not [request for request in elsewhere.requests if "authorization" in request.headers]
            assert not [request for request in server.requests if "x-ticket" in request.headers]

    def test_a_link_without_headers_on_the_server_itself_gets_the_credentials(
        self, origin, large, server, destination, pull
    ):
        origin.private = True

        def object_of(request):
            return Answer(200, {}, BIG) if request.headers.get("authorization") else Answer(401)

        server.routes["/own/"] = object_of
        origin.link = lambda oid: {"href": f"{server.url}/own/{oid}"}
        pull(large.url, destination, variables={"GIT_USERNAME": USER, "GIT_PASSWORD": PASSWORD})
        assert read_tree(destination) == FILES

    def test_headers_of_a_link_that_would_change_the_request_are_left_out(self, origin, large, destination, pull):
        link = origin.link
        evil = {"Host": "evil", "Range": "bytes=5-9", "Content-Length": "99", "Transfer-Encoding": "chunked"}
        origin.link = lambda oid: {**link(oid), "header": {**link(oid)["header"], **evil}}
        pull(large.url, destination)
        assert read_tree(destination) == FILES

    def test_a_link_that_has_ended_is_asked_for_anew(self, origin, large, server, destination, pull):
        server.misbehave("", Fault(lambda *_: Answer(403), on=lambda request: "/lfs-objects/" in request.path, after=1))
        pull(large.url, destination, range_bytes=MIB)
        assert read_tree(destination) == FILES
        assert len(server.requests_for(f"{MODEL}/info/lfs/objects/batch")) == 2

    def test_a_link_that_says_when_it_ends_is_not_used_after_that(self, origin, large, server, destination, pull):
        link = origin.link
        origin.link = lambda oid: {**link(oid), "expires_in": 5}
        pull(large.url, destination)
        assert len(server.requests_for(f"{MODEL}/info/lfs/objects/batch")) == 3

    def test_an_object_that_is_missing_is_an_error_only_if_it_is_wanted(self, large, origin, tmp_path, pull):
        origin.lfs.clear()
        with pytest.raises(NotFound, match=r"lacks the object of weights/big\.bin"):
            pull(large.url, tmp_path / "whole")
        pull(large.url, tmp_path / "part", ignore=("*.bin",))
        assert set(read_tree(tmp_path / "part")) == FILES.keys() - {"weights/big.bin"}

    @pytest.mark.parametrize("damaged", [BIG[:-1] + b"x", BIG[:-1], BIG + b"x"])
    def test_an_object_that_is_not_what_the_pointer_says_is_refused(self, large, origin, destination, pull, damaged):
        origin.lfs[next(iter(origin.lfs))] = damaged
        with pytest.raises((IntegrityError, OriginChanged)):
            pull(large.url, destination)
        assert not (destination / ".lading.manifest").exists()

    @pytest.mark.parametrize(
        "answer",
        [
            {"transfer": "tus"},
            {"objects": None},
            {"objects": [1]},
            {"objects": []},
            {"objects": [{"oid": "{oid}"}]},
            {"objects": [{"oid": "{oid}", "actions": {"download": {"href": 5}}}]},
            {"objects": [{"oid": "{oid}", "actions": {"download": {"href": "https://h/", "header": [1]}}}]},
            {"objects": [{"oid": "{oid}", "actions": {"download": {"href": "https://h/", "expires_at": "soon"}}}]},
            {"objects": [{"oid": "{oid}", "actions": {"download": {"href": "https://h/", "expires_in": 10**400}}}]},
            {"objects": [{"oid": "{oid}", "actions": {"download": {"href": "https://[::1/", "expires_in": 9}}}]},
            {"hash_algo": "md5"},
        ],
    )
    def test_a_server_that_answers_otherwise_is_unsupported(self, large, origin, destination, pull, answer):
        oid = next(iter(origin.lfs))
        origin.lfs_answer = lambda good: {**good, **json.loads(json.dumps(answer).replace("{oid}", oid))}
        with pytest.raises(Unsupported):
            pull(large.url, destination)
        assert not destination.exists()

    def test_a_link_to_something_that_is_no_url_is_refused(self, large, origin, destination, pull):
        origin.link = lambda oid: {"href": "file:///etc/passwd"}
        with pytest.raises(UsageError):
            pull(large.url, destination)
        assert not destination.exists()

    def test_the_repository_may_name_its_server(self, origin, large, server, destination, pull):
        origin.private = True
        server.routes["/elsewhere/objects/batch"] = lambda request: origin._batch(json.loads(request.body))
        large.commit({".lfsconfig": f'[lfs]\n\turl = "{server.url}/elsewhere"\n'.encode()})
        pull(large.url, destination, variables={"GIT_USERNAME": USER, "GIT_PASSWORD": PASSWORD})
        assert (destination / "weights/big.bin").read_bytes() == BIG
        assert "authorization" in server.requests_for("/elsewhere/objects/batch")[0].headers

    def test_a_server_that_the_repository_names_on_another_host_gets_no_credentials(
        self, origin, large, destination, pull, tmp_path
    ):
        origin.private = True
        authority = Authority(tmp_path)
        with FaultyServer(authority.server_context("localhost"), host="localhost") as other:
            other.routes["/"] = lambda request: Answer(401)
            large.commit({".lfsconfig": f"[lfs]\nurl = {other.url}/lfs\n".encode()})
            network = Settings.load({"AWS_CA_BUNDLE": authority.bundle}).network
            with pytest.raises(NotAllowed):
                pull(
                    large.url,
                    destination,
                    network=network,
                    variables={"GIT_USERNAME": USER, "GIT_PASSWORD": PASSWORD},
                )
            assert other.requests
            assert not [request for request in other.requests if "authorization" in request.headers]

    def test_an_unencrypted_server_on_another_host_is_refused(self, large, destination, pull):
        large.commit({".lfsconfig": b"[lfs]\nurl = http://169.254.169.254/lfs\n"})
        with pytest.raises(UsageError, match="unencrypted"):
            pull(large.url, destination)
