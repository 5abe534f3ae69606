"""A lock file: what each URI stood for when it was locked, so that a later delivery brings nothing else.

    {"format": 1, "models": {"model-registry://iris": {"pin": "model-registry://prod/iris/v3?pin=sha256:…", …}}}

URIs are redacted: a signed URL must be given again for each delivery.
"""

import json
from pathlib import Path
from typing import Any

from lading.errors import NotFound, UsageError
from lading.model.listing import Listing
from lading.model.pin import pinned, split_pin
from lading.model.uri import ModelURI
from lading.system.disk import disk_error
from lading.text.printable import printable
from lading.text.suggest import near_hint

FORMAT = 1


def entry(listed: Listing) -> dict[str, Any]:
    """What the lock file keeps of one listing; all but the pin is for people."""
    return {
        "pin": listed.pin,
        "resolved": listed.resolved,
        "version": listed.version,
        "files": len(listed.files),
        "bytes": listed.size_bytes,
    }


def dumps(entries: dict[str, dict[str, Any]]) -> str:
    """The text of a lock file."""
    return json.dumps({"format": FORMAT, "models": dict(sorted(entries.items()))}, indent=1, ensure_ascii=False) + "\n"


def read_lock(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a lock file by redacted URI."""
    shown = printable(str(path))
    try:
        data = json.loads(path.read_bytes())
        models: dict[str, dict[str, Any]] = data["models"]
        good = data["format"] == FORMAT and all(isinstance(each["pin"], str) for each in models.values())
    except OSError as error:
        raise disk_error(error, path) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{shown} is not a lock file", hint="write one by: lading lock URI… -o FILE") from error
    if not good:
        raise UsageError(f"{shown} is not a lock file of format {FORMAT}", hint="lock again with this lading")
    return models


def locked(wanted: ModelURI, path: Path) -> ModelURI:
    """The pinned URI that the lock file has for ``wanted``; ``NotFound`` when it has none."""
    models = read_lock(path)
    found = models.get(wanted.redacted())
    if found is None:
        raise NotFound(
            f"{printable(str(path))} does not lock {wanted.redacted()}", hint=near_hint(wanted.redacted(), models)
        )
    exact, pin = split_pin(ModelURI.parse(found["pin"]))
    if pin is None:
        raise UsageError(f"{printable(str(path))} has no pin for {wanted.redacted()}", hint="lock it again")
    # What was redacted from the exact URI, only the caller knows.
    return pinned(wanted if "***" in str(exact) else exact, pin)
