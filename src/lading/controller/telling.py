"""Telling people what became of a rollout: Events of Kubernetes, the log, and a metric."""

from collections.abc import Callable

from lading.controller.managed import Managed
from lading.controller.shown import Shown
from lading.errors import LadingError
from lading.events import Listener, RolloutTold
from lading.kubernetes.api_server import ApiServer
from lading.kubernetes.recorder import record
from lading.rollout.news import News

# The name of the controller, its Lease and its Events.
NAME = "lading-controller"


class Telling:
    """Tells as the process ``instance``; ``listen`` gives the listener for a rollout, "" for the controller itself."""

    def __init__(self, server: ApiServer, shown: Shown, listen: Callable[[str], Listener], instance: str) -> None:
        self._server, self._shown, self._listen, self._instance = server, shown, listen, instance

    def failed(self, rollout: str, reason: str, error: LadingError) -> None:
        """Log an error of a rollout, or of the controller itself ("")."""
        self._listen(rollout)(RolloutTold(rollout, reason, error.message))

    def tell(self, managed: Managed, news: News) -> None:
        """Record Events on the rollout and its service; they are only for people, so failures are not retried."""
        if news.reason == "RolledBack":
            self._shown.metrics.add("lading_rollout_rollbacks_total", rollout=managed.shown, reason=news.cause)
        self._listen(managed.shown)(RolloutTold(managed.shown, news.reason, news.message))
        for about in filter(None, (managed.rollout, managed.service)):
            try:
                record(
                    self._server,
                    about,
                    reason=news.reason,
                    action="Rollout",
                    note=news.message,
                    by=f"lading.dev/{NAME}",
                    instance=self._instance,
                    type_="Warning" if news.warning else "Normal",
                )
            except LadingError as error:
                self._shown.metrics.add("lading_rollout_failures_total", code=error.code)
