"""A Sigstore bundle with a DSSE envelope, as OMS 1.0 writes it: the alleged signer, and the signed statement.

    {"mediaType": …, "verificationMaterial": {"publicKey": {"hint": …}},
     "dsseEnvelope": {"payloadType": …, "payload": base64, "signatures": [{"sig": base64, "keyid": ""}]}}

OMS 1.0: https://github.com/ossf/model-signing-spec, sections 4 and 8.1; DSSE: https://github.com/secure-systems-lab/dsse.
Anybody who can write to the origin may have written it: nothing in it is trusted before its signature is verified.
"""

import base64
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from lading.errors import Untrusted
from lading.text.json_xml import read_unique_json
from lading.text.printable import printable
from lading.trust.public_key import PublicKey

# Enough for 100,000 files with long names.
MOST_BUNDLE_BYTES = 32 << 20
# An envelope is one string in a few members: more of them could only be meant to fill the memory.
_MOST_MEMBERS = 10_000
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MOST_CERTIFICATES = 16
_SHOWN = 16


class Bundle(NamedTuple):
    """The content of a bundle, signed by a ``method`` of OMS.

    ``key_hint`` names the key that is said to have signed; "" if the bundle names none.  ``certificates`` (DER) are the
    chain of the signer's certificate, that one first.  ``trust/sigstore.py`` reads what a bundle has for that method.
    """

    payload: bytes
    signature: bytes
    method: Literal["key", "certificate", "sigstore"] = "key"
    key_hint: str = ""
    certificates: tuple[bytes, ...] = ()

    @property
    def message(self) -> bytes:
        """The signed bytes: the pre-authentication encoding (DSSE 1.0, protocol.md)."""
        head = f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(self.payload)} "
        return head.encode() + self.payload


def read_bundle(text: bytes, name: str) -> Bundle:
    """Read the signature of a model in ``text``; ``Untrusted`` if it is no bundle."""
    try:
        return parse_bundle(text)
    except ValueError as error:
        raise Untrusted(
            f"{printable(name)} is not a signature by OMS: {error}", hint="write it by: model_signing sign key"
        ) from error


def parse_bundle(text: bytes) -> Bundle:
    """Read the bundle in ``text``, whatever is signed in it; ``ValueError`` says why it is none."""
    if sum(map(text.count, (b"{", b"[", b","))) > _MOST_MEMBERS:
        raise ValueError("it has more members than an envelope has")
    try:
        document = _json(text)
        material = _mapping(document, "verificationMaterial")
        if document["mediaType"] != BUNDLE_TYPE:
            raise ValueError(f"its mediaType is not {BUNDLE_TYPE}")
        envelope = _mapping(document, "dsseEnvelope")
        if envelope["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(f"its payloadType is not {PAYLOAD_TYPE}")
        signatures = envelope["signatures"]
        if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
            raise ValueError("it has not one signature")
        bundle = Bundle(_base64(envelope["payload"]), _base64(signatures[0]["sig"]))
        return _with_signer(bundle, material)
    except (KeyError, TypeError) as error:
        raise ValueError("it is not such JSON") from error


def _with_signer(bundle: Bundle, material: dict[str, Any]) -> Bundle:
    """The bundle with what it says of who signed, by one method."""
    methods = [each for each in ("certificate", "x509CertificateChain", "publicKey") if each in material]
    if len(methods) > 1:
        raise ValueError("it does not say by one method who signed")
    if methods == ["certificate"]:
        return bundle._replace(method="sigstore")
    if methods == ["x509CertificateChain"]:
        items = _mapping(material, "x509CertificateChain")["certificates"]
        if not isinstance(items, list) or not 0 < len(items) <= MOST_CERTIFICATES:
            raise ValueError("it does not say by one chain of certificates who signed")
        return bundle._replace(method="certificate", certificates=tuple(_base64(each["rawBytes"]) for each in items))
    hint = _mapping(material, "publicKey").get("hint")
    if not isinstance(hint, str | None):
        raise TypeError("hint")
    return bundle._replace(key_hint=hint or "")


def changed_after(name: str) -> Untrusted:
    """The error for a signature that the key it names has not made."""
    return Untrusted(
        f"{printable(name)} was changed after it was signed: its signature is not of what it says",
        hint="nothing was delivered; compare it with the one that the signer published",
    )


def key_signer(bundle: Bundle, keys: Sequence[PublicKey], name: str) -> PublicKey:
    """The key among ``keys`` that signed the bundle; ``Untrusted`` if none of them did."""
    named = [key for key in keys if bundle.key_hint in ("", key.hint)]
    for key in named:
        if key.has_signed(bundle.message, bundle.signature):
            return key
    if named and bundle.key_hint:
        raise changed_after(name)
    said = f"it names the key {printable(bundle.key_hint)[:_SHOWN]}…, " if bundle.key_hint else ""
    trusted = ", ".join(f"{key.hint[:_SHOWN]}…" for key in keys)
    raise Untrusted(
        f"{printable(name)} is not signed by a key that is trusted",
        hint=f"{said}and the rule trusts {trusted} (SHA-256 of the PEM text): ask whose model this is",
    )


def _json(text: bytes) -> Any:
    try:
        return read_unique_json(text)
    except ValueError as error:
        raise ValueError("it is not such JSON") from error


def _mapping(document: Any, member: str) -> dict[str, Any]:
    found = document[member]
    if not isinstance(found, dict):
        raise TypeError(member)
    return found


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError("it holds what is not base64") from error
