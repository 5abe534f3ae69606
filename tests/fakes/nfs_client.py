"""What an NFS client of Linux does otherwise than a local file system (nfs(5)); tests/nfs runs on the real one."""

import errno
import fcntl
import os

import pytest


def behave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files of this process behave as on NFS until the test ends."""
    flock, unlink, close = fcntl.flock, os.unlink, os.close
    silly: dict[int, str] = {}

    def lock(descriptor: int, operation: int) -> None:
        # It asks the server for a lock by fcntl(2), which needs a file that is open for what is locked.
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        if (operation & fcntl.LOCK_EX and mode == os.O_RDONLY) or (operation & fcntl.LOCK_SH and mode == os.O_WRONLY):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    def remove(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> None:
        # A file that is open here keeps a name until it is closed.
        status = os.lstat(path, dir_fd=dir_fd)
        descriptor = next((number for number in _descriptors() if os.path.samestat(status, os.fstat(number))), None)
        if descriptor is None:
            unlink(path, dir_fd=dir_fd)
            return
        folder = os.path.realpath(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else os.path.dirname(path)
        silly[descriptor] = os.path.join(folder, f".nfs{status.st_ino:016x}{descriptor:08x}")
        os.rename(path, silly[descriptor], src_dir_fd=dir_fd)

    def shut(descriptor: int) -> None:
        close(descriptor)
        if descriptor in silly:
            unlink(silly.pop(descriptor))

    monkeypatch.setattr(fcntl, "flock", lock)
    monkeypatch.setattr(os, "unlink", remove)
    monkeypatch.setattr(os, "close", shut)


def _descriptors() -> list[int]:
    """The descriptors of files that this process has open."""
    return [
        number
        for name in os.listdir("/proc/self/fd")
        if os.path.isfile(f"/proc/self/fd/{name}")
        for number in [int(name)]
    ]
