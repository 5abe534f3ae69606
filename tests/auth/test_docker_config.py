"""Docker's configuration: whose login covers a repository, and what is shown of it to whom."""

import json

import pytest

from lading.auth.docker_config import find_login
from lading.model.uri import ModelURI
from lading.secret import Secret
from lading.settings.oci import Oci, read_oci
from lading.settings.settings import Settings
from lading.settings.variables import Variables

USER = {"username": "user", "password": "password"}


def login(auths, host, repository="team/model", **more):
    return find_login(Oci(document=Secret(json.dumps({"auths": auths} | more))), host, repository)


@pytest.mark.parametrize(
    ("key", "host", "covers"),
    [
        ("registry.example", "registry.example", True),
        ("https://registry.example", "registry.example", True),
        ("https://registry.example/v1/", "registry.example", True),
        ("registry.example/v2/", "registry.example", True),
        ("REGISTRY.example", "registry.EXAMPLE", True),
        ("registry.example:5000", "registry.example:5000", True),
        ("registry.example", "registry.example.", True),
        ("registry.example.:5000", "registry.example:5000", True),
        ("https://registry.example./v2/", "registry.example", True),
        ("[::1]:5000", "[0:0::1]:5000", True),
        ("[::1]:5000", "[::1]", False),
        ("registry.example/team", "registry.example", True),
        ("registry.example/team/model", "registry.example", True),
        ("registry.example/team/", "registry.example", True),
        ("registry.example/tea", "registry.example", False),
        ("registry.example/team/model/more", "registry.example", False),
        ("registry.example", "registry.example:5000", False),
        ("registry.example:5000", "registry.example", False),
        ("example", "registry.example", False),
        ("registry.example", "registry.example.evil", False),
        ("", "registry.example", False),
        # Docker Hub has many names.
        ("https://index.docker.io/v1/", "docker.io", True),
        ("https://index.docker.io/v1/", "registry-1.docker.io", True),
        ("docker.io", "index.docker.io", True),
        ("docker.io", "index.docker.io.", True),
        ("docker.io/team", "docker.io", True),
        ("registry-1.docker.io", "docker.io", True),
        ("https://index.docker.io/v1/", "registry.example", False),
    ],
)
def test_a_key_covers_what_it_names(key, host, covers):
    assert login({key: USER}, host).is_anonymous is not covers


def test_settings_come_before_the_configuration():
    document = Secret(json.dumps({"auths": {"h": USER}}))
    found = find_login(Oci("other", Secret("own"), document), "h", "r")
    assert (found.username, found.password) == ("other", Secret("own"))


@pytest.mark.parametrize(
    ("config", "helper"),
    [
        ({"credHelpers": {"h": "ecr-login"}}, "docker-credential-ecr-login"),
        ({"credHelpers": {"https://h": "gcloud"}, "credsStore": "pass"}, "docker-credential-gcloud"),
        ({"credHelpers": {"other": "gcloud"}, "credsStore": "pass"}, "docker-credential-pass"),
        ({"credHelpers": {"other": "gcloud"}}, ""),
        ({"credHelpers": [], "credsStore": 5}, ""),
        ({"auths": {"h": {}}, "credsStore": "desktop"}, "docker-credential-desktop"),
        ({"auths": {"h": USER}, "credsStore": "desktop"}, ""),
    ],
)
def test_a_helper_is_remembered_where_there_is_no_login(config, helper):
    assert login(config.pop("auths", {}), "h", **config).helper == helper


@pytest.mark.parametrize("entry", [None, 5, "x", [], {"auth": 5}, {"username": "user"}, {"password": "p"}])
def test_an_entry_that_says_nothing_is_no_login(entry):
    assert login({"h": entry}, "h").is_anonymous


def test_no_login_is_printed():
    entries = (USER, {"identitytoken": "password"}, {"registrytoken": "password"}, {"auth": "dXNlcjpwYXNzd29yZA=="})
    for entry in entries:
        found = login({"h": entry}, "h")
        assert not found.is_anonymous
        assert "password=" not in repr(found).replace("password=***", "").replace("password=None", "")
        assert "'password'" not in repr(found)


def test_a_file_that_nobody_named_may_be_missing(tmp_path):
    named = read_oci(Variables({"DOCKER_CONFIG": str(tmp_path), "HOME": "/home/user"}))
    assert (named.config_file, named.config_must_exist) == (f"{tmp_path}/config.json", False)
    assert find_login(named, "h", "r").is_anonymous
    assert read_oci(Variables({"HOME": "/home/user"})).config_file == "/home/user/.docker/config.json"
    assert read_oci(Variables()).config_file == ""


def test_a_mounted_secret_of_kubernetes_is_a_login(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / ".dockerconfigjson").write_text(json.dumps({"auths": {"registry.example": USER}}))
    (secret / "..data").mkdir()
    config = tmp_path / "lading.yaml"
    config.write_text(f"credentials: [{{prefix: 'oci://registry.example/team', folder: {secret}}}]")
    settings = Settings.load({"LADING_CONFIG": str(config)})
    ours = settings.for_uri(ModelURI.parse("oci://registry.example/team/model:v1"))
    assert find_login(read_oci(ours.variables), "registry.example", "team/model").username == "user"
    others = settings.for_uri(ModelURI.parse("oci://registry.example/teams/model:v1"))
    assert find_login(read_oci(others.variables), "registry.example", "teams/model").is_anonymous
