"""Digests: which to check, and computing them while bytes land.  No I/O.

CRCs of ranges combine into the CRC of the whole, so ranges may land in any order; every other
digest needs the bytes in order (``SequentialHash``).
"""

import binascii
import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import itemgetter
from struct import iter_unpack, pack
from typing import Protocol

from isal import isal_zlib

from lading.errors import IntegrityError, Unsupported
from lading.manifest import HEX_DIGITS, Digest
from lading.settings import VerifyMode

# From cheap to dear per byte (figures: docs/adr/0001): the cheapest that an origin vouches for is checked.
_BY_COST = (
    "crc32",
    "crc32c",
    "crc64nvme",
    "hdfs-crc32",
    "hdfs-crc32c",
    "sha1",
    "git-sha1",
    "md5",
    "sha512",
    "sha384",
    "sha256",
)

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
    """Whether this digest can be put together from those of ranges."""
    return digest.algorithm in _CRCS and not digest.part_sizes_bytes


def running_crc(algorithm: str) -> RunningCrc:
    """A function ``(piece, crc so far) -> crc``."""
    return _CRCS[algorithm]()[0]


def combined_crc(algorithm: str, ranges: Iterable[tuple[int, int]]) -> Digest:
    """The CRC of a file whose consecutive ranges have these (CRC, size in bytes)."""
    combine = _CRCS[algorithm]()[1]
    total = 0
    for number, (crc, size_bytes) in enumerate(ranges):
        # To shift a CRC over what follows takes longer than that of a small file.
        total = combine(total, crc, size_bytes) if number else crc
    return Digest(algorithm, f"{total:0{HEX_DIGITS[algorithm]}x}")


class _Hash(Protocol):
    def update(self, piece: memoryview, /) -> None: ...
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
    """What HDFS keeps of a block: the MD5 of the CRCs of every 512 bytes, its default."""

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
        # Mapped, not looped: two million chunks are a GiB, and 0.7 s of it; a loop takes twice that.
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
    """What HDFS makes of its blocks' MD5s: the MD5 of the buffer that holds them, zeros behind them included.

    The buffer begins with 32 bytes and doubles
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


def new_hash(algorithm: str, size_bytes: int | None = None) -> _Hash:
    """A running digest of any algorithm that lading knows.

    ``git-sha1``, git's name for a blob, begins with the size of what follows
    (https://git-scm.com/book/en/v2/Git-Internals-Git-Objects): ``Unsupported`` where that is not known.
    """
    if algorithm in _CRCS:
        return _CrcHash(algorithm)
    if algorithm == "git-sha1":
        if size_bytes is None:
            raise Unsupported("a git-sha1 digest needs the file's size, which its origin does not tell")
        return hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)
    if algorithm.startswith("hdfs-"):
        return _HdfsBlock(algorithm.removeprefix("hdfs-"))
    # Not for security where it is MD5 or SHA-1: they are what the origin vouches with.
    return hashlib.new(algorithm, usedforsecurity=False)


class SequentialHash:
    """A digest over ``size_bytes`` that come in order, a composite over parts included.

    ``position`` is how many bytes it has seen.
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
        """The digest of everything seen so far."""
        final = self._parts if self.wanted.part_sizes_bytes else self._hash
        return Digest(self.wanted.algorithm, final.hexdigest(), self.wanted.part_sizes_bytes)


def choose_checks(
    declared: Sequence[Digest], vouched: Sequence[Digest], mode: VerifyMode, path: str
) -> tuple[Digest, ...]:
    """The digests that the bytes of a file are checked against.

    ``vouched`` come from the user or the registry and are always checked.  Of the ``declared``
    ones, which come from the origin, the cheapest is, unless ``mode`` is off.  Raises
    ``IntegrityError`` when two of a kind contradict each other, and in strict mode when there is none.
    """
    known: dict[tuple[str, bool], Digest] = {}
    for digest in (*vouched, *declared):
        kind = (digest.algorithm, bool(digest.part_sizes_bytes))
        if known.setdefault(kind, digest) != digest and not digest.part_sizes_bytes:
            raise IntegrityError(
                f"{path}: the origin declares {digest}, but {known[kind]} is expected",
                hint="this is not the file that was named; look at the registry and at the origin",
            )
    checks = list(dict.fromkeys(vouched))
    if mode != "off":
        cheapest = sorted(declared, key=lambda digest: _BY_COST.index(digest.algorithm))[:1]
        checks += [digest for digest in cheapest if digest not in checks]
    if mode == "strict" and not checks:
        raise Unsupported(
            f"nobody vouches for {path}: its origin declares no digest",
            hint="give one by --digest or in the catalog, or use --verify=auto",
        )
    return tuple(checks)


def mismatch(
    path: str, expected: Digest, found: Digest, *, by: str = "", again: bool = False, final: bool = False
) -> IntegrityError:
    """The error of a file whose bytes are not the ones that were promised.

    ``by`` names what alone promises them, if it may be wrong itself; ``again`` says that a second read brought the
    same bytes, ``final`` that there is none.
    """
    hint = "the origin's copy is damaged or was replaced; nothing was delivered"
    if by and (again or final):
        other = "" if expected.algorithm == "sha256" else ", or give its SHA-256 by --digest or in a catalog"
        hint = (
            f"the origin's copy is damaged, or {by} is no digest of it: if the file is right, use --verify=off{other}"
        )
    twice = " each time it is read" if by and again else ""
    return IntegrityError(
        f"{path} has {found}{twice}, but {expected} is expected" + (f" by {by}" if by else ""), hint=hint
    )
