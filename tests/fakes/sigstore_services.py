"""A Sigstore of our own: an authority for certificates, its log, a transparency log, and a time stamp authority.

It signs as Sigstore's public services do, offline and with keys of its own; its ``trusted_root`` says whom to trust.
``tests/real/test_model_signing.py`` has the reference program read what it makes.  Whatever a service could get wrong, or
somebody could change afterwards, a test can change.
"""

import base64
import datetime
import hashlib
import json
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from fakes.oms_signer import PAYLOAD_TYPE, Certified, Edit, Signer, statement_of, untouched, usual_extensions

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
IDENTITY, ISSUER = "models@example.com", "https://issuer.example"
_LONG_AGO = "2021-01-01T00:00:00Z"
_SCT_LIST = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ISSUER, _ISSUER_V2 = ObjectIdentifier("1.3.6.1.4.1.57264.1.1"), ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_TSA = """
[tsa]
default_tsa = one
[one]
serial = {folder}/serial
default_policy = 1.2.3.4
digests = sha256
signer_digest = sha256
ess_cert_id_alg = sha256
"""


class Log(Signer):
    """A log with a key: an RFC 6962 tree, whose head it signs as a checkpoint (https://c2sp.org/tlog-checkpoint)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        # Entries of others.
        self.entries = [b"one", b"two", b"three"]

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.der).digest()

    @property
    def der(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.key.public_key().public_bytes(serialization.Encoding.DER, form)

    @property
    def in_root(self) -> dict[str, Any]:
        """The log as a trusted root has it."""
        return {
            "baseUrl": f"https://{self.name}",
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": text(self.der),
                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                "validFor": {"start": _LONG_AGO},
            },
            "logId": {"keyId": text(self.id)},
        }

    def sign_bytes(self, message: bytes) -> bytes:
        return self.key.sign(message, ec.ECDSA(hashes.SHA256()))

    def add(self, body: bytes, kind: str, version: str, at: datetime.datetime | None) -> dict[str, Any]:
        """Add an entry: what a bundle has of it.  With ``at``, the log promises that it has it since then (Rekor 1)."""
        self.entries.append(body)
        # Others follow, so that the proof has hashes of both sides.
        entries, index = [*self.entries, b"four", b"five"], len(self.entries) - 1
        head = tree_head(entries)
        note = f"{self.name}\n{len(entries)}\n{text(head)}\n"
        signature = text(self.id[:4] + self.sign_bytes(note.encode()))
        entry: dict[str, Any] = {
            "logIndex": str(index),
            "logId": {"keyId": text(self.id)},
            "kindVersion": {"kind": kind, "version": version},
            "inclusionProof": {
                "logIndex": str(index),
                "rootHash": text(head),
                "treeSize": str(len(entries)),
                "hashes": [text(each) for each in proof(index, entries)],
                "checkpoint": {"envelope": f"{note}\n— {self.name} {signature}\n"},
            },
            "canonicalizedBody": text(body),
        }
        if at is not None:
            promised = {
                "body": text(body),
                "integratedTime": int(at.timestamp()),
                "logID": self.id.hex(),
                "logIndex": index,
            }
            entry["integratedTime"] = str(promised["integratedTime"])
            entry["inclusionPromise"] = {"signedEntryTimestamp": text(self.sign_bytes(canonical(promised)))}
        return entry


class Sigstore:
    """All services."""

    def __init__(self) -> None:
        self.authority = authority("authority")
        self.certificates = Log("ct.example")
        self.log = Log("rekor.example")
        self.stamps = Stamps()

    @property
    def trusted_root(self) -> bytes:
        return self.root()

    def root(self, **changes: Any) -> bytes:
        """The trusted root, with other members in the place of its own."""
        document = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self.log.in_root],
            "certificateAuthorities": [in_root("authority", self.authority.certificate)],
            "ctlogs": [self.certificates.in_root],
            "timestampAuthorities": [self.stamps.in_root],
        }
        return json.dumps(document | changes).encode()

    def signer(self, **who: Any) -> "Identified":
        """Somebody who has logged in; ``who`` as for ``Identified``."""
        return Identified(self, **who)


class Identified(Signer):
    """Somebody with a certificate that began at ``since`` and says as whom they have logged in.

    It is valid for a day: the ten minutes of Sigstore's own would be over before the last test is run.
    """

    def __init__(
        self,
        services: Sigstore,
        *,
        identity: str = IDENTITY,
        issuer: str = ISSUER,
        since: datetime.datetime = NOW,
        usage: ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
        ct_log: Log | None = None,
    ) -> None:
        super().__init__()
        self.services = services
        name = x509.UniformResourceIdentifier(identity) if "://" in identity else x509.RFC822Name(identity)
        own = x509.UnrecognizedExtension(_ISSUER, issuer.encode())
        newer = x509.UnrecognizedExtension(_ISSUER_V2, b"\x0c" + bytes([len(issuer)]) + issuer.encode())
        builder = x509.CertificateBuilder(
            services.authority.certificate.subject,
            x509.Name([]),
            self.key.public_key(),
            x509.random_serial_number(),
            since,
            since + datetime.timedelta(days=1),
        )
        for extension, critical in [
            usual_extensions(authority=False)[1],
            (x509.ExtendedKeyUsage([usage]), False),
            (x509.AuthorityKeyIdentifier(b"authority", None, None), False),
            (x509.SubjectAlternativeName([name]), True),
            (own, False),
            (newer, False),
        ]:
            builder = builder.add_extension(extension, critical)
        # What the log of certificates signs, the authority puts into the certificate (RFC 6962, 3.2 and 3.3).
        by = services.authority.key
        before = builder.sign(by, hashes.SHA256()).tbs_certificate_bytes
        told = sct(ct_log or services.certificates, services.authority, before, since)
        self.certificate = builder.add_extension(x509.UnrecognizedExtension(_SCT_LIST, told), False).sign(
            by, hashes.SHA256()
        )

    def sign_logged(self, files: Mapping[str, bytes], **how: Any) -> bytes:
        """The bundle for these files; ``how`` is that of ``seal_logged``."""
        return self.seal_logged(json.dumps(statement_of(files), indent=2).encode(), **how)

    def seal_logged(
        self,
        payload: bytes,
        *,
        at: datetime.datetime = NOW,
        rekor: int = 1,
        stamped: bool = False,
        log: Log | None = None,
        bundle: Edit = untouched,
    ) -> bytes:
        """The bundle for this statement, logged at ``at`` by Rekor 1, or by Rekor 2, which needs a time stamp besides."""

        def identify(document: dict[str, Any]) -> None:
            signature = base64.b64decode(document["dsseEnvelope"]["signatures"][0]["sig"])
            entry = self._logged(payload, signature, rekor, at, log or self.services.log)
            material: dict[str, Any] = {"certificate": {"rawBytes": text(self._der)}, "tlogEntries": [entry]}
            if stamped or rekor == 2:
                stamp = {"signedTimestamp": text(self.services.stamps.stamp(signature))}
                material["timestampVerificationData"] = {"rfc3161Timestamps": [stamp]}
            document["verificationMaterial"] = material
            bundle(document)

        return self.seal(payload, bundle=identify)

    @property
    def _der(self) -> bytes:
        return der(self.certificate)

    def _logged(self, payload: bytes, signature: bytes, rekor: int, at: datetime.datetime, log: Log) -> dict[str, Any]:
        if rekor == 2:
            head = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode()
            body = {
                "apiVersion": "0.0.2",
                "kind": "hashedrekord",
                "spec": {
                    "hashedRekordV002": {
                        "data": {"algorithm": "SHA2_256", "digest": text(hashlib.sha256(head + payload).digest())},
                        "signature": {
                            "content": text(signature),
                            "verifier": {
                                "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                                "x509Certificate": {"rawBytes": text(self._der)},
                            },
                        },
                    }
                },
            }
            return log.add(canonical(body), "hashedrekord", "0.0.2", None)
        digest = {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}
        pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        spec = {
            "envelopeHash": digest,
            "payloadHash": digest,
            "signatures": [{"signature": text(signature), "verifier": text(pem)}],
        }
        return log.add(canonical({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}), "dsse", "0.0.1", at)


class Stamps:
    """A time stamp authority (RFC 3161), which OpenSSL runs; it stamps with the time of this machine."""

    def __init__(self) -> None:
        self.root = authority("stamps")
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        self.own = Certified("stamp", self.root, extensions=[usual_extensions(authority=False)[1], (usage, True)])

    @property
    def in_root(self) -> dict[str, Any]:
        return in_root("stamps", self.own.certificate, self.root.certificate)

    def stamp(self, message: bytes) -> bytes:
        """The response for these bytes, as DER."""
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for name, content in {
                "message": message,
                "key": self.own.private_pem,
                "signer": self.own.certificate_pem,
                "serial": b"01\n",
                "config": _TSA.format(folder=folder).encode(),
            }.items():
                (folder / name).write_bytes(content)
            self._openssl(folder, "-query", "-data", "message", "-sha256", "-cert", "-out", "query")
            words = ("-reply", "-config", "config", "-queryfile", "query", "-inkey", "key", "-signer", "signer")
            self._openssl(folder, *words, "-out", "response")
            return (folder / "response").read_bytes()

    def _openssl(self, folder: Path, *words: str) -> None:
        subprocess.run(["openssl", "ts", *words], cwd=folder, check=True, capture_output=True, timeout=60)


def authority(name: str) -> Certified:
    """An authority that issues certificates, for thirty years."""
    identifier = x509.SubjectKeyIdentifier(name.encode())
    return Certified(
        name, authority=True, days=(-7_000, 4_000), extensions=[*usual_extensions(authority=True), (identifier, False)]
    )


def in_root(name: str, *chain: x509.Certificate) -> dict[str, Any]:
    """An authority as a trusted root has it."""
    return {
        "subject": {"organization": "example", "commonName": name},
        "uri": f"https://{name}.example",
        "certChain": {"certificates": [{"rawBytes": text(der(each))} for each in chain]},
        "validFor": {"start": _LONG_AGO},
    }


def sct(log: Log, issuer: Certified, certificate: bytes, at: datetime.datetime) -> bytes:
    """The extension with the promise of a log of certificates to have this one (RFC 6962, 3.2 and 3.3)."""
    milliseconds = int(at.timestamp() * 1000)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    key = issuer.key.public_key().public_bytes(serialization.Encoding.DER, form)
    entry = hashlib.sha256(key).digest() + len(certificate).to_bytes(3, "big") + certificate
    signature = log.sign_bytes(struct.pack("!BBQH", 0, 0, milliseconds, 1) + entry + struct.pack("!H", 0))
    told = struct.pack("!B32sQHBBH", 0, log.id, milliseconds, 0, 4, 3, len(signature)) + signature
    told = struct.pack("!HH", len(told) + 2, len(told)) + told
    size = bytes([len(told)]) if len(told) < 0x80 else bytes([0x81, len(told)])
    return b"\x04" + size + told


def tree_head(entries: Sequence[bytes]) -> bytes:
    """The Merkle tree hash (RFC 6962, 2.1)."""
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    half = 1 << (len(entries) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + tree_head(entries[:half]) + tree_head(entries[half:])).digest()


def proof(index: int, entries: Sequence[bytes]) -> list[bytes]:
    """The hashes that lead from an entry to the head (RFC 6962, 2.1.1)."""
    if len(entries) == 1:
        return []
    half = 1 << (len(entries) - 1).bit_length() - 1
    if index < half:
        return [*proof(index, entries[:half]), tree_head(entries[half:])]
    return [*proof(index - half, entries[half:]), tree_head(entries[:half])]


def canonical(document: Any) -> bytes:
    """RFC 8785, for documents of plain text and whole numbers."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()
