"""What the head of an answer says about a file."""

import base64
import hashlib
import random
import zlib
from collections.abc import Callable
from itertools import cycle
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading.errors import LadingError, NotAllowed, NotFound, OriginChanged, Unavailable
from lading.model.byte_range import ByteRange
from lading.model.digest import HEX_DIGITS, Digest
from lading.network.answer import Answer
from lading.network.headers import (
    check_answer,
    content_coding,
    content_range,
    declared_digests,
    decode_into,
    md5_of_etag,
    range_header,
)
from lading.network.wire import Head

DATA = b"some bytes"
CRC = zlib.crc32(DATA).to_bytes(4, "big")
CRC64 = bytes(8)


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


SHA256, SHA512, SHA1, MD5 = (hashlib.new(name, DATA).digest() for name in ("sha256", "sha512", "sha1", "md5"))


def d(algorithm: str, value: bytes) -> Digest:
    return Digest(algorithm, value.hex())


@pytest.mark.parametrize(
    ("headers", "whole", "part"),
    [
        ({}, [], []),
        # RFC 9530: the representation's digest holds for ranges too, the content's only for the whole.
        ({"repr-digest": f"sha-256=:{b64(SHA256)}:"}, [d("sha256", SHA256)], [d("sha256", SHA256)]),
        ({"content-digest": f"sha-512=:{b64(SHA512)}:"}, [d("sha512", SHA512)], []),
        (
            {"repr-digest": f"sha-256=:{b64(SHA256)}:, sha-512=:{b64(SHA512)}:"},
            [d("sha256", SHA256), d("sha512", SHA512)],
            [d("sha256", SHA256), d("sha512", SHA512)],
        ),
        # RFC 3230.
        ({"digest": f"SHA-256={b64(SHA256)}"}, [d("sha256", SHA256)], [d("sha256", SHA256)]),
        (
            {"digest": f"sha={b64(SHA1)},md5={b64(MD5)}"},
            [d("sha1", SHA1), d("md5", MD5)],
            [d("sha1", SHA1), d("md5", MD5)],
        ),
        # Google's.
        (
            {"x-goog-hash": f"crc32c={b64(CRC)}, md5={b64(MD5)}"},
            [d("crc32c", CRC), d("md5", MD5)],
            [d("crc32c", CRC), d("md5", MD5)],
        ),
        ({"content-md5": b64(MD5)}, [d("md5", MD5)], []),
        # Amazon's.
        ({"x-amz-checksum-crc32": b64(CRC)}, [d("crc32", CRC)], []),
        ({"x-amz-checksum-crc64nvme": b64(CRC64), "x-amz-checksum-type": "FULL_OBJECT"}, [d("crc64nvme", CRC64)], []),
        ({"x-amz-checksum-sha256": b64(SHA256)}, [d("sha256", SHA256)], []),
        ({"x-amz-checksum-sha256": b64(SHA256) + "-3"}, [], []),
        ({"x-amz-checksum-sha256": b64(SHA256), "x-amz-checksum-type": "COMPOSITE"}, [], []),
        # Of the bytes as they are sent, which are stored encoded.
        (
            {"repr-digest": f"sha-256=:{b64(SHA256)}:", "content-encoding": "gzip"},
            [d("sha256", SHA256)],
            [d("sha256", SHA256)],
        ),
        ({"content-md5": b64(MD5), "content-encoding": "identity"}, [d("md5", MD5)], []),
        # Garbage is passed over, and what stands beside it is not.
        ({"repr-digest": f"sha-256=:{b64(SHA256)}:;a=1; b, x=1"}, [d("sha256", SHA256)], [d("sha256", SHA256)]),
        ({"repr-digest": "sha-256"}, [], []),
        ({"repr-digest": "sha-256="}, [], []),
        ({"repr-digest": "sha-256=:!!!:"}, [], []),
        ({"repr-digest": f"sha-256=:{b64(SHA1)}:"}, [], []),
        ({"repr-digest": "sha-256=:größe:"}, [], []),
        (
            {"repr-digest": f"rot13=:{b64(MD5)}:, ,,=,sha-256=:{b64(SHA256)}:"},
            [d("sha256", SHA256)],
            [d("sha256", SHA256)],
        ),
        ({"content-md5": MD5.hex()}, [], []),
        ({"x-amz-checksum-crc32": b64(SHA1)}, [], []),
        ({"digest": "id-sha-256=" + b64(SHA256)}, [], []),
    ],
)
def test_digests_are_read_from_every_header_that_tells_one(
    headers: dict[str, str], whole: list[Digest], part: list[Digest]
) -> None:
    assert list(declared_digests(Head(200, headers), whole=True)) == whole
    assert list(declared_digests(Head(206, headers), whole=False)) == part


NAMES = ["repr-digest", "content-digest", "digest", "x-goog-hash", "content-md5", "content-encoding"]


@given(
    st.dictionaries(st.sampled_from([*NAMES, "x-amz-checksum-crc32", "x-amz-checksum-sha256"]), st.text()),
    st.booleans(),
)
def test_no_header_whatever_it_holds_raises(headers: dict[str, str], whole: bool) -> None:
    for digest in declared_digests(Head(200, headers), whole=whole):
        assert len(digest.value) == HEX_DIGITS[digest.algorithm]


ETAG = f'"{MD5.hex()}"'


@pytest.mark.parametrize(
    ("headers", "is_md5"),
    [
        ({"etag": ETAG}, True),
        ({"etag": ETAG, "x-amz-server-side-encryption": "AES256"}, True),
        ({"etag": ETAG, "x-amz-server-side-encryption": "aws:kms"}, False),
        ({"etag": ETAG, "x-amz-server-side-encryption": "aws:kms:dsse"}, False),
        ({"etag": ETAG, "x-amz-server-side-encryption-customer-algorithm": "AES256"}, False),
        ({"etag": ETAG, "x-amz-storage-class": "EXPRESS_ONEZONE"}, False),
        ({"etag": f'"{MD5.hex()}-7"'}, False),
        ({"etag": f"W/{ETAG}"}, False),
        ({"etag": MD5.hex()}, False),
        ({"etag": ETAG.upper()}, False),
        ({}, False),
    ],
)
def test_an_etag_is_an_md5_only_where_s3_says_so(headers: dict[str, str], is_md5: bool) -> None:
    assert list(md5_of_etag(Head(200, headers))) == ([d("md5", MD5)] if is_md5 else [])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes 0-9/100", (0, 10, 100)),
        ("bytes 5-5/*", (5, 6, None)),
        ("Bytes 5-5/*", (5, 6, None)),
        ("bytes */100", (0, 0, 100)),
        ("bytes */*", (0, 0, None)),
        ("", None),
        ("bytes 0-9", None),
        ("bytes 0-/100", None),
        ("bytes=0-9/100", None),
        ("items 0-9/100", None),
        ("bytes -5/100", None),
        ("bytes 0-9/100 ", None),
    ],
)
def test_a_content_range_is_read_or_it_is_none(text: str, found: tuple[int, int, int | None] | None) -> None:
    assert content_range(Head(206, {"content-range": text})) == found


def head(status: int, **headers: str) -> Head:
    return Head(status, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("answer", "byte_range", "size", "error"),
    [
        (head(200, content_length="100"), ByteRange(0, 100), 100, None),
        (head(200), ByteRange(0, 100), 100, None),
        (head(200), ByteRange(0, None), None, None),
        (head(200, content_length="5"), ByteRange(0, None), None, None),
        (head(206, content_range="bytes 0-99/100"), ByteRange(0, 100), 100, None),
        (head(206, content_range="bytes 10-19/100"), ByteRange(10, 20), 100, None),
        (head(206, content_range="bytes 10-19/*"), ByteRange(10, 20), 100, None),
        # The whole file where a part was asked for.
        (head(200, content_length="100"), ByteRange(10, 20), 100, Unavailable),
        (head(200, content_length="100"), ByteRange(0, 20), 100, Unavailable),
        (head(200, content_length="10"), ByteRange(10, 20), 100, Unavailable),
        # Another size.
        (head(200, content_length="101"), ByteRange(0, 100), 100, OriginChanged),
        (head(206, content_range="bytes 10-19/101"), ByteRange(10, 20), 100, OriginChanged),
        # Another part, or one without a name.
        (head(206, content_range="bytes 10-20/100"), ByteRange(10, 20), 100, Unavailable),
        (head(206, content_range="bytes 0-9/100"), ByteRange(10, 20), 100, Unavailable),
        (head(206, content_range="bytes 10-18/100"), ByteRange(10, 20), 100, Unavailable),
        (head(206), ByteRange(10, 20), 100, Unavailable),
        (head(206, content_range="bytes */100"), ByteRange(10, 20), 100, Unavailable),
        # Other answers.
        (head(412), ByteRange(10, 20), 100, OriginChanged),
        (head(416, content_range="bytes */5"), ByteRange(10, 20), 100, OriginChanged),
        (head(404), ByteRange(10, 20), 100, NotFound),
        (head(403), ByteRange(10, 20), 100, NotAllowed),
        (head(503), ByteRange(10, 20), 100, Unavailable),
        (head(304), ByteRange(10, 20), 100, LadingError),
        (head(204), ByteRange(10, 20), 100, LadingError),
    ],
)
def test_only_the_bytes_that_were_asked_for_are_taken(
    answer: Head, byte_range: ByteRange, size: int | None, error: type[LadingError] | None
) -> None:
    if error is None:
        check_answer(answer, byte_range, size, "what")
        return
    with pytest.raises(error, match="what"):
        check_answer(answer, byte_range, size, "what")


@pytest.mark.parametrize(
    ("byte_range", "size", "asked"),
    [
        (ByteRange(0, 10), 10, None),
        (ByteRange(0, 0), 0, None),
        (ByteRange(0, None), None, None),
        (ByteRange(0, 9), 10, "bytes=0-8"),
        (ByteRange(1, 10), 10, "bytes=1-9"),
        (ByteRange(0, 10), None, "bytes=0-9"),
        (ByteRange(5, None), None, "bytes=5-"),
    ],
)
def test_a_range_is_asked_for_unless_it_is_the_whole_file(
    byte_range: ByteRange, size: int | None, asked: str | None
) -> None:
    assert range_header(byte_range, size) == ([("Range", asked)] if asked else [])


@pytest.mark.parametrize(
    ("text", "coding"),
    [
        ("", ""),
        ("identity", ""),
        ("gzip", "gzip"),
        ("X-GZip", "gzip"),
        ("gzip, gzip", "gzip, gzip"),
        ("aws-chunked,gzip", "gzip"),
        ("deflate\t, br", "deflate, br"),
        ("x-compress", "compress"),
        ("zstd, utf-8", "zstd"),
        ("gzip2", ""),
        ("x-amz", ""),
    ],
)
def test_only_registered_codings_are_codings(text: str, coding: str) -> None:
    assert content_coding(text) == coding


class Arriving:
    """An answer whose body arrives in pieces of these sizes, over and over."""

    def __init__(self, coding: str, body: bytes, sizes: list[int]) -> None:
        self.head, self.url = Head(200, {"content-encoding": coding}), "http://h.test/"
        self._body, self._sizes = body, sizes

    def read_into(self, sink: Callable[[memoryview], None]) -> None:
        at = 0
        for size in cycle(self._sizes):
            if at >= len(self._body):
                return
            sink(memoryview(self._body)[at : at + size])
            at += size


DECODED_BYTES = 256 * 1024
WINDOWS = [("gzip", 31), ("deflate", 15), ("deflate", -15)]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(WINDOWS),
    st.integers(0, 4),
    st.integers(-260, 260),
    st.sampled_from([bytes, random.Random(1).randbytes, lambda size: (b"some text, " * (size // 11 + 1))[:size]]),
    st.integers(0, 9),
    st.lists(st.sampled_from([1, 2, 3, 100, 4096, 1 << 20]), min_size=1, max_size=4).map(
        lambda sizes: [*sizes, 1 << 16]
    ),
)
def test_a_body_of_any_size_is_decoded_whole_however_it_arrives(
    form: tuple[str, int], buffers: int, more: int, fill: Callable[[int], bytes], level: int, sizes: list[int]
) -> None:
    coding, window = form
    content = fill(max(0, buffers * DECODED_BYTES + more))
    packer = zlib.compressobj(level, zlib.DEFLATED, window)
    body = packer.compress(content) + packer.flush()
    decoded: list[bytes] = []

    def take(piece: memoryview) -> None:
        assert len(piece) <= DECODED_BYTES
        decoded.append(bytes(piece))

    decode_into(cast(Answer, Arriving(coding, body, sizes)), take)
    assert b"".join(decoded) == content
    with pytest.raises(LadingError):
        decode_into(cast(Answer, Arriving(coding, body[:-1], sizes)), take)
