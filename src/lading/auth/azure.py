"""Credentials for an Azure storage account, in KServe's order; the first that is configured is used.

A SAS in the URI, service principal, workload identity, a token that is given, the managed identity
that is named, account key, SAS.  If it fails, its error is the answer, since another identity could
read other things.  Where nothing is configured, requests are anonymous, and the machine's own
identity is asked for only when those are refused: an identity without rights is refused even what
is public.
"""

import time
from functools import partial
from typing import NamedTuple
from urllib.parse import quote, urlencode

from lading.auth.authorizer import RefreshingCredential
from lading.auth.oauth import parse_token, request_token
from lading.errors import NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.model.origin import endpoint_origin
from lading.network.answer import Answer, status_error
from lading.network.client import HttpClient
from lading.secret import Secret, Token
from lading.settings.azure import Azure
from lading.system.disk import read_secret_file

# The resource of all storage accounts, in every cloud:
# https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory
_RESOURCE = "https://storage.azure.com/"
_AUTHORITY = "https://login.microsoftonline.com"
# https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
_AUTHORITIES = {
    ".core.chinacloudapi.cn": "https://login.chinacloudapi.cn",
    ".core.usgovcloudapi.net": "https://login.microsoftonline.us",
}
_LIMIT_BYTES = 256 * 1024


class AccountKey(NamedTuple):
    """An account's key, base64, which signs requests."""

    account: str
    key: Secret
    kind: str = "account key"
    expires_at_s: float | None = None


class Sas(NamedTuple):
    """A shared access signature: a query that goes with every request."""

    query: Secret
    kind: str
    expires_at_s: float | None = None


Credential = AccountKey | Sas | Token


class AzureCredentials(RefreshingCredential[Credential]):
    """The credential for one account, fetched once and renewed before it ends.  Safe from any thread.

    ``host`` is the account's, ``sas`` what the URI brings with it.
    """

    def __init__(self, settings: Azure, http: HttpClient, *, account: str, host: str, sas: str = "") -> None:
        super().__init__(http.retry.run.clock.now)
        self._settings = settings
        self._http = http
        self._account = account
        self._sas = sas
        self._as_machine = False
        authority = settings.authority_host or next(
            (found for cloud, found in _AUTHORITIES.items() if host.endswith(cloud)), _AUTHORITY
        )
        self._authority = (authority if "://" in authority else f"https://{authority}").rstrip("/")

    def ask_the_machine(self) -> bool:
        """Use the identity of this machine from now on, if nothing is configured and it has one."""
        if self.get() is not None:
            return False
        # Most machines have none and nothing answers there: that must cost a moment only.
        quick = self._http.direct(connect_s=1.0, stall_s=5.0, retry=self._http.retry._replace(attempts=1))
        try:
            self._managed_identity(quick, "")
        except (NotAllowed, NotFound, Unavailable, Unsupported):
            return False
        self._as_machine = True
        self.forget()
        return True

    def _fetch(self) -> Credential | None:
        settings = self._settings
        if self._sas:
            return Sas(Secret(self._sas), "SAS in the URI")
        if settings.client_id and settings.client_secret:
            return self._service_principal(settings.client_id, settings.client_secret)
        if settings.client_id and settings.tenant_id and settings.federated_token_file:
            return self._workload_identity(settings.client_id, settings.federated_token_file)
        if settings.access_token:
            return _given_token(settings.access_token, settings.access_token_expires_on)
        local = self._http.direct(connect_s=2.0, stall_s=10.0, retry=self._http.retry)
        if settings.client_id:
            try:
                return self._managed_identity(local, settings.client_id)
            except (NotAllowed, Unavailable) as error:
                raise error.rephrased(
                    hint="AZURE_CLIENT_ID alone means a managed identity of this machine; "
                    "any other identity also needs AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE"
                ) from error
        if not settings.account or settings.account == self._account:
            if settings.account_key:
                return AccountKey(self._account, settings.account_key)
            if settings.sas:
                return Sas(Secret(settings.sas.reveal().removeprefix("?")), "SAS")
        return self._managed_identity(local, "") if self._as_machine else None

    def _service_principal(self, client_id: str, client_secret: Secret) -> Token:
        """https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow."""
        return self._token({"client_id": client_id, "client_secret": client_secret.reveal()}, "service principal")

    def _workload_identity(self, client_id: str, token_file: str) -> Token:
        assertion = {
            "client_id": client_id,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            # The kubelet rotates this file: it is read at every renewal.
            "client_assertion": read_secret_file(token_file),
        }
        return self._token(assertion, "workload identity")

    def _token(self, form: dict[str, str], kind: str) -> Token:
        variable = "AZURE_AUTHORITY_HOST"
        endpoint_origin(self._authority, variable).refuse_in_clear(f"the {kind}'s secret", f"check {variable}")
        if not self._settings.tenant_id:
            raise UsageError("AZURE_CLIENT_SECRET is set and AZURE_TENANT_ID is not", hint="set both")
        return request_token(
            self._http,
            f"{self._authority}/{quote(self._settings.tenant_id, safe='')}/oauth2/v2.0/token",
            form | {"grant_type": "client_credentials", "scope": f"{_RESOURCE}.default"},
            kind=kind,
            what="Microsoft Entra",
            hint="check AZURE_TENANT_ID, AZURE_CLIENT_ID and the secret or token file",
        )

    def _managed_identity(self, http: HttpClient, client_id: str) -> Token:
        """https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token."""
        query = {"api-version": "2018-02-01", "resource": _RESOURCE} | ({"client_id": client_id} if client_id else {})
        url = f"{self._settings.metadata_url.rstrip('/')}/metadata/identity/oauth2/token?{urlencode(query)}"
        what = "the managed identity of this machine"

        def judge(answer: Answer) -> bytes:
            status = answer.head.status
            if status in (404, 410):
                # So it answers while it is updated.
                raise Unavailable(f"{what} is not available now ({status})")
            if status in (400, 403):
                raise NotAllowed(f"{what} is not available ({status})")
            if status != 200:
                raise status_error(answer.head, what)
            return answer.read(_LIMIT_BYTES)

        body = http.ask(partial(http.open, "GET", url, [("Metadata", "true")], redirects=0), judge, what=what)
        return parse_token(body, kind="managed identity", what=what)


def _given_token(token: Secret, expires_on: str) -> Token:
    try:
        expires_at_s = float(expires_on or "inf")
    except ValueError as error:
        raise UsageError(
            "AZURE_ACCESS_EXPIRES_ON_SECONDS is not a number", hint="write it in Unix time (seconds)"
        ) from error
    if expires_at_s < time.time():
        raise NotAllowed("AZURE_ACCESS_TOKEN has expired", hint="set a new token and run again to resume")
    # It cannot be renewed, so that its end is the server's to tell.
    return Token(token, "access token")
