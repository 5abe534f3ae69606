"""HDFS by its WebHDFS interface: ``hdfs://path``, ``webhdfs://path``, ``webhdfs://namenode:port/path``.

https://hadoop.apache.org/docs/stable/hadoop-project-dist/hadoop-hdfs/WebHDFS.html.  HttpFS and
gateways speak it, too.  The namenode lists; a file's bytes and checksum come from a datanode that
it redirects to, with what that needs to know of the user in the URL.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

from lading.auth.kerberos import Kerberos
from lading.errors import (
    IntegrityError,
    LadingError,
    NotAllowed,
    NotFound,
    OriginChanged,
    Unavailable,
    Unsupported,
    UsageError,
)
from lading.model.byte_range import ByteRange
from lading.model.checksums import HDFS_CHUNK_BYTES
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.origin import host_and_port, split_url
from lading.model.uri import ModelURI
from lading.network.answer import Answer, status_error
from lading.network.challenges import parse_challenges
from lading.network.client import HttpClient
from lading.network.paging import CONTRADICTS, Page
from lading.settings.hdfs import Hdfs, read_hdfs
from lading.settings.limits import Network
from lading.settings.settings import Settings
from lading.sources.paged_list import is_one_name, paged_list
from lading.sources.source import Sink
from lading.text.json_xml import read_json
from lading.text.printable import printable
from lading.text.suggest import suggest

_LIST_LIMIT_BYTES = 64 << 20
_MOST_FOLDERS = 100_000
_Status = dict[str, Any]

# https://github.com/apache/hadoop, DataNode's and NameNode's ExceptionHandler: the status is 403 for
# whatever went wrong with input and output, so that the exception's name is what tells.
_EXCEPTIONS: dict[str, tuple[type[LadingError], str]] = {
    "FileNotFoundException": (NotFound, ""),
    "AccessControlException": (NotAllowed, "this user needs r on files and rx on folders"),
    "AuthorizationException": (NotAllowed, "the cluster does not let this user act for USER_PROXY"),
    "AuthenticationException": (NotAllowed, "the credentials are wrong or have expired"),
    "InvalidToken": (NotAllowed, "the delegation token has expired or is of another cluster"),
    "SecurityException": (NotAllowed, "check the user, USER_PROXY and the delegation token"),
    "IllegalArgumentException": (Unsupported, ""),
    "UnsupportedOperationException": (Unsupported, ""),
}
_OF_THE_OTHER_NAMENODE = ("StandbyException", "RetriableException")

_CHUNKED = re.compile(rf"MD5-of-(\d+)MD5-of-{HDFS_CHUNK_BYTES}(CRC32C?)")
_COMPOSITE = re.compile(r"COMPOSITE-(CRC32C?)")
# The checksum's own parameters, an int and a long, stand before its MD5.
_MD5_AT = slice(12, 28)


class HdfsSource:
    """The files below a folder of HDFS, or one file.  The validator is its inode, length and modification time."""

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        hdfs = self._settings = read_hdfs(settings.variables)
        self._shown = uri.redacted()
        self._namenodes, self._names = _namenodes_and_names(uri, hdfs)
        self._limits = settings.limits
        for kind, given in (("delegation token", hdfs.delegation_token), ("HEADERS", hdfs.headers)):
            for namenode in self._namenodes if given else ():
                split_url(namenode)[0].refuse_in_clear(f"the {kind} for HDFS")
        self._active = 0
        self._lock = threading.Lock()
        self._http = http.reaching(_network(http.network, hdfs))
        self._kerberos = Kerberos(hdfs.principal, hdfs.keytab) if hdfs.principal else None
        self._wants_digests = settings.verify != "off"
        # Erasure-coded and encrypted files: their checksums are not of their bytes in order.  A server
        # that does not tell the inode does not tell this either (HttpFS before HDFS-14665).
        self._of_other_bytes: set[str] = set()
        self.credential_kind = _credential_kind(hdfs)

    def list(self) -> Listing:
        root = self._root()
        try:
            files = list(self._files(root))
        except NotFound as error:
            raise NotFound(error.message, hint=error.hint or self._suggestion(root)) from error
        if not files:
            raise NotFound(f"{self._shown} has no files", hint=self._suggestion(root))
        return Listing.of(files)

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        if self._wants_digests and byte_range == ByteRange(0, file.size_bytes):
            sink.on_digests(self.digests(file))
        length = (byte_range.end or 0) - byte_range.start
        with self._open("OPEN", file.locator, offset=str(byte_range.start), length=str(length)) as answer:
            sent_bytes = answer.head.get("content-length")
            if sent_bytes and sent_bytes != str(length):
                self._check_version(file)
                raise Unavailable(
                    f"{self._shown_path(file.locator)}: {sent_bytes} bytes are sent instead of {byte_range}"
                )
            answer.read_into(sink.write)
        # OPEN takes no validator, and a datanode finds the blocks of a long file by its name, a few at a
        # time: what is the listed version after the last byte was it all along.
        self._check_version(file)

    def digests(self, file: ListedFile) -> Sequence[Digest]:
        """The checksum that the cluster keeps, as far as it can be computed from the bytes; costs up to three requests."""
        if not file.size_bytes or file.locator in self._of_other_bytes:
            return ()
        try:
            found = self._json("GETFILECHECKSUM", file.locator)["FileChecksum"]
            algorithm, value = found["algorithm"], bytes.fromhex(found["bytes"])
            if match := _COMPOSITE.fullmatch(algorithm):
                return [Digest(match[1].lower(), value[:4].hex())]
            if (match := _CHUNKED.fullmatch(algorithm)) and (sizes := self._block_sizes(file, int(match[1]))):
                return [Digest(f"hdfs-{match[2].lower()}", value[_MD5_AT].hex(), sizes)]
        except (Unsupported, NotAllowed, TypeError, KeyError, ValueError):
            # A gateway that has no such operation; a file whose blocks have checksums of two kinds.
            pass
        return ()

    def _block_sizes(self, file: ListedFile, chunks: int) -> tuple[int, ...]:
        """Sizes of the file's blocks; the first has so many ``chunks``, of which 0 means that it is the only one.

        They are asked for and not computed: files that were concatenated or appended to have blocks of any size.
        """
        if not chunks:
            return (file.size_bytes or 0,)
        blocks = self._json("GETFILEBLOCKLOCATIONS", file.locator)["BlockLocations"]["BlockLocation"]
        sizes = tuple(int(block["length"]) for block in blocks)
        return sizes if sum(sizes) == file.size_bytes and all(size > 0 for size in sizes) else ()

    def _check_version(self, file: ListedFile) -> None:
        try:
            status = self._json("GETFILESTATUS", file.locator)["FileStatus"]
        except NotFound as error:
            raise OriginChanged(f"{self._shown_path(file.locator)} is gone") from error
        except (KeyError, TypeError) as error:
            raise self._not_webhdfs() from error
        if _validator(status) != file.validator:
            raise OriginChanged(f"{self._shown_path(file.locator)} changed while it was read")

    def _root(self) -> str:
        """The path of the URI in HDFS, without a slash at its end."""
        root = self._settings.root
        if not root.startswith("/"):
            # A relative one is below the user's home, as for KServe's own client.
            home = self._ask_json("GETHOMEDIRECTORY", "/", what=self._shown)
            root = f"{home.get('Path', '')}/{root}"
        return "/".join(["", *filter(None, root.split("/")), *self._names])

    def _files(self, root: str) -> Iterator[ListedFile]:
        folders = [""]
        entries = paged_list(self._shown, self._limits, name=_name_of)
        for count in range(_MOST_FOLDERS):
            if not folders:
                return
            folder = folders.pop()
            below = f"{root}/{folder}".rstrip("/")
            for status in chain.from_iterable(entries.pages(partial(self._statuses, below))):
                name, kind = _name_of(status), status["type"]
                if not name and kind == "FILE" and not count:
                    yield self._file(root.rpartition("/")[2], root, status)
                    continue
                if not is_one_name(name):
                    raise IntegrityError(f"the listing of {self._shown} holds the name {printable(name)!r}")
                path = f"{folder}{name}"
                if kind == "DIRECTORY":
                    folders.append(f"{path}/")
                elif kind == "FILE":
                    yield self._file(path, f"{below}/{name}", status)
                else:
                    what = f"{self._shown_path(f'{below}/{name}')} is neither a file nor a folder"
                    yield ListedFile(path, None, locator=f"{below}/{name}", refusal=Unsupported(what))
        raise IntegrityError(f"the listing of {self._shown} does not end")

    def _file(self, path: str, locator: str, status: _Status) -> ListedFile:
        if "fileId" not in status or status.get("ecBit") or status.get("encBit"):
            self._of_other_bytes.add(locator)
        return ListedFile(path, status["length"], _validator(status), locator=locator)

    def _statuses(self, folder: str, after: str = "") -> Page[_Status]:
        """A page of what is in a folder, or the file itself with an empty name; others follow its last name."""
        query = {"startAfter": after} if after else {}
        try:
            statuses, left = self._page("LISTSTATUS_BATCH", folder, **query)
        except Unsupported:
            # Older servers have no pages.
            if after:
                raise
            statuses, left = self._page("LISTSTATUS", folder)
        last = _name_of(statuses[-1]) if statuses else ""
        if left and last <= after:
            raise IntegrityError(f"the listing of {self._shown} does not end", hint=CONTRADICTS)
        return Page(statuses, last if left else "")

    def _page(self, operation: str, folder: str, **query: str) -> tuple[Sequence[_Status], int]:
        """Statuses, and how many are left for the pages that follow."""
        answer = self._ask_json(operation, folder, what=f"the listing of {self._shown}", **query)
        try:
            left = 0
            if operation == "LISTSTATUS_BATCH":
                answer = answer["DirectoryListing"]
                left, answer = answer["remainingEntries"], answer["partialListing"]
                if type(left) is not int or left < 0:
                    raise ValueError(left)
            statuses = answer["FileStatuses"]["FileStatus"]
            for status in statuses:
                if not isinstance(status["pathSuffix"], str) or type(status["length"]) is not int:
                    raise TypeError(status)
                if status["type"] == "FILE" and status["length"] < 0:
                    raise ValueError(status)
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_webhdfs() from error
        return statuses, left

    def _suggestion(self, root: str) -> str:
        parent, _, wanted = root.rpartition("/")
        try:
            names = list(map(_name_of, self._statuses(parent).entries))
        except LadingError:
            return ""
        return suggest(wanted, names)

    def _ask_json(self, operation: str, path: str, *, what: str, **query: str) -> dict[str, Any]:
        """As ``_json``, asked for until it comes."""
        return self._http.ask(partial(self._open, operation, path, **query), self._parsed, what=what)

    def _json(self, operation: str, path: str, **query: str) -> dict[str, Any]:
        with self._open(operation, path, **query) as answer:
            return self._parsed(answer)

    def _parsed(self, answer: Answer) -> dict[str, Any]:
        try:
            found = read_json(answer.read(_LIST_LIMIT_BYTES))
        except ValueError as error:
            raise self._not_webhdfs() from error
        if not isinstance(found, dict):
            raise self._not_webhdfs()
        return found

    def _open(self, operation: str, path: str, **query: str) -> Answer:
        """A successful answer to one request, of the first namenode that is there and active."""
        failure: LadingError | None = None
        for _ in self._namenodes:
            active = self._active
            try:
                return self._ask(self._namenodes[active], operation, path, query)
            except Unavailable as error:
                if failure is None or isinstance(failure, _Standby):
                    failure = error
            self._leave(active)
        raise failure or self._not_webhdfs()

    def _leave(self, namenode: int) -> None:
        """Ask the next one from now on, unless another thread has seen to it."""
        with self._lock:
            if self._active == namenode:
                self._active = (namenode + 1) % len(self._namenodes)

    def _ask(self, namenode: str, operation: str, path: str, query: dict[str, str]) -> Answer:
        hdfs = self._settings
        query = {"op": operation, **query}
        if hdfs.delegation_token:
            query["delegation"] = hdfs.delegation_token.reveal()
        elif hdfs.user and not self._kerberos:
            query["user.name"] = hdfs.user
        if hdfs.proxy_user and not hdfs.delegation_token:
            query["doas"] = hdfs.proxy_user
        headers = [(name, value.reveal()) for name, value in hdfs.headers]
        if self._kerberos and not hdfs.delegation_token:
            headers.append(self._kerberos.authorization(split_url(namenode)[0].name))
        url = f"{namenode}/webhdfs/v1{quote(path or '/', safe='/~')}?{urlencode(query)}"
        try:
            answer = self._http.open("GET", url, headers)
        except NotFound as error:
            # No such host: another namenode may be there.
            if len(self._namenodes) == 1:
                raise
            raise Unavailable(error.message, hint=error.hint) from error
        if answer.head.status != 200:
            with answer:
                self._refuse(answer, self._shown_path(path))
        return answer

    def _refuse(self, answer: Answer, what: str) -> NoReturn:
        head = answer.head
        name = _exception(answer)
        if name in _OF_THE_OTHER_NAMENODE:
            raise _Standby(f"{what}: no namenode is active ({name})")
        if name in _EXCEPTIONS:
            kind, hint = _EXCEPTIONS[name]
            raise kind(f"{what} does not exist" if kind is NotFound else f"{what}: {name} ({head.status})", hint=hint)
        if name and head.status == 403:
            raise Unavailable(f"{what}: {printable(name)[:80]} ({head.status})")
        offered = {challenge.scheme for challenge in parse_challenges(head.get("www-authenticate"))}
        if head.status == 401 and "negotiate" in offered and not self._kerberos:
            raise NotAllowed(
                f"{what}: the cluster requires Kerberos (401)",
                hint="set KERBEROS_PRINCIPAL and KERBEROS_KEYTAB, or HDFS_DELEGATION_TOKEN",
            )
        raise status_error(head, what)

    def _not_webhdfs(self) -> Unsupported:
        return Unsupported(
            f"{self._namenodes[self._active]} does not answer as WebHDFS does", hint="check HDFS_NAMENODE"
        )

    def _shown_path(self, path: str) -> str:
        return printable(f"hdfs://{path}")


class _Standby(Unavailable):
    """A namenode that is not the active one."""


def _namenodes_and_names(uri: ModelURI, hdfs: Hdfs) -> tuple[tuple[str, ...], list[str]]:
    """The namenodes to ask, and the names on the way to the URI's path, below the configured root.

    As KServe has it, the path begins right behind ``hdfs://``.  What has a port there is a host, though:
    no name in HDFS holds a colon.  A host that nobody configured is asked, without credentials.
    """
    if uri.query is not None or "@" in (uri.authority or ""):
        raise UsageError(
            f"{uri.redacted()} is not an HDFS URI", hint="write hdfs://path or webhdfs://namenode:9870/path"
        )
    authority = uri.authority or ""
    path = uri.path + ("" if uri.fragment is None else f"#{uri.fragment}")
    namenodes = hdfs.namenodes
    if ":" in authority:
        host, _ = host_and_port(authority)
        if namenodes and host not in [split_url(namenode)[0].name for namenode in namenodes]:
            raise UsageError(
                f"{uri.redacted()} names another host than HDFS_NAMENODE does", hint="leave the host out: hdfs://path"
            )
        if not namenodes and uri.scheme.lower() != "hdfs":
            namenodes = (f"{'https' if uri.scheme.lower() == 'swebhdfs' else 'http'}://{authority}",)
    else:
        path = f"{authority}/{path}"
    if not namenodes:
        raise UsageError(
            f"{uri.redacted()} is in HDFS, and no HDFS_NAMENODE is configured",
            hint="set it, for example to https://namenode:9871, or write webhdfs://namenode:9870/path",
        )
    names = [name for name in path.split("/") if name]
    if "." in names or ".." in names:
        raise UsageError(f"{uri.redacted()} has a '.' or '..' in its path")
    return namenodes, names


def _network(network: Network, hdfs: Hdfs) -> Network:
    ca_files = (*network.ca_files, hdfs.tls_ca) if hdfs.tls_ca else network.ca_files
    return network._replace(
        ca_files=ca_files,
        verify_tls=network.verify_tls and hdfs.verify_tls,
        client_certificate=hdfs.tls_certificate,
        client_key=hdfs.tls_key,
    )


def _credential_kind(hdfs: Hdfs) -> str:
    kinds = {
        "delegation token": hdfs.delegation_token,
        "Kerberos": hdfs.principal,
        "client certificate": hdfs.tls_certificate,
        "configured headers": hdfs.headers,
        "user name": hdfs.user,
    }
    return next((kind for kind, given in kinds.items() if given), "anonymous")


def _name_of(status: _Status) -> str:
    """The name in its folder; "" for what was itself asked for."""
    return str(status["pathSuffix"])


def _validator(status: _Status) -> str:
    """The inode is another one when a file is replaced, the other two change with an append."""
    return f"{status.get('fileId', '')}-{status.get('length')}-{status.get('modificationTime')}"


def _exception(answer: Answer) -> str:
    """The name of the exception in an error's body; "" where there is none."""
    try:
        name = read_json(answer.error_body())["RemoteException"]["exception"]
    except (ValueError, KeyError, TypeError):
        return ""
    return name if isinstance(name, str) else ""
