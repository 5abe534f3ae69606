"""As much of the Hugging Face Hub as lading asks for, on the faulty server.

It is checked with huggingface_hub, the Hub's own client, in ``test_fake_hub.py``.  What it
answers is written down at https://huggingface.co/docs/hub/api and in that client's source.
"""

import hashlib
import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from fakes.faulty_http import Answer, FaultyServer, Request, Resource

LFS_BYTES = 64 * 1024


@dataclass(frozen=True)
class Blob:
    """A file's content and its names."""

    content: bytes | memoryview

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def git_sha1(self) -> str:
        return hashlib.sha1(b"blob %d\0%b" % (len(self.content), bytes(self.content))).hexdigest()

    @property
    def is_lfs(self) -> bool:
        return len(self.content) >= LFS_BYTES

    @property
    def facts(self) -> dict[str, Any]:
        """As a listing tells them; beside LFS, the oid is of the pointer."""
        if not self.is_lfs:
            return {"oid": self.git_sha1, "size": len(self.content)}
        lfs = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        return {"oid": hashlib.sha1(self.sha256.encode()).hexdigest(), "size": len(self.content), "lfs": lfs}


@dataclass
class Repository:
    """``commits`` are whole trees by their names, ``refs`` the names of branches and tags.

    ``gated`` and ``private`` ones answer only who has a token of ``readers``.  ``scans`` are the verdicts of the Hub's
    scanners by path; on any other file they say "safe".
    """

    id: str
    kind: str
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    readers: frozenset[str] = frozenset()
    scans: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes | memoryview], ref: str = "main") -> str:
        """A new commit, which ``ref`` stands for from now on; returns its name."""
        number = f"{self.id} {len(self.commits)}".encode()
        name = hashlib.sha1(number).hexdigest()
        self.commits[name] = {path: Blob(content) for path, content in files.items()}
        self.refs[ref] = name
        return name

    def put(self, path: str, content: bytes | memoryview) -> str:
        """The newest tree with this file."""
        newest = self.commits.get(self.refs.get("main", ""), {})
        return self.commit({path: blob.content for path, blob in newest.items()} | {path: content})

    @property
    def place(self) -> str:
        """The path that its files' URLs begin with."""
        return f"/{self.id}" if self.kind == "models" else f"/{self.kind}/{self.id}"

    def file_path(self, path: str, ref: str = "main") -> str:
        """The path that requests for a file have, for the server's faults."""
        return f"{self.place}/resolve/{self.refs[ref]}/{quote(path)}"


class FakeHub:
    """Repositories at the server's root; files from ``LFS_BYTES`` on live at ``content``, another server perhaps.

    ``page_entries`` is the length of a listing's page, ``expanded_entries`` that of one that tells all, ``link_uses`` how often a signed URL holds.  Without
    ``tree`` it is a mirror that knows no listing, without ``blobs`` one that tells names only; ``next_host`` is who a
    listing's next page is said to be at.
    """

    def __init__(self, server: FaultyServer, content: FaultyServer | None = None) -> None:
        self.server = server
        self.content_url = (content or server).url
        self.repositories: list[Repository] = []
        self.tokens: frozenset[str] = frozenset()
        self.page_entries = 1000
        self.expanded_entries = 50
        self.link_uses = math.inf
        self.tree = True
        self.blobs = True
        self.next_host = server.url
        self._links: dict[str, float] = {}
        self._lfs: dict[str, Blob] = {}
        (content or server).routes["/signed/"] = self._signed
        server.routes["/"] = self.answer

    def repository(self, name: str, kind: str = "models", **about: Any) -> Repository:
        self.repositories.append(Repository(name, kind, **about))
        return self.repositories[-1]

    def answer(self, request: Request) -> Answer:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.tokens | frozenset().union(*(each.readers for each in self.repositories)):
            return _error(401, "", "Invalid credentials in Authorization header")
        for repository in self.repositories:
            for place, act in (
                (f"/api/{repository.kind}/{repository.id}", self._api),
                (f"{repository.place}/resolve", self._resolve),
            ):
                if request.path == place or request.path.startswith(f"{place}/"):
                    if repository.private and token not in repository.readers:
                        break
                    return act(repository, request, request.path[len(place) + 1 :], token)
        # Who has no token is not told whether it exists.
        return _error(404 if token else 401, "RepoNotFound", "Repository not found")

    def _api(self, repository: Repository, request: Request, rest: str, token: str) -> Answer:
        call, _, rest = rest.partition("/")
        if call == "refs":
            refs = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repository.refs.items()]
            return _json({"branches": refs, "tags": [], "converts": []})
        if call == "auth-check":
            return _gated(token) if repository.gated and token not in repository.readers else _json({})
        ref, _, path = rest.partition("/")
        commit = _commit(repository, unquote(ref) or "main")
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {unquote(ref)}")
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        files = repository.commits[commit]
        if call == "tree":
            if not self.tree:
                return Answer(404, {}, b"<html>no such page</html>")
            return self._tree(repository, files, unquote(path), query, request.path)
        told = "blobs" in query and self.blobs
        siblings = [{"rfilename": path} | (_as_sibling(blob) if told else {}) for path, blob in files.items()]
        return _json(
            {
                "id": repository.id,
                "sha": commit,
                "private": repository.private,
                "gated": "auto" if repository.gated else False,
                "siblings": siblings,
            }
        )

    def _tree(
        self, repository: Repository, files: dict[str, Blob], folder: str, query: dict[str, str], place: str
    ) -> Answer:
        prefix = f"{folder}/" if folder else ""
        below = sorted(path for path in files if path.startswith(prefix))
        if folder and not below:
            return _error(404, "EntryNotFound", f"{folder} does not exist")
        folders = {path[:at] for path in below for at in range(len(prefix), len(path)) if path[at] == "/"}
        entries = [_folder(path) for path in sorted(folders)] + [
            {"type": "file", "path": path} | files[path].facts for path in below
        ]
        if query.get("recursive", "false").lower() != "true":
            entries = [entry for entry in entries if "/" not in entry["path"][len(prefix) :]]
        expanded = query.get("expand", "false").lower() == "true"
        if expanded:
            entries = [entry | _security(repository, entry) for entry in entries]
        start = int(urlsafe_b64decode(query.get("cursor", "")) or b"0")
        end = start + (self.expanded_entries if expanded else self.page_entries)
        headers = {}
        if end < len(entries):
            cursor = quote(urlsafe_b64encode(b"%d" % end).decode())
            kept = "&".join(f"{name}={quote(text)}" for name, text in query.items() if name != "cursor")
            headers["Link"] = f'<{self.next_host}{place}?{kept}&cursor={cursor}>; rel="next"'
        return _json(entries[start:end], headers)

    def _resolve(self, repository: Repository, request: Request, rest: str, token: str) -> Answer:
        ref, _, path = rest.partition("/")
        commit = _commit(repository, unquote(ref))
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {unquote(ref)}")
        if repository.gated and token not in repository.readers:
            return _gated(token)
        blob = repository.commits[commit].get(unquote(path))
        if blob is None:
            return _error(404, "EntryNotFound", f"{path} does not exist")
        about = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not blob.is_lfs:
            return Resource(blob.content, f'"{blob.git_sha1}"', headers=about, conditions=False).answer(request)
        about |= {"X-Linked-Size": str(len(blob.content)), "X-Linked-Etag": f'"{blob.sha256}"'}
        self._lfs[blob.sha256] = blob
        link = f"/signed/{blob.sha256}?X-Amz-Expires=3600&X-Amz-Signature={len(self._links)}"
        self._links[link] = self.link_uses
        return Answer(302, about | {"Location": self.content_url + link}, b"Found. Redirecting")

    def _signed(self, request: Request) -> Answer:
        """The content network: it knows signatures and no tokens, and has its own ETags."""
        left = self._links.get(request.target, 0)
        if left <= 0:
            return Answer(403, {}, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        self._links[request.target] = left - 1
        name = request.path.removeprefix("/signed/")
        return Resource(self._lfs[name].content, f'"{name[:32]}"').answer(request)


def _commit(repository: Repository, ref: str) -> str | None:
    return ref if ref in repository.commits else repository.refs.get(ref)


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}


def _security(repository: Repository, entry: dict[str, Any]) -> dict[str, Any]:
    if entry["type"] != "file":
        return {}
    status = repository.scans.get(entry["path"], "safe")
    scans = {name: {"status": status} for name in ("avScan", "pickleImportScan")}
    return {"securityFileStatus": {"status": status, **scans}}


def _as_sibling(blob: Blob) -> dict[str, Any]:
    facts = blob.facts
    about = {"size": facts["size"], "blobId": facts["oid"]}
    if "lfs" in facts:
        lfs = facts["lfs"]
        about["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
    return about


def _gated(token: str) -> Answer:
    return _error(403 if token else 401, "GatedRepo", "Access to this repository is restricted")


def _error(status: int, code: str, message: str) -> Answer:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return _json({"error": message}, headers, status)


def _json(value: object, headers: dict[str, str] | None = None, status: int = 200) -> Answer:
    about = {"Content-Type": "application/json; charset=utf-8"} | (headers or {})
    return Answer(status, about, json.dumps(value).encode())
