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
    from pathlib import Path

    from lading.cli.demo_story import tell
    from lading.errors import UsageError
    from lading.text.printable import printable

    examples = Path(arguments.examples).absolute()
    if not (examples / "catalog.yaml").is_file() or not (examples / "iris/v2").is_dir():
        raise UsageError(
            f"{printable(arguments.examples)} does not hold the example models",
            hint="run it in a checkout of lading, or name their folder by --examples DIR",
        )
    tell(examples, shown_as=arguments.examples)
    return 0
