"""As much of Cloud Storage's JSON API as lading asks for, on the faulty server.

It is checked with google-cloud-storage, its own client, in ``test_fake_gcs.py``.  Whoever
brings a token is let in, unless ``refuse`` says otherwise.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import google_crc32c

from fakes.faulty_http import Answer, FaultyServer, Request, Resource


@dataclass(frozen=True)
class GcsObject:
    """One generation of an object; a ``composite`` one has no MD5, ``declares`` none has no digest at all."""

    content: bytes | memoryview
    generation: str
    encoding: str = ""
    composite: bool = False
    declares: bool = True

    @cached_property
    def digests(self) -> dict[str, str]:
        if not self.declares:
            return {}
        crc32c = google_crc32c.Checksum()
        for at in range(0, len(self.content), 1 << 20):
            crc32c.update(bytes(self.content[at : at + (1 << 20)]))
        found = {"crc32c": base64.b64encode(crc32c.digest()).decode()}
        if not self.composite:
            md5 = hashlib.md5(self.content, usedforsecurity=False)
            found["md5Hash"] = base64.b64encode(md5.digest()).decode()
        return found


class FakeGcs:
    """One bucket.

    ``refuse`` looks at each request and gives a status and a reason, or nothing.  With ``versions`` a
    generation stays readable after another one took its place; without ``pins`` it gives the newest whatever
    generation was asked for.
    """

    def __init__(self, server: FaultyServer, bucket: str = "models", prefix: str = "") -> None:
        self.bucket = bucket
        self.objects: dict[str, GcsObject] = {}
        self.older: dict[tuple[str, str], GcsObject] = {}
        self.refuse: Callable[[Request], tuple[int, str] | None] = lambda request: None
        self.page_names = 1000
        self.versions = False
        self.pins = True
        self.server = server
        self._generations = count(1_700_000_000_000_001)
        self.listing = f"{prefix}/storage/v1/b/{bucket}/o"
        self._media = f"{prefix}/download/storage/v1/b/{bucket}/o"
        server.routes[f"{prefix}/storage/v1/b/"] = self.answer
        server.routes[f"{prefix}/download/storage/v1/b/"] = self.answer

    def put(self, name: str, content: bytes | memoryview, **about: Any) -> None:
        if name in self.objects:
            old = self.objects[name]
            self.older[name, old.generation] = old
        self.objects[name] = GcsObject(content, str(next(self._generations)), **about)

    def media(self, name: str) -> str:
        """The path that requests for an object's content have, for the server's faults."""
        return f"{self._media}/{quote(name, safe='~')}"

    def answer(self, request: Request) -> Answer:
        refused = self.refuse(request)
        if refused is not None:
            return error(*refused)
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        if request.path == self.listing:
            return self._list(query)
        for path, reply in ((self.listing, self._about), (self._media, self._content)):
            if request.path.startswith(f"{path}/"):
                found = self._found(unquote(request.path.removeprefix(f"{path}/")), query)
                return reply(*found, request) if found else error(404, "notFound")
        return error(404, "notFound")

    def _found(self, name: str, query: dict[str, str]) -> tuple[str, GcsObject] | None:
        found = self.objects.get(name)
        wanted = query.get("generation") if self.pins else None
        if wanted and (found is None or found.generation != wanted):
            found = self.older.get((name, wanted)) if self.versions else None
        return (name, found) if found else None

    def _about(self, name: str, found: GcsObject, request: Request) -> Answer:
        return _json(self._item(name, found))

    def _content(self, name: str, found: GcsObject, request: Request) -> Answer:
        hashes = ",".join(f"{key.removesuffix('Hash')}={value}" for key, value in found.digests.items())
        about = {"X-Goog-Generation": found.generation, "Content-Type": "application/octet-stream"}
        about |= {"X-Goog-Hash": hashes} if hashes else {}
        resource = Resource(found.content, f'"{found.generation}"', headers=about)
        if not found.encoding:
            return resource.answer(request)
        if found.encoding != "gzip" or "gzip" in request.headers.get("accept-encoding", ""):
            return resource.answer(request).with_headers(Content_Encoding=found.encoding)
        # Decompressive transcoding: no range, no length, and the digests of what is stored.
        return Answer(200, about, gzip.decompress(found.content), framing="chunked")

    def _item(self, name: str, found: GcsObject) -> dict[str, object]:
        link = f"{self.server.url}{self.media(name)}?generation={found.generation}&alt=media"
        item: dict[str, object] = {
            "kind": "storage#object",
            "bucket": self.bucket,
            "name": name,
            "size": str(len(found.content)),
            "generation": found.generation,
            "mediaLink": link,
        }
        return item | found.digests | ({"contentEncoding": found.encoding} if found.encoding else {})

    def _list(self, query: dict[str, str]) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = base64.urlsafe_b64decode(query.get("pageToken", "")).decode()
        most = min(int(query.get("maxResults", "1000")), self.page_names)
        names = sorted({self._rolled_up(name, prefix, delimiter) for name in self.objects if name.startswith(prefix)})
        names = [name for name in names if name > after]
        page, rest = names[:most], names[most:]
        found: dict[str, object] = {"kind": "storage#objects"}
        items = [self._item(name, self.objects[name]) for name in page if name in self.objects]
        prefixes = [name for name in page if name not in self.objects]
        # What is empty is left out, as Google does.
        found |= {"items": items} if items else {}
        found |= {"prefixes": prefixes} if prefixes else {}
        found |= {"nextPageToken": base64.urlsafe_b64encode(page[-1].encode()).decode()} if rest else {}
        return _json(found)

    @staticmethod
    def _rolled_up(name: str, prefix: str, delimiter: str) -> str:
        head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
        return f"{prefix}{head}{found}" if found else name


def error(status: int, reason: str, message: str = "se-cret") -> Answer:
    """An error as the JSON API writes it; its message is nobody's business."""
    errors = [{"domain": "global", "reason": reason, "message": message}]
    return _json({"error": {"code": status, "message": message, "errors": errors}}, status)


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(value).encode())
