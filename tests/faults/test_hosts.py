"""Other hosts, and hosts that are not who they say: credentials stay, certificates are checked."""

from base64 import b64encode
from datetime import UTC, datetime

import pytest

from fakes.certificates import Authority
from fakes.fake_s3 import FakeS3
from fakes.faulty_http import FaultyServer, anything, redirect
from fakes.real_s3 import s3_anonymous, s3_settings
from fakes.trees import content
from lading.errors import LadingError, NotAllowed, Unsupported, UsageError
from lading.settings.limits import Network

PATH = "/model.bin"
CONTENT = content(300_000)
DELIVERED = {"model.bin": CONTENT}
SECRETS = {"x-token", "authorization", "cookie"}
HEADERS = '{"X-Token": "se-cret", "Authorization": "Bearer se-cret", "Cookie": "se-cret"}'


@pytest.fixture
def elsewhere():
    """Another host: another name and another port."""
    with FaultyServer(host="localhost") as server:
        yield server


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def tls_server(authority, each_tls):
    with FaultyServer(authority.server_context("127.0.0.1")) as server:
        yield server


def trusting(authority) -> dict[str, object]:
    return {"network": Network(ca_files=(authority.bundle,))}


def sent_secrets(server) -> set[str]:
    return {name for request in server.requests for name in request.headers} & SECRETS


def test_configured_headers_are_sent_to_their_host(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    pull(uri, destination.path, variables={"127.0.0.1-headers": HEADERS, "localhost-headers": '{"X-Other": "1"}'})
    destination.assert_holds(DELIVERED)
    assert all(request.headers["authorization"] == "Bearer se-cret" for request in server.requests)
    assert not any("x-other" in request.headers for request in server.requests)


def test_configured_headers_do_not_follow_a_redirect_to_another_host(server, elsewhere, destination, pull):
    server.misbehave(PATH, redirect(elsewhere.put(PATH, CONTENT)))
    pull(server.url + PATH, destination.path, variables={"127.0.0.1-headers": HEADERS}, range_bytes=100_000)
    destination.assert_holds(DELIVERED)
    assert sent_secrets(server) == SECRETS
    assert elsewhere.requests
    assert sent_secrets(elsewhere) == set()


def test_headers_of_the_host_that_a_redirect_leads_to_are_not_sent_there_either(server, elsewhere, destination, pull):
    # Whoever redirects chooses the URL: that must not make lading sign a request for it.
    server.misbehave(PATH, redirect(elsewhere.put(PATH, CONTENT)))
    pull(server.url + PATH, destination.path, variables={"localhost-headers": HEADERS})
    destination.assert_holds(DELIVERED)
    assert sent_secrets(elsewhere) == set()


def test_user_and_password_do_not_follow_a_redirect_to_another_host(server, elsewhere, destination, pull, events):
    server.misbehave(PATH, redirect(elsewhere.put(PATH, CONTENT)))
    uri = (server.url + PATH).replace("://", "://user:se%20cret@")
    manifest = pull(uri, destination.path)
    destination.assert_holds(DELIVERED)
    expected = "Basic " + b64encode(b"user:se cret").decode()
    assert all(request.headers["authorization"] == expected for request in server.requests)
    assert sent_secrets(elsewhere) == set()
    assert "cret" not in manifest.dumps() + repr(events)


def test_credentials_follow_a_redirect_within_their_host(server, destination, pull):
    server.put("/moved/model.bin", CONTENT)
    server.misbehave(PATH, redirect("/moved/model.bin"))
    pull(server.url + PATH, destination.path, variables={"127.0.0.1-headers": HEADERS})
    destination.assert_holds(DELIVERED)
    assert sent_secrets(server) == SECRETS
    assert len([request for request in server.requests if "x-token" not in request.headers]) == 0


def test_a_redirect_from_https_to_http_is_refused(authority, tls_server, server, destination, pull):
    tls_server.misbehave(PATH, redirect(server.put(PATH, CONTENT)))
    with pytest.raises(NotAllowed) as caught:
        pull(tls_server.url + PATH, destination.path, **trusting(authority))
    assert caught.value.exit_code == 4
    assert server.requests == []
    destination.assert_untouched()


def test_a_redirect_from_http_to_https_is_followed(authority, tls_server, server, destination, pull):
    server.misbehave(PATH, redirect(tls_server.put(PATH, CONTENT)))
    pull(server.url + PATH, destination.path, **trusting(authority))
    destination.assert_holds(DELIVERED)


def test_a_redirect_of_s3_to_another_host_is_not_followed(server, bucket, elsewhere, destination, pull):
    bucket.put("model/a", CONTENT)
    server.misbehave("/models/", redirect(elsewhere.url + "/models/", 307, on=anything))
    with pytest.raises(LadingError):
        pull("s3://models/model", destination.path, **s3_settings(server.url))
    assert elsewhere.requests == []
    destination.assert_untouched()


def test_a_private_authority_is_trusted_when_it_is_configured(authority, tls_server, destination, pull):
    pull(tls_server.put(PATH, CONTENT), destination.path, **trusting(authority))
    destination.assert_holds(DELIVERED)


def _unknown_authority(authority, tmp_path):
    return authority.server_context("127.0.0.1"), {}


def _another_authority(authority, tmp_path):
    (tmp_path / "another").mkdir()
    return authority.server_context("127.0.0.1"), trusting(Authority(tmp_path / "another"))


def _another_name(authority, tmp_path):
    return authority.server_context("another.example"), trusting(authority)


def _expired(authority, tmp_path):
    times = {"not_before": datetime(2020, 1, 1, tzinfo=UTC), "not_after": datetime(2021, 1, 1, tzinfo=UTC)}
    return authority.server_context("127.0.0.1", **times), trusting(authority)


@pytest.mark.parametrize("case", [_unknown_authority, _another_authority, _another_name, _expired])
def test_a_certificate_that_cannot_be_trusted_ends_the_delivery(authority, tmp_path, destination, pull, case):
    context, settings = case(authority, tmp_path)
    with FaultyServer(context) as server, pytest.raises(NotAllowed, match="certificate") as caught:
        pull(server.put(PATH, CONTENT), destination.path, variables={"127.0.0.1-headers": HEADERS}, **settings)
    assert caught.value.exit_code == 4
    assert server.requests == []
    destination.assert_untouched()


@pytest.mark.parametrize("text", [None, "not a certificate"], ids=["missing", "damaged"])
def test_a_bundle_that_cannot_be_used_ends_the_delivery(tls_server, tmp_path, destination, pull, text):
    bundle = tmp_path / "bundle.pem"
    if text is not None:
        bundle.write_text(text)
    with pytest.raises(UsageError, match="CA bundle"):
        pull(tls_server.put(PATH, CONTENT), destination.path, network=Network(ca_files=(str(bundle),)))
    destination.assert_untouched()


def test_a_server_that_does_not_speak_tls_ends_the_delivery(server, destination, pull):
    uri = server.put(PATH, CONTENT).replace("http://", "https://")
    with pytest.raises(Unsupported, match="TLS"):
        pull(uri, destination.path)
    destination.assert_untouched()


def test_s3_without_tls_checks_believes_any_certificate(authority, destination, pull):
    with FaultyServer(authority.server_context("another.example")) as server:
        FakeS3(server).put("model/model.bin", CONTENT)
        settings = s3_anonymous(server.url, S3_VERIFY_SSL="0")
        pull("s3://models/model", destination.path, **settings)
    destination.assert_holds(DELIVERED)
