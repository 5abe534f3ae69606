"""Azure: the variables of KServe and of the Azure SDKs.  ``AZ_…`` is KServe's other spelling."""

from typing import NamedTuple

from lading.model.uri import ModelURI
from lading.secret import Secret
from lading.settings.variables import Variables

INSTANCE_METADATA_URL = "http://169.254.169.254"

# The keys of storage JSON of type azure (KServe's own has no such type) and the variables they stand for.
STORAGE_KEYS = {
    "account_name": "AZURE_ACCOUNT_NAME",
    "access_key": "AZURE_STORAGE_ACCESS_KEY",
    "sas_token": "AZURE_STORAGE_SAS_TOKEN",
    "access_token": "AZURE_ACCESS_TOKEN",
    "access_expires_on_seconds": "AZURE_ACCESS_EXPIRES_ON_SECONDS",
    "tenant_id": "AZURE_TENANT_ID",
    "client_id": "AZURE_CLIENT_ID",
    "client_secret": "AZURE_CLIENT_SECRET",
    "authority_host": "AZURE_AUTHORITY_HOST",
    "endpoint_url": "AZURE_SERVICE_URL",
}


class Azure(NamedTuple):
    """Sources of Azure credentials (``lading.auth.azure`` has their order).

    ``account`` is the storage account of the key and the SAS; if it is empty, they are sent to any account.
    ``access_token_expires_on`` is Unix time as text.
    """

    account: str = ""
    account_key: Secret | None = None
    sas: Secret | None = None
    access_token: Secret | None = None
    access_token_expires_on: str = ""
    tenant_id: str = ""
    client_id: str = ""
    client_secret: Secret | None = None
    federated_token_file: str = ""
    authority_host: str = ""
    metadata_url: str = INSTANCE_METADATA_URL


def read_azure(variables: Variables) -> Azure:
    """Read the sources of Azure credentials from the variables."""
    return Azure(
        account=variables.exact(*_names("ACCOUNT_NAME")),
        account_key=variables.secret(*_names("STORAGE_ACCESS_KEY")),
        sas=variables.secret(*_names("STORAGE_SAS_TOKEN")),
        access_token=variables.secret(*_names("ACCESS_TOKEN")),
        access_token_expires_on=_either(variables, "ACCESS_EXPIRES_ON_SECONDS"),
        tenant_id=variables.exact(*_names("TENANT_ID")),
        client_id=variables.exact(*_names("CLIENT_ID")),
        client_secret=variables.secret(*_names("CLIENT_SECRET")),
        federated_token_file=_either(variables, "FEDERATED_TOKEN_FILE"),
        authority_host=_either(variables, "AUTHORITY_HOST"),
        # The variable's name in azure-identity.
        metadata_url=_either(variables, "POD_IDENTITY_AUTHORITY_HOST") or INSTANCE_METADATA_URL,
    )


def service_url(uri: ModelURI, variables: Variables) -> str:
    """``AZURE_SERVICE_URL`` if ``uri`` is below it, else ""."""
    service = _either(variables, "SERVICE_URL").rstrip("/")
    return service if service and f"{uri.scheme}://{uri.authority}{uri.path}/".startswith(f"{service}/") else ""


def _either(variables: Variables, name: str) -> str:
    return variables.first(*_names(name))


def _names(name: str) -> tuple[str, str]:
    return f"AZURE_{name}", f"AZ_{name}"
