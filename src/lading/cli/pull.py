"""``lading pull URI DEST``."""

import argparse

from lading.cli.options import (
    URI_HELP,
    Commands,
    add_output_options,
    add_source_options,
    add_transfer_options,
    load_settings,
    request_for,
)


def add_to(commands: Commands) -> None:
    command: argparse.ArgumentParser = commands.add_parser(
        "pull", help="bring a model to a folder", description="Bring the model at URI to the folder DEST."
    )
    command.add_argument("uri", metavar="URI", help=URI_HELP)
    command.add_argument("destination", metavar="DEST", help="the folder; made if it is not there")
    add_source_options(command)
    add_transfer_options(command)
    add_output_options(command, "print the manifest of what was delivered as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments)
    request = request_for(arguments, arguments.uri, arguments.destination)
    from lading.api import pull
    from lading.cli.output import show_json
    from lading.cli.reporters import reporter, tracing

    with reporter() as report, tracing(settings, [request.uri], report) as listener:
        manifest = pull(request.uri, request.destination, digest=arguments.digest, settings=settings, listener=listener)
    if arguments.json:
        show_json(manifest.to_json())
    return 0
