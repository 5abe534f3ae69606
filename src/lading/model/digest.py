"""Digests of whole files."""

import hashlib
import re
from typing import NamedTuple

from lading.errors import UsageError
from lading.text.printable import printable

# Hexadecimal digits of each digest, weakest first: a file's identity is its strongest one.
HEX_DIGITS = {
    "crc32": 8,
    "crc32c": 8,
    "crc64nvme": 16,
    "md5": 32,
    "git-sha1": 40,
    "sha1": 40,
    "sha256": 64,
    "blake3": 64,
    "blake2b": 128,
    "sha384": 96,
    "sha512": 128,
}
STRONG = frozenset({"sha256", "blake3", "blake2b", "sha384", "sha512"})


class Digest(NamedTuple):
    """A digest of a whole file, printed as ``sha256:<lower-case hexadecimal>``.

    ``part_sizes_bytes`` makes it a *composite*: the digest of its parts' digests, as S3 computes
    it for multipart uploads
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html).
    ``hdfs-crc32`` and ``hdfs-crc32c`` are always composites, of a file's blocks.
    """

    algorithm: str
    value: str
    part_sizes_bytes: tuple[int, ...] = ()

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> "Digest":
        """The digest of a content that is in memory, by an algorithm that Python itself computes."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Read ``algorithm:hex``; raises ``UsageError`` for an unknown algorithm or a wrong length."""
        algorithm, _, value = text.partition(":")
        algorithm, value = algorithm.lower(), value.lower()
        if algorithm not in HEX_DIGITS:
            raise UsageError(
                f"{printable(text)!r} is not a digest",
                hint=f"write ALGORITHM:HEX with one of {', '.join(HEX_DIGITS)}",
            )
        if not re.fullmatch(f"[0-9a-f]{{{HEX_DIGITS[algorithm]}}}", value):
            raise UsageError(
                f"{printable(text)!r} is not a {algorithm} digest",
                hint=f"{algorithm} has {HEX_DIGITS[algorithm]} hexadecimal digits",
            )
        return cls(algorithm, value)

    @property
    def forgeable(self) -> bool:
        """Whether other bytes with this digest are easily made: a CRC is against accidents alone."""
        return "crc" in self.algorithm

    @property
    def strength(self) -> int:
        """A number to compare digests: larger for a stronger one, equal for two of one algorithm."""
        return list(HEX_DIGITS).index(self.algorithm)

    def __str__(self) -> str:
        parts = f" of {len(self.part_sizes_bytes)} parts" if self.part_sizes_bytes else ""
        return f"{self.algorithm}:{self.value}{parts}"
