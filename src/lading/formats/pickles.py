"""Pickles, which run what they name when they are loaded (https://docs.python.org/3/library/pickle.html)."""

import io
import pickletools
from pathlib import PurePosixPath

_SUFFIXES = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill", ".cloudpickle", ".sav"}
_FRAMED = {bytes((0x80, protocol)) for protocol in (2, 3, 4, 5)}
_FEWEST = 3
_CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD", "EXT1", "EXT2", "EXT4"}


def named_so(path: str) -> bool:
    """Whether files of this name are loaded as pickles, compressed ones among them."""
    return PurePosixPath(path).suffix.lower() in _SUFFIXES


def begins(head: bytes) -> bool:
    """Whether this is the beginning of a pickle, or of several, of any protocol.

    Protocols 0 and 1 have no magic, and the letters of a text are instructions, too.  So such a
    pickle counts only when it ends within ``head`` and calls something.
    """
    stream = io.BytesIO(head)
    called = False
    while True:
        names = []
        try:
            for instruction, _, _ in pickletools.genops(stream):
                names.append(instruction.name)
        except ValueError:
            return called or (head[:2] in _FRAMED and len(names) >= _FEWEST)
        called = called or not _CALLS.isdisjoint(names) or head[:2] in _FRAMED
