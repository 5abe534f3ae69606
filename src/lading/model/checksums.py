"""Computing digests while bytes are received.  No I/O.

CRCs of ranges combine into the CRC of the whole, so ranges may come in any order; every other
digest needs the bytes in order (``SequentialHash``).
"""

import binascii
import hashlib
from collections.abc import Callable, Iterable
from itertools import repeat
from operator import itemgetter
from struct import iter_unpack, pack
from typing import Protocol

from isal import isal_zlib

from lading.errors import Unsupported
from lading.model.digest import HEX_DIGITS, Digest

RunningCrc = Callable[[memoryview, int], int]
_CombineCrc = Callable[[int, int, int], int]


def _crc32() -> tuple[RunningCrc, _CombineCrc]:
    return isal_zlib.crc32, isal_zlib.crc32_combine


# awscrt takes 12 MB and 50 ms to load: only for the two CRCs that nothing lighter computes.
def _crc32c() -> tuple[RunningCrc, _CombineCrc]:
    from awscrt import checksums

    return checksums.crc32c, checksums.combine_crc32c


def _crc64nvme() -> tuple[RunningCrc, _CombineCrc]:
    from awscrt import checksums

    return checksums.crc64nvme, checksums.combine_crc64nvme


_CRCS = {"crc32": _crc32, "crc32c": _crc32c, "crc64nvme": _crc64nvme}


def is_crc(digest: Digest) -> bool:
    """Whether this digest can be combined from the digests of ranges."""
    return digest.algorithm in _CRCS and not digest.part_sizes_bytes


def running_crc(algorithm: str) -> RunningCrc:
    """The function ``(piece, crc so far) -> crc`` of an algorithm."""
    return _CRCS[algorithm]()[0]


def combined_crc(algorithm: str, ranges: Iterable[tuple[int, int]]) -> Digest:
    """The CRC of a file whose consecutive ranges have these (CRC, size in bytes)."""
    combine = _CRCS[algorithm]()[1]
    total = 0
    for number, (crc, size_bytes) in enumerate(ranges):
        # Combining takes longer than computing the CRC of a small file, so the first range needs none.
        total = combine(total, crc, size_bytes) if number else crc
    return Digest(algorithm, f"{total:0{HEX_DIGITS[algorithm]}x}")


class _Hash(Protocol):
    def update(self, piece: memoryview, /) -> object: ...
    def hexdigest(self) -> str: ...


class _CrcHash:
    """A CRC with the interface of ``hashlib``."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._running = running_crc(algorithm)
        self._value = 0

    def update(self, piece: memoryview) -> None:
        self._value = self._running(piece, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:0{HEX_DIGITS[self._algorithm]}x}"


HDFS_CHUNK_BYTES = 512
_HDFS_BUFFER_BYTES = 32


class _HdfsBlock:
    """The checksum of a block in HDFS: the MD5 of the CRCs of every 512 bytes, its default."""

    def __init__(self, crc: str) -> None:
        self._crc = running_crc(crc)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._begun = b""

    def update(self, piece: memoryview) -> None:
        if self._begun:
            own = HDFS_CHUNK_BYTES - len(self._begun)
            self._begun += piece[:own]
            piece = piece[own:]
            if len(self._begun) < HDFS_CHUNK_BYTES:
                return
            self._md5.update(pack(">I", self._crc(memoryview(self._begun), 0)))
        whole = len(piece) - len(piece) % HDFS_CHUNK_BYTES
        # By map(), not in a loop: the two million chunks of a GiB take 0.7 s, and twice that in a loop.
        chunks = map(itemgetter(0), iter_unpack(f"{HDFS_CHUNK_BYTES}s", piece[:whole]))
        crcs = list(map(self._crc, chunks, repeat(0)))
        self._md5.update(pack(f">{len(crcs)}I", *crcs))
        self._begun = bytes(piece[whole:])

    def hexdigest(self) -> str:
        if self._begun:
            self._md5.update(pack(">I", self._crc(memoryview(self._begun), 0)))
            self._begun = b""
        return self._md5.hexdigest()


class _HdfsBlocks:
    """The checksum of a file in HDFS: the MD5 of a buffer with the MD5s of its blocks, and the zeros after them.

    The buffer has 32 bytes at first and grows by doubling
    (hadoop-hdfs-client, ``FileChecksumHelper.makeMd5CrcResult``).
    """

    def __init__(self) -> None:
        self._md5s = bytearray()

    def update(self, piece: memoryview) -> None:
        self._md5s += piece

    def hexdigest(self) -> str:
        size = _HDFS_BUFFER_BYTES
        while size < len(self._md5s):
            size *= 2
        return hashlib.md5(self._md5s.ljust(size, b"\0"), usedforsecurity=False).hexdigest()


def _blake3() -> _Hash:
    try:
        from blake3 import blake3
    except ImportError as error:
        raise Unsupported("blake3 digests need the extra blake3", hint="pip install 'lading[blake3]'") from error
    return blake3()


def new_hash(algorithm: str, size_bytes: int | None = None) -> _Hash:
    """A running digest of any algorithm that lading knows; ``Unsupported`` for blake3 without its extra.

    ``git-sha1``, git's name for a blob, covers the size before the content
    (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects): ``Unsupported`` if the size is not known.
    """
    if algorithm in _CRCS:
        return _CrcHash(algorithm)
    if algorithm == "git-sha1":
        if size_bytes is None:
            raise Unsupported("a git-sha1 digest needs the file's size, which its origin does not tell")
        return hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
    if algorithm.startswith("hdfs-"):
        return _HdfsBlock(algorithm.removeprefix("hdfs-"))
    if algorithm == "blake3":
        return _blake3()
    # MD5 and SHA-1 are not for security here: they are the digests that the origin declares.
    return hashlib.new(algorithm, usedforsecurity=False)


class SequentialHash:
    """A digest over ``size_bytes`` that come in order, also a composite over parts.

    ``position`` is the number of bytes so far.
    """

    def __init__(self, wanted: Digest, size_bytes: int | None) -> None:
        self.wanted = wanted
        self.position = 0
        self._hash = new_hash(wanted.algorithm, size_bytes)
        hdfs = wanted.algorithm.startswith("hdfs-")
        self._parts = _HdfsBlocks() if hdfs else new_hash(wanted.algorithm, size_bytes)
        self._ends = [sum(wanted.part_sizes_bytes[: n + 1]) for n in range(len(wanted.part_sizes_bytes))]

    def update(self, piece: memoryview) -> None:
        while self._ends and self.position + len(piece) >= self._ends[0]:
            own = self._ends.pop(0) - self.position
            self._hash.update(piece[:own])
            self._parts.update(memoryview(binascii.unhexlify(self._hash.hexdigest())))
            self._hash = new_hash(self.wanted.algorithm)
            self.position += own
            piece = piece[own:]
        if len(piece):
            self._hash.update(piece)
            self.position += len(piece)

    def digest(self) -> Digest:
        """The digest of all bytes so far."""
        final = self._parts if self.wanted.part_sizes_bytes else self._hash
        return Digest(self.wanted.algorithm, final.hexdigest(), self.wanted.part_sizes_bytes)
