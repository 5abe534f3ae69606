"""Which certificates are believed, as curl does it on every Python; and what to try when one is not, by OpenSSL's codes."""

import ssl
import time
from collections.abc import Iterable
from pathlib import Path

from lading.errors import LadingError, NotAllowed, UsageError
from lading.model.origin import Origin
from lading.network.tls import load_certificate
from lading.settings.limits import Network
from lading.text.printable import printable

_BY_WHICH = "AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or SSL_CERT_FILE"
_EXPIRED = 10
_MALFORMED = "it, or that of a CA above it, is malformed, and must be made anew"
# X509_V_ERR_… of https://docs.openssl.org/3.5/man3/X509_STORE_CTX_get_error/, by what helps.  What only
# VERIFY_X509_STRICT finds is not here.
_HINTS: dict[tuple[int, ...], str] = {
    (
        2,
        19,
        20,
        21,
        27,
    ): f"give its CA by {_BY_WHICH}; or the server does not send the certificates between its own and the CA's",
    (18,): f"it is self-signed: give this very certificate by {_BY_WHICH}",
    (
        7,
        29,
        30,
        31,
    ): f"another CA has the same name as the one that signed it: was the CA made anew? give its new certificate by {_BY_WHICH}",
    (9,): "it is valid only from a later time on: is the clock of this machine right?",
    (_EXPIRED,): "the server, or a CA above it, needs a new certificate; or is the clock of this machine wrong?",
    (62, 64): "use a name or address that is in it (its subjectAltName), or have this one added to it",
    (23,): "its CA has revoked it: the server needs a new one",
    (
        24,
        25,
        32,
        37,
        79,
        80,
        81,
        82,
    ): "what signed it is no CA, or not allowed to sign (basicConstraints, keyUsage): the CA must be made anew",
    (26,): "it is not made for a server (extendedKeyUsage): the server needs one that is",
    (
        66,
        67,
        68,
    ): "its key or its signature, or that of a CA above it, is too weak: RSA needs 2048 bits, signatures SHA-256",
    (47, 48, 49, 51, 52, 53): "a CA above it may not sign for this name (nameConstraints)",
    (4, 5, 6, 13, 14, 34, 41, 42, 45, 76, 77, 78): _MALFORMED,
}
_DER = b"\x30"
_MOST_LOOKED_AT_BYTES = 1 << 20


def new_context(network: Network) -> ssl.SSLContext:
    """The TLS context of a client; ``UsageError`` for a file of certificates that cannot be used."""
    if network.verify_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if network.only_ca_files else ssl.create_default_context()
        # Python 3.13 refuses what older ones, curl and Go accept: a CA without a key usage, a certificate without
        # an Authority Key Identifier.  And as for curl, what is in a bundle is trusted even if it is not a root.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    else:
        # Without the machine's authorities, most of what a context costs.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # Debian's Python leaves it to OpenSSL's configuration, which need not be there.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for name in network.ca_files if network.verify_tls else ():
        _add_bundle(context, name)
    if network.client_certificate:
        load_certificate(context, "the client certificate", network.client_certificate, network.client_key)
    return context


def not_trusted(error: ssl.SSLCertVerificationError, target: Origin, ca_files: Iterable[str]) -> LadingError:
    """The error for a certificate of ``target`` that ``error`` is about."""
    hint = next((hint for codes, hint in _HINTS.items() if error.verify_code in codes), "")
    if error.verify_code == _EXPIRED:
        hint = next(filter(None, map(_expired_in, ca_files)), hint)
    return NotAllowed(
        f"the certificate of {target.authority} is not trusted: {error.verify_message}",
        hint=hint or f"inspect it: openssl s_client -showcerts -connect {target.name}:{target.port}",
    )


def unreadable(error: ssl.SSLError, target: Origin) -> LadingError:
    """The error for what ``target`` showed and OpenSSL could not parse: it then names one of its libraries and no reason."""
    return NotAllowed(
        f"the certificate of {target.authority} cannot be read: {error.strerror}",
        hint=f"{_MALFORMED}: openssl s_client -showcerts -connect {target.name}:{target.port}",
    )


def _add_bundle(context: ssl.SSLContext, name: str) -> None:
    try:
        context.load_verify_locations(cafile=name)
    except ssl.SSLError as error:
        reason, hint = _trouble(name)
        raise UsageError(f"the CA bundle {printable(name)} {reason}", hint=hint) from error
    except OSError as error:
        raise UsageError(
            f"the CA bundle {printable(name)} cannot be read: {error.strerror or error}",
            hint="it must be a file, not a folder, that this user may read; check that the ConfigMap or Secret is mounted there",
        ) from error


def _trouble(name: str) -> tuple[str, str]:
    """The reason and the hint for a file in which OpenSSL finds no certificates."""
    with Path(name).open("rb") as file:
        text = file.read(_MOST_LOOKED_AT_BYTES)
    if not text.strip():
        return "is empty", "is whatever fills it done?"
    if text.startswith(_DER):
        path = printable(name)
        return "is in DER", f"it must be PEM: openssl x509 -inform der -in {path} -out {path}.pem"
    if b"CERTIFICATE-----" not in text:
        return "holds no certificate", "it must be a file of PEM certificates"
    return "holds a damaged certificate", "it must be a file of PEM certificates, each whole"


def _expired_in(name: str) -> str:
    """A hint for the first CA in a bundle that has expired; "" if none has, or the file is gone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=name)
    except OSError:
        return ""
    for certificate in context.get_ca_certs():
        ended = str(certificate["notAfter"])
        if ssl.cert_time_to_seconds(ended) < time.time():
            return f"the CA bundle {printable(name)} holds a CA that expired on {ended}: give the CA's new certificate"
    return ""
