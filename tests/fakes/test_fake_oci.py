"""The fake registry answers oras, a client of the OCI distribution specification."""

import pytest

from fakes.fake_oci import FakeRegistry, TokenService, basic_only
from fakes.trees import read_tree

FILES = {"config.json": b"{}", "weights/a.bin": b"weights"}


@pytest.fixture
def registry(server):
    registry = FakeRegistry(server)
    registry.put_files(FILES)
    return registry


def oras_pull(registry, folder, **login):
    from oras.client import OrasClient

    client = OrasClient(hostname=registry.host, insecure=True, **{"auth_backend": "token"} | login)
    if login:
        client.auth.set_basic_auth("user", "password")
    client.pull(f"{registry.host}/{registry.repository}:latest", outdir=str(folder))


def test_oras_pulls_an_artifact(registry, tmp_path):
    oras_pull(registry, tmp_path)
    assert read_tree(tmp_path) == FILES


def test_oras_logs_in_with_a_password(registry, tmp_path):
    registry.authorize = basic_only
    oras_pull(registry, tmp_path, auth_backend="basic")
    assert read_tree(tmp_path) == FILES


@pytest.mark.parametrize("public", [False, True])
def test_oras_gets_a_token(registry, tmp_path, public):
    service = TokenService(registry, public=public)
    oras_pull(registry, tmp_path, **({} if public else {"auth_backend": "token"}))
    assert read_tree(tmp_path) == FILES
    assert service.tokens


def test_oras_lists_tags(registry):
    from oras.client import OrasClient

    registry.put_files(FILES, tag="v2")
    client = OrasClient(hostname=registry.host, insecure=True)
    assert client.get_tags(f"{registry.host}/{registry.repository}") == ["latest", "v2"]
