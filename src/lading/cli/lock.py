"""``lading lock URI…``: write down what each URI stands for now."""

import argparse
from pathlib import Path

from lading.cli.options import URI_HELP, add_choice_options, load_settings
from lading.cli.output import show
from lading.cli.reporters import reporter_of_questions
from lading.delivery import lockfile
from lading.delivery.request import Request
from lading.delivery.resolve import find
from lading.errors import NotFound
from lading.model.uri import redact
from lading.session import Session
from lading.system.disk import disk_error, write_whole
from lading.text.printable import printable
from lading.text.units import count

DEFAULT_FILE = "lading.lock"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = "Resolve each URI and write its pin to a lock file; entries for other URIs stay."
    command.add_argument("uris", metavar="URI", nargs="+", help=URI_HELP)
    command.add_argument("-o", "--output", metavar="FILE", default=DEFAULT_FILE, help="the lock file (%(default)s)")
    command.add_argument(
        "--signed",
        action="store_true",
        help="also write who signed each model, as a rule of trust found; deliveries then refuse any other signer",
    )
    add_choice_options(command)
    command.add_argument("--log-format", choices=("text", "json"), help="how errors are written")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments)

    entry = lockfile.signed_entry if arguments.signed else lockfile.entry
    path = Path(arguments.output)
    if not path.absolute().parent.is_dir():
        # Now, and not after everybody has been asked.
        raise NotFound(f"there is no folder {printable(str(path.parent))}", hint="make it, or name another file by -o")
    try:
        entries = lockfile.read_lock(path)
    except NotFound:
        entries = {}
    # The command locks the versions that the URIs stand for now, so another lock file does not count.
    settings = settings._replace(lock="", lock_text="")
    with reporter_of_questions(*arguments.uris) as tell, Session(settings, tell) as session:
        for uri in arguments.uris:
            listed = find(Request(uri, Path()), session).listed
            entries[redact(uri)] = entry(listed)
            signer = f", signed by {listed.signature.signer}" if arguments.signed and listed.signature else ""
            show(f"{redact(uri)} is {listed.pin}{printable(signer)}")
    try:
        write_whole(path, [lockfile.dumps(entries)])
    except OSError as error:
        raise disk_error(error, path) from error
    show(f"{printable(str(path))} locks {count(len(entries), 'model')} now")
    return 0
