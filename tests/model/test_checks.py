"""Which digests are checked, and that every algorithm is the one of its name."""

import hashlib
import zlib
from itertools import pairwise

import pytest
from awscrt import checksums
from hypothesis import given
from hypothesis import strategies as st

from lading.errors import IntegrityError, Unsupported
from lading.model.checks import VerifyMode, choose_checks, mismatch
from lading.model.checksums import SequentialHash, combined_crc, is_crc, new_hash, running_crc
from lading.model.digest import HEX_DIGITS, Digest

CHECK = b"123456789"
GIT_CHECK = "e2e107ac61ac259b87c544f6e7a4eb03422c6c21"

# Of the catalogue of parametrised CRCs (reveng), RFC 1321, FIPS 180.
VECTORS = {
    "crc32": "cbf43926",
    "crc32c": "e3069283",
    "crc64nvme": "ae8b14860a799888",
    "md5": "25f9e794323b453885f5181f1b624d0b",
    "sha1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    "sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
}
CRCS = {"crc32": zlib.crc32, "crc32c": checksums.crc32c, "crc64nvme": checksums.crc64nvme}


@pytest.mark.parametrize("algorithm", sorted(VECTORS))
def test_the_published_check_values_come_out(algorithm: str) -> None:
    running = new_hash(algorithm)
    running.update(memoryview(CHECK[:4]))
    running.update(memoryview(CHECK[4:]))
    assert running.hexdigest() == VECTORS[algorithm]


@given(st.binary())
def test_a_git_sha1_is_gits_name_for_a_blob(content: bytes) -> None:
    running = new_hash("git-sha1", len(content))
    running.update(memoryview(content))
    assert running.hexdigest() == hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


def test_a_git_sha1_is_what_git_computes() -> None:
    # git hash-object, of an empty file and of "123456789".
    assert new_hash("git-sha1", 0).hexdigest() == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    running = new_hash("git-sha1", len(CHECK))
    running.update(memoryview(CHECK))
    assert running.hexdigest() == GIT_CHECK


def test_a_git_sha1_of_unknown_size_is_refused() -> None:
    with pytest.raises(Unsupported, match="size"):
        new_hash("git-sha1")


@given(st.sampled_from(["md5", "sha1", "sha256", "sha384", "sha512"]), st.lists(st.binary()))
def test_hashes_are_hashlibs(algorithm: str, pieces: list[bytes]) -> None:
    running = new_hash(algorithm)
    for piece in pieces:
        running.update(memoryview(piece))
    assert running.hexdigest() == hashlib.new(algorithm, b"".join(pieces)).hexdigest()


@given(st.sampled_from(sorted(CRCS)), st.lists(st.binary(max_size=100), max_size=8))
def test_crcs_of_ranges_combine_to_the_crc_of_the_whole(algorithm: str, ranges: list[bytes]) -> None:
    running = running_crc(algorithm)
    parts = [(running(memoryview(piece), 0), len(piece)) for piece in ranges]
    whole = CRCS[algorithm](b"".join(ranges))
    assert combined_crc(algorithm, parts) == Digest(algorithm, f"{whole:0{HEX_DIGITS[algorithm]}x}")


@pytest.mark.parametrize("algorithm", sorted(CRCS))
def test_a_crc_of_nothing_has_all_its_digits(algorithm: str) -> None:
    assert combined_crc(algorithm, []).value == "0" * HEX_DIGITS[algorithm]


def test_only_plain_crcs_combine() -> None:
    assert is_crc(Digest("crc32c", "0" * 8))
    assert not is_crc(Digest("crc32c", "0" * 8, (5, 5)))
    assert not is_crc(Digest("md5", "0" * 32))


def d(algorithm: str, digit: str = "0", parts: tuple[int, ...] = ()) -> Digest:
    return Digest(algorithm, digit * HEX_DIGITS[algorithm], parts)


@pytest.mark.parametrize(
    ("declared", "expected", "mode", "checks"),
    [
        ([], [], "auto", []),
        ([], [], "off", []),
        # Of what the origin declares, the cheapest.
        ([d("sha256"), d("md5"), d("crc64nvme")], [], "auto", [d("crc64nvme")]),
        ([d("md5"), d("sha1")], [], "auto", [d("sha1")]),
        ([d("sha256"), d("git-sha1")], [], "auto", [d("git-sha1")]),
        ([d("sha256"), d("crc32")], [], "strict", [d("crc32")]),
        ([d("sha256"), d("crc32")], [], "off", []),
        # What the user or the registry gave: always, all of it, and the origin's besides.
        ([], [d("sha256")], "auto", [d("sha256")]),
        ([], [d("sha256")], "off", [d("sha256")]),
        ([d("md5")], [d("sha256")], "off", [d("sha256")]),
        ([d("md5")], [d("sha256")], "auto", [d("sha256"), d("md5")]),
        ([d("sha256")], [d("sha256")], "strict", [d("sha256")]),
        ([], [d("sha256"), d("sha256"), d("md5")], "auto", [d("sha256"), d("md5")]),
        # A composite is another thing than the plain one of its name.
        ([d("sha256", "1", (5, 5))], [d("sha256", "2")], "auto", [d("sha256", "2"), d("sha256", "1", (5, 5))]),
        ([d("crc32", "1", (5, 5))], [], "strict", [d("crc32", "1", (5, 5))]),
    ],
)
def test_what_is_checked(
    declared: list[Digest], expected: list[Digest], mode: VerifyMode, checks: list[Digest]
) -> None:
    assert choose_checks(declared, expected, mode, "f") == tuple(checks)


def test_strict_refuses_what_nobody_vouches_for() -> None:
    with pytest.raises(Unsupported, match="f cannot be verified"):
        choose_checks([], [], "strict", "f")


@pytest.mark.parametrize("mode", ["auto", "strict", "off"])
@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ([d("sha256", "1")], [d("sha256", "2")]),
        ([], [d("sha256", "1"), d("sha256", "2")]),
        ([d("md5"), d("sha256", "1")], [d("sha256", "2")]),
    ],
)
def test_two_of_a_kind_that_contradict_each_other_are_refused_before_a_byte(
    declared: list[Digest], expected: list[Digest], mode: VerifyMode
) -> None:
    with pytest.raises(IntegrityError, match=r"f: .*is expected"):
        choose_checks(declared, expected, mode, "f")


def test_a_mismatch_names_the_file_and_both_digests() -> None:
    text = str(mismatch("f", d("crc32", "1"), d("crc32", "2")))
    assert "f has crc32:22222222" in text
    assert "crc32:11111111 is expected" in text


@given(
    st.sampled_from(["crc32", "crc32c"]),
    st.lists(st.integers(1, 2000), min_size=1, max_size=9),
    st.lists(st.integers(0, 3000), max_size=5),
)
def test_an_hdfs_checksum_is_of_the_crcs_of_chunks_whatever_the_pieces(
    crc: str, block_sizes: list[int], cuts: list[int]
) -> None:
    content = bytes(number % 251 for number in range(sum(block_sizes)))
    md5s, at = b"", 0
    for size in block_sizes:
        chunks = [content[start : min(start + 512, at + size)] for start in range(at, at + size, 512)]
        crcs = b"".join(CRCS[crc](chunk).to_bytes(4, "big") for chunk in chunks)
        md5s += hashlib.md5(crcs).digest()
        at += size
    padded = next(size for size in (32, 64, 128, 256) if size >= len(md5s))
    wanted = Digest(f"hdfs-{crc}", hashlib.md5(md5s.ljust(padded, b"\0")).hexdigest(), tuple(block_sizes))
    running = SequentialHash(wanted, len(content))
    ends = sorted({min(cut, len(content)) for cut in cuts} | {0, len(content)})
    for start, end in pairwise(ends):
        running.update(memoryview(content)[start:end])
    assert running.digest() == wanted
