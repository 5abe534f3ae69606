"""Every kind of Google credentials, against a Google that google-auth believes too."""

import json
import threading
import time

import pytest

from fakes.fake_google import ACCOUNT, FakeGoogle
from fakes.faulty_http import ALWAYS, ANYWHERE, Answer, FaultyServer, anything, redirect, status
from lading.auth.google import GoogleCredentials
from lading.errors import LadingError, NotAllowed, Unavailable, Unsupported, UsageError
from lading.network.client import HttpClient
from lading.network.wire import Head
from lading.retry import Retry, Run
from lading.settings.google import read_google
from lading.settings.limits import Limits, Network
from lading.settings.variables import Variables

READ = "https://www.googleapis.com/auth/devstorage.read_only"
IAM = "https://www.googleapis.com/auth/cloud-platform"


@pytest.fixture
def google(server):
    return FakeGoogle(server)


@pytest.fixture
def credentials(clock):
    """Make credentials from variables."""
    clients = []

    def make(**variables: str) -> GoogleCredentials:
        retry = Retry(Run(threading.Event(), clock), attempts=4)
        clients.append(HttpClient(Network(), Limits(stall_s=5.0, connect_s=5.0), retry))
        return GoogleCredentials(read_google(Variables({"NO_GCE_CHECK": "true"} | variables)), clients[-1])

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def of(credentials, tmp_path):
    """Make credentials from a document, as the file that GOOGLE_APPLICATION_CREDENTIALS names."""

    def make(document: object) -> GoogleCredentials:
        path = tmp_path / "credentials.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return credentials(GOOGLE_APPLICATION_CREDENTIALS=str(path))

    return make


def federated(google, source, **fields):
    return google.document("external_account", credential_source=source, **fields)


@pytest.fixture
def subject(tmp_path):
    path = tmp_path / "subject"
    path.write_text("se-cret-subject\n")
    return {"file": str(path)}


def test_a_service_accounts_key_signs_for_a_token_to_read_with(google, of):
    token = of(google.document("service_account")).get()
    assert google.granted[token.value.reveal()] == {"kind": "key", "account": ACCOUNT, "scope": READ}
    assert token.kind == "service account key"
    assert 3500 < token.expires_at_s - time.time() <= 3600


def test_a_login_of_gcloud_is_refreshed(google, of):
    token = of(google.document("authorized_user")).get()
    assert google.granted[token.value.reveal()] == {"kind": "refresh"}


def test_a_subject_token_of_a_file_is_exchanged(google, of, subject):
    token = of(federated(google, subject)).get()
    granted = google.granted[token.value.reveal()]
    assert (granted["kind"], granted["scope"]) == ("exchange", READ)
    assert token.kind == "workload identity federation"


def test_a_rotated_subject_token_is_read_at_the_next_exchange(google, of, tmp_path):
    google.lasts_s = 0
    (tmp_path / "subject").write_text("of yesterday")
    found = of(federated(google, {"file": str(tmp_path / "subject")}))
    with pytest.raises(NotAllowed, match="invalid_grant"):
        found.get()
    (tmp_path / "subject").write_text("se-cret-subject")
    assert found.get()


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("se-cret-subject", {}),
        ("se-cret-subject", {"type": "text"}),
        ('{"id": "se-cret-subject"}', {"type": "json", "subject_token_field_name": "id"}),
    ],
)
@pytest.mark.parametrize("way", ["file", "url"])
def test_a_subject_token_comes_as_text_or_as_json(google, server, of, tmp_path, way, text, form):
    (tmp_path / "subject").write_text(text)

    def answer(request) -> Answer:
        return Answer(200 if request.headers.get("metadata") == "True" else 403, {}, text.encode())

    server.routes["/subject"] = answer
    url = {"url": f"{server.url}/subject", "headers": {"Metadata": "True"}}
    source = url if way == "url" else {"file": str(tmp_path / "subject")}
    token = of(federated(google, source | {"format": form} if form else source)).get()
    assert google.granted[token.value.reveal()]["kind"] == "exchange"


def test_a_federated_identity_acts_as_a_service_account(google, of, subject):
    fields = {
        "service_account_impersonation_url": google.impersonation_url,
        "service_account_impersonation": {"token_lifetime_seconds": 600},
    }
    token = of(federated(google, subject, **fields)).get()
    granted = google.granted[token.value.reveal()]
    assert (granted["scope"], granted["lifetime"], granted["by"]["scope"]) == ([READ], "600s", IAM)
    assert token.kind == "workload identity federation, impersonating"


def test_a_client_of_a_workforce_pool_says_who_it_is(google, server, of, subject):
    of(federated(google, subject, client_id="id", client_secret="se-cret-client")).get()
    of(federated(google, subject, workforce_pool_user_project="payer")).get()
    first, second = server.requests_for("/sts/token")
    assert first.headers["authorization"].startswith("Basic ")
    assert b"options=" in second.body


@pytest.mark.parametrize("source", ["service_account", "authorized_user"])
def test_an_identity_acts_as_a_service_account(google, of, source):
    document = google.document("impersonated_service_account", source_credentials=google.document(source))
    token = of(document).get()
    granted = google.granted[token.value.reveal()]
    assert granted["kind"] == "impersonation"
    assert granted["delegates"] == ["between@project.iam.gserviceaccount.com"]
    assert 3500 < token.expires_at_s - time.time() <= 3600


def test_the_metadata_server_is_asked_as_it_wants_to_be(google, credentials):
    token = credentials(GCE_METADATA_HOST=google.metadata_host, NO_GCE_CHECK="").get()
    assert google.granted[token.value.reveal()] == {"kind": "metadata"}


def test_what_is_configured_comes_in_an_order(google, credentials, tmp_path):
    gcloud = tmp_path / "gcloud"
    gcloud.mkdir()
    variables = {
        "GCE_METADATA_HOST": google.metadata_host,
        "NO_GCE_CHECK": "",
        "CLOUDSDK_CONFIG": str(gcloud),
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json"),
        "gcloud-application-credentials.json": json.dumps(google.document("service_account")),
    }
    (gcloud / "application_default_credentials.json").write_text(json.dumps(google.document("authorized_user")))
    (tmp_path / "key.json").write_text(json.dumps(google.document("service_account", private_key_id="")))
    # The fake wants the number of the key: the file's own is refused.
    (tmp_path / "key.json").write_text(json.dumps(google.document("authorized_user", refresh_token="old")))
    assert credentials(**variables).get().kind == "service account key"
    del variables["gcloud-application-credentials.json"]
    with pytest.raises(NotAllowed, match="invalid_grant"):
        credentials(**variables).get()
    del variables["GOOGLE_APPLICATION_CREDENTIALS"]
    assert credentials(**variables).get().kind == "gcloud login"
    (gcloud / "application_default_credentials.json").unlink()
    assert credentials(**variables).get().kind == "metadata server"
    google.has_account = False
    assert credentials(**variables).get() is None


def test_a_file_that_is_named_must_be_there(credentials):
    with pytest.raises(NotAllowed, match="/nowhere/key"):
        credentials(GOOGLE_APPLICATION_CREDENTIALS="/nowhere/key.json").get()


def test_a_token_is_asked_for_once_and_renewed_when_it_is_about_to_end(google, of, clock):
    google.lasts_s = 360
    found = of(google.document("service_account"))
    first = found.get()
    clock.seconds += 50
    assert found.get() is first
    clock.seconds += 11
    assert found.get() is not first


def test_a_rotated_key_is_read_at_the_next_renewal(google, of, tmp_path):
    found = of(google.document("authorized_user"))
    token = found.get()
    found.accepted(token)
    (tmp_path / "credentials.json").write_text(json.dumps(google.document("service_account")))
    assert found.refused(token, Head(401, {}))
    assert found.get().kind == "service account key"


def test_a_token_that_was_never_taken_is_wrong_and_not_old(google, of):
    found = of(google.document("service_account"))
    first = found.get()
    assert not found.refused(first, Head(401, {}))
    found.accepted(first)
    assert found.refused(first, Head(401, {}))
    second = found.get()
    assert second is not first
    # Another thread may come late with the first one.
    assert found.refused(first, Head(401, {}))
    assert found.get() is second
    assert not found.refused(second, Head(401, {}))


SERVICE_ACCOUNT = {"type": "service_account", "client_email": "a@b", "private_key": "-----BEGIN se-cret"}


@pytest.mark.parametrize(
    ("document", "kind", "words"),
    [
        ("", UsageError, "not a JSON object"),
        ("[]", UsageError, "not a JSON object"),
        ("se-cret", UsageError, "not a JSON object"),
        ({}, UsageError, "type"),
        ({"type": ["se-cret"]}, UsageError, "type"),
        ({"type": "gdch_service_account"}, Unsupported, "gdch_service_account"),
        ({"type": "service_account"}, UsageError, "client_email"),
        ({"type": "service_account", "client_email": "a"}, UsageError, "private_key"),
        ({"type": "service_account", "client_email": 7, "private_key": "se-cret"}, UsageError, "client_email"),
        (SERVICE_ACCOUNT, UsageError, "RSA"),
        (SERVICE_ACCOUNT | {"universe_domain": "elsewhere.example"}, Unsupported, "universe"),
        ({"type": "authorized_user", "client_id": "a", "client_secret": "se-cret"}, UsageError, "refresh_token"),
        ({"type": "external_account"}, UsageError, "audience"),
        ({"type": "impersonated_service_account"}, UsageError, "type"),
        (
            {
                "type": "impersonated_service_account",
                "source_credentials": {"type": "impersonated_service_account", "source_credentials": {}},
            },
            UsageError,
            "delegates",
        ),
    ],
)
def test_what_are_no_credentials_is_refused_and_not_quoted(of, document, kind, words):
    with pytest.raises(kind) as caught:
        of(document).get()
    said = f"{caught.value} {caught.value.hint}"
    assert words in said
    assert "se-cret" not in said


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        ({}, Unsupported, "neither file nor url"),
        ({"environment_id": "aws1", "url": ""}, Unsupported, "environment_id"),
        ({"executable": {"command": "/bin/sh"}}, Unsupported, "executable"),
        ({"certificate": {"use_default_certificate_config": True}}, Unsupported, "certificate"),
        ({"file": "/nowhere/token"}, NotAllowed, "/nowhere/token"),
        ({"url": "http://tokens.example/"}, UsageError, "unencrypted"),
        ({"url": "ftp://tokens.example/"}, UsageError, "http"),
        ({"file": "{file}", "format": {"type": "json"}}, UsageError, "subject_token_field_name"),
        ({"file": "{file}", "format": {"type": "json", "subject_token_field_name": "id"}}, UsageError, "format"),
        ({"file": "{file}", "format": "json"}, UsageError, "format"),
    ],
)
def test_a_subject_token_that_cannot_be_had_is_told(google, of, subject, source, kind, words):
    filled = {name: subject["file"] if value == "{file}" else value for name, value in source.items()}
    with pytest.raises(kind) as caught:
        of(federated(google, filled)).get()
    assert words in f"{caught.value} {caught.value.hint}"
    assert google.granted == {}


@pytest.mark.parametrize(
    "url",
    [
        "https://tokens.example/token",
        "http://oauth2.googleapis.com/token",
        "https://oauth2.googleapis.com:8443/token",
        "https://googleapis.com.example/token",
        "https://oauth2.googleapis.com@tokens.example/token",
        "https://evilgoogleapis.com/token",
        "file:///etc/passwd",
        "se-cret",
    ],
)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("service_account", "token_uri"),
        ("authorized_user", "token_uri"),
        ("external_account", "token_url"),
        ("external_account", "service_account_impersonation_url"),
        ("impersonated_service_account", "service_account_impersonation_url"),
    ],
)
def test_no_credential_goes_where_only_the_document_says_that_google_is(google, of, subject, kind, name, url):
    fields = {"credential_source": subject, "source_credentials": google.document("authorized_user"), name: url}
    with pytest.raises(UsageError) as caught:
        of(google.document(kind, **fields)).get()
    assert "se-cret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "url",
    [
        "https://oauth2.googleapis.com/token",
        "https://oauth2.googleapis.com./token",
        "https://accounts.google.com/o/oauth2/token",
        "https://www.googleapis.com/oauth2/v4/token",
        "https://sts.europe-west1.rep.googleapis.com/v1/token",
    ],
)
def test_every_endpoint_that_google_has_given_out_is_believed(google, of, url):
    from lading.auth.google import _Fields

    assert _Fields({"token_uri": url}, "key.json").url_at_google("token_uri", "") == url


def test_a_credential_follows_no_redirect(google, server, of):
    with FaultyServer(host="localhost") as elsewhere:
        server.misbehave(ANYWHERE, redirect(f"{elsewhere.url}/oauth/token", 307))
        with pytest.raises(LadingError):
            of(google.document("authorized_user")).get()
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("body", "code", "kind"),
    [
        (b'{"error": "invalid_grant", "error_description": "se-cret"}', 400, NotAllowed),
        (b'{"error": ["se-cret"]}', 400, NotAllowed),
        (b"se-cret", 401, NotAllowed),
        (b"se-cret", 500, Unavailable),
        (b"se-cret", 200, Unsupported),
        (b'{"access_token": 7}', 200, Unsupported),
        (b'{"access_token": "se-cret", "expires_in": "soon"}', 200, Unsupported),
        (b'{"access_token": "se-cret", "expires_in": {}}', 200, Unsupported),
        (b"se-cret", 418, Unsupported),
    ],
)
def test_a_token_endpoint_that_refuses_or_rambles_is_not_quoted(google, server, of, body, code, kind):
    server.misbehave(ANYWHERE, status(code, body, times=ALWAYS, on=anything))
    with pytest.raises(kind) as caught:
        of(google.document("authorized_user")).get()
    assert "se-cret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("body", "code", "kind"),
    [
        (b'{"error": {"message": "se-cret"}}', 403, NotAllowed),
        (b"se-cret", 404, NotAllowed),
        (b"se-cret", 503, Unavailable),
        (b"se-cret", 200, Unsupported),
        (b'{"accessToken": "se-cret"}', 200, Unsupported),
        (b'{"accessToken": "", "expireTime": "2026-01-01T00:00:00Z"}', 200, Unsupported),
        (b'{"accessToken": "se-cret", "expireTime": "soon"}', 200, Unsupported),
        (b'{"accessToken": "se-cret", "expireTime": 7}', 200, Unsupported),
    ],
)
def test_an_iam_service_that_refuses_or_rambles_is_not_quoted(google, server, of, body, code, kind):
    path = google.impersonation_url.removeprefix(server.url)
    server.misbehave(path, status(code, body, times=ALWAYS, on=anything))
    source = google.document("authorized_user")
    with pytest.raises(kind) as caught:
        of(google.document("impersonated_service_account", source_credentials=source)).get()
    assert "se-cret" not in f"{caught.value} {caught.value.hint}"


def test_two_that_ask_the_metadata_server_at_once_do_not_disturb_each_other(google, server, clock):
    http = HttpClient(Network(), Limits(stall_s=5.0, connect_s=5.0), Retry(Run(threading.Event(), clock), attempts=2))
    answer = server.routes["/computeMetadata/v1/"]
    kinds = []

    with FaultyServer() as another:
        hosts = google.metadata_host, FakeGoogle(another).metadata_host
        first, second = (GoogleCredentials(read_google(Variables({"GCE_METADATA_HOST": host})), http) for host in hosts)

        def after_the_other(request):
            kinds.append(second.get().kind)
            return answer(request)

        server.routes["/computeMetadata/v1/"] = after_the_other
        kinds.append(first.get().kind)
    http.close()
    assert kinds == ["metadata server"] * 2


def test_a_metadata_server_without_end_is_none(google, server, credentials):
    server.misbehave(ANYWHERE, status(200, b"x" * 300_000, headers={"Metadata-Flavor": "Google"}, times=ALWAYS))
    with pytest.raises(LadingError):
        credentials(GCE_METADATA_HOST=google.metadata_host, NO_GCE_CHECK="").get()


def test_nothing_configured_is_nobody(credentials):
    assert credentials().get() is None
