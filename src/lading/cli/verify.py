"""``lading verify DEST``."""

import argparse
from pathlib import Path

from lading.cli.options import add_output_options
from lading.cli.output import show, show_json, use_format
from lading.destination.audit import audit, require_clean
from lading.text.printable import printable
from lading.text.units import count, size


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = "Hash every file in DEST again; names missing, extra and changed ones."
    command.add_argument("destination", metavar="DEST", help="a folder that lading delivered to")
    add_output_options(command, "print the result as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    use_format(arguments.log_format)
    result = audit(Path(arguments.destination))
    manifest = result.manifest
    if arguments.json:
        show_json(
            {
                "ok": result.is_clean,
                "missing": result.missing,
                "extra": result.extra,
                "changed": result.changed,
                "total_files": len(manifest.files),
                "total_bytes": manifest.size_bytes,
                "digest": str(manifest.digest),
            }
        )
    require_clean(result)
    if not arguments.json:
        files = count(len(manifest.files), "file")
        show(f"ok: {files}, {size(manifest.size_bytes)}, as delivered from {printable(manifest.resolved)}")
        show(f"    {manifest.digest}")
    return 0
