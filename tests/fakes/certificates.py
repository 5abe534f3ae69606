"""A private certificate authority and what it has signed; and certificates with everything that can be wrong with them."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


class Authority:
    """A CA made for one test; ``bundle`` is its certificate as a file."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.bundle = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.bundle)

    def server_context(self, *names: str, **certificate: Any) -> ssl.SSLContext:
        """What a server with a certificate for ``names`` needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names, **certificate).configure_cert(context)
        return context

    def demand_certificates(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """The same, for a server that lets in only clients with a certificate of this authority."""
        context.verify_mode = ssl.CERT_REQUIRED
        self._ca.configure_trust(context)
        return context

    def write_client(self, folder: Path, name: str) -> tuple[str, str]:
        """The files of a client's certificate and key, written in the place of those that are there."""
        certificate = self._ca.issue_cert(name)
        places = (folder / "client.pem", folder / "client.key")
        for place, blob in zip(places, (certificate.cert_chain_pems[0], certificate.private_key_pem), strict=True):
            place.write_bytes(blob.bytes())
        return str(places[0]), str(places[1])


class Signed(NamedTuple):
    """A certificate and its key; it may sign others."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def server_context(self, folder: Path, *above: "Signed") -> ssl.SSLContext:
        """What a server needs that shows this certificate, and those ``above`` it."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        place = folder / "server.pem"
        place.write_bytes(b"".join([key, self.pem, *(each.pem for each in above)]))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Also what nobody should show.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.load_cert_chain(place)
        return context


def signed(
    name: str,
    by: Signed | None = None,
    *extensions: x509.ExtensionType,
    critical: bool = False,
    bits: int = 0,
    days: tuple[int, int] = (-1, 1),
) -> Signed:
    """A certificate with exactly these extensions, signed by another one or by itself.

    It is valid between so many ``days`` from now on; its key is one of RSA with ``bits``, else of an elliptic curve.
    """
    key = rsa.generate_private_key(65537, bits) if bits else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins, ends = (datetime.now(UTC) + timedelta(days=day) for day in days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical)
    return Signed(builder.sign(by.key if by else key, hashes.SHA256()), key)
