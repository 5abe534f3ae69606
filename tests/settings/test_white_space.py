"""Credentials that a line's end or a blank came with: off it goes where they are files, else its variable is named."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.registry_entries import registry_entry
from lading.auth.docker_config import find_login
from lading.errors import UsageError
from lading.model.origin import split_url
from lading.model.uri import ModelURI
from lading.network.client import HttpClient
from lading.registries.login import Clients, open_login
from lading.retry import Retry, Run
from lading.settings.aws import read_aws, read_s3
from lading.settings.azure import read_azure
from lading.settings.git import read_git
from lading.settings.google import DOCUMENT as GOOGLE_DOCUMENT
from lading.settings.google import read_google
from lading.settings.hdfs import read_hdfs
from lading.settings.http import read_headers
from lading.settings.huggingface import read_hugging_face
from lading.settings.limits import Limits, Network
from lading.settings.modelscope import read_modelscope
from lading.settings.oci import DOCUMENT as DOCKER_DOCUMENT
from lading.settings.oci import read_oci
from lading.settings.settings import Settings
from lading.settings.variables import Variables
from lading.system.disk import read_secret_file

AROUND = {
    "a line's end": "{}\n",
    "that of Windows": "{}\r\n",
    "a blank": "{} ",
    "a blank before": " {}",
    "a tab": "{}\t",
    "a line break within": "{}\nX-Other: 1",
    "two lines": "{}\n\n",
}
STRIPPED = [around for name, around in AROUND.items() if name != "a line break within"]

Read = Callable[[Variables], object]
READERS: dict[str, tuple[Read, tuple[str, ...], dict[str, str]]] = {
    "aws": (
        read_aws,
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        {},
    ),
    "aws endpoints": (read_aws, ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS", "S3_ENDPOINT"), {}),
    "s3": (read_s3, ("AWS_DEFAULT_REGION", "AWS_REGION"), {}),
    "azure": (
        read_azure,
        tuple(
            f"{family}_{name}"
            for family in ("AZURE", "AZ")
            for name in (
                *("ACCOUNT_NAME", "STORAGE_ACCESS_KEY", "STORAGE_SAS_TOKEN", "ACCESS_TOKEN"),
                *("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"),
            )
        ),
        {},
    ),
    "git": (lambda variables: read_git(variables, "h", 443), ("GIT_USERNAME", "GIT_PASSWORD"), {}),
    "git host": (lambda variables: read_git(variables, "h", 443), ("GIT_HOST",), {}),
    "oci": (read_oci, ("OCI_USERNAME", "OCI_PASSWORD", "OCI_HOST"), {}),
    "http": (
        lambda variables: read_headers(variables, "h", 443),
        ("https-username", "https-password"),
        {"https-host": "h"},
    ),
    "hdfs": (
        read_hdfs,
        ("HDFS_DELEGATION_TOKEN", "HDFS_USER_PROXY", "HDFS_KERBEROS_PRINCIPAL", "HADOOP_USER_NAME"),
        {"HDFS_NAMENODE": "http://h:9870"},
    ),
}
NAMED = [(read, name, others) for read, names, others in READERS.values() for name in names]


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND.keys())
@pytest.mark.parametrize(("read", "name", "others"), NAMED, ids=[name for _, name, _ in NAMED])
def test_a_variable_with_white_space_is_named_and_its_value_is_not(
    read: Read, name: str, others: dict[str, str], around: str
) -> None:
    with pytest.raises(UsageError, match=f"^{name} begins or ends with white space") as caught:
        read(Variables({**others, name: around.format("s3cret")}))
    assert "s3cret" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND.keys())
@pytest.mark.parametrize("name", ["h-headers", "headers", "HDFS_HEADERS"])
def test_a_header_with_white_space_is_named_and_its_value_is_not(name: str, around: str) -> None:
    headers = json.dumps({"X-Key": around.format("s3cret")})
    variables = Variables({"https-host": "h", "HDFS_NAMENODE": "http://h:9870", name: f"{headers}\n"})
    with pytest.raises(UsageError, match=r"X-Key of .* begins or ends with white space") as caught:
        (read_hdfs(variables) if name == "HDFS_HEADERS" else read_headers(variables, "h", 443))
    assert "s3cret" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("around", STRIPPED)
def test_tokens_that_their_own_clients_strip_are_stripped(around: str) -> None:
    variables = Variables(dict.fromkeys(("HF_TOKEN", "MODELSCOPE_API_TOKEN"), around.format("token")))
    for found in (read_hugging_face(variables).token, read_modelscope(variables).token):
        assert found is not None
        assert found.reveal() == "token"


@pytest.mark.parametrize(("read", "name"), [(read_hugging_face, "HF_TOKEN"), (read_modelscope, "MODELSCOPE_API_TOKEN")])
def test_a_token_of_two_lines_is_named(read: Read, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        read(Variables({name: "a\nb"}))


@pytest.mark.parametrize("around", STRIPPED)
def test_white_space_around_json_means_nothing(around: str) -> None:
    auth = base64.b64encode(b"user:word").decode()
    docker = json.dumps({"auths": {"ghcr.io": {"auth": auth}}})
    variables = Variables({GOOGLE_DOCUMENT: around.format("{}"), DOCKER_DOCUMENT: around.format(docker)})
    document = read_google(variables).document
    assert document is not None
    assert document.reveal() == "{}"
    assert find_login(read_oci(variables), "ghcr.io", "a/b").username == "user"


@pytest.mark.parametrize("around", STRIPPED)
@pytest.mark.parametrize("form", ["auth", "text of auth", "password", "identitytoken", "registrytoken"])
def test_a_docker_configuration_written_by_hand_is_understood(tmp_path: Path, form: str, around: str) -> None:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    entry = {
        "auth": {"auth": encoded(around.format("user:word"))},
        "text of auth": {"auth": around.format(encoded("user:word"))},
        "password": {"username": around.format("user"), "password": around.format("word")},
        "identitytoken": {"identitytoken": around.format("word")},
        "registrytoken": {"registrytoken": around.format("word")},
    }[form]
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"ghcr.io": entry}}))
    login = find_login(read_oci(Variables({"DOCKER_CONFIG": str(tmp_path)})), "ghcr.io", "a/b")
    [secret] = filter(None, (login.password, login.identity_token, login.registry_token))
    assert secret.reveal() == "word"
    assert login.username == ("user" if login.password else "")


@pytest.mark.parametrize("around", [*STRIPPED, "\ufeff{}\r\n"])
def test_a_file_is_read_without_what_is_around_its_text(tmp_path: Path, around: str) -> None:
    file = tmp_path / "AWS_SECRET_ACCESS_KEY"
    file.write_bytes(around.format("s3cret").encode())
    assert read_secret_file(str(file)) == "s3cret"
    config = tmp_path / "config/lading.yaml"
    config.parent.mkdir()
    for rule in (f"folder: {tmp_path}", f"variables: {{AWS_SECRET_ACCESS_KEY: {{file: {file}}}}}"):
        config.write_text(f"credentials: [{{prefix: 's3://a', {rule}}}]")
        settings = Settings.load({"LADING_CONFIG": str(config)}).for_uri(ModelURI.parse("s3://a/b"))
        found = read_aws(settings.variables).secret_access_key
        assert found is not None
        assert found.reveal() == "s3cret"


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND.keys())
@pytest.mark.parametrize(
    ("login", "named"),
    [
        ({"token": "VALUE"}, "registry prod: login.token"),
        ({"user": "u", "password": "VALUE"}, "registry prod: login.password"),
        ({"user": "VALUE", "password": "p"}, "registry prod: login.user"),
        ({"token": {"env": "REGISTRY_TOKEN"}}, "REGISTRY_TOKEN"),
        ({"user": "u", "password": {"env": "REGISTRY_TOKEN"}}, "REGISTRY_TOKEN"),
    ],
)
def test_a_login_of_a_registry_with_white_space_is_named(login: dict[str, object], named: str, around: str) -> None:
    text = around.format("s3cret")
    login = {key: text if value == "VALUE" else value for key, value in login.items()}
    entry = registry_entry("prod", "mlflow", url="http://h", login=login)
    settings = Settings(variables=Variables({"REGISTRY_TOKEN": text}))
    http = HttpClient(Network(), Limits(), Retry(Run(None), 1))  # type: ignore[arg-type]  # nobody is asked
    opened = open_login(entry, settings, Clients(split_url("http://h/")[0], http, http))
    with pytest.raises(UsageError, match=f"^{named} begins or ends with white space") as caught:
        opened.get()
    assert "s3cret" not in str(caught.value) + caught.value.hint
