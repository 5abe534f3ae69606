"""One HTTP/1.1 connection (RFC 9112): send a request, read a head, push a body.

Written here and not taken from a library because reading is what lading is measured by: the
body goes from the socket into one reused buffer, without a copy per piece, and a head costs a
few microseconds (figures: docs/adr/0002).  What is not here: redirects, proxies, certificates,
pools, retries (``http_client``), and HTTP/2.
"""

import contextlib
import re
import socket
import struct
from collections.abc import Callable, Iterable
from time import monotonic
from typing import NamedTuple, Protocol

from lading.errors import Stalled, Unavailable, UsageError

Sink = Callable[[memoryview], None]

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
_MAX_INTERIM_ANSWERS = 8
_SLOW_PIECE_S = 0.5
_LEAST_PIECE_BYTES = 16 * 1024
_MAX_CHUNK_LINE_BYTES = 1024
_LARGE_BYTES = 1 << 20
_LENGTH = re.compile("[0-9]{1,18}")
# RFC 9112, 2.2: a line may end without a carriage return, as those of programs that write their answers by hand.
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(r"\r?\n")


class Head(NamedTuple):
    """Status and headers of an answer; names are lower-case, repeated ones joined by ", "."""

    status: int
    headers: dict[str, str]

    def get(self, name: str) -> str:
        """The value of the header with this lower-case name, or ""."""
        return self.headers.get(name, "")

    def text(self, name: str) -> str:
        """The value of a header with a name or an address in it: UTF-8 where its bytes are, as browsers read it, else Latin-1."""
        value = self.get(name)
        try:
            return value.encode("latin-1").decode()
        except UnicodeError:
            return value


class Malformed(Unavailable):
    """The other side does not speak HTTP/1.1, or was cut off in the middle of it."""


def begins_tls(data: memoryview) -> bool:
    """Whether ``data``, not empty, begins as a record of TLS does: a kind from 20 to 23, version 3 (RFC 8446, 5.1)."""
    return 20 <= data[0] <= 23 and (len(data) == 1 or data[1] == 3)


class Stream(Protocol):
    """The methods of a socket that a connection needs; ``tls.TlsSocket`` has them, too."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv_into(self, buffer: memoryview, wanted: int = 0, flags: int = 0, /) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def setsockopt(self, level: int, name: int, value: bytes, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


def limit_silence(sock: Stream, seconds: float) -> None:
    """The kernel's own time-out for each send and receive of a blocking socket."""
    whole, fraction = divmod(seconds, 1)
    limit = struct.pack("ll", int(whole), int(fraction * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


class Connection:
    """A connected socket and the buffer that everything it says is read into.

    ``stall_s`` seconds without a byte raise ``Stalled``.  The pieces that a sink gets are views
    of ``buffer``: they are valid until the sink returns.
    """

    def __init__(self, sock: Stream, buffer: bytearray, stall_s: float, peer: str) -> None:
        self._sock = sock
        self._peer = peer
        self._view = memoryview(buffer)
        self._buffer = buffer
        self._start = 0
        self._end = 0
        self._stall_s = stall_s
        self._piece_bytes = len(buffer)
        self._framing: int | None = 0
        self.reusable = True
        # A better connection can be had: this one is kept until it has carried something large.
        self.passing = False
        self.answered = False
        # A kernel time-out instead of Python's: a receive is then one system call and not a
        # poll before each, and may fill the whole buffer (MSG_WAITALL).
        sock.settimeout(None)
        limit_silence(sock, stall_s)

    def close(self) -> None:
        self.reusable = False
        with contextlib.suppress(OSError):
            self._sock.close()

    def abort(self) -> None:
        """Wake a thread that waits in this connection; it then fails with ``Unavailable``."""
        self.reusable = False
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def request(self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> Head:
        """Send a request and read the head of its answer; interim (1xx) answers are passed over."""
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        text = "\r\n".join(lines)
        # A carriage return alone ends a line for some servers, too.
        if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
            # Only configuration can bring a line break here (a header, a token): it would let
            # one request be read as two.
            raise UsageError("a request header holds a line break", hint="check configured headers and tokens")
        self.answered = False
        self._start = self._end = 0
        try:
            self._sock.sendall(text.encode("latin-1", "strict") + b"\r\n\r\n" + body)
        except UnicodeEncodeError as error:
            raise UsageError("a request header is not Latin-1 text") from error
        except OSError as error:
            raise self._failure(error) from error
        for _ in range(_MAX_INTERIM_ANSWERS):
            head = self._read_head()
            if head.status >= 200 or head.status == 101:
                break
        else:
            raise Malformed(f"{self._peer} sends interim answers without end")
        framing = self._framing = self._body_size(method, head)
        if head.get("connection").lower() == "close" or framing is None or (self.passing and framing > _LARGE_BYTES):
            self.reusable = False
        return head

    def read_body(self, sink: Sink) -> None:
        """Push the whole body of the last answer; raises ``Malformed`` when it ends early."""
        try:
            if self._framing == -1:
                self._read_chunked(sink)
            elif self._framing is None:
                self._read_until_close(sink)
            else:
                self._read_exactly(self._framing, sink)
        except BaseException:
            # Whatever stopped it, the rest of this body is still on its way.
            self.reusable = False
            raise
        self._framing = 0
        if self._start != self._end:
            # More than was promised: nothing that follows on this connection can be trusted.
            self.reusable = False

    @property
    def drained(self) -> bool:
        """True when no byte of the last answer is left to read."""
        return self._framing == 0

    @property
    def heard_tls(self) -> bool:
        """Whether TLS came instead of a head, such as the alert of a port that speaks only TLS."""
        return self._end > 0 and begins_tls(self._view[: self._end])

    def _body_size(self, method: str, head: Head) -> int | None:
        """Bytes in the body; -1 for chunked, None for "until the connection closes" (RFC 9112, 6.3)."""
        length = head.get("content-length")
        lengths = {part.strip() for part in length.split(",")}
        if length and (len(lengths) > 1 or not _LENGTH.fullmatch(min(lengths))):
            raise Malformed(f"{self._peer} sent Content-Length {length!r}")
        if method == "HEAD" or head.status in (204, 304):
            return 0
        coding = head.get("transfer-encoding").lower()
        if coding:
            if coding != "chunked" or length:
                raise Malformed(f"{self._peer} sent a body framed in two ways ({coding!r})")
            return -1
        return int(min(lengths)) if length else None

    def _read_head(self) -> Head:
        searched = self._start
        while (end := _HEAD_END.search(self._buffer, max(self._start, searched - 3), self._end)) is None:
            searched = self._end
            if self._end - self._start >= min(MAX_HEAD_BYTES, len(self._buffer)):
                raise Malformed(f"{self._peer} sent a head of more than {MAX_HEAD_BYTES} bytes")
            if self._receive_some() == 0:
                what = "in the middle of a head" if self._end > self._start else "without an answer"
                raise Malformed(f"{self._peer} closed the connection {what}")
            self.answered = True
        text = self._buffer[self._start : end.start()].decode("latin-1")
        self._start = end.end()
        status_line, *lines = _LINE_END.split(text)
        version, _, rest = status_line.partition(" ")
        status = rest[:3]
        if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdigit() and len(status) == 3):
            raise Malformed(f"{self._peer} does not answer in HTTP/1.1")
        if len(lines) > MAX_HEADERS:
            raise Malformed(f"{self._peer} sent more than {MAX_HEADERS} headers")
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name[0] in " \t":
                raise Malformed(f"{self._peer} sent a malformed header")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if version == "HTTP/1.0" and headers.get("connection", "").lower() != "keep-alive":
            headers["connection"] = "close"
        return Head(int(status), headers)

    def _read_exactly(self, size: int, sink: Sink) -> None:
        left = size
        if left and self._start < self._end:
            piece = min(left, self._end - self._start)
            sink(self._view[self._start : self._start + piece])
            self._start += piece
            left -= piece
        while left:
            wanted = min(left, self._piece_bytes)
            started_s = monotonic()
            count = self._fill(wanted, size - left, size)
            sink(self._view[:count])
            left -= count
            self._pace(count, monotonic() - started_s)

    def _pace(self, received: int, seconds: float) -> None:
        """Ask for less at a time on a slow connection: what is waited for is not yet progress."""
        if seconds > _SLOW_PIECE_S:
            self._piece_bytes = max(_LEAST_PIECE_BYTES, self._piece_bytes // 4)
        elif received == self._piece_bytes:
            self._piece_bytes = min(len(self._buffer), self._piece_bytes * 2)

    def _fill(self, wanted: int, done: int, size: int) -> int:
        """Receive ``wanted`` bytes into the buffer's start, or those that came before a failure.

        The bytes before a failure are returned first, so that they count as progress; the
        failure comes with the next call.
        """
        self._start = self._end = 0
        try:
            count = self._sock.recv_into(self._view, wanted, socket.MSG_WAITALL)
        except OSError as error:
            raise self._failure(error) from error
        if count == 0:
            raise Malformed(f"{self._peer} closed the connection after {done} of {size} bytes")
        return count

    def _read_until_close(self, sink: Sink) -> None:
        while True:
            if self._start < self._end:
                sink(self._view[self._start : self._end])
            self._start = self._end = 0
            if self._receive_some() == 0:
                return

    def _read_chunked(self, sink: Sink) -> None:
        while True:
            line = self._read_line().partition(b";")[0].strip()
            if not line or len(line) > 15 or line.strip(b"0123456789abcdefABCDEF"):
                raise Malformed(f"{self._peer} sent a malformed chunk")
            size = int(line, 16)
            if size == 0:
                break
            self._read_exactly(size, sink)
            if self._read_line():
                raise Malformed(f"{self._peer} sent a chunk longer than it said")
        for _ in range(MAX_HEADERS):
            if not self._read_line():
                return
        raise Malformed(f"{self._peer} sent more than {MAX_HEADERS} trailers")

    def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\n", self._start, self._end)) < 0:
            if self._end - self._start > _MAX_CHUNK_LINE_BYTES:
                raise Malformed(f"{self._peer} sent a malformed chunk")
            if self._end == len(self._buffer):
                rest = self._buffer[self._start : self._end]
                self._buffer[: len(rest)] = rest
                self._start, self._end = 0, len(rest)
            if self._receive_some() == 0:
                raise Malformed(f"{self._peer} closed the connection in the middle of a chunked body")
        line = bytes(self._view[self._start : end]).removesuffix(b"\r")
        self._start = end + 1
        return line

    def _receive_some(self) -> int:
        try:
            count = self._sock.recv_into(self._view[self._end :])
        except OSError as error:
            raise self._failure(error) from error
        self._end += count
        return count

    def _failure(self, error: OSError) -> Unavailable:
        self.reusable = False
        if isinstance(error, TimeoutError | BlockingIOError):
            return Stalled(f"{self._peer} sent nothing for {self._stall_s:g} s")
        return Unavailable(f"the connection to {self._peer} broke: {error.strerror or error}")
