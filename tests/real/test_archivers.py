"""Archives by the programs that people make them with, in each of their forms: the tree is what was packed."""

import os
import random
import subprocess
import zipfile

import pytest

from fakes.trees import MIB, content, read_tree, write_tree
from lading.errors import IntegrityError, Unsupported

# Arrays as NumPy writes them: a header of 128 bytes, and zeros, which compress best.
HEADER = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}".ljust(127) + b"\n"
FILES = {
    "bias.npy": HEADER + bytes(4 * MIB),
    "config.json": b"{}",
    "deep/er/empty": b"",
    "deep/weights.bin": content(3 * MIB + 17),
    "deep/text": b"some text, " * 200_000,
    "naïve-模型.txt": b"a name that is not ASCII",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, program):
    """What is packed; the programs are there."""
    for name in ("zip", "unzip", "tar", "gzip", "bzip2", "xz", "zstd", "pzstd"):
        program(name)
    folder = tmp_path_factory.mktemp("archives")
    write_tree(folder / "tree", FILES)
    with (folder / "tree/sparse.bin").open("wb") as sparse:
        for at in (1_000_000, 30_000_000):
            sparse.seek(at)
            sparse.write(b"in a hole")
    return folder


ZIPS = [
    "zip -q -r $OUT .",
    "zip -q -r -9 $OUT .",
    "zip -q -r -0 $OUT .",
    "zip -q -r -D $OUT .",
    # Written into a pipe: sizes stand behind members.
    "zip -q -r - . | cat >$OUT",
    "zip -q -r -fz $OUT .",
    "zip -q -r -z $OUT . <config.json",
    # Self-extracting: something in front, with offsets that count it and without.
    "zip -q -r - . | cat deep/text - >$OUT",
    "zip -q -r - . | cat deep/text - >$OUT && zip -q -A $OUT",
]
TARS = [
    *(f"tar -cf $OUT --format={form} ." for form in ("v7", "ustar", "gnu", "oldgnu", "pax", "posix")),
    *(f"tar -cSf $OUT --format={form} ." for form in ("gnu", "oldgnu", "pax")),
    *(f"tar -cSf $OUT --format=pax --sparse-version={version} ." for version in ("0.0", "0.1", "1.0")),
    "tar -cf $OUT --format=gnu ./.",
    "tar -cf $OUT ././/deep/./../deep/. .",
    "tar -cf $OUT --label=a-label .",
    "tar -cGf $OUT --format=gnu .",
    "tar -cf $OUT --format=pax --listed-incremental=$OUT.list .",
    # The same members again, as they are now.
    "tar -cf $OUT . && tar -rf $OUT .",
    "tar -czf $OUT .",
    "tar -cjf $OUT .",
    "tar -cJf $OUT .",
    "tar -c . | xz -0 -T2 --block-size=1MiB >$OUT",
    "tar -c . | split -b 2500000 --filter='gzip' >$OUT",
    "tar -c . | split -b 2500000 --filter='bzip2' >$OUT",
    "tar -c . | split -b 2500000 --filter='xz -0; head -c 400 /dev/zero' >$OUT",
    "tar -c . | split -b 2500000 --filter='zstd -q' >$OUT",
    "{ tar -c . | gzip -n; head -c 20000 /dev/zero; } >$OUT",
    "tar -c . | zstd -q --long=27 --ultra -22 >$OUT",
    "tar -c . | zstd -q --no-check >$OUT",
    "tar -c . | pzstd -q -p 2 >$OUT",
    "tar -c . | pzstd -q -p 4 -19 >$OUT",
]


@pytest.mark.parametrize("command", [*ZIPS, *TARS])
def test_an_archive_becomes_the_tree_that_was_packed(folder, tmp_path, pull, command):
    kind = "zip" if command in ZIPS else "tar"
    archive = tmp_path / f"model.{kind}"
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder / "tree",
        env=os.environ | {"OUT": str(archive)},
        check=True,
    )
    pull(str(archive), tmp_path / "model")
    assert read_tree(tmp_path / "model") == read_tree(folder / "tree")


@pytest.mark.parametrize("more", range(-130, 131, 20))
def test_what_zip_packs_comes_out_whatever_its_size(folder, tmp_path, pull, more):
    files = {
        f"{fill.__name__}-{size}": HEADER + fill(size + more)
        for size in (MIB, 2 * MIB, 3 * MIB)
        for fill in (bytes, random.Random(5).randbytes)
    }
    write_tree(tmp_path / "tree", files)
    subprocess.run(["zip", "-q", "-r", tmp_path / "m.zip", "."], cwd=tmp_path / "tree", check=True)
    subprocess.run(["unzip", "-tq", tmp_path / "m.zip"], check=True, stdout=subprocess.DEVNULL)
    pull(str(tmp_path / "m.zip"), tmp_path / "model")
    assert read_tree(tmp_path / "model") == files


def test_a_part_of_a_zip_that_was_split_is_called_one(folder, tmp_path, pull):
    subprocess.run(["zip", "-q", "-r", "-s", "1m", tmp_path / "m.zip", "."], cwd=folder / "tree", check=True)
    with pytest.raises(Unsupported, match="one part of a zip"):
        pull(str(tmp_path / "m.zip"), tmp_path / "model")
    assert not (tmp_path / "model/config.json").exists()


NAMES = [["m\\a", "m\\deep\\b"], ["m\\", "m\\a"], ["m/a", "n\\b"], ["m/a\\b"], [".\\m\\a"], ["a\\ b"]]


@pytest.mark.parametrize("system", [0, 3], ids=["fat", "unix"])
@pytest.mark.parametrize("names", NAMES)
def test_backslashes_are_taken_as_unzip_takes_them(folder, tmp_path, pull, system, names):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as bundle:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.create_system = system
            bundle.writestr(info, b"content")
    # Its warning is the status 1.
    assert subprocess.run(["unzip", "-q", tmp_path / "m.zip", "-d", tmp_path / "tree"]).returncode < 2
    pull(str(tmp_path / "m.zip"), tmp_path / "model")
    assert read_tree(tmp_path / "model") == read_tree(tmp_path / "tree")


@pytest.mark.parametrize("lost", [1, 9, 1000, 100_000])
def test_a_pzstd_that_is_cut_is_refused(folder, tmp_path, pull, lost):
    packed = subprocess.run(
        "tar -c . | pzstd -q -p 2", shell=True, cwd=folder / "tree", check=True, capture_output=True
    )
    (tmp_path / "model.tar.zst").write_bytes(packed.stdout[:-lost])
    with pytest.raises(IntegrityError):
        pull(str(tmp_path / "model.tar.zst"), tmp_path / "model")
    assert not (tmp_path / "model/config.json").exists()
