"""Sending traces: a thread gives them to OpenTelemetry's SDK, and nothing waits for it longer than a few seconds.

Only that thread loads the SDK and its exporter.  They read their own variables:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from lading import __version__
from lading.errors import UsageError
from lading.events import Listener, NotTraced
from lading.model.origin import split_url
from lading.model.uri import redact
from lading.network.client import HttpClient
from lading.retry import Retry, Run
from lading.settings.limits import Limits, Network
from lading.settings.traces import Traces

if TYPE_CHECKING:
    from opentelemetry.context import Context

Attributes = Mapping[str, str | int | float | bool]

_PROTOCOL = "http/protobuf"
# The time for an export with its retries, and the longest wait at the end of the process.
_SEND_S = 1.5
_LIMIT_BYTES = 256 * 1024
_PATIENCE_S = 2.0
# While the collector is unavailable, the newest traces are kept.
_MOST_WAITING = 100


class Note(NamedTuple):
    """An event of a span: something that happened at one moment (Unix time)."""

    name: str
    at_ns: int
    attributes: Attributes


class Step(NamedTuple):
    """A span, with its child spans (times are Unix time).  ``error_type`` is "" unless it failed."""

    name: str
    start_ns: int
    end_ns: int
    attributes: Attributes
    notes: Sequence[Note] = ()
    children: "Sequence[Step]" = ()
    error_type: str = ""
    error: str = ""


Send = Callable[[Step], None]


@contextmanager
def sending(wanted: Traces | None, listener: Listener, parent: Mapping[str, str], network: Network) -> Iterator[Send]:
    """Send traces while the block runs, and wait a little at its end.  A failure is reported once and raises nothing.

    If ``wanted`` is None, traces are dropped.  ``parent`` is the trace context of the parent, by the names of its
    headers, or empty; ``network`` says how to reach the collector.
    """
    if wanted is None:
        yield lambda _: None
        return
    outbox = _Outbox(wanted, listener, parent, network)
    try:
        yield outbox.put
    finally:
        outbox.close()


class _Outbox:
    def __init__(self, wanted: Traces, listener: Listener, parent: Mapping[str, str], network: Network) -> None:
        self._wanted, self._listener, self._parent, self._network = wanted, listener, parent, network
        self._waiting: deque[Step] = deque(maxlen=_MOST_WAITING)
        self._news = threading.Event()
        self._closing = self._failed = False
        self._thread = threading.Thread(target=self._guarded, name="lading-traces", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._warn("the system refuses to start a thread to send it with", "raise its limit: pids.max, ulimit -u")

    def put(self, step: Step) -> None:
        self._waiting.append(step)
        self._news.set()

    def close(self) -> None:
        self._closing = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_S)
        if self._thread.is_alive():
            self._warn(f"{redact(self._wanted.endpoint)} has not taken it within {_PATIENCE_S:g} s")

    def _guarded(self) -> None:
        """Run the SDK so that no error of it, such as in its variables, reaches the delivery."""
        try:
            if self._wanted.protocol not in ("", _PROTOCOL):
                hint = f"set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL to {_PROTOCOL}, and an endpoint that speaks it"
                self._warn(f"OTLP goes by {_PROTOCOL}, and {self._wanted.protocol} is asked for", hint)
            elif not self._wanted.endpoint.startswith(("http://", "https://")):
                self._warn("the endpoint of the collector is no URL", "write http://host:4318")
            else:
                if self._wanted.headers:
                    split_url(self._wanted.endpoint)[0].refuse_in_clear(self._wanted.headers)
                self._run()
        except UsageError as error:
            self._warn(error.message, error.hint)
        except ImportError:
            self._warn("the endpoint of a collector is set, and OpenTelemetry is missing", "pip install 'lading[otel]'")
        except Exception as error:  # noqa: BLE001 - its message could hold anything
            self._warn(f"OpenTelemetry fails with {type(error).__name__}", "check the variables that begin with OTEL_")

    def _run(self) -> None:
        collector = None
        while True:
            self._news.wait()
            self._news.clear()
            while self._waiting:
                # Only now: loading the SDK takes 0.2 s, which would slow the delivery down.
                collector = collector or _Collector(self._wanted.endpoint, self._parent, self._network)
                if collector.send(self._waiting.popleft()):
                    self._failed = False
                else:
                    self._warn(f"{redact(self._wanted.endpoint)} does not take it")
            if self._closing:
                if collector:
                    collector.close()
                return

    def _warn(self, why: str, hint: str = "") -> None:
        if not self._failed:
            self._failed = True
            self._listener(NotTraced(why, hint))


class _Response(NamedTuple):
    """The parts of a response that the exporter reads."""

    status_code: int
    reason: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


class _Session:
    """The part of a ``requests`` session that the exporter uses, on lading's own HTTP client: so certificates, proxies
    and addresses follow the same rules as everywhere.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        # The exporter sets them from its own variables: more trusted authorities, and the client's certificate.
        self.verify: bool | str = True
        self.cert: str | tuple[str, str] = ""
        self._client: HttpClient | None = None

    def request(
        self, *, method: str, url: str, headers: Mapping[str, str], data: bytes, timeout: float, allow_redirects: bool
    ) -> _Response:
        with self._http(timeout).open(method, url, list(headers.items()), body=data, redirects=0) as answer:
            head, body = answer.head, answer.read(_LIMIT_BYTES)
        return _Response(head.status, "", head.headers, body)

    def _http(self, timeout_s: float) -> HttpClient:
        if self._client is None:
            certificate, key = (self.cert, "") if isinstance(self.cert, str) else self.cert
            network = self._network._replace(client_certificate=certificate, client_key=key)
            if isinstance(self.verify, str):
                network = network._replace(ca_files=(*network.ca_files, self.verify))
            limits = Limits(connect_s=timeout_s, stall_s=timeout_s)
            self._client = HttpClient(network, limits, Retry(Run(threading.Event())), buffer_bytes=_LIMIT_BYTES)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


class _Collector:
    """The SDK, without its global state: spans are made after all of them have ended, and sent at once."""

    def __init__(self, endpoint: str, parent: Mapping[str, str], network: Network) -> None:
        import logging

        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # The exporter logs every attempt with the collector's response.
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        named = Resource({"service.name": "lading", "service.version": __version__}).merge(
            OTELResourceDetector().detect()
        )
        # A configured detector may report the command line, which may hold a password.
        found = Resource.create().attributes.items()
        about = Resource({name: value for name, value in found if not name.startswith("process.")}).merge(named)
        provider = TracerProvider(resource=about, shutdown_on_exit=False)
        self._ended = InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(self._ended))
        self._tracer = provider.get_tracer("lading", __version__)
        self._session = _Session(network)
        # Not typed as its class: everything that the exporter uses of a session is in _Session.
        session: Any = self._session
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_SEND_S, session=session)
        self._parent = TraceContextTextMapPropagator().extract(dict(parent))

    def send(self, step: Step) -> bool:
        """Send a trace; whether the collector accepted it, or it is not sampled."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        self._span(step, self._parent)
        spans = self._ended.get_finished_spans()
        self._ended.clear()
        return not spans or self._exporter.export(spans) is SpanExportResult.SUCCESS

    def close(self) -> None:
        self._session.close()

    def _span(self, step: Step, context: "Context") -> None:
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        span = self._tracer.start_span(step.name, context, attributes=step.attributes, start_time=step.start_ns)
        within = set_span_in_context(span, context)
        for child in step.children:
            self._span(child, within)
        for note in step.notes:
            span.add_event(note.name, note.attributes, note.at_ns)
        if step.error_type:
            span.set_attribute("error.type", step.error_type)
            span.set_status(Status(StatusCode.ERROR, step.error))
        span.end(step.end_ns)
