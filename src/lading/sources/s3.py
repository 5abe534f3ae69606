"""Amazon S3 and whatever speaks its protocol: ``s3://bucket``, ``s3://bucket/prefix``, ``s3://bucket/key``.

In the bucket's place may be the ARN of an access point.

https://docs.aws.amazon.com/AmazonS3/latest/API/.  A prefix ends at a path boundary: ``model``
means ``model/…`` or exactly ``model``, never ``model-v2/…``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NoReturn
from urllib.parse import quote, unquote_plus, urlsplit

from lading.auth.authorizer import Authorizer
from lading.auth.aws import AwsCredentials, xml_text
from lading.auth.aws_endpoints import EXPRESS, Address, at_aws, s3_address
from lading.auth.aws_session import DirectoryBucketSession
from lading.auth.aws_signature import sign
from lading.errors import (
    HostNotFound,
    IntegrityError,
    LadingError,
    NotAllowed,
    NotFound,
    TryAtOnce,
    Unavailable,
    Unsupported,
    UsageError,
)
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.uri import ModelURI, redact
from lading.model.validator import entity_tag
from lading.network.answer import Answer, read_probe, read_whole, status_error
from lading.network.client import HttpClient
from lading.network.headers import base64_digest, check_answer, declared_digests, if_match, md5_of_etag, range_header
from lading.network.paging import CONTRADICTS, Page
from lading.network.wire import Head
from lading.secret import AwsKeys
from lading.settings.aws import read_aws, read_s3
from lading.settings.settings import Settings
from lading.sources.paged_list import nothing_below, paged_list
from lading.sources.source import Sink
from lading.text.json_xml import read_xml
from lading.text.printable import printable

_DEFAULT_REGION = "us-east-1"
_LIST_LIMIT_BYTES = 64 << 20
# The bucket, or the ARN of an access point, which has colons or slashes in it as the user likes.
_NAMED = re.compile(
    r"(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,254}|arn:[^/]*:(?:outpost[:/][^:/]*[:/])?accesspoint[:/][^:/]+)(?:/(?P<key>.*))?",
    re.DOTALL,
)
_FORM = "write s3://bucket/key-or-prefix; a bucket's name has two or more letters, digits, dots and dashes"
_COUNT = re.compile("[0-9]{1,5}")
_START_AFTER = "start-after"
_ASK_FOR_CHECKSUM = ("x-amz-checksum-mode", "ENABLED")
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/ObjectsinRequesterPaysBuckets.html
_PAYER = ("x-amz-request-payer", "requester")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
_NO_BETTER = "new ones were fetched, and are refused as expired, too: check the clocks and who issues them"
_NO_KEYS = "no AWS credentials were found; set them, or awsAnonymousCredential=true for a public bucket"
_LOOK_AT_ENDPOINT = "check the endpoint (AWS_ENDPOINT_URL, S3_ENDPOINT) and the region (AWS_DEFAULT_REGION)"
_NOT_PUBLIC = "it is asked for without credentials (awsAnonymousCredential); it may need some, or not exist"

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html: codes that say more than
# their status does, with what to try.
_CODES: dict[str, tuple[type[LadingError], str]] = {
    "NoSuchBucket": (NotFound, "check the bucket's name and the endpoint"),
    "NoSuchKey": (NotFound, ""),
    "AccessDenied": (
        NotAllowed,
        "these credentials need s3:ListBucket and s3:GetObject, or it does not exist, or AWS_REQUEST_PAYER=requester is missing",
    ),
    "InvalidAccessKeyId": (NotAllowed, "the access key is not known at this endpoint"),
    "SignatureDoesNotMatch": (NotAllowed, "the secret key is wrong, or a proxy changes requests"),
    "RequestTimeTooSkewed": (NotAllowed, "this machine's clock is wrong"),
    "InvalidObjectState": (NotAllowed, "the object is archived; restore it first"),
    **dict.fromkeys(_EXPIRED, (NotAllowed, "the session token has expired; set a new token and run again to resume")),
    "InvalidToken": (NotAllowed, "the session token is wrong"),
    "SlowDown": (Unavailable, ""),
}


# Key, size, ETag.
_Object = tuple[str, int, str | None]


class S3Source:
    """A bucket's objects below a prefix, or one object.  The validator is the ETag."""

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        named = _NAMED.fullmatch(f"{uri.authority or ''}{uri.path}")
        if uri.query is not None or named is None:
            raise UsageError(f"{uri.redacted()} is not an S3 URI", hint=_FORM)
        self._bucket = named["bucket"]
        self._key = (named["key"] or "") + ("" if uri.fragment is None else f"#{uri.fragment}")
        self._shown = uri.redacted()
        s3 = self._settings = read_s3(settings.variables)
        self._limits = settings.limits
        self._wants_digests = settings.verify != "off"
        self._http = http if s3.verify_tls else http.without_tls_checks()
        credentials = AwsCredentials(read_aws(settings.variables), http, s3.region)
        self._endpoints, region = at_aws(credentials.endpoints)
        self._address = self._address_in(credentials.region or region or _DEFAULT_REGION)
        self._credentials = None if s3.anonymous else self._signing(credentials)

    def _address_in(self, region: str) -> Address:
        return s3_address(self._bucket, self._endpoints, region, virtual_host=self._settings.virtual_host)

    def _signing(self, credentials: AwsCredentials) -> Authorizer[AwsKeys]:
        if self._address.service == EXPRESS:
            return DirectoryBucketSession(credentials, self._http, self._address)
        return credentials

    @property
    def credential_kind(self) -> str:
        keys = self._credentials.get() if self._credentials else None
        return keys.kind if keys else "anonymous"

    def list(self) -> Listing:
        folder = self._key if self._key.endswith("/") or not self._key else f"{self._key}/"
        files = list(self._files(folder))
        if not files and folder != self._key:
            files = list(self._one_file())
        if not files:
            raise nothing_below(self._shown, self._key, self._names_in)
        return Listing.of(files)

    def _one_file(self) -> Iterator[ListedFile]:
        """The object that the key itself names, if there is one."""
        name = self._key.rpartition("/")[2]
        if self._address.service == EXPRESS:
            # A directory bucket lists folders only, and those in any order.
            try:
                head = self._http.ask(
                    partial(self._open, "HEAD", self._key, []), partial(read_probe, what=self._shown), what=self._shown
                )
            except HostNotFound:
                raise
            except NotFound:
                return
            length = head.get("content-length")
            yield ListedFile(
                name, int(length) if length.isdigit() else None, head.get("etag") or None, locator=self._key
            )
            return
        # The shortest name with a prefix is listed first: if the key exists, it is the first.
        for key, size, etag in self._page(self._key, most=20).entries:
            if key == self._key:
                yield ListedFile(name, size, etag, locator=key)

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        headers = range_header(byte_range, file.size_bytes)
        whole = byte_range == ByteRange(0, file.size_bytes)
        if whole and self._wants_digests:
            headers.append(_ASK_FOR_CHECKSUM)
        with self._open("GET", file.locator, [*headers, *if_match(file)], of=file) as answer:
            head = answer.head
            check_answer(head, byte_range, file.size_bytes, self._shown_key(file))
            # If-Match is enough for S3; some servers that speak its protocol ignore it.
            sink.version(entity_tag(head.get("etag")))
            if whole:
                sink.on_digests(self._declared(file, head))
            answer.read_into(sink.write)

    def digests(self, file: ListedFile) -> Sequence[Digest]:
        """The digests that the origin declares for the whole object; costs a request."""
        return self._declared(file, self._head(file, "", [_ASK_FOR_CHECKSUM]))

    def _declared(self, file: ListedFile, head: Head) -> Sequence[Digest]:
        """The checksums in the head of an object; for a composite one, its parts are asked for."""
        digests = [*declared_digests(head, whole=True)] or [*self._composite(file, head)]
        # The ETag only where nothing else is told, and where all say the same one: elsewhere it follows rules of its own.
        return digests or [*md5_of_etag(head, file.validator or "")]

    def _composite(self, file: ListedFile, head: Head) -> Iterator[Digest]:
        """The checksum of the parts' checksums, "BASE64-COUNT"; only with the parts' sizes it can be computed.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
        """
        for algorithm in ("sha256", "sha1", "crc32c", "crc32"):
            encoded, dash, count = head.get(f"x-amz-checksum-{algorithm}").partition("-")
            if not dash or not _COUNT.fullmatch(count) or not 0 < int(count) <= 10_000:
                continue
            for digest in base64_digest(algorithm, encoded):
                sizes = self._part_sizes(file, int(count))
                if sizes:
                    yield Digest(algorithm, digest.value, sizes)
            return

    def _part_sizes(self, file: ListedFile, count: int) -> tuple[int, ...]:
        """Sizes of the object's parts, in order; empty if the server does not tell."""
        sizes: tuple[int, ...] = ()
        left = file.size_bytes or 0
        while left and len(sizes) < count:
            length = self._head(file, f"partNumber={len(sizes) + 1}", []).get("content-length")
            size = int(length) if length.isdigit() else 0
            if not 0 < size <= left:
                return ()
            sizes = (*sizes, size)
            # Every uploader known makes all parts but the last alike: two questions tell, and a
            # count that does not fit says that this object is another case.
            if len(sizes) == 1 and size * (count - 1) < left <= size * count:
                return (*[size] * (count - 1), left - size * (count - 1))
            left -= size
        return sizes if len(sizes) == count and not left else ()

    def _head(self, file: ListedFile, query: str, headers: Sequence[tuple[str, str]]) -> Head:
        with self._open("HEAD", file.locator, [*if_match(file), *headers], query) as answer:
            return read_probe(answer, what=self._shown_key(file))

    def _files(self, folder: str) -> Iterator[ListedFile]:
        keys = paged_list(self._shown, self._limits, name=_key_of)
        for objects in keys.pages(partial(self._page, folder)):
            for key, size, etag in objects:
                # A key that ends in a slash is a folder marker, whatever its size.
                if not key.endswith("/"):
                    yield ListedFile(key[len(folder) :], size, etag, locator=key)

    def _page(self, prefix: str, following: str = "", most: int = 1000, delimiter: str = "") -> Page[_Object]:
        """One page of ListObjectsV2, or of ListObjects from a server that knows no other; ``following`` as ``_parse_page`` has it."""
        query = {"list-type": "2", "prefix": prefix, "max-keys": str(most), "encoding-type": "url"}
        name, _, value = following.partition("=")
        if name == _START_AFTER:
            # The names that both versions have for it: either passes over the other's.
            query |= {_START_AFTER: value, "marker": value}
        elif name:
            query[name] = value
        if delimiter:
            query["delimiter"] = delimiter
        body = self._list(query)
        try:
            return _parse_page(body, prefix, delimiter)
        except _Contradiction as error:
            raise IntegrityError(f"the listing of {self._shown} {error}", hint=CONTRADICTS) from error
        except ValueError as error:
            raise Unsupported(
                f"{redact(self._address.base)} does not answer as S3 does", hint="check the endpoint"
            ) from error

    def _list(self, query: dict[str, str]) -> bytes:
        text = "&".join(
            f"{name}={quote(value, safe='~', errors='surrogateescape')}" for name, value in sorted(query.items())
        )
        judge = partial(read_whole, limit_bytes=_LIST_LIMIT_BYTES, what=self._shown)
        return self._http.ask(partial(self._open, "GET", "", [], text), judge, what=f"the listing of {self._shown}")

    def _open(
        self,
        method: str,
        key: str,
        headers: Sequence[tuple[str, str]],
        query: str = "",
        of: ListedFile | None = None,
    ) -> Answer:
        """One signed request, for content ``of`` a file if given; any answer but success is raised as what its code and status say."""
        keys = self._credentials.get() if self._credentials else None
        base, start, *_ = self._address
        path = start + quote(key, safe="/~")
        if self._settings.request_payer:
            headers = [*headers, _PAYER]
        sent = self._sign(keys, method, path, query, headers)
        answer = self._http.open(method, f"{base}{path}" + (f"?{query}" if query else ""), sent, redirects=0, of=of)
        if answer.head.status >= 300:
            with answer:
                self._refuse(answer, keys, self._shown_name(key) if key else self._shown)
        if self._credentials:
            self._credentials.accepted(keys)
        return answer

    def _sign(
        self, keys: AwsKeys | None, method: str, path: str, query: str, headers: Sequence[tuple[str, str]]
    ) -> Sequence[tuple[str, str]]:
        if keys is None:
            return headers
        return sign(
            keys,
            method=method,
            host=urlsplit(self._address.base).netloc,
            path=path,
            query=query,
            headers=headers,
            region=self._address.region,
            service=self._address.service,
        )

    def _refuse(self, answer: Answer, keys: AwsKeys | None, what: str) -> NoReturn:
        head = answer.head
        body = b"" if head.status in (304, 412) else answer.error_body()
        region = head.get("x-amz-bucket-region") or xml_text(body, "Region")
        if head.status in (301, 307, 400) and region and re.fullmatch("[a-z0-9-]+", region):
            # The bucket lives elsewhere and says where: all later requests go there.
            elsewhere = self._address_in(region)
            moved, self._address = elsewhere != self._address, elsewhere
            if moved:
                raise TryAtOnce(f"{what} is in the region {region}")
        code = xml_text(body, "Code")
        # The answer to HEAD has no body to say so: a 400 is then what expired keys look like.
        expired = code in _EXPIRED or (head.status == 400 and not body)
        if expired and self._credentials and self._credentials.refused(keys, head):
            raise TryAtOnce(f"{what}: the credentials have expired")
        refused = status_error(head, what)
        if head.status in (301, 307) and (path := _elsewhere(body, region)):
            refused = Unsupported(f"{what}: {code or head.status}, the bucket is {path}", hint=_LOOK_AT_ENDPOINT)
        if code in _CODES:
            kind, hint = _CODES[code]
            if code in _EXPIRED and keys and keys.expires_at_s is not None:
                hint = _NO_BETTER
            refused = kind(f"{what}: {code} ({head.status})", hint=hint, retry_after_s=refused.retry_after_s)
        # Some servers call a request without a signature a bad one.
        if keys is None and (isinstance(refused, NotAllowed) or head.status == 400):
            raise NotAllowed(refused.message, hint=_NOT_PUBLIC if self._settings.anonymous else _NO_KEYS)
        raise refused

    def _names_in(self, prefix: str) -> Sequence[str]:
        return list(map(_key_of, self._page(prefix, delimiter="/").entries))

    def _shown_key(self, file: ListedFile) -> str:
        return self._shown_name(file.locator)

    def _shown_name(self, key: str) -> str:
        return printable(f"s3://{self._bucket}/{key}")


def _elsewhere(body: bytes, region: str) -> str:
    """A text with the endpoint and region of a bucket that is elsewhere: from the body and the head of S3's redirect."""
    endpoint = xml_text(body, "Endpoint")
    return printable(" ".join(filter(None, [endpoint and f"at {endpoint}", region and f"in the region {region}"])))


def _key_of(found: _Object) -> str:
    return found[0]


class _Contradiction(ValueError):
    """A page that says one thing and another."""


def _parse_page(body: bytes, prefix: str, delimiter: str) -> Page[_Object]:
    root = read_xml(body)
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    if root.tag != f"{space}ListBucketResult":
        raise ValueError(root.tag)
    # Names are bytes to some servers; what is no UTF-8 stays what it is, and is refused if it is wanted.
    decode = partial(unquote_plus, errors="surrogateescape") if root.findtext(f"{space}EncodingType") == "url" else str
    objects: list[_Object] = []
    for item in root.iterfind(f"{space}Contents"):
        about = {field.tag: field.text or "" for field in item}
        key = decode(about.get(f"{space}Key", ""))
        if not key or not key.startswith(prefix):
            raise ValueError(key)
        etag = entity_tag(about.get(f"{space}ETag", ""))
        objects.append((key, int(about.get(f"{space}Size", "")), etag or None))
    folders = [decode(folder.text or "") for folder in root.iterfind(f"{space}CommonPrefixes/{space}Prefix")]
    if folders and not delimiter:
        raise _Contradiction(f"has only the folder {printable(folders[0])!r} where its keys were asked for")
    objects += [(folder, 0, None) for folder in folders]
    fields = {field.tag.removeprefix(space): field.text or "" for field in root}
    count = int(fields["KeyCount"]) if fields.get("KeyCount") else None
    return Page(objects, _following(fields, list(map(_key_of, objects)), decode), count)


def _following(fields: Mapping[str, str], keys: list[str], decode: Callable[[str], str]) -> str:
    """The parameter, NAME=VALUE, that asks for the page after the one with these fields; "" if it says that it is the last.

    A page goes on by its token; by NextMarker, if it is of version 1; and without either, as version 1 has it where no
    delimiter is asked for, behind its last key.
    """
    token = fields.get("NextContinuationToken", "")
    match fields.get("IsTruncated", "").strip().lower():
        case "false":
            if token:
                raise _Contradiction("says that it has ended, and how it goes on")
            return ""
        case "true":
            if token:
                return f"continuation-token={token}"
            marker = decode(fields.get("NextMarker", ""))
            # Behind the last key there is all that is left, only where keys are in their order.
            if not marker and (not keys or keys != sorted(keys)):
                raise _Contradiction("does not end, and does not say how it goes on")
            return f"{_START_AFTER}={marker or keys[-1]}"
    raise _Contradiction("does not say whether it has ended")
