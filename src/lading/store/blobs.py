"""Blobs: every file of a store once, by its SHA-256, as a further name of the file in a model's folder."""

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path

from lading.errors import Unsupported
from lading.model.checksums import new_hash
from lading.model.digest import Digest
from lading.model.listing import ListedFile
from lading.model.manifest import File
from lading.store.files import entries
from lading.system.disk import set_mode
from lading.text.printable import printable

BLOB_ALGORITHM = "sha256"
_READ_BYTES = 1 << 20
_NAME = re.compile("[0-9a-f]{64}-[0-9a-f]{8}")


class Blobs:
    """The blobs below ``folder``.  One that has no other name is unused and may be deleted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path_of(self, file: File) -> Path:
        """Where the blob of a file is, or would be."""
        digest = file.blob_digest.value if file.blob_digest else ""
        return self.folder / digest[:2] / f"{digest}-{file.digest.value}"

    def find(self, file: ListedFile, expected: Iterable[Digest]) -> tuple[Path, File] | None:
        """The blob of a file whose SHA-256 is expected or declared, and the file as it was verified; None if there is none."""
        digests = {digest for digest in (*expected, *file.declared) if names_a_blob(digest)}
        # Any other digest that somebody insists on is checked by nobody here.
        if len(digests) != 1 or not set(expected) <= digests:
            return None
        [digest] = digests
        blob = self._find(digest.value)
        if blob is None:
            return None
        try:
            size_bytes = blob.stat().st_size
        except FileNotFoundError:
            return None
        if file.size_bytes not in (None, size_bytes):
            return None
        own = Digest("crc32", blob.name.rpartition("-")[2])
        return blob, File(file.path, size_bytes, own, file.validator, verified=(digest,), blob_digest=digest)

    def keep(self, file: File, path: Path) -> File:
        """Link a file as a blob, or replace it by a link to the blob that exists already."""
        known = next((digest for digest in (file.blob_digest, *file.verified) if digest and names_a_blob(digest)), None)
        file = file._replace(blob_digest=known or Digest(BLOB_ALGORITHM, sha256_of(path)))
        # What the store supplied has its blob.
        if path.stat().st_nlink == 1:
            # Against whoever writes by mistake: where it is refused, the blob is as good.
            set_mode(path, 0o444)
            blob = self.path_of(file)
            blob.parent.mkdir(exist_ok=True)
            # Whichever link works: the blob that is there may be evicted between the two.
            while not self._link_new(path, blob) and not _replace(blob, path):
                pass
        return file

    def drop(self, file: File) -> None:
        """Remove the blob of this file, so that nobody reuses it."""
        self.path_of(file).unlink(missing_ok=True)

    def remove_unused(self) -> int:
        """Remove every blob without another name; returns their bytes."""
        freed = 0
        for blob in self.all():
            with contextlib.suppress(FileNotFoundError):
                status = blob.stat()
                if status.st_nlink == 1:
                    blob.unlink()
                    freed += status.st_size
        return freed

    def remove_damaged(self, known: Container[int]) -> None:
        """Hash every blob except those with these inodes, and remove those whose digest differs from their name."""
        for blob in self.all():
            with contextlib.suppress(FileNotFoundError):
                if blob.stat().st_ino not in known and sha256_of(blob) != blob.name.partition("-")[0]:
                    blob.unlink()

    def all(self) -> Iterator[Path]:
        """Every blob."""
        for folder in entries(self.folder):
            yield from entries(folder)

    def _link_new(self, path: Path, blob: Path) -> bool:
        """Make ``blob`` a name of the file at ``path``; false when there is one of that name."""
        try:
            os.link(path, blob)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.ENOSYS):
                raise
            raise Unsupported(
                f"the store {printable(str(self.folder))} is on a file system without hard links ({error.strerror})",
                hint="put it on a local file system such as ext4, XFS or btrfs",
            ) from error
        return True

    def _find(self, digest: str) -> Path | None:
        folder = self.folder / digest[:2]
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            return None
        return next((folder / name for name in names if _NAME.fullmatch(name) and name.startswith(digest)), None)


def sha256_of(path: Path, hear: Callable[[int], object] = lambda _: None) -> str:
    """The SHA-256 of a file, in hexadecimal; reads all of it.  ``hear`` is called with each count of bytes."""
    running = new_hash(BLOB_ALGORITHM)
    buffer = memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hear(count)
            running.update(buffer[:count])
    return running.hexdigest()


def names_a_blob(digest: Digest) -> bool:
    """Whether blobs are named by digests of this kind."""
    return digest.algorithm == BLOB_ALGORITHM and not digest.part_sizes_bytes


def link(source: Path, target: Path) -> bool:
    """A further name for a file; false when it is not there any more, or has as many names as it can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EMLINK):
            raise
        return False
    return True


def _replace(blob: Path, path: Path) -> bool:
    """Make ``path`` a name of ``blob``; false when that is gone."""
    new = path.with_name(f".{secrets.token_hex(8)}")
    try:
        there, here = blob.stat(), path.stat()
        if os.path.samestat(there, here):
            # rename(2) does nothing between two names of one file, and leaves both.
            return True
        if there.st_size != here.st_size:
            # It is not what it was: what has just been verified takes its name.
            blob.unlink()
            return False
        os.link(blob, new)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.EMLINK:
            # It has as many names as it can: this one stays a file of its own.
            return True
        raise
    os.replace(new, path)
    return True
