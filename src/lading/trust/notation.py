"""Signatures of images by notation (Notary Project): a JSON Web Signature with the signer's certificates.

    {"payload": …, "protected": …, "header": {"x5c": [certificates]}, "signature": …}

https://github.com/notaryproject/specifications/tree/main/specs: signature-specification.md, signature-envelope-jws.md.  It
refers to the image (OCI 1.1), and its payload has the descriptor of the image's manifest.  Time stamps and revocation are
not looked at, so that certificates must be valid now, as the specification has it for signatures without a time stamp.
Needs python-cryptography (the extra ``certificates``).
"""

import base64
import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lading.errors import Untrusted
from lading.model.digest import Digest
from lading.model.signature import Attachment, Sought
from lading.text.json_xml import read_unique_json
from lading.text.printable import printable
from lading.trust.bundle import MOST_CERTIFICATES, changed_after
from lading.trust.certificate import check_chain, named_certificate, read_chain
from lading.trust.cosign import of_another_image

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

SOUGHT = Sought("application/vnd.cncf.notary.signature", {})
_JWS = "application/jose+json"
_COSE = "application/cose"
_PAYLOAD = "application/vnd.cncf.notary.payload.v1+json"
_SCHEME, _TIME = "io.cncf.notary.signingScheme", "io.cncf.notary.signingTime"
_EXPIRY = "io.cncf.notary.expiry"
# Of each kind of key, the one algorithm for it: else somebody could choose a weaker one.
_ALGORITHMS = frozenset(
    {("rsa2048", "PS256"), ("rsa3072", "PS384"), ("rsa4096", "PS512")}
    | {("secp256r1", "ES256"), ("secp384r1", "ES384"), ("secp521r1", "ES512")}
)
_MOST_SHOWN = 80
_AGAIN = "sign the image by: notation sign HOST/REPOSITORY@sha256:…"


class _Envelope(NamedTuple):
    """What an envelope says, and the ``message`` that is signed; ``certificates`` are DER, the signer's first."""

    protected: Mapping[str, Any]
    payload: bytes
    certificates: Sequence[bytes]
    message: bytes
    signature: bytes


def image_signer(found: Attachment, digest: Digest, roots: Sequence[bytes]) -> str:
    """Who signed the image with this digest, by a certificate below one of the ``roots`` (DER), in words.

    ``Untrusted`` says why it is nobody.
    """
    shown = printable(found.name)
    if found.media_type == _COSE:
        raise Untrusted(
            f"{shown} is a signature in COSE, which lading does not read",
            hint="sign the image by: notation sign --signature-format jws",
        )
    try:
        envelope = _read(found)
    except (ValueError, KeyError, TypeError) as error:
        raise _no_signature(shown, error) from error
    chain = read_chain(envelope.certificates, found.name)
    check_chain(chain, roots, found.name)
    _check_use(chain[0], shown)
    if not _has_signed(chain[0], envelope):
        raise changed_after(found.name)
    try:
        _check_protected(envelope.protected, shown)
        signed = str(read_unique_json(envelope.payload)["targetArtifact"]["digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise _no_signature(shown, error) from error
    if signed != str(digest):
        raise of_another_image(found.name, [signed], digest)
    return named_certificate(chain[0])


def _read(found: Attachment) -> _Envelope:
    if found.media_type != _JWS:
        raise ValueError(f"it is of the type {found.media_type}")
    envelope = read_unique_json(found.content)
    protected, payload, certificates = envelope["protected"], envelope["payload"], envelope["header"]["x5c"]
    if not isinstance(certificates, list) or not 0 < len(certificates) <= MOST_CERTIFICATES:
        raise ValueError("it has no chain of certificates, or too long a one")
    said = read_unique_json(_base64url(protected))
    if not isinstance(said, dict) or not isinstance(said.get("alg"), str):
        raise TypeError("protected")
    return _Envelope(
        said,
        _base64url(payload),
        [base64.b64decode(each, validate=True) for each in certificates],
        f"{protected}.{payload}".encode("ascii"),
        _base64url(envelope["signature"]),
    )


def _check_protected(protected: Mapping[str, Any], shown: str) -> None:
    """Raise unless everything that the signer wants checked is known here, and holds."""
    if protected["cty"] != _PAYLOAD:
        raise ValueError("its content is of another type")
    if protected[_SCHEME] != "notary.x509":
        raise ValueError("its signing scheme is not notary.x509")
    datetime.datetime.fromisoformat(protected[_TIME])
    critical = protected["crit"]
    if not isinstance(critical, list) or _SCHEME not in critical:
        raise ValueError("its signing scheme is not critical")
    if unknown := [each for each in critical if each not in (_SCHEME, _EXPIRY)]:
        raise Untrusted(
            f"{shown} asks for a check that lading does not know: {printable(str(unknown[0]))[:_MOST_SHOWN]}",
            hint="sign the image without a plugin that verifies",
        )
    if (_EXPIRY in protected) != (_EXPIRY in critical):
        raise ValueError("it has an expiry that is not critical, or the other way round")
    if _EXPIRY in protected:
        expiry = datetime.datetime.fromisoformat(protected[_EXPIRY])
        if datetime.datetime.now(datetime.UTC) >= expiry:
            raise Untrusted(f"{shown} has expired on {expiry:%Y-%m-%d}, as its signer wanted", hint=_AGAIN)


def _check_use(leaf: "Certificate", shown: str) -> None:
    """Raise unless a certificate is for signing alone (signature-specification.md, "Certificate Requirements")."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID as Use

    others = {Use.SERVER_AUTH, Use.CLIENT_AUTH, Use.EMAIL_PROTECTION, Use.TIME_STAMPING, Use.OCSP_SIGNING}
    values = [each.value for each in leaf.extensions]
    if (
        any(isinstance(each, x509.BasicConstraints) and each.ca for each in values)
        or any(isinstance(each, x509.ExtendedKeyUsage) and others & {*each} for each in values)
        or not any(isinstance(each.value, x509.KeyUsage) and each.critical for each in leaf.extensions)
    ):
        raise Untrusted(
            f"{shown} is signed by {named_certificate(leaf)}, which is not for signing images",
            hint="the certificate must be no authority's, have a critical key usage, and be for no other purpose than code",
        )


def _has_signed(leaf: "Certificate", envelope: _Envelope) -> bool:
    """Whether the signature is by the certificate's key, by the one algorithm that is for keys of its kind and size."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

    key, algorithm = leaf.public_key(), envelope.protected.get("alg")
    message, signature = envelope.message, envelope.signature
    kind = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else f"rsa{getattr(key, 'key_size', '')}"
    if (kind, algorithm) not in _ALGORITHMS:
        return False
    hashed = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[str(algorithm)[2:]]
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PSS(padding.MGF1(hashed), hashed.digest_size), hashed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            size = (key.key_size + 7) // 8
            numbers = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
            key.verify(utils.encode_dss_signature(*numbers), message, ec.ECDSA(hashed))
    except InvalidSignature:
        return False
    return True


def _base64url(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _no_signature(shown: str, why: Exception) -> Untrusted:
    said = printable(str(why))[:_MOST_SHOWN]
    return Untrusted(f"{shown} is not a signature of an image by notation ({said})", hint=_AGAIN)
