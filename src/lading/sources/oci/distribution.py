"""Pulling from an OCI registry: the manifests, blobs, tags and referrers of one repository.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

from lading.auth.authorizer import authorized
from lading.auth.docker_config import Login
from lading.auth.oci import Authorization
from lading.errors import IntegrityError, LadingError, NotAllowed, Unavailable, Unsupported, UsageError
from lading.model.digest import Digest
from lading.model.listing import ListedFile
from lading.model.origin import split_url
from lading.network.answer import Answer, read_whole, status_error
from lading.network.client import HttpClient
from lading.network.pace import Paused
from lading.secret import Secret
from lading.sources.paged_list import next_link
from lading.text.json_xml import read_json

# Both limits are those of most registries and clients.
_MANIFEST_LIMIT_BYTES = 4 << 20
_TAGS_LIMIT_BYTES = 1 << 20
_BLOB_LIMIT_BYTES = 1 << 18
_MOST_PAGES = 16
# More than anybody looks at: a page may have tens of thousands.
_MOST_REFERRERS = 1000
_CHANGES = "the registry, or something in front of it, changes what it serves"
_NO_HEAD = (405, 501)
# How registries answer that do not have the API for referrers.
_NO_REFERRERS = (400, 404, 405, 406, 501)
_SECURE = ("sha256", "sha384", "sha512")

_IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
EMPTY = "application/vnd.oci.empty.v1+json"
PLAIN = ("Accept-Encoding", "identity")
# Said in full: with "*/*" some registries answer 404, or convert to Docker's oldest format.
_ACCEPT = ("Accept", ", ".join((_IMAGE_MANIFEST, _INDEX, _DOCKER_MANIFEST, _DOCKER_LIST)))


class Descriptor(NamedTuple):
    """https://github.com/opencontainers/image-spec/blob/main/descriptor.md"""

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: Mapping[str, str]
    artifact_type: str = ""


class Repository:
    """One repository of the registry at ``host``; ``shown`` names in errors what is pulled from it.

    ``checked`` is the client that verifies certificates, ``http`` the one for the registry.  A registry that is
    ``insecure`` may have no TLS.
    """

    def __init__(
        self, host: str, name: str, login: Login, shown: str, checked: HttpClient, *, insecure: bool = False
    ) -> None:
        self.host, self.name = host, name
        self._login, self._shown = login, shown
        self._insecure = insecure
        self._http = checked.without_tls_checks() if insecure else checked
        self._checked = checked
        self._connected: tuple[str, Authorization] | None = None

    @property
    def credential_kind(self) -> str:
        return self._login.kind

    def manifest(self, reference: str) -> tuple[Digest, Mapping[str, Any]]:
        """The manifest, and the digest of its very bytes, which is that of ``reference`` if it is one."""

        def judge(answer: Answer) -> tuple[str, bytes]:
            body = read_whole(answer, limit_bytes=_MANIFEST_LIMIT_BYTES, what=self._shown)
            return answer.head.get("docker-content-digest"), body

        send = partial(self.open, f"/manifests/{reference}", [_ACCEPT], self._shown)
        digest_header, body = self._http.ask(send, judge, what=f"the manifest of {self._shown}")
        wanted = reference if ":" in reference else digest_header
        expected = read_digest(wanted, self._shown) if wanted else None
        digest = Digest.of(body, expected.algorithm if expected else "sha256")
        if expected not in (None, digest):
            raise IntegrityError(
                f"the manifest of {self._shown} has {digest}, but {expected} is expected",
                hint=_CHANGES,
            )
        try:
            manifest = read_json(body)
        except ValueError:
            manifest = None
        if not isinstance(manifest, dict) or manifest.get("schemaVersion") != 2:
            raise Unsupported(f"{self._shown} has no manifest of the OCI image format", hint="push it again")
        return digest, manifest

    def find_digest(self, reference: str) -> Digest | None:
        """The digest of a manifest, by HEAD, which Docker Hub does not count as a pull; None if the registry does not tell."""

        def judge(answer: Answer) -> str:
            if answer.head.status in _NO_HEAD:
                return ""
            if answer.head.status != 200:
                raise status_error(answer.head, self._shown)
            return answer.head.get("docker-content-digest")

        send = partial(self.open, f"/manifests/{reference}", [_ACCEPT], self._shown, method="HEAD")
        digest_header = self._http.ask(send, judge, what=f"the manifest of {self._shown}")
        return read_digest(digest_header, self._shown) if digest_header else None

    def blob(self, found: Descriptor, what: str) -> bytes:
        """A small blob, which has its digest; ``IntegrityError`` for a large one."""
        if found.size_bytes > _BLOB_LIMIT_BYTES:
            raise IntegrityError(f"{what} has more than {_BLOB_LIMIT_BYTES} bytes, and is not read")
        send = partial(self.open, f"/blobs/{quote(str(found.digest), safe=':')}", [PLAIN], what)
        body = self._http.ask(send, partial(read_whole, limit_bytes=_BLOB_LIMIT_BYTES, what=what), what=what)
        if Digest.of(body, found.digest.algorithm) != found.digest:
            raise IntegrityError(f"{what} is not what its digest says", hint=_CHANGES)
        return body

    def referrers(self, digest: Digest, artifact_type: str) -> Sequence[Descriptor]:
        """The manifests that refer to one and are, or may be, of this type; of very many, some.

        By the API of OCI 1.1, or by the tag that stands for it in registries without that API.
        """
        page = self._index(f"/referrers/{digest}?artifactType={quote(artifact_type, safe='')}")
        if page is None:
            # The tag's algorithm and value are cut as the specification says ("Referrers Tag Schema").
            page = self._index(f"/manifests/{digest.algorithm[:32]}-{digest.value[:64]}")
        found: dict[Digest, Descriptor] = {}
        for _ in range(_MOST_PAGES):
            entries, following = page or ([], "")
            for entry in entries:
                try:
                    each = read_descriptor(entry, self._shown)
                except IntegrityError:
                    # Anybody who can write to the registry may have put it there: it must not hide the others.
                    continue
                # Registries need not know the filter, and some clients wrote the type of the empty configuration instead.
                if each.artifact_type in (artifact_type, EMPTY):
                    found[each.digest] = each
            if not following or len(found) > _MOST_REFERRERS:
                break
            page = self._index(f"/referrers/{digest}?{following}")
        return list(found.values())

    def _index(self, path: str) -> tuple[Sequence[Any], str] | None:
        """The entries of an index, and the query that asks for the following page; None if there is no index."""

        def judge(answer: Answer) -> tuple[Sequence[Any], str] | None:
            if answer.head.status in _NO_REFERRERS:
                return None
            entries = _entries(read_whole(answer, limit_bytes=_MANIFEST_LIMIT_BYTES, what=self._shown))
            # Of where the next page is, only the query counts: it cannot lead elsewhere.
            following = next_link(answer.head, self._shown).partition("?")[2].partition("#")[0]
            return None if entries is None else (entries, following)

        return self._http.ask(
            partial(self.open, path, [("Accept", _INDEX)], self._shown), judge, what=f"what refers to {self._shown}"
        )

    def tags(self) -> Sequence[str]:
        """Some tags, for a hint; none if the registry does not list them."""
        try:
            with self.open("/tags/list?n=1000", [], self._shown) as answer:
                tags = read_json(answer.read(_TAGS_LIMIT_BYTES)).get("tags") if answer.head.status == 200 else None
        except (LadingError, ValueError, AttributeError):
            tags = None
        return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []

    def open(
        self,
        path: str,
        headers: Sequence[tuple[str, str]],
        what: str,
        *,
        method: str = "GET",
        of: ListedFile | None = None,
    ) -> Answer:
        """One authorized request for something of the repository, for content ``of`` a file if given."""
        base, authorization = self._connected or self._connect()

        def refusal(answer: Answer) -> LadingError:
            with answer:
                return authorization.refusal(what, answer.head.status)

        def send(shown: Secret | None) -> Answer:
            sent = [*headers, ("Authorization", shown.reveal())] if shown else headers
            try:
                answer = self._http.open(method, f"{base}/v2/{self.name}{path}", sent, of=of)
            except Unsupported as error:
                raise Unsupported(
                    error.message, hint="a registry without TLS needs KSERVE_OCI_INSECURE_REGISTRY=true"
                ) from error
            if answer.head.status in (401, 403) and split_url(answer.url)[0].bare != split_url(base)[0].bare:
                # Storage that the registry redirects to: its challenge is not the registry's, and gets no login.
                with answer:
                    raise status_error(answer.head, what)
            if answer.head.status == 403:
                raise refusal(answer)
            return answer

        return authorized(authorization, send, refusal)

    def _connect(self) -> tuple[str, Authorization]:
        base = f"https://{self.host}"
        if self._insecure and not self._speaks_tls(base):
            base = f"http://{self.host}"
        self._connected = base, Authorization(self._checked, self._http, base, self.name, self._login)
        return self._connected

    def _speaks_tls(self, base: str) -> bool:
        """Of an insecure registry, as Docker does: http only where there is no https."""
        try:
            with self._http.open("GET", f"{base}/v2/", redirects=0):
                return True
        except Paused:
            # It says nothing about TLS.
            raise
        except (Unavailable, NotAllowed, Unsupported):
            return False


def read_descriptor(entry: Any, shown: str) -> Descriptor:
    """Read one of a manifest or an index; ``IntegrityError`` if it lacks what every descriptor has."""
    if not isinstance(entry, dict):
        raise _damaged(shown)
    media_type, digest, size = entry.get("mediaType"), entry.get("digest"), entry.get("size")
    annotations = entry.get("annotations") or {}
    if not isinstance(media_type, str) or not isinstance(digest, str) or not isinstance(annotations, dict):
        raise _damaged(shown)
    if type(size) is not int or size < 0:
        raise _damaged(shown)
    named = {key: text for key, text in annotations.items() if isinstance(text, str)}
    media_type, kind = media_type.partition(";")[0].strip().lower(), entry.get("artifactType")
    return Descriptor(media_type, read_digest(digest, shown), size, named, kind if isinstance(kind, str) else "")


def read_digest(text: str, shown: str) -> Digest:
    """Read the digest of a manifest or blob; ``IntegrityError`` for one that can be forged."""
    try:
        digest = Digest.parse(text)
    except UsageError as error:
        raise IntegrityError(f"{shown}: {error.message}", hint=error.hint) from error
    if digest.algorithm not in _SECURE:
        raise IntegrityError(f"{shown} names a blob by {digest.algorithm}, a digest that anybody can forge")
    return digest


def _entries(body: bytes) -> Sequence[Any] | None:
    """The entries of an index; None if this is none, as the page that some registries answer to any address."""
    try:
        index = read_json(body)
    except ValueError:
        return None
    entries = index.get("manifests") if isinstance(index, dict) else None
    return entries if isinstance(entries, list) else None


def _damaged(shown: str) -> IntegrityError:
    return IntegrityError(f"{shown} has a manifest that names a blob without its type, digest or size")
