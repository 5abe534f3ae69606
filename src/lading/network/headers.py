"""Headers about a file: its version, its digests, and the range of the body.

Shared by the sources that speak HTTP.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Callable, Iterator

from lading.errors import IntegrityError, OriginChanged, Unavailable, Unsupported
from lading.model.byte_range import ByteRange
from lading.model.digest import HEX_DIGITS, Digest
from lading.model.listing import ListedFile
from lading.model.uri import redact
from lading.model.validator import entity_tag, is_same
from lading.network.answer import Answer, status_error
from lading.network.wire import Head

# RFC 9530 and its registry, RFC 3230 (obsolete, still sent), and Google's names, in lower case.
_NAMES = {
    "sha-256": "sha256",
    "sha-512": "sha512",
    "sha": "sha1",
    "sha-1": "sha1",
    "md5": "md5",
    "crc32c": "crc32c",
}
_DIGEST_HEADERS = frozenset(
    ["repr-digest", "content-digest", "digest", "x-goog-hash", "content-md5"]
    + [f"x-amz-checksum-{algorithm}" for algorithm in HEX_DIGITS]
)
# https://www.iana.org/assignments/http-parameters, "Content Coding Registry", without "identity", which is none.
_CODINGS = frozenset(["aes128gcm", "br", "compress", "dcb", "dcz", "deflate", "exi", "gzip", "pack200-gzip", "zstd"])
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_DECODED_BYTES = 256 * 1024
_MD5 = re.compile(r'"[0-9a-f]{32}"')
# RFC 9110, 14.1: names of units are written in any case.
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)", re.IGNORECASE)


def declared_digests(head: Head, *, whole: bool) -> Iterator[Digest]:
    """Digests of the whole file as it is sent, encoded or not; ``whole`` says that the answer's body is all of it.

    Reads Repr-Digest and Content-Digest (RFC 9530), Digest (RFC 3230), Content-MD5 (RFC 1864),
    x-goog-hash and x-amz-checksum-*.  Values that cannot be parsed are ignored.
    """
    if _DIGEST_HEADERS.isdisjoint(head.headers):
        return
    for member in (head.get("repr-digest") + "," + (head.get("content-digest") if whole else "")).split(","):
        # RFC 8941, 3.2: parameters may follow a member.
        name, _, value = member.partition(";")[0].strip().partition("=")
        yield from base64_digest(_NAMES.get(name.lower(), ""), value.strip(":"))
    # Of what Cloud Storage decodes on the way, it tells the digests of what is stored
    # (https://cloud.google.com/storage/docs/transcoding).
    decoded = head.get("x-goog-stored-content-encoding").lower() not in ("", "identity")
    for member in (head.get("digest") + "," + ("" if decoded else head.get("x-goog-hash"))).split(","):
        name, _, value = member.strip().partition("=")
        yield from base64_digest(_NAMES.get(name.lower(), ""), value)
    if whole:
        yield from base64_digest("md5", head.get("content-md5"))
        if head.get("x-amz-checksum-type").upper() != "COMPOSITE":
            for algorithm in HEX_DIGITS:
                yield from base64_digest(algorithm, head.get(f"x-amz-checksum-{algorithm}"))


def if_match(file: ListedFile) -> list[tuple[str, str]]:
    """The header that requests the listed version, if it is known by an ETag.

    RFC 9110, 13.1.1: the comparison is a strong one, so that a weak ETag would never match.
    """
    pinned = "" if file.answers_differ else file.validator or ""
    return [("If-Match", pinned)] if pinned.startswith('"') else []


def md5_of_etag(head: Head, listed: str = "") -> Iterator[Digest]:
    """The MD5 that an S3 ETag is: of one part, not encrypted with a key of KMS or of the customer.

    ``listed`` is the ETag that the listing has of the object: if the answer has another one, neither is a digest.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    encryption = head.get("x-amz-server-side-encryption")
    if encryption not in ("", "AES256") or head.get("x-amz-server-side-encryption-customer-algorithm"):
        return
    if head.get("x-amz-storage-class") == "EXPRESS_ONEZONE":
        return
    etag = listed or head.get("etag")
    if _MD5.fullmatch(etag) and is_same(etag, entity_tag(head.get("etag"))):
        yield Digest("md5", etag.strip('"'))


def base64_digest(algorithm: str, encoded: str) -> Iterator[Digest]:
    """The digest that ``encoded``, in base64, is; nothing if it is none of this algorithm."""
    if not algorithm or not encoded:
        return
    try:
        value = base64.b64decode(encoded, validate=True).hex()
    except (binascii.Error, ValueError):
        return
    if len(value) == HEX_DIGITS[algorithm]:
        yield Digest(algorithm, value)


def content_range(head: Head) -> tuple[int, int, int | None] | None:
    """First byte, end (exclusive) and total of a Content-Range; None where there is none (RFC 9110, 14.4).

    ``bytes */N``, the answer to a range that cannot be had, is (0, 0, N).
    """
    match = _CONTENT_RANGE.fullmatch(head.get("content-range"))
    if match is None:
        return None
    first, last, total = match.groups()
    size = None if total == "*" else int(total)
    return (int(first), int(last) + 1, size) if first else (0, 0, size)


def range_header(byte_range: ByteRange, size_bytes: int | None) -> list[tuple[str, str]]:
    """The header that requests ``byte_range`` of a file of this size (RFC 9110, 14.2); none for the whole file."""
    if byte_range == ByteRange(0, size_bytes):
        return []
    return [("Range", f"bytes={byte_range.start}-{'' if byte_range.end is None else byte_range.end - 1}")]


def check_answer(head: Head, byte_range: ByteRange, size_bytes: int | None, what: str) -> None:
    """Raise unless the body that follows is ``byte_range`` of a file of this size.

    A 200 to a request for a range is the whole file, and is never taken for the range, unless it
    says itself that it is one.
    """
    found = content_range(head)
    # A part with the status of the whole: "rclone serve s3" does that.  The header says which it is.
    if head.status == 200 and found is None:
        if byte_range != ByteRange(0, size_bytes):
            raise Unavailable(f"{what}: the server sends the whole file instead of {byte_range}")
        length = head.get("content-length")
        if size_bytes is not None and length.isdigit() and int(length) != size_bytes:
            raise OriginChanged(f"{what} has {length} bytes now; {size_bytes} were listed")
        return
    if head.status not in (200, 206):
        raise status_error(head, what)
    if found is None:
        raise Unavailable(f"{what}: the server does not say which part of the file it sends")
    start, end, total = found
    if total is not None and size_bytes is not None and total != size_bytes:
        raise OriginChanged(f"{what} has {total} bytes now; {size_bytes} were listed")
    if (start, end) != (byte_range.start, byte_range.end):
        raise Unavailable(f"{what}: the server sends bytes {start}-{end - 1} instead of {byte_range}")


def content_coding(text: str) -> str:
    """The content coding of a body, by its Content-Encoding (RFC 9110, 8.4); "" if that names none.

    Objects keep whatever word they were stored with: S3's "aws-chunked", a charset, "binary", "none".
    """
    words = (word.strip().lower().removeprefix("x-") for word in text.split(","))
    return ", ".join(word for word in words if word in _CODINGS)


def decode_into(answer: Answer, write: Callable[[memoryview], None]) -> None:
    """Push the body of an answer that was encoded in gzip or deflate (RFC 9110, 8.4)."""
    coding = content_coding(answer.head.get("content-encoding"))
    if coding not in ("gzip", "deflate"):
        raise Unsupported(
            f"{redact(answer.url)} is sent in the content coding {coding!r}",
            hint="lading requested none: check the server and any proxy in front of it",
        )
    decoder = None

    def inflate(piece: memoryview) -> None:
        nonlocal decoder
        data: bytes | memoryview = piece
        output = b""
        # A decoder may have taken all there is, and still hold what came of it.
        while len(data) or (output and decoder and not decoder.eof):
            if decoder is None:
                decoder = _decoder(coding, data[0])
            elif decoder.eof:
                # RFC 1952, 2.2: several members, one behind the other, are one file.  gzip passes over zeros behind it.
                data = bytes(data).lstrip(b"\0")
                if not data:
                    return
                decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                output = decoder.decompress(data, _DECODED_BYTES)
            except zlib.error as error:
                raise IntegrityError(
                    f"{redact(answer.url)} is not the {coding} data that its header announces"
                ) from error
            write(memoryview(output))
            data = decoder.unconsumed_tail or decoder.unused_data

    answer.read_into(inflate)
    if decoder is None or not decoder.eof:
        raise Unavailable(f"{redact(answer.url)}: the {coding} data ends early")


def _decoder(coding: str, first: int) -> "zlib._Decompress":
    """The decoder for a body that begins with this byte.

    Some servers send deflate without zlib's wrapper (RFC 9110, 8.4.1.2), whose first byte it cannot begin with.
    """
    is_raw = coding == "deflate" and first & 15 != zlib.DEFLATED
    return zlib.decompressobj(-zlib.MAX_WBITS if is_raw else _GZIP_OR_ZLIB)
