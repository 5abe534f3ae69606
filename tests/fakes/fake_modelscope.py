"""As much of ModelScope as lading asks for, on the faulty server.

It is checked with modelscope_hub, ModelScope's own client, in ``test_fake_modelscope.py``; the
fields of a listing are those of answers that others have published.
"""

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs

from fakes.fake_hub import Blob
from fakes.faulty_http import Answer, FaultyServer, Request, Resource

_PREFIX = "/api/v1/models/"


@dataclass
class Model:
    """``commits`` are whole trees by their names, ``refs`` the names of branches and tags.

    A private one answers only who has a token of ``readers``.
    """

    id: str
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    readers: frozenset[str] | None = None

    def commit(self, files: dict[str, bytes | memoryview], ref: str = "master") -> str:
        """A new commit, which ``ref`` stands for from now on; returns its name."""
        name = hashlib.sha1(f"{self.id} {len(self.commits)}".encode()).hexdigest()
        self.commits[name] = {path: Blob(content) for path, content in files.items()}
        self.refs[ref] = name
        return name

    def put(self, path: str, content: bytes | memoryview) -> str:
        """The newest tree with this file."""
        newest = self.commits.get(self.refs.get("master", ""), {})
        return self.commit({path: blob.content for path, blob in newest.items()} | {path: content})

    def last_change(self, path: str, commit: str) -> str:
        """The commit that brought what ``path`` is at ``commit``."""
        names = list(self.commits)
        at = names.index(commit)
        while at and (before := self.commits[names[at - 1]].get(path)) and before == self.commits[commit][path]:
            at -= 1
        return names[at]


class FakeModelScope:
    """Models, and the large files of them at ``content``, another server perhaps.

    ``names_commits`` says whether a listing tells the commit it is of: the site does not always.  ``link_uses`` is
    how often a signed URL holds.
    """

    def __init__(self, server: FaultyServer, content: FaultyServer | None = None) -> None:
        self.server = server
        self.content_url = (content or server).url
        self.models: list[Model] = []
        self.most_entries = 3000
        self.names_commits = True
        self.link_uses = math.inf
        self._links: dict[str, float] = {}
        self._large: dict[str, Blob] = {}
        (content or server).routes["/signed/"] = self._signed
        server.routes[_PREFIX] = self.answer

    def model(self, name: str, **about: Any) -> Model:
        self.models.append(Model(name, **about))
        return self.models[-1]

    def answer(self, request: Request) -> Answer:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        owner, name, *rest = request.path.removeprefix(_PREFIX).split("/")
        for model in self.models:
            if model.id == f"{owner}/{name}":
                if model.readers is not None and token not in model.readers:
                    return _error(403 if token else 401)
                return self._about(model, "/".join(rest), query, request)
        return _error(404)

    def _about(self, model: Model, call: str, query: dict[str, str], request: Request) -> Answer:
        if not call:
            return _json({"Id": 1, "Path": model.id.partition("/")[0], "Name": model.id.partition("/")[2]})
        if call == "revisions":
            branches = [{"Revision": name, "CreatedAt": 1_700_000_000} for name in model.refs]
            return _json({"RevisionMap": {"Branches": branches, "Tags": []}})
        ref = query.get("Revision", "master")
        commit = ref if ref in model.commits else model.refs.get(ref)
        if commit is None:
            return _error(404)
        if call == "repo/files":
            return self._list(model, commit, query.get("Root", ""), recursive=query.get("Recursive") == "True")
        blob = model.commits[commit].get(query.get("FilePath", ""))
        return _error(404) if call != "repo" or blob is None else self._read(blob, request)

    def _list(self, model: Model, commit: str, folder: str, *, recursive: bool) -> Answer:
        prefix = f"{folder}/" if folder else ""
        files = model.commits[commit]
        below = sorted(path for path in files if path.startswith(prefix))
        if folder and not below:
            return _error(404)
        folders = {path[:at] for path in below for at in range(len(prefix), len(path)) if path[at] == "/"}
        entries = [_entry(path, "tree", "", 0) for path in sorted(folders)]
        for path in below:
            blob, changed = files[path], model.last_change(path, commit)
            about = {"Sha256": blob.sha256, "IsLFS": blob.is_lfs}
            entries.append(_entry(path, "blob", changed, len(blob.content)) | about)
        if not recursive:
            entries = [entry for entry in entries if "/" not in entry["Path"][len(prefix) :]]
        latest = {"Id": commit if self.names_commits else "", "ShortId": commit[:8]}
        return _json({"Files": entries[: self.most_entries], "LatestCommitter": latest})

    def _read(self, blob: Blob, request: Request) -> Answer:
        if not blob.is_lfs:
            # Whatever range was asked for.
            return Answer(200, {"Content-Type": "application/octet-stream"}, blob.content)
        self._large[blob.sha256] = blob
        link = f"/signed/{blob.sha256}?Expires=1&OSSAccessKeyId=id&Signature={len(self._links)}"
        self._links[link] = self.link_uses
        return Answer(302, {"Location": self.content_url + link})

    def _signed(self, request: Request) -> Answer:
        left = self._links.get(request.target, 0)
        if left <= 0:
            return Answer(403, {}, b"<Error><Code>AccessDenied</Code><Message>Request has expired.</Message></Error>")
        self._links[request.target] = left - 1
        blob = self._large[request.path.removeprefix("/signed/")]
        answer = Resource(blob.content, f'"{blob.sha256[:32].upper()}"').answer(request)
        return replace(answer, headers=answer.headers | {"X-Linked-ETag": f'"{blob.sha256}"'})


def _entry(path: str, kind: str, commit: str, size: int) -> dict[str, Any]:
    about = {"CommitMessage": "upload", "CommittedDate": 1_726_842_501, "CommitterName": "someone", "InCheck": False}
    place = {"Name": path.rpartition("/")[2], "Path": path, "Type": kind, "Mode": "33188", "Size": size}
    return about | place | {"Revision": commit, "IsLFS": False, "Sha256": ""}


def _error(status: int) -> Answer:
    return _json(None, status)


def _json(data: object, status: int = 200) -> Answer:
    # The numbers of its own errors are long, and not the status.
    code = status if status == 200 else 10_010_205_001
    body = {"Code": code, "Data": data, "Message": "", "RequestId": "1", "Success": status == 200}
    return Answer(status, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(body).encode())
