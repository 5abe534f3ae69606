"""``lading check URI DEST``: will ``pull`` work?  Answers in seconds, and moves one byte at most."""

import argparse
import os
from pathlib import Path
from typing import Any

from lading.cli.options import (
    URI_HELP,
    add_choice_options,
    add_output_options,
    add_verify_options,
    load_settings,
    request_for,
)
from lading.cli.output import hint_for, show, show_json
from lading.cli.reporters import reporter_of_questions
from lading.delivery.resolve import ResolvedModel, find
from lading.delivery.space import Need, need_of
from lading.errors import LadingError, NoSpace, NotAllowed, UsageError
from lading.model.byte_range import ByteRange
from lading.session import Session
from lading.settings.settings import Settings
from lading.system.disk import existing_ancestor
from lading.text.printable import printable
from lading.text.units import size


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = "Check that URI exists and may be read, and that DEST can be written and has enough space."
    command.add_argument("uri", metavar="URI", help=URI_HELP)
    command.add_argument("destination", metavar="DEST", help="the destination folder")
    add_choice_options(command)
    add_verify_options(command)
    add_output_options(command, "print the answer as JSON, a refusal included")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    try:
        answer = _check(arguments)
    except LadingError as error:
        if arguments.json:
            show_json({"ok": False, "code": error.code, "message": error.message, "hint": hint_for(error)})
        raise
    if arguments.json:
        show_json(answer)
    else:
        show(f"ok: {printable(answer['resolved'])} is readable ({answer['credential']})")
        where = printable(arguments.destination)
        if "signature" in answer:
            show(f"ok: signed by {printable(answer['signature']['signer'])}")
        show(f"ok: {where} has room for it ({size(answer['needed_bytes'])} needed, {size(answer['free_bytes'])} free)")
    return 0


def _check(arguments: argparse.Namespace) -> dict[str, Any]:
    settings = _impatient(load_settings(arguments))
    request = request_for(arguments, arguments.uri, arguments.destination)

    with reporter_of_questions(request.uri) as tell, Session(settings, tell) as session:
        finding = find(request, session)
        _read_a_byte(finding, session)
    need = _room_for(finding, request.destination, settings)
    return {
        "ok": True,
        "resolved": finding.listed.resolved,
        "credential": finding.source.credential_kind,
        **({"signature": finding.listed.signature.to_json()} if finding.listed.signature else {}),
        "total_files": len(finding.listed.files),
        "total_bytes": finding.listed.size_bytes,
        "needed_bytes": need.needed_bytes,
        "free_bytes": need.free_bytes,
    }


def _impatient(settings: Settings) -> Settings:
    # A check must answer in seconds, so it tries less often than a delivery.
    limits = settings.limits
    return settings._replace(limits=limits._replace(attempts=min(limits.attempts, 2), stall_s=min(limits.stall_s, 5.0)))


def _read_a_byte(finding: ResolvedModel, session: Session) -> None:
    """Read one byte of a file, since a server may allow listing but not reading."""
    file = next(
        (file for file in finding.listed.files if file.size_bytes and file.ranged and file.content is None), None
    )
    if file is not None:
        session.retry.call(lambda: finding.source.read(file, ByteRange(0, 1), _Nowhere()), what=printable(file.path))


def _room_for(finding: ResolvedModel, destination: Path, settings: Settings) -> Need:
    """The space that the model needs, and that is free; raises if a delivery could not be written."""
    _refuse_unwritable(destination)
    store = Path(settings.store.path)
    if settings.store.path and not store.exists():
        # An existing store may be read-only.
        _refuse_unwritable(store)
    need = need_of(finding, destination, settings)
    if not need.fits:
        raise NoSpace(
            f"{printable(str(need.path))} needs {size(need.needed_bytes)} and has {size(need.free_bytes)} free",
            hint="free some space, give a larger volume, or select files by --allow",
        )
    return need


def _refuse_unwritable(path: Path) -> None:
    folder = existing_ancestor(path)
    if not folder.is_dir():
        raise UsageError(f"{printable(str(folder))} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise NotAllowed(
            f"{printable(str(folder))} cannot be written", hint=f"it must be writable by user {os.geteuid()}"
        )


class _Nowhere:
    def version(self, validator: str) -> None:
        """Do nothing: nothing was read before."""

    def on_digests(self, declared: object) -> None:
        """Do nothing: digests are not checked."""

    def write(self, piece: memoryview) -> None:
        """Do nothing: the byte is not kept."""
