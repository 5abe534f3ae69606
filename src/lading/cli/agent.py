"""``lading agent``: keep the models of the configuration current, until it is stopped."""

import argparse

from lading.agent.loop import Agent
from lading.cli import output
from lading.cli.options import warn_of_variables
from lading.cli.reporters import reporter_of
from lading.errors import Interrupted, UsageError
from lading.network.native import told
from lading.settings.settings import Settings, config_path
from lading.settings.traces import read_traces
from lading.telemetry.otlp import sending
from lading.text.printable import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Keep every model under deliveries in lading.yaml current; health, metrics and a page at agent.port."
    )
    command.add_argument("--log-format", choices=("text", "json"), help="how events and errors are written")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    output.use_format(arguments.log_format)

    def load() -> Settings:
        settings = Settings.load(arguments.environ)
        output.use_format(arguments.log_format or settings.log_format)
        return settings

    settings = load()
    warn_of_variables(settings)
    wanted = read_traces(settings.variables)
    # The agent outlives the process that started it, so its cycles are not part of that trace.
    with sending(wanted, reporter_of(""), {}, settings.network) as send:
        agent = Agent(load, reporter_of, arguments.environ, send=send)
        if not agent.settings.deliveries:
            raise UsageError(
                "there are no deliveries to keep current",
                hint=f"list deliveries in {printable(str(config_path(arguments.environ)))}, as docs/agent.md shows",
            )
        try:
            with agent.endpoint() as endpoint, agent.scrubber().running():
                output.note(f"health, metrics and status page: {endpoint.url}")
                output.note(f"TLS by {told(settings.network)}")
                return agent.run()
        except (Interrupted, KeyboardInterrupt):
            # The agent runs until it is stopped, so that is no failure.
            output.note("stopped")
            return 0
