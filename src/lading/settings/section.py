"""Reading a section of the configuration file into a typed value; everything that the type does not know is refused.

An error names the place of the key, what is written there, and what could be written.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lading.errors import LadingError, UsageError
from lading.model.uri import ModelURI
from lading.settings.value import Value
from lading.text.printable import printable
from lading.text.suggest import did_you_mean, suggest_word

_MOST_SHOWN = 80
# The separators before the last key of a place.
_LAST = re.compile(r": |\.")

T = TypeVar("T", bound=tuple[Any, ...])


@contextmanager
def errors_name(where: str) -> Iterator[None]:
    """Begin the message of each error in this block with ``where``: a file, or a variable."""
    try:
        yield
    except LadingError as error:
        error.message = f"{printable(where)}: {error.message}" if where else error.message
        raise


def read_section(
    kind: type[T],
    item: Mapping[str, Any],
    where: str,
    *,
    examples: Mapping[str, str] = MappingProxyType({}),
    apart: Mapping[str, Any] = MappingProxyType({}),
    quoted: bool = True,
) -> T:
    """Read ``item`` as a ``kind``: its annotations are the types of the keys; numbers must not be negative.

    A key that is annotated with another NamedTuple is a section of its own.  ``where`` is the place of ``item`` in the
    file.  ``examples`` are for keys whose default is no example; ``apart`` are the values of fields that are no keys.
    With ``quoted`` false, errors do not quote values: they may be secrets.  ``UsageError`` for the first key that is
    unknown, wrong or missing.
    """
    known = [key for key in kind._fields if key not in apart]  # type: ignore[attr-defined]  # every T is a NamedTuple
    refuse_unknown(item, known, where)
    types = get_type_hints(kind)
    defaults: Mapping[str, Any] = kind._field_defaults  # type: ignore[attr-defined]
    shown_defaults = {key: f"{each:g}" if isinstance(each, float) else str(each) for key, each in defaults.items()}
    examples = {**shown_defaults, **examples}
    if lacking := [key for key in known if key not in item and key not in defaults]:
        raise UsageError(f"{where} needs {lacking[0]}", hint=f"write {lacking[0]}: {examples[lacking[0]]}")
    read = partial(_read, examples=examples, quoted=quoted)
    return kind(**apart, **{key: read(types[key], value, key_path(where, key)) for key, value in item.items()})


def read_prefix(item: object, where: str, example: str) -> tuple[dict[str, Any], ModelURI]:
    """An entry of a list of rules, and the URI with a scheme that is its ``prefix``; ``UsageError`` if it has none."""
    text = item.get("prefix") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(text, str):
        raise UsageError(f"{where} has no prefix", hint=f"write {example}")
    with errors_name(where):
        prefix = ModelURI.parse(text)
        scheme = prefix.canonical().scheme
    if not scheme:
        raise UsageError(f"{where}: the prefix {printable(text)!r} has no scheme", hint=f"write {example}")
    return item, prefix


def without_empty(item: Mapping[str, Any]) -> dict[str, Any]:
    """``item`` without its empty values, for a section in which an empty value means the same as a missing key."""
    return {key: value for key, value in item.items() if value not in (None, "", [], {})}


def refuse_unknown(item: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    """Raise for the first key of ``item`` that is not ``known``."""
    for key in item:
        if key not in known:
            hint = suggest_word(str(key), known)
            raise UsageError(f"{printable(where)} has the unknown key {printable(str(key))!r}", hint=hint)


def key_path(where: str, key: str) -> str:
    """The place of a key: ``store.high``, but ``delivery iris: every_s``."""
    return f"{where}: {key}" if " " in where.rpartition(": ")[2] else f"{where}.{key}"


def shown(value: object) -> str:
    """``value`` as YAML writes it, for messages: ``null``, ``true``, a quoted text; shortened if it is long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return printable(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…")


def _read(annotation: Any, value: Any, where: str, *, examples: Mapping[str, str], quoted: bool) -> Any:
    """``value``, which is written at ``where``, converted to the type of its key."""
    kinds = _alternatives(annotation)
    kind = next((kind for kind in kinds if _fits(value, kind)), None)
    if kind is None:
        said = f"is {shown(value)}" if quoted else "is not understood"
        raise UsageError(f"{printable(where)} {said}", hint=_hint(where, value, kinds[0], examples))
    if get_origin(kind) is tuple:
        return tuple(value)
    if kind is Value:
        return Value.parse(value, where)
    if hasattr(kind, "_fields"):
        return read_section(kind, value, where, examples=examples, quoted=quoted)
    if get_origin(kind) is Mapping:
        read = partial(_read, get_args(kind)[1], examples=examples, quoted=quoted)
        return {str(key): read(each, key_path(where, str(key))) for key, each in value.items()}
    return value


def _alternatives(annotation: Any) -> Sequence[Any]:
    """The types that a key may have, without None: in the file the key is left out instead."""
    union = get_origin(annotation) in (Union, UnionType)
    return [kind for kind in get_args(annotation) if kind is not NoneType] if union else [annotation]


def _fits(value: object, kind: Any) -> bool:
    if kind in (Any, Value):
        return True
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(isinstance(text, str) for text in value)
    if kind in (int, float):
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and 0 <= value < float("inf")
    return isinstance(value, kind if kind in (str, bool) else dict)


def _hint(where: str, value: object, kind: Any, examples: Mapping[str, str]) -> str:
    if get_origin(kind) is Literal:
        words = get_args(kind)
        return did_you_mean(str(value), words) or f"use one of {', '.join(words)}"
    if kind is bool:
        return "write true or false"
    key = _LAST.split(where)[-1]
    what = "text" if kind is str else "a list" if get_origin(kind) is tuple else "a mapping"
    if kind in (int, float):
        what = "a whole number" if kind is int else "seconds" if key.endswith("_s") else "a number"
    return f"write {what}, for example {examples.get(key, '{}')}"
