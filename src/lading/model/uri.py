"""Model URIs: parse, print, redact.  No I/O; the meaning of a path is left to its source.

The law: ``str(ModelURI.parse(text)) == text`` for every text that parses.
"""

import hashlib
import re
from typing import NamedTuple
from urllib.parse import quote

from lading.errors import UsageError
from lading.text.printable import printable

# RFC 3986, appendix B, with a scheme that needs a slash behind its colon, so that the local
# path "model:v2" stays a path.
_URI = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?=/)(?://(?P<authority>[^/?#]*))?"
    r"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?",
    re.DOTALL,
)
_NO_TEXT = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# Query keys of signatures and tokens (S3, GCS, Azure, CloudFront), which do not identify the resource.
_SIGNATURE = re.compile(
    r"(x-amz-|x-goog-|awsaccesskeyid=|googleaccessid=|signature=|expires=|policy=|key-pair-id=|"
    r"(sig|se|sp|st|sv|sr|spr|sip|skoid|sktid|skt|ske|sks|skv|saoid|suoid|scid|token|access_token|auth)=)",
    re.IGNORECASE,
)
# The only query keys whose values are printed; any other value may be a signature or a token.
_PRINTED_KEYS = frozenset(
    {"versionid", "revision", "namespace", "artifact", "endpoint", "defaultregion", "region", "pin"}
)

# The fragment of a git URI.
_FOLDER = re.compile(r"subdirectory=[^&=]*")

# Schemes without user information: an @ stands before an alias or a revision.
_NO_USERS = frozenset({"model-registry", "mlflow", "hf", "modelscope", "ms"})
# Schemes of Hadoop and MLflow for Azure's storage, without TLS and with it; the container stands before the @.
HADOOP_AZURE = frozenset({"wasb", "wasbs", "abfs", "abfss"})
_CONTAINER = re.compile(r"[A-Za-z0-9$-]{1,63}")
# Other names for a scheme, by Hadoop and fsspec.
ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
# The suffixes of the hosts of Azure's storage in each of its clouds.
AZURE_CLOUDS = ("core.windows.net", "core.usgovcloudapi.net", "core.chinacloudapi.cn", "storage.azure.net")
# The host dfs serves the same blobs as a file system, by its own protocol.
_AZURE_HOST = re.compile(
    rf"(?P<account>[a-z0-9-]+(?:\.z[0-9]+)?)\.(?:dfs|blob)\.(?P<cloud>(?:{'|'.join(map(re.escape, AZURE_CLOUDS))})(?::[0-9]+)?)",
    re.IGNORECASE,
)


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
        """Split ``text``; ``UsageError`` if it is empty, has control characters, or is no Unicode and no local path."""
        if not text:
            raise UsageError("the URI is empty", hint="for example s3://bucket/model or ./model")
        if _CONTROL.search(text):
            raise UsageError(f"the URI {redact(printable(text))} holds a control character")
        match = _URI.fullmatch(text)
        if match is None:
            return cls("", None, text)
        if match["scheme"].lower() != "file" and _NO_TEXT.search(text):
            # Bytes of a terminal in another encoding: no server can be asked for them.
            raise UsageError("the URI is not valid Unicode text", hint="type it in a terminal that uses UTF-8")
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
        if authority is not None and (login := self._login()):
            authority = "***" + authority.removeprefix(login)
        if query is not None:
            query = "&".join(map(_redact_pair, query.split("&")))
        # Some services carry a token there.
        hidden = self.fragment and "=" in self.fragment and not _FOLDER.fullmatch(self.fragment)
        fragment = "***" if hidden else self.fragment
        return str(ModelURI(self.scheme, authority, self.path, query, fragment))

    def identity(self) -> str:
        """A digest of the named resource, without secrets: equal for a presigned URL that was signed again."""
        authority = self.authority
        if authority is not None and (login := self._login()):
            authority = authority.removeprefix(f"{login}@")
        pairs = [pair for pair in (self.query or "").split("&") if not _SIGNATURE.match(pair)]
        named = ModelURI(self.scheme, authority, self.path, "&".join(pairs), self.fragment)
        return hashlib.sha256(str(named).encode("utf-8", "surrogateescape")).hexdigest()

    def _login(self) -> str:
        """The user information before the host, or ""; a container, alias or revision is none."""
        before = (self.authority or "").rpartition("@")[0]
        scheme = self.scheme.lower()
        if scheme in _NO_USERS or (scheme in HADOOP_AZURE and _CONTAINER.fullmatch(before)):
            return ""
        return before

    def canonical(self) -> "ModelURI":
        """The same place in normal form: s3 for s3a, https for abfss, and the blob service for Azure's storage.

        ``UsageError`` if a URI of Hadoop names no container and account of Azure.
        """
        scheme = self.scheme.lower()
        if scheme in ALIASES:
            return self._replace(scheme=ALIASES[scheme])
        container, at, host = (self.authority or "").rpartition("@")
        azure = _AZURE_HOST.fullmatch(host)
        if scheme in HADOOP_AZURE:
            if azure is None or not _CONTAINER.fullmatch(container):
                raise UsageError(
                    f"{self.redacted()} names no container of an Azure storage account",
                    hint=f"write {scheme}://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH",
                )
            # Hadoop's paths are not encoded.  All accounts accept TLS, and some require it.
            path = quote(self.path + ("" if self.fragment is None else f"#{self.fragment}"), safe="/~")
            return ModelURI("https", _blob_host(azure), f"/{container}{path}", self.query)
        if scheme in ("http", "https") and azure is not None:
            return self._replace(authority=f"{container}{at}{_blob_host(azure)}")
        return self


def _blob_host(azure: re.Match[str]) -> str:
    return f"{azure['account']}.blob.{azure['cloud']}"


def _redact_pair(pair: str) -> str:
    key, equals, _ = pair.partition("=")
    if key.lower() in _PRINTED_KEYS:
        return pair
    return f"{key}=***" if equals else "***"


def redact(text: str) -> str:
    """``text``, a URI or path, without secrets, for printing."""
    try:
        return ModelURI.parse(text).redacted()
    except UsageError:
        return "***"
