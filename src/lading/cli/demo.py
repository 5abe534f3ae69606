"""``lading demo``: the main job on this machine alone, then the same with a damaged byte."""

import argparse

from lading.cli.options import Commands


def add_to(commands: Commands) -> None:
    command: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="show the main job without network or account",
        description="Serve the example model on loopback, deliver it by its registry name, then damage a byte of it.",
    )
    command.add_argument(
        "--examples", default="examples", metavar="DIR", help="the example models (default: ./examples)"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    raise NotImplementedError
