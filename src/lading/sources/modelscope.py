"""ModelScope: ``modelscope://owner/model`` and ``ms://owner/model``, each with ``:revision`` or without.

Its API is that of its own client, the package modelscope-hub: there is no other description.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from lading.errors import IntegrityError, LadingError, NotAllowed, NotFound, Unsupported, UsageError
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.origin import endpoint_origin
from lading.model.uri import ModelURI, redact
from lading.model.validator import entity_tag
from lading.network.answer import status_error
from lading.network.client import HttpClient
from lading.network.headers import check_answer, range_header
from lading.network.links import Redirects
from lading.network.wire import Head
from lading.settings.modelscope import read_modelscope
from lading.settings.settings import Settings
from lading.sources.source import Sink
from lading.text.json_xml import read_json
from lading.text.printable import printable
from lading.text.suggest import suggest

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_LOCATION = re.compile(rf"(?P<id>{_NAME}/{_NAME})(?::(?P<revision>[^\ud800-\udfff]+))?")
_DEFAULT_REVISION = "master"
_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIST_LIMIT_BYTES = 64 << 20
# A listing of so many entries was cut off, without a word about it.
_MOST_ENTRIES = 3000
_MOST_LISTINGS = 5000

# A file or folder as it is listed: Type, Path, Size, Sha256, Revision, IsLFS.
_Entry = dict[str, Any]


class ModelScopeSource:
    """A model at one revision.  The validator is the content's SHA-256.

    Branches and tags move; a file is asked for by a commit that has it, where the listing names one.
    """

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        found = _LOCATION.fullmatch(f"{uri.authority or ''}{uri.path}".rstrip("/"))
        if found is None or uri.query is not None or uri.fragment is not None:
            raise UsageError(
                f"{uri.redacted()} does not name a model of ModelScope",
                hint="write modelscope://owner/model or modelscope://owner/model:revision",
            )
        self._id = found["id"]
        self._revision = found["revision"] or _DEFAULT_REVISION
        self._shown = uri.redacted()
        scope = read_modelscope(settings.variables)
        self._endpoint = scope.endpoint
        origin = endpoint_origin(scope.endpoint, "MODELSCOPE_ENDPOINT")
        self._api = f"{scope.endpoint}/api/v1/models/{self._id}"
        self._headers: list[tuple[str, str]] = []
        if scope.token is not None:
            origin.refuse_in_clear("MODELSCOPE_API_TOKEN")
            # Some of its calls know the one, some the other; its own client sends both.
            token = scope.token.reveal()
            self._headers = [("Authorization", f"Bearer {token}"), ("Cookie", f"m_session_id={token}")]
        self.credential_kind = "MODELSCOPE_API_TOKEN" if scope.token else "anonymous"
        self._http = http
        self._redirects = Redirects(http)
        self._commit = ""
        self.pin = uri

    def list(self) -> Listing:
        entries = self._walk()
        if self._commit:
            self.pin = ModelURI.parse(f"modelscope://{self._id}:{self._commit}")
        files = [self._file(entry) for entry in entries]
        if not files:
            raise NotFound(f"{self._shown} has no files")
        return Listing.of(files)

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        headers = [("Accept-Encoding", "identity"), *range_header(byte_range, file.size_bytes)]
        what = f"{self._shown} ({printable(file.path)})"
        with self._redirects.open(file, f"{self._api}/repo?{file.locator}", headers, self._headers) as answer:
            if answer.head.status >= 400:
                raise self._refusal(answer.head, what)
            check_answer(answer.head, byte_range, file.size_bytes, what)
            # The content network names what it sends by its SHA-256, which is no news where that is listed.
            linked = entity_tag(answer.head.get("x-linked-etag")).removeprefix("W/").strip('"').lower()
            if _SHA256.fullmatch(linked):
                if file.declared:
                    sink.version(linked)
                else:
                    sink.on_digests((Digest("sha256", linked),))
            answer.read_into(sink.write)

    def _walk(self) -> Sequence[_Entry]:
        """Every file.  What one listing cannot hold is listed folder by folder."""
        files: list[_Entry] = []
        folders = [""]
        for _ in range(_MOST_LISTINGS):
            if not folders:
                return files
            folder = folders.pop()
            entries = self._entries(folder, recursive=True)
            if len(entries) >= _MOST_ENTRIES:
                entries = self._entries(folder, recursive=False)
                if len(entries) >= _MOST_ENTRIES:
                    raise Unsupported(
                        f"{self._shown} has {_MOST_ENTRIES} or more entries in "
                        f"{printable(folder) or 'its top folder'}, and ModelScope lists no more than that",
                        hint="this model cannot be listed completely: get it from another source",
                    )
                folders += [entry["Path"] for entry in entries if entry.get("Type") == "tree"]
            files += [entry for entry in entries if entry.get("Type") != "tree"]
        raise IntegrityError(f"the listing of {self._shown} does not end")

    def _entries(self, folder: str, *, recursive: bool) -> Sequence[_Entry]:
        """The entries of one listing, and the commit of the first one, if the site gives it."""
        query = {"Revision": self._commit or self._revision, "Recursive": str(recursive)}
        if folder:
            query["Root"] = folder
        head, data = self._ask(f"/repo/files?{urlencode(query)}")
        if head.status == HTTPStatus.NOT_FOUND:
            raise self._missing()
        if head.status != 200:
            raise self._refusal(head, self._shown)
        entries = data.get("Files") if isinstance(data, dict) else None
        if not isinstance(entries, list) or not all(_is_below(entry, folder) for entry in entries):
            raise self._not_modelscope()
        latest = data.get("LatestCommitter")
        commit = latest.get("Id") if isinstance(latest, dict) else None
        # Of a folder, it would be the commit that changed the folder last.
        if not folder and not self._commit and isinstance(commit, str) and _SHA1.fullmatch(commit):
            self._commit = commit
        return entries

    def _file(self, entry: _Entry) -> ListedFile:
        size, sha256, changed = entry.get("Size"), entry.get("Sha256"), entry.get("Revision")
        if type(size) is not int or size < 0:
            raise self._not_modelscope()
        commit = changed if isinstance(changed, str) and _SHA1.fullmatch(changed) else ""
        digests = (Digest("sha256", sha256),) if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else ()
        query = {"Revision": self._commit or commit or self._revision, "FilePath": entry["Path"]}
        return ListedFile(
            entry["Path"],
            size,
            digests[0].value if digests else commit or self._commit or None,
            digests,
            locator=urlencode(query),
            # What is no LFS object comes from the site itself, which sends all of it whatever range is asked for.
            ranged=entry.get("IsLFS") is True,
        )

    def _ask(self, path: str) -> tuple[Head, Any]:
        """An answer of the API about this model: its head, with the status that its code stands for, and its data."""
        head, body = self._http.fetch(
            "GET",
            f"{self._api}{path}",
            self._headers,
            limit_bytes=_LIST_LIMIT_BYTES,
            what=f"the listing of {self._shown}",
        )
        try:
            answer = read_json(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            return head, None
        code = answer.get("Code")
        if head.status == 200 and type(code) is int and 400 <= code < 600:
            head = head._replace(status=code)
        return head, answer.get("Data")

    def _missing(self) -> LadingError:
        """The error that says what is missing: the model, or only its revision."""
        if self._ask("")[0].status != 200:
            hint = "check its name" + ("" if self._headers else ", or it is private: set MODELSCOPE_API_TOKEN")
            return NotFound(f"{self._shown}: there is no such model", hint=hint)
        _, data = self._ask("/revisions")
        known = data.get("RevisionMap") if isinstance(data, dict) else None
        groups = [known.get(kind) for kind in ("Branches", "Tags")] if isinstance(known, dict) else []
        items = [item for group in groups if isinstance(group, list) for item in group if isinstance(item, dict)]
        names = [name for item in items if isinstance(name := item.get("Revision"), str)]
        return NotFound(f"{self._shown}: there is no such revision", hint=suggest(self._revision, names))

    def _refusal(self, head: Head, what: str) -> LadingError:
        error = status_error(head, what)
        if isinstance(error, NotAllowed):
            wrong = "the token is wrong, has expired, or does not allow this"
            error.hint = wrong if self._headers else "set MODELSCOPE_API_TOKEN"
        return error

    def _not_modelscope(self) -> LadingError:
        return Unsupported(
            f"{redact(self._endpoint)} does not answer as ModelScope does", hint="check MODELSCOPE_ENDPOINT"
        )


def _is_below(entry: object, folder: str) -> bool:
    path = entry.get("Path") if isinstance(entry, dict) else None
    return isinstance(path, str) and path.startswith(f"{folder}/" if folder else "")
