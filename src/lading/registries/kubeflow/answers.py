"""What both APIs answer: entities, lists of them in pages, custom properties."""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lading.errors import Unsupported
from lading.registries.service import Service, read_json
from lading.uri import printable

Entity = Mapping[str, Any]

_PAGE_SIZE = 500
_MOST_PAGES = 200
_ID = re.compile(r"[1-9][0-9]{0,17}")


def entity(answer: object, what: str, *, named: bool = True) -> Entity:
    """``answer`` as an entity: an object, which has a name."""
    if not isinstance(answer, dict) or (named and not isinstance(answer.get("name"), str)):
        raise Unsupported(f"{what}: the answer is not what this API answers")
    return answer


def entities(
    service: Service, path: str, query: Mapping[str, str] | None = None, *, what: str, named: bool = True
) -> Iterator[Entity]:
    """Every entity of a list, each with a name or, unless ``named``, perhaps without.

    ``Unsupported`` for a list without end.
    """
    token = ""
    for _ in range(_MOST_PAGES):
        # Without a size, one API answers with all there is and the other with ten.
        asked = {**(query or {}), "pageSize": str(_PAGE_SIZE)} | ({"nextPageToken": token} if token else {})
        answer = service.get(path, asked, what=what)
        items = answer.get("items", "none") if isinstance(answer, dict) else "none"
        if not isinstance(items, list | None):
            raise Unsupported(f"{what}: the answer is not what this API answers")
        for item in items or ():
            yield entity(item, what, named=named)
        following = answer.get("nextPageToken") or ""
        if not following:
            return
        if not isinstance(following, str) or following == token:
            break
        token = following
    raise Unsupported(f"{what}: the list in registry {printable(service.name)} does not end")


def number(found: Entity) -> int:
    """The id, by which entities are in the order of their creation: times can be the same, names say nothing."""
    return int(identifier(found))


def identifier(found: Entity) -> str:
    """The id, as the API writes it: decimal digits."""
    text = found.get("id")
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise Unsupported(f"{printable(str(found.get('name')))} has an id that is none")
    return text


def text(found: Entity, key: str) -> str:
    """The value of ``key`` if it is a text, else ""."""
    value = found.get(key)
    return value if isinstance(value, str) else ""


def properties(found: Entity) -> dict[str, Any]:
    """The custom properties as plain values, each by its ``metadataType``; a struct is JSON in base64."""
    custom = found.get("customProperties")
    return {name: _plain(value) for name, value in custom.items()} if isinstance(custom, dict) else {}


def _plain(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    match value.get("metadataType"):
        case "MetadataIntValue":
            shown = str(value.get("int_value"))
            return int(shown) if re.fullmatch(r"-?[0-9]{1,19}", shown, re.ASCII) else shown
        case "MetadataStructValue":
            try:
                return read_json(base64.b64decode(value.get("struct_value", ""), validate=True))
            except (ValueError, TypeError, RecursionError):
                return value.get("struct_value")
        case "MetadataStringValue":
            return str(value.get("string_value", ""))
        case "MetadataDoubleValue":
            return value.get("double_value")
        case "MetadataBoolValue":
            return value.get("bool_value")
    return value
