"""Connecting to a host by whichever of its addresses answers first: "happy eyeballs", RFC 8305.

Broken IPv6 swallows every packet, and so does a node that is gone but still in DNS: to wait for one address
after the other would take the whole time-out for each, and with every new connection again.
"""

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Sequence
from itertools import zip_longest
from time import monotonic
from typing import Any, NamedTuple, Self

# RFC 8305, 5: how much of a start an address has before the next one is tried beside it.
_START_S = 0.25
# A name's owner decides how many there are, and each is a socket.
_MOST_ADDRESSES = 64
# Then the resolver's order is tried again: what was away may be back.
_REMEMBERED_S = 600.0


class Address(NamedTuple):
    """A socket's family, and where it connects to."""

    family: int
    sockaddr: tuple[Any, ...]


class Addresses:
    """Connects within ``timeout_s``, and remembers what answered in the place of others.  Safe from any thread."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # Only where the first address did not answer: a name that stands for many servers is meant to spread the load.
        self._better: dict[tuple[str, int], tuple[Address, float]] = {}

    def connect(self, host: str, port: int) -> socket.socket:
        """A connected socket; ``TimeoutError`` when no address answers in time, ``OSError`` when all refuse."""
        addresses = self._in_order(host, port)
        with _Race(addresses, self._timeout_s) as race:
            address, sock = race.run()
        if address != addresses[0]:
            self._better[host, port] = address, monotonic() + _REMEMBERED_S
        sock.settimeout(self._timeout_s)
        return sock

    def _in_order(self, host: str, port: int) -> list[Address]:
        """The address that answered last time first; else in the resolver's order, with alternating families (RFC 8305, 4)."""
        # As bytes: of a text Python would load the codec for names that are not ASCII, which an origin's never is.
        name = host.encode("ascii")
        found = [Address(info[0], info[4]) for info in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
        first = [address for address in found if address.family == found[0].family]
        second = [address for address in found if address.family != found[0].family]
        turns = [address for pair in zip_longest(first, second) for address in pair if address is not None]
        better, until_s = self._better.get((host, port), (None, 0.0))
        if better in turns and monotonic() < until_s:
            turns.sort(key=lambda address: address != better)
        return turns[:_MOST_ADDRESSES]


class _Race:
    """Attempts that are under way beside each other; at the end of the block all but the winner are closed."""

    def __init__(self, addresses: Sequence[Address], timeout_s: float) -> None:
        self._waiting = deque(addresses)
        # With little time, each of them still gets some of it.
        self._start_s = min(_START_S, timeout_s / 2 / max(1, len(addresses)))
        self._next_s = monotonic()
        self._until_s = self._next_s + timeout_s
        self._poll = select.poll()
        self._running: dict[int, tuple[Address, socket.socket]] = {}
        self._failures: list[OSError] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _, sock in self._running.values():
            sock.close()

    def run(self) -> tuple[Address, socket.socket]:
        """The first that is connected."""
        while self._waiting or self._running:
            if self._waiting and (monotonic() >= self._next_s or not self._running):
                self._start(self._waiting.popleft())
            for number in self._answered():
                address, sock = self._running.pop(number)
                self._poll.unregister(number)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code == 0:
                    return address, sock
                sock.close()
                self._failed(OSError(code, os.strerror(code)))
        raise self._failure()

    def _start(self, address: Address) -> None:
        self._next_s = monotonic() + self._start_s
        try:
            sock = socket.socket(address.family, socket.SOCK_STREAM)
        except OSError as error:
            # This machine may lack the family.
            self._failed(error)
            return
        sock.setblocking(False)
        code = sock.connect_ex(address.sockaddr)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            self._failed(OSError(code, os.strerror(code)))
            return
        self._running[sock.fileno()] = address, sock
        self._poll.register(sock, select.POLLOUT)

    def _answered(self) -> list[int]:
        """The sockets that have something to tell, waited for until it is another one's turn."""
        now_s = monotonic()
        if now_s >= self._until_s:
            raise TimeoutError
        until_s = min(self._next_s, self._until_s) if self._waiting else self._until_s
        return [number for number, _ in self._poll.poll(max(0.0, until_s - now_s) * 1000)] if self._running else []

    def _failed(self, error: OSError) -> None:
        """RFC 8305, 5: an address that refuses at once is not waited for."""
        self._failures.append(error)
        self._next_s = monotonic()

    def _failure(self) -> OSError:
        """One error for all of them."""
        reasons = dict.fromkeys(error.strerror or str(error) for error in self._failures)
        return OSError(self._failures[-1].errno, ", ".join(reasons))
