"""Model folders: what the servers serve, and how a test looks at what has arrived."""

import mmap
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from random import Random

from lading.destination.workspace import read_manifest
from lading.model.manifest import Manifest

MIB = 1 << 20
# Three pages of 1,000, and more than the window in which an archive is unpacked as it lands.
SMALL_FILES = 2100
BIG_BYTES = 160 * MIB


def content(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes that look random and are always the same."""
    return Random(seed).randbytes(size_bytes)


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        # A file that stays keeps its inode and time, so that its validator stays too.
        if not place.exists() or place.read_bytes() != data:
            place.write_bytes(data)
    return folder


def read_tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` but lading's own."""
    return {path: (folder / path).read_bytes() for path in paths(folder)}


def mapped_tree(folder: Path) -> dict[str, bytes | memoryview]:
    """The same, with large files mapped into memory and not read."""
    return {path: _mapped(folder / path) for path in paths(folder)}


def facts(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and digest by path, computed without lading."""
    return {path: _facts(folder / path) for path in paths(folder)}


def told(manifest: Manifest) -> dict[str, tuple[int | None, str]]:
    """The same, as a manifest tells them."""
    return {file.path: (file.size_bytes, str(file.digest)) for file in manifest.files}


def whole_manifest(folder: Path) -> Manifest:
    """The manifest of a delivered folder, which must hold exactly what it says and nothing of lading's work."""
    manifest = read_manifest(folder / ".lading.manifest")
    assert manifest is not None, f"{folder} has no manifest"
    assert told(manifest) == facts(folder)
    assert not (folder / ".lading").exists()
    assert not (folder.parent / f".{folder.name}.lading").exists()
    return manifest


def write_contract_tree(folder: Path) -> Path:
    """One of everything that a source could lose, split, merge or rename."""
    write_tree(
        folder,
        {
            "config.json": b'{"layers": 2}',
            "empty": b"",
            "one-mebibyte.bin": content(MIB),
            "a/one": b"in a",
            "a-b/two": b"in a-b",
            "ab/three": b"in ab",
            "deep/er/and/deep/er/leaf": b"leaf",
            "deep/empty": b"",
            "with space/and+plus & more=%41?#": b"characters that URLs escape",
            "unicode/gr\u00fc\u00dfe-\u6a21\u578b-\U0001f600.txt": b"precomposed",
            "unicode/gru\u0308\u00dfe.txt": b"combining",
            "long/" + "n" * 255: b"255 bytes of name",
            "long/" + "\u6a21" * 85: b"255 bytes in 85 characters",
        }
        | {f"small/{number % 30:02}/{number:04}.json": b"%d" % number for number in range(SMALL_FILES)},
    )
    block = content(MIB, seed=1)
    with (folder / "weights.bin").open("wb") as file:
        for number in range(BIG_BYTES // MIB):
            file.write(number.to_bytes(8, "big") + block[8:])
    return folder


def paths(folder: Path) -> list[str]:
    found = []
    for parent, folders, names in os.walk(folder):
        if Path(parent) == folder:
            folders[:] = [name for name in folders if name != ".lading"]
            names = [name for name in names if name != ".lading.manifest"]
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in names]
    return sorted(found)


def _mapped(place: Path) -> bytes | memoryview:
    if place.stat().st_size < MIB:
        return place.read_bytes()
    with place.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _facts(place: Path) -> tuple[int, str]:
    crc = 0
    with place.open("rb") as file:
        while piece := file.read(MIB):
            crc = zlib.crc32(piece, crc)
    return place.stat().st_size, f"crc32:{crc:08x}"
