"""TLS beneath a connection: whatever the records and however they arrive, every byte comes, and none is waited for."""

import random
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme

from lading.errors import Stalled, Unavailable
from lading.model.origin import Origin
from lading.network.native import NotTaken, new_native
from lading.network.tls import TlsSocket
from lading.network.wire import Connection, Stream
from lading.settings.limits import Network

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("peer")
PEER = Origin("https", "peer", 443)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Watched(socket.socket):
    """A socket of which nobody asks for more than comes."""

    def recv_into(self, buffer, wanted=0, flags=0, /):
        count = super().recv_into(buffer, wanted, flags)
        assert not flags or count == wanted, f"{wanted} bytes were waited for, of which {count} came"
        return count


pytestmark = pytest.mark.usefixtures("each_tls")


def secured(sock: socket.socket) -> Stream:
    if Network().tls == "rustls":
        native = new_native(Network())
        native.believe(PEER, ssl.PEM_cert_to_DER_cert(CERTIFICATE.cert_chain_pems[0].bytes().decode()))
        return native.secure(sock, PEER, 5.0, 1 << 20)
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    secure = TlsSocket(sock, context, "peer")
    secure.handshake()
    return secure


@contextmanager
def peer(*records: bytes, version=ssl.TLSVersion.TLSv1_3, leave="keep", spoil=None) -> Iterator[Stream]:
    """A connection to a server that sends each of ``records`` as one or more records of TLS.

    Afterwards it stays silent ("keep"), says farewell ("farewell") or just goes ("cut").  ``spoil`` changes
    what is on the wire after the handshake.
    """
    ours, theirs = socket.socketpair()
    ours = Watched(fileno=ours.detach())
    # What waits in vain does not hang.
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    CERTIFICATE.configure_cert(context)
    done = threading.Event()

    def serve() -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                theirs.sendall(outgoing.read())
                incoming.write(theirs.recv(65536))
        theirs.sendall(outgoing.read())
        for record in records:
            tls.write(record)
            wire = outgoing.read()
            theirs.sendall(spoil(wire) if spoil else wire)
        if leave == "farewell":
            with pytest.raises(ssl.SSLWantReadError):
                tls.unwrap()
            theirs.sendall(outgoing.read())
        if leave != "keep":
            theirs.close()
        done.wait(30)

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield secured(ours)
    finally:
        done.set()
        server.join()
        ours.close()
        theirs.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", range(6))
def test_every_byte_comes_and_nothing_is_waited_for_behind_the_last(seed, version):
    dice = random.Random(seed)
    records = [dice.randbytes(dice.choice([1, 100, 1300, 16384, 16385, 200_000])) for _ in range(dice.randint(1, 40))]
    text = b"".join(records)
    got = bytearray()
    with peer(*records, version=version) as tls:
        buffer = memoryview(bytearray(1 << 20))
        while len(got) < len(text):
            wanted = min(dice.choice([1, 5000, 65536, 1 << 20]), len(text) - len(got))
            room = dice.choice([wanted, len(buffer)])
            count = tls.recv_into(buffer[:room], wanted, socket.MSG_WAITALL)
            assert count == wanted
            got += buffer[:count]
    assert got == text


def test_without_waiting_for_all_what_is_there_comes_at_once():
    with peer(b"head", b"body" * 1000) as tls:
        buffer = memoryview(bytearray(65536))
        assert 4 <= tls.recv_into(buffer) <= 4004


def test_the_end_is_a_receive_of_nothing():
    with peer(b"the last", leave="farewell") as tls:
        buffer = memoryview(bytearray(64))
        assert tls.recv_into(buffer, 20, socket.MSG_WAITALL) == 8
        assert bytes(buffer[:8]) == b"the last"
        assert tls.recv_into(buffer, 20, socket.MSG_WAITALL) == 0
        assert tls.recv_into(buffer) == 0


def test_an_end_that_anybody_could_have_made_is_an_error():
    with peer(b"half of it", leave="cut") as tls:
        buffer = memoryview(bytearray(64))
        assert tls.recv_into(buffer, 20, socket.MSG_WAITALL) == 10
        for _ in range(2):
            with pytest.raises(OSError, match="without TLS's farewell"):
                tls.recv_into(buffer, 20, socket.MSG_WAITALL)


def test_a_record_that_was_changed_on_its_way_is_an_error():
    with (
        peer(b"good" * 1000, spoil=lambda wire: wire[:-1] + bytes([wire[-1] ^ 1])) as tls,
        pytest.raises(OSError, match=r"decrypt|DECRYPT|RECORD_LAYER_FAILURE"),
    ):
        tls.recv_into(memoryview(bytearray(4000)), 4000, socket.MSG_WAITALL)


def test_silence_is_noticed_and_a_broken_wire_is_told():
    with peer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf") as tls:
        connection = Connection(tls, bytearray(4096), 0.05, "peer")
        assert connection.request("GET", "/", []).status == 200
        with pytest.raises(Stalled, match="peer sent nothing"):
            connection.read_body(lambda piece: None)


def test_a_server_that_goes_during_the_handshake_is_an_error():
    ours, theirs = socket.socketpair()
    theirs.shutdown(socket.SHUT_WR)
    with ours, theirs, pytest.raises((ConnectionResetError, NotTaken), match="closed"):
        secured(ours)


def test_a_thread_that_waits_is_woken():
    with peer() as tls:
        connection = Connection(tls, bytearray(4096), 30.0, "peer")
        threading.Timer(0.05, connection.abort).start()
        with pytest.raises(Unavailable):
            connection.request("GET", "/", [])


def test_what_is_sent_arrives():
    ours, theirs = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(context)
    heard = bytearray()

    def listen() -> None:
        with context.wrap_socket(theirs, server_side=True) as tls:
            while data := tls.recv(65536):
                heard.extend(data)

    server = threading.Thread(target=listen)
    server.start()
    secured(ours).sendall(b"x" * 100_000)
    # Closed at once, with the server's tickets unread, it would reset the connection.
    ours.shutdown(socket.SHUT_WR)
    server.join()
    ours.close()
    assert heard == b"x" * 100_000
