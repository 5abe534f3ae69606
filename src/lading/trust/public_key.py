"""Public keys that may sign models: elliptic curve keys as PEM (RFC 5480; RFC 7468, 13)."""

import base64
import binascii
import hashlib
import re
from typing import NamedTuple

from lading.trust.ecdsa import CURVES, P256, P384, P521, Curve, is_signed

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\s(.*?)-----END \1-----", re.DOTALL)
_LABEL = b"PUBLIC KEY"
# The DER before the point: lengths, algorithm, curve, and the mark of an uncompressed point.
_HEADS = {
    P256: bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
    P384: bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"),
    P521: bytes.fromhex("30819b301006072a8648ce3d020106052b810400230381860004"),
}


class PublicKey(NamedTuple):
    """A public key that verifies signatures: a point of ``curve``, and its DER (SubjectPublicKeyInfo)."""

    curve: Curve
    point: tuple[int, int]
    der: bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER, as ``openssl pkey -pubin -outform der | sha256sum`` prints it."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def name(self) -> str:
        """The key as a signer, in words."""
        return f"key sha256:{self.fingerprint}"

    @property
    def hint(self) -> str:
        """The name of the key in a bundle: SHA-256 of its PEM text, as model_signing writes it."""
        lines = base64.encodebytes(self.der).replace(b"\n", b"")
        wrapped = b"\n".join(lines[at : at + 64] for at in range(0, len(lines), 64))
        pem = b"-----BEGIN PUBLIC KEY-----\n" + wrapped + b"\n-----END PUBLIC KEY-----\n"
        return hashlib.sha256(pem).hexdigest()

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether this is a valid signature of the message by this key."""
        return is_signed(self.curve, self.point, message, signature)


def read_public_keys(pem: bytes) -> tuple[PublicKey, ...]:
    """Read every key in a PEM text; ``ValueError`` says what is wrong with it."""
    blocks = _PEM.findall(pem)
    if not blocks:
        raise ValueError("it holds no PEM block")
    require_whole_blocks(pem, len(blocks))
    return tuple(_read_key(label, body) for label, body in blocks)


def require_whole_blocks(pem: bytes, found: int) -> None:
    """``ValueError`` unless as many blocks of a PEM text were found as begin in it: one that is cut off is none."""
    if pem.count(b"-----BEGIN ") != found:
        raise ValueError("it holds a PEM block that is cut off, or of another kind")


def _read_key(label: bytes, body: bytes) -> PublicKey:
    if b"PRIVATE" in label:
        raise ValueError("it holds a private key, which nobody but the signer may have")
    if label != _LABEL:
        raise ValueError(f"it holds a {label.decode()}, not a PUBLIC KEY")
    try:
        der = base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error as error:
        raise ValueError("its PEM block is not base64") from error
    for curve in CURVES:
        head, size = _HEADS[curve], curve.size_bytes
        if der.startswith(head) and len(der) == len(head) + 2 * size:
            x, y = (int.from_bytes(part, "big") for part in (der[-2 * size : -size], der[-size:]))
            if curve.has(x, y):
                return PublicKey(curve, (x, y), der)
            raise ValueError(f"its key is no point of {curve.name}")
    raise ValueError("its key is of another kind than ECDSA on P-256, P-384 or P-521, or is compressed")
