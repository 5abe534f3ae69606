"""``lading init SRC DEST [SRC DEST …]``: the container's entry point, under KServe's contract.

Kubernetes keeps what is written to the termination log in the pod's status: one line of JSON on
success, the error and its hint on failure
(https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

from lading.cli.options import (
    add_choice_options,
    add_output_options,
    add_transfer_options,
    add_verify_options,
    load_settings,
    request_for,
)
from lading.cli.output import hint_for, show_json
from lading.cli.pull import deliver_aloud
from lading.delivery.request import Request, without_choice
from lading.errors import LadingError, UsageError
from lading.model.manifest import Manifest
from lading.settings.section import errors_name
from lading.settings.settings import termination_log
from lading.settings.variables import parse_port
from lading.text.printable import printable

# By a proposal, KServe sets it to the digest that a service names (https://github.com/kserve/kserve/pull/6051).
_DIGEST = "VERIFICATION_DIGEST"
# The kubelet keeps 4096 bytes.
_MOST_BYTES = 4096


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.description = "Deliver each SRC to the DEST after it; none appears before all have been received."
    command.add_argument(
        "pairs", type=without_choice, metavar="SRC DEST", nargs="+", help="a URI and the folder for it"
    )
    add_choice_options(command)
    add_verify_options(command)
    add_transfer_options(command)
    add_output_options(command, "print the manifests of what was delivered as a JSON array")
    command.add_argument(
        "--health-port",
        type=parse_port,
        metavar="PORT",
        help="serve health and a status page at this port while it runs, as an agent does",
    )
    command.set_defaults(run=run, failed=failed)


def run(arguments: argparse.Namespace) -> int:
    started_s = time.monotonic()
    settings = load_settings(arguments)
    with errors_name("" if arguments.digest else _DIGEST if settings.variables.get(_DIGEST) else ""):
        arguments.digest = arguments.digest or settings.variables.exact(_DIGEST)
        requests = _requests(arguments)

    if arguments.health_port is None:
        manifests = deliver_aloud(requests, settings)
    else:
        # Here, and not above: it loads an HTTP server, which few deliveries need.
        from lading.cli.health_port import telling

        with telling(settings, arguments.pairs, arguments.health_port) as hear:
            manifests = deliver_aloud(requests, settings, hear)
    # The seconds of this run, also for a model that was in place before: its manifest has those of an earlier run.
    seconds = round(time.monotonic() - started_s, 3)
    manifests = [manifest._replace(seconds=seconds) for manifest in manifests]
    _write(settings.termination_log, _last_word(manifests))
    if arguments.json:
        show_json([manifest.to_json() for manifest in manifests])
    return 0


def failed(arguments: argparse.Namespace, error: LadingError) -> None:
    """Write the error to the termination log, where Kubernetes reads it."""
    hint = f" ({hint_for(error)})" if hint_for(error) else ""
    _write(termination_log(arguments.environ), printable(f"error[{error.code}]: {error.message}{hint}"))


def _requests(arguments: argparse.Namespace) -> list[Request]:
    pairs: list[str] = arguments.pairs
    if len(pairs) % 2:
        given = "1 argument was" if len(pairs) == 1 else f"{len(pairs)} arguments were"
        raise UsageError(f"init takes pairs, and {given} given", hint="lading init SRC DEST [SRC DEST …]")
    if arguments.digest and len(pairs) > 2:
        raise UsageError(
            f"one digest is given for {len(pairs) // 2} models", hint="a catalog can record one for each of them"
        )
    return [request_for(arguments, *pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)]


def _last_word(manifests: Sequence[Manifest]) -> str:
    facts = [_facts(manifest) for manifest in manifests]
    text = json.dumps(facts[0] if len(facts) == 1 else facts)
    if len(text) <= _MOST_BYTES:
        return text
    # A text that is cut off would not be JSON, so a long one has only the totals.
    totals = {name: sum(fact[name] for fact in facts) for name in ("files", "bytes")}
    return json.dumps({"models": len(facts), **totals, "seconds": max(fact["seconds"] for fact in facts)})


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "uri": manifest.resolved,
        "registry": manifest.registry,
        "version": manifest.version,
        "files": len(manifest.files),
        "bytes": manifest.size_bytes,
        "seconds": manifest.seconds,
        "digest": str(manifest.digest),
        **({"signed_by": manifest.signature.signer} if manifest.signature else {}),
        **({"last_known": manifest.last_known} if manifest.last_known else {}),
    }


def _write(path: str, line: str) -> None:
    """Write a line to the termination log, if it exists: outside a container there is none, and it is not created."""
    data = " ".join(line.split()).encode("utf-8", "replace")[:_MOST_BYTES]
    # Kubernetes keeps text alone: not half of a character at the end.
    data = data.decode("utf-8", "ignore").encode()
    try:
        with open(path, "r+b") as file:
            file.truncate()
            file.write(data)
    except OSError:
        return
