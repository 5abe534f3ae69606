"""Safetensors: a header of JSON with the place of each tensor (https://github.com/huggingface/safetensors#format)."""

import json
from math import prod
from typing import IO, Any

from lading.formats.reader import Damaged, Reader
from lading.text.printable import printable

# 160,000 tensors.  The library takes 100 MB, of which Python would make more than a gigabyte of memory.
MOST_HEADER_BYTES = 16 << 20
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6} | {
    name: bits
    for bits, names in {
        8: ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
        16: ("I16", "U16", "F16", "BF16"),
        32: ("I32", "U32", "F32"),
        64: ("I64", "U64", "F64", "C64"),
    }.items()
    for name in names
}


def begins(head: bytes, size: int) -> bool:
    """Whether a file of ``size`` bytes begins like a safetensors file."""
    return head[8:9] == b"{" and 8 + int.from_bytes(head[:8], "little") <= size


def check(file: IO[bytes], size: int) -> None:
    """Raise ``Damaged`` unless the tensors of the header fill the rest of the file, in order, without gap or overlap."""
    reader = Reader(file, size, 8 + MOST_HEADER_BYTES)
    length = reader.number("Q", "the header's length")
    header = _header(reader.take(length, "the header"))
    spans = sorted((*_span(name, tensor), name) for name, tensor in header.items() if name != "__metadata__")
    end = 0
    for begin, stop, name in spans:
        if begin != end:
            raise Damaged(
                f"tensor {printable(name)} begins at byte {begin} of the data, where the one before ends at {end}"
            )
        end = stop
    if 8 + length + end != size:
        raise Damaged(f"its tensors take {end} bytes, and {size - 8 - length} follow the header")


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise Damaged("the header is no JSON object")
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _span(name: str, tensor: Any) -> tuple[int, int]:
    shown = printable(name)
    match tensor:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            if not all(type(each) is int and each >= 0 for each in (*shape, begin, end)) or begin > end:
                raise Damaged(f"tensor {shown} has a shape or offsets that are no sizes")
            # A type that a later version of the format adds is not a fault.
            if dtype in _BITS and prod(shape) * _BITS[dtype] != (end - begin) * 8:
                raise Damaged(f"tensor {shown} of type {dtype} and shape {shape} does not take {end - begin} bytes")
            return begin, end
    raise Damaged(f"the header says of tensor {shown} no dtype, shape and data_offsets")
