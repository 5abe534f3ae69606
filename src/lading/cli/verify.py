"""``lading verify DEST``."""

import argparse
from pathlib import Path

from lading.cli.options import add_output_options, read_settings
from lading.cli.output import note, show, show_json
from lading.cli.reporters import reporter
from lading.destination.audit import audit, require_clean
from lading.model.manifest import Manifest
from lading.model.signature import Signature
from lading.settings.settings import Settings
from lading.text.printable import printable
from lading.text.units import count, size


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = "Hash every file in DEST again; report missing, extra and changed files."
    command.add_argument("destination", metavar="DEST", help="a folder that lading delivered to")
    add_output_options(command, "print the result as JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = read_settings(arguments)
    destination = Path(arguments.destination)
    with reporter() as report:
        result = audit(destination, report)
    manifest = result.manifest
    judged = _judged(destination, manifest, settings) if result.is_clean else None
    signature = judged or manifest.signature
    # The signature of an image is not here, but in its registry.
    verified = judged is not None and judged.kind == "oms"
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
                **({"signature": signature.to_json(), "signature_verified": verified} if signature else {}),
            }
        )
    require_clean(destination, result)
    if not arguments.json:
        files = count(len(manifest.files), "file")
        show(f"ok: {files}, {size(manifest.size_bytes)}, as delivered from {printable(manifest.resolved)}")
        show(f"    {manifest.digest}")
        if signature:
            recorded = "" if verified else ", as recorded when it was delivered"
            show(f"    signed by {printable(signature.signer)}{recorded}")
    return 0


def _judged(destination: Path, manifest: Manifest, settings: Settings) -> Signature | None:
    """The model's signer by the present rules of trust; None if no rule asks for one."""
    if not settings.trust:
        return None
    # Here, and not above: most configurations have no rules.
    from lading.delivery.formats import judge_formats
    from lading.delivery.judge_again import judge_again
    from lading.telemetry.messages import sentence

    judged = judge_again(manifest, destination, settings.trust, lambda event: note(sentence(event)))
    judge_formats(manifest, destination.joinpath, settings.trust, lambda event: note(sentence(event)))
    return judged
