"""No credential travels unencrypted farther than the cluster's network: one rule, for every source and login.

A proxy stands for all hosts there are, so that what would have gone out is seen.
"""

import json

import pytest

from fakes.fake_google import FakeGoogle
from fakes.faulty_http import Answer, FaultyServer
from fakes.registry_entries import registry_entry
from lading.errors import LadingError, UsageError
from lading.model.origin import split_url
from lading.model.uri import ModelURI
from lading.registries.server import RegistryServer
from lading.settings.limits import Network
from lading.settings.registries import read_registries
from lading.settings.variables import Variables
from lading.sources.schemes import open_source

FAR, NEAR = "gate.example.com", "gate.team.svc"
SECRET = "s3cret"
IDENTITY = {"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": SECRET}
AZURE = {"AZURE_SERVICE_URL": "http://{host}"}
ROLE = {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": "{file}"}
KEYS = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": SECRET}
METADATA = {"GCE_METADATA_HOST": "{google}", "NO_GCE_CHECK": ""}
FEDERATION = {"type": "external_account", "audience": "a", "subject_token_type": "jwt"}
SUBJECT = FEDERATION | {"credential_source": {"url": "http://{host}/token", "headers": {"Authorization": SECRET}}}


@pytest.fixture
def proxy():
    with FaultyServer() as server:
        server.routes["/"] = lambda request: Answer(404)
        yield server


@pytest.fixture
def session(proxy, server, tmp_path, new_session):
    """A session whose every request goes through the proxy; in its variables, ``{host}`` is the host that is tried."""
    (tmp_path / "token").write_text(SECRET)
    fills = {"{file}": str(tmp_path / "token"), "{google}": FakeGoogle(server).metadata_host}

    def make(host, **variables):
        given = json.dumps(variables)
        for mark, text in (fills | {"{host}": host}).items():
            given = given.replace(mark, text)
        filled = json.loads(given)
        registries = read_registries({}, Variables(filled))
        network = Network(http_proxy=proxy.url, https_proxy=proxy.url)
        return new_session(network=network, variables=filled, registries=registries)

    return make


def refusal(ask) -> LadingError | None:
    """What ends this, since no host has a model."""
    try:
        ask()
    except LadingError as error:
        return error
    return None


def listing(session, uri):
    return lambda: open_source(ModelURI.parse(uri), session.settings, session.http).list()


def sent(proxy) -> str:
    return repr([(request.target, request.headers, request.body) for request in proxy.requests])


@pytest.mark.parametrize(
    ("uri", "variables"),
    [
        pytest.param("http://{host}/model", {"{host}-headers": '{"X-Token": "s3cret"}'}, id="headers"),
        pytest.param(
            "http://{host}/model",
            {"https-host": "{host}", "headers": '{"X-Token": "s3cret"}', "https-username": "u", "https-password": "p"},
            id="user and password of a Secret",
        ),
        pytest.param("git+http://{host}/model", {"GIT_USERNAME": "u", "GIT_PASSWORD": SECRET}, id="git"),
        pytest.param("git+http://u@{host}/model", {"GIT_PASSWORD": SECRET}, id="git, with a user in the URI"),
        pytest.param("hf://team/model", {"HF_ENDPOINT": "http://{host}", "HF_TOKEN": SECRET}, id="hf"),
        pytest.param(
            "hf://team/model", {"HF_ENDPOINT": "http://{host}", "HF_TOKEN_PATH": "{file}"}, id="hf, by a file"
        ),
        pytest.param(
            "ms://team/model", {"MODELSCOPE_ENDPOINT": "http://{host}", "MODELSCOPE_API_TOKEN": SECRET}, id="ms"
        ),
        pytest.param("gs://models/model", METADATA | {"API_ENDPOINT_OVERRIDE": "http://{host}"}, id="gs"),
        pytest.param("http://{host}/models/model", AZURE | {"AZURE_ACCESS_TOKEN": SECRET}, id="azure"),
        pytest.param(
            "webhdfs://model", {"HDFS_NAMENODE": "http://{host}", "HDFS_DELEGATION_TOKEN": SECRET}, id="hdfs, a token"
        ),
        pytest.param(
            "webhdfs://model",
            {"HDFS_NAMENODE": "http://{host}", "HDFS_HEADERS": '{"X-Token": "s3cret"}'},
            id="hdfs, headers",
        ),
        pytest.param(
            "mlflow-artifacts:/model",
            {"MLFLOW_TRACKING_URI": "http://{host}", "MLFLOW_TRACKING_TOKEN": SECRET},
            id="mlflow",
        ),
        # Whom the credentials for a source are had from.
        pytest.param("s3://models/model", ROLE | {"AWS_ENDPOINT_URL_STS": "http://{host}"}, id="sts"),
        pytest.param("gs://models/model", {"gcloud-application-credentials.json": json.dumps(SUBJECT)}, id="subject"),
        pytest.param(
            "https://a.blob.core.windows.net/models/model",
            IDENTITY | {"AZURE_AUTHORITY_HOST": "http://{host}"},
            id="azure identity",
        ),
    ],
)
def test_a_credential_travels_unencrypted_within_the_cluster_only(session, proxy, uri, variables):
    error = refusal(listing(session(FAR, **variables), uri.replace("{host}", FAR)))
    assert isinstance(error, UsageError)
    assert "unencrypted" in error.message
    assert f"http://{FAR}" in error.message
    assert error.hint
    assert proxy.requests == []
    error = refusal(listing(session(NEAR, **variables), uri.replace("{host}", NEAR)))
    assert not isinstance(error, UsageError)
    assert any(mark in sent(proxy) for mark in (SECRET, "se-cret", "Basic "))


@pytest.mark.parametrize(
    "challenge", ['Basic realm="x"', 'Bearer realm="http://{host}/token"', 'Bearer realm="https://x/t"']
)
@pytest.mark.parametrize("entry", [{"auth": "dTpzM2NyZXQ="}, {"identitytoken": SECRET}, {"registrytoken": SECRET}])
def test_a_login_of_an_insecure_registry_travels_in_clear_in_the_cluster_only(session, proxy, challenge, entry):
    def ask(host):
        shown = {"WWW-Authenticate": challenge.replace("{host}", host)}
        proxy.routes["/"] = lambda request: Answer(401, shown)
        document = json.dumps({"auths": {host: entry}})
        given = {".dockerconfigjson": document, "KSERVE_OCI_INSECURE_REGISTRY": "true"}
        return refusal(listing(session(host, **given), f"oci://{host}/model"))

    error = ask(FAR)
    assert isinstance(error, UsageError)
    assert "unencrypted" in error.message
    assert f"http://{FAR}" in error.message
    assert not any(mark in sent(proxy) for mark in (SECRET, "Basic ", "Bearer "))
    assert not isinstance(ask(NEAR), UsageError)


def test_keys_of_a_container_travel_unencrypted_within_the_cluster_only(session, server):
    variables = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://{host}/keys",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": SECRET,
    }
    error = refusal(listing(session(FAR, **variables), "s3://models/model"))
    assert isinstance(error, UsageError)
    assert "unencrypted" in error.message
    # No proxy is asked for these.
    refusal(listing(session(server.url.removeprefix("http://"), **variables), "s3://models/model"))
    assert server.requests[0].headers["authorization"] == SECRET


@pytest.mark.parametrize(
    "login",
    [
        {"token": SECRET},
        {"user": "u", "password": SECRET},
        {"oidc": {"token_url": "http://{host}/token", "client_id": "c", "client_secret": SECRET}},
    ],
)
def test_a_login_travels_unencrypted_within_the_cluster_only(session, proxy, login):
    def ask(host: str):
        given = json.loads(json.dumps(login).replace("{host}", host))
        # Where the token is had is a host of its own.
        url = f"http://{host if 'oidc' not in given else NEAR}"
        quiet = session(host)
        return lambda: RegistryServer(
            registry_entry("prod", "kubeflow", url=url, login=given), quiet.settings, quiet.http
        ).get("/x", what="the model")

    error = refusal(ask(FAR))
    assert isinstance(error, UsageError)
    assert "unencrypted" in error.message
    assert proxy.requests == []
    refusal(ask(NEAR))
    assert SECRET in sent(proxy) or "Basic " in sent(proxy)


def test_a_login_that_signs_goes_anywhere(session, proxy):
    login = {"aws": {"region": "eu-west-1", "service": "execute-api"}}
    quiet = session(FAR, **KEYS)
    entry = registry_entry("prod", "kubeflow", url=f"http://{FAR}", login=login)
    refusal(lambda: RegistryServer(entry, quiet.settings, quiet.http).get("/x", what="the model"))
    assert "AWS4-HMAC-SHA256" in sent(proxy)
    assert SECRET not in sent(proxy)


@pytest.mark.parametrize(
    ("uri", "variables"),
    [
        # What signs is not sent.
        ("s3://models/model", KEYS | {"AWS_ENDPOINT_URL": "http://{host}"}),
        ("http://{host}/models/model", AZURE | {"AZURE_STORAGE_ACCESS_KEY": "czNjcmV0"}),
        # Who writes a credential behind http:// has said so.
        ("http://u:s3cret@{host}/model", {}),
        ("git+http://u:s3cret@{host}/model", {"GIT_PASSWORD": "another"}),
        ("http://a.blob.core.windows.net/models/model?sig=s3cret", {}),
        ("http://{host}/models/model", AZURE | {"AZURE_STORAGE_SAS_TOKEN": "sig=s3cret"}),
        # There is none.
        ("oci://{host}/model", {"KSERVE_OCI_INSECURE_REGISTRY": "true"}),
        ("http://{host}/model", {"elsewhere.example.com-headers": '{"X-Token": "s3cret"}'}),
        ("hf://team/model", {"HF_ENDPOINT": "http://{host}"}),
        ("gs://models/model", METADATA | {"STORAGE_EMULATOR_HOST": "http://{host}"}),
        ("webhdfs://model", {"HDFS_NAMENODE": "http://{host}", "HADOOP_USER_NAME": "u"}),
    ],
)
def test_what_is_no_secret_or_is_meant_so_goes_anywhere(session, proxy, uri, variables):
    error = refusal(listing(session(FAR, **variables), uri.replace("{host}", FAR)))
    assert not isinstance(error, UsageError)
    assert proxy.requests


@pytest.mark.parametrize(
    ("host", "is_near"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1", True),
        ("[::1]", True),
        ("registry", True),
        ("registry.team.svc", True),
        ("registry.team.svc.cluster.local.", True),
        ("metadata.google.internal", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("192.168.0.1", True),
        # Pods of some clouds; metadata services.
        ("100.64.0.1", True),
        ("169.254.169.254", True),
        ("[fd00:ec2::23]", True),
        ("registry.example.com", False),
        ("svc.example.com", False),
        ("notsvc", True),
        ("8.8.8.8", False),
        ("134744072", False),
        ("0x08080808", False),
        ("[2001:4860:4860::8888]", False),
        ("[::ffff:8.8.8.8]", False),
        ("[::ffff:10.1.2.3]", True),
    ],
)
def test_what_is_near_is_this_machine_and_the_clusters_network(host, is_near):
    split_url(f"https://{host}:8443/")[0].refuse_in_clear("a token")
    if is_near:
        split_url(f"http://{host}/")[0].refuse_in_clear("a token")
        return
    with pytest.raises(UsageError, match="a token would be sent unencrypted") as caught:
        split_url(f"http://{host}/")[0].refuse_in_clear("a token")
    assert "https" in caught.value.hint
