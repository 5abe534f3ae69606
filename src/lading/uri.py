"""Model URIs: parse, print, redact.  No I/O, and no meaning: what a path means is up to its source.

The law: ``str(ModelURI.parse(text)) == text`` for every text that parses.
"""

import hashlib
import re
from typing import NamedTuple

from lading.errors import UsageError

# RFC 3986, appendix B, with a scheme that needs a slash behind its colon, so that the local
# path "model:v2" stays a path.
_URI = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?=/)(?://(?P<authority>[^/?#]*))?"
    r"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?",
    re.DOTALL,
)
_NO_TEXT = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Also the second set of control characters, and what reverses or breaks the direction of a line.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

# Query keys that say who asks and until when, and not what for: of S3, GCS, Azure, CloudFront, and tokens.
_SIGNATURE = re.compile(
    r"(x-amz-|x-goog-|awsaccesskeyid=|googleaccessid=|signature=|expires=|policy=|key-pair-id=|"
    r"(sig|se|sp|st|sv|sr|spr|sip|skoid|sktid|skt|ske|sks|skv|saoid|suoid|scid|token|access_token|auth)=)",
    re.IGNORECASE,
)
# The only query keys whose values are printed; any other value may be a signature or a token.
_PRINTED_KEYS = frozenset(
    {"versionid", "revision", "namespace", "artifact", "endpoint", "defaultregion", "region", "pin"}
)

# What follows a git URI.
_FOLDER = re.compile(r"subdirectory=[^&=]*")

# Schemes without user information: an @ stands before an alias or a revision.
_NO_USERS = frozenset({"model-registry", "mlflow", "hf", "modelscope", "ms"})


class ModelURI(NamedTuple):
    """A URI split into its parts as written: nothing is decoded and nothing is normalised.

    A local path without a scheme is a ``ModelURI`` whose ``scheme`` is empty.
    """

    scheme: str
    authority: str | None
    path: str
    query: str | None = None
    fragment: str | None = None

    @classmethod
    def parse(cls, text: str) -> "ModelURI":
        """Split ``text``; raises ``UsageError`` when it is empty, holds a control character or, but for local files, is no Unicode."""
        if not text:
            raise UsageError("the URI is empty", hint="for example s3://bucket/model or ./model")
        if _CONTROL.search(text):
            raise UsageError(f"the URI {redact(printable(text))} holds a control character")
        match = _URI.fullmatch(text)
        if match is None:
            return cls("", None, text)
        if match["scheme"].lower() != "file" and _NO_TEXT.search(text):
            # Bytes of a terminal in another encoding: no server can be asked for them.
            raise UsageError("the URI is not valid Unicode text", hint="is it typed in a terminal that speaks UTF-8?")
        return cls(**match.groupdict())

    def __str__(self) -> str:
        text = f"{self.scheme}:" if self.scheme else ""
        if self.authority is not None:
            text += f"//{self.authority}"
        text += self.path
        if self.query is not None:
            text += f"?{self.query}"
        if self.fragment is not None:
            text += f"#{self.fragment}"
        return text

    def redacted(self) -> str:
        """The URI as it may be printed: no user information and no query value that may be a secret."""
        if not self.scheme:
            return self.path
        authority, query = self.authority, self.query
        if authority is not None and "@" in authority and self.scheme.lower() not in _NO_USERS:
            authority = "***@" + authority.rpartition("@")[2]
        if query is not None:
            query = "&".join(map(_redact_pair, query.split("&")))
        # Some services carry a token there.
        hidden = self.fragment and "=" in self.fragment and not _FOLDER.fullmatch(self.fragment)
        fragment = "***" if hidden else self.fragment
        return str(ModelURI(self.scheme, authority, self.path, query, fragment))

    def identity(self) -> str:
        """A digest of what the URI names: equal for a presigned URL that was signed anew, and no secret in it."""
        authority = None if self.authority is None else self.authority.rpartition("@")[2]
        pairs = [pair for pair in (self.query or "").split("&") if not _SIGNATURE.match(pair)]
        named = ModelURI(self.scheme, authority, self.path, "&".join(pairs), self.fragment)
        return hashlib.sha256(str(named).encode("utf-8", "surrogateescape")).hexdigest()


def _redact_pair(pair: str) -> str:
    key, equals, _ = pair.partition("=")
    if key.lower() in _PRINTED_KEYS:
        return pair
    return f"{key}=***" if equals else "***"


def redact(text: str) -> str:
    """``text``, a URI or path, as it may be printed."""
    try:
        return ModelURI.parse(text).redacted()
    except UsageError:
        return "***"


def printable(text: str) -> str:
    """``text`` with control characters escaped, so that a stranger's name cannot steer a terminal."""
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
