"""``lading resolve URI [DEST]``: show what ``pull`` would deliver, without delivering it."""

import argparse
from collections.abc import Iterator
from typing import Any

from lading.cli import explain
from lading.cli.options import (
    URI_HELP,
    add_choice_options,
    add_output_options,
    add_verify_options,
    load_settings,
    request_for,
)
from lading.cli.output import show, show_json
from lading.cli.reporters import reporter_of_questions
from lading.delivery.request import query_for
from lading.delivery.resolve import ResolvedModel, list_files, resolve
from lading.delivery.space import Need, need_of
from lading.model.listing import ListedFile
from lading.registries.federation import Candidate, candidates_for, first_answer
from lading.session import Session
from lading.text.printable import printable
from lading.text.units import size

_SHOWN_FILES = 20
_SHOWN_DIGITS = 12


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Show the pin behind URI: files, sizes, digests, the kind of credential, and whether it fits DEST."
    )
    command.add_argument("uri", metavar="URI", help=URI_HELP)
    command.add_argument("destination", metavar="DEST", nargs="?", default=".", help="the destination (default: here)")
    add_choice_options(command)
    add_verify_options(command)
    command.add_argument(
        "--explain",
        action="store_true",
        help="say what every registry answered, why which was taken, and which rule of trust judges it",
    )
    add_output_options(command, "print all of it as JSON, with whole digests")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments)
    request = request_for(arguments, arguments.uri, arguments.destination)

    explanation: dict[str, Any] = {}
    with reporter_of_questions(request.uri) as tell, Session(settings, tell) as session:
        query = query_for(request, settings)
        candidates: list[Candidate] = []
        if arguments.explain:
            candidates = candidates_for(query.uri, settings, session.http)
            explanation = explain.report(candidates)
            if candidates and not arguments.json:
                # Printed before the listing, which may fail.
                show("\n".join((*map(printable, explain.lines(candidates)), "")))
        # Each registry is asked only once, so the explained version is the one that is listed.
        resolution = first_answer(query.uri, candidates) if candidates else resolve(query, session)
        if arguments.explain:
            explanation["trust"] = explain.trust_report(settings, resolution.uri)
            if not arguments.json:
                show(f"{printable(explain.trust_line(settings, resolution.uri))}\n")
        finding = list_files(request, query, resolution, session)
    need = need_of(finding, request.destination, settings)
    if arguments.json:
        show_json(_report(finding, need) | explanation)
    else:
        show("\n".join((*_facts(finding, need), *_files(finding))))
    return 0


def _report(finding: ResolvedModel, need: Need) -> dict[str, Any]:
    listed = finding.listed
    return {
        "requested": listed.requested,
        "resolved": listed.resolved,
        "pin": listed.pin,
        "registry": listed.registry,
        "version": listed.version,
        "metadata": dict(listed.metadata),
        "credential": finding.source.credential_kind,
        **({"signature": listed.signature.to_json()} if listed.signature else {}),
        "files": [
            {
                "path": file.path,
                "size": file.size_bytes,
                "validator": file.validator,
                "digests": _digests(finding, file),
            }
            for file in listed.files
        ],
        "total_files": len(listed.files),
        "total_bytes": listed.size_bytes,
        "needed_bytes": need.needed_bytes,
        "free_bytes": need.free_bytes,
        "fits": need.fits,
    }


def _digests(finding: ResolvedModel, file: ListedFile) -> list[str]:
    return [str(digest) for digest in dict.fromkeys((*finding.expected.get(file.path, ()), *file.declared))]


def _facts(finding: ResolvedModel, need: Need) -> Iterator[str]:
    listed = finding.listed
    fits = "yes" if need.fits else "no"
    facts = [
        ("requested", listed.requested),
        ("resolved", listed.resolved),
        ("pin", listed.pin),
        ("registry", listed.registry),
        ("version", listed.version),
        ("credential", finding.source.credential_kind),
        ("signed by", listed.signature.signer if listed.signature else ""),
        ("files", f"{len(listed.files)}, {size(listed.size_bytes)}"),
        ("fits", f"{fits}: {size(need.needed_bytes)} needed, {size(need.free_bytes)} free"),
        *(("metadata", f"{key}: {value}") for key, value in listed.metadata.items()),
    ]
    for name, value in facts:
        if value:
            yield f"{name:10}  {printable(value)}"


def _files(finding: ResolvedModel) -> Iterator[str]:
    files = finding.listed.files
    shown = files[:_SHOWN_FILES]
    width = max(len(printable(file.path)) for file in shown)
    yield ""
    for file in shown:
        shown_size = "size unknown" if file.size_bytes is None else size(file.size_bytes)
        digests = ", ".join(_short(digest) for digest in _digests(finding, file))
        yield f"{shown_size:>12}  {printable(file.path):{width}}  {digests}".rstrip()
    if len(files) > len(shown):
        yield f"and {len(files) - len(shown)} more (--json shows all)"


def _short(digest: str) -> str:
    """The beginning of a digest, long enough to tell it from another."""
    algorithm, _, value = digest.partition(":")
    return digest if len(value) <= _SHOWN_DIGITS else f"{algorithm}:{value[:_SHOWN_DIGITS]}…"
