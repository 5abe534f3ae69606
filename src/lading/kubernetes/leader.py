"""One writer among several: whoever holds a Lease object, renews it in time, and stops where it cannot.

As client-go's leader election does it, on whose rules kubectl and people rely: https://pkg.go.dev/k8s.io/client-go/tools/leaderelection.
No clock of another machine is believed: a Lease has expired when nobody has written to it for its duration, as seen from here.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from lading.errors import LadingError, NotFound, Unavailable
from lading.kubernetes.api_server import ApiServer, Conflict, Object, Resource

LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")


class Terms(NamedTuple):
    """How long a Lease lasts without being renewed, how often that is tried, and when its holder gives up before others may take it."""

    duration_s: int = 60
    renew_s: float = 15.0
    give_up_s: float = 45.0


_TERMS = Terms()


class Leader:
    """Asks for the Lease, as ``identity``, which no other process may have.  Not for several threads.

    ``now`` gives seconds on a clock that never goes back; ``utc`` is for people alone.
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
        """Whether this one may write now; it must ask before each write."""
        return self._now() < self._until_s

    def ask(self) -> bool:
        """Take the Lease if it is free, renew it if it is held; whether it is held now.  To be called every ``renew_s``."""
        asked_s = self._now()
        try:
            held = self._take()
        except (Conflict, Unavailable):
            # Somebody was quicker, or nobody answers: what was held is held until its time is over.
            return self.holds()
        self._until_s = asked_s + self._terms.give_up_s if held else float("-inf")
        return held

    def release(self) -> None:
        """Let others take it at once; best effort, since it ends by itself."""
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
        except NotFound:
            about = {"name": self._name, "namespace": self._namespace}
            lease = {"apiVersion": LEASES.api, "kind": LEASES.kind, "metadata": about}
            self._server.create(LEASES, lease | {"spec": self._spec({})})
            return True
        spec = lease.get("spec") or {}
        if not self._may_take(lease["metadata"]["resourceVersion"], spec):
            return False
        # With the version that was read: of two, one gets a Conflict.
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
