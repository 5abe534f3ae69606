"""Which credential an account is asked with, and what tokens are asked for with."""

import json

import pytest

from fakes.certificates import Authority
from fakes.fake_azure import ACCOUNT, KEY, NOWHERE, TENANT, FakeAzure, FakeEntra
from fakes.faulty_http import ALWAYS, FaultyServer, anything, status
from lading.auth.azure import AccountKey, AzureCredentials, Sas
from lading.errors import NotAllowed, Unavailable, UsageError
from lading.events import ignore
from lading.network.wire import Head
from lading.secret import Token
from lading.session import Session
from lading.settings.azure import read_azure
from lading.settings.limits import Limits, Network
from lading.settings.settings import Settings
from lading.settings.variables import Variables

PRINCIPAL = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": "s3cret~of.a-principal"}
WHERE = f"{ACCOUNT}.blob.core.windows.net"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def entra(authority):
    with FaultyServer(authority.server_context("127.0.0.1")) as server:
        yield FakeEntra(server, FakeAzure(server))


@pytest.fixture
def open_credentials(authority, entra, clock):
    """The credentials that these variables stand for, with the fake Entra in the place of Microsoft's."""
    sessions = []

    def make(sas: str = "", host: str = WHERE, **variables: str) -> AzureCredentials:
        url = entra.azure.server.url
        variables = {"AZURE_AUTHORITY_HOST": url, "AZURE_POD_IDENTITY_AUTHORITY_HOST": url} | variables
        settings = Settings(network=Network(ca_files=(authority.bundle,)), limits=Limits(attempts=2))
        sessions.append(Session(settings, ignore, clock))
        azure = read_azure(Variables(variables))
        return AzureCredentials(azure, sessions[-1].http, account=ACCOUNT, host=host, sas=sas)

    yield make
    for session in sessions:
        session.http.close()


def test_nothing_configured_is_anonymous_and_asks_nobody(open_credentials, entra) -> None:
    entra.identities = {""}
    assert open_credentials().get() is None
    assert entra.azure.server.requests == []


@pytest.mark.parametrize(
    ("sas", "variables", "kind"),
    [
        ("sv=1&sig=2", PRINCIPAL | {"AZURE_STORAGE_ACCESS_KEY": KEY}, "SAS in the URI"),
        ("", PRINCIPAL | {"AZURE_STORAGE_ACCESS_KEY": KEY, "AZURE_ACCESS_TOKEN": "given"}, "service principal"),
        ("", PRINCIPAL | {"AZURE_CLIENT_SECRET": "", "AZURE_FEDERATED_TOKEN_FILE": "{file}"}, "workload identity"),
        ("", PRINCIPAL | {"AZURE_FEDERATED_TOKEN_FILE": "{file}"}, "service principal"),
        ("", {name.replace("AZURE", "AZ"): value for name, value in PRINCIPAL.items()}, "service principal"),
        ("", {"AZURE_ACCESS_TOKEN": "given", "AZURE_CLIENT_ID": "client"}, "access token"),
        ("", {"AZURE_CLIENT_ID": "client", "AZURE_STORAGE_ACCESS_KEY": KEY}, "managed identity"),
        ("", {"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": TENANT}, "managed identity"),
        ("", {"AZURE_STORAGE_ACCESS_KEY": KEY, "AZURE_STORAGE_SAS_TOKEN": "sig=2"}, "account key"),
        ("", {"AZ_STORAGE_ACCESS_KEY": KEY}, "account key"),
        ("", {"AZURE_STORAGE_SAS_TOKEN": "?sv=1&sig=2"}, "SAS"),
    ],
)
def test_the_first_that_is_configured_answers(open_credentials, entra, tmp_path, sas, variables, kind) -> None:
    (tmp_path / "token").write_text("an assertion\n")
    entra.identities = {"client"}
    filled = {name: value.replace("{file}", str(tmp_path / "token")) for name, value in variables.items()}
    found = open_credentials(sas, **filled).get()
    assert found is not None
    assert found.kind == kind
    assert isinstance(found, AccountKey | Sas | Token)
    assert "s3cret" not in repr(found)
    if isinstance(found, Sas):
        assert found.query.reveal().endswith("sig=2")
        assert not found.query.reveal().startswith("?")


def test_a_key_is_for_the_account_that_is_named_with_it(open_credentials) -> None:
    assert open_credentials(AZURE_ACCOUNT_NAME=ACCOUNT, AZURE_STORAGE_ACCESS_KEY=KEY).get() is not None
    assert open_credentials(AZURE_ACCOUNT_NAME="another", AZURE_STORAGE_ACCESS_KEY=KEY).get() is None


def test_a_federated_token_is_read_again_at_each_renewal(open_credentials, entra, tmp_path, clock) -> None:
    file = tmp_path / "token"
    file.write_text("an assertion")
    entra.lasts_s, entra.assertions = 10, {"an assertion", "a new one"}
    identity = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": "client", "AZURE_FEDERATED_TOKEN_FILE": str(file)}
    credentials = open_credentials(**identity)
    credentials.get()
    file.write_text("a new one")
    clock.seconds += 11
    credentials.get()
    assert [form["client_assertion"] for form in entra.forms] == ["an assertion", "a new one"]
    assert {form["client_assertion_type"] for form in entra.forms} == {
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    }
    assert {(form["client_id"], form["scope"]) for form in entra.forms} == {
        ("client", "https://storage.azure.com/.default")
    }


def test_the_identity_of_the_machine_is_used_once_it_is_asked_for(open_credentials, entra) -> None:
    credentials = open_credentials()
    assert not credentials.ask_the_machine()
    assert credentials.get() is None
    entra.identities = {""}
    assert credentials.ask_the_machine()
    found = credentials.get()
    assert found is not None
    assert found.kind == "managed identity"
    assert not open_credentials(AZURE_STORAGE_ACCESS_KEY=KEY).ask_the_machine()


@pytest.mark.parametrize("answer", [404, 401, 403, 405, 500, 200])
def test_a_machine_of_another_kind_has_no_identity(open_credentials, entra, answer) -> None:
    path = "/metadata/identity/oauth2/token"
    entra.azure.server.misbehave(path, status(answer, b"welcome", times=ALWAYS, on=anything))
    credentials = open_credentials()
    assert not credentials.ask_the_machine()
    assert len(entra.azure.server.requests) == 1


@pytest.mark.parametrize("answer", [404, 410, 429, 500])
def test_a_metadata_service_that_is_updated_or_busy_is_waited_for(open_credentials, entra, answer) -> None:
    entra.identities = {"client"}
    entra.azure.server.misbehave("/metadata/identity/oauth2/token", status(answer, on=anything))
    found = open_credentials(AZURE_CLIENT_ID="client").get()
    assert found is not None
    assert found.kind == "managed identity"
    assert len(entra.azure.server.requests) == 2


def test_a_machine_that_does_not_answer_has_no_identity(open_credentials) -> None:
    assert not open_credentials(AZURE_POD_IDENTITY_AUTHORITY_HOST=NOWHERE).ask_the_machine()
    with pytest.raises(Unavailable) as caught:
        open_credentials(AZURE_POD_IDENTITY_AUTHORITY_HOST=NOWHERE, AZURE_CLIENT_ID="client").get()
    assert "AZURE_FEDERATED_TOKEN_FILE" in caught.value.hint


@pytest.mark.parametrize(
    ("variables", "kind", "says"),
    [
        (PRINCIPAL | {"AZURE_CLIENT_SECRET": "s3cret wrong"}, NotAllowed, "AZURE_TENANT_ID"),
        ({"AZURE_CLIENT_ID": "unknown"}, NotAllowed, "AZURE_CLIENT_ID"),
        (PRINCIPAL | {"AZURE_TENANT_ID": ""}, UsageError, "AZURE_TENANT_ID"),
        (PRINCIPAL | {"AZURE_AUTHORITY_HOST": "http://login.example"}, UsageError, "AZURE_AUTHORITY_HOST"),
        ({"AZURE_ACCESS_TOKEN": "s3cret", "AZURE_ACCESS_EXPIRES_ON_SECONDS": "1"}, NotAllowed, "AZURE_ACCESS_TOKEN"),
        ({"AZURE_ACCESS_TOKEN": "s3cret", "AZURE_ACCESS_EXPIRES_ON_SECONDS": "soon"}, UsageError, "Unix time"),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_with_it(open_credentials, variables, kind, says) -> None:
    with pytest.raises(kind) as caught:
        open_credentials(**variables).get()
    assert says in f"{caught.value} {caught.value.hint}"
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("cloud", "login"),
    [
        ("core.windows.net", "https://login.microsoftonline.com"),
        ("core.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
        ("core.usgovcloudapi.net", "https://login.microsoftonline.us"),
    ],
)
def test_each_cloud_has_its_own_authority(open_credentials, cloud, login) -> None:
    host = f"{ACCOUNT}.blob.{cloud}"
    assert open_credentials(host=host, AZURE_AUTHORITY_HOST="")._authority == login
    assert open_credentials(host=host, AZURE_AUTHORITY_HOST="login.example/")._authority == "https://login.example"


def test_a_token_that_never_was_accepted_is_not_renewed(open_credentials, entra) -> None:
    credentials = open_credentials(**PRINCIPAL)
    first = credentials.get()
    assert not credentials.refused(first, Head(401, {}))
    credentials.accepted(first)
    assert credentials.refused(first, Head(401, {}))
    second = credentials.get()
    assert second != first
    # Another thread comes late with the first one.
    assert credentials.refused(first, Head(401, {}))
    assert credentials.get() is second
    assert not credentials.refused(second, Head(401, {}))
    assert len(entra.forms) == 2


def test_credentials_for_a_prefix_take_the_place_of_those_that_would_come_before_them() -> None:
    identity = Variables(PRINCIPAL | {"AZURE_ACCESS_TOKEN": "given"})
    assert read_azure(identity.overlaid({"AZURE_STORAGE_ACCESS_KEY": KEY})).client_id == ""
    assert read_azure(identity.overlaid({"AZURE_STORAGE_SAS_TOKEN": "sig=1"})).access_token is None
    assert read_azure(identity.overlaid({"AZURE_ACCESS_TOKEN": "new"})).client_id == ""
    for name in ("AZURE_CLIENT_ID", "AZ_CLIENT_ID"):
        other = read_azure(identity.overlaid({name: "other"}))
        assert (other.client_id, other.client_secret, other.tenant_id) == ("other", None, TENANT)
    secret = {"AZ_CLIENT_ID": "other", "AZ_CLIENT_SECRET": "its", "AZ_TENANT_ID": "there"}
    other = read_azure(identity.overlaid(secret))
    assert other.client_secret is not None
    assert (other.client_id, other.client_secret.reveal(), other.tenant_id) == ("other", "its", "there")
    for name in ("AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        assert read_azure(Variables({"AZURE_ACCOUNT_NAME": "one"}).overlaid({name: KEY})).account == ""
    both = {"AZURE_ACCOUNT_NAME": "two", "AZURE_STORAGE_ACCESS_KEY": KEY}
    assert read_azure(Variables({"AZURE_ACCOUNT_NAME": "one"}).overlaid(both)).account == "two"


def test_storage_json_of_type_azure_stands_for_the_variables() -> None:
    spec = {
        "type": "azure",
        "account_name": "a",
        "access_key": "k",
        "client_id": "c",
        "client_secret": "s",
        "tenant_id": "t",
    }
    spec |= {"sas_token": "sig", "access_token": "at", "access_expires_on_seconds": 17, "authority_host": "h"}
    azure = read_azure(Settings.load({"STORAGE_CONFIG": json.dumps(spec), "LADING_CONFIG": ""}).variables)
    told = [azure.account, azure.client_id, azure.tenant_id, azure.access_token_expires_on, azure.authority_host]
    assert told == ["a", "c", "t", "17", "h"]
    secrets = [azure.account_key, azure.client_secret, azure.sas, azure.access_token]
    assert [secret and secret.reveal() for secret in secrets] == ["k", "s", "sig", "at"]
