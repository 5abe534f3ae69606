"""Archives, as people make them and as attackers do."""

import bz2
import errno
import gzip
import io
import lzma
import os
import posixpath
import random
import shutil
import stat
import struct
import sys
import tarfile
import tempfile
import threading
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

import lading
import lading.unpack.layers as layers_module
import lading.unpack.tar as tar_module
import lading.unpack.tree as tree_module
import lading.unpack.zip as zip_module
from lading.errors import IntegrityError, LadingError, Unsupported
from lading.events import Backslashes, Event
from lading.model.listing import Layer, ListedFile
from lading.model.manifest import Manifest
from lading.model.paths import FILE_NAME, WORKSPACE_NAME
from lading.settings.limits import Limits
from lading.settings.settings import Settings
from lading.unpack.layers import Layers

LIMITS = Limits()

# (name, bytes) or a TarInfo made by the functions below.
Member = tuple[tarfile.TarInfo, bytes]


class Whole:
    """An archive that is all there, as bytes or as a file."""

    def __init__(self, content: bytes | Path) -> None:
        self._content = content

    def open(self) -> IO[bytes]:
        return io.BytesIO(self._content) if isinstance(self._content, bytes) else self._content.open("rb")

    def read_beside(self, read: Callable[[IO[bytes]], None]) -> None:
        def run() -> None:
            with self.open() as stream:
                read(stream)

        other = threading.Thread(target=run)
        other.start()
        run()
        other.join()

    def read_in_order(self) -> None:
        pass


def unpack(name: str, tree: Path, limits: Limits, content: bytes | Path) -> Manifest:
    """A model that is this one archive."""
    layers = Layers(tree, limits)
    layers.add(ListedFile(name, None, layer=Layer()), Whole(content))
    return layers.finish()


def file(name: str, content: bytes = b"content", mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = mode
    return info, content


def other(name: str, kind: bytes, target: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = 1, 3
    return info, b""


def named(name: str, kind: bytes, size: int) -> tarfile.TarInfo:
    """A header that keeps the slash at its end: ``TarInfo`` itself takes it for a folder's."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info


def symlink(name: str, target: str) -> Member:
    return other(name, tarfile.SYMTYPE, target)


def hardlink(name: str, target: str) -> Member:
    return other(name, tarfile.LNKTYPE, target)


def folder(name: str) -> Member:
    return other(name, tarfile.DIRTYPE)


def tar_of(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zip_of(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as bundle:
        for name, content in members:
            bundle.writestr(zipfile.ZipInfo(name) if name.endswith("/") else name, content)
    return out.getvalue()


def zip_with_mode(name: str, mode: int, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = mode << 16
        bundle.writestr(info, content)
    return out.getvalue()


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """A folder with something precious in it, beside which archives are unpacked."""
    (tmp_path / "precious").write_text("untouched")
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def unpacked(ground: Path, data: bytes, name: str = "model.tar", limits: Limits = LIMITS) -> dict[str, bytes]:
    """The tree of this archive, which must be what the manifest says; nothing else may have changed."""
    archive = ground / "archive"
    archive.write_bytes(data)
    tree = ground / "tree"
    try:
        manifest = unpack(name, tree, limits, archive)
    finally:
        assert (ground.parent / "precious").read_text() == "untouched"
        assert sorted(os.listdir(ground.parent)) == ["precious", "work"]
        assert set(os.listdir(ground)) <= {"archive", "tree"}
    found = {}
    for below, folders, names in os.walk(tree):
        assert not any(os.path.islink(os.path.join(below, entry)) for entry in (*folders, *names))
        for entry in names:
            place = os.path.join(below, entry)
            found[os.path.relpath(place, tree)] = Path(place).read_bytes()
    assert {each.path: each.size_bytes for each in manifest.files} == {path: len(data) for path, data in found.items()}
    return found


SIMPLE = (file("config.json", b"{}"), folder("weights"), file("weights/a.bin", b"a" * 5000), file("empty", b""))
SIMPLE_TREE = {"config.json": b"{}", "weights/a.bin": b"a" * 5000, "empty": b""}


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("model.tar", bytes),
        ("model.tar.gz", gzip.compress),
        ("model.tgz", gzip.compress),
        ("model.tar.bz2", bz2.compress),
        ("model.tar.xz", lzma.compress),
        ("model.tar.zst", zstd.compress),
        ("MODEL.TAR.ZST", zstd.compress),
        # The first bytes tell the compression, not the name.
        ("model.tar", gzip.compress),
        ("model.tar.gz", bytes),
    ],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_tar_in_every_compression_becomes_its_tree(
    ground: Path, name: str, compress: Callable[[bytes], bytes], form: int
) -> None:
    assert unpacked(ground, compress(tar_of(*SIMPLE, form=form)), name) == SIMPLE_TREE


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_becomes_its_tree(ground: Path, method: int) -> None:
    data = zip_of(
        ("config.json", b"{}"), ("weights/", b""), ("weights/a.bin", b"a" * 5000), ("empty", b""), method=method
    )
    assert unpacked(ground, data, "model.zip") == SIMPLE_TREE


# ---- inflating: what goes in comes out, whatever its size --------------------------------------


def deflated(content: bytes, level: int = 9) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def two_halves(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: compress(data[: len(data) // 2]) + compress(data[len(data) // 2 :])


PACKED: dict[str, Callable[[bytes], tuple[str, bytes]]] = {
    "zip, stored": lambda content: ("m.zip", zip_of(("a", content), method=zipfile.ZIP_STORED)),
    "zip, deflated": lambda content: ("m.zip", zip_of(("a", content))),
    "tar": lambda content: ("m.tar", tar_of(file("a", content))),
    "gzip": lambda content: ("m.tar.gz", gzip.compress(tar_of(file("a", content)))),
    "gzip, badly": lambda content: ("m.tar.gz", gzip.compress(tar_of(file("a", content)), 0)),
    "bzip2": lambda content: ("m.tar.bz2", bz2.compress(tar_of(file("a", content)), 1)),
    "xz": lambda content: ("m.tar.xz", lzma.compress(tar_of(file("a", content)), preset=0)),
    "zstd": lambda content: ("m.tar.zst", zstd.compress(tar_of(file("a", content)))),
    "gzip, two": lambda content: ("m.tar.gz", two_halves(gzip.compress)(tar_of(file("a", content)))),
    "bzip2, two": lambda content: ("m.tar.bz2", two_halves(bz2.compress)(tar_of(file("a", content)))),
    "xz, two": lambda content: ("m.tar.xz", two_halves(lzma.compress)(tar_of(file("a", content)))),
    "zstd, two": lambda content: ("m.tar.zst", two_halves(zstd.compress)(tar_of(file("a", content)))),
}

BUFFER = 4096
CONTENTS = st.builds(
    lambda buffers, more, head, fill: head + fill(max(0, buffers * BUFFER + more - len(head))),
    st.integers(0, 40),
    st.integers(-260, 260),
    st.sampled_from([b"", b"x", random.Random(1).randbytes(128), random.Random(2).randbytes(BUFFER)]),
    st.sampled_from([bytes, random.Random(3).randbytes, lambda size: (b"some text, " * (size // 11 + 1))[:size]]),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(PACKED)), CONTENTS)
def test_a_member_of_any_size_comes_out_as_it_went_in(packing: str, content: bytes) -> None:
    name, data = PACKED[packing](content)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (tree_module, tar_module, zip_module):
            patch.setattr(module, "_COPY_BYTES", BUFFER)
        unpack(name, Path(folder) / "tree", LIMITS, data)
        assert (Path(folder) / "tree/a").read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20, (4 << 20) + 128])
@pytest.mark.parametrize("packing", PACKED)
def test_a_member_of_a_buffer_or_about_that_comes_out_as_it_went_in(ground: Path, packing: str, size: int) -> None:
    # As an array of NumPy: a header, then whatever compresses best.
    content = random.Random(4).randbytes(min(128, size)).ljust(size, b"\0")
    name, data = PACKED[packing](content)
    assert unpacked(ground, data, name) == {"a": content}


def zip_of_deflated(packed: bytes, content: bytes) -> bytes:
    """A zip whose one member claims that ``packed`` is ``content``, deflated."""
    data = bytearray(zip_of(("a", packed), method=zipfile.ZIP_STORED))
    directory = data.rindex(b"PK\1\2")
    struct.pack_into("<H", data, 8, zipfile.ZIP_DEFLATED)
    struct.pack_into("<H", data, directory + 10, zipfile.ZIP_DEFLATED)
    struct.pack_into("<I", data, directory + 16, zlib.crc32(content))
    struct.pack_into("<I", data, directory + 24, len(content))
    return bytes(data)


@settings(max_examples=100, deadline=None)
@given(CONTENTS, st.integers(0, 9), st.integers(1, 300))
def test_a_member_whose_packed_bytes_end_early_is_refused(content: bytes, level: int, lost: int) -> None:
    packed = deflated(content, level)
    cut = packed[:-lost] or packed[:1]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for module in (tree_module, zip_module):
            patch.setattr(module, "_COPY_BYTES", BUFFER)
        unpack("m.zip", Path(folder) / "whole", LIMITS, zip_of_deflated(packed, content))
        with pytest.raises(IntegrityError):
            unpack("m.zip", Path(folder) / "cut", LIMITS, zip_of_deflated(cut, content[:-1]))
        with pytest.raises(IntegrityError):
            unpack("m.zip", Path(folder) / "less", LIMITS, zip_of_deflated(cut, content + b"x"))


def test_an_empty_member_needs_no_packed_bytes(ground: Path) -> None:
    # zipfile takes it so, too.
    assert unpacked(ground, zip_of_deflated(b"", b""), "m.zip") == {"a": b""}


class Pipe(io.BytesIO):
    """What can only be written to: zipfile puts sizes behind members then."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise OSError

    def seek(self, *_: object) -> int:
        raise OSError


def zip_by(out: io.BytesIO, *, force_zip64: bool = False, comment: bytes = b"") -> bytes:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.comment = comment
        for name, content in SIMPLE_TREE.items():
            with bundle.open(name, "w", force_zip64=force_zip64) as member:
                member.write(content)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        zip_by(Pipe()),
        zip_by(Pipe(), force_zip64=True),
        zip_by(io.BytesIO(), force_zip64=True),
        b"#!/bin/sh\nexec unzip $0\n" + zip_by(io.BytesIO()),
        zip_by(io.BytesIO(), comment=b"made by a tool"),
        zip_by(io.BytesIO(), comment=bytes(65_535)),
    ],
    ids=["sizes behind members", "both", "zip64", "self-extracting", "comment", "longest comment"],
)
def test_a_zip_is_read_in_each_of_its_forms(ground: Path, data: bytes) -> None:
    assert unpacked(ground, data, "m.zip") == SIMPLE_TREE


TAR = tar_of(*SIMPLE)


def gzip_with(flags: int, fields: bytes) -> bytes:
    """A member whose header has these optional fields (RFC 1952, 2.3.1)."""
    head = bytes([0x1F, 0x8B, 8, flags]) + bytes(6) + fields
    # The sum of all that is before it: FHCRC.
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF) if flags & 2 else b""
    return head + deflated(TAR) + struct.pack("<II", zlib.crc32(TAR), len(TAR))


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(TAR) + bytes(20_000),
        gzip.compress(b"") + gzip.compress(TAR) + gzip.compress(b""),
        gzip_with(0, b""),
        gzip_with(4, b"\6\0BC\2\0\x10\0"),
        gzip_with(8, b"model.tar\0"),
        gzip_with(16, b"a comment\0"),
        gzip_with(2 | 4 | 8 | 16, b"\3\0abcmodel.tar\0a comment\0"),
        bz2.compress(b"") + bz2.compress(TAR) + bz2.compress(b""),
        bz2.compress(TAR) + bytes(512),
        lzma.compress(b"") + lzma.compress(TAR) + lzma.compress(b""),
        lzma.compress(TAR) + bytes(3 << 20) + lzma.compress(b"") + bytes(4),
        lzma.compress(TAR[:1000]) + bytes(3 << 20) + lzma.compress(TAR[1000:]),
        # Zeros behind the end, as tapes have them.
        TAR + bytes(30_000),
    ],
)
def test_a_tar_is_read_however_its_streams_follow_each_other(ground: Path, data: bytes) -> None:
    assert unpacked(ground, data) == SIMPLE_TREE


# RFC 8878, 3.1.2: magic numbers 0x184D2A50 to 0x184D2A5F, a size, and as many bytes that nobody reads.
def skippable(content: bytes = b"1234", kind: int = 0) -> bytes:
    return struct.pack("<II", 0x184D2A50 + kind, len(content)) + content


HALVES = [zstd.compress(TAR[: len(TAR) // 2]), zstd.compress(TAR[len(TAR) // 2 :])]
EMPTY = zstd.compress(b"")


@pytest.mark.parametrize(
    "frames",
    [
        [skippable(), zstd.compress(TAR)],
        *([skippable(kind=kind), zstd.compress(TAR)] for kind in range(1, 16)),
        [skippable(b""), zstd.compress(TAR)],
        [skippable(), skippable(b"", 3), skippable(bytes(3 << 20)), zstd.compress(TAR)],
        # As pzstd: the size of each frame before it.
        [
            skippable(struct.pack("<I", len(HALVES[0]))),
            HALVES[0],
            skippable(struct.pack("<I", len(HALVES[1]))),
            HALVES[1],
        ],
        [HALVES[0], skippable(bytes(200_000)), HALVES[1]],
        # As zstd:chunked: what is in it, at the end.
        [*HALVES, skippable(os.urandom(70_000)), skippable(b"GNUlInUx" * 8)],
        [zstd.compress(TAR), skippable(b"")],
        [EMPTY, *HALVES, EMPTY],
        [skippable(), EMPTY, skippable(), *HALVES],
        [zstd.compress(TAR[at : at + 100]) for at in range(0, len(TAR), 100)],
    ],
)
def test_the_frames_of_a_zstd_are_one_archive_without_those_to_skip(ground: Path, frames: list[bytes]) -> None:
    assert unpacked(ground, b"".join(frames), "model.tar.zst") == SIMPLE_TREE


@pytest.mark.parametrize(
    "data",
    [
        skippable(),
        skippable()[:-1],
        skippable() * 3,
        skippable() + EMPTY,
        skippable() + zstd.compress(TAR)[:-1],
        zstd.compress(TAR) + skippable()[:-1],
        zstd.compress(TAR) + skippable()[:6],
        # That of LZ4's frames, which may follow frames to skip as well.
        skippable() + b"\x04\x22\x4d\x18" + bytes(100),
    ],
)
def test_frames_to_skip_and_no_archive_are_refused(ground: Path, data: bytes) -> None:
    assert unpack_error(ground, data, "model.tar.zst").code == "integrity"


@pytest.mark.parametrize("first", ["BZh", "BZh9.txt", "BZhang/model.bin", "PK", "P*M", "(", "\x1f"])
def test_a_plain_tar_whose_first_name_begins_as_a_packed_one_is_plain(ground: Path, first: str) -> None:
    assert unpacked(ground, tar_of(file(first))) == {first: b"content"}


def directory_of(count: int, comment: bytes = b"") -> bytes:
    """A zip whose directory has so many empty members, and which has nothing else."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 6, 0, len(comment), 0, 0, 0, 0)
    entries = b"".join(entry + b"%06x" % number + comment for number in range(count))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entries), 0, 0)
    return entries + end


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (directory_of(100_001), "more than 100000 members"),
        (directory_of(4000, bytes(6000)), "bytes"),
    ],
)
def test_a_directory_that_would_fill_the_memory_is_refused(ground: Path, content: bytes, what: str) -> None:
    (ground / "archive").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(LadingError, match=what) as caught:
            unpack("m.zip", ground / "tree", LIMITS, ground / "archive")
        assert caught.value.code == "unsupported"
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_of_two_members_of_one_name_the_last_counts(ground: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        data = zip_of(("a", b"first"), ("b", b"b"), ("a", b"last"))
    assert unpacked(ground, data, "model.zip") == {"a": b"last", "b": b"b"}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_would_be_inflated_without_a_bound_is_refused(ground: Path, method: int) -> None:
    data = zip_of(("weights.bin", b"\0" * (1 << 20)), method=method)
    with pytest.raises(Unsupported, match=r"by method"):
        unpacked(ground, data, "model.zip")


def test_what_has_no_meaning_in_a_name_has_none(ground: Path) -> None:
    # As by "tar -c ." and "tar -c d/.", and by programs that put a slash behind a folder's that is there already.
    data = tar_of(
        *(folder("."), folder("./"), file("./a"), folder("./d/"), folder("./d/."), file("././d/./b"), file("d//c")),
        *(hardlink("e", "d/./b"), symlink("f", "d//./c")),
    )
    assert unpacked(ground, data) == dict.fromkeys(["a", "d/b", "d/c", "e", "f"], b"content")


def test_what_has_no_meaning_in_a_zips_name_has_none(ground: Path) -> None:
    data = zip_of(("./a", b"1"), ("d/./", b""), ("d/./b", b"2"), ("d//c", b"3"))
    assert unpacked(ground, data, "m.zip") == {"a": b"1", "d/b": b"2", "d/c": b"3"}


@pytest.mark.parametrize(
    "others",
    [
        # The name of the archive, by "tar --label"; a folder with what is in it, by "tar --listed-incremental".
        [other("a label, not a file", b"V")],
        [(folder("d/")[0], b"Ya\0\0")],
        [(named("d/", b"D", 4), b"Ya\0\0")],
        # A folder, as every tar takes it.
        [file("d/", b"")],
        [file("./d/", b"")],
    ],
)
def test_members_of_gnu_tar_that_are_no_files_become_none(ground: Path, others: list[Member]) -> None:
    assert unpacked(ground, tar_of(*others, file("d/a"), form=tarfile.GNU_FORMAT)) == {"d/a": b"content"}


def test_the_times_in_a_header_of_gnu_tar_are_no_part_of_the_name(ground: Path) -> None:
    header = bytearray(tarfile.TarInfo("d/a").tobuf(tarfile.GNU_FORMAT))
    header[345:369] = b"15303006527\0" * 2
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert unpacked(ground, bytes(header) + bytes(1024)) == {"d/a": b""}


def test_long_and_unicode_names_survive_in_every_format(tmp_path: Path) -> None:
    long = "/".join(["folder" * 20] * 3) + "/ünï-模型.bin"
    for number, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        ground = tmp_path / str(number)
        ground.mkdir()
        archive = ground / "archive"
        archive.write_bytes(tar_of(file(long), form=form))
        assert [each.path for each in unpack("a.tar", ground / "tree", LIMITS, archive).files] == [long]


def test_a_sparse_file_has_its_holes(ground: Path) -> None:
    # GNU's old sparse format: one piece of 512 bytes at 10,000, in a file of 20,000.
    header = bytearray(tarfile.TarInfo("sparse.bin").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"%011o\0" % 512
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"%011o\0%011o\0" % (10_000, 512)
    header[483:495] = b"%011o\0" % 20_000
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + b"x" * 512 + bytes(1024)
    expected = bytes(10_000) + b"x" * 512 + bytes(20_000 - 10_512)
    assert unpack_error(ground, data, limits=Limits(unpack_bytes=19_999)).code == "integrity"
    shutil.rmtree(ground / "tree")
    assert unpacked(ground, data) == {"sparse.bin": expected}


def test_a_program_stays_executable_and_nothing_gains_other_rights(ground: Path) -> None:
    unpacked(ground, tar_of(file("run", mode=0o4755), file("data", mode=0o600)))
    assert (ground / "tree/run").stat().st_mode & 0o7111 == 0o111
    assert (ground / "tree/data").stat().st_mode & 0o7111 == 0


@pytest.mark.parametrize(
    "members",
    [
        [file("a", b"first, and longer"), file("a", b"last")],
        [file("a", b"first"), file("b", b"last"), symlink("a", "b")],
        [file("a", b"first"), file("b", b"last"), hardlink("a", "b")],
        [file("a", b"last"), hardlink("a", "a")],
        [file("b", b"first"), symlink("a", "b"), file("a", b"last")],
        [file("b", b"first"), hardlink("a", "b"), file("a", b"last")],
        [file("b", b"first"), file("c", b"last"), symlink("a", "b"), symlink("a", "c")],
        [file("b", b"first"), file("c", b"last"), hardlink("a", "b"), symlink("a", "c")],
        [file("b", b"first"), file("c", b"last"), symlink("a", "b"), hardlink("a", "c")],
    ],
)
def test_of_several_members_of_one_name_the_last_counts_whatever_they_are(ground: Path, members: list[Member]) -> None:
    assert unpacked(ground, tar_of(*members))["a"] == b"last"


def test_a_later_member_of_the_same_name_has_its_own_mode(ground: Path) -> None:
    unpacked(ground, tar_of(file("a", mode=0o755), file("a", mode=0o644)))
    assert (ground / "tree/a").stat().st_mode & 0o111 == 0


# ---- links ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "tree"),
    [
        ([file("a"), symlink("b", "a")], {"a": b"content", "b": b"content"}),
        ([symlink("b", "a"), file("a")], {"a": b"content", "b": b"content"}),
        ([file("d/a"), symlink("d/b", "a"), hardlink("e", "d/a")], dict.fromkeys(["d/a", "d/b", "e"], b"content")),
        ([file("d/a"), symlink("e/b", "../d/a")], dict.fromkeys(["d/a", "e/b"], b"content")),
        ([file("a"), symlink("b", "c"), symlink("c", "a")], dict.fromkeys("abc", b"content")),
        ([file("d/x"), file("d/y"), symlink("e", "d")], dict.fromkeys(["d/x", "d/y", "e/x", "e/y"], b"content")),
        ([file("./a"), hardlink("./b", "./a")], dict.fromkeys("ab", b"content")),
        # Hugging Face's cache: snapshots are links to blobs.
        (
            [file("blobs/1"), symlink("snapshots/x/config.json", "../../blobs/1")],
            dict.fromkeys(["blobs/1", "snapshots/x/config.json"], b"content"),
        ),
    ],
)
def test_links_within_become_further_names_of_their_files(
    ground: Path, members: list[Member], tree: dict[str, bytes]
) -> None:
    assert unpacked(ground, tar_of(*members)) == tree


def test_links_are_copies_where_the_file_system_has_none(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    data = tar_of(file("a", mode=0o755), symlink("b", "a"))
    # They count as bytes then.
    assert "more than 13 bytes" in str(unpack_error(ground, data, limits=Limits(unpack_bytes=13)))
    shutil.rmtree(ground / "tree")
    assert unpacked(ground, data, limits=Limits(unpack_bytes=20_000)) == {"a": b"content", "b": b"content"}
    assert (ground / "tree/b").stat().st_mode & 0o111


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ([file("../precious")], IntegrityError),
        ([file("a/../../precious")], IntegrityError),
        ([file("a/../b")], IntegrityError),
        ([file("/precious")], IntegrityError),
        ([file("./../precious")], IntegrityError),
        ([file(".//../precious")], IntegrityError),
        ([file("..")], IntegrityError),
        ([folder("..")], IntegrityError),
        ([folder("../evil")], IntegrityError),
        ([folder("/evil")], IntegrityError),
        ([file(".lading.manifest")], IntegrityError),
        ([file(".lading/journal")], IntegrityError),
        ([file("./.lading/lock")], IntegrityError),
        ([symlink(".lading", "a"), file("a")], IntegrityError),
        ([file("x" * 256)], IntegrityError),
        ([file("a"), symlink("b", "../precious")], IntegrityError),
        ([file("a"), symlink("b", "/etc/passwd")], IntegrityError),
        ([file("a"), symlink("d/b", "../../precious")], IntegrityError),
        ([file("a"), symlink("b", "d/../../precious")], IntegrityError),
        ([file("a"), symlink("b", "..")], IntegrityError),
        ([file("a"), symlink("b", ".")], IntegrityError),
        ([file("a"), symlink("b", "")], IntegrityError),
        ([file("a"), symlink("b", "nowhere")], IntegrityError),
        ([file("a"), hardlink("b", "../precious")], IntegrityError),
        ([file("a"), hardlink("b", "/etc/passwd")], IntegrityError),
        ([file("a"), hardlink("b", "nowhere")], IntegrityError),
        ([file("a"), symlink("../b", "a")], IntegrityError),
        ([file("a"), hardlink("/b", "a")], IntegrityError),
        # A write through a link: the folder of the second member leads out.
        ([symlink("d", ".."), file("d/precious", b"overwritten")], IntegrityError),
        ([symlink("d", "/tmp"), file("d/precious", b"overwritten")], IntegrityError),
        ([symlink("precious", "../precious"), file("precious", b"overwritten")], IntegrityError),
        # Chains and loops.
        ([symlink("a", "b"), symlink("b", "a"), file("c")], IntegrityError),
        ([symlink("a", "a"), file("c")], IntegrityError),
        ([symlink("d", "e"), symlink("e", "d"), file("d/x"), file("c")], IntegrityError),
        ([file("d/a"), symlink("d/d", "../d")], IntegrityError),
        ([file("d/a"), symlink("d/e/f", "..")], IntegrityError),
        ([file("a"), *(symlink(f"l{n}", f"l{n + 1}") for n in range(100)), symlink("l100", "a")], IntegrityError),
        ([symlink("a", "b"), symlink("b", "../precious"), file("c")], IntegrityError),
        # Devices.
        ([other("null", tarfile.CHRTYPE)], Unsupported),
        ([other("disk", tarfile.BLKTYPE)], Unsupported),
        ([other("pipe", tarfile.FIFOTYPE)], Unsupported),
        # One name, two kinds.
        ([file("a"), file("a/b")], IntegrityError),
        ([file("a/b"), file("a")], IntegrityError),
        ([folder("a"), file("a")], IntegrityError),
        ([file("a"), folder("a")], IntegrityError),
        ([folder("d"), file("x"), symlink("d", "x")], IntegrityError),
        ([file("d/x"), file("e"), symlink("e/y", "../d/x")], IntegrityError),
        # Nothing to deliver.
        ([], IntegrityError),
        ([folder("d")], IntegrityError),
        ([file("")], IntegrityError),
        ([file("."), file("a")], IntegrityError),
    ],
)
def test_a_tar_that_would_harm_is_refused(
    ground: Path, members: list[Member], kind: type[LadingError], form: int
) -> None:
    error = unpack_error(ground, tar_of(*members, form=form))
    assert type(error) is kind
    assert error.message


def unpack_error(ground: Path, data: bytes, name: str = "model.tar", limits: Limits = LIMITS) -> LadingError:
    with pytest.raises(LadingError) as caught:
        unpacked(ground, data, name, limits)
    return caught.value


def test_a_name_that_is_not_unicode_is_refused(ground: Path) -> None:
    data = tar_of(file("aaaa"), form=tarfile.GNU_FORMAT).replace(b"aaaa", b"\xff\xfe\xff\xfe", 1)
    header = bytearray(data[:512])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert unpack_error(ground, bytes(header) + data[512:]).code == "integrity"


def test_a_control_character_in_a_name_does_not_reach_the_message(ground: Path) -> None:
    error = unpack_error(ground, tar_of(file("../\x1b[2Jevil")))
    assert "\x1b" not in str(error)


@pytest.mark.timeout(20)
def test_links_to_folders_of_links_do_not_multiply_without_end(ground: Path) -> None:
    # Each folder holds two links to the one before it: 2**40 names from 4 kB.
    members = [file("d00/f")]
    for number in range(1, 40):
        members += [symlink(f"d{number:02}/{side}", f"../d{number - 1:02}") for side in "ab"]
    error = unpack_error(ground, tar_of(*members), limits=Limits(unpack_members=1000))
    assert "1000 members" in str(error)
    assert sum(len(names) for _, _, names in os.walk(ground / "tree")) <= 1000


def links_to_folders(ground: Path, count: int) -> None:
    names = [f"{number:03}" for number in range(count)]
    members = [*(file(f"d{name}/f") for name in names), *(symlink(f"l{name}", f"d{name}") for name in names)]
    unpack("model.tar", ground / f"links-{count}", LIMITS, tar_of(*members))


def layers_that_replace(ground: Path, count: int) -> None:
    first = [file(f"models/d{number:03}/f") for number in range(count)]
    layers = Layers(ground / f"layers-{count}", LIMITS)
    for number, members in enumerate([first, *([file(f"models/d{number:03}")] for number in range(count))]):
        layers.add(ListedFile("layer", None, layer=Layer(number, "models")), Whole(tar_of(*members)))
    layers.finish()


@pytest.mark.parametrize("build", [links_to_folders, layers_that_replace])
def test_twice_as_many_links_or_layers_are_twice_the_work(ground: Path, build: Callable[[Path, int], None]) -> None:
    def calls(count: int) -> int:
        made = 0

        def note(frame: FrameType, *_: object) -> None:
            nonlocal made
            made += frame.f_code.co_filename == layers_module.__file__

        sys.setprofile(note)
        try:
            build(ground, count)
        finally:
            sys.setprofile(None)
        return made

    calls(1)
    assert calls(100) < 2.5 * calls(50)


# ---- limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [lambda tree: tar_of(*(file(*each) for each in tree)), lambda tree: zip_of(*tree)])
@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        (Limits(unpack_bytes=3000 + 20_000), True),
        (Limits(unpack_bytes=2999), False),
        (Limits(unpack_members=3), True),
        (Limits(unpack_members=2), False),
    ],
)
def test_more_bytes_or_members_than_allowed_are_refused(
    ground: Path, pack: Callable[..., bytes], limits: Limits, fits: bool
) -> None:
    tree = [(name, b"x" * 1000) for name in "abc"]
    data = pack(tree)
    name = "m.zip" if data.startswith(b"PK") else "m.tar"
    if fits:
        assert unpacked(ground, data, name, limits) == dict(tree)
    else:
        assert "more than" in str(unpack_error(ground, data, name, limits))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd.compress])
def test_a_bomb_stops_at_the_limit_and_not_at_the_end_of_the_disk(
    ground: Path, compress: Callable[[bytes], bytes]
) -> None:
    data = compress(tar_of(file("zeros", bytes(20 << 20))))
    assert len(data) < 1 << 20
    assert "more than 1048576 bytes" in str(unpack_error(ground, data, limits=Limits(unpack_bytes=1 << 20)))
    assert (ground / "tree/zeros").stat().st_size <= 1 << 20


def test_a_bomb_behind_the_end_of_the_archive_counts_too(ground: Path) -> None:
    data = gzip.compress(tar_of(file("a")) + bytes(20 << 20))
    assert "more than" in str(unpack_error(ground, data, limits=Limits(unpack_bytes=1 << 20)))


@pytest.mark.timeout(20)
def test_a_zip_link_that_is_a_bomb_is_not_read_into_memory(ground: Path) -> None:

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr, info.compress_type = (
            3,
            (stat.S_IFLNK | 0o777) << 16,
            zipfile.ZIP_DEFLATED,
        )
        bundle.writestr(info, b"a" * (64 << 20))
        bundle.writestr("a", b"x")
    (ground / "archive").write_bytes(out.getvalue())
    tracemalloc.start()
    try:
        with pytest.raises(LadingError):
            unpack("m.zip", ground / "tree", LIMITS, ground / "archive")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# ---- damage --------------------------------------------------------------------------------


# Content that ends in zeros: a cut behind it looks like the end of an archive.
CUT = tar_of(file("a", b"a" * 700), file("zeros", bytes(1024)), file("c", b"c" * 10))


@pytest.mark.parametrize("length", [0, 1, 100, 511, 512, 513, 1000, 1536, 2048, 2560, 3072, 3100, 3584, 4000, 4096])
def test_a_plain_tar_cut_anywhere_before_its_end_is_refused(ground: Path, length: int) -> None:
    # a: 512 + 1024, zeros: 512 + 1024, c: 512 + 512, then the end.
    assert CUT[4096 : 4096 + 512] == bytes(512)
    assert unpack_error(ground, CUT[:length]).code == "integrity"


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_tar_with_a_damaged_header_is_refused_and_not_taken_for_its_first_members(
    ground: Path, compress: Callable[[bytes], bytes], member: int
) -> None:
    data = bytearray(tar_of(*(file(name, b"x" * 100) for name in "abc")))
    data[member * 1024 + 10] ^= 1
    assert unpack_error(ground, compress(bytes(data)), "model.tar").code == "integrity"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x04\x22\x4d\x18\x64\x40\xa7" + bytes(600), "lz4"),
        (b"LZIP\x01\x0c" + bytes(600), "lzip"),
        (lzma.compress(b"x" * 600, lzma.FORMAT_ALONE), "lzma"),
        (b"\x1f\x9d\x90" + bytes(600), "compress"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "7-Zip"),
        (b"Rar!\x1a\x07\x01\0" + bytes(600), "RAR"),
        (b"\x28\xb5\x2f\xfd\x01\x38\x07" + bytes(600), "zstd with a dictionary"),
        (b"\x28\xb5\x2f\xfd\x04\x90" + bytes(600), "zstd with a window above 128 MiB"),
    ],
)
def test_a_tar_that_is_packed_by_something_else_is_not_called_damaged(ground: Path, data: bytes, what: str) -> None:
    error = unpack_error(ground, data, "model.tar.gz")
    assert (error.code, what in error.message) == ("unsupported", True)


def test_a_zstd_with_the_widest_window_that_is_read_is_not_refused(ground: Path) -> None:
    options = {zstd.CompressionParameter.window_log: 27}
    packer = zstd.ZstdCompressor(options=options)
    data = packer.compress(tar_of(file("a"))) + packer.flush()
    assert unpacked(ground, data, "model.tar.zst") == {"a": b"content"}


def test_a_tar_with_one_block_of_zeros_at_its_end_is_whole(ground: Path) -> None:
    # Two are the rule; GNU tar reads one, and some programs write one.
    assert set(unpacked(ground, CUT[: 4096 + 512])) == {"a", "zeros", "c"}


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zstd.compress])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_compressed_tar_cut_anywhere_is_refused(
    ground: Path, compress: Callable[[bytes], bytes], share: float
) -> None:
    whole = compress(tar_of(file("random", os.urandom(20_000)), file("b")))
    assert unpack_error(ground, whole[: int(len(whole) * share)]).code == "integrity"


@pytest.mark.parametrize(
    ("compress", "lost"),
    [(gzip.compress, 1), (gzip.compress, 8), (bz2.compress, 1), (lzma.compress, 1), (zstd.compress, 1)],
)
def test_a_compressed_tar_that_lacks_its_last_bytes_is_refused(
    ground: Path, compress: Callable[[bytes], bytes], lost: int
) -> None:
    whole = compress(tar_of(file("a"), file("b")))
    assert unpack_error(ground, whole[:-lost]).code == "integrity"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_flipped_bit_in_a_compressed_tar_is_refused_by_its_checksum(
    ground: Path, compress: Callable[[bytes], bytes]
) -> None:
    whole = bytearray(compress(tar_of(file("random", os.urandom(20_000)))))
    whole[len(whole) // 2] ^= 0x10
    assert unpack_error(ground, bytes(whole)).code == "integrity"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_zip_cut_anywhere_is_refused(ground: Path, share: float) -> None:
    whole = zip_of(("random", os.urandom(20_000)), ("b", b"b"))
    assert unpack_error(ground, whole[: int(len(whole) * share)], "m.zip").code == "integrity"


@pytest.mark.parametrize("name", ["model.tar", "model.tar.gz", "model.zip", "model.tar.zst"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"garbage" * 1000,
        bytes(10_240),
        b"<html>not found</html>",
        b"\x1f\x8b",
        b"PK\x03\x04",
        b"BZh9",
        b"\xfd7zXZ\0",
        b"\x28\xb5\x2f\xfd",
    ],
)
def test_garbage_is_refused(ground: Path, name: str, data: bytes) -> None:
    assert unpack_error(ground, data, name).code == "integrity"


def test_something_behind_the_end_of_a_tar_is_refused(ground: Path) -> None:
    assert unpack_error(ground, tar_of(file("a")) + b"x" * 512).code == "integrity"


# ---- zip's own -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../precious", "/precious", "a/../../precious", "a/../b", ".lading.manifest", "x" * 256]
)
def test_a_zip_member_that_leaves_is_refused(ground: Path, name: str) -> None:
    assert unpack_error(ground, zip_of((name, b"overwritten")), "m.zip").code == "integrity"


FAT, UNIX = 0, 3


def zip_made_on(system: int, *names: str) -> bytes:
    """A zip of empty files that says where it was made."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as bundle:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.create_system = system
            bundle.writestr(info, b"")
    return out.getvalue()


@pytest.mark.parametrize(
    ("system", "names", "paths"),
    [
        (FAT, ["m\\config.json", "m\\deep\\er\\a.bin"], ["m/config.json", "m/deep/er/a.bin"]),
        (FAT, ["m\\", "m\\a"], ["m/a"]),
        (FAT, [".\\m\\a"], ["m/a"]),
        (FAT, ["m/a", "n\\b"], ["m/a", "n/b"]),
        (FAT, ["C:\\m\\a"], ["C:/m/a"]),
        (FAT, ["m\\\\a", "m\\.\\b"], ["m/a", "m/b"]),
        # Names that have slashes as well do without others, as unzip takes them.
        (FAT, ["m/a\\b"], ["m/a\\b"]),
        # Elsewhere a backslash is a character as any other.
        (UNIX, ["m\\config.json"], ["m\\config.json"]),
        (UNIX, ["m/a\\b", "m/c"], ["m/a\\b", "m/c"]),
    ],
)
def test_backslashes_are_told_and_taken_as_unzip_takes_them(
    ground: Path, system: int, names: list[str], paths: list[str]
) -> None:
    told: list[Event] = []
    layers = Layers(ground / "tree", LIMITS, listener=told.append)
    layers.add(ListedFile("m.zip", None, layer=Layer()), Whole(zip_made_on(system, *names)))
    assert [each.path for each in layers.finish().files] == paths
    odd = [name for name in names if "\\" in name]
    (event,) = told
    assert isinstance(event, Backslashes)
    assert (event.archive, event.members, event.example) == ("m.zip", len(odd), odd[0])
    assert posixpath.normpath(event.path) in (*paths, "m")


def unicode_path(name: str, of: bytes) -> bytes:
    """The extra field 0x7075 of APPNOTE.TXT, 4.6.9: the name in UTF-8, if the other one has this CRC."""
    field = struct.pack("<BI", 1, zlib.crc32(of)) + name.encode()
    return struct.pack("<HH", 0x7075, len(field)) + field


def zip_with_name(name: bytes, system: int, flags: int = 0, extra: bytes = b"") -> bytes:
    """A zip of one file of no bytes, whose name is written as these bytes."""
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, 0, 0, 33, 0, 0, 0, len(name), 0) + name
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", system << 8, 20, flags, 0, 0, 33, 0, 0, 0, len(name), len(extra), *[0] * 5
    )
    directory = entry + name + extra
    return local + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(directory), len(local), 0)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        # Info-ZIP and macOS write UTF-8 and no flag.
        (zip_with_name("ünï-模型".encode(), UNIX), "ünï-模型"),
        (zip_with_name("ünï-模型".encode(), FAT), "ünï-模型"),
        (zip_with_name("ünï-模型".encode(), UNIX, flags=1 << 11), "ünï-模型"),
        (zip_with_name("ünï".encode("cp437"), FAT), "ünï"),
        (zip_with_name(b"#U6a21", FAT, extra=unicode_path("模", b"#U6a21")), "模"),
        (zip_with_name(b"\x81n", FAT, extra=b"\0\0\1\0x" + unicode_path("模", b"\x81n")), "模"),
        # Another program has renamed the member, and not this field.
        (zip_with_name(b"plain", UNIX, extra=unicode_path("模", b"before")), "plain"),
    ],
)
def test_a_name_in_a_zip_is_what_its_bytes_mean(ground: Path, data: bytes, path: str) -> None:
    assert unpacked(ground, data, "m.zip") == {path: b""}


@pytest.mark.parametrize("name", ["../precious", "/precious", ".lading.manifest"])
def test_a_name_that_leaves_by_an_extra_field_is_refused(ground: Path, name: str) -> None:
    data = zip_with_name(b"innocent", UNIX, extra=unicode_path(name, b"innocent"))
    assert unpack_error(ground, data, "m.zip").code == "integrity"


def test_nothing_is_told_of_names_without_backslashes(ground: Path) -> None:
    told: list[Event] = []
    layers = Layers(ground / "tree", LIMITS, listener=told.append)
    layers.add(ListedFile("m.zip", None, layer=Layer()), Whole(zip_made_on(FAT, "m/a", "b")))
    assert not told


@pytest.mark.parametrize("system", [FAT, UNIX])
@pytest.mark.parametrize(
    "name",
    ["..\\precious", "m\\..\\..\\precious", "m/..\\..\\precious", "\\precious", "\\\\host\\share", "..\\../a", "m\\.."],
)
def test_a_name_that_leaves_by_backslashes_is_refused(ground: Path, system: int, name: str) -> None:
    assert unpack_error(ground, zip_made_on(system, "a", name), "m.zip").code == "integrity"


@pytest.mark.parametrize("name", [".lading\\journal", ".lading.manifest\\", ".\\.lading\\\\journal"])
def test_a_name_of_windows_is_judged_as_the_path_that_it_becomes(ground: Path, name: str) -> None:
    assert unpack_error(ground, zip_made_on(FAT, "a", name), "m.zip").code == "integrity"


def test_a_zip_link_within_becomes_a_file_and_one_that_leaves_is_refused(ground: Path) -> None:
    def zip_with_link(target: str) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as bundle:
            info = zipfile.ZipInfo("link")
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            bundle.writestr(info, target)
            bundle.writestr("a", b"content")
        return out.getvalue()

    for target in ("../precious", "/etc/passwd", "nowhere", "link", ".", "x" * 5000):
        assert unpack_error(ground, zip_with_link(target), "m.zip").code == "integrity"
        shutil.rmtree(ground / "tree")
    assert unpacked(ground, zip_with_link("a"), "m.zip") == {"a": b"content", "link": b"content"}


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_zip_device_is_refused(ground: Path, kind: int) -> None:
    assert unpack_error(ground, zip_with_mode("device", kind | 0o644, b""), "m.zip").code == "unsupported"


def test_a_zip_that_winzip_encrypted_is_called_encrypted(ground: Path) -> None:
    data = bytearray(zip_of(("secret", b"x"), method=zipfile.ZIP_STORED))
    for at in (6, data.index(b"PK\x01\x02") + 8):
        struct.pack_into("<HH", data, at, 1, 99)
    error = unpack_error(ground, bytes(data), "m.zip")
    assert error.code == "unsupported"
    assert "encrypted" in error.message


@pytest.mark.parametrize(("part", "error"), [(1, Unsupported), (0xFFFF, None)])
def test_a_part_of_a_zip_is_called_one(ground: Path, part: int, error: type[LadingError] | None) -> None:
    # 0xFFFF: the number is told elsewhere, whatever it is.
    data = bytearray(zip_of(("a", b"x"), method=zipfile.ZIP_STORED))
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 34, part)
    if error is None:
        assert unpacked(ground, bytes(data), "m.zip") == {"a": b"x"}
    else:
        with pytest.raises(error, match="one part of a zip"):
            unpacked(ground, bytes(data), "m.zip")


def test_an_encrypted_zip_is_refused_as_unsupported(ground: Path) -> None:
    data = bytearray(zip_of(("secret", b"x"), method=zipfile.ZIP_STORED))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert unpack_error(ground, bytes(data), "m.zip").code == "unsupported"


def test_a_zip_in_a_compression_that_python_lacks_is_refused_as_unsupported(ground: Path) -> None:
    data = bytearray(zip_of(("a", b"x"), method=zipfile.ZIP_STORED))
    struct.pack_into("<H", data, 8, 9)  # Deflate64
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 10, 9)
    assert unpack_error(ground, bytes(data), "m.zip").code == "unsupported"


def test_a_zip_whose_checksum_is_wrong_is_refused(ground: Path) -> None:
    data = zip_of(("a", b"content"), method=zipfile.ZIP_STORED).replace(b"content", b"CONTENT")
    assert unpack_error(ground, data, "m.zip").code == "integrity"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_link_whose_checksum_is_wrong_is_refused(ground: Path, method: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as bundle:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        info.compress_type = method
        bundle.writestr(info, "a")
        bundle.writestr("a", b"content")
        bundle.writestr("b", b"other")
    data = bytearray(out.getvalue())
    central = data.index(b"PK\x01\x02")
    data[central + 16] ^= 1
    assert unpack_error(ground, bytes(data), "m.zip").code == "integrity"


def test_a_zip_member_without_a_name_and_one_before_the_beginning_are_damage(ground: Path) -> None:
    nameless = bytearray(zip_of(("a", b"x"), method=zipfile.ZIP_STORED))
    central = nameless.index(b"PK\x01\x02")
    struct.pack_into("<HH", nameless, central + 28, 0, 1)  # a name of no bytes, and one byte of "extra"
    assert unpack_error(ground, bytes(nameless), "m.zip").code == "integrity"
    shutil.rmtree(ground / "tree")
    before = bytearray(zip_of(("a", b"x"), method=zipfile.ZIP_STORED))
    end = before.index(b"PK\x05\x06")
    struct.pack_into("<I", before, end + 16, before.index(b"PK\x01\x02") + 10)
    assert unpack_error(ground, bytes(before), "m.zip").code == "integrity"


# ---- anything at all -----------------------------------------------------------------------


SEEDS = [
    ("m.tar", tar_of(*SIMPLE, symlink("l", "config.json"), hardlink("h", "empty"))),
    ("m.tar", tar_of(file("long" * 50), file("größe"), form=tarfile.PAX_FORMAT)),
    ("m.tar", tar_of(file("long" * 50), form=tarfile.GNU_FORMAT)),
    ("m.zip", zip_of(("config.json", b"{}"), ("weights/a.bin", b"a" * 500))),
    ("m.tar.gz", gzip.compress(tar_of(*SIMPLE))),
    ("m.tar.zst", zstd.compress(tar_of(*SIMPLE))),
]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=12)), min_size=1, max_size=6),
)
def test_any_damage_gives_a_tree_or_a_refusal_and_nothing_outside(
    seed: tuple[str, bytes], damage: list[tuple[int, bytes]]
) -> None:
    name, whole = seed
    data = bytearray(whole)
    for at, patch in damage:
        at %= len(data)
        data[at : at + len(patch)] = patch
        if name == "m.tar":
            _mend_checksum(data, at)
    refusal = None
    with tempfile.TemporaryDirectory() as folder:
        ground = Path(folder) / "ground"
        ground.mkdir()
        (ground / "archive").write_bytes(data)
        try:
            unpack(name, ground / "tree", Limits(unpack_bytes=1 << 20, unpack_members=100), ground / "archive")
        except LadingError as error:
            refusal = error
        assert refusal is None or refusal.code in ("integrity", "unsupported"), repr(refusal)
        assert os.listdir(folder) == ["ground"]
        assert set(os.listdir(ground)) <= {"archive", "tree"}


def _mend_checksum(data: bytearray, at: int) -> None:
    """Make the header that was damaged believable, so that more than its checksum is tried."""
    start = at - at % 512
    header = data[start : start + 512]
    if len(header) == 512 and header[257:262] == b"ustar":
        header[148:156] = b" " * 8
        data[start + 148 : start + 156] = b"%06o\0 " % sum(header)


# ---- the whole way -------------------------------------------------------------------------


def delivered(destination: Path) -> Iterator[str]:
    for below, _, names in os.walk(destination):
        for name in names:
            yield os.path.relpath(os.path.join(below, name), destination)


def test_a_single_archive_is_delivered_as_its_tree_and_is_not_kept(tmp_path: Path) -> None:
    source = tmp_path / "model.tar.gz"
    source.write_bytes(gzip.compress(tar_of(*SIMPLE)))
    manifest = lading.pull(str(source), tmp_path / "model", settings=Settings())
    assert sorted(delivered(tmp_path / "model")) == sorted([FILE_NAME, *SIMPLE_TREE])
    assert [archive.path for archive in manifest.archives] == ["model.tar.gz"]
    assert [each.path for each in manifest.files] == sorted(SIMPLE_TREE)


def test_an_archive_among_other_files_stays_an_archive(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.tar").write_bytes(tar_of(*SIMPLE))
    (tmp_path / "source/b").write_bytes(b"b")
    lading.pull(str(tmp_path / "source"), tmp_path / "model", settings=Settings())
    assert sorted(delivered(tmp_path / "model")) == [FILE_NAME, "a.tar", "b"]


def test_backslashes_are_told_once_in_a_delivery(
    tmp_path: Path, pull: Callable[..., Manifest], events: list[Event]
) -> None:
    (tmp_path / "m.zip").write_bytes(zip_made_on(FAT, "m\\config.json", "m\\a"))
    pull(str(tmp_path / "m.zip"), tmp_path / "model")
    assert sorted(delivered(tmp_path / "model")) == [FILE_NAME, "m/a", "m/config.json"]
    assert [event for event in events if isinstance(event, Backslashes)] == [
        Backslashes("m.zip", 2, "m\\config.json", "m/config.json")
    ]


def test_a_zip_by_content_with_another_name_stays_a_file(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(zip_of(("data.pkl", b"x")))
    lading.pull(str(tmp_path / "model.pt"), tmp_path / "model", settings=Settings())
    assert sorted(delivered(tmp_path / "model")) == [FILE_NAME, "model.pt"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("evil.tar", tar_of(file("good"), file("../../precious", b"overwritten"))),
        ("evil.tar", tar_of(file("good"), symlink("bad", "/etc/passwd"))),
        ("evil.tar", tar_of(file("good"), other("bad", tarfile.CHRTYPE))),
        ("evil.tar", tar_of(file("good"), file("more"))[:600]),
        ("evil.zip", zip_of(("good", b"x"), ("../../precious", b"overwritten"))),
        ("evil.tar.gz", gzip.compress(tar_of(file("good")))[:-4]),
        ("evil.tar", b"not a tar"),
    ],
)
@pytest.mark.parametrize("older", [False, True])
def test_after_a_refusal_the_destination_is_as_it_was(tmp_path: Path, name: str, data: bytes, older: bool) -> None:
    (tmp_path / "precious").write_text("untouched")
    destination = tmp_path / "a" / "model"
    if older:
        (tmp_path / "old").mkdir()
        (tmp_path / "old" / "old.bin").write_bytes(b"old")
        lading.pull(str(tmp_path / "old"), destination, settings=Settings())
        before = (destination / FILE_NAME).read_bytes()
    (tmp_path / name).write_bytes(data)
    for _ in range(2):
        with pytest.raises(LadingError):
            lading.pull(str(tmp_path / name), destination, settings=Settings())
        outside_workspace = sorted(path for path in delivered(destination) if not path.startswith(WORKSPACE_NAME + "/"))
        assert outside_workspace == ([FILE_NAME, "old.bin"] if older else [])
        if older:
            assert (destination / FILE_NAME).read_bytes() == before
        assert (tmp_path / "precious").read_text() == "untouched"


def test_an_xz_that_asks_for_a_huge_dictionary_is_refused(ground: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]
    # The dictionary's size stands in the header: making it large costs the attacker nothing.
    modest = lzma.compress(tar_of(file("a", b"a")), filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])
    assert unpacked(ground, modest, "model.tar.xz") == {"a": b"a"}
    (ground / "archive").unlink()
    shutil.rmtree(ground / "tree")
    with pytest.raises(IntegrityError, match=r"[Mm]emory"):
        unpacked(ground, lzma.compress(tar_of(file("a", b"a")), filters=filters), "model.tar.xz")


def name_header(kind: bytes, size_bytes: int) -> bytes:
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, size_bytes
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_that_would_fill_the_memory_is_refused(ground: Path, kind: bytes) -> None:
    data = name_header(kind, 2 << 20) + bytes(2 << 20) + tar_of(file("a"))
    assert unpack_error(ground, gzip.compress(data, 1), "model.tar.gz").code == "integrity"


def test_headers_of_headers_without_end_are_refused(ground: Path) -> None:
    header = name_header(tarfile.XHDTYPE, 10) + b"10 a=bbbb\n".ljust(512, b"\0")
    assert unpack_error(ground, header * 2000 + tar_of(file("a"))).code == "integrity"


def test_the_streams_of_an_xz_are_one_archive(ground: Path) -> None:
    data = tar_of(file("a", b"a" * 5000))
    parts = lzma.compress(data[:3000]) + b"\0" * 8 + lzma.compress(data[3000:])
    assert unpacked(ground, parts, "model.tar.xz") == {"a": b"a" * 5000}
