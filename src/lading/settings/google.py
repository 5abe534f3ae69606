"""Google Cloud: the variables of Google's libraries and of KServe."""

from typing import NamedTuple

from lading.secret import Secret
from lading.settings.variables import Variables

# The key of KServe's secret for Google, whose text is the JSON of the credentials itself.
DOCUMENT = "gcloud-application-credentials.json"

# KServe's storage JSON (type gs): each key and the variable that it stands for.
STORAGE_KEYS = {
    DOCUMENT: DOCUMENT,
    "credentials": DOCUMENT,
    "endpoint_url": "API_ENDPOINT_OVERRIDE",
    "quota_project": "GOOGLE_CLOUD_QUOTA_PROJECT",
}


class Google(NamedTuple):
    """Sources of Google credentials (``lading.auth.google`` has their order)."""

    document: Secret | None = None
    file: str = ""
    gcloud_file: str = ""
    metadata_host: str = "metadata.google.internal"
    metadata_disabled: bool = False


class Gcs(NamedTuple):
    """How to address Cloud Storage.  An emulator is asked without credentials."""

    endpoint: str = "https://storage.googleapis.com"
    emulator: bool = False
    quota_project: str = ""


def read_google(variables: Variables) -> Google:
    """Read the sources of Google credentials from the variables of Google's libraries."""
    home = variables.get("HOME", "")
    gcloud = variables.get("CLOUDSDK_CONFIG") or (f"{home}/.config/gcloud" if home else "")
    return Google(
        document=variables.document(DOCUMENT),
        file=variables.get("GOOGLE_APPLICATION_CREDENTIALS", ""),
        gcloud_file=f"{gcloud}/application_default_credentials.json" if gcloud else "",
        metadata_host=variables.get("GCE_METADATA_HOST") or Google().metadata_host,
        metadata_disabled=variables.flag("NO_GCE_CHECK"),
    )


def read_gcs(variables: Variables) -> Gcs:
    """Read how to address Cloud Storage from the variables of its Python and Go clients."""
    emulator = variables.get("STORAGE_EMULATOR_HOST", "")
    endpoint = emulator or variables.get("API_ENDPOINT_OVERRIDE") or Gcs().endpoint
    # The Python client wants a URL, the Go client takes a host too.
    if "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    return Gcs(endpoint.rstrip("/"), bool(emulator), variables.get("GOOGLE_CLOUD_QUOTA_PROJECT", ""))
