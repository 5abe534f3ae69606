"""Kubeflow's registries: options of their entries, and the variables of Kubeflow's storage initializer."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from lading.errors import UsageError
from lading.settings.registries import RegistryEntry
from lading.settings.section import key_path
from lading.settings.server import ServerSettings
from lading.settings.value import ValuesByName
from lading.settings.variables import Variables

EXAMPLES = {
    "storage": "{KEY: {folder: /path}} or {KEY: {variables: {NAME: value}}}",
    "source": "redhat_ai_models, of the ids that GET /api/model_catalog/v1alpha1/sources of the catalog lists",
}
_SERVICE, _DOMAIN = "model-registry-service", "svc.cluster.local"
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")


class KubeflowSettings(NamedTuple):
    """The Model Registry: the name of its ``service`` in each namespace, and the cluster's ``domain``.

    ``storage`` maps the ``storageKey`` of an artifact to variables.
    """

    service: str = _SERVICE
    domain: str = _DOMAIN
    storage: Mapping[str, ValuesByName] = MappingProxyType({})

    def check(self, where: str, server: ServerSettings) -> None:
        for key, host in (("service", self.service), ("domain", self.domain)):
            if not _HOST.fullmatch(host):
                raise UsageError(f"{where}: {key} is not a host name", hint="write letters, digits, dashes and dots")
        for name, values in self.storage.items():
            values.check(key_path(f"{where}: storage", name))


class KubeflowCatalogSettings(NamedTuple):
    """The Model Catalog: one ``source`` of it is a registry."""

    source: str

    def check(self, where: str, server: ServerSettings) -> None:
        """Accept any name of a source."""


def read_variables(env: Variables) -> RegistryEntry[KubeflowSettings]:
    """The entry of the registry at ``MODEL_REGISTRY_BASE_URL``, where a scheme may be missing, for any namespace."""
    # White space comes with a Secret or a ConfigMap that was made by echo, and has no meaning in an address.
    url = env["MODEL_REGISTRY_BASE_URL"].strip()
    if url and "://" not in url:
        url = f"{env.get('MODEL_REGISTRY_SCHEME', '').strip() or 'http'}://{url}"
    options = KubeflowSettings(
        service=env.get("MODEL_REGISTRY_SERVICE_NAME") or _SERVICE,
        domain=env.get("MODEL_REGISTRY_CLUSTER_DOMAIN") or _DOMAIN,
    )
    return RegistryEntry("kubeflow", "kubeflow", options, ServerSettings(url), namespaces=("*",))
