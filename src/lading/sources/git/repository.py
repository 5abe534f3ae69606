"""The source: ``git+https://host/repo[@ref][#subdirectory=folder]`` and ``https://host/repo.git``.

What is small comes with the listing, in one pack that is set down in a temporary file.  Larger blobs
stay behind where the server can leave them out, and are read one by one; where it cannot, all comes at
once.  Every blob is named by its SHA-1, every Git LFS object by its SHA-256: all is verified.
"""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qs, unquote, urlsplit

from lading.errors import IntegrityError, NotAllowed, NotFound, OriginChanged, Unavailable, Unsupported, UsageError
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.origin import Origin, split_url
from lading.model.uri import ModelURI
from lading.network.answer import Answer
from lading.network.client import Headers, HttpClient
from lading.secret import basic
from lading.settings.git import Git, read_git
from lading.settings.settings import Settings
from lading.sources.git.lfs import (
    POINTER_BYTES,
    LfsServer,
    Pointer,
    configured_url,
    lfs_file,
    parse_pointer,
)
from lading.sources.git.objects import CommitTree, Found
from lading.sources.git.pack import BLOB, Entry, Objects, Stored
from lading.sources.git.protocol import GitServer, Refused
from lading.sources.source import Sink
from lading.system.disk import scratch_file
from lading.text.printable import printable
from lading.text.suggest import suggest

_PREFIX = "git+"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ABBREVIATED = re.compile(r"[0-9a-f]{7,39}")
_LISTED_BYTES = 1 << 20
_READ_BYTES = 1 << 20
_LFS_CONFIG = ".lfsconfig"
_LFS_CONFIG_BYTES = 64 * 1024


class GitSource:
    """One commit of a repository, or a folder of it.  The validator of a file is the digest that names its content."""

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        uri = uri._replace(scheme=uri.scheme.lower())
        try:
            parts = urlsplit(str(uri).removeprefix(_PREFIX))
            parts.port  # noqa: B018 - raises, too
        except ValueError as error:
            raise UsageError(f"{uri.redacted()} is not a git URI", hint="check its host and port") from error
        user, _, host = parts.netloc.rpartition("@")
        path, _, ref = uri.path.rpartition("@") if "@" in uri.path else (uri.path, "", "")
        if not host or not path.strip("/") or uri.query is not None or ("@" in uri.path and not ref):
            raise UsageError(f"{uri.redacted()} is not a git URI", hint=f"write {_PREFIX}https://host/repository@ref")
        self._folder = _subdirectory(uri)
        self._ref = unquote(ref)
        if re.search(r"[\s\x00-\x1f\x7f]", self._ref):
            raise UsageError(f"{uri.redacted()} names a ref with a space or control character")
        self._uri = uri._replace(scheme=f"{_PREFIX}{parts.scheme}", authority=host, path=path)
        self._shown = uri.redacted()
        self._url = f"{parts.scheme}://{host}{path.rstrip('/')}"
        self._http = http
        self._settings = settings
        origin, _ = split_url(self._url)
        git = read_git(settings.variables, origin.authority, origin.port)
        self._withheld = git.withheld
        self._headers, self.credential_kind = _authorization(user, git, origin)
        self._server = GitServer(self._url, self._headers, http, settings.limits)
        self._objects: Objects | None = None
        self._pointers: dict[str, Pointer] = {}
        self._lfs: LfsServer | None = None
        self.pin = self._uri

    def list(self) -> Listing:
        self._greet()
        commit = self._resolved()
        self.pin = self._pin_at(commit)
        tree, found, sizes = self._listing(commit)
        self._pointers, refused = self._found_pointers(found)
        ranged = self._find_lfs_objects(tree)
        files = [
            ListedFile(path, None, refusal=refusal or refused[path])
            if refusal is not None or path in refused
            else lfs_file(path, pointer, ranged=ranged)
            if (pointer := self._pointers.get(path)) is not None
            else self._blob(path, object_id, sizes)
            for path, object_id, refusal in found
        ]
        if not files:
            raise NotFound(f"{self._shown} has no files")
        return Listing.of(files)

    def find_pin(self) -> ModelURI:
        self._greet()
        return self._pin_at(self._resolved())

    def _greet(self) -> None:
        try:
            self._server.greet()
        except (NotAllowed, NotFound) as error:
            raise error.rephrased(hint=self._withheld) from error

    def _pin_at(self, commit: bytes) -> ModelURI:
        return self._uri._replace(path=f"{self._uri.path}@{commit.hex()}")

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        pointer = self._pointers.get(file.path)
        if pointer is not None and self._lfs is not None:
            self._lfs.read(file, pointer, byte_range, sink)
            return
        object_id = bytes.fromhex(file.locator)
        objects = self._held()
        stored = objects.get(object_id)
        if stored is None:
            self._server.fetch([object_id], _OneBlob(file, sink))
            return
        stream = objects.stream(stored, byte_range.start)
        left = (stored.size_bytes if byte_range.end is None else byte_range.end) - byte_range.start
        while left and (piece := stream.read(min(left, _READ_BYTES))):
            sink.write(memoryview(piece))
            left -= len(piece)

    def _resolved(self) -> bytes:
        """The commit that the URI's ref stands for: of a branch before a tag, as ``git clone --branch`` has it."""
        ref = self._ref
        if _COMMIT.fullmatch(ref):
            return bytes.fromhex(ref)
        names = [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"] if ref else ["HEAD"]
        found = {known.name: known.object_id for known in self._server.refs(names)}
        for name in names:
            if name in found:
                return found[name]
        if not ref:
            raise NotFound(
                f"{self._shown} has no commit on its default branch",
                hint="name a branch: @BRANCH behind the repository",
            )
        known = [each.name for each in self._server.refs(["refs/heads/", "refs/tags/"])]
        short = [name.removeprefix("refs/heads/").removeprefix("refs/tags/") for name in known]
        hint = "a commit needs all of its 40 digits" if _ABBREVIATED.fullmatch(ref) else suggest(ref, short)
        raise NotFound(f"{self._shown} has no branch or tag {printable(ref)!r}", hint=hint)

    def _listing(self, commit: bytes) -> tuple[CommitTree, Sequence[Found], dict[bytes, int]]:
        """The commit's tree, what is in it, and the sizes of the blobs that stayed behind."""
        left_out = [f"filter blob:limit={_LISTED_BYTES}"] if self._server.filters else []
        for options in (left_out, []):
            self._load(commit, options)
            tree = CommitTree(self._held(), commit, self._settings.limits)
            try:
                found = tuple(tree.files(self._folder))
            except NotFound as error:
                raise NotFound(f"{self._shown}: {error.message}", hint=error.hint) from error
            blobs = [(each.object_id, each.path) for each in found if each.refusal is None]
            absent = {object_id: path for object_id, path in blobs if self._held().get(object_id) is None}
            if not absent:
                return tree, found, {}
            if not options:
                raise IntegrityError(f"{self._shown} does not send {printable(min(absent.values()))}")
            try:
                return tree, found, {object_id: self._size_of(object_id) for object_id in absent}
            except Refused:
                # It leaves blobs out, and then does not give them one by one: all must come at once.
                continue
        raise AssertionError

    def _load(self, commit: bytes, options: Iterable[str]) -> None:
        limits = self._settings.limits
        if self._objects is None:
            self._objects = Objects(scratch_file(self._settings.scratch), limits)
        objects = self._objects

        def judge(answer: Answer) -> None:
            objects.clear()
            self._server.receive(answer, objects)

        try:
            self._server.ask([commit], judge, options=["deepen 1", *options])
        except Refused as error:
            hint = (
                "its server speaks git's older protocol, which may give only what branches and tags lead to: "
                "does a proxy drop the header Git-Protocol?"
            )
            raise NotFound(
                f"{self._shown}: the server does not give the commit {commit.hex()}",
                hint=hint if self._server.is_old else "",
            ) from error

    def _held(self) -> Objects:
        if self._objects is None:
            raise OriginChanged(f"{self._shown} was not listed")
        return self._objects

    def _size_of(self, object_id: bytes) -> int:
        """Bytes of a blob, which only the pack that holds it tells: its first piece does."""

        def judge(answer: Answer) -> int:
            try:
                self._server.receive(answer, _SizeOnly())
            except _SizeFound as answer:
                return answer.size_bytes
            raise Unavailable(f"{self._shown} sends a pack without the blob {object_id.hex()}")

        return self._server.ask([object_id], judge)

    def _found_pointers(self, found: Iterable[Found]) -> tuple[dict[str, Pointer], dict[str, Unsupported]]:
        """What small files are pointers, by path, and which of them cannot be followed."""
        objects = self._held()
        pointers, refused = {}, {}
        for path, object_id, _ in found:
            stored = objects.get(object_id)
            if stored is not None and 0 < stored.size_bytes < POINTER_BYTES:
                try:
                    pointer = parse_pointer(objects.stream(stored).read(), path)
                except Unsupported as refusal:
                    refused[path] = refusal
                    continue
                if pointer is not None:
                    pointers[path] = pointer
        return pointers, refused

    def _find_lfs_objects(self, tree: CommitTree) -> bool:
        """Ask the LFS server for all of them; whether it gives ranges."""
        if not self._pointers:
            return False
        url = self._lfs_url(tree)
        # What a repository names is its authors' word: only the repository's own server gets credentials.
        is_own = split_url(url)[0].bare == split_url(self._url)[0].bare
        self._lfs = LfsServer(url, self._headers if is_own else [], self._http)
        return self._lfs.find(self._pointers)

    def _lfs_url(self, tree: CommitTree) -> str:
        """By convention, or as the repository says (docs/api/server-discovery.md)."""
        own = f"{self._url.removesuffix('.git')}.git/info/lfs"
        try:
            node = tree.find(_LFS_CONFIG)
        except NotFound:
            return own
        url = configured_url(self._held().read(node.object_id, BLOB, _LFS_CONFIG_BYTES))
        if not url:
            return own
        if split_url(url)[0].bare != split_url(own)[0].bare and not url.startswith("https://"):
            raise UsageError(f"{self._shown} has its Git LFS objects at an unencrypted URL on another host")
        return url.rstrip("/")

    def _blob(self, path: str, object_id: bytes, sizes: dict[bytes, int]) -> ListedFile:
        stored: Stored | None = self._held().get(object_id)
        digest = Digest("git-sha1", object_id.hex())
        if stored is None:
            return ListedFile(path, sizes[object_id], str(digest), (digest,), locator=object_id.hex(), ranged=False)
        if stored.kind != BLOB:
            raise IntegrityError(f"{printable(path)} is not a file in the pack")
        return ListedFile(path, stored.size_bytes, str(digest), (digest,), locator=object_id.hex())


class _OneBlob:
    """A receiver of the one blob that was asked for."""

    def __init__(self, file: ListedFile, sink: Sink) -> None:
        self._file = file
        self._sink = sink
        self._seen = False

    def begin(self, entry: Entry) -> None:
        if self._seen or (entry.kind, entry.size_bytes) != (BLOB, self._file.size_bytes):
            raise IntegrityError(f"the server sends another object than {printable(self._file.path)}")
        self._seen = True

    def write(self, piece: bytes) -> None:
        self._sink.write(memoryview(piece))

    def end(self) -> None:
        """Its digest is checked where it lands."""


class _SizeFound(Exception):
    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes


class _SizeOnly:
    """A receiver that wants to know how large an object is, and no more of it."""

    def begin(self, entry: Entry) -> None:
        if entry.kind != BLOB:
            raise IntegrityError("the server sends another object than the blob that was asked for")
        raise _SizeFound(entry.size_bytes)

    def write(self, piece: bytes) -> None:
        """Nothing comes this far."""

    def end(self) -> None:
        """Nothing comes this far."""


def _subdirectory(uri: ModelURI) -> str:
    """The folder that the fragment names, "" for the whole repository."""
    if not uri.fragment:
        return ""
    try:
        given = parse_qs(uri.fragment, strict_parsing=True)
    except ValueError:
        given = {}
    folder = (given.get("subdirectory") or [""])[0].strip("/")
    if len(given) != 1 or not folder or ".." in folder.split("/"):
        raise UsageError(f"{uri.redacted()} is not a git URI", hint="only #subdirectory=folder may follow")
    return folder


def _authorization(user: str, git: Git, origin: Origin) -> tuple[Headers, str]:
    """The header for the repository's server, and where it comes from."""
    in_uri = [unquote(part) for part in user.partition(":")[::2]]
    kind = "user and password in the URI" if user else git.kind
    name = in_uri[0] or git.username
    password = in_uri[1] or (git.password.reveal() if git.password else "")
    if not name and not password:
        return [], "anonymous"
    if [name, password] != in_uri:
        origin.refuse_in_clear(git.kind)
    return [("Authorization", basic(name, password))], kind
