"""A name server for pods: services by their names, as cluster DNS has them, and hosts that services stand for (RFC 1035)."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

_SUFFIX = ".svc.cluster.local"
_NO_SUCH_NAME = 3


class Names:
    """``address_of`` gives the address of a service by (name, namespace), or nothing.  While it is not ``there``, it is silent.

    ``hosts`` are names of the world outside, and the service that each leads to.
    """

    def __init__(self, sock: socket.socket, address_of: Callable[[str, str], str | None]) -> None:
        self._socket, self._address_of = sock, address_of
        self.hosts: dict[str, tuple[str, str]] = {}
        self.there = True
        self.asked = 0
        self._news = threading.Condition()

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, name="names", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        # It is not connected, which is an error, and wakes who waits there all the same.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def wait_for_question(self, count: int, timeout_s: float) -> bool:
        """Wait until so many have been asked."""
        with self._news:
            return self._news.wait_for(lambda: self.asked >= count, timeout_s)

    def _serve(self) -> None:
        while True:
            try:
                question, who = self._socket.recvfrom(4096)
            except OSError:
                return
            if not question:
                return
            with self._news:
                self.asked += 1
                self._news.notify_all()
            if self.there:
                self._socket.sendto(self._answer(question), who)

    def _answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while size := question[at]:
            labels.append(question[at + 1 : at + 1 + size].decode().lower())
            at += 1 + size
        (kind,) = struct.unpack_from("!H", question, at + 1)
        asked = question[12 : at + 5]
        address = self._find(".".join(labels))
        answers = b""
        if address and kind == 1:
            answers = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(address)
        code = 0 if address else _NO_SUCH_NAME
        return question[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, bool(answers), 0, 0) + asked + answers

    def _find(self, name: str) -> str | None:
        if name in self.hosts:
            return self._address_of(*self.hosts[name])
        parts = name.removesuffix(_SUFFIX).split(".")
        return self._address_of(*parts) if name.endswith(_SUFFIX) and len(parts) == 2 else None
