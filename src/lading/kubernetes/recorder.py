"""Events: what ``kubectl describe`` and ``kubectl events`` show of an object (events.k8s.io/v1).

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/.
"""

import hashlib
from datetime import UTC, datetime
from typing import Literal

from lading.kubernetes.api_server import ApiServer, Object, Resource
from lading.kubernetes.refused import Conflict
from lading.text.printable import printable

EVENTS = Resource("events.k8s.io/v1", "events", "Event")
# The server's limit.
_MOST_NOTE = 1024
_MOST_NAME = 200

EventType = Literal["Normal", "Warning"]


def record(
    server: ApiServer,
    about: Object,
    *,
    reason: str,
    action: str,
    note: str,
    by: str,
    instance: str,
    type_: EventType = "Normal",
) -> None:
    """Record an Event about the object ``about``: ``reason`` and ``action`` in CamelCase, ``note`` for people.

    ``by`` is the name of the controller, ``instance`` that of its process.  The same Event again raises its count.
    """
    regarding = {"apiVersion": about["apiVersion"], "kind": about["kind"]}
    regarding |= {key: about["metadata"][key] for key in ("namespace", "name", "uid", "resourceVersion")}
    note = printable(note)[:_MOST_NOTE]
    said = "\n".join((regarding["uid"], by, instance, reason, action, note))
    name = f"{regarding['name'][:_MOST_NAME]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    event = {
        "apiVersion": EVENTS.api,
        "kind": EVENTS.kind,
        "metadata": {"name": name, "namespace": regarding["namespace"]},
        "eventTime": now,
        "reportingController": by,
        "reportingInstance": instance,
        "action": action,
        "reason": reason,
        "regarding": regarding,
        "note": note,
        "type": type_,
    }
    try:
        server.create(EVENTS, event)
    except Conflict:
        there = server.get(EVENTS, name, regarding["namespace"])
        count = int((there.get("series") or {}).get("count") or 1) + 1
        server.patch(EVENTS, there, {"series": {"count": count, "lastObservedTime": now}})
