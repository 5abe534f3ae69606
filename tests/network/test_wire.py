"""One connection against servers that lie, over real sockets."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading.errors import LadingError, Stalled, Unavailable
from lading.network.wire import MAX_HEADERS, Connection, Malformed


@contextmanager
def talking(
    answer: bytes, *, then_close: bool = True, buffer_bytes: int = 4096, stall_s: float = 5.0
) -> Iterator[Connection]:
    """A connection to a server that says ``answer``, whatever it is asked."""
    ours, theirs = socket.socketpair()
    writer = threading.Thread(target=_say, args=(theirs, answer, then_close))
    writer.start()
    connection = Connection(ours, bytearray(buffer_bytes), stall_s, "peer")
    try:
        yield connection
    finally:
        connection.close()
        writer.join()
        theirs.close()


def _say(sock: socket.socket, answer: bytes, then_close: bool) -> None:
    try:
        sock.sendall(answer)
        if then_close:
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        return


def answered(answer: bytes, method: str = "GET", **options: object) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection may be used again."""
    with talking(answer, **options) as connection:
        head = connection.request(method, "/", [("Host", "peer")])
        body = bytearray()
        connection.read_body(body.extend)
        return head.status, bytes(body), connection.reusable and connection.drained


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "body", "reusable"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
        (OK + b"Content-Length: 0\r\n\r\n", b"", True),
        (OK + b"content-length:5\r\n\r\nhello", b"hello", True),
        (OK + b"Content-Length: 5, 5\r\n\r\nhello", b"hello", True),
        (OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        (OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", False),
        (OK + b"Content-Length: 5\r\n\r\nhello, and more", b"hello", False),
        (OK + b"\r\nuntil the end", b"until the end", False),
        (OK + b"\r\n", b"", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello", True),
        (OK + b"Transfer-Encoding: CHUNKED\r\n\r\n2;x=y\r\nhe\r\n3 \r\nllo\r\n0\r\nTrailer: x\r\n\r\n", b"hello", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        # Lines without a carriage return.
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\r\nA: 1\nContent-Length: 5\r\n\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n", b"hello", True),
        (OK + b"Content-Length: 4\r\n\r\n\n\r\n\n", b"\n\r\n\n", True),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx",
            b"x",
            True,
        ),
    ],
)
def test_a_body_is_framed_as_rfc_9112_says(answer: bytes, body: bytes, reusable: bool) -> None:
    assert answered(answer)[1:] == (body, reusable)


def test_the_answer_to_head_has_no_body_whatever_it_says() -> None:
    assert answered(OK + b"Content-Length: 500\r\n\r\n", "HEAD") == (200, b"", True)


@pytest.mark.parametrize("length", [b"\xb2", b"-1", b"1" * 19, b"5, 6", b"5 bytes"])
def test_an_answer_to_head_does_not_tell_a_length_that_is_no_number(length: bytes) -> None:
    with pytest.raises(Malformed):
        answered(OK + b"Content-Length: " + length + b"\r\n\r\n", "HEAD")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.0\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 20\r\n\r\n",
        "HTTP/1.1 ²00 OK\r\n\r\n".encode("latin-1"),
        OK + b"no colon\r\n\r\n",
        OK + b": no name\r\n\r\n",
        OK + b"A: 1\r\n folded\r\n\r\n",
        # Two ways to frame one body: what one reader takes for the end, another does not.
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: identity\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: 5, 6\r\n\r\nhello",
        OK + b"Content-Length: -5\r\n\r\nhello",
        OK + b"Content-Length: +5\r\n\r\nhello",
        OK + b"Content-Length: 5.0\r\n\r\nhello",
        OK + b"Content-Length: 0x5\r\n\r\nhello",
        OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nhello",
        OK + "Content-Length: ²\r\n\r\nhello".encode("latin-1"),
        # Cut off.
        OK + b"Content-Length: 6\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        # Chunks that are none.
        OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5_0\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 16 + b"\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello, longer\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: x\r\n" * (MAX_HEADERS + 1) + b"\r\n",
    ],
)
def test_an_answer_that_cannot_be_trusted_is_malformed(answer: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        answered(answer)
    assert caught.value.retryable
    assert "peer" in str(caught.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "answer",
    [
        OK + b"A: " + b"x" * 1_000_000,
        OK + b"A: b\r\n" * 100_000,
        OK + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000,
        b"x" * 1_000_000,
        OK + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 1_000_000,
    ],
)
def test_a_server_that_never_comes_to_its_answer_is_left(answer: bytes) -> None:
    with pytest.raises(Malformed):
        answered(answer, buffer_bytes=256 * 1024)


def test_a_connection_that_failed_is_not_used_again() -> None:
    with talking(OK + b"Content-Length: 6\r\n\r\nhello") as connection:
        connection.request("GET", "/", [])
        with pytest.raises(Malformed, match="after 5 of 6 bytes"):
            connection.read_body(lambda piece: None)
        assert not connection.reusable


def test_bytes_before_a_failure_reach_the_sink() -> None:
    body = bytearray()
    with talking(OK + b"Content-Length: 20000\r\n\r\n" + b"x" * 15_000) as connection:
        connection.request("GET", "/", [])
        with pytest.raises(Malformed):
            connection.read_body(body.extend)
    assert body == b"x" * 15_000


def test_a_sink_that_fails_spoils_the_connection() -> None:
    def full(piece: memoryview) -> None:
        raise ZeroDivisionError

    with talking(OK + b"Content-Length: 5\r\n\r\nhello") as connection:
        connection.request("GET", "/", [])
        with pytest.raises(ZeroDivisionError):
            connection.read_body(full)
        assert not connection.reusable


@pytest.mark.parametrize(
    "answer", [b"", OK, OK + b"Content-Length: 5\r\n\r\nhel", OK + b"Transfer-Encoding: chunked\r\n\r\n"]
)
def test_silence_is_a_stall(answer: bytes) -> None:
    def ask(connection: Connection) -> None:
        connection.request("GET", "/", [])
        connection.read_body(lambda piece: None)
        connection.read_body(lambda piece: None)

    with talking(answer, then_close=False, stall_s=0.05) as connection:
        with pytest.raises(Stalled, match=r"nothing for 0\.05 s"):
            ask(connection)
        assert not connection.reusable


def test_a_thread_that_waits_is_woken() -> None:
    with talking(b"", then_close=False) as connection:
        waker = threading.Timer(0.0, connection.abort)
        waker.start()
        with pytest.raises(Unavailable):
            connection.request("GET", "/", [])
        waker.join()


@pytest.mark.parametrize(
    ("target", "header"),
    [
        ("/\r\nX-Evil: 1", ("A", "b")),
        ("/ HTTP/1.1\nX: 1", ("A", "b")),
        ("/", ("A", "b\r\nX-Evil: 1")),
        ("/", ("A", "b\nX-Evil: 1")),
        ("/", ("A\r\nX-Evil", "1")),
        ("/", ("A", "b\0c")),
        ("/", ("A", "b\rX-Evil: 1")),
        ("/", ("A", "模型")),
    ],
)
def test_nothing_can_be_smuggled_into_a_request(target: str, header: tuple[str, str]) -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, bytearray(1024), 1.0, "peer")
    with pytest.raises(LadingError) as caught:
        connection.request("GET", target, [header])
    assert not caught.value.retryable
    connection.close()
    theirs.settimeout(1.0)
    assert theirs.recv(1) == b""
    theirs.close()


def test_what_is_sent_is_the_request_and_its_body() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, bytearray(1024), 5.0, "peer")
    theirs.sendall(OK + b"Content-Length: 0\r\n\r\n")
    connection.request("POST", "/p?q", [("Host", "h"), ("A", "ö")], b"body")
    assert theirs.recv(4096) == "POST /p?q HTTP/1.1\r\nHost: h\r\nA: ö\r\nContent-Length: 4\r\n\r\nbody".encode(
        "latin-1"
    )
    connection.close()
    theirs.close()


@settings(deadline=None, max_examples=150)
@given(st.lists(st.binary(min_size=1, max_size=200), max_size=8), st.integers(64, 400), st.data())
def test_a_chunked_body_is_whole_whatever_the_chunks_and_the_buffer(
    chunks: list[bytes], buffer_bytes: int, data: st.DataObject
) -> None:
    answer = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    answer += b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    assert answered(answer, buffer_bytes=buffer_bytes) == (200, b"".join(chunks), True)
    cut = data.draw(st.integers(0, len(answer) - 1))
    with pytest.raises(Malformed):
        answered(answer[:cut], buffer_bytes=buffer_bytes)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.sampled_from([b"", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n"]))
def test_any_bytes_are_an_answer_or_an_error_of_ladings(noise: bytes, start: bytes) -> None:
    try:
        status, _, _ = answered(start + noise)
    except LadingError:
        return
    assert 200 <= status <= 999 or status == 101
