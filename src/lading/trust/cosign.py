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
from typing import Any

from lading.errors import Untrusted
from lading.model.digest import Digest
from lading.model.signature import Attachment, Sought
from lading.text.json_xml import read_unique_json
from lading.text.printable import printable
from lading.trust.bundle import read_bundle
from lading.trust.public_key import PublicKey
from lading.trust.sigstore import Identity, signed_payload

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_TEXT = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_TYPE = "cosign container image signature"
_STATEMENT = "https://in-toto.io/Statement/v1"
# Of other predicates are what people attest of an image, such as how it was built, or that it is bad.
_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
SOUGHT = Sought(_BUNDLE, {"dev.sigstore.bundle.predicateType": _PREDICATE}, ".sig")
_MOST_SHOWN = 200
_SHOWN = 16
_AGAIN = "sign the image by: cosign sign --key cosign.key HOST/REPOSITORY@sha256:…"


def image_signer(found: Attachment, digest: Digest, trusted: Identity | Sequence[PublicKey]) -> str:
    """Who signed the image with this digest, in words: the identity, or one of the keys, that is ``trusted``.

    ``Untrusted`` says why it is none of them.
    """
    read = _subjects if found.media_type == _BUNDLE else _image
    text, signer = _signed_by_identity(found, trusted) if isinstance(trusted, Identity) else _signed(found, trusted)
    try:
        named = read(read_unique_json(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_signature(found) from error
    if str(digest) not in named:
        raise of_another_image(found.name, named, digest)
    return signer


def _signed_by_identity(found: Attachment, identity: Identity) -> tuple[bytes, str]:
    """The text that an identity has signed, and its name; only the newer form can be verified."""
    if found.media_type != _BUNDLE:
        raise Untrusted(
            f"{printable(found.name)} is no bundle, and lading verifies identities of Sigstore by bundles alone",
            hint="sign the image by cosign 3, or by cosign 2 with --new-bundle-format",
        )
    return signed_payload(found.content, identity, found.name), identity.signer


def _signed(found: Attachment, keys: Sequence[PublicKey]) -> tuple[bytes, str]:
    """The text that one of the keys has signed, and its name."""
    try:
        message, signature, text, keyless = _read_bundle(found) if found.media_type == _BUNDLE else _read_text(found)
    except (Untrusted, ValueError, KeyError) as error:
        raise _no_signature(found) from error
    key = next((key for key in keys if key.has_signed(message, signature)), None)
    if key is None:
        raise _of_strangers(printable(found.name), keys, keyless=keyless)
    return text, key.name


def _read_bundle(found: Attachment) -> tuple[bytes, bytes, bytes, bool]:
    """The signed bytes, the signature, the text in them, and whether the signer has a certificate and no key."""
    bundle = read_bundle(found.content, found.name)
    return bundle.message, bundle.signature, bundle.payload, bundle.method != "key"


def _read_text(found: Attachment) -> tuple[bytes, bytes, bytes, bool]:
    """The same of the older form."""
    if found.media_type != _TEXT:
        raise ValueError(found.media_type)
    signature = base64.b64decode(found.annotations[_SIGNATURE], validate=True)
    return found.content, signature, found.content, bool(found.annotations.get(_CERTIFICATE))


def _image(text: Any) -> list[str]:
    """The digest of the older form."""
    if text["critical"]["type"] != _TYPE:
        raise ValueError("type")
    return [str(text["critical"]["image"]["docker-manifest-digest"])]


def _subjects(statement: Any) -> list[str]:
    """The digests of a statement's subjects."""
    if (statement["_type"], statement["predicateType"]) != (_STATEMENT, _PREDICATE):
        raise ValueError("predicateType")
    return [f"{name}:{value}" for subject in statement["subject"] for name, value in subject["digest"].items()]


def of_another_image(name: str, named: Sequence[str], digest: Digest) -> Untrusted:
    """The error for a signature that names other digests."""
    others = printable(", ".join(named))[:_MOST_SHOWN]
    return Untrusted(
        f"{printable(name)} is the signature of another image, {others}, and not of {digest}",
        hint="somebody put it beside this image",
    )


def _no_signature(found: Attachment) -> Untrusted:
    return Untrusted(f"{printable(found.name)} is not a signature of an image by cosign", hint=_AGAIN)


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
