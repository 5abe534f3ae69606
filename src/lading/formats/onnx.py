"""ONNX: a protocol buffer (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, ModelProto)."""

from typing import IO

from lading.formats.reader import Damaged

_IR_VERSION, _GRAPH = 1, 7
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10
# A model has about ten fields, and one more for each function and operator set.
_MOST_FIELDS = 100_000


def check(file: IO[bytes], size: int) -> None:
    """Raise ``Damaged`` unless the fields of the model, one after another, end where the file does."""
    position = 0
    fields: set[int] = set()
    count = 0
    while position < size:
        file.seek(position)
        key, position = _varint(file, position)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            _, position = _varint(file, position)
        elif wire == _LENGTH:
            length, position = _varint(file, position)
            position += length
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise Damaged(f"a field before byte {position} has the unknown wire type {wire}")
        fields.add(field)
        count += 1
        if count > _MOST_FIELDS:
            raise Damaged(f"it has more than {_MOST_FIELDS} fields")
    if position != size:
        raise Damaged(f"field {field} reaches to byte {position}, and the file ends at {size}")
    if not {_IR_VERSION, _GRAPH} <= fields:
        raise Damaged("it has no ir_version and no graph")


def _varint(file: IO[bytes], position: int) -> tuple[int, int]:
    value = 0
    for index in range(_MOST_VARINT_BYTES):
        byte = file.read(1)
        if not byte:
            raise Damaged(f"it ends within the number at byte {position}")
        value |= (byte[0] & 0x7F) << (7 * index)
        if byte[0] < 0x80:
            return value, position + index + 1
    raise Damaged(f"the number at byte {position} does not end")
