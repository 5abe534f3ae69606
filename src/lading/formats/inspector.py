"""Inspecting a file by its content: its format, whether it is complete, and whether loading it runs code."""

from collections.abc import Callable
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
_MAY_HOLD_CODE = {"zip", "NumPy"}
# The formats that names claim by their endings.
_CLAIMS = {
    ".safetensors": "safetensors",
    ".gguf": "GGUF",
    ".npy": "NumPy",
    ".npz": "zip",
    ".keras": "zip",
    ".onnx": "ONNX",
    ".json": "JSON",
}


class Finding(NamedTuple):
    """The result, each "" for none: the ``format``, the ``fault`` of a damaged file, the ``code`` that would run."""

    format: str
    fault: str = ""
    code: str = ""


def any_pickle(_file: IO[bytes]) -> str:
    """The answer for any pickle, whatever it contains: it is code."""
    return "a pickle"


class Inspector(NamedTuple):
    """Inspects files by their content.

    ``pickle_code`` says what code a pickle runs, "" for none; the pickle begins at the file's present position.
    """

    pickle_code: Callable[[IO[bytes]], str] = any_pickle

    def inspect(self, path: str, file: IO[bytes], size: int, depth: int = _DEEPEST) -> Finding:
        """Inspect a file of ``size`` bytes and its content: zips within zips down to ``depth``.

        The name only says which format the file claims to have: another one is a fault.
        """
        file.seek(0)
        found, claimed = _format(file.read(_HEAD_BYTES), size), _CLAIMS.get(PurePosixPath(path).suffix.lower(), "")
        format_ = found or claimed
        if not format_ and pickles.named_so(path):
            # It is compressed, or in a form that is not read here.
            return Finding("pickle", code="what is loaded as a pickle, by its name")
        try:
            code = self._code(format_, file, size, depth)
        except Damaged as error:
            # A loader may read on where this one stopped: nobody has seen what else is in it.
            unseen = "what cannot be looked through, since it is damaged" if format_ in _MAY_HOLD_CODE else ""
            return Finding(format_, str(error), unseen)
        return Finding(format_, f"it is no {claimed}" if claimed not in ("", format_) else "", code)

    def _code(self, format_: str, file: IO[bytes], size: int, depth: int) -> str:
        """The code in the file that would run, or ""; ``Damaged`` if the file breaks the rules of its format."""
        file.seek(0)
        match format_:
            case "safetensors":
                safetensors.check(file, size)
            case "GGUF":
                gguf.check(file, size)
            case "ONNX":
                onnx.check(file, size)
            case "NumPy" if numpy.holds_objects(file, size):
                return self.pickle_code(file)
            case "HDF5":
                return keras.code_in(file)
            case "JSON":
                return json_text.code_in(file, size)
            case "zip" if depth:
                return zipped.code_in(file, partial(self._code_of_member, depth - 1))
            case "zip":
                return "a zip within zips, which may hold anything"
            case "pickle":
                return self.pickle_code(file)
        return ""

    def _code_of_member(self, depth: int, path: str, file: IO[bytes], size: int) -> str:
        finding = self.inspect(path, file, size, depth)
        if finding.fault:
            raise Damaged(f"{printable(path)} in it: {finding.fault}")
        return finding.code


def _format(head: bytes, size: int) -> str:
    for name, magics in _MAGICS.items():
        if head.startswith(magics):
            return name
    if safetensors.begins(head, size):
        return "safetensors"
    return "pickle" if pickles.begins(head) else ""
