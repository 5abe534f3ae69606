"""``lading init --health-port``: a delivery answers probes, as an agent does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lading.agent.http_server import Endpoint
from lading.agent.metrics import Metrics
from lading.agent.page import Deliveries
from lading.agent.status import Status
from lading.events import Listener
from lading.model.uri import redact
from lading.settings.agent import Delivery, read_agent
from lading.settings.settings import Settings


@contextmanager
def telling(settings: Settings, pairs: Sequence[str], port: int) -> Iterator[Listener]:
    """Serve the state of a delivery of ``pairs`` at ``port`` in this block, like an agent; gives its listener."""
    own = read_agent(settings)._replace(port=port, mlflow_secret_file="")
    status = Status(Metrics())
    # All models share one transfer, and appear together, so they are shown as one delivery.
    name = "init"
    status.configure([Delivery(name, " ".join(map(redact, pairs[::2])), " ".join(pairs[1::2]))])
    status.change(name, doing="delivering")
    with Endpoint(own, Deliveries(status, lambda: settings.store), take_webhook=lambda *_: False):
        yield lambda event: status.hear(name, event)
