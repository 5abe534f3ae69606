"""As much of S3 as lading asks for, on the faulty server: what real servers lack or cannot be made to do.

It is checked with boto3, S3's own client, in ``test_fake_s3.py``.  It checks signatures only where
``refuse`` is ``unless_signed``.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

from fakes.faulty_http import Answer, FaultyServer, Request, Resource

_STATUS = {
    "AccessDenied": 403,
    "ExpiredToken": 400,
    "InvalidAccessKeyId": 403,
    "InvalidRequest": 400,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "PreconditionFailed": 412,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
}
_AUTHORIZATION = re.compile(
    "AWS4-HMAC-SHA256 Credential=(?P<key>[^/]*)/[^/]*/(?P<region>[^/]*)/s3/aws4_request, "
    "SignedHeaders=(?P<names>[^,]*), Signature=(?P<signature>[0-9a-f]{64})"
)
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True)
class S3Object:
    """An object; ``part_sizes`` make it one of a multipart upload.

    ``checksums`` are headers of the object, such as ``x-amz-checksum-sha256``, told when they are
    asked for.  ``claimed_bytes`` is a size that the listing tells and the content has not.
    """

    content: bytes | memoryview
    checksums: dict[str, str] = field(default_factory=dict)
    part_sizes: tuple[int, ...] = ()
    claimed_bytes: int | None = None

    @cached_property
    def etag(self) -> str:
        md5 = hashlib.md5(self.content, usedforsecurity=False).hexdigest()
        return f'"{md5}-{len(self.part_sizes)}"' if self.part_sizes else f'"{md5}"'

    @property
    def size_bytes(self) -> int:
        return len(self.content) if self.claimed_bytes is None else self.claimed_bytes


def composite(algorithm: str, parts: list[bytes]) -> dict[str, str]:
    """The headers of a composite checksum: the digest of the parts' digests, and their number."""
    digests = b"".join(hashlib.new(algorithm, part, usedforsecurity=False).digest() for part in parts)
    whole = hashlib.new(algorithm, digests, usedforsecurity=False).digest()
    value = f"{base64.b64encode(whole).decode()}-{len(parts)}"
    return {f"x-amz-checksum-{algorithm}": value, "x-amz-checksum-type": "COMPOSITE"}


class FakeS3:
    """One bucket, addressed by path.

    ``refuse`` looks at each request and names an error code, or nothing.  Without ``conditions`` it
    passes over If-Match, as some servers do.
    """

    def __init__(self, server: FaultyServer, bucket: str = "models") -> None:
        self.bucket = bucket
        self.objects: dict[str, S3Object] = {}
        self.refuse: Callable[[Request], str | None] = lambda request: None
        self.page_keys = 1000
        self.conditions = True
        self.server = server
        server.routes[f"/{bucket}"] = self.answer

    def put(self, key: str, content: bytes | memoryview, **about: Any) -> None:
        self.objects[key] = S3Object(content, **about)

    def path(self, key: str) -> str:
        """The path that requests for an object have, for the server's faults."""
        return f"/{self.bucket}/{quote(key, safe='/~')}"

    def answer(self, request: Request) -> Answer:
        code = self.refuse(request)
        if code is not None:
            return error(code)
        query = parse_qs(request.query, keep_blank_values=True)
        key = unquote(request.path.removeprefix(f"/{self.bucket}").removeprefix("/"))
        if not key:
            return self._list({name: values[0] for name, values in query.items()})
        found = self.objects.get(key)
        if found is None:
            return error("NoSuchKey")
        if self.conditions and request.headers.get("if-match", found.etag) != found.etag:
            return error("PreconditionFailed")
        number = query.get("partNumber")
        return _part(found, int(number[0])) if number else self._object(found, request)

    def _object(self, found: S3Object, request: Request) -> Answer:
        about = {"Content-Type": "application/octet-stream"}
        if request.headers.get("x-amz-checksum-mode") == "ENABLED" and not request.headers.get("range"):
            about |= found.checksums
        return Resource(found.content, found.etag, headers=about, conditions=self.conditions).answer(request)

    def _list(self, query: dict[str, str]) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = base64.urlsafe_b64decode(query.get("continuation-token", "")).decode()
        most = min(int(query.get("max-keys", "1000")), self.page_keys)
        names = sorted({self._rolled_up(key, prefix, delimiter) for key in self.objects if key.startswith(prefix)})
        names = [name for name in names if name > after]
        page, rest = names[:most], names[most:]
        items = "".join(self._item(name, rolled=bool(delimiter) and name not in self.objects) for name in page)
        token = base64.urlsafe_b64encode(page[-1].encode()).decode() if rest else ""
        following = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        return _xml(
            f'<ListBucketResult xmlns="{_NAMESPACE}"><Name>{self.bucket}</Name><Prefix>{_coded(prefix)}</Prefix>'
            f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{most}</MaxKeys><EncodingType>url</EncodingType>"
            f"<IsTruncated>{'true' if rest else 'false'}</IsTruncated>{following}{items}</ListBucketResult>"
        )

    @staticmethod
    def _rolled_up(key: str, prefix: str, delimiter: str) -> str:
        head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        return f"{prefix}{head}{found}" if found else key

    def _item(self, name: str, *, rolled: bool) -> str:
        if rolled:
            return f"<CommonPrefixes><Prefix>{_coded(name)}</Prefix></CommonPrefixes>"
        found = self.objects[name]
        return (
            f"<Contents><Key>{_coded(name)}</Key><LastModified>2026-01-05T10:00:00.000Z</LastModified>"
            f"<ETag>{escape(found.etag)}</ETag><Size>{found.size_bytes}</Size></Contents>"
        )


def unless_signed(access_key_id: str, secret_access_key: str) -> Callable[[Request], str | None]:
    """For ``FakeS3.refuse``: only what these keys have signed is answered, as the official SDK computes it.

    As AWS asks for, the host and every header ``x-amz-…`` that comes must be signed; others may change on the way.
    """
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    def refuse(request: Request) -> str | None:
        match = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if match is None or match["key"] != access_key_id:
            return "AccessDenied"
        names = match["names"].split(";")
        if {"host", *(name for name in request.headers if name.startswith("x-amz-"))} - {*names}:
            return "AccessDenied"
        url = f"http://{request.headers['host']}{request.target}"
        signed = AWSRequest(request.method, url, {name: request.headers.get(name, "") for name in names})
        signed.context["timestamp"] = request.headers["x-amz-date"]
        signer = S3SigV4Auth(Credentials(access_key_id, secret_access_key), "s3", match["region"])
        text = signer.string_to_sign(signed, signer.canonical_request(signed))
        return None if signer.signature(text, signed) == match["signature"] else "SignatureDoesNotMatch"

    return refuse


class FakeDirectoryBucket(FakeS3):
    """A directory bucket: keys for a session, and only prefixes that end in a slash.

    ``sessions`` are the tokens that were given; only the last one holds.
    """

    def __init__(self, server: FaultyServer, bucket: str = "models--use1-az4--x-s3") -> None:
        super().__init__(server, bucket)
        self.sessions: list[str] = []

    def answer(self, request: Request) -> Answer:
        token = request.headers.get("x-amz-s3session-token")
        if "/s3express/aws4_request" not in request.headers.get("authorization", ""):
            return error("AccessDenied")
        query = parse_qs(request.query, keep_blank_values=True)
        if "session" in query:
            return error("AccessDenied") if token else self._session()
        if token != self.sessions[-1]:
            return error("ExpiredToken")
        prefix = query.get("prefix", [""])[0]
        return super().answer(request) if prefix.endswith("/") or not prefix else error("InvalidRequest")

    def _session(self) -> Answer:
        self.sessions.append(f"session {len(self.sessions)}")
        ends = datetime.now(UTC) + timedelta(minutes=5)
        return _xml(
            f'<CreateSessionResult xmlns="{_NAMESPACE}"><Credentials><AccessKeyId>SESSION</AccessKeyId>'
            f"<SecretAccessKey>of a session</SecretAccessKey><SessionToken>{self.sessions[-1]}</SessionToken>"
            f"<Expiration>{ends:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials></CreateSessionResult>"
        )


def error(code: str) -> Answer:
    return _xml(f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", _STATUS[code])


def _part(found: S3Object, number: int) -> Answer:
    sizes = found.part_sizes or (len(found.content),)
    start = sum(sizes[: number - 1])
    part = memoryview(found.content)[start : start + sizes[number - 1]]
    byte_range = f"bytes {start}-{start + len(part) - 1}/{len(found.content)}"
    return Answer(206, {"ETag": found.etag, "Content-Range": byte_range, "x-amz-mp-parts-count": str(len(sizes))}, part)


def _xml(text: str, status: int = 200) -> Answer:
    document = f'<?xml version="1.0" encoding="UTF-8"?>{text}'
    return Answer(status, {"Content-Type": "application/xml"}, document.encode())


def _coded(name: str) -> str:
    return escape(quote(name, safe="/"))
