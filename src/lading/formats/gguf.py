"""GGUF: key-value pairs, then the place of each tensor (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

from itertools import pairwise
from math import prod
from typing import IO

from lading.formats.reader import Damaged, Reader

MAGIC = b"GGUF"
# A vocabulary of 250,000 words takes about 10 MiB of the header.
_MOST_HEADER_BYTES = 64 << 20
_MOST_TENSORS = 100_000
_VERSIONS = (2, 3)
_MOST_DIMENSIONS = 4
_ALIGNMENT_KEY = "general.alignment"
_ALIGNMENT = 32
# Sizes by the number of the value's type.
_FIXED_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4
# For each number of elements in a block: the numbers of the tensor types, and their bytes per block (GGML_QUANT_SIZES
# of gguf-py).
_BLOCK_BYTES = {
    1: {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2},
    32: {2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 20: 18, 39: 17},
    256: {10: 84, 11: 110, 12: 144, 13: 176, 14: 210, 15: 292, 16: 66, 17: 74, 18: 98, 19: 50}
    | {21: 110, 22: 82, 23: 136, 29: 56, 34: 54, 35: 66},
}
_BLOCKS = {kind: (elements, length) for elements, kinds in _BLOCK_BYTES.items() for kind, length in kinds.items()}


def check(file: IO[bytes], size: int) -> None:
    """Raise ``Damaged`` unless every tensor of the header is aligned, within the file, and overlaps no other."""
    reader = Reader(file, size, _MOST_HEADER_BYTES)
    if reader.take(4, "the magic") != MAGIC:
        raise Damaged("it does not begin with GGUF")
    version = reader.number("I", "the version")
    if version not in _VERSIONS:
        raise Damaged(f"its version is {version}, and there are {_VERSIONS}")
    tensors, pairs = reader.number("Q", "the number of tensors"), reader.number("Q", "the number of keys")
    if tensors > _MOST_TENSORS:
        raise Damaged(f"it has {tensors} tensors, and the most are {_MOST_TENSORS}")
    alignment = _ALIGNMENT
    for _ in range(pairs):
        alignment = _alignment(reader, alignment)
    spans = sorted(_tensor(reader, alignment) for _ in range(tensors))
    data = -(-reader.position // alignment) * alignment
    for (_, end), (begin, _) in pairwise(spans):
        if begin < end:
            raise Damaged(f"two tensors overlap at byte {data + begin}")
    if spans and data + spans[-1][1] > size:
        raise Damaged(f"its tensors reach to byte {data + spans[-1][1]}, and the file ends at {size}")


def _alignment(reader: Reader, alignment: int) -> int:
    """Read past a key and its value; returns the alignment that is valid from here."""
    key = _name(reader, "a key")
    kind = reader.number("I", "the type of a value")
    if key == _ALIGNMENT_KEY and kind == _UINT32:
        alignment = reader.number("I", "the alignment")
        if alignment <= 0 or alignment % 8:
            raise Damaged(f"its alignment is {alignment}, no multiple of 8")
        return alignment
    _pass_value(reader, kind)
    return alignment


def _pass_value(reader: Reader, kind: int) -> None:
    if kind == _STRING:
        reader.take(reader.number("Q", "the length of a string"), "a string")
    elif kind in _FIXED_BYTES:
        reader.take(_FIXED_BYTES[kind], "a value")
    elif kind == _ARRAY:
        kind, count = reader.number("I", "the type of an array"), reader.number("Q", "the length of an array")
        if kind in _FIXED_BYTES:
            reader.take(count * _FIXED_BYTES[kind], "an array")
        elif kind == _STRING:
            for _ in range(count):
                _pass_value(reader, kind)
        else:
            raise Damaged(f"an array at byte {reader.position} has values of the unknown type {kind}")
    else:
        raise Damaged(f"a value at byte {reader.position} has the unknown type {kind}")


def _tensor(reader: Reader, alignment: int) -> tuple[int, int]:
    """The start and end of a tensor, counted from the start of the data."""
    _name(reader, "a tensor's name")
    dimensions = reader.number("I", "the number of dimensions")
    if dimensions > _MOST_DIMENSIONS:
        raise Damaged(f"a tensor has {dimensions} dimensions, and the most are {_MOST_DIMENSIONS}")
    shape = [reader.number("Q", "a dimension") for _ in range(dimensions)]
    kind, offset = reader.number("I", "the type of a tensor"), reader.number("Q", "an offset")
    if offset % alignment:
        raise Damaged(f"a tensor begins at byte {offset} of the data, no multiple of {alignment}")
    # The size of a type that a later version adds is not known.
    elements, length = _BLOCKS.get(kind, (1, 0))
    return offset, offset + -(-prod(shape) // elements) * length


def _name(reader: Reader, what: str) -> str:
    data = reader.take(reader.number("Q", f"the length of {what}"), what)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Damaged(f"{what} at byte {reader.position - len(data)} is not UTF-8") from error
