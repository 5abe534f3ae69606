"""One answer: its head, its body while it is still on the wire, and what its status means."""

import re
from collections.abc import Callable, Container
from http import HTTPStatus
from time import time
from typing import Self

from lading.errors import IntegrityError, LadingError, NotAllowed, NotFound, OriginChanged, Unavailable, Unsupported
from lading.model.uri import redact
from lading.network.dial import says_it_wants_tls
from lading.network.wire import Connection, Head, Sink
from lading.text.printable import printable

_ERROR_LIMIT_BYTES = 64 * 1024
_PROBE_BYTES = 64 * 1024
_MAX_RETRY_AFTER_S = 300.0
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# ``"api";r=0;t=55``, and the older ``limit=100, remaining=0, reset=55``.
_SPENT = re.compile(r"\b(?:r|remaining)=0\s*[;,]\s*(?:t|reset)=([0-9]{1,9})")
_ZERO = re.compile(r"0(\s*;.*)?")
_NUMBER = re.compile(r"([0-9]{1,12})(\s*;.*)?")
# A reset that is no number of seconds, but a moment in Unix time.
_MOMENT_S = 1e9
_MOST_SHOWN = 500
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class Answer:
    """The answer to one request: its head is here, its body is still on the wire.

    Use it in a ``with`` block: at its end the connection goes back to the client.
    """

    def __init__(self, url: str, head: Head, connection: Connection, release: Callable[[Connection], None]) -> None:
        self.url = url
        self.head = head
        self._connection = connection
        self._release = release
        self._kept: bytes | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._release(self._connection)

    def read_into(self, sink: Sink) -> None:
        """Push the body, piece by piece; a piece is valid until ``sink`` returns."""
        if self._kept is None:
            self._connection.read_body(sink)
        elif self._kept:
            sink(memoryview(self._kept))

    def read(self, limit_bytes: int) -> bytes:
        """The whole body; raises ``IntegrityError`` when it is longer than ``limit_bytes``."""
        body = bytearray()

        def collect(piece: memoryview) -> None:
            if len(body) + len(piece) > limit_bytes:
                raise IntegrityError(f"{redact(self.url)} answered with more than {limit_bytes} bytes")
            body.extend(piece)

        self.read_into(collect)
        return bytes(body)

    def error_body(self) -> bytes:
        """What comes with an error; "" for a page that is too long to explain one."""
        try:
            return self.read(_ERROR_LIMIT_BYTES)
        except IntegrityError:
            return b""

    def refuses_http(self) -> bool:
        """Whether the body says that this port wants TLS: no status does.  It can be read afterwards."""
        self._kept = self.error_body()
        return says_it_wants_tls(self._kept)


def status_error(head: Head, what: str, *, quoted: bool = True) -> LadingError:
    """The error that a status stands for; ``what`` is the redacted URI or thing that was asked for.

    Not ``quoted``, where a redirect leads is left out: it could say the credential back that was sent.
    """
    status = head.status
    name = f"{what} answered {status} {_phrase(status)}".rstrip()
    if status == HTTPStatus.UNAUTHORIZED:
        return NotAllowed(name, hint="credentials are missing, wrong or expired")
    if status == HTTPStatus.FORBIDDEN and (pause_s := retry_after_s(head)) is not None:
        return Unavailable(name, retry_after_s=pause_s)
    if status == HTTPStatus.FORBIDDEN:
        return NotAllowed(name, hint="the credentials in use are not allowed to read this, or it does not exist")
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return NotFound(name)
    if status in (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
        return OriginChanged(f"{what} changed while it was read")
    if status in TRANSIENT:
        return Unavailable(name, retry_after_s=retry_after_s(head))
    if status >= 500:
        return Unavailable(name)
    if quoted and (location := leads_to(head)):
        return Unsupported(f"{name}, to {location}", hint="if that is the right address, use it")
    return Unsupported(name)


def read_whole(answer: Answer, *, limit_bytes: int, what: str) -> bytes:
    """The whole body of an answer that must have the status 200."""
    if answer.head.status != HTTPStatus.OK:
        raise status_error(answer.head, what)
    return answer.read(limit_bytes)


def read_probe(answer: Answer, *, what: str, statuses: Container[int] = (200, 206)) -> Head:
    """The head of an answer with a file, or with a byte or so of it, which is read: the connection can be kept."""
    if answer.head.status not in statuses:
        raise status_error(answer.head, what)
    if answer.head.status == HTTPStatus.PARTIAL_CONTENT:
        answer.read(_PROBE_BYTES)
    return answer.head


def leads_to(head: Head) -> str:
    """Where a redirect leads, as it may be printed: without what could be a secret; "" if it is none."""
    if head.status not in REDIRECTS:
        return ""
    location = re.split("[?#]", head.text("location"), maxsplit=1)[0]
    return printable(re.sub("^([^/]*//)[^/]*@", r"\1***@", location))[:_MOST_SHOWN]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def retry_after_s(head: Head) -> float | None:
    """Seconds to wait, at most five minutes, by Retry-After (RFC 9110, 10.2.3), else by a rate limit that is used up."""
    text = head.get("retry-after")
    if not text:
        # Rate limits come with every answer, and are the reason of these only: GitHub refuses with 403.
        limited = head.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.FORBIDDEN)
        return _reset_s(head) if limited else None
    if text.isascii() and text.isdigit():
        return min(float(text), _MAX_RETRY_AFTER_S)
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(moment - time(), 0.0), _MAX_RETRY_AFTER_S)


def _reset_s(head: Head) -> float | None:
    """Seconds until a rate limit that is used up begins anew, at most five minutes; None if none is.

    RateLimit is draft-ietf-httpapi-ratelimit-headers-09, as the Hugging Face Hub sends it, or -03.  Before it came
    RateLimit-Remaining and -Reset (draft -00, GitLab), and x-ratelimit-remaining and -reset (GitHub).
    """
    if spent := _SPENT.search(head.get("ratelimit")):
        return min(float(spent[1]), _MAX_RETRY_AFTER_S)
    for name in ("x-ratelimit", "ratelimit"):
        reset = _NUMBER.fullmatch(head.get(f"{name}-reset"))
        if reset and _ZERO.fullmatch(head.get(f"{name}-remaining")):
            seconds = float(reset[1])
            return min(max(seconds - time() if seconds > _MOMENT_S else seconds, 0.0), _MAX_RETRY_AFTER_S)
    return None
