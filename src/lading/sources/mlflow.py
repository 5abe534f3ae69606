"""Artifacts behind the proxy of an MLflow server: ``mlflow-artifacts://host:port/path``, ``mlflow-artifacts:/path``.

And ``runs:/RUN/PATH``, or ``runs://host:port/RUN/PATH``: what a run has logged, wherever that is.

https://mlflow.org/docs/latest/self-hosting/architecture/artifact-store/.  The server is one that is
configured as a registry of the kind mlflow; its address, login and certificates are those of the registry.

The proxy tells no digests.  What else it does depends on where the server keeps the files:

- on its own disk: ranges, and an ETag that holds (that of GET: the one of HEAD is another);
- in S3: a presigned URL for each file, with S3's own ranges, ETag and MD5;
- elsewhere: it first fetches the whole file itself, then sends it without ranges, under no ETag or a new one.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, count
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from lading.errors import (
    DeadlineExceeded,
    IntegrityError,
    NotAllowed,
    NotFound,
    Unavailable,
    Unsupported,
    Untrusted,
    UsageError,
)
from lading.model.byte_range import ByteRange
from lading.model.listing import ListedFile, Listing
from lading.model.origin import split_url
from lading.model.paths import why_unsafe
from lading.model.uri import ModelURI
from lading.model.validator import entity_tag
from lading.network.answer import Answer, read_probe, status_error
from lading.network.client import Headers, HttpClient
from lading.network.headers import check_answer, content_range, declared_digests, md5_of_etag, range_header
from lading.network.links import Link, Links
from lading.network.paging import Page
from lading.registries.mlflow import REGISTRY_VARIABLE, MlflowRegistry, MlflowServer, artifacts_url
from lading.registries.tracking import Tracking
from lading.settings.mlflow import MlflowSettings
from lading.settings.registries import RegistryEntry
from lading.settings.settings import Settings
from lading.sources.paged_list import is_one_name, paged_list
from lading.sources.schemes import open_source
from lading.sources.source import Sink, Source
from lading.text.printable import printable
from lading.text.suggest import suggest

_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
_PRESIGNED = "/api/2.0/mlflow-artifacts/presigned"
_SERVER_INFO = "/api/3.0/mlflow/server-info"
_IDENTITY = ("Accept-Encoding", "identity")
_FIRST_BYTE = ("Range", "bytes=0-0")
_PROBED = (200, 206, 416)
_MOST_FOLDERS = 10_000
_MOST_PATH_CHARACTERS = 4096
# Before its first byte the server itself fetches the whole file: as long as MLflow's own client waits.
_FETCHING_S = 120.0


# Name, whether it is a folder, and size.
_Entry = tuple[str, bool, int | None]


class MlflowSource:
    """The files that the proxy has below a path, or one file.  The validator is the ETag of GET, where it holds."""

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        self._root = unquote(uri.path).strip("/")
        self._shown = uri.redacted()
        if uri.query is not None or uri.fragment is not None or "@" in (uri.authority or "") or not self._root:
            raise UsageError(
                f"{self._shown} is not a path of artifacts",
                hint="write mlflow-artifacts:/path/of/model; the login is that of the registry",
            )
        entry = _entry(uri, settings)
        self._http = http
        self._entry, self._settings = entry, settings
        self._server = MlflowServer(entry, settings, http, artifacts=True)
        self._presigned = Links(http)
        self._direct = False

    @property
    def credential_kind(self) -> str:
        return self._server.credential_kind

    def list(self) -> Listing:
        files = [*self._below()] or self._single()
        strays = [file for file in files if file.refusal or why_unsafe(file.path)]
        # What cannot be delivered is not asked for, either.
        sound = [file for file in files if not (file.refusal or why_unsafe(file.path))]
        if not sound:
            return Listing.of(strays)
        # The smallest, since the server may fetch all of it to answer.
        probe = min(sound, key=lambda file: (not file.size_bytes, file.size_bytes or 0))
        self._direct = self._offers_presigned() and self._reaches(probe)
        if self._direct or self._holds_its_etag(probe):
            return Listing.of([*map(self._probed, sound), *strays])
        self._be_patient()
        return Listing.of(file._replace(ranged=False) for file in files)

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        shown = printable(file.locator)
        with self._open(file, range_header(byte_range, file.size_bytes)) as answer:
            head = answer.head
            check_answer(head, byte_range, file.size_bytes, shown)
            # Nothing else pins the version: the proxy passes over If-Match.
            sink.version(entity_tag(head.get("etag")))
            if byte_range == ByteRange(0, file.size_bytes):
                by_etag = md5_of_etag(head, file.validator or "") if self._direct else ()
                sink.on_digests([*declared_digests(head, whole=True)] or [*by_etag])
            answer.read_into(sink.write)

    def _below(self) -> Iterator[ListedFile]:
        """Every file below the root; the proxy lists one folder at a time, with names relative to it."""
        folders, entries = [self._root], paged_list(self._shown, self._settings.limits, name=_name_of)
        for asked in count(1):
            if not folders:
                return
            folder = folders.pop()
            if asked > _MOST_FOLDERS or len(folder) > _MOST_PATH_CHARACTERS:
                raise IntegrityError(f"the listing of {self._shown} does not end")
            for name, is_folder, size in chain.from_iterable(entries.pages(partial(self._page, folder))):
                if is_folder:
                    folders.append(f"{folder}/{name}")
                else:
                    yield self._file(f"{folder}/{name}"[len(self._root) + 1 :], size, f"{folder}/{name}")

    def _file(self, path: str, size_bytes: int | None, locator: str) -> ListedFile:
        refusal = None
        if "#" in locator or unquote(locator) != locator:
            # It would decode the name once more, and send another file or none.
            refusal = Unsupported(f"an MLflow server cannot send a file that is called {printable(locator)!r}")
        return ListedFile(path, size_bytes, locator=locator, refusal=refusal)

    def _single(self) -> Sequence[ListedFile]:
        """The file that the path itself names: listing it gives the same as listing nothing."""
        parent, _, wanted = self._root.rpartition("/")
        names = []
        for name, is_folder, size in self._page(parent).entries:
            if name == wanted and not is_folder:
                return [self._file(name, size, self._root)]
            names.append(name)
        raise NotFound(f"{self._shown} has no files", hint=suggest(wanted, names))

    def _page(self, folder: str, _: str = "") -> Page[_Entry]:
        """The entries of one folder, all at once: the proxy has no pages, and omits a size of 0."""
        answer = self._server.get(_PROXY, {"path": folder}, what=f"the listing of {self._shown}")
        try:
            # What says that there is more cannot be asked for it.
            if answer.get("next_page_token") or "error_code" in answer:
                raise ValueError(answer)
            return Page([self._parsed(item) for item in answer.get("files", [])])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unsupported(
                f"the listing of {self._shown} does not have MLflow's form", hint="check the url of this registry"
            ) from error

    def _parsed(self, item: Mapping[str, Any]) -> _Entry:
        name, is_folder, size = item["path"], item.get("is_dir", False), item.get("file_size")
        if "/" in name or not isinstance(is_folder, bool) or (size is not None and int(size) < 0):
            raise ValueError(name)
        if not is_one_name(name):
            raise IntegrityError(f"the listing of {self._shown} holds the name {printable(name)!r}")
        return name, is_folder, None if size is None else int(size)

    def _offers_presigned(self) -> bool:
        try:
            answer = self._server.get(_SERVER_INFO, what="what the server offers")
        except (NotFound, NotAllowed, Unsupported):
            # Older servers have no such page, and a gateway may not let it through.
            return False
        return isinstance(answer, dict) and answer.get("multipart_downloads_enabled") is True

    def _reaches(self, file: ListedFile) -> bool:
        """Whether presigned URLs work from here: the store may be one that only its server can reach."""
        self._direct = True
        try:
            with self._begin(file) as answer:
                read_probe(answer, what=printable(file.locator), statuses=_PROBED)
        except DeadlineExceeded:
            raise
        except (NotFound, NotAllowed, Unavailable, Unsupported):
            self._direct = False
        return self._direct

    def _holds_its_etag(self, file: ListedFile) -> bool:
        """Whether the proxy sends parts under an ETag that names a version, and is not new for each answer."""
        first, second = self._probed(file), self._probed(file)
        return first.validator is not None and first == second and (first.ranged or not first.size_bytes)

    def _probed(self, file: ListedFile) -> ListedFile:
        """The file with its version, exact size and, straight from the store, digests."""
        shown = printable(file.locator)
        head = self._http.ask(partial(self._begin, file), partial(read_probe, what=shown, statuses=_PROBED), what=shown)
        found = content_range(head)
        length, etag = head.get("content-length"), entity_tag(head.get("etag"))
        return file._replace(
            size_bytes=found[2] if found else int(length) if length.isdigit() else file.size_bytes,
            validator=etag if etag.startswith('"') else None,
            declared=tuple(md5_of_etag(head)) if self._direct else (),
            ranged=head.status == 206,
        )

    def _begin(self, file: ListedFile) -> Answer:
        """The head of GET for a file; HEAD has other ETags, and presigned URLs do not allow it."""
        return self._open(file, [_FIRST_BYTE] if file.size_bytes else [])

    def _open(self, file: ListedFile, headers: Headers) -> Answer:
        sent, locator, what = [_IDENTITY, *headers], file.locator, printable(file.locator)
        if not self._direct:
            return self._server.open(f"{_PROXY}/{_quoted(locator)}", sent, what=what)
        answer = self._presigned.open(locator, partial(self._presign, locator), sent, what=what)
        if answer.head.status < 300:
            return answer
        with answer:
            raise status_error(answer.head, what)

    def _presign(self, locator: str) -> Link:
        what = f"a presigned URL of {printable(locator)}"
        answer = self._server.get(f"{_PRESIGNED}/{_quoted(locator)}", what=what)
        try:
            url, headers = answer["url"], [(name, value) for name, value in (answer.get("headers") or {}).items()]
            origin, _ = split_url(url)
        except (KeyError, TypeError, AttributeError, UsageError) as error:
            raise Unsupported(f"{what} does not have MLflow's form") from error
        if self._server.origin.scheme == "https" and origin.scheme != "https":
            raise NotAllowed(f"{what} is unencrypted ({origin})")
        return Link(url, headers)

    def _be_patient(self) -> None:
        """Wait longer for the first byte of a file, unless it is configured how long."""
        if self._entry.server.stall_s is None:
            patient = self._entry.server._replace(stall_s=max(self._settings.limits.stall_s, _FETCHING_S))
            self._server = MlflowServer(
                self._entry._replace(server=patient), self._settings, self._http, artifacts=True
            )


def open_run(uri: ModelURI, settings: Settings, http: HttpClient) -> Source:
    """The source of ``runs:/RUN/PATH``: wherever the tracking server says that the run has it."""
    run_id, _, path = uri.path.strip("/").partition("/")
    if "@" in (uri.authority or "") or uri.query is not None or uri.fragment is not None or not run_id:
        raise UsageError(
            f"{uri.redacted()} names no run", hint="write runs:/RUN-ID/PATH; the login is that of the registry"
        )
    entry = _entry(uri, settings)
    server = MlflowServer(entry, settings, http, artifacts=True)
    location = Tracking(server).artifacts_of(run_id, path)
    found, variables = MlflowRegistry(entry, settings, http).reached(server.source_uri(location, f"run {run_id}"))
    if settings.trust:
        _require_one_rule(uri, found, settings)
    return open_source(found, settings.for_registry(variables), http)


def _require_one_rule(uri: ModelURI, found: ModelURI, settings: Settings) -> None:
    """Raise where another rule of trust is for the place of a run's files than for the run: it would not be asked."""
    # Here, and not above: most runs have no rules.
    from lading.settings.trust import trust_rule_for

    if trust_rule_for(settings.trust, found) != trust_rule_for(settings.trust, uri):
        raise Untrusted(
            f"{uri.redacted()} leads to {found.redacted()}, for which another rule of trust counts",
            hint="name that place itself, or give both the same rule",
        )


def _name_of(entry: _Entry) -> str:
    """The unique name of an entry in its folder: a store of objects may have a file and a folder of one name."""
    return f"{entry[0]}/" if entry[1] else entry[0]


def _entry(uri: ModelURI, settings: Settings) -> RegistryEntry[MlflowSettings]:
    """The registry whose server is meant; a server that a URI brings itself is not asked."""
    servers = [entry for entry in settings.registries if entry.kind == "mlflow"]
    if uri.authority:
        servers = [entry for entry in servers if _is_at(artifacts_url(entry), uri.authority)]
    named = [entry for entry in servers if entry.name == settings.variables.get(REGISTRY_VARIABLE)]
    found = named or servers
    if not found:
        raise UsageError(
            f"{uri.redacted()} is on an MLflow server that is not configured",
            hint="set MLFLOW_TRACKING_URI, or list the server as a registry of the kind mlflow in lading.yaml",
        )
    if len(found) > 1 and not uri.authority:
        raise UsageError(
            f"{uri.redacted()} could be on any of the MLflow servers {', '.join(printable(entry.name) for entry in found)}",
            hint=f"write {printable(uri.scheme)}://host:port/path",
        )
    return found[0]


def _is_at(url: str, authority: str) -> bool:
    try:
        return split_url(url)[0].bare == split_url(f"{urlsplit(url).scheme}://{authority}")[0].bare
    except (UsageError, ValueError):
        return False


def _quoted(locator: str) -> str:
    return quote(locator, safe="/~")
