"""One file behind an ``http://`` or ``https://`` URL.

A folder is not guessed from a page of links: HTTP has no listing.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from lading.errors import NotAllowed, OriginChanged, UsageError
from lading.model.byte_range import ByteRange
from lading.model.listing import ListedFile, Listing
from lading.model.origin import split_url
from lading.model.paths import safe_path
from lading.model.uri import ModelURI, redact
from lading.model.validator import entity_tag, is_weak
from lading.network.answer import Answer, read_probe, status_error
from lading.network.client import Headers, HttpClient
from lading.network.headers import (
    check_answer,
    content_coding,
    content_range,
    declared_digests,
    decode_into,
    if_match,
    range_header,
)
from lading.network.wire import Head
from lading.secret import basic
from lading.settings.http import read_headers
from lading.settings.settings import Settings
from lading.sources.source import Sink

T = TypeVar("T")

_MODIFIED = "modified "
_PROBED = (200, 206, 416)
# RFC 6266, 4.1: behind the type, each parameter with a token or a quoted string.
_PARAMETER = re.compile(r""";\s*([\w!#$&+.^`|~*'-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]*)""", re.ASCII)
_PAGES = (".html", ".htm", ".xhtml")
# https://mimesniff.spec.whatwg.org/#identifying-a-resource-with-an-unknown-mime-type: how HTML begins, here also behind
# an XML declaration and comments.  No model does that a server calls text/html for want of a better name.
_SNIFFED_BYTES = 1024
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"
    rb"<(?:!doctype\s+html|html|head|title|body|meta|script|style|table|div|h1|p)[\s>]",
    re.IGNORECASE | re.DOTALL,
)
_ARCHIVE_AT_END = re.compile(r"[^/\\&=]+\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz|tbz2|txz|tzst|zip)$", re.IGNORECASE)


class HttpSource:
    """A URL.  The validator is its ETag, else its Last-Modified."""

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        try:
            parts = urlsplit(str(uri))
            parts.port  # noqa: B018 - raises, too
        except ValueError as error:
            raise UsageError(f"{uri.redacted()} is not a URL", hint="check its host and port") from error
        user, at, host = parts.netloc.rpartition("@")
        self._url = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        self._uri = uri
        self._shown = uri.redacted()
        self._http = http
        origin, _ = split_url(self._url)
        configured = read_headers(settings.variables, parts.hostname or "", origin.port)
        self.credential_kind = "configured headers" if configured else "anonymous"
        if configured:
            origin.refuse_in_clear("the headers for this host")
        if at:
            # Who writes them behind http:// has said so.
            configured = [(name, value) for name, value in configured if name.lower() != "authorization"]
            configured.append(("Authorization", basic(*map(unquote, user.partition(":")[::2]))))
            self.credential_kind = "user and password in the URI"
        self._headers: Headers = [("Accept-Encoding", "identity"), *configured]

    def list(self) -> Listing:
        # One byte of it and not HEAD: presigned URLs and many servers refuse HEAD, and only the
        # answer to a range says whether there are ranges.
        judge = partial(read_probe, what=self._shown, statuses=_PROBED)
        head = self._ask([("Range", "bytes=0-0")], judge)
        if head.status == 416 and content_range(head) != (0, 0, 0):
            head = self._ask([], judge)
            if head.status == 416:
                raise status_error(head, self._shown)
        file = self._file(head)
        if _is_called_a_page(head) and not file.path.lower().endswith(_PAGES):
            self._refuse_page()
        return Listing.of([file])

    def _refuse_page(self) -> None:
        """Raise if what is there begins as a page does: a login, or a folder's listing, with the status of success."""

        def judge(answer: Answer) -> tuple[str, bytes]:
            if answer.head.status not in _PROBED:
                raise status_error(answer.head, self._shown)
            return answer.url, _beginning(answer) if _is_called_a_page(answer.head) else b""

        url, begins = self._ask([("Range", f"bytes=0-{_SNIFFED_BYTES - 1}")], judge)
        if _PAGE.match(begins):
            where = "is" if url == self._url else f"leads to {redact(url)}, which is"
            raise NotAllowed(
                f"{self._shown} {where} a web page and not a model's file",
                hint="it may be a login page or a folder's listing: give the URL of a file, and credentials for its host",
            )

    def _ask(self, headers: Headers, judge: Callable[[Answer], T]) -> T:
        send = partial(self._http.open, "GET", self._url, [*self._headers, *headers])
        return self._http.ask(send, judge, what=self._shown)

    def _file(self, head: Head) -> ListedFile:
        length = head.get("content-length")
        size = int(length) if length.isdigit() else None
        if head.status == 416:
            size = 0
        elif head.status == 206:
            found = content_range(head)
            size = found[2] if found else None
        validator, digests = _validator(head), tuple(declared_digests(head, whole=head.status == 200))
        if _is_encoded(head):
            # Nothing the headers say is about the bytes that come out of the decoder.
            size, validator, digests = None, None, ()
        return ListedFile(
            safe_path(self._name(head)),
            size,
            validator,
            digests,
            # RFC 9110, 13.1.5 and 14.4: parts may be put together only under a strong validator.
            ranged=head.status == 206 and size is not None and not is_weak(validator or ""),
        )

    def _name(self, head: Head) -> str:
        """The file's name: the path's last segment, if that has a suffix; otherwise what the answer or the query says."""
        name = unquote(self._uri.path.rpartition("/")[2])
        if "." not in name:
            name = file_name(head.text("content-disposition")) or _archive_in(self._uri.query or "") or name
        if not name:
            raise UsageError(
                f"{self._shown} names a folder, and HTTP has no listing of folders",
                hint="name a file; put several files into a .tar.gz or .zip",
            )
        return name

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        headers = [*self._headers, *range_header(byte_range, file.size_bytes), *if_match(file)]
        validator = file.validator or ""
        if validator.startswith(_MODIFIED) and not file.answers_differ:
            headers.append(("If-Unmodified-Since", validator.removeprefix(_MODIFIED)))
        with self._http.open("GET", self._url, headers, of=file) as answer:
            head = answer.head
            if _is_encoded(head):
                if head.status != 200 or byte_range != ByteRange(0, file.size_bytes):
                    raise OriginChanged(f"{self._shown} is now sent in a content coding")
                sink.version(_validator(head) or "")
                decode_into(answer, sink.write)
                return
            check_answer(head, byte_range, file.size_bytes, self._shown)
            sink.version(_validator(head) or "")
            sink.on_digests(tuple(declared_digests(head, whole=head.status == 200)))
            answer.read_into(sink.write)


def file_name(disposition: str) -> str:
    """The file name in a Content-Disposition, "" without one (RFC 6266, 4.3): no more than its last segment."""
    found = {key.lower(): value for key, value in _PARAMETER.findall(disposition)}
    name = found.get("filename", "")
    if name.startswith('"'):
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    # RFC 8187, 3.2: the name in any alphabet, which is the better one.
    charset, _, rest = found.get("filename*", "").partition("'")
    if charset.lower() in ("utf-8", "iso-8859-1"):
        name = unquote(rest.partition("'")[2], charset, "replace") or name
    name = re.split(r"[/\\]", name)[-1].strip()
    return "" if name in (".", "..") else name


def _archive_in(query: str) -> str:
    """The name of an archive with which the query ends, as in ``?file=model.tar.gz``: KServe goes by it, too."""
    match = _ARCHIVE_AT_END.search(unquote(query))
    return match[0] if match else ""


def _validator(head: Head) -> str | None:
    modified = head.get("last-modified")
    return entity_tag(head.get("etag")) or (_MODIFIED + modified if modified else None)


def _is_called_a_page(head: Head) -> bool:
    return head.get("content-type").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")


def _beginning(answer: Answer) -> bytes:
    """The first bytes of a body, decoded, whose rest is not wanted."""
    begins = bytearray()

    def look(piece: memoryview) -> None:
        begins.extend(piece[: _SNIFFED_BYTES - len(begins)])
        if len(begins) == _SNIFFED_BYTES:
            raise _Seen

    with suppress(_Seen):
        if _is_encoded(answer.head):
            decode_into(answer, look)
        else:
            answer.read_into(look)
    return bytes(begins)


class _Seen(Exception):
    """Ends the reading of a body."""


def _is_encoded(head: Head) -> bool:
    return bool(content_coding(head.get("content-encoding")))
