"""Pickles, which run what they name when they are loaded (https://docs.python.org/3/library/pickle.html)."""

import io
import logging
import pickletools
from pathlib import PurePosixPath
from typing import IO

from lading.text.printable import printable

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


def scanned_code(file: IO[bytes]) -> str:
    """What a pickle names that is not on picklescan's list of harmless names; "" when there is nothing.

    Its strict mode allows what it knows; its list of dangerous names was passed by several times
    (https://github.com/mmaitre314/picklescan/security/advisories).
    """
    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    # It says what it finds to whoever listens, and so do we.
    logging.getLogger("picklescan").setLevel(logging.CRITICAL)
    found = scan_pickle_bytes(file, "", strict=True)
    if found.scan_err:
        return "a pickle that cannot be scanned to its end"
    names = [f"{each.module}.{each.name}" for each in found.globals if each.safety != SafetyLevel.Innocuous]
    return f"a pickle that names {printable(', '.join(sorted(names)))[:200]}" if names else ""
