"""``lading init SRC DEST [SRC DEST …]``: the container's entry point, under KServe's contract.

Kubernetes keeps what is written to the termination log in the pod's status: one line of JSON on
success, the error and its hint on failure
(https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
"""

import argparse
import json
from pathlib import Path

from lading.cli.options import Commands, add_output_options, add_source_options, load_settings
from lading.errors import LadingError, UsageError

# The kubelet keeps 4096 bytes.
_MOST_BYTES = 4096


def add_to(commands: Commands) -> None:
    command: argparse.ArgumentParser = commands.add_parser(
        "init",
        help="deliver one or more models as KServe's storage initializer",
        description="Deliver each SRC to the DEST after it; none appears before all have landed.",
    )
    command.add_argument("pairs", metavar="SRC DEST", nargs="+", help="a URI and the folder for it")
    add_source_options(command)
    add_output_options(command, "print the manifests")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    settings = load_settings(arguments)
    from lading.cli.output import reporter
    from lading.deliver import Request, Session, deliver
    from lading.manifest import Digest, Manifest

    pairs: list[str] = arguments.pairs
    session = Session(settings, reporter())
    try:
        if len(pairs) % 2:
            raise UsageError(
                f"init takes pairs, and {len(pairs)} arguments were given", hint="init SRC DEST [SRC DEST …]"
            )
        digest = Digest.parse(arguments.digest) if arguments.digest else None
        requests = [
            Request(uri, Path(destination), digest) for uri, destination in zip(pairs[::2], pairs[1::2], strict=True)
        ]
        manifests: list[Manifest] = deliver(requests, session)
    except LadingError as error:
        hint = f" ({error.hint})" if error.hint else ""
        _write_termination_log(settings.termination_log, f"error[{error.code}]: {error.message}{hint}")
        raise
    finally:
        session.http.close()
    facts = [
        {
            "uri": manifest.resolved,
            "registry": manifest.registry,
            "version": manifest.version,
            "files": len(manifest.files),
            "bytes": manifest.size_bytes,
            "seconds": manifest.seconds,
            "digest": str(manifest.digest),
        }
        for manifest in manifests
    ]
    _write_termination_log(settings.termination_log, json.dumps(facts[0] if len(facts) == 1 else facts))
    if arguments.json:
        print(json.dumps([manifest.to_json() for manifest in manifests], ensure_ascii=False))
    return 0


def _write_termination_log(path: str, line: str) -> None:
    """Best effort: outside a container there is no such file, and it is not made."""
    data = " ".join(line.split()).encode("utf-8", "replace")[:_MOST_BYTES]
    try:
        with open(path, "r+b") as file:
            file.truncate()
            file.write(data)
    except OSError:
        return
