"""Signatures: what a registry keeps beside an image, and how a model was judged when it was delivered."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lading.errors import LadingError
from lading.model.digest import Digest
from lading.model.paths import safe_path


class Sought(NamedTuple):
    """Which attachments of an image are sought.

    Those that refer to it and are of ``artifact_type``, unless their annotations say something else than ``saying``;
    then those under the tag that is made of the image's digest and ``tag_ending``, if that is not "".
    """

    artifact_type: str
    saying: Mapping[str, str]
    tag_ending: str = ""


class Attachment(NamedTuple):
    """A layer of a manifest that lies beside an image: perhaps a signature.

    ``name`` is that manifest's digest or tag; ``fault`` is why the content cannot be read.
    """

    name: str
    media_type: str = ""
    annotations: Mapping[str, str] = MappingProxyType({})
    content: bytes = b""
    fault: LadingError | None = None


class Signature(NamedTuple):
    """A judged signature: the ``signer`` in words, and the ``rule`` by its prefix ("" is the rule for every origin).

    ``bundle`` is the path of the signature's file in the model, ``digest`` the digest of that file.  Of an image's
    signature, which is of another ``kind``, ``bundle`` is the digest or tag of the manifest that holds it.
    """

    signer: str
    rule: str
    bundle: str
    digest: Digest
    kind: str = "oms"

    def to_json(self) -> dict[str, str]:
        kind = {} if self.kind == "oms" else {"kind": self.kind}
        return {"signer": self.signer, "rule": self.rule, "bundle": self.bundle, "digest": str(self.digest), **kind}

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> "Signature":
        """Read what ``to_json`` wrote; raises as ``File.from_json`` does."""
        kind = item.get("kind", "oms")
        if not all(isinstance(text, str) for text in (item["signer"], item["rule"], kind)):
            raise TypeError(item)
        return cls(item["signer"], item["rule"], safe_path(item["bundle"]), Digest.parse(item["digest"]), kind)
