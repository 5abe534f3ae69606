"""Git LFS: large files live beside the repository, which holds pointers to them.

https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md and, below docs/api, ``batch.md`` and
``basic-transfers.md``.  Links to objects, and the headers for them, are the LFS server's words: they are
used for that one object and for nothing else.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urljoin

from lading.errors import LadingError, NotAllowed, NotFound, Unsupported
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import ListedFile
from lading.model.origin import split_url
from lading.model.uri import redact
from lading.network.answer import Answer, read_probe, status_error
from lading.network.client import Headers, HttpClient
from lading.network.headers import check_answer, range_header
from lading.network.links import Link, Links
from lading.network.wire import Head
from lading.sources.source import Sink
from lading.text.json_xml import read_json
from lading.text.printable import printable

# The specification: a pointer is shorter than this.
POINTER_BYTES = 1024
# As git-lfs itself reads one (lfs/pointer.go): with line ends of Windows, empty lines or no end of the last line, as
# programs leave it that take a pointer for a text, and with the names of the specification before version 1.
_POINTER = re.compile(
    rb"\s*version (?:https://(?:git-lfs|hawser)\.github\.com/spec/v1|http://git-media\.io/v/2)(?:\r?\n)+"
    rb"((?:ext-[^\n]*\n)*)oid sha256:([0-9a-f]{64})(?:\r?\n)+size ([0-9]{1,18})\s*"
)
_JSON = "application/vnd.git-lfs+json"
_LIMIT_BYTES = 8 << 20
_MOST_OBJECTS = 100
# What lading says itself, and what would change how the request is read.
_OWN_HEADERS = frozenset({"host", "range", "connection", "content-length", "transfer-encoding", "te", "upgrade"})


class Pointer(NamedTuple):
    """What a file's pointer says of it."""

    sha256: str
    size_bytes: int


def parse_pointer(content: bytes, path: str) -> Pointer | None:
    """The pointer that a small file is; None if it is a file like any other."""
    match = _POINTER.fullmatch(content)
    if match is None:
        return None
    extensions, sha256, size = match.groups()
    if extensions:
        raise Unsupported(f"{printable(path)} is in Git LFS with an extension, a program that would change its content")
    return Pointer(sha256.decode(), int(size))


class LfsServer:
    """The objects of one LFS server; ``headers`` authorise what is asked of its own origin."""

    def __init__(self, url: str, headers: Headers, http: HttpClient) -> None:
        self._url = url
        self._shown = redact(url)
        self._headers = headers
        self._http = http
        self._links = Links(http)

    def find(self, pointers: Mapping[str, Pointer]) -> bool:
        """Ask for the links of these files, by path; whether parts of objects can be asked for.

        An object that the server lacks is an error only when it is read: its file may not be wanted.
        """
        unique = list({pointer: path for path, pointer in pointers.items()}.items())
        known: list[tuple[Pointer, str]] = []
        for start in range(0, len(unique), _MOST_OBJECTS):
            wanted = unique[start : start + _MOST_OBJECTS]
            answers, before = self._answers(wanted), len(known)
            known += [(pointer, path) for pointer, path in wanted if "error" not in answers.get(pointer.sha256, {})]
            self._links.keep(
                {pointer.sha256: self._link(answers.get(pointer.sha256), path) for pointer, path in known[before:]}
            )
        largest = max(known, key=lambda each: each[0].size_bytes, default=(Pointer("", 0), ""))
        return largest[0].size_bytes > 0 and self._has_ranges(*largest)

    def _has_ranges(self, pointer: Pointer, path: str) -> bool:
        """By a request for one byte."""
        what = self._what(path)

        send = partial(self._open, pointer, path, [("Range", "bytes=0-0")])
        return self._http.ask(send, partial(read_probe, what=what), what=what).status == 206

    def read(self, file: ListedFile, pointer: Pointer, byte_range: ByteRange, sink: Sink) -> None:
        """Push the bytes of ``byte_range``; one attempt."""
        with self._open(pointer, file.path, range_header(byte_range, pointer.size_bytes)) as answer:
            check_answer(answer.head, byte_range, pointer.size_bytes, self._what(file.path))
            answer.read_into(sink.write)

    def _what(self, path: str) -> str:
        return f"the Git LFS object of {printable(path)}"

    def _open(self, pointer: Pointer, path: str, headers: Headers) -> Answer:
        def find() -> Link:
            return self._link(self._answers([(pointer, path)]).get(pointer.sha256), path)

        return self._links.open(pointer.sha256, find, headers, what=self._what(path))

    def _answers(self, wanted: Sequence[tuple[Pointer, str]]) -> dict[str, Mapping[str, Any]]:
        """What the server says of each object, by id: up to a hundred at a time."""
        objects = [{"oid": pointer.sha256, "size": pointer.size_bytes} for pointer, _ in wanted]
        question = {"operation": "download", "transfers": ["basic"], "objects": objects, "hash_algo": "sha256"}
        head, body = self._http.fetch(
            "POST",
            f"{self._url}/objects/batch",
            [*self._headers, ("Accept", _JSON), ("Content-Type", _JSON)],
            body=json.dumps(question).encode(),
            what=self._shown,
            limit_bytes=_LIMIT_BYTES,
        )
        if head.status != 200:
            raise status_error(head, f"the Git LFS server {self._shown}")
        return _parsed(body, self._shown)

    def _link(self, answer: Mapping[str, Any] | None, path: str) -> Link:
        if answer is None:
            raise Unsupported(f"the Git LFS server {self._shown} says nothing about {printable(path)}")
        failure = answer.get("error")
        if isinstance(failure, dict):
            raise self._failed(failure.get("code"), path)
        try:
            action = answer["actions"]["download"]
            headers = [(str(name), str(value)) for name, value in (action.get("header") or {}).items()]
            url = urljoin(f"{self._url}/", action["href"])
            expires_at_s = _expiry(action)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise Unsupported(f"the Git LFS server {self._shown} gives no link to {printable(path)}") from error
        server, target = split_url(self._url)[0], split_url(url)[0]
        if server.scheme == "https" and target.scheme != "https":
            raise NotAllowed(f"the Git LFS server {self._shown} leads to an unencrypted URL ({target})")
        headers = [(name, value) for name, value in headers if name.lower() not in _OWN_HEADERS]
        named = {name.lower() for name, _ in headers}
        if target == server and not answer.get("authenticated") and "authorization" not in named:
            headers += self._headers
        return Link(url, headers, expires_at_s)

    def _failed(self, code: object, path: str) -> LadingError:
        """An object's own error, whose code is that of a status (batch.md, "Object error")."""
        if code in (404, 410, 422):
            return NotFound(
                f"the Git LFS server lacks the object of {printable(path)}",
                hint="it was never pushed there, or was removed",
            )
        return status_error(Head(code if isinstance(code, int) else 0, {}), self._what(path))


def _parsed(body: bytes, what: str) -> dict[str, Mapping[str, Any]]:
    try:
        answer = read_json(body)
        if answer.get("transfer", "basic") != "basic" or answer.get("hash_algo", "sha256") != "sha256":
            raise Unsupported(f"the Git LFS server {what} uses another transfer method than requested")
        return {item["oid"]: item for item in answer["objects"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unsupported(f"{what} does not answer as a Git LFS server") from error


def _expiry(action: Mapping[str, Any]) -> float | None:
    lasts_s, at = action.get("expires_in"), action.get("expires_at")
    if lasts_s:
        return time.time() + float(lasts_s)
    # RFC 3339; Go's zero time, of year 1, means that there is none.
    if isinstance(at, str) and at and not at.startswith("0001-"):
        return datetime.fromisoformat(at).timestamp()
    return None


def lfs_file(path: str, pointer: Pointer, *, ranged: bool) -> ListedFile:
    """What is delivered in the place of a pointer."""
    digest = Digest("sha256", pointer.sha256)
    return ListedFile(path, pointer.size_bytes, str(digest), (digest,), ranged=ranged)


def configured_url(lfsconfig: bytes) -> str:
    """``lfs.url`` of the repository's own configuration, or "" (``git lfs-config``)."""
    section = ""
    for line in _config_lines(lfsconfig):
        if line.startswith("["):
            section = line.strip("[] \t").lower()
        key, equals, value = line.partition("=")
        if section == "lfs" and equals and key.strip().lower() == "url":
            return value.strip().strip('"')
    return ""


def _config_lines(text: bytes) -> Iterable[str]:
    return (line.strip() for line in text.decode("utf-8", "replace").splitlines())
