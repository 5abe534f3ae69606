"""A collector: takes OTLP over HTTP, as protobuf, and reads it with OpenTelemetry's own messages.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import gzip
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from fakes.faulty_http import Answer, FaultyServer, Request


@dataclass
class Told:
    """One span as it came, with the spans below it in the order of their beginnings."""

    span: Span
    resource: dict[str, Any]
    children: list["Told"] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def attributes(self) -> dict[str, Any]:
        return _values(self.span.attributes)

    @property
    def notes(self) -> dict[str, dict[str, Any]]:
        return {event.name: _values(event.attributes) for event in self.span.events}

    @property
    def error(self) -> tuple[str, str] | None:
        """The kind and the words of the error; None without one."""
        if self.span.status.code != Status.STATUS_CODE_ERROR:
            return None
        return self.attributes["error.type"], self.span.status.message

    @property
    def steps(self) -> list[str]:
        return [child.name for child in self.children]

    def step(self, name: str) -> "Told":
        return next(child for child in self.children if child.name == name)


class FakeOtlp:
    """Listens at ``/v1/traces`` of the server; ``raw`` is every body that came."""

    def __init__(self, server: FaultyServer) -> None:
        self.server, self.url = server, server.url
        self.raw: list[bytes] = []
        self._spans: list[Told] = []
        server.routes["/v1/traces"] = self._take

    def traces(self) -> list[Told]:
        """The spans whose parent did not come, each with its tree."""
        known = {each.span.span_id: each for each in self._spans}
        for each in known.values():
            each.children = sorted(
                (below for below in self._spans if below.span.parent_span_id == each.span.span_id),
                key=lambda below: below.span.start_time_unix_nano,
            )
        return [each for each in self._spans if each.span.parent_span_id not in known]

    def trace(self) -> Told:
        """The only one."""
        (one,) = self.traces()
        return one

    def _take(self, request: Request) -> Answer:
        if request.method != "POST":
            return Answer(405)
        if request.headers.get("content-type") != "application/x-protobuf":
            return Answer(415)
        body = gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
        self.raw.append(body)
        try:
            told = ExportTraceServiceRequest.FromString(body)
        except DecodeError:
            return Answer(400)
        for of_resource in told.resource_spans:
            about = _values(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self._spans += [Told(span, about) for span in of_scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return Answer(200, {"Content-Type": "application/x-protobuf"}, answer)


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
