"""Signs images as notation does, by certificates; ``tests/real/test_image_signers.py`` holds it to that program."""

import base64
import datetime
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding

from fakes.fake_oci import MANIFEST, FakeRegistry
from fakes.oms_signer import Certified, Edit, untouched

KIND = "application/vnd.cncf.notary.signature"
JWS = "application/jose+json"
_HASHES: dict[int, hashes.HashAlgorithm] = {256: hashes.SHA256(), 384: hashes.SHA384(), 512: hashes.SHA512()}
_BITS = {256: 256, 384: 384, 521: 512, 2048: 256, 3072: 384, 4096: 512}


class CertifiedRsa(Certified):
    """Somebody with an RSA key, which is what notation makes for tests."""

    def __init__(self, name: str, issuer: Certified, bits: int = 2048) -> None:
        super().__init__(name, issuer)
        self.rsa = rsa.generate_private_key(65537, bits)
        old = self.certificate
        builder = x509.CertificateBuilder(old.issuer, old.subject, self.rsa.public_key(), old.serial_number)
        builder = builder.not_valid_before(old.not_valid_before_utc).not_valid_after(old.not_valid_after_utc)
        for extension in old.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        self.certificate = builder.sign(issuer.key, hashes.SHA256())


def sign_by_notation(
    registry: FakeRegistry,
    digest: str,
    signer: Certified,
    *,
    payload: Edit = untouched,
    protected: Edit = untouched,
    envelope: Edit = untouched,
    manifest: Edit = untouched,
) -> dict[str, Any]:
    """Sign an image, of which each part can be changed; returns the descriptor of what refers to it."""
    target = {"mediaType": MANIFEST, "digest": digest, "size": len(registry.manifests[digest])}
    document: dict[str, Any] = {"targetArtifact": target}
    payload(document)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    head = {
        "alg": algorithm_of(signer),
        "cty": "application/vnd.cncf.notary.payload.v1+json",
        "crit": ["io.cncf.notary.signingScheme"],
        "io.cncf.notary.signingScheme": "notary.x509",
        "io.cncf.notary.signingTime": now,
    }
    protected(head)
    signed = {"payload": _base64url(document), "protected": _base64url(head)}
    roots = [signer.issuer.certificate] if signer.issuer and signer.issuer.issuer is None else []
    chain = [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in (*signer.chain, *roots)]
    sealed: dict[str, Any] = {
        **signed,
        "header": {"x5c": chain, "io.cncf.notary.signingAgent": "notation-go/1.3.2"},
        "signature": _signature(signer, f"{signed['protected']}.{signed['payload']}".encode()),
    }
    envelope(sealed)
    facts = {
        "config": registry.put_blob(b"{}", KIND),
        "layers": [registry.put_blob(json.dumps(sealed).encode(), JWS)],
        "annotations": {"io.cncf.notary.x509chain.thumbprint#S256": "[]"},
    }
    manifest(facts)
    return registry.put_referrer(digest, facts)


def algorithm_of(signer: Certified) -> str:
    key = signer.rsa if isinstance(signer, CertifiedRsa) else signer.key
    return f"{'PS' if isinstance(signer, CertifiedRsa) else 'ES'}{_BITS[key.key_size]}"


def _signature(signer: Certified, message: bytes) -> str:
    if isinstance(signer, CertifiedRsa):
        hashed = _HASHES[_BITS[signer.rsa.key_size]]
        signature = signer.rsa.sign(message, padding.PSS(padding.MGF1(hashed), hashed.digest_size), hashed)
    else:
        size = (signer.key.key_size + 7) // 8
        numbers = utils.decode_dss_signature(signer.key.sign(message, ec.ECDSA(_HASHES[_BITS[signer.key.key_size]])))
        signature = b"".join(number.to_bytes(size, "big") for number in numbers)
    return base64.urlsafe_b64encode(signature).decode().rstrip("=")


def _base64url(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")
