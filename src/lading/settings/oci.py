"""OCI registries: the variables of Docker, of Podman and of KServe."""

from typing import NamedTuple

from lading.model.origin import host_and_port
from lading.secret import Secret
from lading.settings.variables import Variables

DOCKER_HUB = "docker.io"
# Names of one registry: in references, in configurations, and where it answers.
_DOCKER_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
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
    """Sources of logins for registries (``lading.auth.oci`` has their order).

    ``host`` is the registry of the username and password; if it is empty, they are sent to any registry.
    ``config_file`` is Docker's config.json; only one that is configured must exist.  An ``insecure`` registry
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
    """Read the sources of logins for registries from the variables of KServe, Podman and Docker."""
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


def canonical_host(host: str) -> str:
    """One name for each registry."""
    name, port = host_and_port(host)
    name = f"[{name}]" if ":" in name else name
    name = f"{name}:{port}" if port else name
    return DOCKER_HUB if name in _DOCKER_HUB_NAMES else name
