"""A registry that is an HTTP service: who asks, how it is reached, what its answers mean."""

import json
from base64 import b64decode
from datetime import UTC, datetime
from unittest.mock import patch
from urllib.parse import parse_qsl

import pytest

from fakes.certificates import Authority
from fakes.fake_kubeflow import FakeKubeflow
from fakes.faulty_http import ALWAYS, Answer, FaultyServer, anything, redirect, stall, status
from fakes.registry_entries import registry_entry
from lading.errors import IntegrityError, NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.model.uri import ModelURI
from lading.registries.federation import resolve
from lading.registries.server import RegistryServer

PATH = "/api/models"
JSON = {"items": [{"name": "größe"}]}
HTML = b"<!DOCTYPE html><html><form>password</form></html>"


@pytest.fixture(autouse=True)
def _models(server):
    server.put(PATH, json.dumps(JSON).encode(), headers={"Content-Type": "application/json"})


@pytest.fixture
def service(server, new_session):
    """Make a service at the server: ``service(login=…, tls=…, variables=…)``."""

    def make(*, url: str = "", variables=None, **options) -> RegistryServer:
        session = new_session(variables=variables or {})
        entry = registry_entry("prod", "kubeflow", url=url or server.url, **options)
        return RegistryServer(entry, session.settings, session.http)

    return make


def get(service: RegistryServer):
    return service.get(PATH, what="the model")


def sent(server) -> list[str | None]:
    return [request.headers.get("authorization") for request in server.requests]


def test_an_answer_is_json_and_the_query_is_encoded(server, service):
    assert service().get(PATH, {"name": "a b/ü&c"}, what="the model") == JSON
    assert server.requests[0].query == "name=a%20b%2F%C3%BC%26c"
    assert sent(server) == [None]


def test_a_document_is_sent_as_json(server, service):
    server.routes["/api/other"] = lambda request: Answer(201, {}, request.body)
    assert service().call("POST", "/api/other", document=JSON, what="it") == JSON
    assert server.requests[0].headers["content-type"] == "application/json"


# ---- logins ----------------------------------------------------------------------------------


def test_a_bearer_token_is_a_text_a_variable_or_a_file_that_is_read_each_time(server, service, tmp_path):
    get(service(login={"token": "text"}))
    get(service(login={"token": {"env": "REGISTRY_TOKEN"}}, variables={"REGISTRY_TOKEN": "variable"}))
    (tmp_path / "token").write_text("first\n")
    rotating = service(login={"token": {"file": str(tmp_path / "token")}})
    get(rotating)
    (tmp_path / "token").write_text("second\n")
    get(rotating)
    assert sent(server) == ["Bearer text", "Bearer variable", "Bearer first", "Bearer second"]


def test_a_token_that_is_rotated_while_it_is_refused_is_sent_at_once(server, service, tmp_path):
    (tmp_path / "token").write_text("first")

    def answer(request) -> Answer:
        (tmp_path / "token").write_text("second")
        return Answer(200, {}, b"{}") if request.headers["authorization"] == "Bearer second" else Answer(401)

    server.routes["/rotating"] = answer
    assert service(login={"token": {"file": str(tmp_path / "token")}}).get("/rotating", what="it") == {}
    assert sent(server) == ["Bearer first", "Bearer second"]


def test_a_user_and_a_password_are_sent_as_basic(server, service):
    get(service(login={"user": "me", "password": {"env": "PASSWORD"}}, variables={"PASSWORD": "p:w"}))
    assert b64decode(sent(server)[0].removeprefix("Basic ")) == b"me:p:w"


class Issuer:
    """An OIDC provider that counts what it grants."""

    def __init__(self, server, *, expires_in: int = 3600) -> None:
        self.forms: list[dict[str, str]] = []
        self.logins: list[str] = []
        server.put("/idp/.well-known/openid-configuration", json.dumps({"token_endpoint": f"{server.url}/t"}).encode())

        def grant(request) -> Answer:
            self.forms.append(dict(parse_qsl(request.body.decode())))
            self.logins.append(b64decode(request.headers["authorization"].removeprefix("Basic ")).decode())
            if not self.logins[-1].endswith(":s3cret%2F"):
                return Answer(401, {}, b'{"error": "invalid_client", "error_description": "s3cret"}')
            token = {"access_token": f"token-{len(self.forms)}", "token_type": "Bearer", "expires_in": expires_in}
            return Answer(200, {}, json.dumps(token).encode())

        server.routes["/t"] = grant


def oidc(server, secret: str = "s3cret/", **options) -> dict[str, object]:
    return {"oidc": {"issuer": f"{server.url}/idp", "client_id": "lading", "client_secret": secret, **options}}


def test_an_oidc_client_gets_one_token_and_a_new_one_when_it_is_refused(server, service):
    issuer = Issuer(server)
    valid = {"Bearer token-1"}

    def answer(request) -> Answer:
        return Answer(200, {}, b"{}") if request.headers["authorization"] in valid else Answer(401)

    server.routes["/guarded"] = answer
    guarded = service(login=oidc(server, scope="registry", audience="models"))
    guarded.get("/guarded", what="it")
    guarded.get("/guarded", what="it")
    valid.clear()
    valid.add("Bearer token-2")
    guarded.get("/guarded", what="it")
    wanted = {"grant_type": "client_credentials", "scope": "registry", "audience": "models"}
    assert issuer.forms == [wanted, wanted]
    assert issuer.logins[0] == "lading:s3cret%2F"


def test_an_oidc_token_is_renewed_before_it_ends(server, service, clock):
    Issuer(server, expires_in=60)
    guarded = service(login=oidc(server))
    get(guarded)
    clock.seconds += 11
    get(guarded)
    assert [each for each in sent(server) if str(each).startswith("Bearer")] == ["Bearer token-1", "Bearer token-2"]


def test_an_oidc_secret_does_not_travel_unencrypted(service):
    where = {"token_url": "http://idp.example.com/token"}
    guarded = service(login={"oidc": {"client_id": "lading", "client_secret": "s3cret", **where}})
    with pytest.raises(UsageError, match="unencrypted"):
        get(guarded)


@pytest.mark.parametrize("expires_in", [0, -3600, 1, 10**9])
def test_a_token_whose_end_a_wrong_clock_tells_is_used_as_long_as_it_is_accepted(server, service, expires_in):
    Issuer(server, expires_in=expires_in)
    guarded = service(login=oidc(server))
    assert [get(guarded), get(guarded)] == [JSON, JSON]
    # Not one for each request: it is asked for again some seconds later at the earliest.
    assert {each for each in sent(server) if str(each).startswith("Bearer")} == {"Bearer token-1"}


def test_a_token_not_valid_yet_by_the_registrys_clock_is_asked_for_once_more(server, service):
    issuer = Issuer(server)
    server.routes["/guarded"] = lambda request: Answer(401, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
    with pytest.raises(NotAllowed, match="does not accept the login"):
        service(login=oidc(server)).get("/guarded", what="it")
    assert len(issuer.forms) == 2


def test_an_oidc_client_that_is_refused_is_told_without_its_secret(server, service):
    Issuer(server)
    with pytest.raises(NotAllowed, match="invalid_client") as caught:
        get(service(login=oidc(server, secret="wrong")))
    assert "s3cret" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("endpoint", [None, 5, [], "", "x", "ftp://h/", "https://[::1", "//h/t", "https://h:99999/"])
def test_an_issuer_that_names_no_endpoint_is_told_as_that(server, service, endpoint):
    Issuer(server)
    server.put("/idp/.well-known/openid-configuration", json.dumps({"token_endpoint": endpoint}).encode())
    with pytest.raises(Unsupported, match="the OIDC issuer names no token endpoint"):
        get(service(login=oidc(server)))


@pytest.mark.parametrize(
    "login",
    [
        lambda url, folder: {"token": {"file": f"{folder}/gone"}},
        lambda url, folder: {"token": {"file": f"{folder}/file/gone"}},
        lambda url, folder: {"user": "me", "password": {"file": f"{folder}/gone"}},
        lambda url, folder: {"oidc": {"issuer": f"{url}/gone", "client_id": "me", "client_secret": "s"}},
        lambda url, folder: {"oidc": {"token_url": f"{url}/gone", "client_id": "me", "client_secret": "s"}},
        lambda url, folder: {"oidc": {"token_url": "https://gone.invalid/", "client_id": "me", "client_secret": "s"}},
    ],
    ids=["token", "no folder", "password", "issuer", "endpoint", "host"],
)
def test_a_login_that_is_not_there_is_no_model_that_is_not_there(server, new_session, tmp_path, login):
    """Else the next registry would be asked, whose model of that name may be somebody else's."""
    (tmp_path / "file").touch()
    kubeflow, other = FakeKubeflow(server), {"models": {"iris": {"versions": {"v1": {"uri": "s3://b/other"}}}}}
    kubeflow.register("iris", "v1", "s3://b/iris")
    (tmp_path / "catalog.yaml").write_text(json.dumps(other))
    entries = [
        registry_entry("first", kind, url=server.url, login=login(server.url, tmp_path))
        for kind in ("mlflow", "kubeflow")
    ]
    for entry in entries:
        second = registry_entry("second", "catalog", path=str(tmp_path / "catalog.yaml"))
        session = new_session(registries=(entry, second))
        with pytest.raises(NotAllowed, match=r"gone|404 Not Found"):
            resolve(ModelURI.parse("model-registry://iris"), session.settings, session.http)


def test_an_issuer_does_not_send_the_client_to_an_unencrypted_host(server, service):
    configuration = json.dumps({"token_endpoint": "http://elsewhere.test/t"}).encode()
    server.put("/idp/.well-known/openid-configuration", configuration)
    with pytest.raises(NotAllowed, match="https"):
        get(service(login=oidc(server)))


def test_aws_keys_sign_the_request_and_its_body_as_the_official_sdk_does(server, service):
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    server.routes["/api/a%20b"] = lambda request: Answer(200, {}, b"{}")
    signed = service(login={"aws": {"region": "eu-west-1", "service": "execute-api"}}, variables=keys)
    signed.call("POST", "/api/a%20b", {"z": "1", "a": "ü b"}, JSON, what="it")
    found = server.requests[0]
    names = found.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    theirs = AWSRequest("POST", server.url + found.target, {n: found.headers[n] for n in names}, found.body)
    del theirs.headers["x-amz-security-token"]
    del theirs.headers["x-amz-date"]
    moment = datetime.strptime(found.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    with patch("botocore.auth.get_current_datetime", lambda *_, **__: moment):
        SigV4Auth(Credentials("AKIA", "secret", "token"), "execute-api", "eu-west-1").add_auth(theirs)
    assert found.headers["authorization"] == theirs.headers["Authorization"]


def test_a_clients_certificate_is_shown_and_a_rotated_one_is_loaded(service, tmp_path):
    authority, stranger = Authority(tmp_path), Authority(_folder(tmp_path, "stranger"))
    context = authority.demand_certificates(authority.server_context("127.0.0.1"))
    certificate, key = stranger.write_client(tmp_path, "nobody")
    with FaultyServer(context) as secure:
        secure.put(PATH, b"{}")
        tls = {"ca": authority.bundle, "certificate": certificate, "key": key}
        ours = service(url=secure.url, tls=tls, attempts=1)
        with pytest.raises(Unavailable):
            get(ours)
        authority.write_client(tmp_path, "lading")
        assert get(ours) == {}


def _folder(parent, name):
    (parent / name).mkdir()
    return parent / name


def test_a_registry_with_a_private_authority_is_not_trusted_without_it(service, tmp_path):
    authority = Authority(tmp_path)
    with FaultyServer(authority.server_context("127.0.0.1")) as secure:
        secure.put(PATH, b"{}")
        with pytest.raises(NotAllowed, match="certificate"):
            get(service(url=secure.url))
        assert get(service(url=secure.url, tls={"ca": authority.bundle})) == {}
        assert get(service(url=secure.url, tls={"verify": False})) == {}


@pytest.mark.parametrize("how", ["unverified", "with a certificate"])
@pytest.mark.parametrize("login", ["issuer", "token_url", "aws"])
def test_who_gives_the_login_of_a_registry_is_verified_and_shown_no_certificate(service, tmp_path, how, login):
    authority = Authority(tmp_path)
    context = authority.server_context("127.0.0.1")
    with FaultyServer(authority.server_context("127.0.0.1")) as secure, FaultyServer(context) as giver:
        secure.put(PATH, b"{}")
        Issuer(giver)
        if how == "unverified":
            tls = {"verify": False}
        else:
            # It lets in nobody without one.
            authority.demand_certificates(context)
            certificate, key = authority.write_client(tmp_path, "lading")
            tls = {"ca": authority.bundle, "certificate": certificate, "key": key}
        (tmp_path / "token").write_text("s3cret")
        role = {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token")}
        options = {
            "issuer": oidc(giver),
            "token_url": {"oidc": {"client_id": "lading", "client_secret": "s3cret/", "token_url": f"{giver.url}/t"}},
            "aws": {"aws": {"region": "eu-west-1", "service": "execute-api"}},
        }
        variables = role | {"AWS_ENDPOINT_URL_STS": giver.url, "AWS_EC2_METADATA_DISABLED": "true"}
        with pytest.raises((NotAllowed, Unavailable)):
            get(service(url=secure.url, tls=tls, login=options[login], attempts=1, variables=variables))
        assert giver.requests == []
        assert secure.requests == []


def test_an_issuer_behind_the_address_of_its_registry_is_reached_as_that_is(service, tmp_path):
    with FaultyServer(Authority(tmp_path).server_context("127.0.0.1")) as secure:
        secure.put(PATH, b"{}")
        Issuer(secure)
        assert get(service(url=secure.url, tls={"verify": False}, login=oidc(secure))) == {}


def test_an_issuer_elsewhere_may_have_the_registrys_private_authority(service, tmp_path):
    authority = Authority(tmp_path)
    context = authority.server_context("127.0.0.1")
    with FaultyServer(context) as secure, FaultyServer(context) as giver:
        secure.put(PATH, b"{}")
        Issuer(giver)
        assert get(service(url=secure.url, tls={"ca": authority.bundle}, login=oidc(giver))) == {}


def test_a_login_is_never_sent_to_another_host_nor_in_the_clear(server, service):
    with FaultyServer() as elsewhere:
        elsewhere.put(PATH, b"{}")
        server.misbehave(PATH, redirect(elsewhere.url + PATH))
        with pytest.raises(NotAllowed, match="redirects"):
            get(service(login={"token": "t"}))
        assert elsewhere.requests == []
    with pytest.raises(UsageError, match="unencrypted"):
        service(url="http://registry.example.com", login={"token": "t"})
    for near in (
        "http://registry",
        "http://registry.team.svc",
        "http://r.team.svc.cluster.local:8080",
        "http://10.1.2.3",
    ):
        service(url=near, login={"token": "t"})


# ---- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (status(401, b"{}"), NotAllowed, "does not accept the login (401, token)"),
        (status(403, b"{}"), NotAllowed, "does not allow it (403, token)"),
        (status(403, HTML), NotAllowed, "web page"),
        # As MLflow says it: a sentence that is called a page.
        (status(403, b"Permission denied", headers={"Content-Type": "text/html"}), NotAllowed, "does not allow it"),
        (status(200, HTML, headers={"Content-Type": "text/html; charset=utf-8"}), NotAllowed, "web page"),
        (status(200, b"  <html>"), NotAllowed, "web page"),
        (
            status(302, headers={"Location": "https://idp.test/login?s"}),
            NotAllowed,
            "(302) to https://idp.test/login, which",
        ),
        (status(301), NotAllowed, "redirects (301), which"),
        (status(404, b"{}"), NotFound, "not found"),
        (status(404, HTML), Unsupported, "404 with a web page"),
        (status(200, b"{"), Unsupported, "not JSON"),
        (status(200, b"[" * 100_000), Unsupported, "not JSON"),
        (status(200, b"x" * (33 << 20)), IntegrityError, "more than"),
        (status(500), Unavailable, "500"),
        (status(429, headers={"Retry-After": "1"}), Unavailable, "429"),
        (stall(at=1), Unavailable, "sent nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_refusal_has_its_own_error(server, service, fault, kind, says):
    fault.times, fault.on = ALWAYS, anything
    server.misbehave(PATH, fault)
    with pytest.raises(kind) as caught:
        get(service(login={"token": "s3cret"}, stall_s=0.2, attempts=2))
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value) + caught.value.hint
    assert "registry prod" in str(caught.value)
    assert caught.value.hint or kind in (NotFound, Unavailable, IntegrityError)


def test_a_registry_that_is_busy_is_waited_for(server, service, clock):
    server.misbehave(
        PATH, status(429, headers={"Retry-After": "7"}, on=anything), status(503, after=1, times=2, on=anything)
    )
    assert get(service()) == JSON
    assert clock.waits[0] >= 7


def test_a_host_that_does_not_exist_is_not_a_model_that_does_not(service):
    with pytest.raises(Unavailable, match="the model in registry prod: there is no host called") as caught:
        get(service(url="http://registry.invalid", attempts=1))
    assert "url" in caught.value.hint


def test_nobody_there_is_unavailable(service):
    with pytest.raises(Unavailable, match="cannot connect"):
        get(service(url="http://127.0.0.1:1", attempts=1))


@pytest.mark.parametrize(
    "options",
    [
        {"url": ""},
        {"url": 5},
        {"url": "ftp://registry"},
        {"url": "http://user:s3cret@registry"},
        {"url": "http://registry?token=s3cret"},
        {"url": "http://user:s3cret@[::1"},
        {"colour": "s3cret"},
        {"login": "s3cret"},
        {"login": {"password": "s3cret"}},
        {"login": {"user": "u", "password": "s3cret", "token": "s3cret"}},
        {"login": {"oidc": {"client_id": "x", "client_secret": "s3cret"}}},
        {"login": {"oidc": {"issuer": "https://i", "token_url": "https://t", "client_id": "x"}}},
        {"login": {"aws": {"region": "s3cret"}}},
        {"tls": {"colour": "s3cret"}},
        {"tls": "s3cret"},
        {"connect_s": -1},
        {"attempts": "s3cret"},
        {"attempts": 0},
    ],
)
def test_an_entry_that_is_not_understood_is_refused_without_being_quoted(options):
    with pytest.raises(UsageError) as caught:
        registry_entry("prod", "kubeflow", **{"url": "https://registry.test", **options})
    assert "s3cret" not in str(caught.value) + caught.value.hint


# ---- files -----------------------------------------------------------------------------------


def opened(service: RegistryServer, *headers: tuple[str, str]) -> tuple[int, bytes]:
    with service.open(PATH, headers, what="the file") as answer:
        return answer.head.status, answer.read(1 << 20)


def test_a_file_is_asked_for_once_with_the_login_and_its_part_is_not_judged(server, service):
    asking = service(login={"token": "t"})
    assert opened(asking, ("Range", "bytes=0-0")) == (206, b"{")
    assert opened(asking, ("Range", "bytes=900-")) == (416, b"")
    assert sent(server) == ["Bearer t"] * 2
    server.misbehave(PATH, status(503, times=1, on=anything))
    with pytest.raises(Unavailable, match="the file in registry prod answered 503"):
        opened(asking)
    assert len(server.requests) == 3


def test_a_login_that_ends_while_a_file_is_asked_for_is_renewed_and_shown_at_once(server, service, tmp_path):
    (tmp_path / "token").write_text("first")
    asking = service(login={"token": {"file": str(tmp_path / "token")}})
    rotate = server.before(lambda: (tmp_path / "token").write_text("second"), on=anything, after=1)
    server.misbehave(PATH, rotate, status(401, times=2, on=anything))
    with pytest.raises(NotAllowed, match="does not accept the login"):
        opened(asking)
    assert opened(asking)[0] == 200
    assert sent(server) == ["Bearer first"] * 2 + ["Bearer second"]


def test_headers_of_the_kind_go_with_every_request(server, new_session):
    session = new_session()
    entry = registry_entry("prod", "kubeflow", url=server.url)
    asking = RegistryServer(entry, session.settings, session.http, headers=[("X-Workspace", "team-a")])
    get(asking)
    opened(asking)
    assert [request.headers.get("x-workspace") for request in server.requests] == ["team-a"] * 2
