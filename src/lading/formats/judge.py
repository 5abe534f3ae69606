"""What a file is, whether it is whole, and whether loading it runs code."""

from functools import partial
from pathlib import PurePosixPath
from typing import IO, NamedTuple

from lading.formats import gguf, json_text, keras, numpy, onnx, pickles, safetensors, zipped
from lading.formats.reader import Damaged
from lading.text.printable import printable

_HEAD_BYTES = 64 << 10
_DEEPEST = 2
_MAGICS = {
    "zip": zipped.MAGICS,
    "GGUF": (gguf.MAGIC,),
    "NumPy": (numpy.MAGIC,),
    "HDF5": (keras.HDF5_MAGIC,),
}
# By the end of the name.
_CLAIMS = {
    ".safetensors": "safetensors",
    ".gguf": "GGUF",
    ".npy": "NumPy",
    ".npz": "zip",
    ".keras": "zip",
    ".onnx": "ONNX",
    ".json": "JSON",
}


class Judgement(NamedTuple):
    """``format`` is "" where it is none of those known; ``fault`` says how it is damaged, ``code`` what would run."""

    format: str
    fault: str = ""
    code: str = ""


def judge(path: str, file: IO[bytes], size: int, depth: int = _DEEPEST) -> Judgement:
    """Judge a file by its content; zips within it down to ``depth``.

    The name says what the file claims to be: one that is something else is at fault.
    """
    file.seek(0)
    found, claimed = _format(file.read(_HEAD_BYTES), size), _CLAIMS.get(PurePosixPath(path).suffix.lower(), "")
    format_ = found or claimed or ("pickle" if pickles.named_so(path) else "")
    if not format_:
        return Judgement("")
    try:
        code = _code(format_, file, size, depth)
    except Damaged as error:
        return Judgement(format_, fault=str(error))
    return Judgement(format_, f"it is no {claimed}" if claimed not in ("", format_) else "", code)


def _format(head: bytes, size: int) -> str:
    for name, magics in _MAGICS.items():
        if head.startswith(magics):
            return name
    if safetensors.begins(head, size):
        return "safetensors"
    return "pickle" if pickles.begins(head) else ""


def _code(format_: str, file: IO[bytes], size: int, depth: int) -> str:
    """What of it would run; ``Damaged`` where it is not what its format asks for."""
    match format_:
        case "safetensors":
            safetensors.check(file, size)
        case "GGUF":
            gguf.check(file, size)
        case "ONNX":
            onnx.check(file, size)
        case "NumPy":
            return "an array of objects, which is a pickle" if numpy.holds_objects(file, size) else ""
        case "HDF5":
            return keras.code_in(file)
        case "JSON":
            return json_text.code_in(file, size)
        case "zip" if depth:
            return zipped.code_in(file, partial(_code_of_member, depth - 1))
        case "zip":
            return "a zip within zips, which may hold anything"
        case "pickle":
            return "a pickle"
    return ""


def _code_of_member(depth: int, path: str, file: IO[bytes], size: int) -> str:
    judgement = judge(path, file, size, depth)
    if judgement.fault:
        raise Damaged(f"{printable(path)} in it: {judgement.fault}")
    return judgement.code
