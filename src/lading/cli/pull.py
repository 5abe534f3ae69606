"""``lading pull URI DEST``."""

import argparse
from collections.abc import Sequence

from lading.cli.options import (
    URI_HELP,
    add_choice_options,
    add_output_options,
    add_transfer_options,
    add_verify_options,
    load_settings,
    request_for,
)
from lading.cli.output import show_json
from lading.cli.reporters import reporter, tracing
from lading.deliver import deliver
from lading.delivery.request import Request
from lading.events import Event, Listener
from lading.model.manifest import Manifest
from lading.session import Session
from lading.settings.settings import Settings


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = "Deliver the model at URI to the folder DEST."
    command.add_argument("uri", metavar="URI", help=URI_HELP)
    command.add_argument("destination", metavar="DEST", help="the folder; created if it does not exist")
    add_choice_options(command)
    add_verify_options(command)
    add_transfer_options(command)
    add_output_options(command, "print the manifest of what was delivered as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments)
    request = request_for(arguments, arguments.uri, arguments.destination)

    (manifest,) = deliver_aloud([request], settings)
    if arguments.json:
        show_json(manifest.to_json())
    return 0


def deliver_aloud(requests: Sequence[Request], settings: Settings, hear: Listener | None = None) -> list[Manifest]:
    """Deliver the requested models, and report the events; ``hear`` gets the same events."""
    uris = [request.uri for request in requests]
    with reporter(*uris) as report, tracing(settings, uris, report) as tell:

        def listener(event: Event) -> None:
            if hear is not None:
                hear(event)
            tell(event)

        with Session(settings, listener) as session:
            return deliver(requests, session)
