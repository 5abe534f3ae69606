"""A name in a catalog leads to any source, and what it brings is the same."""

import pytest

from lading.settings import Network
from lading.settings.registries import RegistryEntry
from servers.certificates import Authority
from servers.fake_s3 import FakeS3
from servers.faulty_http import FaultyServer
from servers.real_s3 import s3_anonymous

MODEL = b"the bytes of a model" * 1000


@pytest.fixture
def catalog(tmp_path):
    """Write a catalog with one model of three versions, one for each kind of place."""

    def write(**places: str) -> tuple[RegistryEntry]:
        path = tmp_path / "catalog.yaml"
        versions = "".join(f"      {name}: {{uri: '{uri}'}}\n" for name, uri in places.items())
        path.write_text(f"models:\n  iris:\n    aliases: {{champion: over-s3}}\n    versions:\n{versions}")
        return (RegistryEntry("catalog", "catalog", {"path": str(path)}),)

    return write


def test_a_name_brings_the_same_model_from_a_folder_from_https_and_from_s3(catalog, pull, tmp_path):
    authority = Authority(tmp_path)
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin/model.onnx").write_bytes(MODEL)
    with FaultyServer() as server, FaultyServer(authority.server_context("localhost"), host="localhost") as secure:
        FakeS3(server).put("iris/model.onnx", MODEL)
        registries = catalog(
            **{"in-a-folder": "origin", "over-s3": "s3://models/iris", "over-https": secure.put("/model.onnx", MODEL)}
        )
        about = {
            "registries": registries,
            **s3_anonymous(server.url),
            "network": Network(ca_files=(authority.bundle,)),
        }
        names = ["iris/in-a-folder", "iris/over-https", "iris/over-s3", "iris@champion", "iris"]
        brought = {name: pull(f"model-registry://{name}", tmp_path / name, **about) for name in names}
        assert {(tmp_path / name / "model.onnx").read_bytes() for name in names} == {MODEL}
        assert len({manifest.digest for manifest in brought.values()}) == 1
        # The newest is the last that is written.
        assert [brought[name].version for name in names[3:]] == ["over-s3", "over-https"]
