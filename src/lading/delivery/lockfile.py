"""A lock file: the pin of each URI, so that later deliveries bring exactly the locked versions.

    {"format": 1, "models": {"model-registry://iris": {"pin": "model-registry://prod/iris/v3?pin=sha256:…", …}}}

An entry may also name who signed the model (``signer`` in its ``signature``): then nobody else may have.
URIs are redacted: a signed URL must be given again for each delivery.  The text may come in a variable instead,
which a pod reads from its annotation: so all pods of a service have the same version.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from lading.errors import NotFound, Untrusted, UsageError
from lading.model.listing import Listing
from lading.model.pin import pinned, split_pin
from lading.model.uri import ModelURI
from lading.settings.settings import Settings
from lading.system.disk import disk_error
from lading.text.printable import printable
from lading.text.suggest import suggest

FORMAT = 1
# Some 150 models.  A variable can hold 128 KiB, and all annotations of an object together 256 KiB.
MOST_TEXT_BYTES = 64 << 10
TEXT = "LADING_LOCK_TEXT"
_WRITE = "write one by: lading lock URI… -o FILE"


class Locked(NamedTuple):
    """What is locked for a URI: the pinned ``uri``, and the ``signer`` who must have signed it, if one is locked."""

    uri: ModelURI
    signer: str | None = None


def entry(listed: Listing) -> dict[str, Any]:
    """The entry of one listing in a lock file; only the pin is read, the rest is for people."""
    return {
        "pin": listed.pin,
        "resolved": listed.resolved,
        "version": listed.version,
        "files": len(listed.files),
        "bytes": listed.size_bytes,
    }


def signed_entry(listed: Listing) -> dict[str, Any]:
    """The same, with who signed the model, whom a delivery then demands; ``Untrusted`` if no rule has found that out."""
    if listed.signature is None:
        raise Untrusted(
            f"{listed.requested}: there is nobody to lock it to, since no rule of trust has found who signed it",
            hint="write a rule that asks for its signature (docs/trust.md), or lock it without --signed",
        )
    return entry(listed) | {"signature": listed.signature.to_json()}


def dumps(entries: dict[str, dict[str, Any]]) -> str:
    """The text of a lock file."""
    return json.dumps({"format": FORMAT, "models": dict(sorted(entries.items()))}, indent=1, ensure_ascii=False) + "\n"


def read_lock(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a lock file by redacted URI."""
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"there is no lock file {printable(str(path))}", hint=_WRITE) from error
    except OSError as error:
        raise disk_error(error, path) from error
    return parse_lock(text, printable(str(path)))


def parse_lock(text: bytes, shown: str) -> dict[str, dict[str, Any]]:
    """The entries in the text of a lock file by redacted URI; ``shown`` names it in errors."""
    try:
        data = json.loads(text)
        models: dict[str, dict[str, Any]] = data["models"]
        texts = (each[key] for each in map(_read, models.values()) for key in each)
        good = data["format"] == FORMAT and all(isinstance(text, str) for text in texts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{shown} is not a lock file", hint=_WRITE) from error
    if not good:
        raise UsageError(f"{shown} is not a lock file of format {FORMAT}", hint="lock again with this lading")
    return models


def locked(wanted: ModelURI, settings: Settings) -> Locked:
    """The entry for ``wanted`` in the lock file in force (``NotFound`` if it has none); ``wanted`` without a lock file."""
    if settings.lock_text:
        shown, models = TEXT, _parse_variable(settings.lock_text)
    elif settings.lock:
        shown, models = printable(settings.lock), read_lock(Path(settings.lock))
    else:
        return Locked(wanted)
    found = models.get(wanted.redacted())
    if found is None:
        raise NotFound(f"{shown} does not lock {wanted.redacted()}", hint=suggest(wanted.redacted(), models))
    exact, pin = split_pin(ModelURI.parse(found["pin"]))
    if pin is None:
        raise UsageError(f"{shown} has no pin for {wanted.redacted()}", hint="lock it again")
    # What was redacted from the exact URI, only the caller knows.
    return Locked(pinned(wanted if "***" in str(exact) else exact, pin), _read(found).get("signer"))


def _read(found: dict[str, Any]) -> dict[str, Any]:
    """What is read of an entry; the rest is for people."""
    signed = {"signer": found["signature"]["signer"]} if "signature" in found else {}
    return {"pin": found["pin"], **signed}


def _parse_variable(text: str) -> dict[str, dict[str, Any]]:
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > MOST_TEXT_BYTES:
        raise UsageError(f"{TEXT} has {len(data)} bytes, of at most {MOST_TEXT_BYTES}", hint="lock fewer models in it")
    return parse_lock(data, TEXT)
