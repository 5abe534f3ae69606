"""Zips, the files that PyTorch, NumPy and Keras save."""

import zipfile
import zlib
from collections.abc import Callable
from typing import IO

from lading.errors import Unsupported
from lading.formats.reader import Damaged
from lading.text.printable import printable
from lading.unpack.zip import open_zip

MAGICS = (b"PK\3\4", b"PK\5\6")
# Errors that zipfile and zlib raise for a damaged zip.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError)


def code_in(file: IO[bytes], code_in_member: Callable[[str, IO[bytes], int], str]) -> str:
    """The code in a member that would run, with the member's name; "" for none."""
    try:
        with open_zip(file, "the zip") as bundle:
            for member in bundle.infolist():
                with bundle.open(member) as content:
                    code = code_in_member(member.filename, content, member.file_size)
                if code:
                    return f"{code}, in {printable(member.filename)}"
    except Unsupported as error:
        raise Damaged(error.message) from error
    except _DAMAGED as error:
        raise Damaged(f"the zip cannot be read: {printable(str(error))}") from error
    return ""
