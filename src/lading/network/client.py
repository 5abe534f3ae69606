"""The one HTTP client: connections kept for reuse, redirects, control calls.

``open`` is one request without retries, for the bodies that ``transfer`` moves; ``ask`` repeats a request until
its answer is good, for everything else, and ``fetch`` is that for a small answer read whole.  How a connection is made is ``http_dial``,
how bytes travel on it ``http_wire``.
"""

import re
import threading
from collections.abc import Callable, Container, Sequence
from functools import partial
from http import HTTPStatus
from time import time
from typing import Self, TypeVar
from urllib.parse import urljoin

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
from lading.events import Event
from lading.model.origin import Origin, split_url
from lading.model.uri import redact
from lading.network.dial import Dialer, proxy_authorization, says_it_wants_tls, wants_tls
from lading.network.wire import Connection, Head, Sink
from lading.retry import Retry
from lading.settings.limits import Limits, Network
from lading.system.cgroup import BUFFER_BYTES
from lading.text.printable import printable

Headers = Sequence[tuple[str, str]]
T = TypeVar("T")

USER_AGENT = f"lading/{__version__}"
# Larger receives mean fewer system calls and larger pages of the page cache: 1 MiB takes a fifth less
# time than 256 KiB (docs/adr/0002).
_MOST_BUFFER_BYTES = 1 << 20
_LEAST_BUFFER_BYTES = 64 << 10
_MAX_REDIRECTS = 10
# A number: to look up HTTPStatus.BAD_REQUEST is a call, for every request.
_BAD_REQUEST = 400
_PROBE_BYTES = 64 * 1024
_MAX_RETRY_AFTER_S = 300.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SPENT = re.compile(r";\s*r=0\s*;\s*t=([0-9]{1,9})")
_MOST_SHOWN = 500
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
# What may follow a redirect to another origin.  An allow-list: any header that was configured
# may be a credential, whatever its name.
_HARMLESS = frozenset({"accept", "accept-encoding", "range", "if-match", "if-unmodified-since", "user-agent"})
_ERROR_LIMIT_BYTES = 64 * 1024


class Answer:
    """The answer to one request: its head is here, its body is still on the wire.

    Use it in a ``with`` block: at its end the connection goes back to the client.
    """

    def __init__(self, url: str, head: Head, connection: Connection, release: Callable[[Connection], None]) -> None:
        self.url = url
        self.head = head
        self._connection = connection
        self._release = release
        self._kept: bytes | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._release(self._connection)

    def read_into(self, sink: Sink) -> None:
        """Push the body, piece by piece; a piece is valid until ``sink`` returns."""
        if self._kept is None:
            self._connection.read_body(sink)
        elif self._kept:
            sink(memoryview(self._kept))

    def read(self, limit_bytes: int) -> bytes:
        """The whole body; raises ``IntegrityError`` when it is longer than ``limit_bytes``."""
        body = bytearray()

        def collect(piece: memoryview) -> None:
            if len(body) + len(piece) > limit_bytes:
                raise IntegrityError(f"{redact(self.url)} answered with more than {limit_bytes} bytes")
            body.extend(piece)

        self.read_into(collect)
        return bytes(body)

    def error_body(self) -> bytes:
        """What comes with an error; "" for a page that is too long to explain one."""
        try:
            return self.read(_ERROR_LIMIT_BYTES)
        except IntegrityError:
            return b""

    def refuses_http(self) -> bool:
        """Whether the body says that this port wants TLS: no status does.  It can be read afterwards."""
        self._kept = self.error_body()
        return says_it_wants_tls(self._kept)


class HttpClient:
    """Requests to any host, from any thread.

    ``retry`` is used by ``ask`` and ``fetch`` only; ``buffer_bytes`` is for the buffers of all connections together.
    """

    def __init__(
        self,
        network: Network,
        limits: Limits,
        retry: Retry,
        *,
        buffer_bytes: int = BUFFER_BYTES,
        reported: set[Event] | None = None,
    ) -> None:
        self._network = network
        self._limits = limits
        # Once for all variants of a client: each of them makes its own connections.
        self._reported: set[Event] = set() if reported is None else reported
        self._dialer = Dialer(network, limits, self._tell_once)
        self._buffer_bytes = buffer_bytes
        self.retry = retry
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._closed = False
        self._variants: list[HttpClient] = []

    def without_tls_checks(self) -> "HttpClient":
        """A client that believes any certificate, for the one source that was told to."""
        return self.reaching(self._network._replace(verify_tls=False))

    def reaching(self, network: Network, limits: Limits | None = None, retry: Retry | None = None) -> "HttpClient":
        """A client that reaches hosts as ``network`` says, with other patience if given: this one, if it does."""
        wanted = (network, limits or self._limits, retry or self.retry)
        return self if wanted == (self._network, self._limits, self.retry) else self._variant(*wanted)

    @property
    def network(self) -> Network:
        """How this client reaches hosts."""
        return self._network

    @property
    def limits(self) -> Limits:
        """How long this client waits for them."""
        return self._limits

    def direct(self, *, connect_s: float, stall_s: float, retry: Retry) -> "HttpClient":
        """A client for services on this very machine: no proxy, its own patience."""
        network = self._network._replace(http_proxy="", https_proxy="")
        return self._variant(network, self._limits._replace(connect_s=connect_s, stall_s=stall_s), retry)

    def _variant(self, network: Network, limits: Limits, retry: Retry) -> "HttpClient":
        with self._lock:
            self._variants = [variant for variant in self._variants if not variant._closed]
            for variant in self._variants:
                if (variant._network, variant._limits, variant.retry) == (network, limits, retry):
                    return variant
            self._variants.append(
                HttpClient(network, limits, retry, buffer_bytes=self._buffer_bytes, reported=self._reported)
            )
            return self._variants[-1]

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
                raise NotAllowed(f"{origin} redirects to an unencrypted URL, {printable(redact(url))}")
            if following.bare != origin.bare:
                kept = [(name, value) for name, value in kept if name.lower() in _HARMLESS]
            if answer.head.status == HTTPStatus.SEE_OTHER and method != "HEAD":
                method, body = "GET", b""
            redirects -= 1
            if not redirects:
                raise Unsupported(
                    f"{origin} redirects too often, at last to {printable(redact(url))}",
                    hint="check the server: it may want a login, or a cookie",
                )

    def ask(self, send: Callable[[], Answer], judge: Callable[[Answer], T], *, what: str) -> T:
        """What ``judge`` makes of an answer; ``send`` sends the request, signed anew for each attempt.

        Attempts are repeated while ``send`` or ``judge`` raises what may be retried.
        """

        def attempt() -> T:
            with send() as answer:
                return judge(answer)

        return self.retry.call(attempt, what=what)

    def check(self, what: str) -> None:
        """Raise when the delivery was stopped or is out of time; for judges of long answers, between the pieces."""
        self.retry.run.check(what)

    def tell(self, event: Event) -> None:
        """Tell whoever listens to this client's delivery."""
        self.retry.run.listener(event)

    def _tell_once(self, event: Event) -> None:
        if event not in self._reported:
            self._reported.add(event)
            self.tell(event)

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

        def judge(answer: Answer) -> tuple[Head, bytes]:
            if answer.head.status in _TRANSIENT:
                raise status_error(answer.head, redact(url))
            return answer.head, answer.read(limit_bytes)

        send = partial(self.open, method, url, headers, body=body, redirects=redirects)
        return self.ask(send, judge, what=what or redact(url))

    def _exchange(
        self, origin: Origin, method: str, url: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> Answer:
        proxy = self._dialer.proxy_for(origin)
        names = {name.lower() for name, _ in headers}
        sent = [("Host", origin.authority)] if "host" not in names else []
        if "user-agent" not in names:
            sent.append(("User-Agent", USER_AGENT))
        if proxy and origin.scheme == "http":
            target = f"{origin}{target}"
            sent += proxy_authorization(proxy)
        sent += headers
        connection, head = self._first_answer(origin, method, target, sent, body)
        answer = Answer(url, head, connection, partial(self._give_back, origin))
        if head.status == _BAD_REQUEST:
            peer, named = self._plain_peer(origin)
            if peer and answer.refuses_http():
                with answer:
                    raise wants_tls(peer, named)
        return answer

    def _first_answer(
        self, origin: Origin, method: str, target: str, sent: Headers, body: bytes
    ) -> tuple[Connection, Head]:
        while True:
            connection, reused = self._take(origin)
            try:
                return connection, connection.request(method, target, sent, body)
            except BaseException as error:
                self._drop(connection)
                # The server may close a kept connection at any time.  If not one byte of an
                # answer came, the request was not seen, and the next connection is as good.  Silence
                # is another matter: with many kept connections it would be waited for on each.
                closed = isinstance(error, Unavailable) and not isinstance(error, Stalled) and not connection.answered
                if reused and closed:
                    continue
                peer, named = self._plain_peer(origin)
                if peer and connection.heard_tls:
                    raise wants_tls(peer, named) from error
                if peer and isinstance(error, Unavailable) and closed:
                    raise error.rephrased(hint=f"if it speaks only TLS, {named} should begin with https://") from error
                raise

    def _plain_peer(self, origin: Origin) -> tuple[str, str]:
        """Who is asked without TLS, and what has called it http; nobody where there is TLS."""
        proxy = self._dialer.proxy_for(origin)
        target = split_url(proxy)[0] if proxy else origin
        if "https" in (origin.scheme, target.scheme):
            return "", ""
        return (f"the proxy {target.authority}", "its URL") if proxy else (origin.authority, "the URI or endpoint")

    def _take(self, origin: Origin) -> tuple[Connection, bool]:
        with self._lock:
            kept = self._idle.get(origin)
            connection = kept.pop() if kept else None
            if connection is not None:
                self._busy.add(connection)
                return connection, True
        connection = self._dialer.dial(origin, bytearray(self._buffer_size()))
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

    def _buffer_size(self) -> int:
        """A fair part of what is left for buffers: large for the first connections, small for the hundredth."""
        with self._lock:
            open_now = len(self._busy) + sum(map(len, self._idle.values()))
        fair = self._buffer_bytes // (2 * (open_now + 1))
        return max(_LEAST_BUFFER_BYTES, min(_MOST_BUFFER_BYTES, fair))


def status_error(head: Head, what: str, *, quoted: bool = True) -> LadingError:
    """The error that a status stands for; ``what`` is the redacted URI or thing that was asked for.

    Not ``quoted``, where a redirect leads is left out: it could say the credential back that was sent.
    """
    status = head.status
    name = f"{what} answered {status} {_phrase(status)}".rstrip()
    if status == HTTPStatus.UNAUTHORIZED:
        return NotAllowed(name, hint="credentials are missing, wrong or expired")
    if status == HTTPStatus.FORBIDDEN:
        return NotAllowed(name, hint="the credentials in use are not allowed to read this, or it does not exist")
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return NotFound(name)
    if status in (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
        return OriginChanged(f"{what} changed while it was read")
    if status in _TRANSIENT:
        return Unavailable(name, retry_after_s=_retry_after_s(head))
    if status >= 500:
        return Unavailable(name)
    if quoted and (location := leads_to(head)):
        return Unsupported(f"{name}, to {location}", hint="if that is the right address, use it")
    return Unsupported(name)


def read_whole(answer: Answer, *, limit_bytes: int, what: str) -> bytes:
    """The whole body of an answer that must have the status 200."""
    if answer.head.status != HTTPStatus.OK:
        raise status_error(answer.head, what)
    return answer.read(limit_bytes)


def read_probe(answer: Answer, *, what: str, statuses: Container[int] = (200, 206)) -> Head:
    """The head of an answer with a file, or with a byte or so of it, which is read: the connection can be kept."""
    if answer.head.status not in statuses:
        raise status_error(answer.head, what)
    if answer.head.status == HTTPStatus.PARTIAL_CONTENT:
        answer.read(_PROBE_BYTES)
    return answer.head


def leads_to(head: Head) -> str:
    """Where a redirect leads, as it may be printed: without what could be a secret; "" if it is none."""
    if head.status not in _REDIRECTS:
        return ""
    location = re.split("[?#]", head.get("location"), maxsplit=1)[0]
    return printable(re.sub("^([^/]*//)[^/]*@", r"\1***@", location))[:_MOST_SHOWN]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _retry_after_s(head: Head) -> float | None:
    """Seconds to wait, at most five minutes: by Retry-After (RFC 9110, 10.2.3), else by a RateLimit that is used up.

    RateLimit is draft-ietf-httpapi-ratelimit-headers-09, as the Hugging Face Hub sends it: ``"api";r=0;t=55``.
    """
    text = head.get("retry-after")
    if not text:
        # It comes with every answer, and is the reason of a 429 only.
        spent = _SPENT.search(head.get("ratelimit")) if head.status == HTTPStatus.TOO_MANY_REQUESTS else None
        return min(float(spent[1]), _MAX_RETRY_AFTER_S) if spent else None
    if text.isascii() and text.isdigit():
        return min(float(text), _MAX_RETRY_AFTER_S)
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(moment - time(), 0.0), _MAX_RETRY_AFTER_S)
