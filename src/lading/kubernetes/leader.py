"""Leader election: the process that holds a Lease object is the writer; it renews the Lease in time, or stops.

The rules are those of client-go, on which kubectl and people rely:
https://pkg.go.dev/k8s.io/client-go/tools/leaderelection.
Clocks of other machines do not count: a Lease has expired when this process has seen no change of it for its duration.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from lading.errors import LadingError, Unavailable
from lading.kubernetes.api_server import ApiServer, Object, Resource
from lading.kubernetes.refused import Missing

LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")


class Terms(NamedTuple):
    """Times of a Lease: how long it lasts, how often it is renewed, and when a holder that cannot renew it stops.

    A holder stops well before others may take the Lease.
    """

    duration_s: int = 60
    renew_s: float = 15.0
    give_up_s: float = 45.0


_TERMS = Terms()


class Leader:
    """Takes and renews the Lease as ``identity``, which no other process may have.  Not safe for several threads.

    ``utc`` gives the times in the Lease, which only people read.
    """

    def __init__(
        self,
        server: ApiServer,
        name: str,
        namespace: str,
        identity: str,
        terms: Terms = _TERMS,
        *,
        utc: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._server = server
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._terms = terms
        self._now = server.http.retry.run.clock.now
        self._utc = utc
        self._seen = ""
        self._seen_s = 0.0
        self._until_s = float("-inf")

    def holds(self) -> bool:
        """Whether this process may write now; to be asked before each write."""
        return self._now() < self._until_s

    def ask(self) -> bool:
        """Take the Lease if it is free, or renew it; whether this process holds it.  To be called every ``renew_s``."""
        asked_s = self._now()
        try:
            held = self._take()
        except LadingError as error:
            # Another process was quicker, or the server is unavailable: a Lease that was held stays valid for its time.
            # Until then, whatever else goes wrong may pass, too: a server that starts refuses what it will allow.
            if isinstance(error, Unavailable) or self.holds():
                return self.holds()
            raise
        self._until_s = asked_s + self._terms.give_up_s if held else float("-inf")
        return held

    def release(self) -> None:
        """Let others take the Lease at once; best effort, since it expires by itself."""
        if not self.holds():
            return
        self._until_s = float("-inf")
        try:
            lease = self._server.get(LEASES, self._name, self._namespace)
            if lease["spec"].get("holderIdentity") == self._identity:
                self._server.replace(LEASES, lease | {"spec": lease["spec"] | {"holderIdentity": ""}})
        except LadingError:
            return

    def _take(self) -> bool:
        try:
            lease = self._server.get(LEASES, self._name, self._namespace)
        except Missing:
            about = {"name": self._name, "namespace": self._namespace}
            lease = {"apiVersion": LEASES.api, "kind": LEASES.kind, "metadata": about}
            self._server.create(LEASES, lease | {"spec": self._spec({})})
            return True
        spec = lease.get("spec") or {}
        if not self._may_take(lease["metadata"]["resourceVersion"], spec):
            return False
        # It has the version that was read: if two processes try, one gets a Conflict.
        self._server.replace(LEASES, lease | {"spec": self._spec(spec)})
        return True

    def _may_take(self, version: str, spec: Object) -> bool:
        if version != self._seen:
            self._seen, self._seen_s = version, self._now()
        holder = spec.get("holderIdentity") or ""
        return holder in ("", self._identity) or self._now() >= self._seen_s + float(
            spec.get("leaseDurationSeconds") or 0
        )

    def _spec(self, was: Object) -> Object:
        now = f"{self._utc():%Y-%m-%dT%H:%M:%S.%fZ}"
        is_ours = was.get("holderIdentity") == self._identity
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._terms.duration_s,
            "acquireTime": was.get("acquireTime", now) if is_ours else now,
            "renewTime": now,
            "leaseTransitions": int(was.get("leaseTransitions") or 0) + (bool(was) and not is_ours),
        }
