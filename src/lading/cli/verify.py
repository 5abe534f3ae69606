"""``lading verify DEST``."""

import argparse
import json
from pathlib import Path

from lading.cli.options import Commands, add_output_options


def add_to(commands: Commands) -> None:
    command: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="check that a folder still holds what was delivered",
        description="Hash every file in DEST again; names missing, extra and changed ones.",
    )
    command.add_argument("destination", metavar="DEST")
    add_output_options(command, "print the result as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from lading.audit import audit, require_clean
    from lading.cli.output import size, use_format
    from lading.uri import printable

    use_format(arguments.log_format)
    result = audit(Path(arguments.destination))
    if arguments.json:
        print(
            json.dumps(
                {
                    "ok": result.is_clean,
                    "missing": result.missing,
                    "extra": result.extra,
                    "changed": result.changed,
                    "digest": str(result.manifest.digest),
                },
                ensure_ascii=False,
            )
        )
    require_clean(result)
    if not arguments.json:
        manifest = result.manifest
        print(f"ok: {len(manifest.files)} files, {size(manifest.size_bytes)} are as delivered ({manifest.digest})")
        print(f"    from {printable(manifest.resolved)}")
    return 0
