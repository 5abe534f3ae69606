"""Every variable that KServe sets, every key of its storage JSON, and the configuration file."""

import json
import pkgutil
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from fakes.registry_entries import registry_entry
from fakes.told_registry import TOLD, ToldSettings
from lading.auth.docker_config import find_login
from lading.errors import NotAllowed, UsageError
from lading.model.uri import ModelURI
from lading.secret import Secret
from lading.settings.aws import read_aws, read_s3
from lading.settings.git import read_git
from lading.settings.http import read_headers
from lading.settings.huggingface import read_hugging_face
from lading.settings.limits import Limits
from lading.settings.modelscope import read_modelscope
from lading.settings.oci import read_oci
from lading.settings.registries import KINDS, RegistryEntry
from lading.settings.settings import Settings, parse_verify
from lading.settings.variables import Variables, is_for

Env = dict[str, str]


def load(**env: str) -> Settings:
    return Settings.load(env)


def load_file(tmp_path: Path, text: str, **env: str) -> Settings:
    path = tmp_path / "lading.yaml"
    path.write_text(text)
    return Settings.load({"LADING_CONFIG": str(path), **env})


def without_variables(settings: Settings) -> Settings:
    return settings._replace(variables=Variables(), file="")


def reach(settings: Settings, place: str) -> Any:
    families = {"aws": read_aws, "s3": read_s3}
    first, *rest = place.split(".")
    value: Any = families[first](settings.variables) if first in families else getattr(settings, first)
    for name in rest:
        value = getattr(value, name)
    return value.reveal() if isinstance(value, Secret) else value


def test_the_configuration_may_be_a_variable_for_containers_without_mounts():
    text = "registries: [{name: prod, kind: kubeflow, url: https://registry}]"
    assert [entry.name for entry in Settings.load({"LADING_CONFIG_YAML": text}).registries] == ["prod"]
    with pytest.raises(UsageError, match="LADING_CONFIG_YAML has the unknown key 'registry'"):
        Settings.load({"LADING_CONFIG_YAML": "registry: {}"})
    with pytest.raises(UsageError, match="LADING_CONFIG_YAML, line 2"):
        Settings.load({"LADING_CONFIG_YAML": "limits: {}\nlimits: {}"})
    with pytest.raises(UsageError, match="are both set"):
        Settings.load({"LADING_CONFIG_YAML": text, "LADING_CONFIG": "lading.yaml"})


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = load()
    assert settings == Settings()
    assert settings.verify == "auto"
    assert settings.termination_log == "/dev/termination-log"
    assert read_s3(settings.variables).verify_tls
    assert not read_s3(settings.variables).anonymous


@pytest.mark.parametrize(
    ("env", "place", "value"),
    [
        ({"AWS_ACCESS_KEY_ID": "AK"}, "aws.access_key_id", "AK"),
        ({"AWS_SECRET_ACCESS_KEY": "SK"}, "aws.secret_access_key", "SK"),
        ({"AWS_SESSION_TOKEN": "ST"}, "aws.session_token", "ST"),
        ({"AWS_SESSION_TOKEN": ""}, "aws.session_token", None),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "s3.region", "eu-west-1"),
        ({"AWS_REGION": "eu-west-2"}, "s3.region", "eu-west-2"),
        ({"AWS_REGION": "eu-west-2", "AWS_DEFAULT_REGION": "eu-west-1"}, "s3.region", "eu-west-1"),
        # Endpoints: KServe's Go code writes S3_ENDPOINT as host[:port], AWS_ENDPOINT_URL whole.
        ({"AWS_ENDPOINT_URL": "http://minio:9000"}, "aws.endpoints.s3", "http://minio:9000"),
        ({"AWS_ENDPOINT_URL": "http://minio:9000/"}, "aws.endpoints.s3", "http://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000"}, "aws.endpoints.s3", "https://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "1"}, "aws.endpoints.s3", "https://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "0"}, "aws.endpoints.s3", "http://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "false"}, "aws.endpoints.s3", "http://minio:9000"),
        ({"S3_ENDPOINT": "http://minio:9000", "S3_USE_HTTPS": "1"}, "aws.endpoints.s3", "http://minio:9000"),
        ({"S3_ENDPOINT": "a:1", "AWS_ENDPOINT_URL": "http://b:2"}, "aws.endpoints.s3", "http://b:2"),
        ({"AWS_ENDPOINT_URL": "http://b:2", "AWS_ENDPOINT_URL_S3": "http://c:3"}, "aws.endpoints.s3", "http://c:3"),
        ({}, "aws.endpoints.s3", ""),
        ({"S3_VERIFY_SSL": "0"}, "s3.verify_tls", False),
        ({"S3_VERIFY_SSL": "false"}, "s3.verify_tls", False),
        ({"S3_VERIFY_SSL": "False"}, "s3.verify_tls", False),
        ({"S3_VERIFY_SSL": "1"}, "s3.verify_tls", True),
        ({"S3_VERIFY_SSL": "true"}, "s3.verify_tls", True),
        ({"S3_VERIFY_SSL": ""}, "s3.verify_tls", True),
        ({"awsAnonymousCredential": "true"}, "s3.anonymous", True),
        ({"awsAnonymousCredential": "True"}, "s3.anonymous", True),
        ({"awsAnonymousCredential": "false"}, "s3.anonymous", False),
        ({"S3_USER_VIRTUAL_BUCKET": "true"}, "s3.virtual_host", True),
        ({"S3_USER_VIRTUAL_BUCKET": "1"}, "s3.virtual_host", True),
        ({"S3_USE_VIRTUAL_BUCKET": "true"}, "s3.virtual_host", True),
        ({"S3_USER_VIRTUAL_BUCKET": "false"}, "s3.virtual_host", None),
        ({}, "s3.virtual_host", None),
        ({"S3_USE_ACCELERATE": "true"}, "aws.endpoints.accelerate", True),
        ({"S3_USE_ACCELERATE": "0"}, "aws.endpoints.accelerate", False),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, "aws.endpoints.fips", True),
        ({"AWS_USE_DUALSTACK_ENDPOINT": "false"}, "aws.endpoints.dual_stack", False),
        ({}, "aws.endpoints.fips", None),
        ({"AWS_REQUEST_PAYER": "requester"}, "s3.request_payer", True),
        ({"AWS_REQUEST_PAYER": "false"}, "s3.request_payer", False),
        # IRSA, the container endpoint, the instance.
        ({"AWS_ROLE_ARN": "arn:aws:iam::1:role/x"}, "aws.role_arn", "arn:aws:iam::1:role/x"),
        ({"AWS_ROLE_SESSION_NAME": "me"}, "aws.role_session_name", "me"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}, "aws.web_identity_token_file", "/t"),
        ({"AWS_ENDPOINT_URL_STS": "http://sts"}, "aws.endpoints.sts", "http://sts"),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}, "aws.container_url", "http://169.254.170.2/v2/x"),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/x"}, "aws.container_url", "http://127.0.0.1/x"),
        ({"AWS_CONTAINER_AUTHORIZATION_TOKEN": "tok"}, "aws.container_token", "tok"),
        ({"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/t"}, "aws.container_token_file", "/t"),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "aws.metadata_disabled", True),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://[::1]"}, "aws.metadata_url", "http://[::1]"),
        ({}, "aws.metadata_url", "http://169.254.169.254"),
        ({"AWS_PROFILE": "p"}, "aws.profile", "p"),
        ({"AWS_DEFAULT_PROFILE": "q"}, "aws.profile", "q"),
        ({"AWS_CONFIG_FILE": "/c"}, "aws.config_file", "/c"),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/c"}, "aws.credentials_file", "/c"),
        ({"HOME": "/home/me"}, "aws.config_file", "/home/me/.aws/config"),
        ({"HOME": "/home/me"}, "aws.credentials_file", "/home/me/.aws/credentials"),
        ({}, "aws.config_file", ""),
        # Certificates.
        ({"AWS_CA_BUNDLE": "/a.crt"}, "network.ca_files", ("/a.crt",)),
        ({"REQUESTS_CA_BUNDLE": "/b.crt"}, "network.ca_files", ("/b.crt",)),
        ({"SSL_CERT_FILE": "/c.crt"}, "network.ca_files", ("/c.crt",)),
        ({"AWS_CA_BUNDLE": "/a", "REQUESTS_CA_BUNDLE": "/a", "SSL_CERT_FILE": "/c"}, "network.ca_files", ("/a", "/c")),
        (
            {"CA_BUNDLE_CONFIGMAP_NAME": "x", "CA_BUNDLE_VOLUME_MOUNT_POINT": "/etc/ssl/custom-certs"},
            "network.ca_files",
            ("/etc/ssl/custom-certs/cabundle.crt",),
        ),
        (
            {"CA_BUNDLE_CONFIGMAP_NAME": "x", "CA_BUNDLE_VOLUME_MOUNT_POINT": "/mnt/ca"},
            "network.ca_files",
            ("/mnt/ca/cabundle.crt",),
        ),
        ({"CA_BUNDLE_CONFIGMAP_NAME": "x"}, "network.ca_files", ("/etc/ssl/custom-certs/cabundle.crt",)),
        ({"CA_BUNDLE_VOLUME_MOUNT_POINT": "/mnt/ca"}, "network.ca_files", ()),
        ({"AWS_CA_BUNDLE_CONFIGMAP": "x", "AWS_CA_BUNDLE": "/s3/ca.crt"}, "network.ca_files", ("/s3/ca.crt",)),
        ({"AWS_CA_BUNDLE_CONFIGMAP": "x"}, "network.ca_files", ("/etc/ssl/custom-certs/cabundle.crt",)),
        # Proxies: lower case wins, as with curl.
        ({"http_proxy": "http://p:1"}, "network.http_proxy", "http://p:1"),
        ({"HTTP_PROXY": "http://P:1"}, "network.http_proxy", "http://P:1"),
        ({"http_proxy": "http://p:1", "HTTP_PROXY": "http://P:1"}, "network.http_proxy", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:2"}, "network.https_proxy", "http://p:2"),
        ({"HTTP_PROXY": "http://p:2"}, "network.https_proxy", ""),
        ({"ALL_PROXY": "http://p:3"}, "network.https_proxy", "http://p:3"),
        ({"ALL_PROXY": "http://p:3", "https_proxy": "http://p:4"}, "network.https_proxy", "http://p:4"),
        ({"NO_PROXY": "a, .b ,,10.0.0.0/8"}, "network.no_proxy", ("a", ".b", "10.0.0.0/8")),
        # Limits.
        ({"S3_CONNECT_TIMEOUT": "15"}, "limits.connect_s", 15.0),
        ({"S3_READ_TIMEOUT": "30"}, "limits.stall_s", 30.0),
        ({"S3_READ_TIMEOUT": "30", "LADING_STALL_S": "5"}, "limits.stall_s", 5.0),
        ({"S3_MAX_ATTEMPTS": "3"}, "limits.attempts", 3),
        ({"S3_MAX_FILE_CONCURRENCY": "4"}, "limits.workers", 4),
        ({"LADING_DEADLINE_S": "3600"}, "limits.deadline_s", 3600.0),
        ({"LADING_DEADLINE_S": "0"}, "limits.deadline_s", 0.0),
        ({"LADING_DEADLINE_S": ""}, "limits.deadline_s", 0.0),
        # lading's own.
        ({"LADING_VERIFY": "strict"}, "verify", "strict"),
        ({"LADING_LOG_FORMAT": "json"}, "log_format", "json"),
        ({"LADING_TERMINATION_LOG": "/tmp/log"}, "termination_log", "/tmp/log"),
        (
            {"LADING_CATALOG": "/catalog.yaml"},
            "registries",
            (registry_entry("catalog", "catalog", path="/catalog.yaml"),),
        ),
    ],
)
def test_a_variable_sets_what_kserve_means_by_it(env: Env, place: str, value: object) -> None:
    assert reach(load(**env), place) == value


@pytest.mark.parametrize("text", ["1", "true", "True", "TRUE", "yes", "on", " true "])
def test_yes_has_many_spellings(text: str) -> None:
    assert reach(load(awsAnonymousCredential=text), "s3.anonymous") is True


@pytest.mark.parametrize("text", ["0", "false", "False", "no", "off"])
def test_no_has_many_spellings(text: str) -> None:
    assert reach(load(S3_VERIFY_SSL=text), "s3.verify_tls") is False


# ---- storage JSON --------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"])
@pytest.mark.parametrize(
    ("spec", "place", "value"),
    [
        ({"endpoint_url": "http://minio:9000"}, "aws.endpoints.s3", "http://minio:9000"),
        ({"access_key_id": "AK"}, "aws.access_key_id", "AK"),
        ({"access_key_id": 12345}, "aws.access_key_id", "12345"),
        ({"secret_access_key": "SK"}, "aws.secret_access_key", "SK"),
        ({"session_token": "ST"}, "aws.session_token", "ST"),
        ({"region": "eu-west-1"}, "s3.region", "eu-west-1"),
        ({"ca_bundle": "/a.crt"}, "network.ca_files", ("/a.crt",)),
        ({"verify_ssl": False}, "s3.verify_tls", False),
        ({"verify_ssl": True}, "s3.verify_tls", True),
        ({"verify_ssl": 0}, "s3.verify_tls", False),
        ({"verify_ssl": 1}, "s3.verify_tls", True),
        ({"verify_ssl": "0"}, "s3.verify_tls", False),
        ({"verify_ssl": "false"}, "s3.verify_tls", False),
        ({"verify_ssl": None}, "s3.verify_tls", True),
        ({"verify_ssl": ""}, "s3.verify_tls", True),
        ({"anonymous": True}, "s3.anonymous", True),
        ({"anonymous": "true"}, "s3.anonymous", True),
        ({"anonymous": False}, "s3.anonymous", False),
        ({"use_virtual_bucket": True}, "s3.virtual_host", True),
        ({"request_payer": "requester"}, "s3.request_payer", True),
        ({"use_accelerate": "1"}, "aws.endpoints.accelerate", True),
        ({"cabundle_configmap": "x"}, "network.ca_files", ("/etc/ssl/custom-certs/cabundle.crt",)),
        ({"type": "s3", "bucket": "b", "something": {"else": 1}}, "aws.endpoints.s3", ""),
    ],
)
def test_a_key_of_the_storage_json_stands_for_its_variable(
    variable: str, spec: dict[str, object], place: str, value: object
) -> None:
    assert reach(load(**{variable: json.dumps(spec)}), place) == value


PRECEDENCE = [
    ("endpoint_url", "AWS_ENDPOINT_URL", "aws.endpoints.s3", ["http://env", "http://config", "http://override"]),
    ("endpoint_url", "AWS_ENDPOINT_URL_S3", "aws.endpoints.s3", ["http://env", "http://config", "http://override"]),
    ("endpoint_url", "S3_ENDPOINT", "aws.endpoints.s3", ["http://env", "http://config", "http://override"]),
    ("access_key_id", "AWS_ACCESS_KEY_ID", "aws.access_key_id", ["env", "config", "override"]),
    ("secret_access_key", "AWS_SECRET_ACCESS_KEY", "aws.secret_access_key", ["env", "config", "override"]),
    ("session_token", "AWS_SESSION_TOKEN", "aws.session_token", ["env", "config", "override"]),
    ("region", "AWS_DEFAULT_REGION", "s3.region", ["env", "config", "override"]),
    ("region", "AWS_REGION", "s3.region", ["env", "config", "override"]),
]


@pytest.mark.parametrize(("key", "variable", "place", "values"), PRECEDENCE)
def test_the_override_wins_over_the_storage_json_and_that_over_the_environment(
    key: str, variable: str, place: str, values: list[str]
) -> None:
    env, config, override = values
    one = {variable: env}
    two = {**one, "STORAGE_CONFIG": json.dumps({key: config})}
    three = {**two, "STORAGE_OVERRIDE_CONFIG": json.dumps({key: override})}
    assert [reach(load(**each), place) for each in (one, two, three)] == values
    # An override of something else leaves the storage JSON in force.
    assert reach(load(**two, STORAGE_OVERRIDE_CONFIG='{"type": "s3"}'), place) == config


def test_keys_of_the_storage_json_are_not_mixed_with_the_environments_token() -> None:
    settings = load(
        AWS_ACCESS_KEY_ID="env",
        AWS_SECRET_ACCESS_KEY="env",
        AWS_SESSION_TOKEN="env",
        STORAGE_CONFIG='{"access_key_id": "config", "secret_access_key": "config"}',
    )
    assert reach(settings, "aws.access_key_id") == "config"
    assert reach(settings, "aws.session_token") is None


HOSTED = [
    (
        {"type": "https", "host": "a.example", "headers": {"X": "s3cret"}, "username": "u", "password": "s3cret"},
        "host",
        lambda variables: read_headers(variables, "other.example", None),
    ),
    ({"type": "hf", "endpoint": "https://a.example", "token": "s3cret"}, "endpoint", read_hugging_face),
    ({"type": "modelscope", "endpoint": "https://a.example", "token": "s3cret"}, "endpoint", read_modelscope),
    (
        {"type": "git", "host": "a.example", "username": "u", "password": "s3cret"},
        "host",
        lambda variables: read_git(variables, "other.example", 443),
    ),
    (
        {"type": "oci", "host": "a.example", "username": "u", "password": "s3cret"},
        "host",
        lambda variables: find_login(read_oci(variables), "other.example", "model"),
    ),
]


@pytest.mark.parametrize(("spec", "key", "read"), HOSTED, ids=lambda value: str(value)[:12])
def test_another_host_does_not_get_what_came_for_the_first(spec: dict[str, Any], key: str, read: Any) -> None:
    def found(**given: str) -> str:
        result = read(load(**given).variables)
        token = getattr(result, "token", None) or getattr(result, "password", None)
        return f"{result} {token.reveal() if token else ''} {getattr(result, 'token_file', '')}"

    base = json.dumps(spec)
    other = {key: spec[key].replace("a.example", "other.example")}
    assert "s3cret" not in found(STORAGE_CONFIG=base, STORAGE_OVERRIDE_CONFIG=json.dumps(other))
    # Nor what the environment has.
    env = {"HF_TOKEN": "s3cret", "HUGGING_FACE_HUB_TOKEN": "s3cret", "MODELSCOPE_API_TOKEN": "s3cret"}
    env |= {"HF_TOKEN_PATH": "/s3cret", "HF_HOME": "/s3cret", "XDG_CACHE_HOME": "/s3cret", "HOME": "/s3cret"}
    env |= {"GIT_PASSWORD": "s3cret", "OCI_PASSWORD": "s3cret"}
    env |= {"https-host": "a.example", "headers": '{"X": "s3cret"}', "https-password": "s3cret"}
    assert "s3cret" not in found(**env, STORAGE_CONFIG=json.dumps(other | {"type": spec["type"]}))
    # What comes with the host is for it.
    whole = json.dumps(spec | other)
    assert "s3cret" in found(STORAGE_CONFIG=base.replace("s3cret", "older"), STORAGE_OVERRIDE_CONFIG=whole)


def test_an_empty_storage_json_counts_as_none() -> None:
    assert without_variables(load(STORAGE_CONFIG="", STORAGE_OVERRIDE_CONFIG="")) == Settings()


def test_the_environment_is_not_written_to() -> None:
    env = {"STORAGE_CONFIG": '{"region": "eu-west-1"}'}
    Settings.load(env)
    assert env == {"STORAGE_CONFIG": '{"region": "eu-west-1"}'}


# ---- patterns ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("", ()),
        ("   ", ()),
        ('["*.json", "weights/*"]', ("*.json", "weights/*")),
        ('["a,b.json"]', ("a,b.json",)),
        ("[]", ()),
        ('["", " "]', ()),
        ('"*.json"', ("*.json",)),
        ("*.json", ("*.json",)),
        ("*.json,*.txt", ("*.json", "*.txt")),
        (" *.json , *.txt ,, ", ("*.json", "*.txt")),
    ],
)
@pytest.mark.parametrize(
    ("name", "place"), [("STORAGE_ALLOW_PATTERNS", "allow"), ("STORAGE_IGNORE_PATTERNS", "ignore")]
)
def test_patterns_are_a_json_array_a_json_string_or_a_comma_list(
    text: str, patterns: tuple[str, ...], name: str, place: str
) -> None:
    assert reach(load(**{name: text}), place) == patterns


def test_a_pattern_may_begin_with_a_bracket_in_a_json_array() -> None:
    assert load(STORAGE_ALLOW_PATTERNS='["[ab].json"]').allow == ("[ab].json",)


def test_no_secret_is_in_the_text_of_the_settings() -> None:
    settings = load(
        AWS_SECRET_ACCESS_KEY="s3cret-1",
        AWS_SESSION_TOKEN="s3cret-2",
        AWS_CONTAINER_AUTHORIZATION_TOKEN="s3cret-3",
        STORAGE_CONFIG='{"secret_access_key": "s3cret-4"}',
        **{"models.example.com-headers": '{"Authorization": "s3cret-5"}'},
    )
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


# ---- limits --------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    text = "limits: {attempts: 9, stall_s: 9, unpack_bytes: 1000}\nverify: strict\n"
    settings = load_file(tmp_path, text, S3_MAX_ATTEMPTS="2", LADING_VERIFY="off")
    assert settings.limits == Limits(attempts=2, stall_s=9.0, unpack_bytes=1000)
    assert settings.verify == "off"
    assert load_file(tmp_path, text).verify == "strict"


# ---- the file ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "registries:\nlimits:\n"])
def test_an_empty_file_gives_the_defaults(tmp_path: Path, text: str) -> None:
    assert without_variables(load_file(tmp_path, text)) == Settings()


def test_registries_keep_their_order_and_options(tmp_path: Path) -> None:
    text = "registries:\n- {name: b, kind: catalog, path: /b}\n- {name: a, kind: mlflow, url: https://x, attempts: 1}\n"
    assert load_file(tmp_path, text, LADING_CATALOG="/c").registries == (
        registry_entry("b", "catalog", path="/b"),
        registry_entry("a", "mlflow", url="https://x", attempts=1),
        registry_entry("catalog", "catalog", path="/c"),
    )


@pytest.mark.parametrize("text", ["verify: off\n", "verify: 'off'\n"])
def test_verification_can_be_off_although_yaml_takes_the_word_for_a_boolean(tmp_path: Path, text: str) -> None:
    assert load_file(tmp_path, text).verify == "off"


@pytest.mark.parametrize("kind", KINDS)
def test_what_opens_a_kind_of_registry_takes_the_options_that_its_row_names(kind: str) -> None:
    opens, options = (pkgutil.resolve_name(name) for name in (KINDS[kind].opens, KINDS[kind].options))
    assert get_type_hints(opens.__init__)["entry"] == RegistryEntry[options]


def test_a_row_and_a_type_make_the_settings_of_a_new_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(KINDS, "told", TOLD)
    text = "registries: [{name: a, kind: told, url: https://h, %s: {iris: s3://b/iris}}]"
    (entry,) = load_file(tmp_path, text % "models_told").registries
    assert entry.options == ToldSettings({"iris": "s3://b/iris"})
    with pytest.raises(UsageError, match="registry a has the unknown key 'models_tod'") as caught:
        load_file(tmp_path, text % "models_tod")
    assert caught.value.hint == "did you mean models_told or models?"


def test_what_variables_say_of_a_registry_fails_no_delivery_that_needs_none() -> None:
    # MLflow's own client takes a database for a server.
    assert load(MLFLOW_TRACKING_URI="sqlite:///mlflow.db").registries


def test_every_verification_mode_parses() -> None:
    assert [parse_verify(mode) for mode in ("auto", "strict", "off")] == ["auto", "strict", "off"]


# ---- credentials for a URI's prefix ----------------------------------------------------------


def for_uri(settings: Settings, uri: str) -> str:
    return read_aws(settings.for_uri(ModelURI.parse(uri)).variables).access_key_id


RULES = """
credentials:
  - prefix: s3://team-a
    folder: {folder}
  - prefix: s3://team-a/special/
    variables: {{AWS_ACCESS_KEY_ID: special, AWS_SECRET_ACCESS_KEY: {{env: OTHER}}}}
  - prefix: https://Models.example.com/a
    variables: {{AWS_ACCESS_KEY_ID: web, AWS_SECRET_ACCESS_KEY: {{file: {folder}/AWS_SECRET_ACCESS_KEY}}}}
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "AWS_ACCESS_KEY_ID").write_text("team-a\n")
    (folder / "AWS_SECRET_ACCESS_KEY").write_text("s3cret\n")
    (folder / "..data").mkdir()
    return folder


@pytest.mark.parametrize(
    ("uri", "key"),
    [
        ("s3://team-a/model", "team-a"),
        ("s3://team-a", "team-a"),
        ("s3a://team-a/model", "team-a"),
        ("S3N://team-a/special/model", "special"),
        ("s3://team-ab/model", "env"),
        ("s3://team-a/special/model", "special"),
        ("s3://team-a/special", "special"),
        ("s3://team-a/specialist", "team-a"),
        ("s3://other/model", "env"),
        ("https://models.example.com/a/b", "web"),
        ("https://user:pw@MODELS.example.com/a", "web"),
        ("https://models.example.com./a", "web"),
        ("https://models.example.com:443/a", "web"),
        ("https://models.example.com.:8443/a", "env"),
        ("http://models.example.com/a", "env"),
        ("https://models.example.com.evil/a", "env"),
    ],
)
def test_the_credentials_of_the_longest_prefix_that_covers_a_uri_hold_for_it(
    tmp_path: Path, secret: Path, uri: str, key: str
) -> None:
    env = {"AWS_ACCESS_KEY_ID": "env", "AWS_SECRET_ACCESS_KEY": "env", "AWS_SESSION_TOKEN": "env", "OTHER": "other"}
    settings = load_file(tmp_path, RULES.format(folder=secret), **env)
    assert for_uri(settings, uri) == key
    # A session token belongs to the keys it came with.
    assert reach(settings.for_uri(ModelURI.parse(uri)), "aws.session_token") == ("env" if key == "env" else None)
    assert "s3cret" not in repr(settings)


def test_a_mounted_secret_is_read_anew_and_its_rotation_is_seen(tmp_path: Path, secret: Path) -> None:
    settings = load_file(tmp_path, RULES.format(folder=secret), OTHER="other")
    before = settings.rotating()
    assert settings.rotating() == before
    (secret / "AWS_ACCESS_KEY_ID").write_text("rotated")
    assert for_uri(settings, "s3://team-a/model") == "rotated"
    assert settings.rotating() != before


def test_credentials_may_be_storage_json_and_bring_their_own_authorities(tmp_path: Path, secret: Path) -> None:
    (secret / "STORAGE_CONFIG").write_text('{"access_key_id": "json", "ca_bundle": "/ca.pem"}')
    settings = load_file(tmp_path, RULES.format(folder=secret), STORAGE_CONFIG='{"access_key_id": "pod"}')
    assert for_uri(settings, "s3://other/model") == "pod"
    assert for_uri(settings, "s3://team-a/model") == "json"
    assert settings.for_uri(ModelURI.parse("s3://team-a/model")).network.ca_files == ("/ca.pem",)


@pytest.mark.parametrize("value", ["{env: NOT_THERE}", "{file: /nowhere}"])
def test_credentials_that_cannot_be_read_end_the_delivery_that_needs_them(tmp_path: Path, value: str) -> None:
    settings = load_file(tmp_path, f"credentials: [{{prefix: s3://a, variables: {{X: {value}}}}}]")
    assert for_uri(settings, "s3://b/model") == ""
    with pytest.raises((UsageError, NotAllowed)):
        for_uri(settings, "s3://a/model")


def test_what_an_entrys_storage_has_for_a_key_needs_its_host_too() -> None:
    login = {"GIT_USERNAME": "u", "GIT_PASSWORD": "s3cret"}
    # The registry says both the key and the URI.
    unbound, bound = Settings().for_registry(login), Settings().for_registry(login | {"GIT_HOST": "a.example"})
    assert read_git(unbound.variables, "a.example", 443).password is None
    assert read_git(bound.variables, "a.example", 443).password is not None
    assert read_git(bound.variables, "other.example", 443).password is None
    assert Settings().for_registry({"AWS_DEFAULT_REGION": "x"}) == Settings().with_variables(
        {"AWS_DEFAULT_REGION": "x"}
    )


@pytest.mark.parametrize(
    ("named", "authority", "port", "covers"),
    [
        ("", "a.example", 443, True),
        ("A.example", "a.EXAMPLE:8443", 443, True),
        ("a.example:443", "a.example", 443, True),
        ("a.example:443", "a.example", 80, False),
        ("a.example:8443", "a.example:8443", 443, True),
        ("a.example:8443", "a.example", 443, False),
        ("example", "a.example", 443, False),
        ("[::1]", "[::1]:80", 443, True),
        ("[::1]:443", "[::1]", 443, True),
        ("::1", "[::1]", 443, True),
        ("a.example.", "a.example", 443, True),
        ("a.example:443", "a.example.", 443, True),
        ("a.example.:8443", "A.example:8443", 443, True),
        ("b\u00fccher.example", "xn--bcher-kva.example", 443, True),
        ("[2001:db8:0::1]:443", "[2001:DB8::1]", 443, True),
        ("a.example.evil", "a.example", 443, False),
        ("a..example", "a.example", 443, False),
        ("https://a.example", "a.example", 443, False),
    ],
)
def test_a_host_covers_its_ports_and_nothing_else(named: str, authority: str, port: int, covers: bool) -> None:
    assert is_for(named, authority, port) is covers
