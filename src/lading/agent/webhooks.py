"""Webhooks of MLflow: each makes the agent ask at once, and its content is not read.

MLflow signs ``delivery id.timestamp.body`` with HMAC-SHA256 (https://mlflow.org/docs/latest/ml/webhooks/).
"""

import base64
import hashlib
import hmac
import threading
from collections.abc import Callable, Mapping

from lading.agent.metrics import Metrics
from lading.errors import LadingError
from lading.system.disk import read_secret_file

_WINDOW_S = 300.0
_MOST_IDS = 10_000
_MOST_ID_CHARACTERS = 200


class Webhooks:
    """Accepts webhooks that are signed with the secret in a file, are recent, and were not received before."""

    def __init__(self, secret_file: str, unix_time: Callable[[], float], metrics: Metrics) -> None:
        self._secret_file, self._unix_time, self._metrics = secret_file, unix_time, metrics
        self._lock = threading.Lock()
        self._ids: dict[str, float] = {}

    def accept(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a webhook with these headers (by lower-case name) is accepted."""
        believed = self._is_genuine(headers, body)
        self._metrics.add("lading_webhooks_total", outcome="believed" if believed else "refused")
        return believed

    def _is_genuine(self, headers: Mapping[str, str], body: bytes) -> bool:
        identifier, moment = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
        if not self._secret_file or not 0 < len(identifier) <= _MOST_ID_CHARACTERS:
            return False
        if not (moment.isascii() and moment.isdigit() and len(moment) < 16):
            return False
        now_s = self._unix_time()
        try:
            # It is read each time, since it may have been rotated.
            secret = read_secret_file(self._secret_file).encode()
        except LadingError:
            return False
        signed = f"{identifier}.{moment}.".encode("utf-8", "surrogateescape") + body
        expected = b"v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest())
        given = headers.get("x-mlflow-signature", "").encode("utf-8", "surrogateescape")
        if not secret or not hmac.compare_digest(expected, given) or abs(now_s - int(moment)) > _WINDOW_S:
            return False
        with self._lock:
            # An id may be forgotten after the window, when its time is refused; if there are too many, new ones are
            # refused.
            self._ids = {known: until_s for known, until_s in self._ids.items() if until_s > now_s}
            if identifier in self._ids or len(self._ids) >= _MOST_IDS:
                return False
            self._ids[identifier] = now_s + 2 * _WINDOW_S
        return True
