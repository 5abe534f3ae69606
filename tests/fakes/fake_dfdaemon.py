"""As much of Dragonfly's dfdaemon as lading asks of it, on the faulty server: its HTTP proxy, and pieces that peers share.

What it does was read in dragonfly-client 1.5.10; ``tests/dragonfly`` asks the real one the same.  As that one does, it asks
the origin for one byte of each file on every node, to learn its size, then for pieces by ranges of its own with the headers
of whoever asked first, follows redirects without their credentials, and believes any certificate.
"""

import http.client
import ssl
import threading
from urllib.parse import urljoin, urlsplit

from fakes.faulty_http import Answer, FaultyServer, Request

_NEVER_FORWARDED = ("host", "range", "connection")
_CREDENTIALS = ("authorization", "cookie", "proxy-authorization")
_UNITS = {"mib": 1 << 20}


class Swarm:
    """The pieces that all peers of one scheduler have, by task and number; ``fetched`` are those that came from the origin."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pieces: dict[tuple[str, int], bytes] = {}
        self.fetched: list[tuple[str, int]] = []

    def tasks(self) -> set[str]:
        return {task for task, _ in self.pieces}


class FakeDfdaemon:
    """The dfdaemon of one node; it answers whatever ``server`` is asked, and so the server's faults are its own."""

    def __init__(self, server: FaultyServer, swarm: Swarm) -> None:
        self.server = server
        self.swarm = swarm
        self._heads: dict[str, tuple[int, dict[str, str]]] = {}
        server.routes[""] = self.answer

    @property
    def url(self) -> str:
        return self.server.url

    def answer(self, request: Request) -> Answer:
        if not request.target.startswith(("http://", "https://")):
            return Answer(400)
        if request.headers.get("x-dragonfly-use-p2p") != "true":
            return Answer(502)
        task = request.headers["x-dragonfly-content-for-calculating-task-id"]
        piece_bytes = _size(request.headers["x-dragonfly-piece-length"])
        headers = {name: text for name, text in request.headers.items() if name not in _NEVER_FORWARDED}
        if task not in self._heads:
            status, found, _ = _ask_origin(request.target, headers | {"range": "bytes=0-0"})
            if status != 206:
                return Answer(status, _refusal(found))
            self._heads[task] = int(found.pop("content-range").rpartition("/")[2]), found
        size, found = self._heads[task]
        asked = request.byte_range(size)
        start, end = asked or (0, size)
        try:
            body = b"".join(
                self._piece(task, number, piece_bytes, size, request.target, headers)
                for number in range(start // piece_bytes, -(-end // piece_bytes))
            )
        except _Refused as refused:
            return Answer(refused.status, _refusal(refused.headers))
        first = start // piece_bytes * piece_bytes
        about = {name: text for name, text in found.items() if name != "content-length"}
        part = body[start - first : end - first]
        if asked is None:
            return Answer(200, about, part)
        return Answer(206, about | {"Content-Range": f"bytes {start}-{end - 1}/{size}"}, part)

    def _piece(self, task: str, number: int, piece_bytes: int, size: int, url: str, headers: dict[str, str]) -> bytes:
        with self.swarm.lock:
            if (task, number) not in self.swarm.pieces:
                start, end = number * piece_bytes, min((number + 1) * piece_bytes, size)
                status, found, body = _ask_origin(url, headers | {"range": f"bytes={start}-{end - 1}"})
                if status != 206:
                    raise _Refused(status, found)
                self.swarm.pieces[task, number] = body
                self.swarm.fetched.append((task, number))
            return self.swarm.pieces[task, number]


class _Refused(Exception):
    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers


def _refusal(headers: dict[str, str]) -> dict[str, str]:
    """The headers of an answer that repeats what the origin has refused."""
    return {name: text for name, text in headers.items() if name == "retry-after"} | {
        "X-Dragonfly-Error-Type": "backend"
    }


def _ask_origin(url: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(parts.netloc, timeout=10, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        found = {name.lower(): text for name, text in answer.getheaders()}
        if answer.status in (301, 302, 303, 307, 308):
            following = urljoin(url, found["location"])
            if urlsplit(following).netloc != parts.netloc:
                headers = {name: text for name, text in headers.items() if name not in _CREDENTIALS}
            return _ask_origin(following, headers)
        return answer.status, found, answer.read()
    finally:
        connection.close()


def _size(text: str) -> int:
    """A size as ``4MiB``."""
    digits = text.rstrip("iBbMm")
    return int(digits) * _UNITS[text[len(digits) :].lower()]
