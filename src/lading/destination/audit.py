"""Compares a destination with its manifest: ``audit`` hashes every file, ``ChangeDetector`` those whose times changed."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from lading.destination.workspace import read_manifest
from lading.errors import IntegrityError, NotFound
from lading.events import Listener, Progress, Rehashing, ignore
from lading.model.checksums import SequentialHash
from lading.model.manifest import File, Manifest
from lading.model.paths import FILE_NAME, OF_A_VOLUME, RESERVED_NAMES
from lading.retry import Run
from lading.system.disk import disk_error
from lading.text.printable import printable, wrong_paths

_READ_BYTES = 1 << 20
_TELL_EVERY_S = 0.1
_HASHING = "hashing what may have changed"


class Audit(NamedTuple):
    """Paths that differ from the manifest; all three empty means that the folder is as delivered."""

    manifest: Manifest
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        return not (self.missing or self.extra or self.changed)


def audit(destination: Path, listener: Listener = ignore) -> Audit:
    """Compare a delivered folder with its manifest, by size and by the strongest digest known of each file.

    ``listener`` hears how far it is.
    """
    manifest = read_manifest(destination / FILE_NAME)
    shown = printable(str(destination))
    if manifest is None and not os.path.isdir(destination):
        raise NotFound(f"there is no folder {shown}", hint="name the folder that lading delivered to")
    if manifest is None:
        raise NotFound(
            f"{shown} has no {FILE_NAME}",
            hint="it was not delivered by lading, or its delivery was interrupted; pull again",
        )
    missing, changed = [], []
    hashed = Hashed(len(manifest.files), manifest.size_bytes, listener)
    for file in manifest.files:
        hashed.files += 1
        try:
            if not is_as_delivered(destination / file.path, file, hashed):
                changed.append(file.path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            missing.append(file.path)
        except OSError as error:
            raise disk_error(error, destination / file.path) from error
    return Audit(manifest, tuple(missing), tuple(find_strays(destination, manifest)), tuple(changed))


class Hashed:
    """Counts what is hashed of so many files and bytes, and tells the listener several times a second.

    ``files`` is the number of the present file, and ``known_bytes`` are those that need not be hashed.
    """

    def __init__(self, total_files: int, total_bytes: int, listener: Listener) -> None:
        self._total_files, self._total_bytes, self._listener = total_files, total_bytes, listener
        self._started_s = self._told_s = time.monotonic()
        self._bytes = 0
        self.files = self.known_bytes = 0

    def __call__(self, more_bytes: int) -> None:
        self._bytes += more_bytes
        now_s = time.monotonic()
        if now_s - self._told_s < _TELL_EVERY_S:
            return
        self._told_s = now_s
        done_bytes, done_files, elapsed_s = self._bytes + self.known_bytes, self.files - 1, now_s - self._started_s
        self._listener(
            Progress(done_bytes, self._total_bytes, done_files, self._total_files, elapsed_s, self.known_bytes)
        )


def require_clean(destination: Path, audit: Audit) -> None:
    """Raise ``IntegrityError``, naming every file that is wrong, unless the audit is clean."""
    if audit.is_clean:
        return
    kinds = (("missing", audit.missing), ("extra", audit.extra), ("changed", audit.changed))
    wrong = wrong_paths((kind, path) for kind, paths in kinds for path in paths)
    # A pull leaves alone what it did not bring.
    hint = "pull again"
    if audit.extra:
        hint += "; --remove-strays removes the extra files"
    raise IntegrityError(f"{printable(str(destination))} is not as delivered: {wrong}", hint=hint)


class ChangeDetector:
    """Whether a file of a destination is unchanged: by size and time, or else by its digest.

    A copy may have other times, and older manifests have none: then the file is hashed.  ``hashed`` records those
    files by path, and whether they are unchanged.  The deadline and the stop of ``run`` apply.
    """

    def __init__(self, destination: Path, run: Run) -> None:
        self._destination, self._run = destination, run
        self._root = os.path.realpath(destination)
        self.hashed: dict[str, bool] = {}

    def __call__(self, file: File) -> bool:
        status = _status(self._root, file.path)
        if status is None or status.st_size != file.size_bytes:
            return False
        if status.st_mtime_ns == file.mtime_ns:
            return True
        if file.path not in self.hashed:
            if not self.hashed:
                self._run.listener(Rehashing(str(self._destination)))
            try:
                self.hashed[file.path] = is_as_delivered(
                    Path(self._root, file.path), file, lambda _: self._run.check(_HASHING)
                )
            except OSError:
                # Who may not read it may still replace it.
                self.hashed[file.path] = False
        return self.hashed[file.path]


def sized(destination: Path) -> Callable[[File], bool]:
    """Whether a file has its size, for estimates: nothing is hashed."""
    root = os.path.realpath(destination)

    def has_size(file: File) -> bool:
        status = _status(root, file.path)
        return status is not None and status.st_size == file.size_bytes

    return has_size


def _status(root: str, path: str) -> os.stat_result | None:
    full_path = os.path.join(root, path)
    try:
        status = os.lstat(full_path)
    except OSError:
        return None
    # What a link leads to, someone put there: it was not delivered.
    return status if S_ISREG(status.st_mode) and os.path.realpath(full_path) == full_path else None


def is_as_delivered(path: Path, file: File, hear: Callable[[int], object] = lambda _: None) -> bool:
    """Whether ``path`` has the file's size and the strongest of its digests; ``OSError`` if it cannot be read.

    ``hear`` is called with each count of bytes that were read.
    """
    status = path.lstat()
    # A pipe of no bytes would be as long as an empty file, and opening it would wait for ever.
    if not S_ISREG(status.st_mode) or status.st_size != file.size_bytes:
        return False
    running = SequentialHash(file.strongest, file.size_bytes)
    buffer = memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as content:
        while count := content.readinto(buffer):
            hear(count)
            running.update(buffer[:count])
    return running.digest() == file.strongest


def find_strays(destination: Path, manifest: Manifest) -> list[str]:
    """Files in a destination that are neither of its model nor below another delivery's destination.

    A folder that cannot be read is listed itself.
    """
    known = manifest.by_path()
    found = []
    unreadable: list[OSError] = []
    for folder, folders, names in os.walk(destination, onerror=unreadable.append):
        below = os.path.relpath(folder, destination)
        prefix = "" if below == "." else f"{below}/"
        if not prefix:
            folders[:] = [name for name in folders if name not in (*RESERVED_NAMES, OF_A_VOLUME)]
        elif any(name in RESERVED_NAMES for name in (*folders, *names)):
            folders.clear()
            continue
        # What a link to a folder leads to is not looked at: it is itself what is extra.
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += [path for name in (*names, *links) if (path := f"{prefix}{name}") not in known]
    # Unless it went meanwhile.
    found += [os.path.relpath(error.filename, destination) for error in unreadable if os.path.lexists(error.filename)]
    return sorted(path for path in found if path not in RESERVED_NAMES)
