"""Versions that the rollouts of a cluster want on its nodes: each is a delivery that the agent keeps in its store.

The agent only reads ModelRollouts.  A candidate is there to read from the moment it is found, so the nodes have the
time of its hold to fetch it; no rollout waits for a node.
"""

import hashlib
from collections.abc import Callable

from lading.errors import LadingError
from lading.kubernetes.api_server import ApiServer
from lading.kubernetes.rollouts import ROLLOUTS
from lading.kubernetes.watched import Watched
from lading.rollout.on_nodes import wanted_on_nodes
from lading.settings.agent import Delivery, Prefetch

# They are kept, whatever else the store has to evict.
_MOST = 100


class Prefetching:
    """Follows ModelRollouts in the thread that calls ``run``; ``changed`` is called there after each change."""

    def __init__(
        self,
        settings: Prefetch,
        server: ApiServer,
        *,
        changed: Callable[[], None],
        failed: Callable[[LadingError], None],
    ) -> None:
        self._settings, self._server, self._failed = settings, server, failed
        self._watched = Watched(lambda _: changed())

    def run(self) -> None:
        """Follow until the run is stopped."""
        own = self._settings
        self._watched.watch(self._server, ROLLOUTS, own.namespace, self._failed, labels=own.labels)

    def deliveries(self) -> tuple[Delivery, ...] | None:
        """The deliveries that are wanted now; None before all rollouts were listed."""
        if not self._watched.is_listed:
            return None
        rollouts = sorted(self._watched.all().items())
        pins = wanted_on_nodes(rollout.get("status") or {} for _, rollout in rollouts)
        return tuple(Delivery(_name(pin), pin) for pin in pins[:_MOST])


def _name(pin: str) -> str:
    return f"rollout-{hashlib.sha256(pin.encode()).hexdigest()[:16]}"
