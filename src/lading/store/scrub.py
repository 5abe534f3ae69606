"""The scrub: hashes the files of a store again, slowly, so that rot is found before a pod gets it.

    STORE/scrub    {"begun_s": 1800000000.0, "after": "HEX-CRC", "whole_s": 1799400000.0}

A pass began at ``begun_s`` (Unix time).  It hashes the blobs in the order of their names, so that each is the one
that was hashed longest ago, and has come to ``after``; the next process goes on there.  ``whole_s`` is when the last
pass began that came to the end.  A file that cannot be read counts as a missing pass: the store is hashed again.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from lading.destination.audit import is_as_delivered
from lading.model.manifest import File, Manifest
from lading.store.blobs import sha256_of
from lading.store.files import modified_at_s
from lading.store.inspection import Rotten
from lading.store.store import Store
from lading.system.disk import write_whole

_WRITE_EVERY_S = 60.0


class Pass(NamedTuple):
    """What ``STORE/scrub`` holds."""

    begun_s: float
    after: str = ""
    whole_s: float = 0.0

    @property
    def is_over(self) -> bool:
        return self.whole_s == self.begun_s


def read_pass(store: Store) -> Pass:
    """The pass that is under way, or the last one; before the first, one that was whole when the store was made."""
    try:
        data = json.loads((store.root / "scrub").read_bytes())
        return Pass(float(data["begun_s"]), str(data["after"]), float(data["whole_s"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        # What is in a new store was verified when it came.
        begun_s = modified_at_s(store.root / "format")
        return Pass(begun_s, whole_s=begun_s)


def due_in_s(store: Store, every_s: float, now_s: float) -> float:
    """Seconds until files of the store are to be hashed; zero or less while a pass is under way."""
    last = read_pass(store)
    return last.begun_s + every_s - now_s if last.is_over else 0.0


def scrub(store: Store, now_s: float, hear: Callable[[int], object]) -> Iterator[Rotten]:
    """Hash what the pass has not come to yet; gives each damaged model, after it was put into quarantine.

    ``hear`` is called with each count of bytes that were read; it may wait, and ends the pass by raising.
    """
    at = read_pass(store)
    if at.is_over:
        at = Pass(now_s, whole_s=at.whole_s)
    written_s = time.monotonic()
    try:
        for blob in sorted(store.blobs.all(), key=lambda path: path.name):
            if blob.name <= at.after:
                continue
            if not _is_whole(blob, hear):
                yield from _put_aside(store, blob)
            at = at._replace(after=blob.name)
            if time.monotonic() - written_s > _WRITE_EVERY_S:
                _write(store, at)
                written_s = time.monotonic()
        yield from _replaced(store, hear)
        at = Pass(at.begun_s, whole_s=at.begun_s)
    finally:
        _write(store, at)


def _write(store: Store, at: Pass) -> None:
    write_whole(store.root / "scrub", [json.dumps(at._asdict()), "\n"])


def _is_whole(blob: Path, hear: Callable[[int], object]) -> bool:
    try:
        return sha256_of(blob, hear) == blob.name.partition("-")[0]
    except FileNotFoundError:
        # Evicted meanwhile.
        return True
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False


def _put_aside(store: Store, blob: Path) -> Iterator[Rotten]:
    """Put every model with this damaged file into quarantine; nobody gets the file from now on."""
    blob.unlink(missing_ok=True)
    for key in sorted(store.keys()):
        manifest = store.find(key)
        paths = tuple(file.path for file in manifest.files if store.blobs.path_of(file) == blob) if manifest else ()
        if manifest and paths:
            store.put_aside(key)
            yield Rotten(key, manifest.requested, paths)


def _replaced(store: Store, hear: Callable[[int], object]) -> Iterator[Rotten]:
    """The models with a file that is not its blob, and not what was delivered either."""
    for key in sorted(store.keys()):
        manifest = store.find(key)
        paths = tuple(_wrong(store, key, manifest, hear)) if manifest else ()
        # Unless it was evicted meanwhile.
        if manifest and paths and store.has(key):
            store.put_aside(key)
            yield Rotten(key, manifest.requested, paths)


def _wrong(store: Store, key: str, manifest: Manifest, hear: Callable[[int], object]) -> Iterator[str]:
    for file in manifest.files:
        path = store.folder(key) / file.path
        try:
            if not _is_its_blob(store, path, file) and not is_as_delivered(path, file, hear):
                yield file.path
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            yield file.path


def _is_its_blob(store: Store, path: Path, file: File) -> bool:
    try:
        return os.path.samestat(path.lstat(), store.blobs.path_of(file).lstat())
    except FileNotFoundError:
        return False
