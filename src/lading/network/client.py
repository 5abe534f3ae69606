"""The one HTTP client: connections kept for reuse, redirects, control calls.

``open`` is one request without retries, for the bodies that ``transfer`` moves; ``ask`` repeats a request until
its answer is good, for everything else, and ``fetch`` is that for a small answer read whole.  What a status means is
in ``answer``, how a connection is made in ``dial``, how bytes travel on it in ``wire``.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urljoin

from lading import __version__
from lading.errors import NotAllowed, NotRelayed, Stalled, Unavailable, Unsupported, UsageError
from lading.events import Event
from lading.model.listing import ListedFile
from lading.model.origin import Origin, split_url
from lading.model.uri import redact
from lading.network.answer import REDIRECTS, TRANSIENT, Answer, retry_after_s, status_error
from lading.network.dial import Dialer, proxy_authorization, wants_tls
from lading.network.dragonfly import Relays
from lading.network.pace import Pace
from lading.network.wire import Connection, Head
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
# A relay is on this machine.  What it is asked for may have to come from the other end of a row of peers.
_RELAY_CONNECT_S = 2.0
_RELAY_STALL_S = 60.0
# A number: to look up HTTPStatus.BAD_REQUEST is a call, for every request.
_BAD_REQUEST = 400
# Which may ask for a pause; GitHub limits by 403.
_MAY_ASK_FOR_PAUSE = frozenset({403, 429, 503})
# What may follow a redirect to another origin.  An allow-list: any header that was configured
# may be a credential, whatever its name.
_HARMLESS = frozenset({"accept", "accept-encoding", "range", "if-match", "if-unmodified-since", "user-agent"})
# What a relay may be sent: a dfdaemon that is redirected leaves logins behind, and takes all other headers along.  Those of
# S3 and Google are worth nothing without the signature, which is a login.
_RELAYED = _HARMLESS | {"authorization", "cookie", "host"}
_RELAYED_PREFIXES = ("x-amz-", "x-goog-")


class HttpClient:
    """Requests to any host, from any thread.

    ``retry`` is used by ``ask`` and ``fetch`` only; ``buffer_bytes`` is for the buffers of all connections together.
    ``pace`` says how often origins may be asked; without it, that is left to the caller.
    """

    def __init__(
        self,
        network: Network,
        limits: Limits,
        retry: Retry,
        *,
        buffer_bytes: int = BUFFER_BYTES,
        reported: set[Event] | None = None,
        pace: Pace | None = None,
        relays: Relays | None = None,
    ) -> None:
        self._network = network
        self._limits = limits
        # Once for all variants of a client: each of them makes its own connections.
        self._reported: set[Event] = set() if reported is None else reported
        self._pace = pace
        self._relays = relays or Relays(retry.run)
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
        return self if wanted == (self._network, self._limits, self.retry) else self._variant(*wanted, self._pace)

    @property
    def network(self) -> Network:
        """How this client reaches hosts."""
        return self._network

    @property
    def limits(self) -> Limits:
        """How long this client waits for them."""
        return self._limits

    def direct(self, *, connect_s: float, stall_s: float, retry: Retry) -> "HttpClient":
        """A client for services on this very machine: no proxy, its own patience and no pace."""
        network = self._network._replace(http_proxy="", https_proxy="")
        return self._variant(network, self._limits._replace(connect_s=connect_s, stall_s=stall_s), retry, None)

    def _variant(self, network: Network, limits: Limits, retry: Retry, pace: Pace | None) -> "HttpClient":
        with self._lock:
            self._variants = [variant for variant in self._variants if not variant._closed]
            for variant in self._variants:
                if (variant._network, variant._limits, variant.retry, variant._pace) == (network, limits, retry, pace):
                    return variant
            shared = partial(HttpClient, buffer_bytes=self._buffer_bytes, reported=self._reported, relays=self._relays)
            self._variants.append(shared(network, limits, retry, pace=pace))
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
        self,
        method: str,
        url: str,
        headers: Headers = (),
        *,
        body: bytes = b"",
        redirects: int = _MAX_REDIRECTS,
        of: ListedFile | None = None,
    ) -> Answer:
        """Send one request and follow its redirects; any other status is the caller's to judge.

        A redirect to another origin loses every header that could be a credential, and one from
        https to http is refused.  For content ``of`` a file that has a relay, that is asked.
        """
        relayed = None if of is None else self.open_by_relay(of, url, headers)
        if relayed is not None:
            return relayed
        kept = list(headers)
        while True:
            origin, target = split_url(url)
            answer = self._exchange(origin, method, url, target, kept, body)
            location = answer.head.text("location")
            if answer.head.status not in REDIRECTS or not location or not redirects:
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

    def open_by_relay(self, file: ListedFile, url: str, headers: Headers) -> Answer | None:
        """The answer of the file's relay, None if it has none; ``NotRelayed`` if that does not answer as it should."""
        if file.relay is None:
            return None
        names = {name.lower() for name, _ in headers} - _RELAYED
        if not all(name.startswith(_RELAYED_PREFIXES) for name in names):
            raise NotRelayed(f"{redact(file.relay.url)} could send headers of {redact(url)} to another host")
        local = self.direct(
            connect_s=_RELAY_CONNECT_S, stall_s=max(_RELAY_STALL_S, self._limits.stall_s), retry=self.retry
        )
        return self._relays.ask(file, lambda relay, added: local.open_by(relay, url, [*headers, *added]), url)

    def open_by(self, proxy: str, url: str, headers: Headers) -> Answer:
        """One GET by a proxy that is asked in plain text, for https as well (RFC 9112, 3.2.2); it follows redirects."""
        origin, target = split_url(url)
        by, _ = split_url(proxy)
        others = [(name, value) for name, value in headers if name.lower() != "host"]
        sent = [("Host", origin.authority), ("User-Agent", USER_AGENT), *others]
        connection, head = self._first_answer(by, "GET", f"{origin}{target}", sent, b"")
        return Answer(url, head, connection, partial(self._give_back, by))

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
            if answer.head.status in TRANSIENT:
                raise status_error(answer.head, redact(url))
            return answer.head, answer.read(limit_bytes)

        send = partial(self.open, method, url, headers, body=body, redirects=redirects)
        return self.ask(send, judge, what=what or redact(url))

    def _exchange(
        self, origin: Origin, method: str, url: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> Answer:
        path = target
        if self._pace:
            self._pace.wait(origin, path)
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
        if self._pace and head.status in _MAY_ASK_FOR_PAUSE and (pause_s := retry_after_s(head)):
            self._pace.pause(origin, path, pause_s)
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
