"""Signatures by an identity (Sigstore): a certificate of a few minutes, and logs that tell when it was used.

sigstore-python (the extra ``sigstore``) verifies all of it, since that is too easy to get wrong: that an authority of
the trusted root issued the certificate, that it was valid at the time that the transparency log or a time stamp authority
has signed, that the log of certificates has it, that the transparency log has this signature, and whose it is.  The
bundle and the trusted root contain all that this takes: nothing is asked of a network.

Bundle and trusted root: https://github.com/sigstore/protobuf-specs; what is verified:
https://docs.sigstore.dev/about/bundle/ and OMS 1.0, section 8.3.
"""

from typing import TYPE_CHECKING, NamedTuple

from lading.errors import Untrusted
from lading.text.printable import printable
from lading.trust.bundle import PAYLOAD_TYPE

if TYPE_CHECKING:
    from sigstore.verify import Verifier

_MOST_SHOWN = 300


class Identity(NamedTuple):
    """Who may sign: an e-mail address, or the URI of a workflow or service, which ``issuer`` (a URL) has authenticated.

    ``trusted_root`` (JSON) has the certificates and keys of the Sigstore services that are trusted.
    """

    name: str
    issuer: str
    trusted_root: bytes

    @property
    def signer(self) -> str:
        """The identity as a signer, in words."""
        return f"sigstore {self.shown}"

    @property
    def shown(self) -> str:
        return f"{printable(self.name)} of {printable(self.issuer)}"


def check_trusted_root(text: bytes) -> bytes:
    """``text``, if signatures can be verified by it; ``ValueError`` if not, ``ImportError`` without the extra."""
    from sigstore.errors import Error

    try:
        _verifier(text)
    except (ValueError, TypeError, Error) as error:
        raise ValueError("it is no trusted root with an authority, its log, and a transparency log") from error
    return text


def signed_payload(text: bytes, identity: Identity, name: str) -> bytes:
    """The payload (an in-toto statement) of the bundle in ``text``, which this identity has signed.

    ``Untrusted`` if that cannot be verified.  Use the payload that is returned and no other reading of ``text``: another
    reader may find another one.
    """
    from sigstore.models import Bundle
    from sigstore.verify.policy import Identity as Policy

    try:
        policy = Policy(identity=identity.name, issuer=identity.issuer)
        kind, payload = _verifier(identity.trusted_root).verify_dsse(Bundle.from_json(text), policy)
    except Exception as error:
        # What is damaged makes these packages raise anything.
        raise Untrusted(
            f"{printable(name)} is not signed by {identity.shown}, as far as Sigstore can tell",
            hint=printable(" ".join(str(error).split()) or type(error).__name__)[:_MOST_SHOWN],
        ) from error
    if kind != PAYLOAD_TYPE:
        raise Untrusted(f"{printable(name)} signs {printable(kind)[:80]}", hint=f"expected {PAYLOAD_TYPE}")
    return payload


def _verifier(trusted_root: bytes) -> "Verifier":
    """A verifier by this trusted root; it is not kept, since to make it is a tenth of the time to verify one signature."""
    from sigstore.models import TrustedRoot
    from sigstore.verify import Verifier
    from sigstore_models.trustroot.v1 import TrustedRoot as Document

    document = Document.from_json(trusted_root)
    if not document.ctlogs:
        # The verifier misses it only when it reads a certificate.
        raise ValueError("it has no log of certificates")
    # TrustedRoot.from_file would read the file again, which may have changed since the configuration was read.
    return Verifier(trusted_root=TrustedRoot(document))
