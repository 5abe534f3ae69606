"""The signature of a model, as it was judged when the model was delivered."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lading.model.digest import Digest
from lading.model.paths import safe_path


class Signature(NamedTuple):
    """A judged signature: the ``signer`` in words, and the ``rule`` by its prefix ("" is the rule for every origin).

    ``bundle`` is the path of the signature's file in the model, ``digest`` the digest of that file.
    """

    signer: str
    rule: str
    bundle: str
    digest: Digest

    def to_json(self) -> dict[str, str]:
        return {"signer": self.signer, "rule": self.rule, "bundle": self.bundle, "digest": str(self.digest)}

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> "Signature":
        """Read what ``to_json`` wrote; raises as ``File.from_json`` does."""
        if not isinstance(item["signer"], str) or not isinstance(item["rule"], str):
            raise TypeError(item)
        return cls(item["signer"], item["rule"], safe_path(item["bundle"]), Digest.parse(item["digest"]))
