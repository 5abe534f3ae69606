"""Google Cloud Storage: ``gs://bucket``, ``gs://bucket/prefix``, ``gs://bucket/object``.

https://cloud.google.com/storage/docs/json_api/v1.  A prefix ends at a path boundary: ``model`` means
``model/…`` or exactly ``model``, never ``model-v2/…``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

from lading.auth.google import METADATA, GoogleCredentials
from lading.errors import (
    HostNotFound,
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
from lading.model.listing import ListedFile, Listing
from lading.model.origin import endpoint_origin, split_url
from lading.model.uri import ModelURI
from lading.network.answer import Answer, read_whole, status_error
from lading.network.client import HttpClient
from lading.network.headers import (
    base64_digest,
    check_answer,
    content_coding,
    declared_digests,
    decode_into,
    range_header,
)
from lading.network.paging import Page
from lading.secret import Token
from lading.settings.google import read_gcs, read_google
from lading.settings.settings import Settings
from lading.sources.paged_list import nothing_below, paged_list
from lading.sources.source import Sink
from lading.text.json_xml import read_json
from lading.text.printable import printable

_LIST_LIMIT_BYTES = 64 << 20
# https://cloud.google.com/storage/docs/buckets#naming
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_FORM = (
    "write gs://bucket/object-or-prefix; a bucket's name has three or more lower-case letters, digits, dots and dashes"
)
_SIZE = re.compile(r"[0-9]{1,18}")
_FACTS = "name,size,generation,crc32c,md5Hash,contentEncoding"
_PLAIN = ("Accept-Encoding", "identity")

# https://cloud.google.com/storage/docs/json_api/v1/status-codes: reasons that say more than their status
# does, with what to try.
_PAYS = "the requester pays for this bucket: set GOOGLE_CLOUD_QUOTA_PROJECT to the project that does"
_REASONS: dict[str, tuple[type[LadingError], str]] = {
    "forbidden": (
        NotAllowed,
        "the identity needs storage.objects.list and storage.objects.get (role Storage Object Viewer)",
    ),
    "insufficientPermissions": (NotAllowed, "the token's scopes do not let it read Cloud Storage"),
    "userProjectMissing": (NotAllowed, _PAYS),
    "authenticationRequiredRequesterPays": (NotAllowed, _PAYS),
    "rateLimitExceeded": (Unavailable, ""),
    "userRateLimitExceeded": (Unavailable, ""),
}


class GcsSource:
    """A bucket's objects below a prefix, or one object.  The validator is the generation.

    An object that is stored with ``Content-Encoding: gzip`` is delivered decoded, as Google's own clients do.
    """

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        if uri.query is not None or not _BUCKET.fullmatch(uri.authority or ""):
            raise UsageError(f"{uri.redacted()} is not a GCS URI", hint=_FORM)
        self._bucket = uri.authority or ""
        self._name = uri.path.removeprefix("/") + ("" if uri.fragment is None else f"#{uri.fragment}")
        self._shown = uri.redacted()
        self._http = http
        self._limits = settings.limits
        gcs = read_gcs(settings.variables)
        self._origin = endpoint_origin(gcs.endpoint, "STORAGE_EMULATOR_HOST and API_ENDPOINT_OVERRIDE")
        self._base = f"{self._origin}{split_url(gcs.endpoint)[1].rstrip('/')}"
        self._paying = [("x-goog-user-project", gcs.quota_project)] if gcs.quota_project else []
        self._credentials = None if gcs.emulator else GoogleCredentials(read_google(settings.variables), http)
        self._refusal: NotAllowed | None = None

    @property
    def credential_kind(self) -> str:
        token = self._token()
        return token.kind if token else "anonymous"

    def list(self) -> Listing:
        folder = self._name if self._name.endswith("/") or not self._name else f"{self._name}/"
        # Credentials that are not found or not allowed are another matter than objects that are not.
        self._token()
        files, refusal = [], None
        try:
            files = list(self._files(folder))
        except NotAllowed as error:
            # An object may be public in a bucket whose listing is not.
            refusal = error
        if not files and folder != self._name and (file := self._single()):
            files = [file]
        if not files:
            raise refusal or nothing_below(self._shown, self._name, self._names_in)
        return Listing.of(files)

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        # Of its bytes, once decoded, nobody knows the number.
        is_encoded = file.size_bytes is None
        asked = ("Accept-Encoding", "gzip") if is_encoded else _PLAIN
        headers = [asked, *range_header(byte_range, file.size_bytes)]
        pinned = {"generation": file.validator} if file.validator and not file.answers_differ else {}
        query = {"alt": "media"} | pinned
        what = self._shown_name(file.locator)
        try:
            answer = self._open(f"/download{self._object(file.locator)}", query, headers, what, file)
        except NotFound as error:
            # That generation is gone; is the object?
            if self._generation(file.locator) not in ("", file.validator):
                raise OriginChanged(f"{what} was replaced") from error
            raise
        with answer:
            head = answer.head
            coding = content_coding(head.get("content-encoding"))
            if is_encoded != (coding == "gzip") and not (is_encoded and not coding):
                raise OriginChanged(f"{what} has another encoding now")
            if not is_encoded:
                check_answer(head, byte_range, file.size_bytes, what)
            elif head.status != 200:
                raise status_error(head, what)
            sink.version(head.get("x-goog-generation"))
            if not is_encoded:
                sink.on_digests(tuple(declared_digests(head, whole=head.status == 200)))
            if coding == "gzip":
                decode_into(answer, sink.write)
            else:
                answer.read_into(sink.write)

    def _files(self, folder: str) -> Iterator[ListedFile]:
        objects = paged_list(self._shown, self._limits, name=self._name_of)
        for items in objects.pages(partial(self._items, folder)):
            for item in items:
                name = self._name_of(item)
                if not name.startswith(folder):
                    raise _not_gcs(self._shown)
                # A name that ends in a slash is a folder marker, whatever its size.
                if not name.endswith("/"):
                    yield self._file(name[len(folder) :], name, item)

    def _items(self, folder: str, token: str) -> Page[Mapping[str, Any]]:
        """The objects of one page, and the token of the one that follows, which the last one does not have."""
        page = self._page(folder, token)
        following = page.get("nextPageToken", "")
        # Without a delimiter there are no prefixes in the place of objects.
        if not isinstance(following, str) or page.get("prefixes") or "error" in page:
            raise _not_gcs(self._shown)
        return Page(_objects(page, "items", self._shown), following)

    def _name_of(self, item: Mapping[str, Any]) -> str:
        return _text(item, "name", self._shown)

    def _file(self, path: str, name: str, item: Mapping[str, Any]) -> ListedFile:
        size, generation = _text(item, "size", self._shown), item.get("generation")
        if not _SIZE.fullmatch(size) or not (generation is None or isinstance(generation, str)):
            raise _not_gcs(self._shown)
        if content_coding(str(item.get("contentEncoding", ""))) == "gzip":
            # Size and digests are those of the encoded bytes: nothing is known of what comes out of the decoder.
            return ListedFile(path, None, generation, locator=name, ranged=False)
        known = {"crc32c": item.get("crc32c"), "md5": item.get("md5Hash")}
        declared = [
            digest
            for algorithm, encoded in known.items()
            if isinstance(encoded, str)
            for digest in base64_digest(algorithm, encoded)
        ]
        return ListedFile(path, int(size), generation, tuple(declared), locator=name)

    def _single(self) -> ListedFile | None:
        """The object of exactly this name; None if there is none, or none to be seen."""
        try:
            item = self._ask(self._object(self._name), {"fields": _FACTS}, self._shown)
        except (NotFound, NotAllowed):
            return None
        return self._file(self._name.rpartition("/")[2], self._name, item)

    def _generation(self, name: str) -> str:
        """The object's present generation; "" if there is no object."""
        try:
            found = self._ask(self._object(name), {"fields": "generation"}, self._shown_name(name)).get("generation")
        except NotFound:
            return ""
        return found if isinstance(found, str) else ""

    def _page(self, prefix: str, token: str = "", delimiter: str = "") -> Mapping[str, Any]:
        """One page of objects.list."""
        query = {"prefix": prefix, "delimiter": delimiter, "pageToken": token}
        wanted = f"items({_FACTS}),prefixes,nextPageToken"
        asked = {name: value for name, value in query.items() if value} | {"fields": wanted}
        try:
            return self._ask(f"/storage/v1/b/{self._bucket}/o", asked, self._shown)
        except HostNotFound:
            raise
        except NotFound as error:
            # A prefix that nothing is below is an empty page.
            raise NotFound(
                f"there is no bucket gs://{self._bucket} ({error.message})",
                hint="check the bucket's name and the endpoint",
            ) from error

    def _ask(self, path: str, query: Mapping[str, str], what: str) -> Mapping[str, Any]:
        """A JSON answer, asked for until it comes."""
        send = partial(self._open, path, query, [_PLAIN], what)
        found = _parsed(self._http.ask(send, partial(read_whole, limit_bytes=_LIST_LIMIT_BYTES, what=what), what=what))
        if found is None:
            raise _not_gcs(self._shown)
        return found

    def _open(
        self,
        path: str,
        query: Mapping[str, str],
        headers: Sequence[tuple[str, str]],
        what: str,
        of: ListedFile | None = None,
    ) -> Answer:
        """One request, for content ``of`` a file if given; any answer but success is raised as what its reason and status say."""
        token = self._token()
        sent = [*headers, *self._paying]
        if token is not None:
            sent.append(("Authorization", f"Bearer {token.value.reveal()}"))
        url = f"{self._base}{path}?{urlencode(query, quote_via=quote)}"
        answer = self._http.open("GET", url, sent, redirects=0, of=of)
        if answer.head.status >= 300:
            with answer:
                self._refuse(answer, token, what)
        if self._credentials is not None:
            self._credentials.accepted(token)
        return answer

    def _token(self) -> Token | None:
        if self._credentials is None or self._refusal is not None:
            return None
        token = self._credentials.get()
        if token is not None:
            self._origin.refuse_in_clear(
                "the Google token",
                "use https, or STORAGE_EMULATOR_HOST for an emulator, which is asked without credentials",
            )
        return token

    def _refuse(self, answer: Answer, token: Token | None, what: str) -> NoReturn:
        error = _error(answer, what)
        if isinstance(error, NotAllowed) and self._credentials is not None:
            if token is None:
                raise self._without_token(error)
            if answer.head.status == 401 and self._credentials.refused(token, answer.head):
                raise TryAtOnce(f"{what}: the token has expired")
            if token.kind == METADATA and not self._credentials.was_accepted(token):
                # Nobody chose the machine's own identity: what is public need not be refused because of it.
                self._refusal = error
                raise TryAtOnce(f"{what}: the machine's identity is not allowed to read this")
        raise error

    def _without_token(self, error: NotAllowed) -> LadingError:
        """The error of a request without credentials that was refused."""
        if self._refusal is not None:
            return self._refusal
        if self._credentials is not None and self._credentials.unanswered:
            return Unavailable(
                f"{error.message}; the metadata server, which would give credentials, does not answer",
                hint="try again later, or set GOOGLE_APPLICATION_CREDENTIALS",
            )
        if error.hint != _PAYS:
            error.hint = (
                "no Google credentials were found; set GOOGLE_APPLICATION_CREDENTIALS, or check the bucket's name"
            )
        return error

    def _names_in(self, prefix: str) -> Sequence[str]:
        page = self._page(prefix, delimiter="/")
        names = [_text(item, "name", self._shown) for item in _objects(page, "items", self._shown)]
        folders = page.get("prefixes")
        return names + [name for name in folders if isinstance(name, str)] if isinstance(folders, list) else names

    def _object(self, name: str) -> str:
        """The path of an object, whose name is one segment of it."""
        return f"/storage/v1/b/{self._bucket}/o/{quote(name, safe='~')}"

    def _shown_name(self, name: str) -> str:
        return printable(f"gs://{self._bucket}/{name}")


def _error(answer: Answer, what: str) -> LadingError:
    body = _parsed(answer.error_body()) or {}
    plain = status_error(answer.head, what)
    try:
        reason = body["error"]["errors"][0]["reason"]
        kind, hint = _REASONS[reason]
    except (KeyError, IndexError, TypeError):
        return plain
    return kind(f"{what}: {reason} ({answer.head.status})", hint=hint, retry_after_s=plain.retry_after_s)


def _parsed(body: bytes) -> Mapping[str, Any] | None:
    try:
        found = read_json(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _objects(page: Mapping[str, Any], name: str, what: str) -> list[Mapping[str, Any]]:
    found = page.get(name) or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _not_gcs(what)
    return found


def _text(item: Mapping[str, Any], name: str, what: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise _not_gcs(what)
    return value


def _not_gcs(what: str) -> Unsupported:
    return Unsupported(f"the server of {what} does not speak Cloud Storage's JSON API", hint="check the endpoint")
