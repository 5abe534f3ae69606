"""File system calls that ``os`` does not have: errors in words, whole writes, an atomic exchange."""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import resource
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import IO

from lading.errors import LadingError, NoSpace, NotAllowed, NotFound, Unavailable, UsageError
from lading.text.printable import printable

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_SYNC_FILE_RANGE_WRITE = 2
_FICLONE = 0x40049409
_COPY_BYTES = 1 << 30
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
# Error numbers by which file systems (SMB, 9p, FUSE, object storage) and sandboxes refuse a call that they do not
# support, or allow only to the owner of a file.
_REFUSALS = frozenset(
    (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV)
)


def disk_error(error: OSError, path: str | os.PathLike[str]) -> LadingError:
    """The error of lading for an ``OSError`` about ``path``."""
    shown = printable(os.fspath(path))
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(f"{shown}: {why}", hint="free some space, or give a larger volume; the next run resumes")
    if error.errno == errno.EROFS:
        return NotAllowed(
            f"{shown}: {why}", hint="its file system is mounted read-only: mount it for writing, or name another folder"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        squashed = "" if os.geteuid() else "; on NFS, root_squash makes root nobody"
        return NotAllowed(f"{shown}: {why}", hint=f"it must be accessible to user {os.geteuid()}{squashed}")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"{shown}: {why}")
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(f"{shown}: {why}", hint="most file systems take 255 bytes for a name, and 4095 for a path")
    if error.errno == errno.ELOOP:
        return UsageError(f"{shown}: {why}", hint="symbolic links in this path form a loop")
    if error.errno in (errno.EXDEV, errno.EBUSY):
        return UsageError(f"{shown}: {why}", hint="something else is mounted there, or below: deliver elsewhere")
    if error.errno == errno.EISDIR:
        return UsageError(f"{shown}: {why}", hint="a file is expected there")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return LadingError(f"{shown}: {why}", hint=f"raise the limit of open files (ulimit -n is {most})")
    if error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT):
        return Unavailable(f"{shown}: {why}")
    return LadingError(f"{shown}: {why}")


@contextlib.contextmanager
def as_lading_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise an ``OSError`` in this block as lading's own error, about ``path`` if it names no file itself."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, error.filename or path) from error


def read_secret_file(path: str) -> str:
    """Read a file that holds a credential; returns its text without outer white space and byte order mark.

    ``NotAllowed`` if there is none: ``NotFound`` is what a model is that its registry does not have.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig").strip()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotAllowed(f"there is no file {printable(path)}, which should hold a credential") from error
    except IsADirectoryError as error:
        raise UsageError(f"{printable(path)} is a folder; a file with a credential is expected") from error
    except OSError as error:
        raise disk_error(error, f"the credential's file {path}") from error
    except ValueError as error:
        # The file is not UTF-8, or its path has a NUL character.
        raise UsageError(f"{printable(path)} is not text; a credential is expected") from error


def scratch_file(beside: str) -> IO[bytes]:
    """A file without a name, gone when it is closed: on the file system of ``beside``, or among temporary files.

    A container may be able to write only to the destination; a file without a name is not visible there.
    """
    import tempfile

    try:
        return tempfile.TemporaryFile(dir=existing_ancestor(Path(beside)), buffering=0)
    except (OSError, LadingError):
        try:
            return tempfile.TemporaryFile(buffering=0)
        except OSError as error:
            raise disk_error(error, Path(beside).absolute()) from error


@cache
def memory_file(content: bytes) -> str:
    """The path of a file in memory with this content: for libraries that take a secret only as a file.

    Only this process can open it.  It stays until the process ends, so the path always has the same content.
    """
    try:
        descriptor = os.memfd_create("lading", os.MFD_CLOEXEC)
        set_mode(descriptor, 0o400)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
    except OSError as error:
        raise disk_error(error, "a file in memory") from error
    return f"/proc/self/fd/{descriptor}"


def free_bytes(path: Path) -> int:
    """Free bytes for this user on the file system of ``path``, or of its nearest existing parent."""
    try:
        found = os.statvfs(existing_ancestor(path))
    except OSError as error:
        raise disk_error(error, path) from error
    return found.f_bavail * found.f_frsize


def existing_ancestor(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    full_path = path.absolute()
    while True:
        try:
            full_path.stat()
        except (FileNotFoundError, NotADirectoryError):
            full_path = full_path.parent
        except OSError as error:
            raise disk_error(error, full_path) from error
        else:
            return full_path


def is_mount_point(path: Path) -> bool:
    """Whether ``path`` cannot be exchanged because something is mounted on it, or below it."""
    mounted = mounts_within(path)
    # Without a table of mounts nobody can tell, which must count as "yes".
    return mounted is None or bool(mounted)


def mounts_within(path: Path) -> list[str] | None:
    """The mount points at ``path`` ("") and below it, relative to it; None if the system does not tell."""
    # os.path.ismount cannot see a bind mount within one file system.
    try:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    real = os.path.realpath(path)
    # Not splitlines(): a mount point's name may hold other line ends of Unicode.
    mounted = [_unescaped(line.split(" ")[4]) for line in table.split("\n") if line]
    return [
        full_path[len(real) :].removeprefix("/")
        for full_path in mounted
        if full_path == real or full_path.startswith(f"{real}/")
    ]


def _unescaped(mount_point: str) -> str:
    # proc_pid_mountinfo(5): space, tab, newline and backslash are octal escapes.
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mount_point)


def materialize_file(source: Path, target: Path, *, links: bool) -> str:
    """Make ``target`` a file with the bytes of ``source``, in the cheapest way that works; returns that way.

    ``reflink`` shares the blocks until one of the files is written (ioctl_ficlone(2)).  ``link`` is a hard link,
    tried only if ``links`` is true.  ``copy`` is done by the kernel (copy_file_range(2)).
    """
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        if _clone(reader.fileno(), writer.fileno()):
            return "reflink"
        if not links:
            _copy(reader.fileno(), writer.fileno())
            return "copy"
    target.unlink()
    if link(source, target):
        return "link"
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        _copy(reader.fileno(), writer.fileno())
    return "copy"


def link(source: Path, target: Path) -> bool:
    """Make a hard link; false if the file system has none, or the file has as many as it can."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno != errno.EMLINK and error.errno not in _REFUSALS:
            raise
        return False
    return True


def set_mode(path: Path | int, mode: int) -> bool:
    """Set the permissions of a file, folder or descriptor; false if that is refused, which is no error."""
    if stat.S_IMODE(os.stat(path).st_mode) != mode:
        try:
            os.chmod(path, mode)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            return False
    return True


def clones(beside: Path) -> bool:
    """Whether the file system can share blocks between files; tried with two files without a name."""
    with scratch_file(str(beside)) as one, scratch_file(str(beside)) as other:
        one.write(b"1")
        return _clone(one.fileno(), other.fileno())


def _clone(reader: int, writer: int) -> bool:
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return False
    return True


def _copy(reader: int, writer: int) -> None:
    """Copy the rest of a file: within the kernel, if it can do so between these two files."""
    ways: tuple[Callable[[], int], ...] = (
        lambda: os.copy_file_range(reader, writer, _COPY_BYTES),
        lambda: os.sendfile(writer, reader, None, _COPY_BYTES),
    )
    for copy_more in ways:
        try:
            while copy_more():
                pass
            return
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
    with open(reader, "rb", closefd=False) as source, open(writer, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target)


def punch_hole(descriptor: int, start: int, end: int) -> None:
    """Free the space of these bytes of a file, by fallocate(2), if the file system can do so."""
    libc = _libc()
    if libc is not None and hasattr(libc, "fallocate"):
        mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
        libc.fallocate(descriptor, mode, ctypes.c_longlong(start), ctypes.c_longlong(end - start))


def start_writeback(descriptor: int, start: int, size_bytes: int) -> None:
    """Begin to write these bytes to the disk, by sync_file_range(2), without waiting.

    By itself the kernel begins late, and the sync at the end of a large model would wait for all of it.
    """
    libc = _libc()
    if libc is not None and hasattr(libc, "sync_file_range"):
        libc.sync_file_range(
            descriptor, ctypes.c_longlong(start), ctypes.c_longlong(size_bytes), _SYNC_FILE_RANGE_WRITE
        )


def write_whole(path: Path, lines: Iterable[str]) -> None:
    """Replace a file atomically: it has all of these lines or its old content, also after a power cut."""
    new = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            sync_file(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def sync_file(descriptor: int) -> None:
    """Make a file's content or a folder's names durable, as far as the file system can."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Make everything written below ``path`` durable, with one call for any number of files.

    syncfs(2) in place of an fsync per file: the same guarantee for 5,000 small files at the cost
    of one journal commit.
    """
    libc = _libc()
    if libc is None or not hasattr(libc, "syncfs"):
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            if number not in _REFUSALS:
                raise disk_error(OSError(number, os.strerror(number)), path)
            os.sync()
    finally:
        os.close(descriptor)


def exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step, by renameat2(2); false if the system or the file system cannot."""
    libc = _libc()
    if libc is None or not hasattr(libc, "renameat2"):
        return False
    return bool(libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0)


@cache
def _libc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None
