"""OCI registries: the variables of Docker, of Podman and of KServe."""

from typing import NamedTuple

from lading.secret import Secret
from lading.settings.variables import Variables

# The key of a Kubernetes Secret of type kubernetes.io/dockerconfigjson, whose text is the configuration itself.
DOCUMENT = ".dockerconfigjson"

# KServe's storage JSON (type oci): each key and the variable that it stands for.
STORAGE_KEYS = {
    "username": "OCI_USERNAME",
    "password": "OCI_PASSWORD",
    "host": "OCI_HOST",
    DOCUMENT: DOCUMENT,
    "docker_config": DOCUMENT,
    "insecure": "KSERVE_OCI_INSECURE_REGISTRY",
    "ca_bundle": "REQUESTS_CA_BUNDLE",
}


class Oci(NamedTuple):
    """Where logins of registries may come from (their order is in ``lading.oci.credentials``).

    ``host`` is the only one that username and password are for; any, if it is empty.
    ``config_file`` is Docker's config.json; it may be missing if nobody named it.  An ``insecure`` registry
    is asked without verifying its certificate, or without TLS if it has none.
    """

    username: str = ""
    password: Secret | None = None
    document: Secret | None = None
    config_file: str = ""
    config_must_exist: bool = False
    insecure: bool = False
    host: str = ""


def read_oci(variables: Variables) -> Oci:
    """Where logins of registries may come from, by the variables of KServe, Podman and Docker."""
    named = variables.first("KSERVE_OCI_DOCKER_CONFIG", "REGISTRY_AUTH_FILE")
    home = variables.get("HOME", "")
    folder = variables.get("DOCKER_CONFIG") or (f"{home}/.docker" if home else "")
    return Oci(
        username=variables.exact("OCI_USERNAME"),
        password=variables.secret("OCI_PASSWORD"),
        host=variables.exact("OCI_HOST"),
        document=variables.document(DOCUMENT),
        config_file=named or (f"{folder}/config.json" if folder else ""),
        config_must_exist=bool(named),
        insecure=variables.flag("KSERVE_OCI_INSECURE_REGISTRY"),
    )
