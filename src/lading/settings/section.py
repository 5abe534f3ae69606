"""One section of the configuration file as a value: which keys it may have, of which types, and what else is refused.

What is wrong is told with the place of the key, what is written there, and what could be.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from lading.errors import LadingError, UsageError
from lading.text.printable import printable
from lading.text.suggest import did_you_mean, known_hint

_MOST_SHOWN = 80

T = TypeVar("T", bound=tuple[Any, ...])


@contextmanager
def errors_name(where: str) -> Iterator[None]:
    """Let the errors that are raised within begin with ``where``: a file, or a variable."""
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
    apart: Sequence[str] = (),
) -> T:
    """``item`` as a ``kind``, whose annotations say what each key may hold; numbers are never negative.

    ``where`` is its place in the file.  ``examples`` are of keys whose default is none; ``apart`` are fields that are
    no keys.  ``UsageError`` for the first key that is not understood.
    """
    known = [key for key in kind._fields if key not in apart]  # type: ignore[attr-defined]  # every T is a NamedTuple
    refuse_unknown(item, known, where)
    types = get_type_hints(kind)
    defaults: Mapping[str, Any] = kind._field_defaults  # type: ignore[attr-defined]
    values = {}
    for key, value in item.items():
        if not _fits(value, types[key]):
            default = defaults.get(key)
            example = examples.get(key) or (f"{default:g}" if isinstance(default, float) else str(default))
            raise UsageError(f"{key_path(where, key)} is {shown(value)}", hint=_hint(key, value, types[key], example))
        values[key] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def refuse_unknown(item: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    """Raise for the first key of ``item`` that is not ``known``."""
    for key in item:
        if key not in known:
            hint = known_hint(str(key), known)
            raise UsageError(f"{printable(where)} has the unknown key {printable(str(key))!r}", hint=hint)


def key_path(where: str, key: str) -> str:
    """The place of a key: ``store.high``, but ``delivery iris: every_s``."""
    return f"{where}: {key}" if " " in where else f"{where}.{key}"


def shown(value: object) -> str:
    """``value`` as a file has it: YAML's words for what is neither a text nor a number."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return printable(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…")


def _fits(value: object, kind: object) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(isinstance(text, str) for text in value)
    if kind in (int, float):
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and 0 <= value < float("inf")
    return isinstance(value, kind if isinstance(kind, type) else dict)


def _hint(key: str, value: object, kind: object, example: str) -> str:
    if get_origin(kind) is Literal:
        words = get_args(kind)
        return did_you_mean(str(value), words) or f"use one of {', '.join(words)}"
    if kind is bool:
        return "write true or false"
    if kind is int:
        return f"write a whole number, for example {example}"
    if kind is float:
        return f"write {'seconds' if key.endswith('_s') else 'a number'}, for example {example}"
    what = "text" if kind is str else "a list" if get_origin(kind) is tuple else "a mapping"
    return f"write {what}, for example {example}"
