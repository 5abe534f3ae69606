"""Pins: the part of a URI that fixes exactly the listed files, so that it never stands for others.

    s3://models/llm?pin=sha256:…      model-registry://prod/iris/v3?pin=sha256:…

The digest covers every file's path, size and strongest digest; if its origin declares none, the validator that
names its version; a checksum (CRC) counts together with the validator.
"""

import hashlib
import re
from collections.abc import Mapping

from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.uri import ModelURI

_KEY = "pin="
_PIN = re.compile("sha256:[0-9a-f]{64}")


def split_pin(uri: ModelURI) -> tuple[ModelURI, Digest | None]:
    """``uri`` without its pin, and the pin or None; a query key ``pin`` with another form of value stays in the URI."""
    if not uri.scheme:
        path, mark, pin = uri.path.rpartition(f"?{_KEY}")
        return (uri._replace(path=path), Digest.parse(pin)) if mark and _PIN.fullmatch(pin) else (uri, None)
    kept, found = [], None
    for pair in (uri.query or "").split("&"):
        if found is None and pair.startswith(_KEY) and _PIN.fullmatch(pair.removeprefix(_KEY)):
            found = Digest.parse(pair.removeprefix(_KEY))
        else:
            kept.append(pair)
    return (uri._replace(query="&".join(kept) or None), found) if found else (uri, None)


def pinned(uri: ModelURI, pin: Digest) -> ModelURI:
    """``uri`` with the pin in its query, or after a local path, which has no query."""
    if not uri.scheme:
        return uri._replace(path=f"{uri.path}?{_KEY}{pin}")
    return uri._replace(query=f"{uri.query}&{_KEY}{pin}" if uri.query else f"{_KEY}{pin}")


def pin_of(listed: Listing, recorded: Mapping[str, Digest]) -> Digest:
    """The pin of a listing; ``recorded`` are the registry's digests by path, "" for the only file."""
    running = hashlib.sha256()
    for file in listed.files:
        own = [digest for path, digest in recorded.items() if path in (file.path, "")]
        # A name that is not valid Unicode is part of the listing, though it cannot be delivered.
        running.update(f"{file.path}\0{file.size_bytes}\0{_identity(file, own)}\n".encode("utf-8", "surrogatepass"))
    return Digest("sha256", running.hexdigest())


def _identity(file: ListedFile, recorded: list[Digest]) -> str:
    known = [digest for digest in (*recorded, *file.declared) if not digest.part_sizes_bytes]
    if not known:
        return file.validator or ""
    strongest = max(known, key=lambda digest: digest.strength)
    # A checksum alone identifies nothing: other content has the same CRC once in 2**32 times, or on purpose.
    return f"{strongest} {file.validator}" if strongest.algorithm.startswith("crc") else str(strongest)
