"""Google's Application Default Credentials: access tokens, by a file or by the machine.

https://cloud.google.com/docs/authentication/application-default-credentials.  First the JSON of a key or
of a federation, given as KServe's secret or named by GOOGLE_APPLICATION_CREDENTIALS, then the file that
gcloud writes, then the metadata server.  The first that is configured answers; if it fails, its error is
the answer, since another identity could read other things.  A machine without a metadata server, or
without an identity, has no credentials, and that is no error: public buckets need none.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from lading.auth.authorizer import RefreshingCredential
from lading.auth.oauth import parse_token, request_token, signed_jwt
from lading.errors import NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.model.origin import split_url
from lading.network.answer import status_error
from lading.network.client import HttpClient
from lading.secret import Secret, Token, basic, unix_time
from lading.settings.google import DOCUMENT, Google
from lading.system.disk import read_secret_file
from lading.text.json_xml import read_json
from lading.text.printable import printable

METADATA = "metadata server"

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
# What a token needs that is exchanged for another one at the IAM service.
_SCOPE_OF_IAM = "https://www.googleapis.com/auth/cloud-platform"
_LIFETIME_S = 3600
_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - where tokens are had
_LIMIT_BYTES = 256 * 1024
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a kind of token
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_METADATA_ADDRESSES = ("169.254.169.254", "metadata.google.internal")
_DOCUMENT = "use the JSON unchanged, as Google gave it"

_Document = Mapping[str, Any]


class GoogleCredentials(RefreshingCredential[Token]):
    """Tokens for requests, fetched once and renewed before they expire.  Safe from any thread."""

    def __init__(self, settings: Google, http: HttpClient) -> None:
        super().__init__(http.retry.run.clock.now)
        self._settings = settings
        self._http = http
        self.unanswered = False
        """Whether there seems to be a metadata server that does not answer now."""

    def _fetch(self) -> Token | None:
        settings = self._settings
        if settings.document is not None:
            return self._granted(_parsed(settings.document.reveal(), DOCUMENT), DOCUMENT, _SCOPE)
        for path in (settings.file, settings.gcloud_file):
            # Only the file that somebody named must be there.
            if path and (path == settings.file or Path(path).is_file()):
                return self._granted(_parsed(read_secret_file(path), path), path, _SCOPE)
        return None if settings.metadata_disabled else self._from_metadata()

    def _granted(self, document: _Document, where: str, scope: str) -> Token:
        """The token that the credentials in ``document`` are good for; ``where`` names them in errors."""
        fields = _Fields(document, where)
        kind = fields.text("type")
        grants: dict[str, Callable[[_Fields, str], Token]] = {
            "service_account": self._by_key,
            "authorized_user": self._by_refresh,
            "external_account": self._by_federation,
            "impersonated_service_account": self._by_impersonation,
        }
        if kind not in grants:
            raise Unsupported(
                f"the Google credentials in {printable(where)} are of the type {printable(kind)[:80]!r}",
                hint=f"known: {', '.join(grants)}",
            )
        if document.get("universe_domain", "googleapis.com") != "googleapis.com":
            raise Unsupported(
                f"the Google credentials in {printable(where)} are for another universe domain than googleapis.com"
            )
        return grants[kind](fields, scope)

    def _by_key(self, fields: "_Fields", scope: str) -> Token:
        """https://developers.google.com/identity/protocols/oauth2/service-account#httprest."""
        now_s = int(time.time())
        claims = {
            "iss": fields.text("client_email"),
            "scope": scope,
            # Wherever the endpoint is.
            "aud": _TOKEN_URL,
            "iat": now_s,
            "exp": now_s + _LIFETIME_S,
        }
        assertion = signed_jwt(claims, fields.text("private_key"), key_id=fields.text("private_key_id", ""))
        form = {"grant_type": _JWT_GRANT, "assertion": assertion}
        return request_token(
            self._http,
            fields.url_at_google("token_uri", _TOKEN_URL),
            form,
            kind="service account key",
            what="Google's token endpoint",
            hint="check that the key is still valid and that this machine's clock is right",
        )

    def _by_refresh(self, fields: "_Fields", scope: str) -> Token:
        """RFC 6749, 6: what ``gcloud auth application-default login`` leaves."""
        form = {
            "grant_type": "refresh_token",
            "client_id": fields.text("client_id"),
            "client_secret": fields.text("client_secret"),
            "refresh_token": fields.text("refresh_token"),
        }
        return request_token(
            self._http,
            fields.url_at_google("token_uri", _TOKEN_URL),
            form,
            kind="gcloud login",
            what="Google's token endpoint",
            hint="log in again: gcloud auth application-default login",
        )

    def _by_federation(self, fields: "_Fields", scope: str) -> Token:
        """https://google.aip.dev/auth/4117; the exchange is RFC 8693, 2."""
        url = fields.url_at_google("token_url", "https://sts.googleapis.com/v1/token")
        impersonated = fields.text("service_account_impersonation_url", "")
        form = {
            "grant_type": _EXCHANGE_GRANT,
            "audience": fields.text("audience"),
            "scope": _SCOPE_OF_IAM if impersonated else scope,
            "requested_token_type": _ACCESS_TOKEN,
            "subject_token_type": fields.text("subject_token_type"),
            "subject_token": self._subject_token(fields.below("credential_source")),
        }
        headers = []
        if client := fields.text("client_id", ""):
            secret = fields.text("client_secret", "")
            headers.append(("Authorization", basic(quote_plus(client), quote_plus(secret))))
        elif project := fields.text("workforce_pool_user_project", ""):
            form["options"] = quote_plus(json.dumps({"userProject": project}))
        token = request_token(
            self._http,
            url,
            form,
            kind="workload identity federation",
            what="Google's security token service",
            headers=headers,
            hint="check the audience and the pool's provider: issuer, allowed audiences, condition",
        )
        return self._impersonated(fields, token, scope) if impersonated else token

    def _subject_token(self, source: "_Fields") -> str:
        if source.has("file"):
            # The kubelet rotates it: it is read at every renewal.
            text = read_secret_file(source.text("file"))
        elif source.has("url"):
            text = self._fetch_subject_token(source)
        else:
            known = ("environment_id", "executable", "certificate")
            named = next((name for name in known if source.has(name)), "neither file nor url")
            raise Unsupported(
                f"{source.where} gets its subject token by {named}, which lading does not support",
                hint="known: file, url",
            )
        form = source.below("format")
        if form.text("type", "text") == "text":
            return text
        name = form.text("subject_token_field_name")
        try:
            token = read_json(text)[name]
        except (ValueError, KeyError, TypeError):
            token = None
        if not isinstance(token, str) or not token:
            raise UsageError(
                f"the subject token of {source.where} is not in the field that its format names",
                hint="check credential_source.format",
            )
        return token

    def _fetch_subject_token(self, source: "_Fields") -> str:
        url = source.text("url")
        origin, _ = split_url(url)
        local = origin.name in _THIS_MACHINE or origin.name in _METADATA_ADDRESSES
        origin.refuse_in_clear(f"the subject token of {source.where}")
        http = self._http.direct(connect_s=2.0, stall_s=10.0, retry=self._http.retry) if local else self._http
        headers = [(name, str(value)) for name, value in source.below("headers").document.items()]
        what = f"the subject token's server {origin}"
        head, body = http.fetch("GET", url, headers, what=what, limit_bytes=_LIMIT_BYTES, redirects=0)
        if head.status != 200:
            raise status_error(head, what, quoted=False)
        return body.decode("utf-8", "replace").strip()

    def _by_impersonation(self, fields: "_Fields", scope: str) -> Token:
        """https://google.aip.dev/auth/4117#impersonation: another identity's token is given for an account's."""
        below = fields.below("source_credentials")
        if below.document.get("type") == "impersonated_service_account":
            raise UsageError(
                f"{fields.where} impersonates an account that impersonates another one",
                hint="name the accounts between them as delegates",
            )
        source = self._granted(below.document, fields.where, _SCOPE_OF_IAM)
        return self._impersonated(fields, source, scope)

    def _impersonated(self, fields: "_Fields", source: Token, scope: str) -> Token:
        """https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken."""
        url = fields.url_at_google("service_account_impersonation_url", "")
        lifetime_s = fields.below("service_account_impersonation").document.get("token_lifetime_seconds", _LIFETIME_S)
        wanted = {
            "delegates": fields.document.get("delegates") or [],
            "scope": [scope],
            "lifetime": f"{lifetime_s}s",
        }
        what = "the IAM service"
        head, body = self._http.fetch(
            "POST",
            url,
            [("Content-Type", "application/json"), ("Authorization", f"Bearer {source.value.reveal()}")],
            body=json.dumps(wanted).encode(),
            what=what,
            limit_bytes=_LIMIT_BYTES,
            redirects=0,
        )
        if head.status in (401, 403, 404):
            raise NotAllowed(
                f"{what} does not let the {source.kind} credential act as the service account ({head.status})",
                hint="it needs iam.serviceAccounts.getAccessToken there (the role Service Account Token Creator)",
            )
        if head.status != 200:
            raise status_error(head, what, quoted=False)
        try:
            answer = read_json(body)
            value, expires_at_s = answer["accessToken"], unix_time(answer["expireTime"])
            if not isinstance(value, str) or not value:
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            raise Unsupported(f"{what} does not answer with an access token") from error
        return Token(Secret(value), f"{source.kind}, impersonating", expires_at_s)

    def _from_metadata(self) -> Token | None:
        """https://cloud.google.com/compute/docs/access/authenticate-workloads#applications."""
        # Outside of Google the name does not exist, and that is known at once.  Where it does, the server may be
        # late: GKE's takes a few seconds after a pod has started, which is when models are fetched.
        http = self._http.direct(connect_s=1.0, stall_s=5.0, retry=self._http.retry._replace(attempts=6))
        url = f"http://{self._settings.metadata_host}/computeMetadata/v1/instance/service-accounts/default/token"
        self.unanswered = False
        try:
            head, body = http.fetch(
                "GET",
                url,
                [("Metadata-Flavor", "Google")],
                what="the metadata server",
                limit_bytes=_LIMIT_BYTES,
                redirects=0,
            )
        except NotFound:
            return None
        except Unavailable:
            self.unanswered = True
            return None
        # Something else may answer at that address; and an account that is missing, or may not be used, is none.
        if head.status != 200 or head.get("metadata-flavor") != "Google":
            return None
        return parse_token(body, kind=METADATA, what="the metadata server")


class _Fields:
    """The fields of a credentials file, which may be hostile; ``where`` names it in errors."""

    def __init__(self, document: _Document, where: str) -> None:
        self.document = document
        self.where = where

    def has(self, name: str) -> bool:
        return bool(self.document.get(name))

    def text(self, name: str, default: str | None = None) -> str:
        """A text field; without a default it is required."""
        value = self.document.get(name) or default
        if not isinstance(value, str) or (default is None and not value):
            raise UsageError(
                f"the Google credentials in {printable(self.where)} have no text called {name}",
                hint="use the JSON unchanged, as Google gave it",
            )
        return value

    def below(self, name: str) -> "_Fields":
        """The fields of a nested object; none if it is missing."""
        value = self.document.get(name) or {}
        if not isinstance(value, dict):
            raise UsageError(
                f"{name} of the Google credentials in {printable(self.where)} is not an object", hint=_DOCUMENT
            )
        return _Fields(value, self.where)

    def url_at_google(self, name: str, default: str) -> str:
        """A URL that gets to see a credential: only Google's, or one of this machine."""
        url = self.text(name, default)
        try:
            origin, _ = split_url(url)
        except UsageError as error:
            raise UsageError(
                f"{name} of the Google credentials in {printable(self.where)} is not a URL", hint=_DOCUMENT
            ) from error
        is_googles = origin.name.endswith(".googleapis.com") or origin.name == "accounts.google.com"
        if origin.name not in _THIS_MACHINE and not (is_googles and origin.scheme == "https" and origin.port == 443):
            raise UsageError(
                f"{name} of the Google credentials in {printable(self.where)} leads to {printable(str(origin))},"
                " which is not Google's",
                hint=f"no credential is sent there: {_DOCUMENT}",
            )
        return url


def _parsed(text: str, where: str) -> _Document:
    try:
        document = read_json(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        # The text is a secret: it is not quoted.
        raise UsageError(f"the Google credentials in {printable(where)} are not a JSON object", hint=_DOCUMENT)
    return document
