"""``lading resolve URI [DEST]``: what ``pull`` would bring, without bringing it."""

import argparse
import json
import sys
from pathlib import Path

from lading.cli.options import Commands, add_output_options, add_source_options, load_settings

_SHOWN_FILES = 20


def add_to(commands: Commands) -> None:
    command: argparse.ArgumentParser = commands.add_parser(
        "resolve",
        help="show what would be delivered",
        description="Show the pin behind URI: files, sizes, digests, the kind of credential, and whether it fits DEST.",
    )
    command.add_argument("uri", metavar="URI")
    command.add_argument(
        "destination", metavar="DEST", nargs="?", default=".", help="where it would go (default: here)"
    )
    add_source_options(command)
    add_output_options(command, "print it as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments)
    from lading.cli.output import size
    from lading.deliver import Request, Session, find
    from lading.disk import free_bytes
    from lading.events import ignore
    from lading.manifest import Digest
    from lading.uri import printable

    session = Session(settings, ignore)
    destination = Path(arguments.destination)
    finding = find(
        Request(arguments.uri, destination, Digest.parse(arguments.digest) if arguments.digest else None), session
    )
    listed, free = finding.listed, free_bytes(destination)
    fits = finding.needed_bytes <= free
    if arguments.json:
        report = {
            "requested": listed.requested,
            "resolved": listed.resolved,
            "registry": listed.registry,
            "version": listed.version,
            "metadata": dict(listed.metadata),
            "credential": finding.source.credential_kind,
            "files": [
                {
                    "path": file.path,
                    "size": file.size_bytes,
                    "validator": file.validator,
                    "digests": [str(digest) for digest in (*finding.vouched.get(file.path, ()), *file.declared)],
                }
                for file in listed.files
            ],
            "total_files": len(listed.files),
            "total_bytes": listed.size_bytes,
            "needed_bytes": finding.needed_bytes,
            "free_bytes": free,
            "fits": fits,
        }
        json.dump(report, sys.stdout, indent=1, ensure_ascii=False)
        print()
        return 0
    facts = [
        ("requested", listed.requested),
        ("resolved", listed.resolved),
        ("registry", listed.registry),
        ("version", listed.version),
        ("credential", finding.source.credential_kind),
        ("files", f"{len(listed.files)}, {size(listed.size_bytes)}"),
        ("fits", f"{'yes' if fits else 'no'}: needs {size(finding.needed_bytes)}, {size(free)} free"),
    ]
    for name, value in facts:
        if value:
            print(f"{name:11} {printable(value)}")
    for file in listed.files[:_SHOWN_FILES]:
        digests = ", ".join(str(digest) for digest in (*finding.vouched.get(file.path, ()), *file.declared))
        told = "size unknown" if file.size_bytes is None else size(file.size_bytes)
        print(f"  {told:>12}  {printable(file.path)}" + (f"  {digests}" if digests else ""))
    if len(listed.files) > _SHOWN_FILES:
        print(f"  and {len(listed.files) - _SHOWN_FILES} more (--json shows all)")
    return 0
