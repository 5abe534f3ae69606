"""git over smart HTTP: ``git http-backend`` behind a ``FaultyServer``, with a Git LFS server beside each repository."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes.faulty_http import Answer, FaultyServer, Request, Resource
from fakes.trees import write_tree

USER, PASSWORD = "ada", "correct horse"
_LFS = "/info/lfs/"
_LFS_TYPE = {"Content-Type": "application/vnd.git-lfs+json"}
# Nothing that this machine's git is configured with.
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}


# Quick, which is what matters here.
_CONFIG = """
[http]
    receivepack = true
[uploadpack]
    allowFilter = true
[core]
    compression = 0
[gc]
    auto = 0
"""


def basic(user: str, password: str) -> str:
    """What the header says (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def git(*arguments: str | Path, cwd: Path | None = None, **options: Any) -> str:
    """What git says; its failure is an error."""
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        ["git", *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


class Repository:
    """A bare repository that is served, and a work tree to make its commits in."""

    def __init__(self, bare: Path, work: Path, url: str) -> None:
        self.bare = bare
        self.work = work
        self.url = url

    def commit(self, files: dict[str, bytes] | None = None, *, branch: str = "main") -> str:
        """Commit what is in the work tree, and ``files`` over it, to ``branch``; returns the commit."""
        write_tree(self.work, files or {})
        git("add", "--all", "--force", cwd=self.work)
        git("commit", "--quiet", "--allow-empty", "--message", "m", cwd=self.work)
        git("push", "--quiet", "--force", str(self.bare), f"HEAD:refs/heads/{branch}", cwd=self.work)
        return git("rev-parse", "HEAD", cwd=self.work)

    def tag(self, name: str, *, annotated: bool = False) -> None:
        git("tag", *(["--annotate", "--message", "m"] if annotated else []), name, cwd=self.work)
        git("push", "--quiet", str(self.bare), f"refs/tags/{name}", cwd=self.work)

    def configure(self, name: str, value: str) -> None:
        git("config", name, value, cwd=self.bare)

    def pointer(self, content: bytes) -> bytes:
        """What git has of a file that is in Git LFS."""
        oid = hashlib.sha256(content).hexdigest()
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()


def new_repository(folder: Path, name: str) -> Repository:
    """A repository that nobody serves yet."""
    bare, work = folder / name, folder / f"{name}.work"
    git("init", "--quiet", "--bare", "--initial-branch=main", bare)
    git("init", "--quiet", "--initial-branch=main", work)
    for config in (bare / "config", work / ".git/config"):
        with config.open("a") as file:
            file.write(_CONFIG)
    return Repository(bare, work, "")


class GitServer:
    """Repositories in ``folder``; ``private`` asks for ``USER`` and ``PASSWORD``.

    ``lfs`` are the Git LFS objects by id; ``link`` makes the "download" action of one, ``objects_url`` is
    where they are, ``lfs_answer`` replaces an answer to a batch.
    """

    def __init__(self, server: FaultyServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.private = False
        # What a proxy makes of the header Git-Protocol.
        self.protocol: Callable[[str], str] = lambda asked: asked
        self.lfs: dict[str, bytes] = {}
        self.lfs_ranges = True
        self.lfs_answer: Callable[[dict[str, Any]], object] = lambda answer: answer
        self.objects_url = f"{server.url}/lfs-objects"
        self.link: Callable[[str], object] = lambda oid: {
            "href": f"{self.objects_url}/{oid}",
            "header": {"X-Ticket": f"for-{oid}"},
        }
        server.routes["/git/"] = self._git
        server.routes["/lfs-objects/"] = self._lfs_object

    def create(self, name: str = "model.git", *, like: Path | None = None) -> Repository:
        """An empty repository, or one like that of a folder that ``new_repository`` made."""
        if like is None:
            new_repository(self.folder, name)
        else:
            for part in (name, f"{name}.work"):
                shutil.copytree(like / part, self.folder / part)
        return Repository(self.folder / name, self.folder / f"{name}.work", f"git+{self.server.url}/git/{name}")

    def keep(self, content: bytes) -> str:
        """Have this as a Git LFS object."""
        oid = hashlib.sha256(content).hexdigest()
        self.lfs[oid] = content
        return oid

    def _git(self, request: Request) -> Answer:
        if self.private and request.headers.get("authorization") != basic(USER, PASSWORD):
            return Answer(401, {"WWW-Authenticate": 'Basic realm="git"'})
        if request.path.endswith(f"{_LFS}objects/batch"):
            return self._batch(json.loads(request.body))
        if _LFS in request.path:
            return Answer(404)
        return self._backend(request)

    def _backend(self, request: Request) -> Answer:
        """RFC 3875, as far as ``git help http-backend`` says."""
        environment = ENVIRONMENT | {
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": request.path.removeprefix("/git"),
            "QUERY_STRING": request.query,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(request.body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.protocol(request.headers.get("git-protocol", "")),
            "REMOTE_USER": USER,
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=request.body, env=environment, capture_output=True, check=False
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n") if line)
        status = int(headers.pop("Status", "200").split(" ")[0])
        return Answer(status, headers, body)

    def _batch(self, question: dict[str, Any]) -> Answer:
        objects = []
        for item in question["objects"]:
            oid, size = item["oid"], item["size"]
            found: dict[str, Any] = {"oid": oid, "size": size}
            if question["operation"] == "upload":
                if oid not in self.lfs:
                    found["actions"] = {"upload": {"href": f"{self.objects_url}/{oid}"}}
            elif oid in self.lfs:
                found["actions"] = {"download": self.link(oid)}
            else:
                found["error"] = {"code": 404, "message": "Object does not exist"}
            objects.append(found)
        answer = self.lfs_answer({"transfer": "basic", "objects": objects, "hash_algo": "sha256"})
        return Answer(200, _LFS_TYPE, json.dumps(answer).encode())

    def _lfs_object(self, request: Request) -> Answer:
        oid = request.path.rpartition("/")[2]
        if request.method == "PUT":
            if hashlib.sha256(request.body).hexdigest() != oid:
                return Answer(422)
            self.lfs[oid] = request.body
            return Answer(200)
        if oid not in self.lfs:
            return Answer(404)
        if request.headers.get("x-ticket") != f"for-{oid}":
            return Answer(403)
        return Resource(self.lfs[oid], etag="", ranges=self.lfs_ranges).answer(request)
