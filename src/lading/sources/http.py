"""One file behind an ``http://`` or ``https://`` URL.

A folder is not guessed from a page of links: HTTP has no listing.
"""

import base64
import json
from urllib.parse import unquote, urlsplit, urlunsplit

from lading.errors import OriginChanged, UsageError
from lading.http_client import HttpClient, status_error
from lading.http_wire import Head
from lading.manifest import File, Manifest
from lading.settings import Settings
from lading.sources import Sink
from lading.sources.answers import check_answer, content_range, declared_digests, decode_into
from lading.spans import Span
from lading.uri import ModelURI, printable

Headers = list[tuple[str, str]]

_MODIFIED = "modified "


class HttpSource:
    """A URL.  The validator is its ETag, else its Last-Modified."""

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        parts = urlsplit(str(uri))
        self._name = unquote(uri.path.rpartition("/")[2])
        if not self._name:
            raise UsageError(
                f"{uri.redacted()} names a folder, and HTTP has no listing of folders",
                hint="name a file; several files travel as .tar.gz or .zip",
            )
        user, at, host = parts.netloc.rpartition("@")
        self._url = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        self._shown = uri.redacted()
        self._http = http
        self._headers: Headers = [("Accept-Encoding", "identity"), *_configured_headers(settings, parts.hostname or "")]
        self.credential_kind = "configured headers" if len(self._headers) > 1 else "anonymous"
        if at:
            self._headers.append(("Authorization", "Basic " + base64.b64encode(unquote(user).encode()).decode()))
            self.credential_kind = "user and password in the URI"

    def list(self) -> Manifest:
        # One byte of it and not HEAD: presigned URLs and many servers refuse HEAD, and only the
        # answer to a range says whether there are ranges.
        def ask(headers: Headers) -> Head:
            def attempt() -> Head:
                with self._http.open("GET", self._url, headers) as answer:
                    if answer.head.status not in (200, 206, 416):
                        raise status_error(answer.head, self._shown)
                    if answer.head.status == 206:
                        answer.read(64 * 1024)
                    return answer.head

            return self._http.retry.call(attempt, what=self._shown)

        head = ask([*self._headers, ("Range", "bytes=0-0")])
        if head.status == 416 and content_range(head) != (0, 0, 0):
            head = ask(self._headers)
            if head.status == 416:
                raise status_error(head, self._shown)
        return Manifest.of([self._file(head)])

    def _file(self, head: Head) -> File:
        length = head.get("content-length")
        size = int(length) if length.isdigit() else None
        if head.status == 416:
            size = 0
        elif head.status == 206:
            found = content_range(head)
            size = found[2] if found else None
        validator = _validator(head)
        if _is_encoded(head):
            # Nothing the headers say is about the bytes that come out of the decoder.
            size, validator = None, None
        return File(
            self._name,
            size,
            validator,
            tuple(declared_digests(head, whole=head.status == 200)),
            # RFC 9110, 13.1.5 and 14.4: parts may be put together only under a strong validator.
            ranged=head.status == 206 and size is not None and not (validator or "").startswith("W/"),
        )

    def read(self, file: File, span: Span, sink: Sink) -> None:
        headers = list(self._headers)
        if span.start or span.end != file.size_bytes:
            headers.append(("Range", f"bytes={span.start}-{'' if span.end is None else span.end - 1}"))
        validator = file.validator or ""
        if validator.startswith('"'):
            headers.append(("If-Match", validator))
        elif validator.startswith(_MODIFIED):
            headers.append(("If-Unmodified-Since", validator.removeprefix(_MODIFIED)))
        with self._http.open("GET", self._url, headers) as answer:
            head = answer.head
            if _is_encoded(head):
                if head.status != 200 or file.size_bytes is not None:
                    raise OriginChanged(f"{self._shown} is sent encoded now")
                decode_into(answer, sink.write)
                return
            check_answer(head, span, file.size_bytes, self._shown)
            found = _validator(head)
            if file.validator and found and found != file.validator:
                raise OriginChanged(f"{self._shown} changed while it was read")
            sink.told(tuple(declared_digests(head, whole=head.status == 200)))
            answer.read_into(sink.write)


def _validator(head: Head) -> str | None:
    modified = head.get("last-modified")
    return head.get("etag") or (_MODIFIED + modified if modified else None)


def _is_encoded(head: Head) -> bool:
    return head.get("content-encoding").lower() not in ("", "identity")


def _configured_headers(settings: Settings, host: str) -> Headers:
    """The headers that KServe's variable ``<host>-headers`` holds, a JSON object, for exactly this host."""
    secret = settings.variables.get(f"{host}-headers")
    if secret is None:
        return []
    try:
        headers = json.loads(secret)
        pairs = [(str(name), str(value)) for name, value in headers.items()]
    except (ValueError, AttributeError) as error:
        raise UsageError(f"the variable {printable(host)}-headers is not a JSON object") from error
    return pairs
