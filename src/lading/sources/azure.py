"""Azure Blob Storage and Azure Files: ``https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX or /BLOB]`` and
``https://ACCOUNT.file.core.windows.net/SHARE[/FOLDER or /FILE]``, either with ``?SAS``.

https://learn.microsoft.com/rest/api/storageservices/.  The path is percent-encoded, as in every URL.
A prefix ends at a path boundary: ``model`` means ``model/…`` or exactly ``model``, never ``model-v2/…``.
"""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import NoReturn
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

from lading.auth.azure import AccountKey, AzureCredentials, Credential, Sas
from lading.auth.azure_signature import sign
from lading.errors import (
    IntegrityError,
    LadingError,
    NotAllowed,
    NotFound,
    OriginChanged,
    TryAtOnce,
    Unavailable,
    Unsupported,
    UsageError,
)
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.origin import host_and_port, split_url
from lading.model.uri import ModelURI
from lading.model.validator import entity_tag
from lading.network.answer import Answer, status_error
from lading.network.client import Headers, HttpClient
from lading.network.headers import check_answer, declared_digests, if_match, range_header
from lading.network.paging import CONTRADICTS, Page
from lading.network.wire import Head
from lading.secret import Token
from lading.settings.azure import read_azure, service_url
from lading.settings.settings import Settings
from lading.sources.paged_list import is_one_name, paged_list
from lading.sources.source import Sink
from lading.text.json_xml import read_xml
from lading.text.printable import printable
from lading.text.suggest import suggest

# The first version in which Azure Files takes bearer tokens and keeps dots at the end of names; Azurite knows it.
# https://learn.microsoft.com/rest/api/storageservices/previous-azure-storage-service-versions
_API_VERSION = "2022-11-02"
_LIST_LIMIT_BYTES = 64 << 20
# https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-shares--directories--files--and-metadata
_LONGEST_PATH = 2048
_CONTAINER = re.compile(r"\$?[a-z0-9](?:-?[a-z0-9]){2,62}")
# Keys of a query that would ask for something else than what lading asks for.
_NOT_OF_A_SAS = re.compile(
    r"(?:comp|restype|prefix|marker|maxresults|include|delimiter|(?:share)?snapshot|versionid)=", re.IGNORECASE
)

_NO_CREDENTIALS = (
    "no Azure credentials were found: set AZURE_STORAGE_ACCESS_KEY or AZURE_CLIENT_ID, or add a SAS to the URI"
)

# https://learn.microsoft.com/rest/api/storageservices/status-and-error-codes2: codes that say more than their
# status does, with what to try.
_CODES: dict[str, tuple[type[LadingError], str]] = {
    "AuthenticationFailed": (
        NotAllowed,
        "the account key or the SAS is wrong or has expired, or this machine's clock is wrong",
    ),
    "AuthorizationFailure": (
        NotAllowed,
        "the account's network rules do not let this machine in, or the SAS does not allow this",
    ),
    "AuthorizationPermissionMismatch": (
        NotAllowed,
        "the identity needs the role Storage Blob Data Reader or Storage File Data Privileged Reader; a SAS needs r and l",
    ),
    "KeyBasedAuthenticationNotPermitted": (NotAllowed, "the account does not accept keys: use an identity"),
    "InvalidAuthenticationInfo": (NotAllowed, "the token is wrong or has expired; bring a new one and run again"),
    "PublicAccessNotPermitted": (NotAllowed, ""),
    "ContainerNotFound": (NotFound, "check the names of the account and of the container"),
    "ShareNotFound": (NotFound, "check the names of the account and of the share"),
    "BlobArchived": (NotAllowed, "the blob is archived; rehydrate it first"),
    "BlobBeingRehydrated": (NotAllowed, "the blob is being rehydrated; that takes hours"),
    "ResourceTypeMismatch": (NotFound, ""),
    "FileLockConflict": (Unavailable, "somebody has the file open"),
    "SharingViolation": (Unavailable, "somebody has the file open"),
}


class _AzureSource(ABC):
    """The common part of both services: credentials, one file by its name, reading.  The validator is the ETag."""

    _takes_if_match: bool
    _own_headers: Headers
    """Headers of every request."""
    _token_headers: Headers
    """Headers of requests that bear a token."""

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        service = service_url(uri, settings.variables)
        try:
            root = urlsplit(service or f"{uri.scheme}://{uri.authority}")
            self._container, _, path = uri.path[len(root.path) :].removeprefix("/").partition("/")
            self._path = unquote(path, errors="strict")
            self._path.encode()
        except ValueError:
            # No URL, or not UTF-8.
            self._container = ""
        if "@" in (uri.authority or "") or uri.fragment is not None or not _CONTAINER.fullmatch(self._container):
            raise UsageError(
                f"{uri.redacted()} names no container or share of an Azure storage account",
                hint="write https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX, with %23 for #",
            )
        asked = [pair for pair in (uri.query or "").split("&") if pair]
        if asked and (any(map(_NOT_OF_A_SAS.match, asked)) or not any(pair.startswith("sig=") for pair in asked)):
            raise Unsupported(f"the query of {uri.redacted()} is not a SAS", hint="snapshots and versions are not read")
        host, _ = host_and_port(root.netloc)
        self._base = f"{root.scheme}://{root.netloc}"
        self._origin, _ = split_url(self._base)
        self._root = f"{root.path}/{self._container}"
        self._shown = uri.redacted()
        # Who configures the address of an emulator, or writes the SAS behind http://, has said so.
        self._may_be_clear = bool(service or asked)
        self._prefix_shown = printable(f"{self._base}{self._root}/")
        self._http = http
        self._limits = settings.limits
        # The last part of an emulator's path; of a host its first label, without "-secondary" and the like.
        account = root.path.rpartition("/")[2] or host.partition(".")[0].partition("-")[0]
        azure = read_azure(settings.variables)
        self._credentials = AzureCredentials(azure, http, account=account, host=host, sas=uri.query or "")

    @property
    def credential_kind(self) -> str:
        credential = self._credentials.get()
        return credential.kind if credential else "anonymous"

    def list(self) -> Listing:
        # Credentials that are not found or not allowed are another matter than files that are not.
        self._credentials.get()
        try:
            return self._listed()
        except (NotAllowed, NotFound):
            # An identity that nobody chose is shown to no emulator.
            if self._origin.scheme != "https" or not self._credentials.ask_the_machine():
                raise
        return self._listed()

    def _listed(self) -> Listing:
        refused: LadingError | None = None
        try:
            listed = Listing.of(self._files())
        except (NotAllowed, NotFound) as error:
            # A SAS for one blob, and public access to blobs alone, let nobody list.
            listed, refused = Listing(()), error
        if not listed.files and self._path and not self._path.endswith("/"):
            listed = Listing.of(self._one_file())
        if not listed.files:
            raise refused if isinstance(refused, NotAllowed) else self._nothing_found(refused)
        return listed

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        pinned = if_match(file) if self._takes_if_match else []
        with self._open("GET", file.locator, [*pinned, *range_header(byte_range, file.size_bytes)]) as answer:
            check_answer(answer.head, byte_range, file.size_bytes, self._shown_name(file.locator))
            sink.version(entity_tag(answer.head.get("etag")))
            if answer.head.status == 200:
                sink.on_digests(_md5(answer.head.get("content-md5")))
            answer.read_into(sink.write)

    @abstractmethod
    def _files(self) -> Iterator[ListedFile]:
        """Every file below the path."""

    @abstractmethod
    def _names_in(self, folder: str) -> Iterator[str]:
        """The first names in a folder, with a slash behind those of folders."""

    def _one_file(self) -> Iterator[ListedFile]:
        """The file that the path itself names, if it is one."""
        try:
            head = self._http.ask(partial(self._open, "HEAD", self._path), lambda answer: answer.head, what=self._shown)
        except (NotAllowed, NotFound):
            return
        if head.get("x-ms-meta-hdi_isfolder").lower() == "true" or head.get("x-ms-resource-type") == "directory":
            return
        size_bytes, md5 = _size(head.get("content-length")), _md5(head.get("content-md5"))
        etag = entity_tag(head.get("etag")) or None
        yield ListedFile(self._path.rpartition("/")[2], size_bytes, etag, md5, locator=self._path)

    def _file(self, path: str, listed: ElementTree.Element, locator: str) -> ListedFile:
        size_bytes = _size(listed.findtext("Properties/Content-Length") or "")
        # Blobs are listed without the quotes that an ETag has in headers.
        text = listed.findtext("Properties/Etag") or ""
        etag = entity_tag(text)
        if size_bytes is None or (text and not etag):
            raise self._not_azure()
        md5 = _md5(listed.findtext("Properties/Content-MD5") or "")
        return ListedFile(path, size_bytes, etag or None, md5, locator=locator)

    def _page(self, folder: str, query: dict[str, str], entries: str, marker: str = "") -> Page[ElementTree.Element]:
        """One page of a listing: what is in its element ``entries``, and the marker of the page that follows."""
        query = query | ({"marker": marker} if marker else {})
        text = "&".join(f"{name}={quote(value, safe='~')}" for name, value in sorted(query.items()))
        what = f"the listing of {self._shown}"
        body = self._http.ask(
            partial(self._open, "GET", folder, query=text), lambda answer: answer.read(_LIST_LIMIT_BYTES), what=what
        )
        try:
            root = read_xml(body)
        except ValueError as error:
            raise self._not_azure() from error
        page = root.find(entries)
        if root.tag != "EnumerationResults" or page is None:
            raise self._not_azure()
        following = root.findtext("NextMarker")
        if following is None:
            # Empty, it says that the listing is complete.
            raise IntegrityError(f"the listing of {self._shown} does not say whether it has ended", hint=CONTRADICTS)
        return Page(list(page), following)

    def _not_azure(self) -> Unsupported:
        return Unsupported(f"{self._base} does not answer as Azure storage does", hint="check the URI's host")

    def _open(self, method: str, name: str, headers: Iterable[tuple[str, str]] = (), query: str = "") -> Answer:
        """One request with its credential; any answer but success is raised as what its code and status say."""
        credential = self._credentials.get()
        path = f"{self._root}/{quote(name, safe='/~')}" if name else self._root
        moment = _moment(int(time.time()))
        sent = [("x-ms-date", moment), ("x-ms-version", _API_VERSION), *self._own_headers, *headers]
        if isinstance(credential, AccountKey):
            account, key = credential.account, credential.key
            sent.append(sign(account, key, method=method, path=path, query=query, headers=sent))
        elif isinstance(credential, Sas):
            if not self._may_be_clear:
                self._origin.refuse_in_clear("the SAS")
            query = "&".join(part for part in (query, credential.query.reveal()) if part)
        elif isinstance(credential, Token):
            self._origin.refuse_in_clear("the token")
            sent += [("Authorization", f"Bearer {credential.value.reveal()}"), *self._token_headers]
        url = f"{self._base}{path}" + (f"?{query}" if query else "")
        answer = self._http.open(method, url, sent, redirects=0)
        if answer.head.status >= 300:
            with answer:
                self._refuse(answer.head, credential, self._shown_name(name) if name else self._shown)
        self._credentials.accepted(credential)
        return answer

    def _refuse(self, head: Head, credential: Credential | None, what: str) -> NoReturn:
        if head.status == 401 and self._credentials.refused(credential, head):
            raise TryAtOnce(f"{what}: the token has expired")
        error = status_error(head, what)
        code = printable(head.get("x-ms-error-code"))[:80]
        kind, hint = _CODES.get(code, (type(error), error.hint))
        if credential is None and kind is NotAllowed and not code.startswith("Blob"):
            hint = _NO_CREDENTIALS
        if code and kind is not OriginChanged:
            raise kind(f"{what}: {code} ({head.status})", hint=hint, retry_after_s=error.retry_after_s)
        raise kind(error.message, hint=hint, retry_after_s=error.retry_after_s)

    def _nothing_found(self, refused: LadingError | None) -> NotFound:
        parent = self._path.rstrip("/").rpartition("/")[0]
        try:
            hint = suggest(self._path[len(parent) :].removeprefix("/"), self._names_in(parent))
        except LadingError:
            hint = _NO_CREDENTIALS if self._credentials.get() is None else ""
        found = refused or NotFound(f"{self._shown} has no files")
        return NotFound(found.message, hint=found.hint or hint)

    def _shown_name(self, name: str) -> str:
        return self._prefix_shown + printable(name)


class AzureBlobSource(_AzureSource):
    """A container's blobs below a prefix, or one blob."""

    _takes_if_match = True
    _own_headers: Headers = ()
    _token_headers: Headers = ()

    def _files(self) -> Iterator[ListedFile]:
        folder = self._path if self._path.endswith("/") or not self._path else f"{self._path}/"
        query = {"restype": "container", "comp": "list", "include": "metadata"}
        query |= {"prefix": folder} if folder else {}
        blobs = paged_list(self._shown, self._limits, name=_decoded_name)
        for page in blobs.pages(partial(self._page, "", query, "Blobs")):
            for blob in page:
                # Without a delimiter there are no prefixes in the place of blobs.
                if blob.tag != "Blob":
                    raise self._not_azure()
                name = self._name(blob, folder)
                if not _is_folder(name, blob):
                    yield self._file(name[len(folder) :], blob, name)

    def _name(self, blob: ElementTree.Element, prefix: str) -> str:
        name = _decoded_name(blob)
        if not name or not name.startswith(prefix):
            raise self._not_azure()
        return name

    def _names_in(self, folder: str) -> Iterator[str]:
        prefix = f"{folder}/" if folder else ""
        query = {"restype": "container", "comp": "list", "delimiter": "/"} | ({"prefix": prefix} if prefix else {})
        for item in self._page("", query, "Blobs").entries:
            yield self._name(item, prefix)[len(prefix) :]


class AzureFilesSource(_AzureSource):
    """A share's files below a folder, however deep, or one file."""

    # https://learn.microsoft.com/rest/api/storageservices/get-file: the ETag of the answer is all there is.
    _takes_if_match = False
    _own_headers: Headers = (("x-ms-allow-trailing-dot", "true"),)
    _token_headers: Headers = (("x-ms-file-request-intent", "backup"),)

    def _files(self) -> Iterator[ListedFile]:
        top = self._path.strip("/")
        # The ETag, and with it the length as it is now and not as it was when the last handle was closed.
        query = {"restype": "directory", "comp": "list", "include": "Etag"}
        entries = paged_list(self._shown, self._limits, name=_decoded_name)
        pending = [""]
        while pending:
            below = pending.pop()
            folder = "/".join(part for part in (top, below) if part)
            for page in entries.pages(partial(self._page, folder, query, "Entries")):
                for entry in page:
                    name = _decoded_name(entry)
                    path = f"{below}/{name}" if below else name
                    if not is_one_name(name) or len(path) > _LONGEST_PATH:
                        raise IntegrityError(f"{self._shown} lists the invalid name {printable(name)[:80]!r}")
                    if entry.tag == "Directory":
                        pending.append(path)
                    elif entry.tag == "File":
                        yield self._file(path, entry, f"{top}/{path}" if top else path)

    def digests(self, file: ListedFile) -> Sequence[Digest]:
        """The file's stored Content-MD5, which a listing does not have; costs a request."""
        if file.declared:
            return file.declared
        with self._open("HEAD", file.locator) as answer:
            return _md5(answer.head.get("content-md5"))

    def _names_in(self, folder: str) -> Iterator[str]:
        for entry in self._page(folder, {"restype": "directory", "comp": "list"}, "Entries").entries:
            yield _decoded_name(entry) + ("/" if entry.tag == "Directory" else "")


def _is_folder(name: str, blob: ElementTree.Element) -> bool:
    """Whether a blob stands for a folder: by its name, by Hadoop's mark, or as the account's hierarchy says."""
    marks = blob.iterfind("Metadata/*")
    return (
        name.endswith("/")
        or blob.findtext("Properties/ResourceType") == "directory"
        or any(mark.tag.lower() == "hdi_isfolder" and (mark.text or "").lower() == "true" for mark in marks)
    )


def _decoded_name(item: ElementTree.Element) -> str:
    """The name of a listed item; one that XML cannot hold is percent-encoded."""
    name = item.find("Name")
    if name is None:
        return ""
    text = name.text or ""
    return unquote(text) if name.get("Encoded") == "true" else text


def _size(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _md5(encoded: str) -> tuple[Digest, ...]:
    """The digest in a Content-MD5, which is of the bytes as they are stored, whatever their Content-Encoding."""
    return tuple(declared_digests(Head(200, {"content-md5": encoded}), whole=True)) if encoded else ()


@lru_cache(maxsize=8)
def _moment(at_s: int) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at_s))
