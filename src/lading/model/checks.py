"""Choosing the digests of a file that a delivery checks."""

from collections.abc import Sequence
from typing import Literal

from lading.errors import IntegrityError, Unsupported, Untrusted
from lading.model.digest import Digest

VerifyMode = Literal["auto", "strict", "off"]
VERIFY_MODES: tuple[VerifyMode, ...] = ("auto", "strict", "off")
# From cheap to expensive per byte (figures: docs/adr/0001): the cheapest that an origin declares is checked.
_BY_COST = (
    "crc32",
    "crc32c",
    "crc64nvme",
    "hdfs-crc32",
    "hdfs-crc32c",
    "sha1",
    "git-sha1",
    "md5",
    "blake3",
    "blake2b",
    "sha512",
    "sha384",
    "sha256",
)


def choose_checks(
    declared: Sequence[Digest], expected: Sequence[Digest], mode: VerifyMode, path: str, *, by_peers: bool = False
) -> tuple[Digest, ...]:
    """The digests against which the bytes of a file are checked.

    ``expected`` come from the user or the registry, and all of them are checked.  ``declared`` come from the
    origin, and the cheapest of them is checked, unless ``mode`` is off; if the bytes may come ``by_peers``, the
    cheapest that those cannot forge.  ``IntegrityError`` if two of one kind contradict each other; ``Unsupported`` in
    strict mode if there is none.
    """
    known: dict[tuple[str, bool], Digest] = {}
    for digest in (*expected, *declared):
        kind = (digest.algorithm, bool(digest.part_sizes_bytes))
        if known.setdefault(kind, digest) != digest and not digest.part_sizes_bytes:
            raise IntegrityError(
                f"{path}: the origin declares {digest}, but {known[kind]} is expected",
                hint="the origin has another file than expected; check the registry and the origin",
            )
    checks = list(dict.fromkeys(expected))
    if mode != "off":
        in_order = sorted(declared, key=lambda digest: _BY_COST.index(digest.algorithm))
        cheapest = sorted(in_order, key=lambda digest: by_peers and digest.forgeable)[:1]
        checks += [digest for digest in cheapest if digest not in checks]
    if mode == "strict" and not checks:
        raise Unsupported(
            f"{path} cannot be verified: its origin declares no digest",
            hint="give one by --digest or in the catalog, or use --verify=auto",
        )
    return tuple(checks)


def mismatch(
    path: str,
    expected: Digest,
    found: Digest,
    *,
    by: str = "",
    again: bool = False,
    final: bool = False,
    signed: bool = False,
) -> IntegrityError:
    """The error for a file whose bytes do not have the expected digest.

    ``by`` names the only origin of that digest, if it may be wrong itself.  ``again`` says that a second read gave
    the same bytes, ``final`` that there is no second read.  ``signed`` says that the digest comes from a signature.
    """
    if signed:
        return Untrusted(
            f"{path} has {found}, but {expected} was signed",
            hint="the origin's copy was damaged or replaced after it was signed; nothing was delivered",
        )
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
