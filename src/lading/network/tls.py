"""TLS on a connected socket, for ``http_wire``; and files of certificates, which may be rotated.

``ssl.SSLSocket`` asks the kernel twice for each record of 16 KiB, for its five bytes of head and for the
rest.  Here the socket is read in large pieces, and OpenSSL decrypts them from memory: a tenth less
time for large files (figures: docs/adr/0002).
"""

import errno
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from lading.errors import UsageError
from lading.network.wire import Stream, begins_tls
from lading.text.printable import printable

# Larger pieces do not stay in the processor's cache until they are decrypted.
_MOST_RECEIVED_BYTES = 128 << 10
# RFC 8446, 5.2 and RFC 5246, 6.2.3: the most that one record takes on the wire.
_MOST_RECORD_BYTES = 5 + (1 << 14) + 2048


class NotTls(ssl.SSLError):
    """The other side does not speak TLS."""


class OnSocket:
    """The methods that a TLS client leaves to the socket below it."""

    def __init__(self, sock: Stream) -> None:
        self._sock = sock

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def setsockopt(self, level: int, name: int, value: bytes) -> None:
        self._sock.setsockopt(level, name, value)

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()


class TlsSocket(OnSocket):
    """A TLS client by OpenSSL on ``sock``, which may be such a socket itself.

    Like a socket, it raises ``OSError`` (``ssl.SSLError`` is one), and a receive returns 0 at the end.  An end
    without TLS's own farewell is an error: anybody on the way can close a connection, and a body that lasts
    until then would seem whole (RFC 9112, 9.8).
    """

    def __init__(self, sock: Stream, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        # SSLObject.read without its look at whether a buffer was given.
        self._decrypt = cast("Callable[[int, memoryview], int]", self._tls.read)

    def handshake(self) -> None:
        """Agree on keys, and look at the other side's certificate; ``NotTls`` if the answer is something else."""
        buffer = memoryview(bytearray(_MOST_RECORD_BYTES))
        begun = False
        while not self._agreed():
            count = self._receive(buffer, 0)
            if not count:
                raise ConnectionResetError(errno.ECONNRESET, "the connection was closed")
            # What OpenSSL says of it differs from version to version, and comes with the fifth byte.
            if not begun and not begins_tls(buffer[:count]):
                raise NotTls(ssl.SSL_ERROR_SSL, "the answer is not TLS")
            begun = True

    def _agreed(self) -> bool:
        """Whether the handshake is complete; false if it needs more bytes."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError:
            # The alert that says why; the other side may be gone, which is not what went wrong.
            with suppress(OSError):
                self._flush()
            raise
        self._flush()
        return True

    def certificate(self) -> bytes:
        """The other side's, in DER."""
        return self._tls.getpeercert(binary_form=True) or b""

    def sendall(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def recv_into(self, buffer: memoryview, wanted: int = 0, flags: int = 0) -> int:
        """As a socket's.  With MSG_WAITALL it returns less than ``wanted`` when the rest fails or never comes.

        All of ``buffer`` may be written to, also behind the bytes that are returned.
        """
        wanted = wanted or len(buffer)
        count = 0
        while count < wanted:
            try:
                if not self._incoming.pending and not self._tls.pending():
                    if count and not flags:
                        break
                    self._receive(buffer[count:], wanted - count if flags else 0)
                received = self._decrypt(wanted - count, buffer[count:wanted])
            except ssl.SSLWantReadError:
                # The rest of the record is still on its way.
                continue
            except OSError as error:
                if count:
                    return count
                if isinstance(error, ssl.SSLEOFError):
                    raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "it ended without TLS's farewell") from error
                raise
            if received == 0:
                break
            count += received
        if self._outgoing.pending:
            # What the protocol itself has to say, such as new keys.
            self._flush()
        return count

    def _receive(self, area: memoryview, expected: int) -> int:
        """Let OpenSSL have some bytes from the wire, which pass through ``area``; returns how many.

        ``expected`` bytes of text are still to come: at least as many are still on their way, but for a
        record of which OpenSSL has a part already.
        """
        size = min(len(area), _MOST_RECEIVED_BYTES)
        sure = expected - _MOST_RECORD_BYTES >= size
        count = self._sock.recv_into(area, size, socket.MSG_WAITALL if sure else 0)
        if count:
            self._incoming.write(area[:count])
        else:
            self._incoming.write_eof()
        return count

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())


def load_certificate(context: ssl.SSLContext, what: str, certificate: str, key: str) -> None:
    """Let this side show a certificate; ``key`` is "" where the same file holds it.  ``UsageError`` names ``what``."""
    try:
        # Without a password: OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key or None, password="")
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"{what} {printable(certificate)} cannot be used: {error.strerror or error}",
            hint="it and its key must be files of PEM text, the key without a password",
        ) from error


def stamp(name: str) -> tuple[int, int]:
    """A value that changes when a file is replaced."""
    try:
        status = os.stat(name)
    except OSError:
        return (0, 0)
    return status.st_ino, status.st_mtime_ns
