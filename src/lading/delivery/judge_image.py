"""Who signed an image: judged by what lies beside it in its registry, before a layer moves.

The signature is of the digest of the manifest that was listed (of an index, the index's), and that has the digests of all
layers.  ``trust/cosign.py`` and ``trust/notation.py`` have the formats.
"""

from lading.errors import IntegrityError, NotFound, Unsupported, Untrusted
from lading.model.digest import Digest
from lading.model.signature import Attachment, Signature
from lading.settings.trust import TrustRule
from lading.sources.source import KeepsAttachments, Source
from lading.text.printable import first_of
from lading.trust import cosign, notation

_MOST_NAMED = 3


def find_signature(source: Source, rule: TrustRule) -> Signature | None:
    """The first signature of the listed image by somebody whom the rule names; None if there is none by anybody.

    ``Untrusted`` if there are only others, which says why each of them is not good.
    """
    if not isinstance(source, KeepsAttachments) or source.manifest_digest is None:
        return None
    wrong = []
    for found in source.attachments(notation.SOUGHT if rule.kind == "notation" else cosign.SOUGHT):
        try:
            return _signature(found, source.manifest_digest, rule)
        except (IntegrityError, NotFound, Unsupported) as error:
            wrong.append(error)
    if not wrong:
        return None
    hints = dict.fromkeys(error.hint or f"sign the image again by: {rule.kind} sign" for error in wrong[:_MOST_NAMED])
    why = first_of([error.message for error in wrong], _MOST_NAMED)
    many = f"none of {len(wrong)} signatures is trusted: " if len(wrong) > 1 else ""
    raise Untrusted(f"{many}{why}", hint="; ".join(hints))


def _signature(found: Attachment, digest: Digest, rule: TrustRule) -> Signature:
    if found.fault is not None:
        raise found.fault.rephrased(message=f"{found.name}: {found.fault.message}")
    if rule.kind == "notation":
        signer = notation.image_signer(found, digest, rule.roots)
    else:
        signer = cosign.image_signer(found, digest, rule.identity or rule.keys)
    return Signature(signer, rule.shown, found.name, Digest.of(found.content), rule.kind)
