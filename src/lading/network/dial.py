"""Making a connection: TCP, proxies, TLS, and what goes wrong with them."""

import errno
import socket
import threading
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lading.errors import HostNotFound, LadingError, NotAllowed, Unavailable, Unsupported
from lading.events import Listener, TlsChosen, ignore
from lading.model.origin import Origin, host_and_port, split_url
from lading.network.addresses import Addresses
from lading.network.wire import Connection, Stream
from lading.secret import basic
from lading.settings.limits import Limits, Network
from lading.text.printable import printable

if TYPE_CHECKING:
    # Loaded when a connection needs it: it takes as long as the whole of a small delivery over HTTP.
    import ssl

    from lading.network.native import Native


_MOST_SAID_BYTES = 16 * 1024
# The words of nginx, Go, Apache and Tomcat.
_WANTS_TLS = (
    b"plain http request was sent to https port",
    b"http request to an https server",
    b"plain http to an ssl-enabled server",
    b"host and port requires tls",
)


class Dialer:
    """Connects to any origin as the network is configured.  Safe from any thread.

    ``tell`` hears who does TLS, before the first connection that uses it.
    """

    def __init__(self, network: Network, limits: Limits, tell: Listener = ignore) -> None:
        self._network = network
        self._limits = limits
        self._tell = tell
        self._addresses = Addresses(limits.connect_s)
        self._lock = threading.Lock()
        self._tls: tuple[ssl.SSLContext, Native | None] | None = None
        self._stamps: tuple[tuple[int, int], ...] = ()

    def dial(self, origin: Origin, buffer: bytearray) -> Connection:
        """A new connection to ``origin``, through its proxy if it has one; ``buffer`` is what it reads into."""
        native = self._native(origin)
        if native is None:
            return self._reach(origin, buffer, None)
        from lading.network.native import NotTaken

        if native.serves(origin):
            with suppress(NotTaken):
                return self._reach(origin, buffer, native)
        connection = self._reach(origin, buffer, None)
        connection.passing = native.serves(origin)
        if connection.passing and self._network.tls == "rustls":
            connection.close()
            return self.dial(origin, buffer)
        return connection

    def _native(self, origin: Origin) -> "Native | None":
        """The alternative to OpenSSL for a connection to ``origin``; none within the TLS of a proxy."""
        if origin.scheme != "https" or self._network.tls == "openssl":
            return None
        return None if self.proxy_for(origin).startswith("https:") else self._tls_now()[1]

    def _reach(self, origin: Origin, buffer: bytearray, native: "Native | None") -> Connection:
        proxy = self.proxy_for(origin)
        target = origin
        if proxy:
            target, _ = split_url(proxy)
        sock: Stream = self._tcp(target)
        try:
            if proxy and target.scheme == "https":
                sock = self._secure(sock, target, "the proxy's URL")
            if proxy and origin.scheme == "https":
                self._tunnel(sock, origin, target, proxy)
            if origin.scheme == "https":
                sock = self._secure(sock, origin, "the URI or endpoint", len(buffer), native)
        except BaseException:
            sock.close()
            raise
        return Connection(sock, buffer, self._limits.stall_s, origin.authority)

    def _tcp(self, target: Origin) -> socket.socket:
        try:
            sock = self._addresses.connect(target.host, target.port)
        except (socket.gaierror, UnicodeError) as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                raise Unavailable(f"the name {printable(target.host)} cannot be looked up now") from error
            raise HostNotFound(
                f"there is no host called {printable(target.host)}",
                hint="check the URI and the endpoint, and whether names can be looked up here",
            ) from error
        except TimeoutError as error:
            raise Unavailable(
                f"{target.authority} does not answer within {self._limits.connect_s:g} s",
                hint="is it reachable from here, or is a proxy needed?",
            ) from error
        except OSError as error:
            hint = "is the address right, and is its server running?" if error.errno == errno.ECONNREFUSED else ""
            raise Unavailable(f"cannot connect to {target.authority}: {error.strerror or error}", hint=hint) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _secure(
        self, sock: Stream, target: Origin, named: str, buffer_bytes: int = 0, native: "Native | None" = None
    ) -> Stream:
        """TLS with ``target``, which ``named``, in words, has called https; by ``native``, if that is given."""
        import ssl

        from lading.network.certificates import not_trusted, unreadable
        from lading.network.tls import NotTls, TlsSocket

        try:
            if native and isinstance(sock, socket.socket):
                return native.secure(sock, target, self._limits.connect_s, buffer_bytes)
            context, learner = self._tls_now()
            secure = TlsSocket(sock, context, target.name)
            secure.handshake()
            if learner and self._network.verify_tls:
                learner.believe(target, secure.certificate())
            return secure
        except ssl.SSLCertVerificationError as error:
            raise not_trusted(error, target, self._network.ca_files) from error
        except NotTls as error:
            raise Unsupported(
                f"{target.authority} does not speak TLS", hint=f"should {named} begin with http://?"
            ) from error
        except ssl.SSLError as error:
            if error.reason is None:
                raise unreadable(error, target) from error
            if error.reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"):
                raise Unsupported(
                    f"{target.authority} speaks no version of TLS that is safe", hint="it needs TLS 1.2 or newer"
                ) from error
            raise Unavailable(f"the TLS handshake with {target.authority} failed: {error.reason}") from error
        except OSError as error:
            raise Unavailable(
                f"the TLS handshake with {target.authority} failed: {error.strerror or error}",
                hint=f"if it speaks no TLS, {named} should begin with http://",
            ) from error

    def _tls_now(self) -> "tuple[ssl.SSLContext, Native | None]":
        """OpenSSL's context, and rustls if it is used, for the files of certificates as they are now: a rotated one is loaded with the next connection."""
        from lading.network.certificates import new_context
        from lading.network.native import new_native, told
        from lading.network.tls import stamp

        network = self._network
        files = (*network.ca_files, *filter(None, (network.client_certificate, network.client_key)))
        stamps = tuple(map(stamp, files))
        with self._lock:
            is_first = self._tls is None
            if self._tls is None or self._stamps != stamps:
                self._tls, self._stamps = (new_context(network), new_native(network)), stamps
            tls = self._tls
        if is_first:
            self._tell(TlsChosen(told(network)))
        return tls

    def _tunnel(self, sock: Stream, origin: Origin, proxy: Origin, proxy_url: str) -> None:
        host = f"[{origin.name}]" if ":" in origin.host else origin.host
        target = f"{host}:{origin.port}"
        connection = Connection(sock, bytearray(16 * 1024), self._limits.connect_s, f"the proxy {proxy.authority}")
        try:
            head = connection.request("CONNECT", target, [("Host", target), *proxy_authorization(proxy_url)])
        except Unavailable as error:
            if connection.heard_tls:
                raise wants_tls(f"the proxy {proxy.authority}", "its URL") from error
            raise
        if head.status == HTTPStatus.BAD_REQUEST and says_it_wants_tls(_beginning(connection)):
            raise wants_tls(f"the proxy {proxy.authority}", "its URL")
        if head.status != HTTPStatus.OK:
            kind = NotAllowed if head.status in (403, 407) else Unavailable
            raise kind(f"the proxy {proxy.authority} refuses to connect to {target} ({head.status})")
        # The connection left the time-out to the kernel, and a TLS handshake would wait for ever.
        sock.settimeout(self._limits.connect_s)

    def proxy_for(self, origin: Origin) -> str:
        """The URL of the proxy for ``origin``, or ""."""
        network = self._network
        proxy = network.https_proxy if origin.scheme == "https" else network.http_proxy
        if not proxy or any(_excludes(rule, origin) for rule in network.no_proxy):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"


def _beginning(connection: Connection) -> bytes:
    """The first bytes of a body, whose rest is not wanted."""
    body = bytearray()

    def take(piece: memoryview) -> None:
        body.extend(piece)
        if len(body) > _MOST_SAID_BYTES:
            raise Unavailable("more than is wanted")

    with suppress(Unavailable):
        connection.read_body(take)
    return bytes(body)


def says_it_wants_tls(body: bytes) -> bool:
    """Whether the body of a 400 says that HTTP came to a port that speaks only TLS: there is no status for it."""
    said = body.lower()
    return any(words in said for words in _WANTS_TLS)


def wants_tls(who: str, named: str) -> LadingError:
    """The error for a port that speaks only TLS, which ``named``, in words, has called http."""
    return Unsupported(f"{who} speaks only TLS", hint=f"should {named} begin with https://?")


def proxy_authorization(proxy_url: str) -> list[tuple[str, str]]:
    """The header for the user and password in a proxy's URL, if there are any."""
    user, at, _ = urlsplit(proxy_url).netloc.rpartition("@")
    if not at:
        return []
    return [("Proxy-Authorization", basic(*map(unquote, user.partition(":")[::2])))]


def _excludes(rule: str, origin: Origin) -> bool:
    """Whether one entry of NO_PROXY covers this origin: a host, a domain, host:port, an address range or *."""
    if rule == "*":
        return True
    if "/" in rule:
        import ipaddress

        try:
            return ipaddress.ip_address(origin.name) in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    name, port = host_and_port(rule.removeprefix("*").lstrip("."))
    return port in (None, origin.port) and (origin.name == name or origin.name.endswith(f".{name}"))
