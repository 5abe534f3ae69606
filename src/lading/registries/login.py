"""Logins at a registry: none, a bearer token, a user, an OIDC client, AWS keys; ``settings.server`` has the forms.

The client's own certificate (mTLS) is part of ``tls``, not a login.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, quote_plus, urlsplit

from lading.auth.authorizer import Authorizer, RefreshingCredential
from lading.auth.aws import AwsCredentials
from lading.auth.aws_signature import sign
from lading.auth.oauth import request_token
from lading.errors import NotAllowed, Unsupported, UsageError
from lading.model.origin import Origin, split_url
from lading.network.answer import status_error
from lading.network.client import Headers, HttpClient
from lading.network.wire import Head
from lading.secret import AwsKeys, Token, basic
from lading.settings.aws import read_aws
from lading.settings.registries import RegistryEntry
from lading.settings.server import OidcLogin
from lading.settings.settings import Settings
from lading.settings.value import Value
from lading.settings.variables import exact
from lading.text.json_xml import read_json
from lading.text.printable import printable

C = TypeVar("C")

_LIMIT_BYTES = 256 * 1024
_CLIENT = ("client_id", "client_secret")


class Login(Authorizer[C], Protocol[C]):
    """Authorises requests to one registry, from any thread."""

    kind: str
    """In words, for reports: ``anonymous``, ``token``, …"""

    def signed(self, shown: C | None, method: str, url: str, headers: Headers, body: bytes) -> Headers:
        """``headers`` and those that show ``shown``."""
        ...


class Clients(NamedTuple):
    """``own`` for the registry, at ``origin``; ``elsewhere`` for whoever else is asked for its login.

    That one shows no certificate, and verifies: the registry's ``tls`` is about the registry alone.
    """

    origin: Origin
    own: HttpClient
    elsewhere: HttpClient

    def to(self, url: str) -> HttpClient:
        """The client for ``url``."""
        return self.own if split_url(url)[0].bare == self.origin.bare else self.elsewhere


def open_login(entry: RegistryEntry[Any], settings: Settings, clients: Clients) -> Login[Any]:
    """The login for a registry that the entry, which has been checked, describes."""
    token, user, password, oidc, aws = entry.server.login
    read = _Reader(entry.name, settings)
    if aws:
        return _Aws(read("region", aws.region), read("service", aws.service), settings, clients.elsewhere)
    if oidc:
        return _Oidc(oidc, read, clients)
    if token:
        return _Plain("token", lambda: [("Authorization", f"Bearer {read('token', token)}")])
    if user and password:
        return _Plain(
            "user and password", lambda: [("Authorization", basic(read("user", user), read("password", password)))]
        )
    return _Plain("anonymous", list)


class _Reader:
    """Reads the values of one entry, anew each time: files are rotated."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._settings = settings
        self._name = name

    def __call__(self, key: str, value: Value) -> str:
        return exact(value.read(self._settings.variables), value.env or self.named(f"login.{key}"))

    def named(self, what: str) -> str:
        """``what``, said of this registry."""
        return f"registry {printable(self._name)}: {what}"


class _Plain:
    """Headers that are known without asking anybody."""

    def __init__(self, kind: str, headers: Callable[[], Sequence[tuple[str, str]]]) -> None:
        self.kind = kind
        self._headers = headers

    def get(self) -> Headers:
        return self._headers()

    def accepted(self, shown: Headers | None) -> None:
        """Files are read anew anyway."""

    def refused(self, shown: Headers | None, head: Head) -> bool:
        return self._headers() != shown

    def signed(self, shown: Headers | None, method: str, url: str, headers: Headers, body: bytes) -> Headers:
        return [*headers, *(shown or ())]


class _Oidc(RefreshingCredential[Token]):
    """The client credentials grant (RFC 6749, 4.4); the endpoint by discovery, if it is not given.

    https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig
    """

    kind = "OIDC client"

    def __init__(self, client: OidcLogin, read: _Reader, clients: Clients) -> None:
        super().__init__(clients.own.retry.run.clock.now, first_may_be_old=True)
        self._client = client
        self._read = read
        self._clients = clients

    def signed(self, shown: Token | None, method: str, url: str, headers: Headers, body: bytes) -> Headers:
        return [*headers, ("Authorization", f"Bearer {shown.value.reveal()}")] if shown else headers

    def _fetch(self) -> Token:
        told = {key: self._read(key, value) for key, value in self._client._asdict().items() if value}
        url = told.get("token_url") or self._discovered(told["issuer"])
        split_url(url)[0].refuse_in_clear(self._read.named("its client_secret"))
        return request_token(
            self._clients.to(url),
            url,
            {"grant_type": "client_credentials"} | {key: told[key] for key in ("scope", "audience") if key in told},
            # RFC 6749, 2.3.1: Basic is what every server must understand, both parts encoded as in a form.
            headers=[("Authorization", basic(*(quote_plus(told[key]) for key in _CLIENT)))],
            kind=self.kind,
            what="the OIDC token endpoint",
            hint="check client_id, client_secret and the scopes that this client may request",
        )

    def _discovered(self, issuer: str) -> str:
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        what = "the OIDC issuer"
        head, body = self._clients.to(url).fetch("GET", url, what=what, limit_bytes=_LIMIT_BYTES, redirects=0)
        if head.status != 200:
            raise status_error(head, what)
        try:
            found = read_json(body)["token_endpoint"]
            if not isinstance(found, str):
                raise TypeError(found)
            origin = split_url(found)[0]
        except (ValueError, KeyError, TypeError, UsageError) as error:
            raise Unsupported(f"{what} names no token endpoint", hint="give its token_url") from error
        if origin.scheme != "https" and origin.bare != split_url(issuer)[0].bare:
            raise NotAllowed(f"{what} names a token endpoint that is not https", hint="give its token_url")
        return found


class _Aws(AwsCredentials):
    """Signature Version 4, for a registry behind an API gateway or at AWS."""

    kind = "AWS keys"

    def __init__(self, region: str, service: str, settings: Settings, http: HttpClient) -> None:
        super().__init__(read_aws(settings.variables), http, region)
        self._service = service

    def signed(self, shown: AwsKeys | None, method: str, url: str, headers: Headers, body: bytes) -> Headers:
        if shown is None:
            raise NotAllowed(
                "no AWS keys were found for the registry", hint="see the chain of credentials in docs/kserve.md"
            )
        origin, _ = split_url(url)
        parts = urlsplit(url)
        query = "&".join(sorted(parts.query.split("&"))) if parts.query else ""
        return sign(
            shown,
            method=method,
            host=origin.authority,
            # Every service but S3 has each segment encoded twice.
            path=quote(parts.path, safe="/~"),
            query=query,
            headers=headers,
            region=self.region,
            service=self._service,
            body=body,
        )
