"""Signatures of images by cosign: who signed the digest of an image's manifest.

There are two forms.  The older one is a manifest under the tag ``sha256-….sig``, and each of its layers is signed text:

    {"critical": {"type": "cosign container image signature", "image": {"docker-manifest-digest": "sha256:…"},
                  "identity": {"docker-reference": …}}, "optional": …}

An annotation of the layer has the signature.  The newer form is a Sigstore bundle that refers to the image (OCI 1.1), with a
statement whose subject is the digest.  https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md and
BUNDLE_SPEC.md beside it.  The repository that the older form names is not judged: the newer one names none, and images
are copied together with their signatures.
"""

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

from lading.errors import Untrusted
from lading.model.digest import Digest
from lading.model.signature import Attachment, Sought
from lading.text.json_xml import read_unique_json
from lading.text.printable import printable
from lading.trust.bundle import BUNDLE_TYPE, parse_bundle
from lading.trust.public_key import PublicKey
from lading.trust.sigstore import Identity, signed_payload
from lading.trust.statement import STATEMENT_TYPE

_TEXT = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_TYPE = "cosign container image signature"
# Of other predicates are what people attest of an image, such as how it was built, or that it is bad.
_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
SOUGHT = Sought(BUNDLE_TYPE, {"dev.sigstore.bundle.predicateType": _PREDICATE}, ".sig")
_MOST_SHOWN = 200
_SHOWN = 16
_AGAIN = "sign the image by: cosign sign --key cosign.key HOST/REPOSITORY@sha256:…"


class _Signed(NamedTuple):
    """A ``text`` and its ``signature``, which is of ``message``; one that is ``keyless`` was made with a certificate."""

    text: bytes
    message: bytes
    signature: bytes
    keyless: bool


def image_signer(found: Attachment, digest: Digest, trusted: Identity | Sequence[PublicKey]) -> str:
    """Who signed the image with this digest, in words: the identity, or one of the keys, that is ``trusted``.

    ``Untrusted`` says why it is none of them.
    """
    if isinstance(trusted, Identity):
        text, signer = _signed_by_identity(found, trusted)
    else:
        text, signer = _signed_by_key(found, trusted)
    try:
        named = (_subjects if found.media_type == BUNDLE_TYPE else _image)(read_unique_json(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_signature(found, error) from error
    if str(digest) not in named:
        raise of_another_image(found.name, named, digest)
    return signer


def _signed_by_identity(found: Attachment, identity: Identity) -> tuple[bytes, str]:
    """The text that an identity has signed, and its name; only the newer form can be verified."""
    if found.media_type != BUNDLE_TYPE:
        raise Untrusted(
            f"{printable(found.name)} is no bundle, and lading verifies identities of Sigstore by bundles alone",
            hint="sign the image by cosign 3, or by cosign 2 with --new-bundle-format",
        )
    return signed_payload(found.content, identity, found.name), identity.signer


def _signed_by_key(found: Attachment, keys: Sequence[PublicKey]) -> tuple[bytes, str]:
    """The text that one of the keys has signed, and its name."""
    try:
        signed = _read_bundle(found) if found.media_type == BUNDLE_TYPE else _read_text(found)
    except (ValueError, KeyError) as error:
        raise _no_signature(found, error) from error
    for key in keys:
        if key.has_signed(signed.message, signed.signature):
            return signed.text, key.name
    raise _of_strangers(printable(found.name), keys, keyless=signed.keyless)


def _read_bundle(found: Attachment) -> _Signed:
    bundle = parse_bundle(found.content)
    return _Signed(bundle.payload, bundle.message, bundle.signature, keyless=bundle.method != "key")


def _read_text(found: Attachment) -> _Signed:
    if found.media_type != _TEXT:
        raise ValueError(f"it is of the type {found.media_type}")
    signature = base64.b64decode(found.annotations[_SIGNATURE], validate=True)
    return _Signed(found.content, found.content, signature, keyless=bool(found.annotations.get(_CERTIFICATE)))


def _image(text: Any) -> list[str]:
    """The digest of the older form."""
    if text["critical"]["type"] != _TYPE:
        raise ValueError("it is of another type")
    return [str(text["critical"]["image"]["docker-manifest-digest"])]


def _subjects(statement: Any) -> list[str]:
    """The digests of a statement's subjects."""
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, _PREDICATE):
        raise ValueError("it states something else")
    return [f"{name}:{value}" for subject in statement["subject"] for name, value in subject["digest"].items()]


def of_another_image(name: str, named: Sequence[str], digest: Digest) -> Untrusted:
    """The error for a signature that names other digests."""
    others = printable(", ".join(named))[:_MOST_SHOWN]
    return Untrusted(
        f"{printable(name)} is the signature of another image, {others}, and not of {digest}",
        hint="somebody put it beside this image",
    )


def _no_signature(found: Attachment, why: Exception) -> Untrusted:
    said = printable(str(why))[:_MOST_SHOWN]
    return Untrusted(f"{printable(found.name)} is not a signature of an image by cosign ({said})", hint=_AGAIN)


def _of_strangers(shown: str, keys: Sequence[PublicKey], *, keyless: bool) -> Untrusted:
    trusted = ", ".join(f"{key.fingerprint[:_SHOWN]}…" for key in keys)
    if keyless:
        return Untrusted(
            f"{shown} is signed by an identity and not by a key (keyless), and the rule asks for a key", hint=_AGAIN
        )
    return Untrusted(
        f"{shown} is not signed by a key that is trusted, or was changed after it was signed",
        hint=f"the rule trusts {trusted} (SHA-256 of the key's DER): ask whose image this is",
    )
