"""Our own ModelScope is ModelScope to modelscope_hub, the official client: what lading is shown with it, it could meet."""

import pytest

from fakes.fake_hub import LFS_BYTES
from fakes.fake_modelscope import FakeModelScope
from fakes.faulty_http import FaultyServer
from fakes.trees import content, read_tree

FILES = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "configuration.json": b"{}",
    "deep/er/with space & more.txt": b"names",
    "model.safetensors": content(3 * LFS_BYTES),
}


@pytest.fixture
def scope(server):
    with FaultyServer(host="localhost") as content_network:
        yield FakeModelScope(server, content_network)


@pytest.fixture
def model(scope):
    model = scope.model("owner/model")
    model.commit({"configuration.json": b"old"}, ref="v1.0")
    model.commit(FILES)
    return model


@pytest.fixture
def api(scope, monkeypatch, tmp_path):
    from modelscope_hub import HubApi

    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))

    def call(token: str | None = None) -> HubApi:
        return HubApi(token=token, endpoint=scope.server.url)

    return call


@pytest.mark.parametrize("revision", ["master", "v1.0"])
def test_modelscope_hub_downloads_a_snapshot(model, api, tmp_path, revision):
    api().download_repo("owner/model", "model", revision=revision, local_dir=tmp_path / "model")
    found = {path: data for path, data in read_tree(tmp_path / "model").items() if not path.startswith("._")}
    assert found == ({"configuration.json": b"old"} if revision == "v1.0" else FILES)


def test_modelscope_hub_lists_files_with_their_digests(model, api):
    found = {file.path: file for file in api().list_repo_files("owner/model", "model")}
    assert found.keys() == FILES.keys() | {"deep", "deep/er"}
    newest = model.commits[model.refs["master"]]
    assert found["model.safetensors"].sha256 == newest["model.safetensors"].sha256
    assert found["deep"].is_dir


def test_modelscope_hub_walks_a_tree_that_was_cut_off(scope, model, api):
    # The client's own limit is fixed: what it sees is a server that cuts there.
    files = {f"{number % 7}/{number:05}.json": b"%d" % number for number in range(3500)}
    scope.model("owner/many").commit(files)
    found = [file.path for file in api().list_repo_files("owner/many", "model") if not file.is_dir]
    assert sorted(found) == sorted(files)


def test_modelscope_hub_reads_one_commit(model, api, tmp_path):
    for revision in (model.refs["v1.0"], model.refs["master"]):
        place = api().download_file(
            "owner/model", "model", "configuration.json", revision=revision, local_dir=tmp_path / revision
        )
        assert place.read_bytes() == model.commits[revision]["configuration.json"].content


def test_modelscope_hub_understands_the_refusals(scope, model, api):
    from modelscope_hub.errors import AuthenticationError, NotExistError, PermissionDeniedError

    for name, revision in (("owner/other", "master"), ("owner/model", "v9")):
        with pytest.raises(NotExistError):
            api().list_repo_files(name, "model", revision=revision)
    scope.model("owner/private", readers=frozenset({"reader"})).commit(FILES)
    with pytest.raises(AuthenticationError):
        api().list_repo_files("owner/private", "model")
    with pytest.raises(PermissionDeniedError):
        api("stranger").list_repo_files("owner/private", "model")
    assert api("reader").list_repo_files("owner/private", "model")
    # It sends the token in two ways.
    assert scope.server.requests[-1].headers["cookie"] == "m_session_id=reader"
