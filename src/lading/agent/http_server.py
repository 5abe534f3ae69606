"""The HTTP server for probes, metrics, the page and webhooks.

    GET /healthz   200 while the process answers
    GET /startupz  200 once every delivery had its first cycle, else 503 and the names of the others
    GET /readyz    200 while every delivery has a verified version in place, else 503 and the names of the others
    GET /metrics   Prometheus' text format
    GET /          the status page
    POST /hooks/mlflow   a webhook of MLflow

The controller uses it, too, with rollouts in the place of deliveries.  No request can name a URI or a path.
Probes need no token, since a kubelet sends none with them; all else needs the token, if one is configured.  Time,
bytes and threads for requests are limited.  When all threads are busy, the oldest connection is closed for a new
one, so that slow clients cannot block probes.
"""

import contextlib
import errno
import hmac
import http.server
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, Self

from lading.agent.metrics import CONTENT_TYPE, Metrics
from lading.errors import LadingError, UsageError
from lading.settings.agent import AgentSettings
from lading.system.disk import read_secret_file
from lading.system.threads import no_thread, start_thread
from lading.text.printable import printable

if TYPE_CHECKING:
    import ssl

_MOST_AT_A_TIME = 16
_MOST_S = 10.0
_MAKE_ROOM_S = 1.0
_STALL_S = 5.0
_LIMIT_BYTES = 1 << 20
_LOOK_EVERY_S = 0.5
_PLAIN = "text/plain; charset=utf-8"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

TakeWebhook = Callable[[Mapping[str, str], bytes], bool]


class Shown(Protocol):
    """The data that the server shows; called from any thread."""

    @property
    def metrics(self) -> Metrics: ...

    def unstarted(self) -> list[str]:
        """The names of all that had no first cycle yet."""
        ...

    def unready(self) -> list[str]:
        """The names of all that is not ready."""
        ...

    def page(self, now_s: float) -> tuple[str, str]:
        """The page in HTML at this Unix time, and its Content-Security-Policy."""
        ...


class Endpoint:
    """Listens from when it is made, answers within its ``with`` block; ``port`` is the one that it has."""

    def __init__(self, settings: AgentSettings, shown: Shown, *, take_webhook: TakeWebhook) -> None:
        try:
            self._server = _Server((settings.listen, settings.port), _Handler, settings, shown, take_webhook)
        except OSError as error:
            raise _cannot_listen(error, settings) from error
        self.port: int = self._server.server_address[1]
        host = f"[{settings.listen}]" if ":" in settings.listen else settings.listen
        self.url = f"{'https' if settings.certificate else 'http'}://{host}:{self.port}/"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_LOOK_EVERY_S,), name="lading-endpoint", daemon=True
        )
        if not start_thread(self._thread):
            self._server.server_close()
            raise no_thread("to answer probes with")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _cannot_listen(error: OSError, settings: AgentSettings) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {settings.port} of {printable(settings.listen)} is taken",
            hint="set agent.port in lading.yaml, or --health-port of lading init, to a free one",
        )
    return UsageError(
        f"cannot listen at {printable(settings.listen)}:{settings.port}: {error.strerror or error}",
        hint="agent.listen must be an address of this machine, and a port below 1024 may need root",
    )


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[socketserver.BaseRequestHandler],
        settings: AgentSettings,
        shown: Shown,
        take_webhook: TakeWebhook,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.settings, self.shown, self.take_webhook = settings, shown, take_webhook
        self._free = threading.Condition()
        # The oldest first, each with a second handle: TLS detaches the first one.
        self._open: dict[socket.socket, tuple[float, socket.socket]] = {}
        self._context: ssl.SSLContext | None = None
        self._stamps: object = None
        if settings.certificate:
            self.tls()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._free:
            if not self._has_room():
                self._end_oldest()
                # The thread of the oldest notices at once, unless it is busy.
                self._free.wait_for(self._has_room, _MAKE_ROOM_S)
            full = not self._has_room()
            if not full:
                self._open[request] = time.monotonic() + _MOST_S, request.dup()
        if full:
            request.settimeout(0.1)
            if not self.settings.certificate:
                with contextlib.suppress(OSError):
                    request.sendall(_FULL)
            super().shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def _has_room(self) -> bool:
        return len(self._open) < _MOST_AT_A_TIME

    def _end_oldest(self) -> None:
        request = next(iter(self._open))
        # It moves to the end: if its thread is busy, the next call ends another one.
        self._open[request] = self._open.pop(request)
        _end(self._open[request][1])

    def shutdown_request(self, request: Any) -> None:
        with self._free:
            _, handle = self._open.pop(request, (0.0, None))
            if handle is not None:
                handle.close()
                self._free.notify()
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close connections that take too long: a client that sends a byte now and then blocks a thread for ever."""
        now_s = time.monotonic()
        with self._free:
            for until_s, handle in self._open.values():
                if until_s < now_s:
                    _end(handle)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: clients that disconnect, or speak no HTTP, are normal."""

    def tls(self) -> "ssl.SSLContext":
        """The TLS context, made again if the certificate has changed: the next connection uses a rotated one."""
        import ssl

        from lading.network.tls import load_certificate, stamp

        files = self.settings.certificate, self.settings.key
        stamps = tuple(map(stamp, files))
        if self._context is None or stamps != self._stamps:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            try:
                load_certificate(context, "the certificate", *files)
            except UsageError:
                if self._context is None:
                    raise
            else:
                self._context, self._stamps = context, stamps
        return self._context


def _end(handle: socket.socket) -> None:
    with contextlib.suppress(OSError):
        handle.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: _Server
    timeout = _STALL_S
    server_version, sys_version = "lading", ""

    def setup(self) -> None:
        if self.server.settings.certificate:
            self.request.settimeout(_STALL_S)
            self.request = self.server.tls().wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            if self.server.settings.certificate:
                # The server closes only the original socket, not the one with TLS.
                self.request.close()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        shown = self.server.shown
        if path == "/healthz":
            self._answer(HTTPStatus.OK, "ok\n")
        elif path == "/startupz":
            self._probe(shown.unstarted())
        elif path == "/readyz":
            self._probe(shown.unready())
        elif path not in ("/", "/metrics"):
            self._answer(HTTPStatus.NOT_FOUND, "not found\n")
        elif not self._is_allowed():
            self._answer(HTTPStatus.UNAUTHORIZED, "a token is needed\n", headers=[("WWW-Authenticate", "Bearer")])
        elif path == "/metrics":
            self._answer(HTTPStatus.OK, shown.metrics.text(), CONTENT_TYPE)
        else:
            text, policy = shown.page(time.time())
            self._answer(HTTPStatus.OK, text, "text/html; charset=utf-8", [("Content-Security-Policy", policy)])

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/hooks/mlflow":
            self._answer(HTTPStatus.NOT_FOUND, "not found\n")
        elif not (length.isascii() and length.isdigit() and len(length) < 10):
            self._answer(HTTPStatus.LENGTH_REQUIRED, "a length is needed\n")
        elif int(length) > _LIMIT_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long\n")
        else:
            body = self.rfile.read(int(length))
            headers = {name.lower(): value for name, value in self.headers.items()}
            believed = len(body) == int(length) and self.server.take_webhook(headers, body)
            # The answer does not say what is wrong with it.
            self._answer(HTTPStatus.OK if believed else HTTPStatus.FORBIDDEN, "thanks\n" if believed else "refused\n")

    def _probe(self, lacking: list[str]) -> None:
        if not lacking:
            self._answer(HTTPStatus.OK, "ok\n")
        else:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"waiting for {', '.join(lacking)}\n")

    def _is_allowed(self) -> bool:
        if not self.server.settings.token_file:
            return True
        try:
            # It is read each time, since it may have been rotated.
            token = read_secret_file(self.server.settings.token_file)
        except LadingError:
            return False
        given = self.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return bool(token) and hmac.compare_digest(f"Bearer {token}".encode(), given)

    def _answer(
        self, status: HTTPStatus, text: str, kind: str = _PLAIN, headers: list[tuple[str, str]] | None = None
    ) -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        about = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        for name, value in (*about, ("X-Content-Type-Options", "nosniff"), *(headers or ())):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: probes come every few seconds, and events are logged elsewhere."""
