"""As much of an OCI registry as lading asks for, on the faulty server, with its token service.

It is checked with oras, in ``test_fake_oci.py``.  Real registries are in ``real/test_docker_registry.py``.
"""

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from fakes.faulty_http import Answer, FaultyServer, Request, Resource

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
TITLE = "org.opencontainers.image.title"

Member = tuple[str, bytes | str] | tarfile.TarInfo


def tar(*members: Member) -> bytes:
    """A layer: (name, content) is a file, (name, "-> target") a symbolic link, (name, "= target") a hard one."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                kind, _, info.linkname = content.partition(" ")
                info.type = {"->": tarfile.SYMTYPE, "=": tarfile.LNKTYPE, "/": tarfile.DIRTYPE}[kind]
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def digest_of(data: bytes | memoryview) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class FakeRegistry:
    """One repository.  ``authorize`` looks at each request and gives the answer that refuses it, or nothing.

    Without ``lists_referrers``, it has no API for that, and whoever adds one lists it under the tag in its place.
    A page of them has ``page_size`` entries.
    """

    def __init__(self, server: FaultyServer, repository: str = "team/model") -> None:
        self.server = server
        self.lists_referrers = True
        self.page_size = 1000
        self.repository = repository
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, Resource] = {}
        self.authorize: Callable[[Request], Answer | None] = lambda request: None
        server.routes["/v2/"] = self.answer

    @property
    def host(self) -> str:
        return self.server.url.partition("://")[2]

    def uri(self, reference: str = "latest", scheme: str = "oci") -> str:
        mark = "@" if ":" in reference else ":"
        return f"{scheme}://{self.host}/{self.repository}{mark}{reference}"

    def path(self, kind: str, reference: str) -> str:
        """The path of requests for one of the ``manifests`` or ``blobs``, for the server's faults."""
        return f"/v2/{self.repository}/{kind}/{reference}"

    def put_blob(self, data: bytes | memoryview, media_type: str, *, ranges: bool = True) -> dict[str, Any]:
        """Keep a blob; returns its descriptor."""
        digest = digest_of(data)
        self.blobs[digest] = Resource(data, etag=f'"{digest}"', ranges=ranges)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def put_manifest(self, tag: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Keep a manifest under a tag and its digest; returns its descriptor."""
        body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST} | manifest).encode()
        self.manifests[tag] = self.manifests[digest_of(body)] = body
        return {"mediaType": MANIFEST, "digest": digest_of(body), "size": len(body)}

    def put_referrer(self, subject: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Keep a manifest that refers to the one with the digest ``subject``; returns its descriptor."""
        named = {"mediaType": MANIFEST, "digest": subject, "size": len(self.manifests[subject])}
        body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "subject": named} | manifest).encode()
        self.manifests[digest_of(body)] = body
        if not self.lists_referrers:
            index = {"mediaType": INDEX, "manifests": self.referrers(subject)}
            self.put_manifest(subject.replace(":", "-"), index)
        return {"mediaType": MANIFEST, "digest": digest_of(body), "size": len(body)}

    def referrers(self, subject: str) -> list[dict[str, Any]]:
        """The descriptors of all that refers to a manifest."""
        found = []
        for digest, body in self.manifests.items():
            manifest = json.loads(body)
            if ":" in digest and manifest.get("subject", {}).get("digest") == subject:
                kind = manifest.get("artifactType") or manifest["config"]["mediaType"]
                facts = {"mediaType": MANIFEST, "digest": digest, "size": len(body), "artifactType": kind}
                found.append(facts | {"annotations": manifest.get("annotations", {})})
        return found

    def put_image(
        self, *layers: bytes, tag: str = "latest", ending: str = "", config: str = IMAGE_CONFIG
    ) -> dict[str, Any]:
        """A container image of these tars; ``ending`` says how they are packed, which is left to the caller."""
        found = [self.put_blob(layer, LAYER + ending) for layer in layers]
        return self.put_manifest(tag, {"config": self.put_blob(b"{}", config), "layers": found})

    def put_artifact(
        self, *layers: dict[str, Any], kind: str = "application/vnd.example+json", tag: str = "latest"
    ) -> dict[str, Any]:
        """An artifact of these descriptors."""
        empty = self.put_blob(b"{}", "application/vnd.oci.empty.v1+json")
        return self.put_manifest(tag, {"artifactType": kind, "config": empty, "layers": list(layers)})

    def put_files(self, files: dict[str, bytes], tag: str = "latest") -> dict[str, Any]:
        """An artifact with a layer for each file, as oras makes it."""
        layers = [
            self.put_blob(data, "application/octet-stream") | {"annotations": {TITLE: path}}
            for path, data in files.items()
        ]
        return self.put_artifact(*layers, tag=tag)

    def answer(self, request: Request) -> Answer:
        refused = self.authorize(request)
        if refused is not None:
            return refused
        if request.path == "/v2/":
            return Answer(200)
        rest = request.path.removeprefix(f"/v2/{self.repository}/")
        kind, _, reference = rest.partition("/")
        if kind == "referrers" and self.lists_referrers:
            return self._page_of_referrers(reference, parse_qs(request.query))
        if rest == "tags/list":
            tags = sorted(name for name in self.manifests if ":" not in name)
            return Answer(200, body=json.dumps({"name": self.repository, "tags": tags}).encode())
        if kind == "manifests" and reference in self.manifests:
            body = self.manifests[reference]
            media_type = json.loads(body)["mediaType"]
            if media_type not in request.headers.get("accept", ""):
                # As Debian's docker-registry does.
                return Answer(404)
            return Answer(200, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(body)}, body)
        if kind == "blobs" and reference in self.blobs:
            return self.blobs[reference].answer(request)
        return Answer(404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')

    def _page_of_referrers(self, subject: str, query: dict[str, list[str]]) -> Answer:
        wanted, start = query.get("artifactType"), int(query.get("last", ["0"])[0])
        found = [each for each in self.referrers(subject) if not wanted or each["artifactType"] in wanted]
        headers = {"Content-Type": INDEX}
        end = start + self.page_size
        if end < len(found):
            headers["Link"] = f'</v2/{self.repository}/referrers/{subject}?last={end}>; rel="next"'
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found[start:end]}
        return Answer(200, headers, json.dumps(index).encode())


class TokenService:
    """Gives out tokens for the registry, on the same server or another one; ``asked`` are its requests.

    It takes the user "user" with the password "password", the identity token "identity", and anybody if it is
    ``public``.  Only the newest token is good, for ``uses`` requests.
    """

    def __init__(self, registry: FakeRegistry, server: FaultyServer | None = None, *, public: bool = False) -> None:
        self.registry = registry
        self.server = server or registry.server
        self.public = public
        self.uses = 1_000_000
        self.tokens = 0
        self.asked: list[Request] = []
        self.realm = f"{self.server.url}/token"
        self.server.routes["/token"] = self.give
        registry.authorize = self.check

    def give(self, request: Request) -> Answer:
        self.asked.append(request)
        fields = parse_qs(request.body.decode() if request.method == "POST" else request.query)
        scope = f"repository:{self.registry.repository}:pull"
        basic = "Basic " + base64.b64encode(b"user:password").decode()
        known = request.headers.get("authorization") == basic or fields.get("refresh_token") == ["identity"]
        if fields.get("scope") != [scope] or not (known or self.public):
            return Answer(401, body=b'{"details":"se-cret"}')
        self.tokens += 1
        self.left = self.uses
        name = "access_token" if request.method == "POST" else "token"
        return Answer(200, body=json.dumps({name: f"token-{self.tokens}", "expires_in": 300}).encode())

    def check(self, request: Request) -> Answer | None:
        if self.tokens and request.headers.get("authorization") == f"Bearer token-{self.tokens}" and self.left:
            self.left -= 1
            return None
        scope = f"repository:{self.registry.repository}:pull"
        challenge = f'Bearer realm="{self.realm}",service="registry.example",scope="{scope}"'
        return Answer(401, {"WWW-Authenticate": challenge})


def basic_only(request: Request) -> Answer | None:
    """For ``FakeRegistry.authorize``: the user "user" with the password "password"."""
    wanted = "Basic " + base64.b64encode(b"user:password").decode()
    if request.headers.get("authorization") == wanted:
        return None
    return Answer(401, {"WWW-Authenticate": 'Basic realm="registry"'})


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)
