"""Which certificates are believed: what curl believes, whichever Python it is; and why one is not, in words that help."""

import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.certificate_cases import BELIEVED, REFUSED, Case
from fakes.certificates import Authority, signed
from fakes.faulty_http import Answer, FaultyServer
from lading.errors import NotAllowed, UsageError
from lading.model.origin import Origin
from lading.network.certificates import not_trusted
from lading.network.client import HttpClient
from lading.retry import Retry, Run
from lading.settings.limits import Limits, Network

pytestmark = pytest.mark.usefixtures("each_tls")


@pytest.fixture(params=["as it is", "as Python 3.13"], autouse=True)
def _python(request, monkeypatch):
    """Python 3.13 checks what older ones do not, and not until then were certificates trusted that are no roots."""
    if request.param == "as Python 3.13":
        plain = ssl.create_default_context

        def strict() -> ssl.SSLContext:
            context = plain()
            context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
            return context

        monkeypatch.setattr(ssl, "create_default_context", strict)


def ask(case: Case) -> bytes:
    http = HttpClient(
        Network(ca_files=(case.bundle,)), Limits(connect_s=5.0), Retry(Run(threading.Event()), attempts=1)
    )
    with FaultyServer(case.server, "localhost") as server:
        server.routes["/"] = lambda request: Answer(body=b"hello")
        try:
            return http.fetch("GET", server.url)[1]
        finally:
            http.close()


@pytest.mark.parametrize("make", BELIEVED.values(), ids=BELIEVED)
def test_what_curl_believes_is_believed(make: Callable[[Path], Case], tmp_path: Path) -> None:
    assert ask(make(tmp_path)) == b"hello"


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_each_cause_has_a_hint_of_its_own(make: Callable[[Path], Case], words: str, tmp_path: Path) -> None:
    with pytest.raises(NotAllowed, match=r"the certificate of localhost:[0-9]+ is not trusted") as caught:
        ask(make(tmp_path))
    assert words in caught.value.hint


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (23, "has revoked it"),
        (64, "subjectAltName"),
        (7, "another CA has the same name"),
        (68, "too weak"),
        (13, "malformed"),
        (1, "openssl s_client -showcerts -connect h.example:8443"),
        (4711, "openssl s_client -showcerts -connect h.example:8443"),
    ],
)
def test_a_cause_is_known_by_its_number_whatever_openssl_calls_it(code: int, words: str) -> None:
    error = ssl.SSLCertVerificationError(1, "")
    error.verify_code, error.verify_message = code, "in other words"
    told = not_trusted(error, Origin("https", "h.example.", 8443), [])
    assert "in other words" in told.message
    assert words in told.hint


def _record(kind: int, data: bytes) -> bytes:
    return bytes([kind, 3, 3]) + len(data).to_bytes(2) + data


def _message(kind: int, data: bytes) -> bytes:
    """A message of the handshake (RFC 5246, 7.4), in a record."""
    return _record(22, bytes([kind]) + len(data).to_bytes(3) + data)


@pytest.mark.parametrize("damage", [lambda der: b"garbage", lambda der: der[:-9], lambda der: der[:9] + der[19:]])
def test_a_certificate_that_cannot_be_parsed_is_told_at_once(damage: Callable[[bytes], bytes]) -> None:
    der = damage(ssl.PEM_cert_to_DER_cert(signed("localhost").pem.decode()))
    shown = len(der).to_bytes(3) + der
    # TLS 1.2 with ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 and secure renegotiation.
    hello = b"\x03\x03" + bytes(32) + b"\x00" + b"\xc0\x2b" + b"\x00" + b"\x00\x05\xff\x01\x00\x01\x00"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(_message(2, hello) + _message(11, len(shown).to_bytes(3) + shown))
                connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        http = HttpClient(Network(), Limits(connect_s=5.0), Retry(Run(threading.Event())))
        with pytest.raises(NotAllowed, match="cannot be read") as caught:
            http.fetch("GET", f"https://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join()
    assert "malformed" in caught.value.hint


def _with(text: bytes) -> Callable[[Path], None]:
    return lambda place: place.write_bytes(text)


def _der(place: Path) -> None:
    place.write_bytes(ssl.PEM_cert_to_DER_cert(signed("Root").pem.decode()))


def _cut(place: Path) -> None:
    place.write_bytes(signed("Root").pem + signed("Root").pem[:-60])


@pytest.mark.parametrize(
    ("write", "reason", "hint"),
    [
        (lambda place: None, "cannot be read: No such file", "mounted"),
        (Path.mkdir, "cannot be read: Is a directory", "not a folder"),
        (_with(b""), "is empty", "fills it"),
        (_with(b" \n"), "is empty", "fills it"),
        (_with(b"no certificate"), "holds no certificate", "PEM"),
        (_with(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "holds no certificate", "PEM"),
        (_with(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "holds a damaged", "whole"),
        (_cut, "holds a damaged", "whole"),
        (_der, "is in DER", "openssl x509 -inform der"),
    ],
    ids=["missing", "folder", "empty", "blank", "text", "key", "damaged", "cut", "DER"],
)
def test_a_bundle_that_cannot_be_used_is_told_with_what_is_wrong(
    write: Callable[[Path], object], reason: str, hint: str, tmp_path: Path
) -> None:
    write(tmp_path / "given.pem")
    with pytest.raises(UsageError, match=f"given.pem {reason}") as caught:
        ask(Case(Authority(tmp_path).server_context("localhost"), str(tmp_path / "given.pem")))
    assert hint in caught.value.hint


def test_a_bundle_of_which_one_ca_has_expired_holds_for_the_others(tmp_path: Path) -> None:
    case = BELIEVED["no key identifiers and no key usage"](tmp_path)
    bundle = Path(case.bundle)
    bundle.write_bytes(signed("Old", None, days=(-9, -1)).pem + bundle.read_bytes())
    assert ask(case) == b"hello"
