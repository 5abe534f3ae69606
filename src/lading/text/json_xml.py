"""Reading untrusted JSON and XML: the only error is ``ValueError``, whatever they contain."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xml.etree import ElementTree


def read_json(text: str | bytes) -> Any:
    """Read a JSON document; ``ValueError`` for invalid JSON, and for values that could not be written again.

    Python itself accepts halves of surrogate pairs, NaN and numbers of any size.
    """
    return _read_json(text, None)


def read_unique_json(text: str | bytes) -> Any:
    """Read JSON as ``read_json``; ``ValueError`` also for a repeated member: another reader may take the other one."""
    return _read_json(text, _unique)


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a member stands twice")
    return found


def _read_json(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None) -> Any:
    try:
        document = json.loads(text, object_pairs_hook=pairs)
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("the document is nested too deeply") from error
    return document


def read_xml(body: bytes) -> "ElementTree.Element":
    """Read an XML document; returns the root element.  ``ValueError`` for invalid XML."""
    from xml.etree import ElementTree

    try:
        return ElementTree.fromstring(body)  # noqa: S314 - expat bounds entity expansion since 2.4.1
    except (ElementTree.ParseError, LookupError) as error:
        # A document may name an unknown encoding.
        raise ValueError("the document is not XML") from error
