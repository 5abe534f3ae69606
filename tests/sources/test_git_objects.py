"""What a git server could send to do harm: packs, trees and pointers, put together by hand."""

import hashlib
import io
import os
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading.errors import IntegrityError, LadingError, NotFound, Unavailable, Unsupported
from lading.model.listing import ListedFile, Listing
from lading.settings.limits import Limits
from lading.sources.git.lfs import Pointer, configured_url, parse_pointer
from lading.sources.git.objects import CommitTree
from lading.sources.git.pack import BLOB, COMMIT, TREE, Objects, PackReader
from lading.system.disk import scratch_file

OFS_DELTA, REF_DELTA = 6, 7
BASE = b"the quick brown fox " * 10
LIMITS = Limits(unpack_bytes=1 << 20, unpack_members=1000)


def object_id(kind: int, content: bytes) -> bytes:
    name = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob"}[kind]
    return hashlib.sha1(b"%s %d\0%s" % (name, len(content), content)).digest()


def number(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def entry(kind: int, content: bytes, base: bytes = b"", size: int | None = None) -> bytes:
    size = len(content) if size is None else size
    first, rest = size & 15, size >> 4
    head = bytes([kind << 4 | first | 128]) + number(rest) if rest else bytes([kind << 4 | first])
    return head + base + zlib.compress(content)


def pack(*entries: bytes, count: int | None = None) -> bytes:
    content = b"PACK" + (2).to_bytes(4, "big") + (len(entries) if count is None else count).to_bytes(4, "big")
    content += b"".join(entries)
    return content + hashlib.sha1(content).digest()


def delta(instructions: bytes, *, of: int = len(BASE), to: int) -> bytes:
    return number(of) + number(to) + instructions


def copy(start: int, size: int) -> bytes:
    """All seven bytes of the arguments."""
    return b"\xff" + start.to_bytes(4, "little") + size.to_bytes(3, "little")


def read(data: bytes, piece_bytes: int = 1 << 20, limits: Limits = LIMITS) -> Objects:
    objects = Objects(scratch_file(""), limits)
    reader = PackReader(objects, limits)
    for at in range(0, len(data), piece_bytes):
        reader.feed(data[at : at + piece_bytes])
    reader.finish()
    return objects


WHOLE = [entry(BLOB, BASE), entry(BLOB, b""), entry(COMMIT, b"tree x"), entry(BLOB, os.urandom(70_000))]


@pytest.mark.parametrize("piece_bytes", [1, 7, 4096, 1 << 20])
def test_objects_are_found_however_a_pack_is_cut(piece_bytes):
    made = delta(copy(4, 5) + b"\x03abc", to=8)
    objects = read(pack(*WHOLE, entry(REF_DELTA, made, object_id(BLOB, BASE))), piece_bytes)
    assert objects.read(object_id(BLOB, BASE), BLOB, 1000) == BASE
    assert objects.read(object_id(BLOB, b""), BLOB, 1000) == b""
    assert objects.read(object_id(BLOB, b"quickabc"), BLOB, 1000) == b"quickabc"


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 3),
    st.integers(-260, 260),
    st.sampled_from([bytes, random.Random(1).randbytes]),
    st.sampled_from([4093, 65_536, 1 << 20]),
)
def test_an_object_of_any_size_comes_out_as_it_went_in(buffers, more, fill, piece_bytes):
    content = fill(max(0, buffers * 256 * 1024 + more))
    objects = read(pack(entry(BLOB, content), WHOLE[0]), piece_bytes, Limits())
    assert objects.read(object_id(BLOB, content), BLOB, len(content)) == content
    assert objects.read(object_id(BLOB, BASE), BLOB, 1000) == BASE


@pytest.mark.parametrize("size", [3, 40])
def test_a_delta_may_name_its_base_by_its_distance(size):
    other = entry(BLOB, b"x" * size)
    distance = len(entry(BLOB, BASE)) + len(other)
    made = entry(OFS_DELTA, delta(copy(0, 3), to=3), bytes([distance]))
    objects = read(pack(entry(BLOB, BASE), other, made))
    assert objects.read(object_id(BLOB, b"the"), BLOB, 10) == b"the"


BY_ID = object_id(BLOB, BASE)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", Unavailable),
        (b"not a pack at all, but a page of a proxy", IntegrityError),
        (pack(*WHOLE)[:-1], Unavailable),
        (pack(*WHOLE)[:-21], Unavailable),
        (pack(*WHOLE)[:-1] + b"x", IntegrityError),
        (pack(*WHOLE) + b"x", IntegrityError),
        (pack(*WHOLE, count=9), LadingError),
        (pack(*WHOLE, count=1 << 31), Unsupported),
        (pack(entry(BLOB, BASE, size=len(BASE) - 1)), IntegrityError),
        (pack(entry(BLOB, BASE, size=len(BASE) + 1)), IntegrityError),
        (pack(entry(BLOB, bytes(1 << 19), size=5)), IntegrityError),
        (pack(entry(BLOB, b"x", size=1 << 50)), Unsupported),
        (pack(entry(0, BASE)), IntegrityError),
        (pack(entry(5, BASE)), IntegrityError),
        (pack(bytes([BLOB << 4 | 128]) + b"\xff" * 20), IntegrityError),
        (pack(bytes([BLOB << 4 | 5]) + b"not zlib"), IntegrityError),
        (pack(entry(BLOB, bytes(700_000)), entry(BLOB, bytes(700_000))), Unsupported),
        # Deltas.
        (pack(entry(REF_DELTA, delta(copy(0, 3), to=3), bytes(20))), IntegrityError),
        (pack(entry(OFS_DELTA, delta(copy(0, 3), to=3), b"\x05")), IntegrityError),
        (pack(entry(OFS_DELTA, delta(copy(0, 3), to=3), b"\x00")), IntegrityError),
        (pack(bytes([OFS_DELTA << 4 | 1]) + b"\xff" * 30), IntegrityError),
        (pack(WHOLE[0], entry(REF_DELTA, b"", BY_ID)), IntegrityError),
        (pack(WHOLE[0], entry(REF_DELTA, b"\xff" * 30, BY_ID)), IntegrityError),
        (pack(WHOLE[0], entry(REF_DELTA, delta(copy(0, 3), of=5, to=3), BY_ID)), IntegrityError),
        (pack(WHOLE[0], entry(REF_DELTA, delta(copy(len(BASE) - 2, 3), to=3), BY_ID)), IntegrityError),
        (pack(WHOLE[0], entry(REF_DELTA, delta(copy(1 << 31, 1), to=1), BY_ID)), IntegrityError),
        (pack(WHOLE[0], entry(REF_DELTA, delta(copy(0, 3), to=2), BY_ID)), IntegrityError),
        (pack(WHOLE[0], entry(REF_DELTA, delta(copy(0, 3), to=4), BY_ID)), IntegrityError),
        (pack(WHOLE[0], entry(REF_DELTA, delta(b"\x00", to=0), BY_ID)), IntegrityError),
        (pack(WHOLE[0], entry(REF_DELTA, delta(b"\x05abc", to=5), BY_ID)), IntegrityError),
        (pack(WHOLE[0], entry(REF_DELTA, delta(b"\xff\x01", to=5), BY_ID)), IntegrityError),
        (pack(WHOLE[0], entry(REF_DELTA, delta(copy(0, 3), to=1 << 40), BY_ID)), Unsupported),
    ],
)
def test_a_pack_that_is_broken_or_a_bomb_is_refused(data, kind):
    with pytest.raises(kind):
        read(data)


def test_a_zero_size_in_a_copy_means_64_kib():
    base = os.urandom(70_000)
    made = delta(b"\x80", of=len(base), to=0x10000)
    objects = read(pack(entry(BLOB, base), entry(REF_DELTA, made, object_id(BLOB, base))))
    assert objects.get(object_id(BLOB, base[:0x10000])) is not None


def tree(*entries: tuple[str, bytes, bytes]) -> bytes:
    return b"".join(mode.encode() + b" " + name + b"\0" + each for mode, name, each in entries)


def files_of(*trees: bytes, root: int = -1, blobs: tuple[bytes, ...] = (b"x",)) -> list[str]:
    commit = b"tree %s\nauthor a\n" % object_id(TREE, trees[root]).hex().encode()
    objects = read(
        pack(*(entry(TREE, each) for each in trees), *(entry(BLOB, each) for each in blobs), entry(COMMIT, commit))
    )
    found = list(CommitTree(objects, object_id(COMMIT, commit), LIMITS).files(""))
    Listing.of(ListedFile(each.path, None, refusal=each.refusal) for each in found).refuse_faults()
    return [each.path for each in found]


X = object_id(BLOB, b"x")


def test_a_tree_is_walked():
    inner = tree(("100644", b"x", X))
    assert files_of(inner, tree(("100755", b"a", X), ("40000", b"b", object_id(TREE, inner)))) == ["a", "b/x"]


@pytest.mark.parametrize(
    "name", [b"..", b".", b"", b"a/b", b".git", b".GIT", b".lading", b"\xff", b"n" * 256, b"a\0"], ids=repr
)
def test_a_name_that_would_leave_the_destination_or_be_something_else_is_refused(name):
    with pytest.raises((IntegrityError, Unsupported)):
        files_of(tree(("100644", name, X)))


@pytest.mark.parametrize(
    "broken",
    [
        b"100644 x",
        b"100644 x\0short",
        b"\0" * 40,
        b"x" * 50,
        tree(("100644", b"x", X), ("100644", b"x", X)),
        tree(("9", b"x", X)),
    ],
)
def test_a_broken_tree_is_refused(broken):
    with pytest.raises(IntegrityError):
        files_of(broken)


def test_trees_that_hold_each_other_many_times_are_refused():
    trees = [tree(("100644", b"x", X))]
    for _ in range(40):
        inner = object_id(TREE, trees[-1])
        trees.append(tree(("40000", b"a", inner), ("40000", b"b", inner)))
    with pytest.raises(Unsupported, match="more than 1000 files"):
        files_of(*trees)


def test_folders_that_hold_each_other_many_times_are_refused_without_files():
    trees = [tree()]
    for _ in range(40):
        inner = object_id(TREE, trees[-1])
        trees.append(tree(("40000", b"a", inner), ("40000", b"b", inner)))
    with pytest.raises(Unsupported, match="more than 1000 files"):
        files_of(*trees)


def test_folders_without_end_are_refused():
    trees = [tree(("100644", b"x", X))]
    for _ in range(300):
        trees.append(tree(("40000", b"a", object_id(TREE, trees[-1]))))
    with pytest.raises(Unsupported, match="too deep"):
        files_of(*trees)


def test_a_tree_or_commit_that_is_missing_is_an_error():
    with pytest.raises(IntegrityError, match="lacks the tree"):
        files_of(tree(("40000", b"a", bytes(20))))
    with pytest.raises(IntegrityError, match="lacks the commit"):
        CommitTree(read(pack()), bytes(20), LIMITS)
    with pytest.raises(IntegrityError, match="names no tree"):
        CommitTree(read(pack(entry(COMMIT, b"tree no"))), object_id(COMMIT, b"tree no"), LIMITS)


def test_a_link_with_an_endless_target_is_refused():
    target = b"a/" * 5000
    with pytest.raises(Unsupported, match="more than 4096 bytes"):
        files_of(tree(("120000", b"a", object_id(BLOB, target))), blobs=(target,))


OID = "ab" * 32
HEAD = b"version https://git-lfs.github.com/spec/v1\n"


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (HEAD + f"oid sha256:{OID}\nsize 12\n".encode(), Pointer(OID, 12)),
        (HEAD + f"oid sha256:{OID}\nsize 0\n".encode(), Pointer(OID, 0)),
        # As programs leave it that take it for a text.
        (HEAD + f"oid sha256:{OID}\nsize 12".encode(), Pointer(OID, 12)),
        (HEAD + f"oid sha256:{OID}\nsize 12\n\n".encode(), Pointer(OID, 12)),
        (HEAD + f"\noid sha256:{OID}\n\nsize 12\n".encode(), Pointer(OID, 12)),
        ((HEAD + f"oid sha256:{OID}\nsize 12\n".encode()).replace(b"\n", b"\r\n"), Pointer(OID, 12)),
        # Before version 1 of the specification.
        (f"version https://hawser.github.com/spec/v1\noid sha256:{OID}\nsize 12\n".encode(), Pointer(OID, 12)),
        (f"version http://git-media.io/v/2\noid sha256:{OID}\nsize 12\n".encode(), Pointer(OID, 12)),
        (HEAD + f"oid sha256:{OID}\nsize 12\nmore\n".encode(), None),
        (HEAD + f"size 12\noid sha256:{OID}\n".encode(), None),
        (HEAD + f"oid sha256:{OID[2:]}\nsize 12\n".encode(), None),
        (HEAD + f"oid sha256:{OID}\nsize -1\n".encode(), None),
        (HEAD + f"oid sha256:{OID}\nsize {'9' * 30}\n".encode(), None),
        (HEAD + f"oid md5:{OID}\nsize 12\n".encode(), None),
        (b"x" + HEAD + f"oid sha256:{OID}\nsize 12\n".encode(), None),
        (b"", None),
    ],
)
def test_a_pointer_is_what_git_lfs_takes_for_one(content, pointer):
    assert parse_pointer(content, "x") == pointer


def test_an_extension_of_git_lfs_is_refused():
    with pytest.raises(Unsupported, match="extension"):
        parse_pointer(HEAD + f"ext-0-case sha256:{OID}\noid sha256:{OID}\nsize 12\n".encode(), "x")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (b"[lfs]\n\turl = https://h/lfs\n", "https://h/lfs"),
        (b'# a\n[remote "origin"]\nurl = https://no/\n[LFS]\n  URL="https://h/lfs"\n', "https://h/lfs"),
        (b"[lfs]\nfetchexclude = x\n", ""),
        (b"url = https://no/\n", ""),
        (b"\xff\xfe[lfs", ""),
        (b"", ""),
    ],
)
def test_the_server_of_a_repository_s_own_configuration(text, url):
    assert configured_url(text) == url


def test_a_scratch_file_has_no_name_and_lies_near_the_destination(tmp_path):
    with scratch_file(str(tmp_path / "not/yet/there")) as file:
        assert os.fstat(file.fileno()).st_dev == tmp_path.stat().st_dev
        assert list(tmp_path.iterdir()) == []
        file.write(b"x")


def test_a_scratch_file_goes_to_the_temporary_folder_if_need_be():
    with scratch_file("/proc/none") as file:
        assert file.write(b"x") == 1


def test_what_is_not_in_the_commit_is_told_with_what_is_near():
    commit = b"tree %s\n" % object_id(TREE, tree(("100644", b"model.bin", X))).hex().encode()
    objects = read(pack(entry(TREE, tree(("100644", b"model.bin", X))), entry(BLOB, b"x"), entry(COMMIT, commit)))
    with pytest.raises(NotFound) as caught:
        CommitTree(objects, object_id(COMMIT, commit), LIMITS).find("modle.bin")
    assert caught.value.hint == "did you mean model.bin?"


def test_a_stream_of_an_object_begins_where_it_is_asked_to():
    objects = read(pack(*WHOLE))
    stored = objects.get(BY_ID)
    assert isinstance(objects.stream(stored, 4), io.BufferedReader)
    assert objects.stream(stored, 4).read() == BASE[4:]
