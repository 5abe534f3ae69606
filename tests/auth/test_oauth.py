"""Access tokens: the request for one, and what its answer may be."""

import base64
import json
import threading
import time
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from fakes.faulty_http import ALWAYS, Answer, anything, status
from lading.auth.oauth import parse_token, request_token, signed_jwt
from lading.errors import NotAllowed, Unavailable, Unsupported, UsageError
from lading.network.client import HttpClient
from lading.retry import Retry, Run
from lading.settings.limits import Limits, Network


@pytest.fixture
def http(clock):
    client = HttpClient(Network(), Limits(stall_s=5.0, connect_s=5.0), Retry(Run(threading.Event(), clock), 4))
    yield client
    client.close()


def ask(http, server, **form: str):
    return request_token(http, f"{server.url}/token", form, kind="test", what="the endpoint", hint="try this")


def test_a_token_is_asked_for_by_a_form_and_held_as_long_as_it_says(http, server):
    server.routes["/token"] = lambda _: Answer(200, {}, b'{"access_token": "t", "expires_in": 60}')
    token = ask(http, server, grant_type="a b", secret="c&d=\u00fc")
    (request,) = server.requests
    assert (request.method, request.headers["content-type"]) == ("POST", "application/x-www-form-urlencoded")
    assert parse_qs(request.body.decode()) == {"grant_type": ["a b"], "secret": ["c&d=\u00fc"]}
    assert (token.value.reveal(), token.kind) == ("t", "test")
    assert 55 < token.expires_at_s - time.time() <= 60


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(http, server, code):
    server.routes["/token"] = lambda _: Answer(200, {}, b'{"access_token": "t"}')
    server.misbehave("/token", status(code, times=2, on=anything))
    assert ask(http, server).expires_at_s is None
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("code", "body", "kind", "words"),
    [
        (400, b'{"error": "invalid_grant", "error_description": "se-cret"}', NotAllowed, "400 invalid_grant"),
        (401, b"se-cret", NotAllowed, "401"),
        (403, b'{"error": {"message": "se-cret"}}', NotAllowed, "403"),
        (302, b"se-cret", Unsupported, "302"),
        (418, b"se-cret", Unsupported, "418"),
        (503, b"se-cret", Unavailable, "503"),
        (200, b"se-cret", Unsupported, "access token"),
        (200, b'["se-cret"]', Unsupported, "access token"),
        (200, b"[" * 100_000, Unsupported, "access token"),
    ],
)
def test_a_refusal_is_told_by_its_code_and_not_quoted(http, server, code, body, kind, words):
    server.misbehave("/token", status(code, body, times=ALWAYS, on=anything, headers={"Location": "/se-cret"}))
    with pytest.raises(kind, match=words) as caught:
        ask(http, server)
    assert "se-cret" not in f"{caught.value} {caught.value.hint}"
    assert kind is not NotAllowed or caught.value.hint == "try this"


def test_an_errors_code_is_a_strangers_text(http, server):
    body = json.dumps({"error": "\x1b[2J" + "x" * 1000}).encode()
    server.misbehave("/token", status(400, body, times=ALWAYS, on=anything))
    with pytest.raises(NotAllowed) as caught:
        ask(http, server)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("lasts", "expected_s"), [(60, 60), ("60", 60), (60.5, 60.5), (None, None)])
def test_the_time_that_a_token_holds_may_be_a_text_or_missing(lasts, expected_s):
    token = parse_token(json.dumps({"access_token": "t", "expires_in": lasts}).encode(), kind="k", what="w")
    left_s = None if token.expires_at_s is None else token.expires_at_s - time.time()
    assert left_s == expected_s if expected_s is None else abs(left_s - expected_s) < 1


@pytest.mark.parametrize("lasts", ["soon", {}, [], "", "nan", "inf", 10**400])
def test_a_token_without_a_time_in_which_it_ends_is_not_taken(lasts):
    with pytest.raises(Unsupported, match="time"):
        parse_token(json.dumps({"access_token": "t", "expires_in": lasts}).encode(), kind="k", what="w")


def pem(key) -> str:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()


def test_a_jwt_is_signed_so_that_its_public_key_verifies_it():
    key = rsa.generate_private_key(65537, 2048)
    text, _, signature = signed_jwt({"iss": "me", "n": 1}, pem(key), key_id="k").rpartition(".")
    padded = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in (*text.split("."), signature)]
    key.public_key().verify(padded[2], text.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert json.loads(padded[0]) == {"alg": "RS256", "typ": "JWT", "kid": "k"}
    assert json.loads(padded[1]) == {"iss": "me", "n": 1}


@pytest.mark.parametrize("key", ["", "se-cret", "-----BEGIN PRIVATE KEY-----\nse-cret\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused_and_not_quoted(key):
    with pytest.raises(UsageError, match="RSA") as caught:
        signed_jwt({}, key)
    assert "se-cret" not in str(caught.value)


def test_a_key_of_another_kind_is_refused():
    with pytest.raises(UsageError, match="RSA"):
        signed_jwt({}, pem(ec.generate_private_key(ec.SECP256R1())))
