"""A host of several addresses, of which some swallow every packet, refuse, or cannot be reached from here."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any


@contextlib.contextmanager
def silent(port: int, count: int) -> Iterator[list[str]]:
    """``count`` addresses of this machine at which nothing ever answers: Linux drops what a full queue has no room for."""
    with ExitStack() as stack:
        addresses = [f"127.0.1.{number}" for number in range(1, count + 1)]
        for address in addresses:
            listener = stack.enter_context(socket.create_server((address, port), backlog=0))
            stack.enter_context(socket.create_connection(listener.getsockname()))
        yield addresses


class Resolver:
    """Stands in for ``socket.getaddrinfo``: a name has the addresses that a test gives it, in this order."""

    def __init__(self, **addresses: Sequence[str]) -> None:
        self.addresses = {name.replace("_", "."): list(found) for name, found in addresses.items()}
        self.asked: list[str] = []

    def __call__(self, name: bytes, port: int, *_: object, **__: object) -> list[tuple[Any, ...]]:
        host = name.decode()
        self.asked.append(host)
        found = self.addresses.get(host.removesuffix("."))
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in found
        ]
