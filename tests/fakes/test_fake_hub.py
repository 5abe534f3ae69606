"""Our own Hub is the Hub to huggingface_hub, the official client: what lading is shown with it, it could meet."""

import pytest

from fakes.fake_hub import LFS_BYTES, FakeHub
from fakes.faulty_http import FaultyServer
from fakes.trees import content, read_tree
from lading.model.uri import ModelURI
from lading.sources.huggingface import _parse

FILES = {
    ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
    "config.json": b"{}",
    "empty": b"",
    "deep/er/with space & more.txt": b"names",
    "model.safetensors": content(3 * LFS_BYTES),
}

URIS = [
    ("hf://owner/model", "models", "owner/model", "main", ""),
    ("hf://models/owner/model", "models", "owner/model", "main", ""),
    ("hf://owner/model/deep/er", "models", "owner/model", "main", "deep/er"),
    ("hf://owner/model@v1", "models", "owner/model", "v1", ""),
    ("hf://owner/model@v1/a/b@c", "models", "owner/model", "v1", "a/b@c"),
    ("hf://owner/model/a@1/b", "models", "owner/model", "main", "a@1/b"),
    ("hf://owner/model@a%2Fb/c", "models", "owner/model", "a/b", "c"),
    ("hf://owner/model@refs/pr/1/a/b", "models", "owner/model", "refs/pr/1", "a/b"),
    ("hf://datasets/owner/name@refs/convert/parquet/x", "datasets", "owner/name", "refs/convert/parquet", "x"),
    ("hf://spaces/owner/name", "spaces", "owner/name", "main", ""),
]


@pytest.fixture
def hub(server):
    with FaultyServer(host="localhost") as content_network:
        yield FakeHub(server, content_network)


@pytest.fixture
def model(hub):
    model = hub.repository("owner/model")
    model.commit({"config.json": b"old"})
    model.commit(FILES)
    return model


@pytest.fixture
def api(hub):
    import huggingface_hub as hub_client

    yield hub_client.HfApi(endpoint=hub.server.url, token=False)
    hub_client.close_session()


def test_huggingface_hub_downloads_a_snapshot(hub, model, api, tmp_path):
    api.snapshot_download("owner/model", local_dir=tmp_path / "model", etag_timeout=5)
    assert {path: data for path, data in read_tree(tmp_path / "model").items() if ".cache" not in path} == FILES


def test_huggingface_hub_lists_over_several_pages(hub, model, api):
    hub.page_entries = 2
    found = {entry.path: entry for entry in api.list_repo_tree("owner/model", recursive=True)}
    assert found.keys() == FILES.keys() | {"deep", "deep/er"}
    assert found["model.safetensors"].lfs.sha256 == model.commits[model.refs["main"]]["model.safetensors"].sha256
    assert found["empty"].blob_id == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert [entry.path for entry in api.list_repo_tree("owner/model", "deep")] == ["deep/er"]


def test_huggingface_hub_knows_revisions_files_and_their_digests(hub, model, api):
    import huggingface_hub as hub_client

    commit = model.commit({"config.json": b"of a pull request"}, ref="refs/pr/1")
    assert api.model_info("owner/model", revision="refs/pr/1").sha == commit
    info = api.model_info("owner/model", files_metadata=True)
    told = {sibling.rfilename: sibling for sibling in info.siblings}
    assert told["model.safetensors"].lfs.size == 3 * LFS_BYTES
    assert {ref.name for ref in api.list_repo_refs("owner/model").branches} == {"main", "refs/pr/1"}
    url = hub_client.hf_hub_url("owner/model", "model.safetensors", endpoint=hub.server.url)
    about = hub_client.get_hf_file_metadata(url, token=False)
    assert (about.etag, about.size) == (told["model.safetensors"].lfs.sha256, 3 * LFS_BYTES)
    assert about.commit_hash == model.refs["main"]


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_huggingface_hub_downloads_other_kinds(hub, api, kind, tmp_path):
    hub.repository("owner/name", f"{kind}s").commit({"a.txt": b"a"})
    api.hf_hub_download("owner/name", "a.txt", repo_type=kind, local_dir=tmp_path)
    assert (tmp_path / "a.txt").read_bytes() == b"a"


def test_huggingface_hub_understands_the_refusals(hub, model, api):
    import huggingface_hub as hub_client

    errors = hub_client.errors
    with pytest.raises(errors.RepositoryNotFoundError):
        api.model_info("owner/other")
    with pytest.raises(errors.RevisionNotFoundError):
        api.model_info("owner/model", revision="v9")
    with pytest.raises(errors.EntryNotFoundError):
        list(api.list_repo_tree("owner/model", "nowhere"))
    gated = hub.repository("owner/gated", gated=True, readers=frozenset({"hf_reader"}))
    gated.commit({"config.json": b"{}"})
    assert api.model_info("owner/gated").gated == "auto"
    with pytest.raises(errors.GatedRepoError):
        api.auth_check("owner/gated")
    with pytest.raises(errors.GatedRepoError):
        api.hf_hub_download("owner/gated", "config.json")
    api.auth_check("owner/gated", token="hf_reader")
    private = hub.repository("owner/private", private=True, readers=frozenset({"hf_reader"}))
    private.commit({"config.json": b"{}"})
    with pytest.raises(errors.RepositoryNotFoundError):
        api.model_info("owner/private")
    assert api.model_info("owner/private", token="hf_reader").private
    with pytest.raises(errors.HfHubHTTPError) as caught:
        api.model_info("owner/model", token="hf_expired")
    assert caught.value.response.status_code == 401


def test_lading_understands_the_hubs_own_uris_as_huggingface_hub_does():
    import huggingface_hub as hub_client

    for text, *parts in URIS:
        found = hub_client.parse_hf_uri(text)
        assert _parse(ModelURI.parse(text)) == tuple(parts)
        assert (f"{found.type}s", found.id, found.revision or "main", found.path_in_repo) == tuple(parts)


def test_huggingface_hub_knows_what_the_scanners_say(hub, model, api):
    model.scans["config.json"] = "unsafe"
    hub.expanded_entries = 2
    found = {entry.path: entry for entry in api.list_repo_tree("owner/model", recursive=True, expand=True)}
    told = {path: entry.security.status for path, entry in found.items() if path in FILES}
    assert told == dict.fromkeys(FILES, "safe") | {"config.json": "unsafe"}
