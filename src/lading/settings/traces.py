"""Whether traces are asked for, and where they go: OpenTelemetry's variables.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/, …/configuration/sdk-environment-variables/ and
…/context/env-carriers/.  Those of the SDK itself (names, sampling, headers, certificates) the SDK reads.
"""

from collections.abc import Mapping
from typing import NamedTuple

from lading.settings.variables import Variables


class Traces(NamedTuple):
    """The URL of the collector, the protocol, and the name of the variable with its headers; "" if not configured."""

    endpoint: str
    protocol: str = ""
    headers: str = ""


def read_traces(variables: Variables) -> Traces | None:
    """Read where traces are sent; None unless an endpoint is set and nothing turns them off."""
    base = variables.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    # A path is added only to the endpoint that serves every kind of telemetry.
    endpoint = variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip() or (
        f"{base.removesuffix('/')}/v1/traces" if base else ""
    )
    exporters = variables.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    # By the specification only "true" is true, and any other word is not an error.
    is_off = variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not endpoint or is_off or "otlp" not in (name.strip() for name in exporters.split(",")):
        return None
    protocol = variables.first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL").strip()
    headers = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
    return Traces(endpoint, protocol, next((name for name in headers if variables.get(name)), ""))


def read_parent(variables: Variables) -> Mapping[str, str]:
    """The trace context that the parent process passed on, by the names of its headers."""
    return {name: text for name in ("traceparent", "tracestate") if (text := variables.get(name.upper()))}
