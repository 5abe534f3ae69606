"""As much of WebHDFS as lading asks for, on the faulty server: a namenode, and a datanode that it redirects to.

It is checked with the ``hdfs`` package in ``test_fake_webhdfs.py``, and what it answers was
compared with a real cluster's, which ``real/test_hdfs.py`` starts.
"""

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from awscrt.checksums import crc32c

from fakes.faulty_http import Answer, FaultyServer, Request

PREFIX = "/webhdfs/v1"
CHUNK_BYTES = 512
_STATUS = {
    "AccessControlException": 403,
    "FileNotFoundException": 404,
    "IOException": 403,
    "IllegalArgumentException": 400,
    "InvalidToken": 403,
    "RetriableException": 403,
    "SecurityException": 401,
    "StandbyException": 403,
}
_CRCS = {"CRC32": zlib.crc32, "CRC32C": crc32c}
_OPERATIONS = frozenset(
    {"OPEN", "GETFILESTATUS", "LISTSTATUS", "LISTSTATUS_BATCH", "GETFILECHECKSUM", "GETFILEBLOCKLOCATIONS"}
    | {"GETHOMEDIRECTORY"}
)
_inodes = count(16387)


@dataclass(frozen=True)
class HdfsFile:
    """A file; ``block_sizes`` of one that was appended to or concatenated, else blocks of one size.

    ``about`` goes into its status.  ``checksum`` replaces what GETFILECHECKSUM answers.
    """

    content: bytes
    inode: int
    block_sizes: tuple[int, ...] = ()
    crc: str = "CRC32C"
    about: dict[str, object] = field(default_factory=dict)
    checksum: Callable[[], Answer] | None = None


def of(request: Request) -> str:
    """The operation that a request is for."""
    return parse_qs(request.query).get("op", [""])[0]


def at_datanode(request: Request) -> bool:
    return "namenoderpcaddress" in request.query


def opens(request: Request) -> bool:
    """Whether this request asks for content, and will get it."""
    return of(request) == "OPEN" and at_datanode(request)


class FakeWebHdfs:
    """A cluster at ``server``; ``datanode`` is the same server, if it is not given.

    ``refuse`` looks at each request to the namenode and names an exception, or nothing.  ``without`` are
    operations that this version does not have.  What a datanode must know of the user is in the redirect:
    ``token`` stands for it where the namenode asks for credentials.
    """

    def __init__(self, server: FaultyServer, datanode: FaultyServer | None = None, block_bytes: int = 256 * 1024):
        self.files: dict[str, HdfsFile] = {}
        self.folders: set[str] = {""}
        self.block_bytes = block_bytes
        self.page_files = 1000
        self.without: set[str] = set()
        self.refuse: Callable[[Request], str | None] = lambda request: None
        self.server = server
        self.datanode = datanode or server
        self.token = ""
        server.routes[PREFIX] = self.answer
        self.datanode.routes[PREFIX] = self.answer

    def put(self, path: str, content: bytes, **about: Any) -> None:
        self.files[path] = HdfsFile(content, next(_inodes), **about)
        self.make_folder(path.rpartition("/")[0])

    def make_folder(self, path: str) -> None:
        while path:
            self.folders.add(path)
            path = path.rpartition("/")[0]

    def answer(self, request: Request) -> Answer:
        query = {name: values[0] for name, values in parse_qs(request.query, keep_blank_values=True).items()}
        path = unquote(request.path.removeprefix(PREFIX)).rstrip("/")
        operation = query.get("op", "")
        if not at_datanode(request) and (name := self.refuse(request)):
            return error(name)
        if operation in self.without or operation not in _OPERATIONS:
            return error("IllegalArgumentException")
        if operation == "GETHOMEDIRECTORY":
            return _json({"Path": f"/user/{query.get('user.name', 'dr.who')}"})
        if path not in self.files and path not in self.folders:
            return error("FileNotFoundException")
        if operation in ("OPEN", "GETFILECHECKSUM"):
            if not at_datanode(request):
                return self._redirect(request, query)
            if self.token and query.get("delegation") != self.token:
                return error("SecurityException")
        answer: Answer = getattr(self, f"_{operation.lower()}")(path, query)
        return answer

    def _redirect(self, request: Request, query: dict[str, str]) -> Answer:
        asked = {name: text for name, text in query.items() if name != "delegation"}
        asked |= {"delegation": self.token} if self.token else {}
        text = "&".join(f"{name}={quote(value)}" for name, value in asked.items())
        location = f"{self.datanode.url}{request.path}?{text}&namenoderpcaddress=namenode:8020"
        return Answer(307, {"Location": location})

    def _open(self, path: str, query: dict[str, str]) -> Answer:
        content = self.files[path].content
        start = int(query.get("offset", "0"))
        end = start + int(query["length"]) if "length" in query else None
        return Answer(200, {"Content-Type": "application/octet-stream", "Connection": "close"}, content[start:end])

    def _getfilestatus(self, path: str, query: dict[str, str]) -> Answer:
        return _json({"FileStatus": self._status(path, "")})

    def _liststatus(self, path: str, query: dict[str, str]) -> Answer:
        return _json({"FileStatuses": {"FileStatus": self._statuses(path)}})

    def _liststatus_batch(self, path: str, query: dict[str, str]) -> Answer:
        found = [status for status in self._statuses(path) if status["pathSuffix"] > query.get("startAfter", "")]
        if path in self.files:
            found = self._statuses(path)
        page = found[: self.page_files]
        listing = {"FileStatuses": {"FileStatus": page}}
        return _json({"DirectoryListing": {"partialListing": listing, "remainingEntries": len(found) - len(page)}})

    def _getfilechecksum(self, path: str, query: dict[str, str]) -> Answer:
        file = self.files[path]
        if file.checksum is not None:
            return file.checksum()
        sizes = self._block_sizes(path)
        crcs_per_block = -(-sizes[0] // CHUNK_BYTES) if len(sizes) > 1 else 0
        md5 = checksum(file.content, sizes, file.crc)
        return _json(
            {
                "FileChecksum": {
                    "algorithm": f"MD5-of-{crcs_per_block}MD5-of-{CHUNK_BYTES}{file.crc}",
                    "bytes": f"{CHUNK_BYTES:08x}{crcs_per_block:016x}{md5}00000000",
                    "length": 28,
                }
            }
        )

    def _getfileblocklocations(self, path: str, query: dict[str, str]) -> Answer:
        blocks, at = [], 0
        for size in self._block_sizes(path):
            blocks.append({"offset": at, "length": size, "hosts": ["datanode"], "corrupt": False})
            at += size
        return _json({"BlockLocations": {"BlockLocation": blocks}})

    def _block_sizes(self, path: str) -> tuple[int, ...]:
        file = self.files[path]
        whole, rest = divmod(len(file.content), self.block_bytes)
        return file.block_sizes or (*[self.block_bytes] * whole, *([rest] if rest else []))

    def _statuses(self, path: str) -> list[dict[str, Any]]:
        if path in self.files:
            return [self._status(path, "")]
        inside = {name for name in (*self.files, *self.folders) if name and name.rpartition("/")[0] == path}
        return [self._status(name, name.rpartition("/")[2]) for name in sorted(inside)]

    def _status(self, path: str, suffix: str) -> dict[str, Any]:
        file = self.files.get(path)
        status = {
            "pathSuffix": suffix,
            "type": "FILE" if file else "DIRECTORY",
            "length": len(file.content) if file else 0,
            "fileId": file.inode if file else 16386,
            "modificationTime": 1795329532401,
            "accessTime": 0,
            "blockSize": self.block_bytes,
            "replication": 1,
            "permission": "644",
            "owner": "hdfs",
            "group": "supergroup",
            **(file.about if file else {}),
        }
        return {name: value for name, value in status.items() if value is not None}


def checksum(content: bytes, block_sizes: tuple[int, ...], crc: str = "CRC32C") -> str:
    """HDFS's MD5 of the MD5s of the CRCs, in hexadecimal."""
    md5s, start = b"", 0
    for size in block_sizes:
        block = content[start : start + size]
        chunks = [block[at : at + CHUNK_BYTES] for at in range(0, size, CHUNK_BYTES)]
        md5s += hashlib.md5(b"".join(_CRCS[crc](chunk).to_bytes(4, "big") for chunk in chunks)).digest()
        start += size
    padded = 32
    while padded < len(md5s):
        padded *= 2
    return hashlib.md5(md5s.ljust(padded, b"\0")).hexdigest()


def error(name: str, status: int = 0) -> Answer:
    body = {"RemoteException": {"exception": name, "javaClassName": f"java.io.{name}", "message": f"{name} s3cret"}}
    return replace(_json(body), status=status or _STATUS[name])


def _json(value: object) -> Answer:
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())
