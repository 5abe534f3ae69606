"""Signs models as ``model_signing`` 1.1 does with a key; ``tests/real/test_model_signing.py`` holds it to that program.

Whatever a signer could write, or somebody else afterwards, a test can change: the statement before it is signed, the
bundle after.
"""

import base64
import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PAYLOAD_TYPE = "application/vnd.in-toto+json"
CURVES = {
    "P-256": (ec.SECP256R1(), hashes.SHA256()),
    "P-384": (ec.SECP384R1(), hashes.SHA384()),
    "P-521": (ec.SECP521R1(), hashes.SHA512()),
}
Edit = Callable[[dict[str, Any]], object]


def untouched(document: dict[str, Any]) -> None:
    """Change nothing."""


class Signer:
    """Somebody with a key."""

    def __init__(self, curve: str = "P-256") -> None:
        kind, self.hash = CURVES[curve]
        self.key = ec.generate_private_key(kind)

    @property
    def public_pem(self) -> bytes:
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(encoding, form)

    @property
    def private_pem(self) -> bytes:
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(encoding, form, serialization.NoEncryption())

    def signature(self, payload: bytes) -> bytes:
        head = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode()
        return self.key.sign(head + payload, ec.ECDSA(self.hash))

    def sign(
        self, files: Mapping[str, bytes], *, statement: Edit = untouched, bundle: Edit = untouched, **how: Any
    ) -> bytes:
        """The bundle for these files; ``how`` is that of ``statement_of``."""
        document = statement_of(files, **how)
        statement(document)
        return self.seal(json.dumps(document, indent=2).encode(), bundle=bundle)

    def seal(self, payload: bytes, *, bundle: Edit = untouched) -> bytes:
        """The bundle for this payload, whatever it is."""
        document = {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "publicKey": {"hint": hashlib.sha256(self.public_pem).hexdigest()},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(self.signature(payload)).decode(), "keyid": ""}],
            },
        }
        bundle(document)
        return json.dumps(document).encode()


def statement_of(
    files: Mapping[str, bytes], *, hash_type: str = "sha256", shard_bytes: int = 0, ignore_paths: Sequence[str] = ()
) -> dict[str, Any]:
    """What is signed: each file whole, or in shards of so many bytes."""
    if shard_bytes:
        algorithm = f"{hash_type}-sharded-{shard_bytes}"
        named = [
            (f"{path}:{at}:{min(at + shard_bytes, len(data))}", data[at : at + shard_bytes])
            for path, data in sorted(files.items())
            for at in range(0, len(data), shard_bytes)
        ]
    else:
        algorithm, named = hash_type, sorted(files.items())
    resources = [{"name": name, "algorithm": algorithm, "digest": hashed(hash_type, data)} for name, data in named]
    root = hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "shards" if shard_bytes else "files",
                "hash_type": hash_type,
                # As the reference writes it: every number of a protobuf Struct is a float.
                **({"shard_size": float(shard_bytes)} if shard_bytes else {}),
                "allow_symlinks": False,
                "ignore_paths": ["model.sig", ".git", ".gitattributes", ".github", ".gitignore", *ignore_paths],
            },
            "resources": resources,
        },
    }


def hashed(hash_type: str, data: bytes) -> str:
    return blake3(data).hexdigest() if hash_type == "blake3" else hashlib.new(hash_type, data).hexdigest()


class Certified(Signer):
    """Somebody with a key and a certificate, issued by ``issuer``, or by themselves."""

    def __init__(
        self,
        name: str,
        issuer: "Certified | None" = None,
        *,
        curve: str = "P-256",
        authority: bool = False,
        days: tuple[int, int] = (-1, 30),
        extensions: Sequence[tuple[x509.ExtensionType, bool]] | None = None,
    ) -> None:
        super().__init__(curve)
        self.issuer, by = issuer, issuer or self
        now = datetime.datetime.now(datetime.UTC)
        first, last = (now + datetime.timedelta(days=each) for each in days)
        common_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(
            common_name if issuer is None else issuer.certificate.subject,
            common_name,
            self.key.public_key(),
            x509.random_serial_number(),
            first,
            last,
        )
        for extension, critical in usual_extensions(authority) if extensions is None else extensions:
            builder = builder.add_extension(extension, critical)
        self.certificate: x509.Certificate = builder.sign(by.key, hashes.SHA256())

    @property
    def chain(self) -> list[x509.Certificate]:
        """Its certificate, and those of who vouches for it, without the root's."""
        if self.issuer is None:
            return [self.certificate]
        return [self.certificate, *(self.issuer.chain if self.issuer.issuer else ())]

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign_certified(self, files: Mapping[str, bytes], chain: Sequence[x509.Certificate] | None = None) -> bytes:
        """The bundle for these files, with the chain in the place of the key's hint."""
        items = [
            {"rawBytes": base64.b64encode(each.public_bytes(serialization.Encoding.DER)).decode()}
            for each in (self.chain if chain is None else chain)
        ]

        def certify(document: dict[str, Any]) -> None:
            document["verificationMaterial"] = {"x509CertificateChain": {"certificates": items}, "tlogEntries": []}

        return self.sign(files, bundle=certify)


def usual_extensions(authority: bool) -> list[tuple[x509.ExtensionType, bool]]:
    """Those of an authority, or of who signs models."""
    usages = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    own = x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
        **usages,
    )
    return [(x509.BasicConstraints(authority, None), True), (own, True)]
