"""A network with nothing in it but what a test starts there."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

_CLONE_NEWNET = 0x40000000


class OwnNetwork:
    """A network namespace whose only interface is its loopback; a context manager.  Needs root.

    A socket belongs to the namespace that it was made in, wherever it is used: a server whose socket
    is made ``within()`` is reached from there, and from nowhere else.
    """

    def __enter__(self) -> Self:
        hold = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep infinity"]
        self._holder = subprocess.Popen(
            hold, stdout=subprocess.PIPE, text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", "a network namespace of its own is not to be had"
        self.path = f"/proc/{self._holder.pid}/ns/net"
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.send_signal(signal.SIGKILL)
        self._holder.communicate()

    @contextmanager
    def within(self) -> Iterator[None]:
        """This thread, for as long, makes its sockets there."""
        with entered(self.path):
            yield


@contextmanager
def entered(path: str) -> Iterator[None]:
    """This thread is, for as long, in the network namespace that a path below /proc stands for."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    other = os.open(path, os.O_RDONLY)
    try:
        _set_network(other)
        try:
            yield
        finally:
            _set_network(own)
    finally:
        os.close(own)
        os.close(other)


def _set_network(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
