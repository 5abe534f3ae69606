"""The server of a registry: its address, its certificates, who asks, and what its answers mean."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlencode

from lading.auth.authorizer import authorized
from lading.errors import LadingError, NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.model.origin import Origin, split_url
from lading.model.reference import SCHEMES
from lading.model.uri import ModelURI, redact
from lading.network.answer import Answer, leads_to, status_error
from lading.network.client import HttpClient
from lading.network.wire import Head
from lading.registries.login import Clients, open_login
from lading.settings.registries import RegistryEntry
from lading.settings.section import errors_name
from lading.settings.server import ServerSettings
from lading.settings.settings import Settings
from lading.text.json_xml import read_json
from lading.text.printable import printable

_LIMIT_BYTES = 32 << 20
_MOST_SHOWN = 200


class _Fetched(NamedTuple):
    """An answer that was read."""

    head: Head
    body: bytes


class RegistryServer:
    """Asks one registry.  The login is sent to exactly its scheme, host and port; no redirect is followed."""

    def __init__(
        self,
        entry: RegistryEntry[Any],
        settings: Settings,
        http: HttpClient,
        *,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        """``headers`` go with every request; ``UsageError`` for an entry that says what it may not."""
        entry.check()
        self.name = entry.name
        self.origin, _ = split_url(entry.server.url)
        self.url = entry.server.url.rstrip("/")
        self._folders = [os.path.realpath(folder) for folder in entry.server.folders]
        clients = _clients(entry.server, settings, http, self.origin)
        self._http = clients.own
        self._login = open_login(entry, settings, clients)
        self._headers = list(headers)

    @property
    def credential_kind(self) -> str:
        """The kind of the credential, for messages."""
        return self._login.kind

    def get(self, path: str, query: Mapping[str, str] | None = None, *, what: str) -> Any:
        """The JSON that the registry answers at ``path``; ``what`` is being looked for, in words.

        ``NotFound`` for 404, ``NotAllowed`` for 401, 403 and a page of HTML, ``Unavailable`` when the
        registry does not answer or says so, ``Unsupported`` for anything that is not JSON.
        """
        return self.call("GET", path, query, what=what)

    def call(
        self, method: str, path: str, query: Mapping[str, str] | None = None, document: Any = None, *, what: str
    ) -> Any:
        """The JSON that the registry answers to ``document``, which is sent as JSON unless it is None."""
        url = self.url + path + (f"?{urlencode(query, quote_via=quote, safe='')}" if query else "")
        body = b"" if document is None else json.dumps(document).encode()
        headers = [*self._headers, ("Accept", "application/json")]
        headers += [("Content-Type", "application/json")] if body else []
        shown = f"{what} in registry {printable(self.name)}"

        def send(login: object) -> _Fetched:
            signed = self._login.signed(login, method, url, headers, body)
            try:
                return _Fetched(
                    *self._http.fetch(method, url, signed, body=body, what=shown, limit_bytes=_LIMIT_BYTES, redirects=0)
                )
            except NotFound as error:
                # There is no such host, and not: there is no such model.
                raise Unavailable(f"{shown}: {error.message}", hint="check the url of this registry") from error
            except LadingError as error:
                # A host's name says little where several registries are asked.
                raise error.rephrased(message=f"{shown}: {error.message}") from error

        def refusal(found: _Fetched) -> LadingError:
            return self._error(found.head, found.body, shown)

        found = authorized(self._login, send, refusal)
        if not 200 <= found.head.status < 300:
            raise refusal(found)
        return self._parsed(found.head, found.body, shown)

    def open(self, path: str, headers: Sequence[tuple[str, str]], *, what: str) -> Answer:
        """The answer to one request for a file, not repeated, its body still on the wire.

        Any status but success and 416 is raised, as by ``get``.
        """
        url = self.url + path
        sent = [*self._headers, *headers]

        def send(login: object) -> Answer:
            return self._http.open("GET", url, self._login.signed(login, "GET", url, sent, b""), redirects=0)

        def refusal(answer: Answer) -> LadingError:
            with answer:
                return self._error(answer.head, answer.error_body(), f"{what} in registry {printable(self.name)}")

        answer = authorized(self._login, send, refusal)
        if answer.head.status < 300 or answer.head.status == 416:
            return answer
        raise refusal(answer)

    def source_uri(self, text: str, where: str) -> ModelURI:
        """The URI ``text`` that the registry tells for ``where``, a version in words.

        ``NotAllowed`` for a path of this machine that is not below one of the entry's ``folders``: a server
        must not choose which files of a pod (a token, a mounted secret) are copied to where a model server
        reads.  ``Unsupported`` for another name in a registry, ``UsageError`` for what is no URI.
        """
        uri = self.parsed_uri(text, where)
        if uri.scheme.lower() in SCHEMES:
            raise Unsupported(f"{where} leads to another registry name, {printable(uri.redacted())}")
        if uri.scheme.lower() in ("", "file"):
            path = unquote(uri.path) if uri.scheme else uri.path
            if not any(_is_below(path, folder) for folder in self._folders):
                raise NotAllowed(
                    f"{where} points to {printable(uri.redacted())} on this machine",
                    hint=f"if that is right, list a parent folder in folders of registry {printable(self.name)}",
                )
        return uri

    def parsed_uri(self, text: str, where: str) -> ModelURI:
        """``text`` as a URI or an absolute path; ``UsageError``, which names the registry and ``where``, if it is neither."""
        # Whoever asks for a name did not write it.
        with errors_name(f"registry {self.name}, {where}"):
            uri = ModelURI.parse(text)
            uri.canonical()
            if not uri.scheme and not uri.path.startswith("/"):
                raise UsageError(
                    f"{printable(text)[:_MOST_SHOWN]!r} is neither a URI nor an absolute path",
                    hint="change it in that registry; docs/sources.md lists what lading reads",
                )
        return uri

    def _parsed(self, head: Head, body: bytes, shown: str) -> Any:
        if _is_page(head, body):
            raise self._page(head, shown)
        try:
            return read_json(body) if body else None
        except ValueError as error:
            raise Unsupported(
                f"{shown}: the answer is not JSON", hint=f"is {redact(self.url)} the address of this registry's API?"
            ) from error

    def _error(self, head: Head, body: bytes, shown: str) -> LadingError:
        if 300 <= head.status < 400:
            location = leads_to(head)
            return NotAllowed(
                f"{shown}: {self.origin} redirects ({head.status}){location and f' to {location}'}, which is not followed with a credential",
                hint="it may want a login, or its url in the configuration should begin with https://",
            )
        if head.status == 401:
            who = self._login.kind
            return NotAllowed(
                f"{shown}: {self.origin} does not accept the login ({head.status}, {who})",
                hint="give it a login in lading.yaml" if who == "anonymous" else "it is wrong or has expired",
            )
        if head.status == 403 and _is_page(head, body):
            return self._page(head, shown)
        if head.status == 403:
            return NotAllowed(
                f"{shown}: {self.origin} does not allow it ({head.status}, {self._login.kind})",
                hint="this login is not allowed to read it; ask whoever runs the registry",
            )
        if head.status == 404 and _is_page(head, body):
            return Unsupported(
                f"{shown}: {self.origin} answers 404 with a web page",
                hint=f"is {redact(self.url)} the address of this registry's API?",
            )
        if head.status == 404:
            return NotFound(f"{shown}: not found")
        return status_error(head, shown)

    def _page(self, head: Head, shown: str) -> NotAllowed:
        return NotAllowed(
            f"{shown}: {self.origin} answers with a web page ({head.status}), as a login does",
            hint="give the registry a login in lading.yaml that its gateway accepts",
        )


def _is_page(head: Head, body: bytes) -> bool:
    """A page of HTML; some servers call one sentence that."""
    start = body[:200].lstrip().lower()
    return start.startswith((b"<!doctype", b"<html")) or ("html" in head.get("content-type").lower() and b"<" in start)


def _clients(server: ServerSettings, settings: Settings, http: HttpClient, origin: Origin) -> Clients:
    """Clients with the patience and the authority of the server; its own also has the rest of its ``tls``."""
    tls, network, limits, retry = server.tls, settings.network, settings.limits, http.retry
    if tls.ca:
        network = network._replace(ca_files=(*network.ca_files, tls.ca))
    limits = limits._replace(connect_s=server.connect_s or limits.connect_s, stall_s=server.stall_s or limits.stall_s)
    retry = retry._replace(attempts=server.attempts or retry.attempts)
    own = network._replace(client_certificate=tls.certificate, client_key=tls.key, verify_tls=tls.verify)
    return Clients(origin, http.reaching(own, limits, retry), http.reaching(network, limits, retry))


def _is_below(path: str, folder: str) -> bool:
    return "\0" not in path and os.path.commonpath((os.path.realpath(path), folder)) == folder
