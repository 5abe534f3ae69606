"""An HTTP/1.1 server that serves what it is given and misbehaves on request.

    server.put("/model.bin", content)
    server.misbehave("/model.bin", reset(at=4096), status(503, times=3))

A fault changes one answer, or how it is sent.  Each holds for ``times`` requests, after it has let
``after`` pass; by default it meets only requests that read (``reads``), not the one that asks
whether the file is there (``probes``).  Every request is recorded in ``server.requests``.
"""

import gzip
import math
import re
import select
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Self, TypedDict, Unpack
from urllib.parse import urlsplit

ALWAYS = math.inf
ANYWHERE = ""
MODIFIED = "Mon, 05 Jan 2026 10:00:00 GMT"
LATER = "Tue, 06 Jan 2026 10:00:00 GMT"

_PIECE_BYTES = 64 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_WEBHDFS_RANGE = re.compile(r"\boffset=(\d+)&length=(\d+)")


@dataclass(frozen=True)
class Request:
    """One request as it came; header names are lower-case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        return urlsplit(self.target).query

    def byte_range(self, size_bytes: int) -> tuple[int, int] | None:
        """The bytes that the Range header, or WebHDFS's query, asks for, end exclusive; None without one."""
        if match := _WEBHDFS_RANGE.search(self.query):
            start, length = map(int, match.groups())
            return start, min(start + length, size_bytes)
        match = _RANGE.fullmatch(self.headers.get("range", ""))
        if match is None:
            return None
        first, last = match.groups()
        return int(first), min(int(last) + 1 if last else size_bytes, size_bytes)


@dataclass(frozen=True)
class Answer:
    """An answer and how it is sent: the ``…_at`` count bytes of the body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | memoryview = b""
    framing: str = "length"
    surplus: bytes = b""
    reset_at: int | None = None
    stall_at: int | None = None
    end_at: int | None = None

    def with_headers(self, **headers: str) -> "Answer":
        return replace(self, headers=self.headers | {name.replace("_", "-"): text for name, text in headers.items()})


@dataclass(frozen=True)
class Resource:
    """A file with what a server says about it; an empty ``etag`` or ``modified`` is not said."""

    content: bytes | memoryview
    etag: str = '"v1"'
    modified: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    conditions: bool = True

    def answer(self, request: Request) -> Answer:
        about = {"ETag": self.etag, "Last-Modified": self.modified} | self.headers
        about = {name: value for name, value in about.items() if value}
        if self.conditions and self._is_another(request):
            return Answer(412, about)
        if self.etag and request.headers.get("if-none-match") == self.etag:
            return Answer(304, about)
        size = len(self.content)
        byte_range = request.byte_range(size) if self.ranges else None
        if byte_range is None:
            return Answer(200, about, self.content)
        start, end = byte_range
        if start >= size:
            return Answer(416, about | {"Content-Range": f"bytes */{size}"})
        part = memoryview(self.content)[start:end]
        return Answer(206, about | {"Content-Range": f"bytes {start}-{end - 1}/{size}"}, part)

    def _is_another(self, request: Request) -> bool:
        wanted, limit = request.headers.get("if-match"), request.headers.get("if-unmodified-since")
        if wanted and self.etag:
            return wanted != self.etag
        if limit and self.modified:
            return parsedate_to_datetime(self.modified) > parsedate_to_datetime(limit)
        return False


def reads(request: Request) -> bool:
    return not probes(request)


def probes(request: Request) -> bool:
    return request.headers.get("range") == "bytes=0-0"


def anything(request: Request) -> bool:
    return True


@dataclass
class Fault:
    """A change of answers; ``on`` says which requests it can meet."""

    change: Callable[[Request, Answer], Answer]
    times: float = 1
    after: int = 0
    on: Callable[[Request], bool] = reads

    def meets(self, request: Request) -> bool:
        """Whether this request is hit; counts."""
        if not self.on(request) or self.times <= 0:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True


class When(TypedDict, total=False):
    """Which requests a fault meets, as ``Fault`` has it."""

    times: float
    after: int
    on: Callable[[Request], bool]


_EVERY: When = {"on": anything, "times": ALWAYS}
_EVERY_PROBE: When = {"on": probes, "times": ALWAYS}


def reset(at: int, **when: Unpack[When]) -> Fault:
    """The connection is reset (RST) after ``at`` bytes of the body."""
    return Fault(lambda _, answer: replace(answer, reset_at=at), **when)


def stall(at: int, **when: Unpack[When]) -> Fault:
    """Nothing comes after ``at`` bytes of the body, and the connection stays open."""
    return Fault(lambda _, answer: replace(answer, stall_at=at), **when)


def cut(at: int, **when: Unpack[When]) -> Fault:
    """The connection is closed in good order after ``at`` bytes of the body."""
    return Fault(lambda _, answer: replace(answer, end_at=at), **when)


def status(code: int, body: bytes = b"", *, headers: dict[str, str] | None = None, **when: Unpack[When]) -> Fault:
    """Another answer altogether."""
    return Fault(lambda *_: Answer(code, headers or {}, body), **when)


def redirect(url: str, code: int = 302, **when: Unpack[When]) -> Fault:
    return status(code, headers={"Location": url}, **(_EVERY | when))


def range_ignored(content: bytes, **when: Unpack[When]) -> Fault:
    """The whole file, with 200, whatever range was asked for."""
    return Fault(lambda _, answer: Answer(200, {"ETag": answer.headers["ETag"]}, content), **when)


def wrong_byte(at: int, **when: Unpack[When]) -> Fault:
    """The byte ``at`` of the file has one bit turned, in every answer that holds it."""

    def change(request: Request, answer: Answer) -> Answer:
        body = bytearray(answer.body)
        start, _ = request.byte_range(1 << 62) or (0, 0)
        if 0 <= at - start < len(body):
            body[at - start] ^= 1
        return replace(answer, body=bytes(body))

    return Fault(change, **when)


def surplus(extra: bytes, **when: Unpack[When]) -> Fault:
    """Bytes on the connection behind the body that was promised."""
    return Fault(lambda _, answer: replace(answer, surplus=extra), **when)


def longer(extra: bytes, **when: Unpack[When]) -> Fault:
    """A body, and a length, of more bytes than the range or the listing has."""
    return Fault(lambda _, answer: replace(answer, body=bytes(answer.body) + extra), **when)


def framed(framing: str, **when: Unpack[When]) -> Fault:
    """The body is sent "chunked", or until the connection is "closed": without its length."""
    return Fault(lambda _, answer: replace(answer, framing=framing), **(_EVERY | when))


def gzipped(**when: Unpack[When]) -> Fault:
    """The whole file in the coding gzip, although nobody asked for it."""

    def change(request: Request, answer: Answer) -> Answer:
        return replace(answer, body=gzip.compress(answer.body, 1)).with_headers(Content_Encoding="gzip")

    return Fault(change, **(_EVERY | when))


def labelled(coding: str, **when: Unpack[When]) -> Fault:
    """Every body is said to be in this coding, and is sent as it is."""
    return Fault(lambda _, answer: answer.with_headers(Content_Encoding=coding), **(_EVERY | when))


def claimed_size(size_bytes: int, **when: Unpack[When]) -> Fault:
    """The listing of a file far larger than it is."""

    def change(request: Request, answer: Answer) -> Answer:
        return answer.with_headers(Content_Range=f"bytes 0-0/{size_bytes}")

    return Fault(change, **(_EVERY_PROBE | when))


class FaultyServer:
    """The server, on a loopback port of its own; a context manager.

    ``tls`` is an ``ssl.SSLContext`` for a server.  ``on_sent`` is told, after each piece, the request
    and the total of body bytes sent so far; while it waits, that answer is held.  ``pace_bytes_s`` bounds the
    rate of all answers together.  ``sent_bytes`` counts the bytes of all bodies, ``asked_bytes`` what
    was asked for of files with an ETag.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", address: str = "127.0.0.1") -> None:
        self.requests: list[Request] = []
        self.asked_bytes = 0
        self.resources: dict[str, Resource] = {}
        self.routes: dict[str, Callable[[Request], Answer]] = {}
        self.on_sent: Callable[[Request, int], None] = lambda request, total: None
        self.pace_bytes_s = math.inf
        self.closing = threading.Event()
        self._faults: dict[str, list[Fault]] = {}
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._connections = 0
        self.connections_made = 0
        self.sent_bytes = 0
        self._server = _Listener((address, 0), _Handler)
        self._server.owner, self._server.tls = self, tls
        self._address = (address, self._server.server_address[1])
        self.url = f"{'https' if tls else 'http'}://{host}:{self._address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="faulty-http", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def put(self, path: str, content: bytes | memoryview, **about: Any) -> str:
        """Serve ``content`` at ``path`` from now on; returns its URL."""
        self.resources[path] = Resource(content, **about)
        return self.url + path

    def misbehave(self, path: str, *faults: Fault) -> None:
        """Let requests for ``path``, or ``ANYWHERE``, meet these faults."""
        self._faults.setdefault(path, []).extend(faults)

    def behave(self) -> None:
        """Forget every fault and every request, and hold nothing back."""
        self._faults.clear()
        self.requests.clear()
        self.asked_bytes = 0
        self.on_sent = lambda request, total: None
        self.pace_bytes_s = math.inf
        self.sent_bytes = 0

    def replace(
        self,
        path: str,
        content: bytes,
        *,
        after: int = 0,
        on: Callable[[Request], bool] = reads,
        times: float = 1,
        **about: Any,
    ) -> None:
        """Serve other content from the request on that comes after ``after`` others."""

        self.misbehave(path, self.before(lambda: self.put(path, content, **about), after=after, on=on, times=times))

    def before(self, act: Callable[[], object], **when: Unpack[When]) -> Fault:
        """What ``act`` changes at the origin holds from the request on that is met."""

        def change(request: Request, _: Answer) -> Answer:
            act()
            return self.correct_answer(request)

        return Fault(change, **when)

    def requests_for(self, path: str, *, of: Callable[[Request], bool] = anything) -> list[Request]:
        return [request for request in self.requests if request.path == path and of(request)]

    def wait_for_request(self, path: str, timeout_s: float, count: int = 1) -> bool:
        """Wait until ``path`` has been asked for so often."""
        with self._news:
            return self._news.wait_for(lambda: len(self.requests_for(path)) >= count, timeout_s)

    def wait_for_sent(self, size_bytes: int, timeout_s: float) -> bool:
        """Wait until bodies of so many bytes have been sent."""
        with self._news:
            return self._news.wait_for(lambda: self.sent_bytes >= size_bytes, timeout_s)

    def wait_until_alone(self, timeout_s: float) -> bool:
        """Wait until every connection has ended, and so the last request of a killed process is over."""
        # Whoever is answered now was accepted behind every connection that was made before.
        with suppress(OSError), socket.create_connection(self._address, timeout_s) as last:
            last.sendall(b"GET /alone HTTP/1.1\r\nHost: alone\r\n\r\n")
            last.recv(1)
        with self._news:
            return self._news.wait_for(lambda: not self._connections, timeout_s)

    def count_connections(self, more: int) -> None:
        """Called when a connection is accepted, and when it has ended."""
        with self._news:
            self._connections += more
            self.connections_made += max(more, 0)
            self._news.notify_all()

    def answer(self, request: Request) -> Answer:
        """The answer with the faults whose turn it is."""
        with self._lock:
            self.requests.append(request)
            self._news.notify_all()
            answer = self.correct_answer(request)
            for fault in (*self._faults.get(request.path, ()), *self._faults.get(ANYWHERE, ())):
                if fault.meets(request):
                    answer = fault.change(request, answer)
            if "ETag" in answer.headers and request.method == "GET" and reads(request):
                self.asked_bytes += len(answer.body)
        return answer

    def count(self, request: Request, size_bytes: int) -> None:
        """Called for each piece that has been sent."""
        with self._lock:
            self.sent_bytes += size_bytes
            self._news.notify_all()
            total = self.sent_bytes
            if self.pace_bytes_s < math.inf:
                # One after the other, so that the bound holds for all answers together.
                self.closing.wait(size_bytes / self.pace_bytes_s)
        self.on_sent(request, total)

    def correct_answer(self, request: Request) -> Answer:
        """What a server without faults would answer."""
        if request.path in self.resources:
            return self.resources[request.path].answer(request)
        for prefix, route in self.routes.items():
            if request.path.startswith(prefix):
                return route(request)
        return Answer(404)


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: FaultyServer
    tls: ssl.SSLContext | None

    def process_request(self, request: Any, client_address: Any) -> None:
        self.owner.count_connections(1)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.owner.count_connections(-1)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what these tests are about."""


class _Handler(socketserver.StreamRequestHandler):
    """One connection."""

    server: _Listener
    disable_nagle_algorithm = True

    def setup(self) -> None:
        if self.server.tls:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        super().finish()
        # The listener closes the connection that it accepted; the one within TLS is another object.
        self.request.close()

    def handle(self) -> None:
        while request := self._read_request():
            answer = self.server.owner.answer(request)
            if not self._send(request, answer):
                return

    def _read_request(self) -> Request | None:
        line = self.rfile.readline(65536).decode("latin-1")
        if not line:
            return None
        if not line.endswith("HTTP/1.1\r\n"):
            self.connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            return None
        method, target, _ = line.split(" ")
        headers: dict[str, str] = {}
        while line := self.rfile.readline(65536).decode("latin-1").strip():
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip()
            # RFC 9110, 5.3: a header that is repeated is a list.
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        body = self.rfile.read(int(headers.get("content-length", "0")))
        return Request(method, target, headers, body)

    def _send(self, request: Request, answer: Answer) -> bool:
        """Send an answer with its faults; false when the connection is of no further use."""
        body = memoryview(answer.body)
        has_body = request.method != "HEAD" and answer.status not in (204, 304)
        framing = {
            "length": {"Content-Length": str(len(body))},
            "chunked": {"Transfer-Encoding": "chunked"},
            "closed": {"Connection": "close"},
        }[answer.framing]
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        # RFC 9110, 15.4.5: a length in a 304 would be that of the file.
        headers = answer.headers | (framing if answer.status != 304 else {})
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if not has_body:
            return True
        stops = [at for at in (answer.reset_at, answer.stall_at, answer.end_at) if at is not None]
        self._send_body(request, body[: min(stops, default=len(body))], chunked=answer.framing == "chunked")
        if answer.reset_at is not None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(self.connection.detach())
            return False
        if answer.stall_at is not None:
            self._wait_for_the_client()
            return False
        if answer.end_at is not None:
            return False
        if answer.framing == "chunked":
            self.connection.sendall(b"0\r\n\r\n")
        self.connection.sendall(answer.surplus)
        return answer.framing != "closed"

    def _send_body(self, request: Request, body: memoryview, *, chunked: bool) -> None:
        for at in range(0, len(body), _PIECE_BYTES):
            piece = body[at : at + _PIECE_BYTES]
            self.connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            self.server.owner.count(request, len(piece))

    def _wait_for_the_client(self) -> None:
        """Until it goes away."""
        with suppress(OSError):
            while not self.server.owner.closing.is_set():
                if select.select([self.connection], [], [], 0.05)[0]:
                    return
