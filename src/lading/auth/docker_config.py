"""Whose login a repository is read with: Docker's config.json in all its forms.

In this order: username and password of the settings if they are for the host, a configuration in the settings, the file.  Of its
``auths`` the longest scope that covers the repository is taken, as containers-auth.json(5) has it:
``host/namespace/repository``, ``host/namespace``, ``host``.  Helper programs are not run.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lading.errors import UsageError
from lading.secret import Secret
from lading.settings.oci import Oci, canonical_host
from lading.settings.variables import is_for, why_withheld
from lading.system.disk import read_secret_file
from lading.text.json_xml import read_json
from lading.text.printable import printable

# What Docker writes in the place of a user's name when the password is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105 - no password
_NO_LOGIN = "an auth entry of the Docker configuration is not base64 text of user:password"
_LOGIN = "docker login writes one; by hand, write username and password in its place"


class Login(NamedTuple):
    """A login for a registry; ``kind`` says where it comes from.

    At most one of password, identity token (an OAuth2 refresh token) and registry token (a bearer token
    as it is) counts.  ``helper`` names the program that would know the login; ``withheld`` says why one
    that there is was left out.
    """

    kind: str = "anonymous"
    username: str = ""
    password: Secret | None = None
    identity_token: Secret | None = None
    registry_token: Secret | None = None
    helper: str = ""
    withheld: str = ""

    @property
    def is_anonymous(self) -> bool:
        return self.password is None and self.identity_token is None and self.registry_token is None


def find_login(settings: Oci, host: str, repository: str) -> Login:
    """The login for a repository at ``host``; an anonymous one if there is none."""
    is_for_it = is_for(canonical_host(settings.host), host, 443)
    if settings.password is not None and is_for_it:
        return Login("configured user", settings.username, settings.password)
    found = _find_in_configuration(settings, host, repository)
    return found if is_for_it else found._replace(withheld=why_withheld("OCI", settings.host))


def _find_in_configuration(settings: Oci, host: str, repository: str) -> Login:
    if settings.document is not None:
        return _login(_parsed(settings.document.reveal(), "the Docker configuration"), host, repository)
    path = settings.config_file
    if not path or not (settings.config_must_exist or Path(path).exists()):
        return Login()
    return _login(_parsed(read_secret_file(path), printable(path)), host, repository)


def _parsed(text: str, what: str) -> Mapping[str, Any]:
    try:
        config = read_json(text)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        # The text holds secrets: it is not quoted.
        raise UsageError(f"{what} is not a JSON object", hint="docker login writes one")
    return config


def _login(config: Mapping[str, Any], host: str, repository: str) -> Login:
    wanted = f"{canonical_host(host)}/{repository}"
    scopes = {}
    for key, entry in _mapping(config, "auths").items():
        scope = _scope(key)
        if isinstance(entry, dict) and (wanted == scope or wanted.startswith(f"{scope}/")):
            scopes[scope] = entry
    login = _entry(scopes[max(scopes, key=len)]) if scopes else Login()
    if not login.is_anonymous:
        return login
    helpers = {_scope(key): name for key, name in _mapping(config, "credHelpers").items()}
    helper = helpers.get(canonical_host(host)) or config.get("credsStore")
    return Login(helper=printable(f"docker-credential-{helper}")) if isinstance(helper, str) and helper else Login()


def _mapping(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _scope(key: str) -> str:
    """The host, or host and path, that a key of ``auths`` is for; Docker's old keys are URLs of the API."""
    scheme, mark, rest = key.partition("://")
    rest = rest if mark else scheme
    host, _, path = rest.partition("/")
    path = path.rstrip("/")
    return canonical_host(host) + (f"/{path}" if path and not mark and path not in ("v1", "v2") else "")


def _entry(entry: Mapping[str, Any]) -> Login:
    def text(name: str) -> str:
        value = entry.get(name)
        # Docker itself writes none around it; whoever made the text by hand may.
        return value.strip() if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if text("auth"):
        try:
            decoded = base64.b64decode(text("auth"), validate=True).decode().strip("\0 \t\r\n")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise UsageError(_NO_LOGIN, hint=_LOGIN) from error
        username, colon, password = decoded.partition(":")
        if not colon:
            raise UsageError(_NO_LOGIN, hint=_LOGIN)
    identity = text("identitytoken") or (password if username == _TOKEN_USER else "")
    if identity:
        return Login("identity token", identity_token=Secret(identity))
    if text("registrytoken"):
        return Login("registry token", registry_token=Secret(text("registrytoken")))
    if username and password:
        return Login("Docker configuration", username, Secret(password))
    return Login()
