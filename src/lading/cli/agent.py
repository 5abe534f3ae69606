"""``lading agent``: keep the models of the configuration current, until it is stopped."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from lading.agent.loop import Agent
from lading.cli import output
from lading.cli.options import read_settings
from lading.cli.reporters import reporter_of, reporter_of_outages
from lading.errors import Interrupted, LadingError, UsageError
from lading.events import Failed
from lading.network.native import told
from lading.session import Session
from lading.settings.kubernetes import read_access
from lading.settings.settings import Settings, config_path
from lading.settings.traces import read_traces
from lading.system.threads import start_daemon
from lading.telemetry.otlp import sending
from lading.text.printable import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Keep every model under deliveries in lading.yaml current; health, metrics and a page at agent.port."
    )
    command.add_argument("--log-format", choices=("text", "json"), help="how events and errors are written")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = read_settings(arguments)
    wanted = read_traces(settings.variables)
    # The agent outlives the process that started it, so its cycles are not part of that trace.
    with sending(wanted, reporter_of(""), {}, settings.network) as send:
        agent = Agent(lambda: Settings.load(arguments.environ), reporter_of, arguments.environ, send=send)
        if not (agent.settings.deliveries or agent.settings.prefetch):
            raise UsageError(
                "there are no deliveries to keep current",
                hint=f"list deliveries in {printable(str(config_path(arguments.environ)))}, as docs/agent.md shows",
            )
        try:
            with _following_rollouts(agent, settings), agent.endpoint() as endpoint, agent.scrubber().running():
                output.note(f"health, metrics and status page: {endpoint.url}")
                output.note(f"TLS by {told(settings.network)}")
                return agent.run()
        except (Interrupted, KeyboardInterrupt):
            # The agent runs until it is stopped, so that is no failure.
            output.note("stopped")
            return 0


@contextmanager
def _following_rollouts(agent: Agent, settings: Settings) -> Iterator[None]:
    """Let the agent make the deliveries of the cluster's rollouts, if the configuration asks for it."""
    if agent.settings.prefetch is None:
        yield
        return
    # Here, and not above: few agents follow rollouts.
    from lading.agent.prefetch import Prefetching
    from lading.kubernetes.api_server import ApiServer

    def failed(error: LadingError) -> None:
        reporter_of("")(Failed("", error.code, error.message, error.hint))

    forever = settings._replace(limits=settings.limits._replace(deadline_s=0))
    with Session(forever, reporter_of_outages()) as session:
        server = ApiServer(read_access(settings.variables, settings.network), session.http)
        prefetching = Prefetching(agent.settings.prefetch, server, changed=agent.wake, failed=failed)
        agent.follow_rollouts(prefetching.deliveries)
        start_daemon("watch-rollouts", prefetching.run)
        try:
            yield
        finally:
            session.run.stop.set()
