"""NumPy arrays (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html)."""

import ast
import re
from collections.abc import Iterator
from math import prod
from typing import IO

from lading.formats.reader import Damaged, Reader
from lading.text.printable import printable

MAGIC = b"\x93NUMPY"
# numpy.lib.format refuses longer headers, too, since Python would take long to read them.
_MOST_HEADER_BYTES = 10_000
# A type as NumPy writes it: byte order, kind, bytes of an element; for times also the unit.
_TYPE = re.compile(r"[<>|=]?([?biufcmMOSUVa])(\d*)(\[\w+\])?")
_BYTES_OF_UNIT = {"U": 4}


def holds_objects(file: IO[bytes], size: int) -> bool:
    """Whether the array's data is a pickle; ``Damaged`` if the header and the file's size contradict each other."""
    reader = Reader(file, size, 16 + _MOST_HEADER_BYTES)
    if reader.take(6, "the magic") != MAGIC:
        raise Damaged("it does not begin with the magic of NumPy")
    major, minor = reader.take(2, "the version")
    if major not in (1, 2, 3) or minor:
        raise Damaged(f"its version is {major}.{minor}, and there are 1.0, 2.0 and 3.0")
    text = reader.take(reader.number("H" if major == 1 else "I", "the header's length"), "the header")
    descr, shape = _header(text)
    if _has_objects(descr):
        return True
    if reader.position + _width(descr) * prod(shape) != size:
        raise Damaged(f"an array of this type and shape {shape} does not take {size - reader.position} bytes")
    return False


def _header(text: bytes) -> tuple[object, tuple[int, ...]]:
    try:
        match ast.literal_eval(text.decode()):
            case {"descr": descr, "fortran_order": bool(), "shape": tuple(shape)}:
                if all(type(each) is int and each >= 0 for each in shape):
                    return descr, shape
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise Damaged("the header is no literal of Python") from error
    raise Damaged("the header says no descr, fortran_order and shape")


def _has_objects(descr: object) -> bool:
    match descr:
        case str():
            return _type(descr)[0] == "O"
        case list():
            return any(_has_objects(base) for base, _ in _fields(descr))
    raise Damaged(f"the header has a descr that is no type: {printable(str(descr))[:80]}")


def _width(descr: object) -> int:
    """The size of an element in bytes."""
    if isinstance(descr, list):
        return sum(_width(base) * prod(shape) for base, shape in _fields(descr))
    return _type(str(descr))[1]


def _type(text: str) -> tuple[str, int]:
    """The kind and the size in bytes of a type without fields."""
    match = _TYPE.fullmatch(text)
    if match is None:
        raise Damaged(f"the header has a descr that is no type: {printable(text)[:80]}")
    return match[1], int(match[2] or 0) * _BYTES_OF_UNIT.get(match[1], 1)


def _fields(descr: list[object]) -> Iterator[tuple[object, tuple[int, ...]]]:
    """The type of each field, and its shape if it is an array itself."""
    for field in descr:
        match field:
            case (str() | (str(), str()), base):
                yield base, ()
            case (str() | (str(), str()), base, tuple(shape)) if all(type(each) is int and each >= 0 for each in shape):
                yield base, shape
            case _:
                raise Damaged(f"the header has a field that is none: {printable(str(field))[:80]}")
