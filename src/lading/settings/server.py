"""Settings of every registry with a server: its address, certificates, login, timeouts and attempts.

login: {token: {file: /var/run/secrets/tokens/registry}}      # read again for each request
login: {user: reader, password: {env: REGISTRY_PASSWORD}}
login: {oidc: {issuer: https://idp/realms/ml, client_id: lading, client_secret: {file: …}, scope: registry}}
login: {aws: {region: eu-west-1, service: execute-api}}       # keys from the chain of the AWS SDKs
"""

from typing import NamedTuple
from urllib.parse import urlsplit

from lading.errors import UsageError
from lading.model.origin import split_url
from lading.settings.value import Value

EXAMPLES = {
    "url": "https://registry.example.com",
    "login": "{token: {file: /etc/lading/token}}",
    "client_id": "lading",
    "region": "eu-west-1",
    "service": "execute-api",
    "tls": "{ca: /etc/lading/ca.crt}",
    "ca": "/etc/lading/ca.crt",
    "certificate": "/etc/lading/tls.crt",
    "key": "/etc/lading/tls.key",
    "connect_s": "3",
    "stall_s": "3",
    "attempts": "3",
    "folders": "[/srv/models]",
}
_WAYS: tuple[set[str], ...] = ({"token"}, {"user", "password"}, {"oidc"}, {"aws"}, set())
_URL_HINT = "write https://registry.example.com, and its credential as login"
_MOST_S = 3600.0


class OidcLogin(NamedTuple):
    """A client of OpenID Connect; it gets tokens at ``token_url``, or at the URL that the ``issuer`` publishes."""

    client_id: Value
    client_secret: Value = Value()
    issuer: Value | None = None
    token_url: Value | None = None
    scope: Value | None = None
    audience: Value | None = None


class AwsLogin(NamedTuple):
    """Requests are signed for ``service`` in ``region``, with the keys of the AWS SDKs' provider chain."""

    region: Value
    service: Value


class LoginSettings(NamedTuple):
    """The login for a registry, in one of four ways; anonymous if all are None."""

    token: Value | None = None
    user: Value | None = None
    password: Value | None = None
    oidc: OidcLogin | None = None
    aws: AwsLogin | None = None

    def check(self, where: str) -> None:
        """Raise unless exactly one way is configured, and completely."""
        told = {key for key, value in zip(self._fields, self, strict=True) if value is not None}
        if told not in _WAYS:
            raise UsageError(
                f"{where} is not understood",
                hint="write token, user and password, oidc, or aws; see docs/registries.md",
            )
        if self.oidc and (self.oidc.issuer is None) == (self.oidc.token_url is None):
            raise UsageError(
                f"{where}.oidc needs either an issuer or a token_url",
                hint="for example {client_id: lading, issuer: https://idp.example.com, client_secret: {file: /etc/lading/secret}}",
            )


class Tls(NamedTuple):
    """The authority that signed a server's certificate, and the client's own certificate: paths of PEM files."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    verify: bool = True


class ServerSettings(NamedTuple):
    """A registry's server.

    ``url`` has no user, query and fragment; "" means that there is no server.  ``folders`` are the folders of this
    machine to which its URIs may point; ``record`` says that deliveries are recorded at the registry.  For times and
    attempts, None means the value of ``limits``.
    """

    url: str = ""
    login: LoginSettings = LoginSettings()
    tls: Tls = Tls()
    connect_s: float | None = None
    stall_s: float | None = None
    attempts: int | None = None
    folders: tuple[str, ...] = ()
    record: bool = False

    def check(self, where: str) -> None:
        """Raise if the settings alone show that the server cannot be asked; ``where`` names the registry."""
        if not self.url:
            raise UsageError(f"{where} needs url", hint=_URL_HINT)
        check_url(self.url, "url", where)
        self.login.check(f"{where}: login")
        for key, value in (("connect_s", self.connect_s), ("stall_s", self.stall_s)):
            if value is not None and not 0.001 <= value < _MOST_S:
                raise UsageError(f"{where}: {key} is {value:g}", hint=f"write seconds, more than 0, below {_MOST_S:g}")
        if self.attempts is not None and not 1 <= self.attempts < _MOST_S:
            raise UsageError(f"{where}: attempts is {self.attempts}", hint="write a whole number from 1 on")
        if not all(folder.startswith("/") for folder in self.folders):
            raise UsageError(f"{where}: folders are not all absolute paths", hint="write folders: [/srv/models]")
        if self.login._replace(aws=None) != LoginSettings():
            split_url(self.url)[0].refuse_in_clear(f"{where}: its login")


def check_url(url: str, key: str, where: str) -> None:
    """Raise for a ``url``, the value of ``key``, that is not a plain address of a server."""
    if not _is_plain(url):
        # It may hold a password.
        raise UsageError(
            f"{where} needs as {key} an http or https URL without user, query and fragment", hint=_URL_HINT
        )


def _is_plain(url: str) -> bool:
    try:
        parts = urlsplit(url)
        plain = parts.port != 0 and not parts.query and not parts.fragment and "@" not in parts.netloc
    except ValueError:
        return False
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)
