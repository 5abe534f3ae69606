"""Certificates that may sign models: chains to a trusted root (OMS 1.0, 4.1 and 8.2; RFC 5280, 6.1).

python-cryptography (the extra ``certificates``) builds and verifies the chain, since that is too easy to get wrong.
This module checks what OMS requires of the certificate that signs.
"""

import datetime
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lading.errors import Untrusted
from lading.text.printable import printable
from lading.trust.bundle import Bundle, changed_after
from lading.trust.public_key import PublicKey, read_public_keys, require_whole_blocks

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, Name

_MOST_SHOWN = 200
_MOST_DEPTH = 8


def read_roots(pem: bytes) -> tuple[bytes, ...]:
    """Every certificate in a PEM text, as DER; ``ValueError`` for a wrong text, ``ImportError`` without the extra."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.verification import ExtensionPolicy  # noqa: F401 - older versions do not have it

    try:
        roots = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ValueError("it holds no certificate that can be read") from error
    require_whole_blocks(pem, len(roots))
    return tuple(root.public_bytes(Encoding.DER) for root in roots)


def certified_signer(bundle: Bundle, roots: Sequence[bytes], name: str) -> str:
    """Verify the signature and the chain to one of the roots, at the present time; returns the signer in words.

    ``Untrusted`` if either fails.
    """
    chain = read_chain(bundle.certificates, name)
    key = _key(chain[0], name)
    check_chain(chain, roots, name)
    if not key.has_signed(bundle.message, bundle.signature):
        raise changed_after(name)
    return named_certificate(chain[0])


def read_chain(certificates: Sequence[bytes], name: str) -> "list[Certificate]":
    """Read certificates (DER), the signer's first; ``Untrusted`` for a damaged one."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    damaged = (ValueError, TypeError, UnsupportedAlgorithm)
    malformed = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
    try:
        with warnings.catch_warnings():
            # The package warns of faults in certificates, which it will refuse in later versions.
            warnings.simplefilter("ignore")
            chain = [x509.load_der_x509_certificate(each) for each in certificates]
            for each in chain:
                # Read all parts that are used, since the package parses a part only when it is read.
                each.subject, each.issuer, each.not_valid_after_utc, each.extensions, each.public_key()
            return chain
    except (*damaged, *malformed) as error:
        raise _unreadable(name) from error


def check_chain(chain: "Sequence[Certificate]", roots: Sequence[bytes], name: str) -> None:
    """Raise ``Untrusted`` unless the first certificate may sign, and the chain leads to one of the roots (DER) now."""
    from cryptography import x509

    shown = f"{printable(name)} is signed by {_shown(chain[0])}"
    if refusal := _why_not_for_signing(chain[0]):
        raise Untrusted(f"{shown}, which {refusal}", hint="a certificate for signing has it")
    why = _why_not_trusted(chain, [x509.load_der_x509_certificate(root) for root in roots])
    if why:
        raise Untrusted(f"{shown}, whose certificates do not lead to a root that is trusted", hint=why)


def named_certificate(leaf: "Certificate") -> str:
    """Who has a certificate, in words."""
    from cryptography.hazmat.primitives import hashes

    return f"certificate {_shown(leaf)} sha256:{leaf.fingerprint(hashes.SHA256()).hex()}"


def _why_not_trusted(chain: "Sequence[Certificate]", roots: "Sequence[Certificate]") -> str:
    """Why the chain is not valid to one of the roots now, or ""."""
    from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

    now = datetime.datetime.now(datetime.UTC)
    builder = PolicyBuilder().store(Store(list(roots))).time(now).max_chain_depth(_MOST_DEPTH)
    # The Web PKI's rules count for authorities only; a signer is no server, and needs no name in DNS.
    builder = builder.extension_policies(
        ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all()
    )
    try:
        builder.build_client_verifier().verify(chain[0], list(chain[1:]))
    except (VerificationError, ValueError) as error:
        return _why_no_chain(chain, roots, now) or printable(str(error))[:_MOST_SHOWN]
    return ""


def _key(leaf: "Certificate", name: str) -> PublicKey:
    """The key, which OMS has on one of three curves."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = leaf.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        return read_public_keys(pem)[0]
    except ValueError as error:
        raise _unreadable(name) from error


def _unreadable(name: str) -> Untrusted:
    return Untrusted(
        f"{printable(name)} has a certificate that cannot be read",
        hint="OMS signs by ECDSA keys on P-256, P-384 or P-521; notation also by RSA keys",
    )


def _why_not_for_signing(leaf: "Certificate") -> str:
    """Why a certificate may not sign, or "".

    As in the reference, its key usage or its extended key usage must allow it; but if it has both, both must (RFC 5280,
    4.2.1.12), or every certificate for TLS could sign.
    """
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    if any(isinstance(each.value, x509.UnrecognizedExtension) and each.critical for each in leaf.extensions):
        return "has a critical extension that nobody knows"
    usages = [each.value for each in leaf.extensions if isinstance(each.value, x509.KeyUsage)]
    if not all(usage.digital_signature for usage in usages):
        return "may not sign: its key usage has no digitalSignature"
    extended = [each.value for each in leaf.extensions if isinstance(each.value, x509.ExtendedKeyUsage)]
    if extended:
        allowed = {ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & {*extended[0]}
        return "" if allowed else "may not sign: its extended key usage has no codeSigning"
    return "" if usages else "may not sign: it has neither the key usage digitalSignature nor codeSigning"


def _why_no_chain(chain: "Sequence[Certificate]", roots: "Sequence[Certificate]", now: datetime.datetime) -> str:
    """The reason in words: a certificate is not valid now, or no root issued any of the chain; "" if neither."""
    issuers = {each.issuer for each in chain}
    above = [root for root in roots if root.subject in issuers]
    for each in (*chain, *above):
        if now > each.not_valid_after_utc:
            return f"{_shown(each)} has expired on {each.not_valid_after_utc:%Y-%m-%d}"
        if now < each.not_valid_before_utc:
            return f"{_shown(each)} is not valid before {each.not_valid_before_utc:%Y-%m-%d}"
    return (
        ""
        if above
        else f"none of the roots issued any of them; the last one is of {printable(_name(chain[-1].issuer))}"
    )


def _shown(certificate: "Certificate") -> str:
    return printable(_name(certificate.subject))


def _name(name: "Name") -> str:
    return name.rfc4514_string()[:_MOST_SHOWN]
