"""What both APIs answer: entities, lists of them in pages, custom properties."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from lading.errors import NotFound, Unsupported
from lading.network.paging import Page, PagedList
from lading.registries.server import RegistryServer
from lading.text.json_xml import read_unique_json
from lading.text.printable import printable

Entity = Mapping[str, Any]

_PAGE_SIZE = 500
_MOST_ENTITIES = 100_000
_MOST_SHOWN = 100
_OF_A_PAGE = ("items", "nextPageToken", "size")
_ID = re.compile(r"[1-9][0-9]{0,17}")


def entity(answer: object, what: str, *, named: bool = True) -> Entity:
    """``answer`` as an entity: an object, which has a name."""
    if not isinstance(answer, dict) or (named and not isinstance(answer.get("name"), str)):
        raise Unsupported(f"{what}: the answer does not have this API's form")
    return answer


class Api:
    """The API at one server: in the first of ``roots``, its versions, that the server has.

    ``lists`` is the path of a list that every server with this API has.
    """

    def __init__(self, server: RegistryServer, roots: Sequence[str], lists: str) -> None:
        self.server = server
        self._roots = roots
        self._lists = lists
        self._root = roots[0]
        self._known = False

    def get(self, path: str, query: Mapping[str, str] | None = None, *, what: str) -> Any:
        """As ``RegistryServer.get``.  ``NotFound`` says that the thing is not there, and never that the API is not."""
        try:
            answer = self.server.get(self._root + path, query, what=what)
        except NotFound:
            tried = self._root
            if self._known or self._found_root(what) == tried:
                raise
            answer = self.server.get(self._root + path, query, what=what)
        self._known = True
        return answer

    def send(self, method: str, path: str, document: Any, *, what: str) -> Any:
        """The answer to a document, at the version of the API that was found by ``get``."""
        return self.server.call(method, self._root + path, document=document, what=what)

    def list(
        self, path: str, query: Mapping[str, str] | None = None, *, what: str, named: bool = True
    ) -> Iterator[Entity]:
        """Every entity of a list, each with a name or, unless ``named``, perhaps without.

        ``IntegrityError`` for a list that contradicts itself or has no end.
        """

        def page(token: str) -> Page[Entity]:
            # Without a size, one API answers with all there is and the other with ten.
            asked = {**(query or {}), "pageSize": str(_PAGE_SIZE)} | ({"nextPageToken": token} if token else {})
            answer = self.get(path, asked, what=what)
            items, following, size = map(answer.get, _OF_A_PAGE) if isinstance(answer, dict) else (0, 0, 0)
            if (
                not isinstance(items, list | None)
                or not isinstance(following, str)
                or type(size) not in (int, type(None))
            ):
                raise Unsupported(f"{what}: the answer does not have this API's form")
            return Page([entity(item, what, named=named) for item in items or ()], following, size)

        listing = PagedList(
            f"{what} in registry {printable(self.server.name)}", _MOST_ENTITIES, partial(text, key="id")
        )
        yield from chain.from_iterable(listing.pages(page))

    def _found_root(self, what: str) -> str:
        for root in self._roots:
            try:
                self.server.get(root + self._lists, {"pageSize": "1"}, what=what)
            except NotFound:
                continue
            self._root, self._known = root, True
            return root
        raise Unsupported(
            f"{what}: {self.server.origin} answers 404 to everything below {' and '.join(self._roots)}",
            hint=f"check the url of registry {printable(self.server.name)}",
        )


def number(found: Entity) -> int:
    """The id, by which entities are in the order of their creation: times can be the same, names say nothing."""
    return int(identifier(found))


def identifier(found: Entity) -> str:
    """The id, as the API writes it: decimal digits."""
    text = found.get("id")
    if not isinstance(text, str) or not _ID.fullmatch(text):
        raise Unsupported(f"{printable(str(found.get('name')))} has an invalid id")
    return text


def text(found: Entity, key: str) -> str:
    """The text that ``key`` has, "" if it has none.  ``Unsupported`` for another value: what it means is not known."""
    value = found.get(key)
    if not isinstance(value, str | None):
        raise _odd(found, key)
    return value or ""


def properties(found: Entity) -> dict[str, Any]:
    """The custom properties as plain values, each by its ``metadataType``; a struct is JSON in base64."""
    custom = found.get("customProperties")
    if not isinstance(custom, dict | None):
        # Not none: digests may be among them.
        raise _odd(found, "customProperties")
    return {name: _plain(value) for name, value in (custom or {}).items()}


def _odd(found: Entity, key: str) -> Unsupported:
    named = printable(str(found.get("name", ""))[:_MOST_SHOWN])
    return Unsupported(f"the {key} of {named!r} does not have this API's form")


def _plain(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    match value.get("metadataType"):
        case "MetadataIntValue":
            shown = str(value.get("int_value"))
            return int(shown) if re.fullmatch(r"-?[0-9]{1,19}", shown, re.ASCII) else shown
        case "MetadataStructValue":
            try:
                return read_unique_json(base64.b64decode(value.get("struct_value", ""), validate=True))
            except (ValueError, TypeError):
                return value.get("struct_value")
        case "MetadataStringValue":
            return text(value, "string_value")
        case "MetadataDoubleValue":
            return value.get("double_value")
        case "MetadataBoolValue":
            return value.get("bool_value")
    return value
