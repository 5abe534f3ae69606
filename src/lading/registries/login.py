"""Who asks a registry: nobody, a bearer token, a user, an OIDC client, AWS keys.

    login: {token: {file: /var/run/secrets/tokens/registry}}      # read again for each request
    login: {user: reader, password: {env: REGISTRY_PASSWORD}}
    login: {oidc: {issuer: https://idp/realms/ml, client_id: lading, client_secret: {file: …}, scope: registry}}
    login: {aws: {region: eu-west-1, service: execute-api}}       # keys from the chain of the AWS SDKs

Each value may be a text, ``{file: path}`` or ``{env: NAME}``.  The client's own certificate (mTLS) is
part of ``tls``, not a login.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, quote_plus, urlsplit

from lading.auth.authorizer import Authorizer, RefreshingCredential
from lading.auth.aws import AwsCredentials
from lading.auth.aws_signature import sign
from lading.auth.oauth import request_token
from lading.errors import NotAllowed, Unsupported
from lading.model.origin import Origin, split_url
from lading.network.client import Headers, HttpClient, status_error
from lading.network.wire import Head
from lading.secret import AwsKeys, Token, basic
from lading.settings.aws import read_aws
from lading.settings.registries import RegistryEntry
from lading.settings.settings import Settings
from lading.settings.storage import read_value
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


def open_login(entry: RegistryEntry, settings: Settings, clients: Clients) -> Login[Any]:
    """The login for a registry that the entry, which ``check_entry`` has seen, describes."""
    login = entry.options.get("login") or {}
    read = _Reader(entry, settings)
    if not login:
        return _Plain("anonymous", list)
    if aws := login.get("aws"):
        return _Aws(read(aws, "region"), read(aws, "service"), settings, clients.elsewhere)
    if oidc := login.get("oidc"):
        return _Oidc(oidc, read, clients)
    if "token" in login:
        return _Plain("token", lambda: [("Authorization", f"Bearer {read(login, 'token')}")])
    return _Plain("user and password", lambda: [("Authorization", basic(read(login, "user"), read(login, "password")))])


class _Reader:
    """Reads the values of one entry, anew each time: files are rotated."""

    def __init__(self, entry: RegistryEntry, settings: Settings) -> None:
        self._entry = entry
        self._settings = settings

    def __call__(self, mapping: Mapping[str, Any], key: str) -> str:
        value = mapping.get(key, "")
        text = read_value(key, value, self._settings.variables)
        return exact(text, value["env"] if isinstance(value, dict) and "env" in value else self.named(f"login.{key}"))

    def named(self, what: str) -> str:
        """``what``, said of this registry."""
        return f"registry {printable(self._entry.name)}: {what}"


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

    def __init__(self, options: Mapping[str, Any], read: _Reader, clients: Clients) -> None:
        super().__init__(clients.own.retry.run.clock.now, first_may_be_old=True)
        self._options = options
        self._read = read
        self._clients = clients

    def signed(self, shown: Token | None, method: str, url: str, headers: Headers, body: bytes) -> Headers:
        return [*headers, ("Authorization", f"Bearer {shown.value.reveal()}")] if shown else headers

    def _fetch(self) -> Token:
        read, options = self._read, self._options
        form = {"grant_type": "client_credentials"}
        form |= {key: read(options, key) for key in ("scope", "audience") if options.get(key)}
        url = read(options, "token_url") or self._discovered(read(options, "issuer"))
        split_url(url)[0].refuse_in_clear(read.named("its client_secret"))
        return request_token(
            self._clients.to(url),
            url,
            form,
            # RFC 6749, 2.3.1: Basic is what every server must understand, both parts encoded as in a form.
            headers=[("Authorization", basic(*(quote_plus(read(options, key)) for key in _CLIENT)))],
            kind=self.kind,
            what="the OIDC token endpoint",
            hint="look at client_id and client_secret, and at what this client is allowed to ask for",
        )

    def _discovered(self, issuer: str) -> str:
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        what = "the OIDC issuer"
        head, body = self._clients.to(url).fetch("GET", url, what=what, limit_bytes=_LIMIT_BYTES, redirects=0)
        if head.status != 200:
            raise status_error(head, what)
        try:
            found = read_json(body)["token_endpoint"]
            secure = urlsplit(found).scheme == "https"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unsupported(f"{what} names no token endpoint", hint="give its token_url") from error
        if not secure and split_url(found)[0].bare != split_url(issuer)[0].bare:
            raise NotAllowed(f"{what} names a token endpoint that is not https", hint="give its token_url")
        return str(found)


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
