"""rustls decrypts and OpenSSL judges: when which of the two has a connection, and what neither lets through."""

import fcntl
import os
import signal
import socket
import ssl
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.certificates import Authority, signed
from fakes.faulty_http import Answer, FaultyServer
from lading.errors import NotAllowed, Unavailable, UsageError
from lading.model.origin import Origin, split_url
from lading.network import native as native_module
from lading.network.client import HttpClient
from lading.network.dial import Dialer
from lading.network.native import Native, NativeTlsSocket, NotTaken, chosen, new_native, told
from lading.network.wire import Connection
from lading.retry import Retry, Run
from lading.settings.limits import Limits, Network

lading_native = pytest.importorskip("lading_native", reason="lading-native is not installed (make native)")

LIMITS = Limits(connect_s=5.0, stall_s=5.0)
LARGE = bytes(3 << 20)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def serve() -> Iterator[Callable[[ssl.SSLContext], FaultyServer]]:
    with ExitStack() as stack:

        def start(context: ssl.SSLContext) -> FaultyServer:
            server = stack.enter_context(FaultyServer(context, "localhost"))
            server.routes["/"] = lambda request: Answer(body=LARGE if request.path == "/large" else b"hello")
            return server

        yield start


def dial(dialer: Dialer, server: FaultyServer) -> Connection:
    origin, _ = split_url(server.url)
    return dialer.dial(origin, bytearray(1 << 20))


def by_rustls(connection: Connection) -> bool:
    """Whether it is; a request shows that it works."""
    connection.request("GET", "/", [("Host", "localhost")])
    got = bytearray()
    connection.read_body(got.extend)
    connection.close()
    assert got == b"hello"
    return isinstance(connection._sock, NativeTlsSocket)


def several(dialer: Dialer, server: FaultyServer, count: int = 3) -> list[bool]:
    return [by_rustls(dial(dialer, server)) for _ in range(count)]


def test_a_first_connection_is_openssl_s_and_the_next_are_rustls_s(authority, serve) -> None:
    server = serve(authority.server_context("localhost"))
    assert several(Dialer(Network(ca_files=(authority.bundle,)), LIMITS), server) == [False, True, True]


def test_openssl_alone_and_rustls_for_all_can_be_asked_for(authority, serve) -> None:
    server = serve(authority.server_context("localhost"))
    network = Network(ca_files=(authority.bundle,))
    assert several(Dialer(network._replace(tls="openssl"), LIMITS), server) == [False, False, False]
    assert several(Dialer(network._replace(tls="rustls"), LIMITS), server) == [True, True, True]


def test_a_connection_of_openssl_s_is_kept_until_it_has_carried_something_large(authority, serve) -> None:
    server = serve(authority.server_context("localhost"))
    http = HttpClient(Network(ca_files=(authority.bundle,)), LIMITS, Retry(Run(threading.Event()), attempts=1))
    origin, _ = split_url(server.url)

    def kept() -> list[bool]:
        return [isinstance(each._sock, NativeTlsSocket) for each in http._idle.get(origin, [])]

    for path, after in (("/", [False]), ("/", [False]), ("/large", []), ("/large", [True]), ("/", [True])):
        assert http.fetch("GET", server.url + path)[1] in (b"hello", LARGE)
        assert kept() == after
    http.close()


def test_what_openssl_does_not_believe_rustls_is_never_asked_about(tmp_path, authority, serve) -> None:
    server = serve(signed("localhost").server_context(tmp_path))
    for tls in ("auto", "rustls"):
        dialer = Dialer(Network(ca_files=(authority.bundle,), tls=tls), LIMITS)
        for _ in range(2):
            with pytest.raises(NotAllowed, match="is not trusted"):
                dial(dialer, server)


def test_without_verification_rustls_is_first_and_takes_any_certificate(tmp_path, serve) -> None:
    server = serve(signed("elsewhere").server_context(tmp_path))
    assert several(Dialer(Network(verify_tls=False), LIMITS), server) == [True, True, True]


def test_another_certificate_of_the_same_host_is_judged_by_openssl(authority, tmp_path, serve) -> None:
    context = authority.server_context("localhost")
    server = serve(context)
    dialer = Dialer(Network(ca_files=(authority.bundle,)), LIMITS)
    assert several(dialer, server) == [False, True, True]
    authority._ca.issue_cert("localhost").configure_cert(context)
    assert several(dialer, server) == [False, True, True]
    signed("localhost").server_context(tmp_path)
    context.load_cert_chain(tmp_path / "server.pem")
    for _ in range(3):
        with pytest.raises(NotAllowed, match="is not trusted"):
            dial(dialer, server)


def test_a_host_that_shows_another_certificate_each_time_is_left_to_openssl(authority, serve) -> None:
    context = authority.server_context("localhost")
    server = serve(context)
    context.sni_callback = lambda sock, name, _: setattr(sock, "context", authority.server_context("localhost"))
    dialer = Dialer(Network(ca_files=(authority.bundle,)), LIMITS)
    several(dialer, server, 5)
    native = dialer._native(split_url(server.url)[0])
    assert not native.serves(split_url(server.url)[0])
    assert several(dialer, server) == [False, False, False]


def test_a_server_whose_ciphers_rustls_does_not_have_is_openssl_s(authority, serve) -> None:
    context = authority.server_context("localhost")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256")
    server = serve(context)
    for tls in ("auto", "rustls"):
        dialer = Dialer(Network(ca_files=(authority.bundle,), tls=tls), LIMITS)
        assert several(dialer, server) == [False, False, False]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_and_an_address_as_name_are_spoken(authority, serve, version) -> None:
    context = authority.server_context("127.0.0.1", "localhost")
    context.minimum_version = context.maximum_version = version
    with FaultyServer(context, "127.0.0.1") as server:
        server.routes["/"] = lambda request: Answer(body=b"hello")
        dialer = Dialer(Network(ca_files=(authority.bundle,)), LIMITS)
        assert several(dialer, server) == [False, True, True]


FORMATS = serialization.PrivateFormat
PLAIN = serialization.NoEncryption()


@pytest.mark.parametrize("layout", [FORMATS.PKCS8, FORMATS.TraditionalOpenSSL], ids=["PKCS8", "traditional"])
@pytest.mark.parametrize("kind", ["RSA", "EC"])
@pytest.mark.parametrize("one_file", [True, False])
def test_a_client_certificate_is_shown_in_each_form_that_openssl_takes(
    tmp_path, authority, serve, layout, kind, one_file
) -> None:
    own = signed("client", bits=2048 if kind == "RSA" else 0)
    text = own.key.private_bytes(serialization.Encoding.PEM, layout, PLAIN)
    place, separate = tmp_path / "client.pem", tmp_path / "client.key"
    place.write_bytes((text if one_file else b"") + own.pem)
    separate.write_bytes(text)
    (tmp_path / "clients.pem").write_bytes(own.pem)
    context = authority.server_context("localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tmp_path / "clients.pem")
    network = Network(
        ca_files=(authority.bundle,), client_certificate=str(place), client_key="" if one_file else str(separate)
    )
    assert several(Dialer(network, LIMITS), serve(context)) == [False, True, True]


def test_a_client_certificate_is_demanded_of_both(authority, serve) -> None:
    server = serve(authority.demand_certificates(authority.server_context("localhost")))
    for tls in ("openssl", "rustls"):
        connection = dial(Dialer(Network(ca_files=(authority.bundle,), tls=tls), LIMITS), server)
        with pytest.raises(Unavailable, match="broke"):
            connection.request("GET", "/", [("Host", "localhost")])
        connection.close()


def test_a_rotated_client_certificate_is_shown_by_the_next_connection(tmp_path, authority, serve) -> None:
    context = authority.demand_certificates(authority.server_context("localhost"))
    server = serve(context)
    names = authority.write_client(tmp_path, "first.example")
    network = Network(ca_files=(authority.bundle,), client_certificate=names[0], client_key=names[1], tls="rustls")
    dialer = Dialer(network, LIMITS)
    assert by_rustls(dial(dialer, server))
    before = dialer._tls
    authority.write_client(tmp_path, "second.example")
    assert by_rustls(dial(dialer, server))
    assert dialer._tls is not before


def test_what_was_believed_is_not_for_ever() -> None:
    now = [0.0]
    native = new_native(Network(), now=lambda: now[0])
    origin = Origin("https", "h", 443)
    assert not native.serves(origin)
    native.believe(origin, b"certificate")
    assert native.serves(origin)
    assert not native.serves(Origin("https", "h", 444))
    now[0] = 301.0
    assert not native.serves(origin)


def test_a_machine_that_fips_binds_stays_with_openssl(monkeypatch) -> None:
    monkeypatch.setattr("_hashlib.get_fips_mode", lambda: 1)
    assert new_native(Network()) is None
    assert told(Network()).startswith("OpenSSL")


def test_without_the_distribution_openssl_does_it_all(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "lading_native", None)
    assert not chosen(Network())
    assert told(Network()) == ssl.OPENSSL_VERSION
    with pytest.raises(UsageError, match="not installed") as caught:
        chosen(Network(tls="rustls"))
    assert "lading[native]" in caught.value.hint


def test_with_it_the_version_says_so() -> None:
    assert told(Network()).startswith(f"rustls in lading-native {lading_native.__version__}, certificates by Open")


# ---- One connection ------------------------------------------------------------------------


OWN = signed("peer")
OWN_DER = OWN.certificate.public_bytes(serialization.Encoding.DER)
PEER = Origin("https", "peer", 443)


@contextmanager
def pair(tmp_path: Path, behave: Callable[[ssl.SSLSocket], None]) -> Iterator[NativeTlsSocket]:
    """rustls's side of a connection whose other side does ``behave``."""
    ours, theirs = socket.socketpair()
    context = OWN.server_context(tmp_path)

    def other() -> None:
        with theirs, suppress(OSError), context.wrap_socket(theirs, server_side=True) as tls:
            behave(tls)

    thread = threading.Thread(target=other)
    thread.start()
    native = new_native(Network())
    native.believe(PEER, OWN_DER)
    sock = native.secure(ours, PEER, 5.0, 1 << 20)
    try:
        yield sock
    finally:
        sock.close()
        thread.join()


def test_another_certificate_than_the_one_believed_is_not_taken(tmp_path) -> None:
    ours, theirs = socket.socketpair()
    context = signed("peer").server_context(tmp_path)

    def other() -> None:
        with theirs, suppress(OSError), context.wrap_socket(theirs, server_side=True):
            pass

    thread = threading.Thread(target=other)
    thread.start()
    native = new_native(Network())
    native.believe(PEER, OWN_DER)
    with ours, pytest.raises(NotTaken, match="certificate"):
        native.secure(ours, PEER, 5.0, 1 << 20)
    thread.join()


def test_the_certificate_without_its_key_is_not_taken() -> None:
    """A server that shows the believed certificate and signs with another key."""
    # OpenSSL refuses to load such a pair: the certificate on the wire is replaced by one of the same length.
    native = new_native(Network())
    for _ in range(50):
        liar = signed("peer")
        der = liar.certificate.public_bytes(serialization.Encoding.DER)
        if len(der) == len(OWN_DER):
            break
    else:
        pytest.fail("no certificate of the same length was made")
    native.believe(PEER, OWN_DER)
    ours, theirs = socket.socketpair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with TemporaryDirectory() as folder:
        liar.server_context(Path(folder))
        context.load_cert_chain(Path(folder) / "server.pem")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)

    def other() -> None:
        with theirs, suppress(OSError):
            while data := theirs.recv(65536):
                incoming.write(data)
                with suppress(ssl.SSLError):
                    tls.do_handshake()
                # TLS 1.2 sends it in the clear.
                theirs.sendall(outgoing.read().replace(der, OWN_DER))

    thread = threading.Thread(target=other)
    thread.start()
    with ours, pytest.raises(NotTaken, match="ignature"):
        native.secure(ours, PEER, 5.0, 1 << 20)
    thread.join()


def test_silence_in_the_handshake_ends_it_in_time() -> None:
    ours, theirs = socket.socketpair()
    native = new_native(Network())
    native.believe(PEER, OWN_DER)
    with ours, theirs, pytest.raises(TimeoutError):
        native.secure(ours, PEER, 0.05, 1 << 20)
    assert native.serves(PEER)


def test_a_closed_socket_says_so_and_the_other_side_sees_the_end(tmp_path) -> None:
    ended = threading.Event()

    def behave(tls: ssl.SSLSocket) -> None:
        with suppress(OSError):
            assert tls.recv(1) == b""
        ended.set()

    with pair(tmp_path, behave) as sock:
        sock.close()
        assert ended.wait(5)
        with pytest.raises(OSError, match="Bad file descriptor"):
            sock.recv_into(memoryview(bytearray(5)))
        with pytest.raises(OSError, match="Bad file descriptor"):
            sock.sendall(b"x")


def test_a_buffer_that_cannot_be_written_to_is_refused(tmp_path) -> None:
    with pair(tmp_path, lambda tls: tls.sendall(b"text")) as sock:
        with pytest.raises((ValueError, BufferError)):
            sock.recv_into(memoryview(b"constant"))
        with pytest.raises((ValueError, BufferError)):
            sock.recv_into(memoryview(bytearray(16))[::2])
        assert sock.recv_into(memoryview(bytearray())) == 0


def test_other_threads_run_while_one_waits(tmp_path) -> None:
    go = threading.Event()

    def behave(tls: ssl.SSLSocket) -> None:
        # Only a thread that runs while the other one receives can set it.
        assert go.wait(5)
        tls.sendall(b"text")

    with pair(tmp_path, behave) as sock:
        threading.Timer(0.01, go.set).start()
        assert sock.recv_into(memoryview(bytearray(4)), 4, socket.MSG_WAITALL) == 4


# Where tests run in the background, children inherit that Ctrl-C is ignored.
_WAITS = """
import signal, socket, lading_native
signal.signal(signal.SIGINT, signal.default_int_handler)
ours, theirs = socket.socketpair()
tls = lading_native.TlsSocket(ours.fileno(), lading_native.Config(), "peer", None, 0)
print("waits", flush=True)
tls.handshake()
"""


def test_ctrl_c_ends_a_wait() -> None:
    with subprocess.Popen([sys.executable, "-c", _WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"waits\n"
        while "S (sleeping)" not in Path(f"/proc/{child.pid}/status").read_text():
            os.sched_yield()
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=20)
    assert b"KeyboardInterrupt" in said


def test_keys_are_renewed_in_the_middle(tmp_path) -> None:
    """OpenSSL's own command renews its keys ("K" asks for ours, too) between two lines that it sends."""
    OWN.server_context(tmp_path)
    # It prints the port that it was given.
    server = subprocess.Popen(
        ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", "server.pem", "-key", "server.pem", "-naccept", "1"],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    with server:
        port = next(int(line.rpartition(b":")[2]) for line in server.stdout if line.startswith(b"ACCEPT"))
        native = new_native(Network())
        native.believe(PEER, OWN_DER)
        sock = native.secure(socket.create_connection(("127.0.0.1", port)), PEER, 5.0, 1 << 20)
        buffer = memoryview(bytearray(64))
        for line in (b"before\n", b"K\n", b"after\n", b"k\n", b"last\n"):
            server.stdin.write(line)
            server.stdin.flush()
            # Two lines that it reads at once are one to it.
            while waiting_bytes(server.stdin):
                os.sched_yield()
            if len(line) > 2:
                assert sock.recv_into(buffer, len(line), socket.MSG_WAITALL) == len(line)
                assert bytes(buffer[: len(line)]) == line
                sock.sendall(b"heard\n")
        sock.close()
        server.kill()


def waiting_bytes(pipe: IO[bytes]) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


# ---- Servers that mean harm ------------------------------------------------------------------


def wires() -> tuple[bytes, bytes]:
    """What a server of TLS 1.2 and one of 1.3 say to a first message, to be spoiled."""
    made = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with TemporaryDirectory() as folder:
            context = OWN.server_context(Path(folder))
        context.maximum_version = version
        client = ssl.create_default_context()
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        client.maximum_version = version
        a, b, c, d = (ssl.MemoryBIO() for _ in range(4))
        ours, theirs = client.wrap_bio(a, b), context.wrap_bio(c, d, server_side=True)
        with suppress(ssl.SSLWantReadError):
            ours.do_handshake()
        c.write(b.read())
        with suppress(ssl.SSLWantReadError):
            theirs.do_handshake()
        made.append(d.read())
    return made[0], made[1]


WIRES = wires()


def spoiled(wire: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    data = bytearray(wire)
    for place, value in changes:
        data[place % len(data)] = value
    return bytes(data[: cut % (len(data) + 1)])


HARM = st.one_of(
    st.binary(max_size=400),
    st.builds(
        spoiled,
        st.sampled_from(WIRES),
        st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6),
        st.integers(0, 5000),
    ),
    # Records with lengths that lie, and alerts.
    st.builds(
        lambda kind, length, body: bytes([kind, 3, 3]) + length.to_bytes(2) + body,
        st.integers(18, 26),
        st.integers(0, 65535),
        st.binary(max_size=300),
    ),
)


@settings(max_examples=300, deadline=None)
@given(said=st.lists(HARM, min_size=1, max_size=4))
def test_whatever_a_server_says_in_the_handshake_is_an_error_and_no_more(said: list[bytes]) -> None:
    ours, theirs = socket.socketpair()
    native = Native(lading_native.Config(), any_certificate=True, now=lambda: 0.0)
    theirs.sendall(b"".join(said))
    theirs.shutdown(socket.SHUT_WR)
    with ours, theirs, pytest.raises(NotTaken) as caught:
        native.secure(ours, PEER, 5.0, 1 << 20)
    assert "a failure inside" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=5),
    place=st.integers(0, 1 << 20),
    value=st.integers(1, 255),
    cut=st.integers(0, 1 << 20),
    version=st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]),
    wanted=st.integers(1, 70_000),
)
def test_of_records_that_are_changed_or_cut_only_a_true_beginning_comes(
    sizes, place, value, cut, version, wanted
) -> None:
    with TemporaryDirectory() as folder:
        context = OWN.server_context(Path(folder))
    context.maximum_version = version
    text = b"".join(bytes([number % 251]) * size for number, size in enumerate(sizes, 1))
    ours, theirs = socket.socketpair()

    def other() -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)
        with theirs, suppress(OSError):
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    theirs.sendall(outgoing.read())
                    incoming.write(theirs.recv(65536))
            theirs.sendall(outgoing.read())
            tls.write(text)
            wire = bytearray(outgoing.read())
            wire[place % len(wire)] ^= value
            theirs.sendall(wire[: len(wire) - cut % len(wire)])

    thread = threading.Thread(target=other)
    thread.start()
    native = Native(lading_native.Config(), any_certificate=True, now=lambda: 0.0)
    buffer, got = memoryview(bytearray(wanted)), bytearray()
    why, sock = "", None
    while not why:
        try:
            # What follows its handshake at once may be looked at in there.
            sock = sock or native.secure(ours, PEER, 5.0, 1 << 20)
            count = sock.recv_into(buffer, wanted, socket.MSG_WAITALL)
            assert count, "the end seemed true"
            got += buffer[:count]
        except (OSError, NotTaken) as error:
            why = str(error)
    assert text.startswith(got)
    assert "a failure inside" not in why
    ours.close()
    thread.join()


def test_a_message_without_end_is_refused_with_bounded_memory() -> None:
    """A handshake message that says it has 16 MiB, and the records that it would come in."""
    ours, theirs = socket.socketpair()
    native = Native(lading_native.Config(), any_certificate=True, now=lambda: 0.0)
    record = b"\x16\x03\x03" + (16384).to_bytes(2) + b"\x02\xff\xff\xff" + bytes(16380)

    def flood() -> None:
        with suppress(OSError):
            for _ in range(1000):
                theirs.sendall(record)

    thread = threading.Thread(target=flood)
    thread.start()
    with ours, theirs:
        with pytest.raises(NotTaken):
            native.secure(ours, PEER, 5.0, 1 << 20)
        ours.close()
        theirs.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_openssl_s_words_are_the_last_when_rustls_takes_nothing(authority, serve, monkeypatch) -> None:
    """Whatever rustls refuses, the error, if there is one, and its hint are OpenSSL's."""
    monkeypatch.setattr(native_module.Native, "secure", refuses)
    server = serve(authority.server_context("elsewhere.example"))
    dialer = Dialer(Network(ca_files=(authority.bundle,), tls="rustls"), LIMITS)
    with pytest.raises(NotAllowed, match="localhost") as caught:
        dial(dialer, server)
    assert "subjectAltName" in caught.value.hint


def refuses(*_: object) -> None:
    raise NotTaken
