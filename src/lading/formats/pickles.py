"""Pickles, which run the code that they name when they are loaded (https://docs.python.org/3/library/pickle.html)."""

import io
import logging
import pickletools
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import IO

from lading.text.printable import printable

_SUFFIXES = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill", ".cloudpickle", ".sav"}
_FRAMED = {bytes((0x80, protocol)) for protocol in (2, 3, 4, 5)}
_FEWEST = 3
_LONG_BYTES = 1 << 20
_MOST_LINE_BYTES = 1 << 20
_MOST_MEMOS = 1_000_000
_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD", "EXT1", "EXT2", "EXT4"}


def named_so(path: str) -> bool:
    """Whether files with this name are loaded as pickles, also compressed ones."""
    return PurePosixPath(path).suffix.lower() in _SUFFIXES


def begins(head: bytes) -> bool:
    """Whether this is the beginning of a pickle, or of several, of any protocol.

    Protocols 0 and 1 have no magic number, and any text may look like instructions.  So such a
    pickle counts only if it ends within ``head`` and calls something.
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
    """The names in a pickle that picklescan does not know to be harmless, in words; "" for none.

    It uses picklescan's strict mode, an allow-list: its list of dangerous names was bypassed several times
    (https://github.com/mmaitre314/picklescan/security/advisories).  This module finds the names, in bounded memory.
    """
    try:
        names = {name for each in _each(_Skipping(file)) for name in _names(each)}
    except (ValueError, TypeError, OverflowError) as error:
        return f"a pickle that cannot be scanned ({printable(str(error))[:80]})"
    named = sorted(name for name in names if not _is_harmless(name))
    return f"a pickle that names {printable(', '.join(named))[:200]}" if named else ""


def _each(stream: "_Skipping") -> Iterator["_Skipping"]:
    """Give the stream at the start of each pickle; the file must hold nothing else."""
    while not stream.is_at_end():
        yield stream


def _names(stream: "_Skipping") -> Iterator[str]:
    """Each global that a pickle names, as "module name"; ``ValueError`` if a name cannot be determined."""
    memo: dict[int, str | None] = {}
    pushed: list[str | None] = []
    for instruction, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
        name = instruction.name
        if name in _STRINGS:
            pushed.append(argument)
        elif name in _GETS:
            pushed.append(memo.get(int(argument or 0)))
        elif name in _PUTS:
            memo[len(memo) if argument is None else argument] = pushed[-1] if pushed else None
            if len(memo) > _MOST_MEMOS:
                raise ValueError(f"it refers to more than {_MOST_MEMOS} of its values")
        else:
            if name in ("GLOBAL", "INST"):
                yield str(argument)
            elif name == "STACK_GLOBAL":
                yield _joined(pushed[-2:])
            elif name.startswith("EXT"):
                raise ValueError("it names something by a number")
            pushed.clear()
            pushed.append(None)
        del pushed[:-2]


def _joined(names: list[str | None]) -> str:
    """The name that consists of two strings pushed in a row; ``ValueError`` for a name that is made in another way."""
    module, name = names if len(names) == 2 else (None, None)
    if not module or not name or {" ", "\n"} & {*module, *name}:
        raise ValueError("it makes up a name")
    return f"{module} {name}"


def _is_harmless(name: str) -> bool:
    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    # picklescan would log its findings, which lading reports itself.
    logging.getLogger("picklescan").setLevel(logging.CRITICAL)
    module, _, rest = name.partition(" ")
    found = scan_pickle_bytes(io.BytesIO(f"c{module}\n{rest}\n.".encode()), "", strict=True)
    return [each.safety for each in found.globals] == [SafetyLevel.Innocuous]


class _Skipping:
    """Reads like a file, but skips long runs of bytes and gives only their length: arrays have gigabytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.readline = partial(file.readline, _MOST_LINE_BYTES)
        self.tell = file.tell

    def is_at_end(self) -> bool:
        begin = self.tell()
        is_at_end = not self._file.read(1)
        self._file.seek(begin)
        return is_at_end

    def read(self, count: int) -> "bytes | _Skipped":
        if count <= _LONG_BYTES:
            return self._file.read(count)
        begin = self.tell()
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(min(begin + count, end))
        return _Skipped(min(count, end - begin))


class _Skipped:
    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length
