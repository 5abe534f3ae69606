"""TLS by rustls, where the distribution lading-native is installed: without the interpreter lock (docs/adr/0014).

OpenSSL alone decides which certificates are trusted.  It makes the first connection to a host; for some minutes,
rustls accepts only the certificate that OpenSSL accepted there.  So settings, unusual certificates and errors are
judged in one place.  If rustls refuses a connection, OpenSSL tries it once more.
"""

import errno
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from lading.errors import UsageError
from lading.model.origin import Origin
from lading.network.tls import OnSocket
from lading.network.wire import limit_silence
from lading.settings.limits import Network

if TYPE_CHECKING:
    import lading_native

# A certificate that has expired since, or whose CA has, is not believed for longer than that.
_BELIEVED_S = 300.0
# Hosts that show many certificates in turn: each refusal has cost a connection.
_MOST_REFUSALS = 3
_MOST_WIRE_BYTES = 256 << 10


class NotTaken(Exception):
    """rustls cannot do this, or refuses the certificate: OpenSSL tries next."""


class NativeTlsSocket(OnSocket):
    """A TLS client as ``tls.TlsSocket`` is; on a socket of the system only."""

    def __init__(self, sock: socket.socket, tls: "lading_native.TlsSocket") -> None:
        super().__init__(sock)
        self._tls = tls
        self.handshake = tls.handshake
        self.sendall = tls.sendall
        self.recv_into = tls.recv_into

    def close(self) -> None:
        self._tls.close()
        super().close()


class Native:
    """rustls as the network is configured, and what OpenSSL has believed.  Safe from any thread."""

    def __init__(self, config: "lading_native.Config", *, any_certificate: bool, now: Callable[[], float]) -> None:
        self._config = config
        self._any_certificate = any_certificate
        self._now = now
        self._lock = threading.Lock()
        self._believed: dict[Origin, dict[bytes, float]] = {}
        self._refusals: Counter[Origin] = Counter()

    def believe(self, origin: Origin, certificate: bytes) -> None:
        """OpenSSL has believed this certificate of ``origin``, in DER."""
        with self._lock:
            kept = {each: self._believed[origin][each] for each in self._still_believed(origin)}
            self._believed[origin] = {**kept, certificate: self._now() + _BELIEVED_S}

    def serves(self, origin: Origin) -> bool:
        """Whether the next connection to ``origin`` can use rustls."""
        with self._lock:
            if self._refusals[origin] > _MOST_REFUSALS:
                return False
            return self._any_certificate or bool(self._still_believed(origin))

    def _still_believed(self, origin: Origin) -> list[bytes]:
        return [each for each, until in self._believed.get(origin, {}).items() if until > self._now()]

    def secure(self, sock: socket.socket, origin: Origin, connect_s: float, buffer_bytes: int) -> NativeTlsSocket:
        """TLS with ``origin``, for a connection that reads into ``buffer_bytes``; ``NotTaken`` for OpenSSL to try."""
        import lading_native

        with self._lock:
            believed = None if self._any_certificate else self._still_believed(origin)
        sock.settimeout(None)
        limit_silence(sock, connect_s)
        wire_bytes = min(buffer_bytes // 4, _MOST_WIRE_BYTES)
        try:
            tls = lading_native.TlsSocket(sock.fileno(), self._config, origin.name, believed, wire_bytes)
            tls.handshake()
        except BlockingIOError as error:
            raise TimeoutError(errno.ETIMEDOUT, "timed out") from error
        except (OSError, ValueError) as error:
            with self._lock:
                self._refusals[origin] += 1
            raise NotTaken(str(error)) from error
        with self._lock:
            del self._refusals[origin]
        return NativeTlsSocket(sock, tls)


def new_native(network: Network, *, now: Callable[[], float] = monotonic) -> Native | None:
    """A ``Native`` for ``network``, whose own certificate OpenSSL can use; None where OpenSSL does it all."""
    if not chosen(network):
        return None
    import lading_native

    shown = [Path(name).read_bytes() for name in (network.client_certificate, network.client_key) if name]
    try:
        # A file may hold both.
        config = lading_native.Config(shown[0], shown[-1]) if shown else lading_native.Config()
    except ValueError:
        return None
    return Native(config, any_certificate=not network.verify_tls, now=now)


def chosen(network: Network) -> bool:
    """Whether rustls is used; ``UsageError`` if it is required and not installed."""
    if network.tls == "openssl" or _fips():
        return False
    try:
        import lading_native  # noqa: F401
    except ImportError as error:
        if network.tls == "rustls":
            raise UsageError(
                "LADING_TLS is rustls, but the distribution lading-native is not installed",
                hint="install lading[native], or unset the variable",
            ) from error
        return False
    return True


def told(network: Network) -> str:
    """A text that names the TLS implementations in use."""
    import ssl

    if not chosen(network):
        return ssl.OPENSSL_VERSION
    import lading_native

    return f"rustls in lading-native {lading_native.__version__}, certificates by {ssl.OPENSSL_VERSION}"


def _fips() -> bool:
    """Whether this machine's OpenSSL is restricted to FIPS 140."""
    try:
        from _hashlib import get_fips_mode
    except ImportError:
        return False
    return bool(get_fips_mode())
