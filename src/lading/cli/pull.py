"""``lading pull URI DEST``."""

import argparse
import sys
from pathlib import Path

from lading.cli.options import Commands, add_output_options, add_source_options, load_settings


def add_to(commands: Commands) -> None:
    command: argparse.ArgumentParser = commands.add_parser(
        "pull", help="bring a model to a folder", description="Bring the model at URI to the folder DEST."
    )
    command.add_argument("uri", metavar="URI", help="s3://…, https://…, file://…, a path, or model-registry://…")
    command.add_argument("destination", metavar="DEST", help="the folder; made if it is not there")
    add_source_options(command)
    add_output_options(command, "print the manifest")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments)
    from lading.api import pull
    from lading.cli.output import reporter

    manifest = pull(
        arguments.uri,
        Path(arguments.destination),
        digest=arguments.digest,
        settings=settings,
        listener=reporter(),
    )
    if arguments.json:
        sys.stdout.write(manifest.dumps())
    return 0
