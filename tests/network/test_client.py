"""The one HTTP client: redirects, proxies, certificates, connections that are kept."""

import base64
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest
import trustme

from fakes import faulty_http
from fakes.dead_addresses import Resolver
from fakes.faulty_http import ALWAYS, Answer, FaultyServer, cut, stall
from lading.errors import (
    IntegrityError,
    LadingError,
    NotAllowed,
    NotFound,
    OriginChanged,
    Unavailable,
    Unsupported,
    UsageError,
)
from lading.events import TlsChosen
from lading.model.origin import Origin, split_url
from lading.network.answer import leads_to, status_error
from lading.network.client import HttpClient
from lading.network.dial import _excludes
from lading.network.native import told
from lading.network.wire import Head
from lading.retry import Retry, Run
from lading.settings.limits import Limits, Network
from lading.telemetry.messages import sentence

pytestmark = pytest.mark.usefixtures("each_tls")


class Proxy:
    """A forward proxy for http, and a tunnel for https."""

    def __init__(self, refuse: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line = self.rfile.readline().decode().strip()
                headers = {}
                while header := self.rfile.readline().decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                outer.seen.append((line, headers))
                if refuse:
                    self.wfile.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % refuse)
                    return
                method, target, _ = line.split(" ")
                if method != "CONNECT":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nvia proxy")
                    return
                host, _, port = target.rpartition(":")
                with socket.create_connection((host, int(port))) as onward:
                    self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    back = threading.Thread(target=_pump, args=(onward, self.connection))
                    back.start()
                    _pump(self.connection, onward)
                    back.join()

        class Threaded(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *args: object) -> None:
                pass

        self.server = Threaded(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture
def running():
    """Start a server or a proxy."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def client(clock):
    """Make clients on the fake clock: ``client(attempts=3, **network)``."""
    with ExitStack() as stack:

        def make(*, attempts: int = 3, **network) -> HttpClient:
            retry = Retry(Run(threading.Event(), clock), attempts=attempts)
            http = HttpClient(Network(**network), LIMITS, retry)
            stack.callback(http.close)
            return http

        yield make


@pytest.fixture
def resolve(monkeypatch):
    """Give hosts addresses: ``resolve(models_test=["127.0.0.1"])``."""

    def give(**addresses: list[str]) -> Resolver:
        resolver = Resolver(**addresses)
        monkeypatch.setattr(socket, "getaddrinfo", resolver)
        return resolver

    return give


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> FaultyServer:
    server = FaultyServer(tls, "localhost")
    server.routes["/"] = lambda request: answer
    return server


HELLO = Answer(body=b"hello")
LIMITS = Limits(connect_s=5.0, stall_s=5.0)


# ---- URLs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("http://h", Origin("http", "h", 80), "/"),
        ("https://h", Origin("https", "h", 443), "/"),
        ("https://H:8443/a?b=c#d", Origin("https", "h", 8443), "/a?b=c"),
        ("http://u:p@h/", Origin("http", "h", 80), "/"),
        ("http://[::1]:9000/a", Origin("http", "::1", 9000), "/a"),
        ("http://[2001:DB8:0::0010]/", Origin("http", "2001:db8::10", 80), "/"),
        ("http://[fe80::1%25eth0]/", Origin("http", "fe80::1%eth0", 80), "/"),
        ("http://[fe80::1%eth0]/", Origin("http", "fe80::1%eth0", 80), "/"),
        ("https://b\u00dccher.example:443/", Origin("https", "xn--bcher-kva.example", 443), "/"),
        ("https://minio.example.:9000/a", Origin("https", "minio.example.", 9000), "/a"),
        ("http://h/a b", Origin("http", "h", 80), "/a%20b"),
        ("http://h/a%20b%2Fc", Origin("http", "h", 80), "/a%20b%2Fc"),
        ("http://h/ü", Origin("http", "h", 80), "/%C3%BC"),
        ("http://h/a?x=ü y", Origin("http", "h", 80), "/a?x=%C3%BC%20y"),
        ("http://h//a//b", Origin("http", "h", 80), "//a//b"),
        ("http://h/a?", Origin("http", "h", 80), "/a"),
        ('http://h/"<>', Origin("http", "h", 80), "/%22%3C%3E"),
        ("ftp://h/", None, ""),
        ("http://", None, ""),
        ("http:///a", None, ""),
        ("http://h:port/", None, ""),
        ("http://h:99999/", None, ""),
        ("http://[::1/", None, ""),
        ("h/a", None, ""),
    ],
)
def test_a_url_is_an_origin_and_a_target(url: str, origin: Origin | None, target: str) -> None:
    if origin is None:
        with pytest.raises(UsageError):
            split_url(url)
    else:
        assert split_url(url) == (origin, target)


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (Origin("http", "h", 80), "http://h"),
        (Origin("https", "h", 80), "https://h:80"),
        (Origin("https", "::1", 8443), "https://[::1]:8443"),
    ],
)
def test_an_origin_is_printed_without_its_default_port(origin: Origin, text: str) -> None:
    assert str(origin) == text


def test_a_wrong_url_is_told_without_its_password() -> None:
    with pytest.raises(UsageError) as caught:
        split_url("ftp://user:s3cret@h/?token=s3cret")
    assert "s3cret" not in str(caught.value)


# ---- NO_PROXY ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "url", "excluded"),
    [
        ("*", "http://anything", True),
        ("example.com", "http://example.com", True),
        ("example.com", "http://www.example.com", True),
        (".example.com", "http://www.example.com", True),
        (".example.com", "http://example.com", True),
        ("example.com", "http://notexample.com", False),
        ("example.com", "http://example.com.evil.org", False),
        ("EXAMPLE.com", "http://example.COM", True),
        ("example.com:8080", "http://example.com:8080", True),
        ("example.com:8080", "http://example.com", False),
        ("example.com:443", "https://example.com", True),
        ("svc", "http://minio.ns.svc:9000", True),
        ("10.0.0.0/8", "http://10.1.2.3:9000", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.0.0.0/8", "http://ten.example.com", False),
        ("10.1.2.3", "http://10.1.2.3", True),
        ("10.1.2.3/33", "http://10.1.2.3", False),
        ("::1", "http://[::1]:80", True),
        ("[::1]", "http://[::1]", True),
        ("[::1]:9000", "http://[::1]:9000", True),
        ("[::1]:9000", "http://[::1]:9001", False),
        ("fd00::/8", "http://[fd00::5]", True),
        ("2001:db8:0:0:0:0:0:10", "http://[2001:db8:0:0:0:0:0:10]", True),
        ("localhost", "http://localhost:5000", True),
        ("svc.cluster.local.", "https://minio.models.svc.cluster.local", True),
        ("svc.cluster.local", "https://minio.models.svc.cluster.local.", True),
        (".svc.cluster.local.", "http://minio.models.svc.cluster.local.:9000", True),
        ("minio.example.:9000", "http://minio.example:9000", True),
        ("minio.example:9000", "http://minio.example.:9001", False),
        ("*.example.com", "http://www.example.com", True),
        ("*.example.com", "http://notexample.com", False),
        (".", "http://example.com.", False),
        ("b\u00fccher.example", "http://xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "http://b\u00dccher.example", True),
        ("2001:DB8::0010", "http://[2001:db8:0:0:0:0:0:10]", True),
        ("[2001:db8::10]:80", "http://[2001:db8:0::10]", True),
        ("fe80::1", "http://[fe80::1%25eth0]", True),
        ("fe80::/10", "http://[fe80::1%25eth0]", True),
    ],
)
def test_no_proxy_is_read_as_other_programs_read_it(rule: str, url: str, excluded: bool) -> None:
    assert _excludes(rule, split_url(url)[0]) is excluded


# ---- proxies -------------------------------------------------------------------------------


def test_http_goes_through_the_proxy_as_a_whole_url(running, client) -> None:
    proxy = running(Proxy())
    http = client(http_proxy=f"http://user:p%40ss@{proxy.address}")
    assert http.fetch("GET", "http://models.test/a?b=c")[1] == b"via proxy"
    [(line, headers)] = proxy.seen
    assert line == "GET http://models.test/a?b=c HTTP/1.1"
    assert headers["host"] == "models.test"
    assert headers["proxy-authorization"] == "Basic " + base64.b64encode(b"user:p@ss").decode()


def test_https_goes_through_a_tunnel_and_the_proxy_sees_no_header(running, client, tls, bundle) -> None:
    server, proxy = running(serving(HELLO, tls)), running(Proxy())
    http = client(https_proxy=f"user:pass@{proxy.address}", ca_files=(bundle,))
    assert http.fetch("GET", f"{server.url}/a", [("Authorization", "s3cret")])[1] == b"hello"
    # rustls's connection is the second one.
    line, headers = proxy.seen[-1]
    assert line == f"CONNECT {server.url.removeprefix('https://')} HTTP/1.1"
    assert headers["proxy-authorization"].startswith("Basic ")
    assert "s3cret" not in str(proxy.seen)
    assert "proxy-authorization" not in server.requests[0].headers


@pytest.mark.parametrize(("status", "kind"), [(407, NotAllowed), (403, NotAllowed), (502, Unavailable)])
def test_a_proxy_that_refuses_is_named_without_its_password(running, client, status, kind) -> None:
    proxy = running(Proxy(refuse=status))
    http = client(https_proxy=f"http://user:s3cret@{proxy.address}", attempts=1)
    with pytest.raises(kind, match=f"refuses to connect .*{status}") as caught:
        http.fetch("GET", "https://models.test/")
    assert proxy.address in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_tunnel_to_an_ipv6_address_has_its_brackets(running, client) -> None:
    proxy = running(Proxy(refuse=403))
    with pytest.raises(NotAllowed):
        client(https_proxy=proxy.address, attempts=1).fetch("GET", "https://[::1]:8443/")
    assert proxy.seen[0][0] == "CONNECT [::1]:8443 HTTP/1.1"


def test_https_goes_through_a_proxy_that_itself_wants_tls(running, client, tls, bundle) -> None:
    large = bytes(range(256)) * 4096
    server, proxy = running(serving(Answer(body=large), tls)), running(Proxy(tls=tls))
    reached = client(https_proxy=f"https://localhost:{proxy.server.server_address[1]}", ca_files=(bundle,))
    assert reached.fetch("GET", server.url)[1] == large
    assert proxy.seen[0][0] == f"CONNECT {server.url.removeprefix('https://')} HTTP/1.1"


def test_a_tunnel_that_falls_silent_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def open_and_say_no_more() -> None:
            connection, _ = proxy.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            # Until the client leaves.
            while connection.recv(4096):
                pass
            connection.close()

        thread = threading.Thread(target=open_and_say_no_more)
        thread.start()
        network = Network(https_proxy=f"http://127.0.0.1:{proxy.getsockname()[1]}")
        http = HttpClient(network, Limits(connect_s=0.3, stall_s=0.3), Retry(Run(threading.Event()), attempts=1))
        with pytest.raises(Unavailable, match="TLS handshake"):
            http.fetch("GET", "https://models.test/")
        thread.join()


def test_no_proxy_goes_straight(running, client) -> None:
    server, proxy = running(serving(HELLO)), running(Proxy())
    http = client(http_proxy=f"http://{proxy.address}", no_proxy=("localhost",))
    assert http.fetch("GET", server.url)[1] == b"hello"
    assert proxy.seen == []


def test_http_does_not_go_through_the_proxy_for_https(running, client) -> None:
    server, proxy = running(serving(HELLO)), running(Proxy())
    assert client(https_proxy=f"http://{proxy.address}").fetch("GET", server.url)[1] == b"hello"
    assert proxy.seen == []


# ---- redirects -----------------------------------------------------------------------------


def redirecting(target: str, status: int = 302, tls: ssl.SSLContext | None = None) -> FaultyServer:
    server = FaultyServer(tls, "localhost")
    server.routes["/moved"] = lambda request: Answer(body=b"arrived")
    server.routes["/"] = lambda request: Answer(status, {"Location": target})
    return server


SECRETS = [
    ("Authorization", "s3cret"),
    ("Cookie", "s3cret"),
    ("X-Api-Key", "s3cret"),
    ("X-Amz-Security-Token", "s3cret"),
    ("Host", "s3cret.test"),
]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_do_not_follow_a_redirect_to_another_origin(running, client, status) -> None:
    other = running(serving(Answer(body=b"arrived")))
    first = running(redirecting(f"{other.url}/moved", status))
    _, body = client().fetch("GET", f"{first.url}/", [*SECRETS, ("Range", "bytes=0-1"), ("If-Match", '"x"')])
    assert body == b"arrived"
    seen = other.requests[0].headers
    assert "s3cret" not in str(seen)
    assert (seen["range"], seen["if-match"]) == ("bytes=0-1", '"x"')
    assert seen["host"] == other.url.removeprefix("http://")


def test_another_port_is_another_origin_and_the_same_one_keeps_its_credentials(running, client) -> None:
    server = running(redirecting("/moved"))
    client().fetch("GET", f"{server.url}/", [("Authorization", "mine")])
    assert [request.headers["authorization"] for request in server.requests] == ["mine", "mine"]


def test_credentials_follow_a_redirect_to_the_same_host_with_a_dot(running, client, resolve) -> None:
    resolve(models_test=["127.0.0.1"])
    server = running(FaultyServer(host="models.test"))
    server.routes["/moved"] = lambda request: HELLO
    server.routes["/"] = lambda request: Answer(302, {"Location": server.url.replace("test:", "test.:") + "/moved"})
    assert client().fetch("GET", f"{server.url}/", [("Authorization", "mine")])[1] == b"hello"
    assert [request.headers["authorization"] for request in server.requests] == ["mine", "mine"]


@pytest.mark.parametrize("location", ["/gr\u00fc\u00df e?v=\u00fc", "/gr%C3%BC%C3%9F%20e?v=%C3%BC"])
def test_a_redirect_may_have_an_address_in_utf_8(running, client, location) -> None:
    # The fake writes each character as the byte of its number.
    server = running(redirecting(location.encode().decode("latin-1")))
    server.routes = {"/gr%C3%BC%C3%9F%20e": lambda request: Answer(body=request.query.encode()), **server.routes}
    assert client().fetch("GET", f"{server.url}/")[1] == b"v=%C3%BC"


def test_a_redirect_from_https_to_http_is_refused(running, client, tls, bundle) -> None:
    plain = running(serving(HELLO))
    secure = running(redirecting(f"{plain.url}/moved", tls=tls))
    with pytest.raises(NotAllowed, match="unencrypted"):
        client(ca_files=(bundle,)).fetch("GET", secure.url)
    assert plain.requests == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/", "http://", "gopher://h/", "http://[h/"])
def test_a_redirect_to_something_else_than_http_is_refused(running, client, location) -> None:
    server = running(redirecting(location))
    with pytest.raises(LadingError):
        client().fetch("GET", server.url)


def test_a_redirect_to_itself_ends(running, client) -> None:
    server = running(redirecting("/"))
    with pytest.raises(Unsupported, match="redirects too often"):
        client(attempts=6).fetch("GET", server.url)
    assert len(server.requests) <= 12


def test_a_loop_says_where_it_went_without_what_may_be_secret(running, client) -> None:
    server = running(FaultyServer(host="localhost"))
    server.routes["/b"] = lambda request: Answer(307, {"Location": "/a?sig=s3cret"})
    server.routes["/a"] = lambda request: Answer(308, {"Location": f"{server.url.replace('//', '//u:s3cret@')}/b"})
    with pytest.raises(Unsupported, match=r"redirects too often, at last to http://\S+/(a\?sig=\*\*\*|b)$") as caught:
        client().fetch("GET", f"{server.url}/a")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://new.example/models/llm", "https://new.example/models/llm"),
        ("/models/llm", "/models/llm"),
        ("//new.example/a", "//new.example/a"),
        ("https://new.example/a?X-Amz-Signature=s3cret#s3cret", "https://new.example/a"),
        ("/login?next=s3cret", "/login"),
        ("https://user:s3cret@new.example/a", "https://***@new.example/a"),
        ("//user:s3cret@new.example/a", "//***@new.example/a"),
        ("HTTPS:\\\\new.example", "HTTPS:\\\\new.example"),
        ("https://new.example/\x1b[2J", "https://new.example/\\x1b[2J"),
        ("mailto:x?s3cret", "mailto:x"),
    ],
)
def test_a_redirect_that_is_not_followed_says_where_it_leads(status: int, location: str, shown: str) -> None:
    error = status_error(Head(status, {"location": location}), "s3://bucket/model")
    assert isinstance(error, Unsupported)
    assert re.fullmatch(rf"s3://bucket/model answered {status} [A-Za-z ]+, to {re.escape(shown)}", error.message)
    assert error.hint


@pytest.mark.parametrize("head", [Head(301, {}), Head(304, {"location": "/a"}), Head(201, {"location": "/a"})])
def test_what_is_no_redirect_leads_nowhere(head: Head) -> None:
    assert leads_to(head) == ""


def test_who_wants_no_redirect_gets_the_answer_itself(running, client) -> None:
    server = running(redirecting("/moved"))
    assert client().fetch("GET", server.url, redirects=0)[0].status == 302


def test_see_other_turns_a_post_into_a_get(running, client) -> None:
    server = running(redirecting("/moved", 303))
    client().fetch("POST", server.url, body=b"form")
    assert [(request.method, request.path) for request in server.requests] == [("POST", "/"), ("GET", "/moved")]


# ---- certificates --------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["models.test", "models.test.", "MODELS.test."])
def test_a_certificate_and_sni_know_no_dot_at_the_end_of_a_name(
    running, client, authority, bundle, resolve, form
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("models.test").configure_cert(context)
    asked: list[str | None] = []
    context.sni_callback = lambda sock, name, _: asked.append(name)
    server = running(serving(HELLO, context))
    resolver = resolve(models_test=["127.0.0.1"])
    url = f"https://{form}:{server.url.rpartition(':')[2]}"
    assert client(ca_files=(bundle,)).fetch("GET", url)[1] == b"hello"
    assert set(asked) == {"models.test"}
    # The resolver is told that the name is whole; the server gets it as the URL has it (RFC 9110, 7.2).
    assert set(resolver.asked) == {form.lower()}
    assert server.requests[0].headers["host"] == url.removeprefix("https://").lower()


def test_a_private_ca_is_trusted_when_it_is_given_and_not_otherwise(running, client, tls, bundle) -> None:
    server = running(serving(HELLO, tls))
    assert client(ca_files=(bundle,)).fetch("GET", server.url)[1] == b"hello"
    with pytest.raises(NotAllowed, match="not trusted") as caught:
        client().fetch("GET", server.url)
    assert "AWS_CA_BUNDLE" in caught.value.hint
    assert client().without_tls_checks().fetch("GET", server.url)[1] == b"hello"


def test_who_does_tls_is_told_once_and_only_where_it_is_used(running, tls, bundle, clock) -> None:
    heard: list[object] = []
    http = HttpClient(Network(ca_files=(bundle,)), LIMITS, Retry(Run(threading.Event(), clock, None, heard.append)))
    plain, secure = running(serving(HELLO)), running(serving(HELLO, tls))
    assert http.fetch("GET", plain.url)[1] == b"hello"
    assert heard == []
    for each in (http, http.without_tls_checks(), http):
        assert each.fetch("GET", secure.url)[1] == b"hello"
    http.close()
    assert heard == [TlsChosen(told(http.network))]
    assert sentence(heard[0]).startswith("TLS by ")


def test_a_certificate_for_another_name_is_not_trusted(running, client, authority, bundle) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.test").configure_cert(context)
    server = running(serving(HELLO, context))
    with pytest.raises(NotAllowed, match="not trusted"):
        client(ca_files=(bundle,)).fetch("GET", server.url)


@pytest.mark.parametrize(
    "content", [None, "", "not a certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_ca_bundle_that_cannot_be_used_is_a_usage_error_and_no_default_trust(
    running, client, tls, tmp_path, content
) -> None:
    server = running(serving(HELLO, tls))
    if content is not None:
        (tmp_path / "bad.pem").write_text(content)
    with pytest.raises(UsageError, match=r"bad\.pem"):
        client(ca_files=(str(tmp_path / "bad.pem"),)).fetch("GET", server.url)


@contextmanager
def saying(*texts: bytes, leave: bool = True) -> Iterator[int]:
    """A port at which every connection is told these texts after its first bytes, whatever they are."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        for text in texts:
                            connection.sendall(text)
                        if not leave:
                            done.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


PLAIN_ANSWERS = [
    b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 400 Bad request syntax\r\n\r\n<html>",
    b"SSH-2.0-OpenSSH_9.2p1\r\n",
    b"-ERR unknown command\r\n",
    b"<?xml version='1.0'?>",
    b"\x00\x00\x00",
    b"\x15HTTP",
    b"H",
]


@pytest.mark.parametrize("answer", PLAIN_ANSWERS)
@pytest.mark.parametrize("leave", [True, False])
def test_a_server_that_speaks_no_tls_is_told_with_a_hint(client, answer, leave) -> None:
    with saying(answer, leave=leave) as port, pytest.raises(Unsupported, match="does not speak TLS") as caught:
        client(attempts=1).fetch("GET", f"https://127.0.0.1:{port}/")
    assert caught.value.hint == "should the URI or endpoint begin with http://?"


def test_a_real_server_without_tls_is_told_with_a_hint(running, client) -> None:
    server = running(serving(HELLO))
    with pytest.raises(Unsupported, match="does not speak TLS"):
        client().fetch("GET", server.url.replace("http:", "https:"))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_speaks_no_tls_is_told_with_a_hint_about_its_own_url(client, scheme) -> None:
    with saying(PLAIN_ANSWERS[0]) as port:
        http = client(**{f"{scheme}_proxy": f"https://127.0.0.1:{port}"}, attempts=1)
        with pytest.raises(Unsupported, match=f"127.0.0.1:{port} does not speak TLS") as caught:
            http.fetch("GET", f"{scheme}://models.test/")
    assert caught.value.hint == "should the proxy's URL begin with http://?"


@pytest.mark.parametrize("hang_up", ["at once", "after the request"])
def test_who_says_nothing_at_all_may_want_tls_or_speak_none(client, hang_up) -> None:
    with saying(*([b""] if hang_up == "after the request" else [])) as port:
        for scheme, other in (("http", "https"), ("https", "http")):
            with pytest.raises(Unavailable) as caught:
                client(attempts=1).fetch("GET", f"{scheme}://127.0.0.1:{port}/")
            assert f"the URI or endpoint should begin with {other}://" in caught.value.hint


def _with_body(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


# RFC 8446, 6: an alert in a record; handshake_failure, protocol_version, unexpected_message, decode_error.
ALERTS = [bytes([21, 3, minor, 0, 2, 2, what]) for minor, what in ((1, 40), (3, 70), (3, 10), (0, 50))]
WANT_TLS = [
    # As nginx, Go, Apache and Tomcat have it.
    _with_body("400 Bad Request", "<center>The plain HTTP request was sent to HTTPS port</center>"),
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
    _with_body("400 Bad Request", "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />"),
    _with_body("400 ", "Bad Request\nThis combination of host and port requires TLS.\n"),
    *ALERTS,
]


@pytest.mark.parametrize("answer", WANT_TLS)
@pytest.mark.parametrize("through", ["", "http", "https"])
def test_a_port_that_speaks_only_tls_is_told_with_a_hint(client, answer, through) -> None:
    with saying(answer) as port:
        proxies = {f"{through}_proxy": f"http://127.0.0.1:{port}"} if through else {}
        url = f"{through}://models.test/" if through else f"http://127.0.0.1:{port}/"
        with pytest.raises(Unsupported, match=f"127.0.0.1:{port} speaks only TLS") as caught:
            client(attempts=1, **proxies).fetch("GET", url)
    named = "its URL" if through else "the URI or endpoint"
    assert caught.value.hint == f"should {named} begin with https://?"


def test_an_alert_of_who_stays_is_not_taken_for_silence(clock) -> None:
    with saying(ALERTS[0], leave=False) as port:
        http = HttpClient(Network(), Limits(stall_s=0.2), Retry(Run(threading.Event(), clock), attempts=2))
        with pytest.raises(Unsupported, match="speaks only TLS"):
            http.fetch("GET", f"http://127.0.0.1:{port}/")


def test_a_real_server_with_tls_that_is_asked_without_is_told_with_a_hint(running, client, tls) -> None:
    server = running(serving(HELLO, tls))
    with pytest.raises(LadingError) as caught:
        client(attempts=1).fetch("GET", server.url.replace("https:", "http:"))
    assert "begin with https://" in caught.value.hint


@pytest.mark.parametrize("body", [b"", b"no such bucket", b"x" * 100_000])
def test_any_other_bad_request_is_the_callers_to_judge_with_its_body(running, client, body) -> None:
    server = running(serving(Answer(400, {}, body)))
    http = client()
    for _ in range(2):
        with http.open("GET", server.url) as answer:
            assert (answer.head.status, answer.error_body()) == (400, body if len(body) < 1 << 16 else b"")
    assert server.connections_made == (1 if len(body) < 1 << 16 else 2)


# ---- connections ---------------------------------------------------------------------------


def test_a_connection_is_kept_and_used_again(running, client) -> None:
    server = running(serving(HELLO))
    http = client()
    for _ in range(5):
        http.fetch("GET", server.url)
    assert server.connections_made == 1


def test_a_connection_whose_answer_was_not_read_is_not_used_again(running, client) -> None:
    server = running(serving(Answer(body=b"x" * 100)))
    http = client()
    with http.open("GET", server.url):
        pass
    assert http.fetch("GET", server.url)[1] == b"x" * 100
    assert server.connections_made == 2


def test_a_kept_connection_that_the_server_has_closed_is_replaced_without_an_attempt(running, client, clock) -> None:
    server = running(serving(HELLO))
    server.misbehave("/", cut(at=len(HELLO.body), times=ALWAYS))
    http = client(attempts=1)
    for _ in range(4):
        assert http.fetch("GET", server.url)[1] == b"hello"
    assert clock.waits == []


def test_a_host_that_is_not_there_and_a_port_that_is_closed(client) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(Unavailable, match="cannot connect"):
        client(attempts=1).fetch("GET", url)


def test_a_closed_client_opens_nothing(running, client) -> None:
    server = running(serving(HELLO))
    http = client(attempts=1)
    http.fetch("GET", server.url)
    http.close()
    with pytest.raises(Unavailable, match="closed"):
        http.fetch("GET", server.url)
    assert len(server.requests) == 1


def test_an_interrupt_wakes_a_thread_that_waits(running, client) -> None:
    server = running(serving(HELLO))
    server.misbehave("/", stall(at=0))
    http = client(attempts=1)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            http.fetch("GET", server.url)
        except LadingError as error:
            failed.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    assert server.wait_for_request("/", 10)
    http.interrupt()
    worker.join(10)
    assert isinstance(failed[0], Unavailable)


# ---- control calls -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_transient_status_is_tried_again(running, client, clock, status) -> None:
    server = running(serving(HELLO))
    server.misbehave("/", faulty_http.status(status, headers={"Retry-After": "7"}, times=2))
    assert client().fetch("GET", server.url)[1] == b"hello"
    assert len(clock.waits) == 2
    assert all(7.0 <= wait <= 7.7 for wait in clock.waits)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 501])
def test_any_other_status_is_the_callers_to_judge(running, client, status) -> None:
    server = running(serving(Answer(status)))
    assert client().fetch("GET", server.url)[0].status == status
    assert len(server.requests) == 1


def test_an_answer_that_is_too_long_is_refused(running, client) -> None:
    server = running(serving(Answer(body=b"x" * 1001)))
    assert len(client().fetch("GET", server.url, limit_bytes=1001)[1]) == 1001
    with pytest.raises(IntegrityError, match="more than 1000 bytes"):
        client().fetch("GET", server.url, limit_bytes=1000)


@pytest.mark.parametrize(("size_bytes", "told_bytes"), [(1 << 16, 1 << 16), ((1 << 16) + 1, 0)])
def test_a_page_that_is_too_long_to_explain_an_error_explains_nothing(running, client, size_bytes, told_bytes) -> None:
    server = running(serving(Answer(403, body=b"x" * size_bytes)))
    with client().open("GET", server.url) as answer:
        assert (answer.head.status, len(answer.error_body())) == (403, told_bytes)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, NotAllowed),
        (403, NotAllowed),
        (404, NotFound),
        (410, NotFound),
        (412, OriginChanged),
        (416, OriginChanged),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
        (599, Unavailable),
        (400, Unsupported),
        (302, Unsupported),
        (799, Unavailable),
    ],
)
def test_a_status_stands_for_an_error(status: int, kind: type[LadingError]) -> None:
    error = status_error(Head(status, {}), "what")
    assert type(error) is kind
    assert "what" in str(error)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("0", 0.0),
        ("7", 7.0),
        ("100000", 300.0),
        ("9" * 400, 300.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 31 Dec 2100 23:59:59 GMT", 300.0),
        ("Fri, 99 Dec 2100 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_more_than_five_minutes(text: str, seconds: float | None) -> None:
    assert status_error(Head(503, {"retry-after": text}), "what").retry_after_s == seconds


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"ratelimit": '"resolvers";r=0;t=55'}, 55.0),
        (429, {"ratelimit": '"api"; r=0; t=55'}, 55.0),
        (429, {"ratelimit": '"api";r=0;t=999999999'}, 300.0),
        (429, {"ratelimit": '"api";r=0;t=55', "retry-after": "7"}, 7.0),
        (429, {"ratelimit": '"api";r=12;t=55'}, None),
        (429, {"ratelimit": "limit=0, reset=55"}, None),
        (503, {"ratelimit": '"api";r=0;t=55'}, None),
        (429, {"ratelimit": "limit=100, remaining=0, reset=55"}, 55.0),
        (429, {"ratelimit": "limit=100, remaining=10, reset=55"}, None),
        (429, {"ratelimit-remaining": "0", "ratelimit-reset": "55"}, 55.0),
        (429, {"ratelimit-remaining": "0;w=21600"}, None),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "55"}, 55.0),
        (403, {"x-ratelimit-remaining": "1", "x-ratelimit-reset": "55"}, None),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "4102444800"}, 300.0),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000000"}, 0.0),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "-7"}, None),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9" * 400}, None),
        (403, {"retry-after": "7"}, 7.0),
        (403, {}, None),
    ],
)
def test_a_rate_limit_that_is_used_up_says_how_long_to_wait(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    assert status_error(Head(status, headers), "what").retry_after_s == seconds
