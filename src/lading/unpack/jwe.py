"""Decrypting a file in JSON Web Encryption (RFC 7516), as a stream."""

import base64
import binascii
import json
import os
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from lading.errors import IntegrityError, LadingError

# '{"' in base64url: every header begins with it.
MAGIC = b"eyJ"
_MOST_HEADER_BYTES = 8 << 10
_CHUNK_BYTES = 1 << 20
# For each "enc", the size of its key in bytes and, for AES-CBC, the digest of its HMAC (RFC 7518, section 5.1).
CIPHERS = {
    "A128GCM": (16, ""),
    "A192GCM": (24, ""),
    "A256GCM": (32, ""),
    "A128CBC-HS256": (32, "sha256"),
    "A192CBC-HS384": (48, "sha384"),
    "A256CBC-HS512": (64, "sha512"),
}
WRAPS = {f"A{bits}{kind}": bits // 8 for bits in (128, 192, 256) for kind in ("KW", "GCMKW")}


class Envelope(NamedTuple):
    """The parts of a JWE without its ciphertext, of which it has the start and end in the file."""

    header: dict[str, Any]
    authenticated: bytes
    wrapped_key: bytes
    vector: bytes
    start: int
    end: int
    tag: bytes


def wrong_key() -> LadingError:
    """The error of a failed authentication."""
    return IntegrityError(
        "it cannot be decrypted: the key is the wrong one, or the file was changed after it was encrypted",
        hint="CONFIDENTIAL_RESOURCE_ID names the key",
    )


def read_envelope(file: IO[bytes]) -> Envelope:
    """Read a JWE without its ciphertext; ``IntegrityError`` if the file is none."""
    parts = []
    for _ in range(3):
        part = bytearray()
        while (byte := file.read(1)) not in (b".", b""):
            part += byte
            if len(part) > _MOST_HEADER_BYTES:
                raise _no_envelope()
        if not byte:
            raise _no_envelope()
        parts.append(bytes(part))
    start = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(max(start, size - 256))
    # An editor may have added a line end.
    end = file.read().rstrip()
    ciphertext, point, tag = end.rpartition(b".")
    if not point:
        raise _no_envelope()
    try:
        header = json.loads(base64url(parts[0].decode("ascii")))
    except ValueError as error:
        raise _no_envelope() from error
    if not isinstance(header, dict):
        raise _no_envelope()
    key, vector, mark = (base64url(part.decode("ascii", "replace")) for part in (parts[1], parts[2], tag))
    stop = max(start, size - 256) + len(ciphertext)
    return Envelope(header, parts[0], key, vector, start, stop, mark)


def _no_envelope() -> IntegrityError:
    return IntegrityError(
        "it is not encrypted as its name says", hint="it should be a JWE in the compact serialization, RFC 7516"
    )


def decoded(reader: IO[bytes], start: int, end: int) -> Iterator[bytes]:
    """Decode this part of the file from base64url."""
    reader.seek(start)
    left = end - start
    while left:
        text = reader.read(min(_CHUNK_BYTES, left))
        if not text:
            raise IntegrityError("it ended while it was read")
        left -= len(text)
        yield base64url(text.decode("ascii", "replace"))


def base64url(text: str) -> bytes:
    """Decode base64url without padding (RFC 7515, section 2)."""
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise IntegrityError("it is damaged: a part of it is not base64url") from error
