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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lading.errors import Untrusted
from lading.model.digest import Digest
from lading.model.signature import Attachment, Sought
from lading.text.json_xml import read_unique_json
from lading.text.printable import printable
from lading.trust.bundle import read_bundle
from lading.trust.public_key import PublicKey

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_TEXT = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
_STATEMENT = "https://in-toto.io/Statement/v1"
# Of other predicates are what people attest of an image, such as how it was built, or that it is bad.
_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
SOUGHT = Sought(_BUNDLE, {"dev.sigstore.bundle.predicateType": _PREDICATE}, ".sig")


_TYPE = "cosign container image signature"
_MOST_SHOWN = 200
_SHOWN = 16
_AGAIN = "sign the image by: cosign sign --key cosign.key HOST/REPOSITORY@sha256:…"


class _Signed(NamedTuple):
    """The bytes that were signed, and the JSON in them, of which ``named`` gives the digests of the images.

    ``keyless`` says that the signer claims to have a certificate of Sigstore, and no key.
    """

    message: bytes
    signature: bytes
    text: bytes
    named: Callable[[Any], list[str]]
    keyless: bool


def image_signer(found: Attachment, digest: Digest, keys: Sequence[PublicKey]) -> PublicKey:
    """The key among ``keys`` that signed the image with this digest; ``Untrusted`` says why none of them did."""
    shown = printable(found.name)
    try:
        signed = _read(found)
    except (Untrusted, ValueError, KeyError) as error:
        raise _no_signature(shown) from error
    key = next((key for key in keys if key.has_signed(signed.message, signed.signature)), None)
    if key is None:
        raise _of_strangers(shown, keys, signed.keyless)
    try:
        named = signed.named(read_unique_json(signed.text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_signature(shown) from error
    if str(digest) not in named:
        others = printable(", ".join(named))[:_MOST_SHOWN]
        raise Untrusted(
            f"{shown} is the signature of another image, {others}, and not of {digest}",
            hint="somebody put it beside this image",
        )
    return key


def _read(found: Attachment) -> _Signed:
    if found.media_type == _BUNDLE:
        bundle = read_bundle(found.content, found.name)
        return _Signed(bundle.message, bundle.signature, bundle.payload, _subjects, bundle.method != "key")
    if found.media_type != _TEXT:
        raise ValueError(found.media_type)
    signature = base64.b64decode(found.annotations[_SIGNATURE], validate=True)
    return _Signed(found.content, signature, found.content, _image, bool(found.annotations.get(_CERTIFICATE)))


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


def _no_signature(shown: str) -> Untrusted:
    return Untrusted(f"{shown} is not a signature of an image by cosign", hint=_AGAIN)


def _of_strangers(shown: str, keys: Sequence[PublicKey], keyless: bool) -> Untrusted:
    trusted = ", ".join(f"{key.fingerprint[:_SHOWN]}…" for key in keys)
    if keyless:
        return Untrusted(
            f"{shown} is signed by an identity and not by a key (keyless), and the rule asks for a key",
            hint=_AGAIN,
        )
    return Untrusted(
        f"{shown} is not signed by a key that is trusted, or was changed after it was signed",
        hint=f"the rule trusts {trusted} (SHA-256 of the key's DER): ask whose image this is",
    )
