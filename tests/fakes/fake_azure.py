"""As much of Azure Blob Storage, Azure Files and Microsoft Entra as lading asks for, on the faulty server.

It is checked with Microsoft's own clients in ``test_fake_azure.py``, and checks Shared Key signatures
with what they sign by.  Requests come by the accounts' own names (``lading.blob.core.windows.net``) through a
proxy, or by path (``/lading/models``), as at an emulator.
"""

import hashlib
import json
import socket
import socketserver
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from fakes.faulty_http import MODIFIED, Answer, FaultyServer, Request, Resource
from lading.settings.limits import Network

ACCOUNT = "lading"
KEY = b64encode(b"a key of sixty-four bytes, as Azure gives two of to each account").decode()
CONTAINER = "models"
SHARE = "models"
TENANT = "11111111-2222-3333-4444-555555555555"
NOWHERE = "http://127.0.0.1:1"

_STATUS = {
    "AuthenticationFailed": 403,
    "AuthorizationFailure": 403,
    "AuthorizationPermissionMismatch": 403,
    "BlobArchived": 409,
    "BlobNotFound": 404,
    "ConditionNotMet": 412,
    "ContainerNotFound": 404,
    "InvalidAuthenticationInfo": 401,
    "InvalidRange": 416,
    "MissingRequiredHeader": 400,
    "PublicAccessNotPermitted": 409,
    "ResourceNotFound": 404,
    "ServerBusy": 503,
    "SharingViolation": 409,
}


@dataclass(frozen=True)
class Stored:
    """A blob or file; ``md5`` "" is one that nobody told its MD5."""

    content: bytes | memoryview
    md5: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    resource_type: str = ""

    @cached_property
    def etag(self) -> str:
        return f"0x{hashlib.sha256(self.content).hexdigest()[:15].upper()}"


def md5_of(content: bytes | memoryview) -> str:
    return b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


class FakeAzure:
    """One account with one container and one share.

    ``public`` is what may be read by anybody; ``refuse`` looks at each request and names an error code, or
    nothing.  ``tokens`` are the bearer tokens that hold now, ``sas`` the signatures, of which those in
    ``blob_sas`` let nobody list.
    """

    def __init__(self, server: FaultyServer) -> None:
        self.server = server
        self.blobs: dict[str, Stored] = {}
        self.files: dict[str, Stored] = {}
        self.folders: set[str] = set()
        self.public: Literal["nothing", "blobs", "container"] = "nothing"
        self.tokens: set[str] = set()
        self.sas: set[str] = set()
        self.blob_sas: set[str] = set()
        self.refuse: Callable[[Request], str | None] = lambda request: None
        self.page_size = 5000
        server.routes["/"] = self.answer

    def put(self, name: str, content: bytes | memoryview, *, told: bool = True, **about: Any) -> None:
        """Put a blob and a file of this name; ``told`` says that its MD5 is known."""
        stored = Stored(content, md5=md5_of(content) if told else "", **about)
        self.blobs[name] = self.files[name] = stored

    def answer(self, request: Request) -> Answer:
        if "x-ms-range" in request.headers:
            request = replace(request, headers=request.headers | {"range": request.headers["x-ms-range"]})
        of_files = ".file." in request.headers["host"]
        path = request.path.removeprefix(f"/{ACCOUNT}/").removeprefix("/")
        container, _, name = path.partition("/")
        name, query = unquote(name), dict(parse_qsl(request.query, keep_blank_values=True))
        lists = query.get("comp") == "list"
        code = self.refuse(request) or self._refusal(request, query, of_files=of_files, lists=lists)
        if code is None and container != CONTAINER:
            code = "ContainerNotFound"
        if code is not None:
            return error(code)
        if of_files:
            return (
                self._list_files(name, query)
                if lists
                else self._read(self.files.get(name), request, "x-ms-content-md5")
            )
        if lists:
            return self._list_blobs(query)
        return self._read(self.blobs.get(name), request, "x-ms-blob-content-md5")

    def _refusal(self, request: Request, query: dict[str, str], *, of_files: bool, lists: bool) -> str | None:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        signature = query.get("sig")
        if (scheme or signature) and "x-ms-version" not in request.headers:
            return "MissingRequiredHeader"
        if scheme == "SharedKey":
            return None if official_signature(request) == f"SharedKey {value}" else "AuthenticationFailed"
        if scheme == "Bearer":
            if of_files and request.headers.get("x-ms-file-request-intent") != "backup":
                return "MissingRequiredHeader"
            return None if value in self.tokens else "InvalidAuthenticationInfo"
        if signature in self.blob_sas:
            return "AuthorizationFailure" if lists else None
        if signature:
            return None if signature in self.sas else "AuthenticationFailed"
        if self.public == "nothing" or of_files:
            return "PublicAccessNotPermitted"
        return "ResourceNotFound" if lists and self.public == "blobs" else None

    def _read(self, found: Stored | None, request: Request, md5_of_whole: str) -> Answer:
        if found is None:
            return error("ResourceNotFound" if ".file." in request.headers["host"] else "BlobNotFound")
        about = {"Content-Type": "application/octet-stream", "x-ms-blob-type": "BlockBlob", "x-ms-type": "File"}
        about |= {f"x-ms-meta-{name}": value for name, value in found.metadata.items()} | found.headers
        if found.md5:
            about[md5_of_whole if "range" in request.headers else "Content-MD5"] = found.md5
        answer = Resource(found.content, f'"{found.etag}"', MODIFIED, about).answer(request)
        codes = {412: "ConditionNotMet", 416: "InvalidRange"}
        return error(codes[answer.status]) if answer.status in codes else answer

    def _list_blobs(self, query: dict[str, str]) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        names = sorted({_rolled_up(name, prefix, delimiter) for name in self.blobs if name.startswith(prefix)})
        page, marker = self._paged(names, query)
        items = "".join(self._blob(name, with_metadata="metadata" in query.get("include", "")) for name in page)
        return _listing(f'ContainerName="{CONTAINER}"', f"<Blobs>{items}</Blobs>", marker)

    def _blob(self, name: str, *, with_metadata: bool) -> str:
        found = self.blobs.get(name)
        if found is None:
            return f"<BlobPrefix>{_name(name)}</BlobPrefix>"
        pairs = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in found.metadata.items())
        kind = f"<ResourceType>{found.resource_type}</ResourceType>" if found.resource_type else ""
        return (
            f"<Blob>{_name(name)}<Properties><Creation-Time>{MODIFIED}</Creation-Time>"
            f"<Last-Modified>{MODIFIED}</Last-Modified><Etag>{found.etag}</Etag>"
            f"<Content-Length>{len(found.content)}</Content-Length><Content-Type>application/octet-stream</Content-Type>"
            f"<Content-MD5>{found.md5}</Content-MD5><BlobType>BlockBlob</BlobType>{kind}</Properties>"
            f"{f'<Metadata>{pairs}</Metadata>' if with_metadata else ''}<OrMetadata /></Blob>"
        )

    def _list_files(self, folder: str, query: dict[str, str]) -> Answer:
        prefix = f"{folder}/" if folder else ""
        below = [name for name in (*self.files, *(f"{folder}/" for folder in self.folders)) if name.startswith(prefix)]
        if folder and not below:
            return error("ResourceNotFound")
        names = sorted({_rolled_up(name, prefix, "/")[len(prefix) :] for name in below} - {""})
        page, marker = self._paged(names, query)
        entries = "".join(
            self._entry(prefix, name, with_etag="etag" in query.get("include", "").lower()) for name in page
        )
        return _listing(
            f'ShareName="{SHARE}" DirectoryPath="{escape(folder)}"', f"<Entries>{entries}</Entries>", marker
        )

    def _entry(self, prefix: str, name: str, *, with_etag: bool) -> str:
        if name.endswith("/"):
            return f"<Directory><FileId>1</FileId>{_name(name[:-1])}<Properties /></Directory>"
        found = self.files[prefix + name]
        etag = f"<Etag>&quot;{found.etag}&quot;</Etag>" if with_etag else ""
        return (
            f"<File><FileId>1</FileId>{_name(name)}<Properties>"
            f"<Content-Length>{len(found.content)}</Content-Length>{etag}</Properties></File>"
        )

    def _paged(self, names: list[str], query: dict[str, str]) -> tuple[list[str], str]:
        start = int(query.get("marker") or 0)
        end = start + min(int(query.get("maxresults", "5000")), self.page_size)
        return names[start:end], str(end) if names[end:] else ""


class FakeEntra:
    """Entra's token endpoint for one tenant, and the metadata service of a machine that has an identity.

    Each token is a new one; ``forms`` and ``queries`` are what was asked for it.  ``secret`` and ``assertions``
    are what it gives tokens for, ``identities`` the client ids that the machine has, "" for its own.
    """

    def __init__(self, server: FaultyServer, azure: FakeAzure) -> None:
        self.azure = azure
        self.forms: list[dict[str, str]] = []
        self.queries: list[dict[str, str]] = []
        self.secret = "s3cret~of.a-principal"
        self.assertions = {"an assertion"}
        self.identities: set[str] = set()
        self.lasts_s = 3600
        self.given: list[str] = []
        # Looked at in this order, and "/" last.
        others = dict(server.routes)
        server.routes.clear()
        server.routes[f"/{TENANT}/v2.0/.well-known/openid-configuration"] = self._about
        server.routes[f"/{TENANT}/oauth2/v2.0/token"] = self._token
        server.routes["/metadata/identity/oauth2/token"] = self._machine
        server.routes |= others

    def _about(self, request: Request) -> Answer:
        base = f"https://{request.headers['host']}/{TENANT}"
        about = {
            "issuer": f"{base}/v2.0",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        }
        return _json(200, about)

    def _token(self, request: Request) -> Answer:
        form = dict(parse_qsl(request.body.decode()))
        self.forms.append(form)
        proven = form.get("client_secret") == self.secret or form.get("client_assertion") in self.assertions
        if not proven or form.get("grant_type") != "client_credentials":
            text = f"AADSTS7000215: Invalid client secret provided: {form.get('client_secret')}"
            return _json(401, {"error": "invalid_client", "error_description": text, "error_codes": [7000215]})
        return self._give({"token_type": "Bearer", "expires_in": self.lasts_s})

    def _machine(self, request: Request) -> Answer:
        query = dict(parse_qsl(request.query))
        self.queries.append(query)
        if request.headers.get("metadata") != "true" or query.get("client_id", "") not in self.identities:
            return _json(400, {"error": "invalid_request", "error_description": "Identity not found"})
        # Numbers are texts here.
        return self._give({"token_type": "Bearer", "expires_in": str(self.lasts_s), "resource": query["resource"]})

    def _give(self, about: dict[str, object]) -> Answer:
        self.given.append(f"s3cret-token-{len(self.given) + 1}")
        self.azure.tokens.add(self.given[-1])
        return _json(200, about | {"access_token": self.given[-1]})


def azure_settings(server: FaultyServer, **variables: str) -> dict[str, object]:
    """Settings, as keywords, with which accounts are found at ``server`` by ``http://`` and their own names."""
    variables = {"AZURE_STORAGE_ACCESS_KEY": KEY, "AZURE_POD_IDENTITY_AUTHORITY_HOST": NOWHERE} | variables
    return {"network": Network(http_proxy=server.url), "variables": variables}


def official_signature(request: Request, account: str = ACCOUNT, key: str = KEY) -> str:
    """What Microsoft's client would send as Authorization with this request."""
    from azure.core.pipeline.transport import HttpRequest
    from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy

    headers = {name: value for name, value in request.headers.items() if name != "authorization"}
    # It asks for ranges by x-ms-range; where the service looks for Range, it signs what it calls byte_range.
    if "x-ms-range" not in headers:
        headers["byte_range"] = headers.get("range", "")
    url = request.target if "://" in request.target else f"http://{headers['host']}{request.target}"
    sent = HttpRequest(request.method, url, headers=headers)
    context = SimpleNamespace(transport=None)
    SharedKeyCredentialPolicy(account, key).on_request(SimpleNamespace(http_request=sent, context=context))
    return sent.headers["Authorization"]


def error(code: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>s3cret {code}</Message></Error>".encode()
    return Answer(_STATUS[code], {"x-ms-error-code": code, "Content-Type": "application/xml"}, body)


@contextmanager
def tunnel(server: FaultyServer) -> Iterator[str]:
    """The URL of a proxy that leads every https connection to ``server``, whatever its name."""
    port = urlsplit(server.url).port

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            with socket.create_connection(("127.0.0.1", port)) as onward:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(onward, self.connection))
                back.start()
                _pump(self.connection, onward)
                back.join()

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Proxy(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}"
        proxy.shutdown()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _rolled_up(name: str, prefix: str, delimiter: str) -> str:
    head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
    return f"{prefix}{head}{found}" if found else name


def _name(name: str) -> str:
    if all(character >= " " and character not in "\ufffe\uffff" for character in name):
        return f"<Name>{escape(name)}</Name>"
    return f'<Name Encoded="true">{quote(name)}</Name>'


def _listing(about: str, items: str, marker: str) -> Answer:
    text = (
        f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="http://lading/" {about}>'
        f"<Prefix /><MaxResults>5000</MaxResults>{items}<NextMarker>{marker}</NextMarker></EnumerationResults>"
    )
    # With the mark that Azure begins its documents with.
    return Answer(200, {"Content-Type": "application/xml"}, text.encode("utf-8-sig"))


def _json(status: int, about: Mapping[str, object]) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(about).encode())
