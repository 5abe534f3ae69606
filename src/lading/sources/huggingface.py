"""The Hugging Face Hub, and whatever answers as it does: ``hf://owner/model``.

    hf://model                              a canonical model: gpt2
    hf://owner/model[:revision]             KServe's form; the revision may hold slashes
    hf://owner/model[@revision][/path]      the Hub's own form: a folder or a file of the repository
    hf://datasets/owner/name…, hf://spaces/owner/name…

https://huggingface.co/docs/huggingface_hub/package_reference/hf_uris and
https://huggingface.co/docs/hub/api.  A revision is turned into its commit first, and everything is
asked for by that.  Xet is not spoken: the Hub serves every file over HTTP too.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus
from itertools import chain
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from lading.errors import IntegrityError, LadingError, NotAllowed, NotFound, OriginChanged, Unsupported, UsageError
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.origin import endpoint_origin
from lading.model.paths import why_unsafe
from lading.model.uri import ModelURI, redact
from lading.network.answer import status_error
from lading.network.client import HttpClient
from lading.network.headers import check_answer, range_header
from lading.network.links import Redirects
from lading.network.paging import Page
from lading.network.wire import Head
from lading.secret import Secret
from lading.settings.huggingface import HuggingFace, read_hugging_face
from lading.settings.settings import Settings
from lading.sources.paged_list import next_link, paged_list
from lading.sources.source import Sink
from lading.system.disk import read_secret_file
from lading.text.json_xml import read_json
from lading.text.printable import printable
from lading.text.suggest import suggest

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_TEXT = r"[^\ud800-\udfff]"
_LOCATION = re.compile(
    rf"(?:(?P<kind>models|datasets|spaces)/)?(?P<id>(?>{_NAME}(?:/{_NAME})?))"
    # What is no text cannot be asked for.
    rf"(?::(?P<channel>{_TEXT}+)"
    r"|(?:@(?P<revision>refs/pr/[0-9]+|refs/convert/[A-Za-z0-9_.-]+|[^/\ud800-\udfff]+))?"
    rf"(?:/(?P<path>{_TEXT}*))?)",
)
# Of the Hub's kinds of repositories, those that are not read here.
_OTHER_KINDS = ("buckets/", "kernels/")
_DEFAULT_REVISION = "main"
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SIZE = re.compile(r"[0-9]{1,18}")
_LIST_LIMIT_BYTES = 64 << 20
# Above it the Hub's content network has limits (https://github.com/huggingface/huggingface_hub/issues/4330).
_LARGE_BYTES = 50 * 10**9
# A mirror without a listing, as against a Hub without that folder, which says so by X-Error-Code.
_NO_SUCH_CALL = (404, 405, 501)

# A file or folder as the Hub lists it: type, path, size, oid, and lfs with the oid of the content.
_Entry = dict[str, Any]


class _Location(NamedTuple):
    """``kind`` is the Hub's plural, ``path`` a folder or file of the repository, or ""."""

    kind: str
    id: str
    revision: str
    path: str


class HuggingFaceSource:
    """A repository at one commit, a folder of it, or a file.

    The validator is git's name for the content: the SHA-256 of an LFS file, the blob's SHA-1 of any other.
    """

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        self._where = _parse(uri)
        self._shown = uri.redacted()
        hub = read_hugging_face(settings.variables)
        self._http = http
        self._limits = settings.limits
        self._endpoint = hub.endpoint
        origin = endpoint_origin(hub.endpoint, "HF_ENDPOINT")
        token, self.credential_kind = _token(hub)
        if token is not None:
            origin.refuse_in_clear("the Hugging Face token")
        self._headers = [("Authorization", f"Bearer {token.reveal()}")] if token else []
        self._api = f"{hub.endpoint}/api/{self._where.kind}/{self._where.id}"
        kind = "" if self._where.kind == "models" else f"{self._where.kind}/"
        self._repository = f"{kind}{self._where.id}"
        self._commit = ""
        self._redirects = Redirects(http)
        self._asks_for_scans = _asks_for_scans(uri, settings)
        self.pin = uri

    def list(self) -> Listing:
        where = self._where
        self.pin = self.find_pin()
        files = self._chosen(self._below(where.path, recursive=True))
        names: list[str] = []
        if not files and where.path:
            # Not a folder, but perhaps a file.
            beside = self._below(where.path.rpartition("/")[0], recursive=False)
            files = self._chosen(beside)
            names = [_path_of(item) for item in beside]
        if not files:
            raise NotFound(f"{self._shown} has no files", hint=suggest(where.path, names))
        return Listing.of(files)

    def find_pin(self) -> ModelURI:
        self._commit = self._find_commit()
        below = f"/{self._where.path}" if self._where.path else ""
        return ModelURI.parse(f"hf://{self._repository}@{self._commit}{below}")

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        headers = [("Accept-Encoding", "identity"), *range_header(byte_range, file.size_bytes)]
        with self._redirects.open(file, self._resolve_url(file.locator), headers, self._headers) as answer:
            head = answer.head
            what = f"{self._shown} ({printable(file.locator)})"
            if head.status >= 400:
                if head.get("x-error-code") == "RevisionNotFound":
                    raise OriginChanged(f"{self._shown} no longer has the commit {self._commit}")
                error = self._refusal(head, what)
                if head.status == HTTPStatus.BAD_REQUEST and (file.size_bytes or 0) > _LARGE_BYTES:
                    error.hint = "the Hub serves a file this large by Xet only: fetch it with its own program, hf"
                raise error
            check_answer(head, byte_range, file.size_bytes, what)
            answer.read_into(sink.write)

    def _resolve_url(self, path: str) -> str:
        return f"{self._endpoint}/{self._repository}/resolve/{self._commit}/{quote(path)}"

    def _find_commit(self) -> str:
        """The commit that the revision stands for, of a repository that may be read."""
        revision = self._where.revision
        head, info = self._ask(f"/revision/{quote(revision, safe='')}")
        if head.status != 200:
            raise self._refusal(head, self._shown)
        commit = info.get("sha") if isinstance(info, dict) else None
        if not isinstance(commit, str) or not _SHA1.fullmatch(commit):
            raise self._not_the_hub()
        if _SHA1.fullmatch(revision) and commit != revision:
            raise IntegrityError(f"{self._shown}: the Hub answers with another commit, {commit}")
        if info.get("gated"):
            # Everybody may list a gated repository: better refused now than by the first file.
            head, _ = self._ask("/auth-check")
            if head.get("x-error-code"):
                raise self._refusal(head, self._shown)
        return commit

    def _below(self, folder: str, *, recursive: bool) -> Sequence[_Entry]:
        """The Hub's entries below ``folder``; none if that is not a folder."""
        path = f"/tree/{self._commit}" + (f"/{quote(folder)}" if folder else "")
        # With expand, a page has 50 entries and not 1000.
        first = f"recursive={str(recursive).lower()}&expand={str(self._asks_for_scans).lower()}"

        def page(query: str) -> Page[_Entry]:
            head, entries = self._ask(f"{path}?{query or first}")
            if not query and head.status in _NO_SUCH_CALL and not head.get("x-error-code"):
                return Page(self._siblings())
            if not query and head.get("x-error-code") == "EntryNotFound":
                return Page([])
            if head.status != 200:
                raise self._refusal(head, self._shown)
            if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
                raise self._not_the_hub()
            if any(folder and not f"{_path_of(item)}/".startswith(f"{folder}/") for item in entries):
                raise tree.contradiction(f"has what is not below {printable(folder)!r}")
            # The link is absolute, and a mirror's names the Hub: only the query is taken from it, so that
            # nobody else is asked.
            link = next_link(head, self._shown)
            following = urlsplit(link).query
            if link and not following:
                raise tree.contradiction("goes on with what has no query")
            return Page(entries, following)

        tree = paged_list(self._shown, self._limits, name=_name_of)
        return list(chain.from_iterable(tree.pages(page)))

    def _siblings(self) -> Sequence[_Entry]:
        """The same from what the Hub tells about the repository as a whole: for mirrors that know no tree."""
        head, info = self._ask(f"/revision/{self._commit}?blobs=true")
        if head.status != 200:
            raise self._refusal(head, self._shown)
        siblings = info.get("siblings") if isinstance(info, dict) else None
        if not isinstance(siblings, list):
            raise self._not_the_hub()
        return [self._as_entry(item) for item in siblings]

    def _as_entry(self, sibling: Any) -> _Entry:
        path = sibling.get("rfilename") if isinstance(sibling, dict) else None
        if not isinstance(path, str):
            raise self._not_the_hub()
        lfs = sibling.get("lfs")
        if isinstance(lfs, dict):
            lfs = {"oid": lfs.get("sha256")}
        entry = {"type": "file", "path": path, "size": sibling.get("size"), "oid": sibling.get("blobId"), "lfs": lfs}
        return entry if entry["oid"] or lfs else entry | self._described(path)

    def _described(self, path: str) -> _Entry:
        """Size and digest of a file by the headers of its own; nothing of one whose name could lead elsewhere."""
        if why_unsafe(path):
            return {}
        url = self._resolve_url(path)
        headers = [*self._headers, ("Accept-Encoding", "identity")]
        head, _ = self._http.fetch("HEAD", url, headers, what=self._shown, redirects=0)
        if head.status >= 400:
            raise self._refusal(head, f"{self._shown} ({printable(path)})")
        size = head.get("x-linked-size") or (head.get("content-length") if head.status == 200 else "")
        etag = (head.get("x-linked-etag") or head.get("etag")).removeprefix("W/").strip('"')
        about: _Entry = {"size": int(size) if _SIZE.fullmatch(size) else None}
        return about | ({"lfs": {"oid": etag}} if _SHA256.fullmatch(etag) else {"oid": etag})

    def _chosen(self, entries: Sequence[_Entry]) -> Sequence[ListedFile]:
        """The files below the wanted path, or the one that it names."""
        wanted = self._where.path
        files = [self._file(item) for item in entries if item.get("type") == "file"]
        if not wanted:
            return files
        folder = f"{wanted}/"
        below = [file._replace(path=file.path[len(folder) :]) for file in files if file.path.startswith(folder)]
        return below or [file._replace(path=wanted.rpartition("/")[2]) for file in files if file.path == wanted]

    def _file(self, entry: _Entry) -> ListedFile:
        path, size, oid, lfs = (entry.get(key) for key in ("path", "size", "oid", "lfs"))
        if isinstance(lfs, dict):
            # The oid beside it is of the pointer and not of the content.
            oid = lfs.get("oid")
        if not isinstance(path, str) or (size is not None and (type(size) is not int or size < 0)):
            raise self._not_the_hub()
        name = oid if isinstance(oid, str) else ""
        digests: tuple[Digest, ...] = ()
        if isinstance(lfs, dict) and _SHA256.fullmatch(name):
            digests = (Digest("sha256", name),)
        elif _SHA1.fullmatch(name) and size is not None:
            digests = (Digest("git-sha1", name),)
        validator = digests[0].value if digests else self._commit
        scan = _scan(entry) if self._asks_for_scans else None
        return ListedFile(path, size, validator, digests, locator=path, scan=scan)

    def _ask(self, path: str) -> tuple[Head, Any]:
        """An answer of the API about this repository; None where it is not JSON."""
        head, body = self._http.fetch(
            "GET",
            f"{self._api}{path}",
            self._headers,
            limit_bytes=_LIST_LIMIT_BYTES,
            what=f"the listing of {self._shown}",
        )
        try:
            return head, read_json(body)
        except ValueError:
            return head, None

    def _refusal(self, head: Head, what: str) -> LadingError:
        """The error for the Hub's own error code, or else for the status.

        https://huggingface.co/docs/huggingface_hub/package_reference/utilities has the codes, by the
        errors that its own client makes of them.
        """
        match head.get("x-error-code"):
            case "RepoNotFound":
                # Also what those are told who may not know of it.
                why = "this token is not allowed to see it" if self._headers else "it is private: set HF_TOKEN"
                return NotFound(f"{what}: there is no such repository", hint=f"check its name, or {why}")
            case "RevisionNotFound":
                return NotFound(
                    f"{what}: there is no such revision", hint=suggest(self._where.revision, self._revisions())
                )
            case "EntryNotFound":
                return NotFound(f"{what}: there is no such file")
            case "GatedRepo":
                page = redact(f"{self._endpoint}/{self._repository}")
                token = "" if self._headers else ", and set HF_TOKEN to a token of the account that did"
                return NotAllowed(f"{what} is gated", hint=f"accept its conditions at {page}{token}")
        error = status_error(head, what)
        if head.status == HTTPStatus.UNAUTHORIZED:
            wrong = "the token is wrong or has expired"
            error.hint = wrong if self._headers else "it is private, or does not exist: set HF_TOKEN if you have access"
        elif head.status == HTTPStatus.NOT_FOUND:
            error.hint = "check its name, and whether HF_ENDPOINT is the Hub or a mirror of it"
        return error

    def _revisions(self) -> Sequence[str]:
        """Names of branches and tags, for a hint."""
        try:
            _, refs = self._ask("/refs")
        except LadingError:
            return []
        groups = [refs.get(kind) for kind in ("branches", "tags")] if isinstance(refs, dict) else []
        items = [item for group in groups if isinstance(group, list) for item in group if isinstance(item, dict)]
        return [name for item in items if isinstance(name := item.get("name"), str)]

    def _not_the_hub(self) -> LadingError:
        return Unsupported(
            f"{redact(self._endpoint)} does not answer as the Hugging Face Hub does", hint="check HF_ENDPOINT"
        )


def _parse(uri: ModelURI) -> _Location:
    text = f"{uri.authority or ''}{uri.path}" + ("" if uri.fragment is None else f"#{uri.fragment}")
    if text.startswith(_OTHER_KINDS):
        raise Unsupported(f"lading reads models, datasets and spaces of the Hub, and {uri.redacted()} is none of them")
    found = _LOCATION.fullmatch(text.rstrip("/"))
    if found is None or uri.query is not None:
        raise UsageError(
            f"{uri.redacted()} does not name a repository of the Hub",
            hint="write hf://owner/model, hf://owner/model:revision or hf://owner/model@revision/path",
        )
    path = found["path"] or ""
    if path and not found["revision"] and "/" not in found["id"]:
        raise UsageError(f"{uri.redacted()} does not name a repository of the Hub", hint="write hf://model@main/path")
    if path and any(segment in ("", ".", "..") for segment in path.split("/")):
        raise UsageError(f"{uri.redacted()} has an empty, '.' or '..' segment")
    revision = found["channel"] or unquote(found["revision"] or "")
    return _Location(found["kind"] or "models", found["id"], revision or _DEFAULT_REVISION, path)


def _token(hub: HuggingFace) -> tuple[Secret | None, str]:
    """The token that requests carry, if there is one, and who gave it."""
    if hub.token is not None:
        return hub.token, "HF_TOKEN"
    text = ""
    if hub.token_file_named:
        text = read_secret_file(hub.token_file)
    elif hub.token_file:
        # Where its own client keeps what one logged in with; it may not be this user's to read.
        try:
            text = read_secret_file(hub.token_file)
        except LadingError:
            text = ""
    return (Secret(text), "the token file") if text else (None, "anonymous")


def _asks_for_scans(uri: ModelURI, settings: Settings) -> bool:
    """Whether a rule of trust wants to know what the Hub's scanners say."""
    if not settings.trust:
        return False
    # Here, and not above: most runs have no rules.
    from lading.settings.trust import trust_rule_for

    rule = trust_rule_for(settings.trust, uri)
    return rule is not None and rule.asks_the_hub


def _scan(entry: _Entry) -> str:
    """The verdict of the Hub's scanners together: ``unscanned`` where it tells none, as mirrors do.

    The others are safe, queued, error, caution, suspicious and unsafe (https://huggingface.co/.well-known/openapi.json).
    """
    status = entry.get("securityFileStatus")
    word = status.get("status") if isinstance(status, dict) else None
    return word if isinstance(word, str) else "unscanned"


def _name_of(entry: _Entry) -> str:
    """The unique name of an entry in the repository."""
    return f"{_path_of(entry)}/" if entry.get("type") == "directory" else _path_of(entry)


def _path_of(entry: _Entry) -> str:
    path = entry.get("path")
    return path if isinstance(path, str) else ""
