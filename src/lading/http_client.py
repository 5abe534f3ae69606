"""The one HTTP client: connections kept for reuse, redirects, certificates, proxies, control calls.

``open`` is one request without retries, for the bodies that ``transfer`` moves; ``fetch`` is a
small answer read whole and retried, for everything else.  How bytes travel on a connection is
``http_wire``.
"""

import base64
import re
import socket
import threading
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache, partial
from http import HTTPStatus
from time import time
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import quote, unquote, urljoin, urlsplit

from lading import __version__
from lading.errors import (
    IntegrityError,
    LadingError,
    NotAllowed,
    NotFound,
    OriginChanged,
    Stalled,
    Unavailable,
    Unsupported,
    UsageError,
)
from lading.http_wire import Connection, Head, Sink
from lading.retry import Retry
from lading.settings import Limits, Network
from lading.uri import printable, redact

if TYPE_CHECKING:
    # Loaded when a connection needs it: it takes as long as the whole of a small delivery over HTTP.
    import ssl

Headers = Iterable[tuple[str, str]]

USER_AGENT = f"lading/{__version__}"
BUFFER_BYTES = 24 << 20
# Larger receives mean fewer system calls and larger pages of the page cache: 1 MiB takes a fifth less
# time than 256 KiB (docs/adr/0002).
_MOST_BUFFER_BYTES = 1 << 20
_LEAST_BUFFER_BYTES = 64 << 10
_MAX_REDIRECTS = 10
_MAX_RETRY_AFTER_S = 300.0
# A URL with nothing in it to decode, to quote or to look at twice: almost all of them, and a tenth of
# the cost of a small file.
_PLAIN_URL = re.compile(
    r"(https?)://([a-z0-9.-]+(?::[0-9]{1,4})?)"
    r"(/[A-Za-z0-9/%:@!$&'()*+,;=~._-]*(?:\?[A-Za-z0-9/%:@!$&'()*+,;=~._?-]+)?)"
)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
# What may follow a redirect to another origin.  An allow-list: any header that was configured
# may be a credential, whatever its name.
_HARMLESS = frozenset({"accept", "accept-encoding", "range", "if-match", "if-unmodified-since", "user-agent"})


class Origin(NamedTuple):
    """Who a connection is with, and so who a credential is for."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@lru_cache(maxsize=256)
def _plain_origin(scheme: str, authority: str) -> Origin:
    host, _, port = authority.partition(":")
    return Origin(scheme, host, int(port or (443 if scheme == "https" else 80)))


def split_url(url: str) -> tuple[Origin, str]:
    """The origin and the request target of an http or https URL; user information is left out."""
    if (plain := _PLAIN_URL.fullmatch(url)) is not None:
        scheme, host, target = plain.groups()
        return _plain_origin(scheme, host), target
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{redact(url)} is not a URL") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{redact(url)} is not an http or https URL")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)), target


class Answer:
    """The answer to one request: its head is here, its body is still on the wire.

    Use it in a ``with`` block: at its end the connection goes back to the client.
    """

    def __init__(self, url: str, head: Head, connection: Connection, release: Callable[[Connection], None]) -> None:
        self.url = url
        self.head = head
        self._connection = connection
        self._release = release

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._release(self._connection)

    def read_into(self, sink: Sink) -> None:
        """Push the body, piece by piece; a piece is valid until ``sink`` returns."""
        self._connection.read_body(sink)

    def read(self, limit_bytes: int) -> bytes:
        """The whole body; raises ``IntegrityError`` when it is longer than ``limit_bytes``."""
        body = bytearray()

        def collect(piece: memoryview) -> None:
            if len(body) + len(piece) > limit_bytes:
                raise IntegrityError(f"{redact(self.url)} answered with more than {limit_bytes} bytes")
            body.extend(piece)

        self.read_into(collect)
        return bytes(body)


class HttpClient:
    """Requests to any host, from any thread.

    ``retry`` is used by ``fetch`` only; ``buffer_bytes`` is for the buffers of all connections together.
    """

    def __init__(self, network: Network, limits: Limits, retry: Retry, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._network = network
        self._limits = limits
        self._buffer_bytes = buffer_bytes
        self.retry = retry
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._closed = False
        self._variants: list[HttpClient] = []

    def without_tls_checks(self) -> "HttpClient":
        """A client that believes any certificate, for the one source that was told to."""
        return self._variant(self._network._replace(verify_tls=False), self._limits, self.retry)

    def direct(self, *, connect_s: float, stall_s: float, retry: Retry) -> "HttpClient":
        """A client for services on this very machine: no proxy, its own patience."""
        network = self._network._replace(http_proxy="", https_proxy="")
        return self._variant(network, self._limits._replace(connect_s=connect_s, stall_s=stall_s), retry)

    def _variant(self, network: Network, limits: Limits, retry: Retry) -> "HttpClient":
        variant = HttpClient(network, limits, retry, buffer_bytes=self._buffer_bytes)
        self._variants.append(variant)
        return variant

    def interrupt(self) -> None:
        """Wake every thread that waits for an answer; it gets ``Unavailable``."""
        with self._lock:
            busy = list(self._busy)
        for connection in busy:
            connection.abort()
        for variant in self._variants:
            variant.interrupt()

    def close(self) -> None:
        """End every connection; threads that wait in one get ``Unavailable``."""
        with self._lock:
            self._closed = True
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()
        self.interrupt()
        for variant in self._variants:
            variant.close()

    def open(
        self, method: str, url: str, headers: Headers = (), *, body: bytes = b"", redirects: int = _MAX_REDIRECTS
    ) -> Answer:
        """Send one request and follow its redirects; any other status is the caller's to judge.

        A redirect to another origin loses every header that could be a credential, and one from
        https to http is refused.
        """
        kept = list(headers)
        while True:
            origin, target = split_url(url)
            answer = self._exchange(origin, method, url, target, kept, body)
            location = answer.head.get("location")
            if answer.head.status not in _REDIRECTS or not location or not redirects:
                return answer
            with answer:
                try:
                    url = urljoin(url, location)
                    following, _ = split_url(url)
                except ValueError as error:
                    raise Unsupported(f"{origin} redirects to something that is not a URL") from error
                except UsageError as error:
                    raise Unsupported(f"{origin} redirects: {error.message}") from error
            if origin.scheme == "https" and following.scheme == "http":
                raise NotAllowed(f"{origin} redirects to an unencrypted URL ({following})")
            if following != origin:
                kept = [(name, value) for name, value in kept if name.lower() in _HARMLESS]
            if answer.head.status == HTTPStatus.SEE_OTHER and method != "HEAD":
                method, body = "GET", b""
            redirects -= 1
            if not redirects:
                raise Unavailable(f"{origin} redirects without end")

    def fetch(
        self,
        method: str,
        url: str,
        headers: Headers = (),
        *,
        body: bytes = b"",
        limit_bytes: int = 8 << 20,
        what: str = "",
        redirects: int = _MAX_REDIRECTS,
    ) -> tuple[Head, bytes]:
        """The head and whole body of a small answer; transient statuses and failures are retried.

        Any status that is not transient is returned, for the caller to judge.
        """

        def attempt() -> tuple[Head, bytes]:
            with self.open(method, url, headers, body=body, redirects=redirects) as answer:
                if answer.head.status in _TRANSIENT:
                    raise status_error(answer.head, redact(url))
                return answer.head, answer.read(limit_bytes)

        return self.retry.call(attempt, what=what or redact(url))

    def _exchange(
        self, origin: Origin, method: str, url: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> Answer:
        proxy = self._proxy_for(origin)
        names = {name.lower() for name, _ in headers}
        sent = [("Host", origin.authority)] if "host" not in names else []
        if "user-agent" not in names:
            sent.append(("User-Agent", USER_AGENT))
        if proxy and origin.scheme == "http":
            target = f"{origin}{target}"
            sent += _proxy_authorization(proxy)
        sent += headers
        connection, head = self._first_answer(origin, proxy, method, target, sent, body)
        return Answer(url, head, connection, partial(self._give_back, origin))

    def _first_answer(
        self, origin: Origin, proxy: str, method: str, target: str, sent: Headers, body: bytes
    ) -> tuple[Connection, Head]:
        while True:
            connection, reused = self._take(origin, proxy)
            try:
                return connection, connection.request(method, target, sent, body)
            except BaseException as error:
                self._drop(connection)
                # The server may close a kept connection at any time.  If not one byte of an
                # answer came, the request was not seen, and the next connection is as good.  Silence
                # is another matter: with many kept connections it would be waited for on each.
                closed = isinstance(error, Unavailable) and not isinstance(error, Stalled)
                if not (reused and closed and not connection.answered):
                    raise

    def _take(self, origin: Origin, proxy: str) -> tuple[Connection, bool]:
        with self._lock:
            kept = self._idle.get(origin)
            connection = kept.pop() if kept else None
            if connection is not None:
                self._busy.add(connection)
                return connection, True
        connection = self._connect(origin, proxy)
        with self._lock:
            if self._closed:
                connection.close()
                raise Unavailable("the client is closed")
            self._busy.add(connection)
        return connection, False

    def _give_back(self, origin: Origin, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
            if connection.reusable and connection.drained and not self._closed:
                self._idle.setdefault(origin, []).append(connection)
                return
        connection.close()

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def _connect(self, origin: Origin, proxy: str) -> Connection:
        target = origin
        if proxy:
            target, _ = split_url(proxy)
            if target.scheme == origin.scheme == "https":
                # Python's sockets cannot carry TLS within TLS.
                raise Unsupported(
                    f"{origin.authority} cannot be reached through a proxy that itself wants TLS ({target})",
                    hint="give the proxy as http://: what goes through it is encrypted all the same",
                )
        sock = self._tcp(target)
        try:
            if proxy and target.scheme == "https":
                sock = self._tls(sock, target)
            if proxy and origin.scheme == "https":
                self._tunnel(sock, origin, target, proxy)
            if origin.scheme == "https":
                sock = self._tls(sock, origin)
        except BaseException:
            sock.close()
            raise
        return Connection(sock, bytearray(self._buffer_size()), self._limits.stall_s, origin.authority)

    def _buffer_size(self) -> int:
        """A fair part of what is left for buffers: large for the first connections, small for the hundredth."""
        with self._lock:
            open_now = len(self._busy) + sum(map(len, self._idle.values()))
        fair = self._buffer_bytes // (2 * (open_now + 1))
        return max(_LEAST_BUFFER_BYTES, min(_MOST_BUFFER_BYTES, fair))

    def _tcp(self, target: Origin) -> socket.socket:
        try:
            sock = socket.create_connection((target.host, target.port), self._limits.connect_s)
        except (socket.gaierror, UnicodeError) as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                raise Unavailable(f"the name {printable(target.host)} cannot be looked up now") from error
            raise NotFound(
                f"there is no host called {printable(target.host)}", hint="look at the URI and at the endpoint"
            ) from error
        except TimeoutError as error:
            raise Unavailable(
                f"{target.authority} does not answer within {self._limits.connect_s:g} s",
                hint="is it reachable from here, or is a proxy needed?",
            ) from error
        except OSError as error:
            raise Unavailable(f"cannot connect to {target.authority}: {error.strerror or error}") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _tls(self, sock: socket.socket, target: Origin) -> "ssl.SSLSocket":
        import ssl

        try:
            return self._tls_context.wrap_socket(sock, server_hostname=target.host)
        except ssl.SSLCertVerificationError as error:
            raise NotAllowed(
                f"the certificate of {target.authority} is not trusted: {error.verify_message}",
                hint="give its CA by AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or SSL_CERT_FILE",
            ) from error
        except ssl.SSLError as error:
            if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL"):
                raise Unsupported(
                    f"{target.authority} does not speak TLS", hint="should the URI or endpoint begin with http://?"
                ) from error
            raise Unavailable(f"the TLS handshake with {target.authority} failed: {error.reason or error}") from error
        except OSError as error:
            raise Unavailable(f"the TLS handshake with {target.authority} failed: {error}") from error

    @cached_property
    def _tls_context(self) -> "ssl.SSLContext":
        import ssl

        if not self._network.verify_tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        context = ssl.create_default_context()
        for name in self._network.ca_files:
            try:
                context.load_verify_locations(cafile=name)
            except (OSError, ssl.SSLError) as error:
                raise UsageError(
                    f"the CA bundle {printable(name)} cannot be used: {error.strerror or error}",
                    hint="it must be a file of PEM certificates",
                ) from error
        return context

    def _tunnel(self, sock: socket.socket, origin: Origin, proxy: Origin, proxy_url: str) -> None:
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        target = f"{host}:{origin.port}"
        connection = Connection(sock, bytearray(16 * 1024), self._limits.connect_s, f"the proxy {proxy.authority}")
        head = connection.request("CONNECT", target, [("Host", target), *_proxy_authorization(proxy_url)])
        if head.status != HTTPStatus.OK:
            kind = NotAllowed if head.status in (403, 407) else Unavailable
            raise kind(f"the proxy {proxy.authority} refuses to connect to {target} ({head.status})")
        # The connection left the time-out to the kernel, and a TLS handshake would wait for ever.
        sock.settimeout(self._limits.connect_s)

    def _proxy_for(self, origin: Origin) -> str:
        network = self._network
        proxy = network.https_proxy if origin.scheme == "https" else network.http_proxy
        if not proxy or any(_excludes(rule, origin) for rule in network.no_proxy):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"


def status_error(head: Head, what: str) -> LadingError:
    """The error that a status stands for; ``what`` is the redacted URI or thing that was asked for."""
    status = head.status
    name = f"{what} answered {status} {_phrase(status)}".rstrip()
    if status == HTTPStatus.UNAUTHORIZED:
        return NotAllowed(name, hint="credentials are missing, wrong or expired")
    if status == HTTPStatus.FORBIDDEN:
        return NotAllowed(name, hint="the credentials in use may not read this, or it does not exist")
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return NotFound(name)
    if status in (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
        return OriginChanged(f"{what} changed while it was read")
    if status in _TRANSIENT:
        return Unavailable(name, retry_after_s=_retry_after_s(head))
    if status >= 500:
        return Unavailable(name)
    return Unsupported(name)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _retry_after_s(head: Head) -> float | None:
    """Seconds to wait by the Retry-After header (RFC 9110, 10.2.3), at most five minutes."""
    text = head.get("retry-after")
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text), _MAX_RETRY_AFTER_S)
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(moment - time(), 0.0), _MAX_RETRY_AFTER_S)


def _proxy_authorization(proxy_url: str) -> list[tuple[str, str]]:
    user, at, _ = urlsplit(proxy_url).netloc.rpartition("@")
    if not at:
        return []
    return [("Proxy-Authorization", "Basic " + base64.b64encode(unquote(user).encode()).decode())]


def _excludes(rule: str, origin: Origin) -> bool:
    """Whether one entry of NO_PROXY covers this origin: a host, a domain, host:port, an address range or *."""
    if rule == "*":
        return True
    if "/" in rule:
        import ipaddress

        try:
            return ipaddress.ip_address(origin.host) in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    name, colon, port = rule.rpartition(":")
    # An IPv6 address has a port only behind its brackets.
    if colon and port.isdigit() and (":" not in name or name.endswith("]")):
        if int(port) != origin.port:
            return False
        rule = name
    rule = rule.lower().lstrip(".").strip("[]")
    return origin.host == rule or origin.host.endswith(f".{rule}")
