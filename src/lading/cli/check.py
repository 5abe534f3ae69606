"""``lading check URI DEST``: will ``pull`` work?  Answers in seconds, and moves one byte at most."""

import argparse
import json
import os
from pathlib import Path

from lading.cli.options import Commands, add_output_options, add_source_options, load_settings


def add_to(commands: Commands) -> None:
    command: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="find out in seconds whether a delivery will work",
        description="Check that URI is reachable, allowed and there, and that it fits DEST, which can be written.",
    )
    command.add_argument("uri", metavar="URI")
    command.add_argument("destination", metavar="DEST")
    add_source_options(command)
    add_output_options(command, "print the result as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:

    settings = load_settings(arguments)
    from lading.cli.output import size
    from lading.deliver import Request, Session, find
    from lading.disk import free_bytes
    from lading.errors import NoSpace, NotAllowed
    from lading.events import ignore
    from lading.manifest import Digest
    from lading.spans import Span
    from lading.uri import printable

    # An answer now is worth more than the right answer in minutes.
    settings = settings._replace(limits=settings.limits._replace(attempts=2, stall_s=min(settings.limits.stall_s, 5.0)))
    destination = Path(arguments.destination)
    session = Session(settings, ignore)
    digest = Digest.parse(arguments.digest) if arguments.digest else None
    finding = find(Request(arguments.uri, destination, digest), session)
    readable = next((file for file in finding.listed.files if file.size_bytes and file.ranged), None)
    if readable is not None:
        # A listing may be allowed where reading is not.
        finding.source.read(readable, Span(0, 1), _Nowhere())
    free = free_bytes(destination)
    if finding.needed_bytes > free:
        raise NoSpace(
            f"{printable(str(destination))} needs {size(finding.needed_bytes)} and has {size(free)} free",
            hint="free some space, give a larger volume, or select files by --allow",
        )
    folder = destination.absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NotAllowed(f"{printable(str(folder))} may not be written", hint=f"by user {os.geteuid()}")
    if arguments.json:
        print(
            json.dumps(
                {
                    "ok": True,
                    "resolved": finding.listed.resolved,
                    "credential": finding.source.credential_kind,
                    "total_files": len(finding.listed.files),
                    "total_bytes": finding.listed.size_bytes,
                    "free_bytes": free,
                }
            )
        )
    else:
        print(f"ok: {printable(finding.listed.resolved)} is readable ({finding.source.credential_kind})")
        print(f"ok: {size(finding.needed_bytes)} fit {printable(str(destination))} ({size(free)} free)")
    return 0


class _Nowhere:
    def told(self, declared: object) -> None:
        """Nothing is checked here."""

    def write(self, piece: memoryview) -> None:
        """Nothing is kept."""
