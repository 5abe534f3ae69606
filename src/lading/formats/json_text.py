"""JSON that names code."""

import json
from collections.abc import Iterator
from typing import IO, Any

from lading.formats.reader import Damaged
from lading.text.printable import printable

# A document takes ten times its size in memory; configurations that name code have kilobytes.
_MOST_BYTES = 16 << 20


def code_in(file: IO[bytes], size: int) -> str:
    """The code that a document names, or "": a Keras layer, or Python files that Transformers runs if told to."""
    if size > _MOST_BYTES:
        return ""
    file.seek(0)
    try:
        document = json.load(file)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"it is not JSON: {printable(str(error))}") from error
    return next(_code(document), "")


def _code(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case list(items):
                waiting += items
            case dict(fields):
                if fields.get("class_name") == "Lambda":
                    yield "a Lambda layer of Keras"
                if isinstance(named := fields.get("auto_map"), dict):
                    yield f"Python files that its auto_map names ({printable(', '.join(map(str, named.values())))[:200]})"
                waiting += fields.values()
