"""Metrics for Prometheus, in its text format (https://prometheus.io/docs/instrumenting/exposition_formats/).

The agent needs little of the format, and a library would be one more to install (docs/adr/0010).
docs/metrics.md has the names and meanings, too.
"""

import threading
from collections.abc import Mapping
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(NamedTuple):
    """The type and meaning of a metric; all but those of the process and the store belong to a delivery."""

    kind: str
    help: str
    labels: tuple[str, ...] = ("delivery",)


METRICS = {
    "lading_build_info": Metric("gauge", "1, with the version of lading", ("version",)),
    "lading_configuration_ok": Metric("gauge", "1 while the configuration on disk is the one in use", ()),
    "lading_polls_total": Metric("counter", "cycles, by how they ended", ("delivery", "outcome")),
    "lading_failures_total": Metric("counter", "cycles that failed, by the kind of the error", ("delivery", "code")),
    "lading_ready": Metric("gauge", "1 while a verified version is in place"),
    "lading_version_info": Metric("gauge", "1, with the version in place", ("delivery", "version", "pin")),
    "lading_signer_info": Metric("gauge", "1, with who signed the version in place", ("delivery", "signer")),
    "lading_not_trusted_total": Metric("counter", "models that a rule of trust let pass with a warning"),
    "lading_version_since_timestamp_seconds": Metric("gauge", "when the version in place was put there"),
    "lading_last_success_timestamp_seconds": Metric("gauge", "when a cycle last found or made the delivery current"),
    "lading_model_bytes": Metric("gauge", "size of the version in place"),
    "lading_model_files": Metric("gauge", "files of the version in place"),
    "lading_received_bytes_total": Metric("counter", "bytes that came from origins"),
    "lading_delivery_seconds": Metric("gauge", "how long the last delivery took"),
    "lading_delivery_bytes_per_second": Metric("gauge", "rate of the last delivery"),
    "lading_retries_total": Metric("counter", "attempts that failed and were made again"),
    "lading_verification_failures_total": Metric("counter", "deliveries whose bytes did not match a digest"),
    "lading_switches_total": Metric("counter", "versions that were put in place"),
    "lading_rollbacks_total": Metric("counter", "versions that the server did not take"),
    "lading_store_supplied_files_total": Metric("counter", "files that the store had already"),
    "lading_store_supplied_bytes_total": Metric("counter", "bytes that the store had already"),
    "lading_store_materialized_total": Metric("counter", "models that came out of the store"),
    "lading_store_bytes": Metric("gauge", "what the store's files take", ()),
    "lading_store_models": Metric("gauge", "models in the store", ()),
    "lading_store_evictions_total": Metric("counter", "models that this process evicted from the store", ()),
    "lading_store_scrubbed_bytes_total": Metric("counter", "bytes of the store that were hashed again", ()),
    "lading_store_scrubbed_timestamp_seconds": Metric(
        "gauge", "since when every file of the store has been hashed once more", ()
    ),
    "lading_store_damaged_total": Metric("counter", "models of the store that were found damaged and set aside", ()),
    "lading_webhooks_total": Metric("counter", "webhooks, by whether they were believed", ("outcome",)),
}

_Labels = tuple[tuple[str, str], ...]


class Metrics:
    """The present values of all metrics.  Safe from any thread."""

    def __init__(self, known: Mapping[str, Metric] = METRICS) -> None:
        self._lock = threading.Lock()
        self._known = known
        self._values: dict[str, dict[_Labels, float]] = {name: {} for name in known}

    def add(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        key = tuple(labels.items())
        with self._lock:
            self._values[name][key] = self._values[name].get(key, 0.0) + value

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a value."""
        with self._lock:
            self._values[name][tuple(labels.items())] = value

    def only(self, name: str, **labels: str) -> None:
        """Set a value to 1 with these labels, and remove it with other labels of the same first one, the delivery."""
        key = tuple(labels.items())
        with self._lock:
            kept = {known: value for known, value in self._values[name].items() if known[0] != key[0]}
            self._values[name] = {**kept, key: 1.0}

    def remove(self, name: str, **label: str) -> None:
        """Remove a value with this first label, whatever its other labels are."""
        (first,) = label.items()
        with self._lock:
            self._values[name] = {key: value for key, value in self._values[name].items() if key[0] != first}

    def forget(self, name: str, label: str = "delivery") -> None:
        """Remove all values of a delivery that is no longer configured, or of another label's value."""
        gone = (label, name)
        with self._lock:
            for metric, values in self._values.items():
                self._values[metric] = {key: value for key, value in values.items() if gone not in key}

    def text(self) -> str:
        """All values in Prometheus' text format."""
        lines = []
        with self._lock:
            for name, metric in self._known.items():
                if self._values[name]:
                    lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
                for key, value in self._values[name].items():
                    labels = ",".join(f'{label}="{_escaped(text)}"' for label, text in key)
                    lines.append(f"{name}{{{labels}}} {value:.17g}" if labels else f"{name} {value:.17g}")
        return "\n".join([*lines, ""])


def _escaped(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
