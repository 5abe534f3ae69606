"""Kubeflow Model Catalog: models that others publish, by REST v1alpha1 or v1.  It has no versions.

    registries:
      - {name: granite, kind: kubeflow-catalog, url: https://catalog.example.com, source: redhat_ai_models}

A model's name holds a slash, which a reference encodes: ``model-registry://granite/ibm-granite%2Fgranite-3.1-8b``.
https://github.com/kubeflow/model-registry/blob/main/api/openapi/catalog.yaml
"""

from urllib.parse import quote

from lading.errors import NotFound
from lading.http_client import HttpClient
from lading.near import near_hint
from lading.registries import NoSuchModel, Resolution
from lading.registries.digests import recorded_digests
from lading.registries.kubeflow.api import Api, entity, properties, text
from lading.registries.kubeflow.artifacts import choose, facts, labels, located
from lading.registries.reference import Reference
from lading.registries.service import Service
from lading.settings import Settings
from lading.settings.registries import RegistryEntry
from lading.settings.variables import Variables
from lading.uri import printable

_ROOTS = ("/api/model_catalog/v1alpha1", "/api/model_catalog/v1")
_FACTS = ("description", "license", "provider", "maturity", "libraryName", "tasks", "language")


class KubeflowCatalog:
    """The models of the source that the entry names."""

    def __init__(self, entry: RegistryEntry, settings: Settings, http: HttpClient) -> None:
        self.name = entry.name
        self._service = Service(entry, settings, http)
        self._source = str(entry.options["source"])

    def resolve(self, reference: Reference) -> Resolution:
        name = reference.model
        where = f"model {printable(name)!r}"
        if reference.version or reference.alias:
            raise NotFound(
                f"registry {printable(self.name)} is a catalog, whose models have no versions and no aliases",
                hint="name only the model; a slash in its name is written %2F",
            )
        api = Api(self._service, _ROOTS, "/sources")
        path = f"/sources/{quote(self._source, safe='')}/models/{quote(name, safe='')}"
        try:
            model = entity(api.get(path, what=where), where)
        except NotFound as error:
            raise self._nothing(api, name) from error
        # Without the type, metrics come along.
        query = {"artifactType": "model-artifact"}
        listed = api.list(f"{path}/artifacts", query, what=f"the artifacts of {where}", named=False)
        artifact = choose(list(listed), reference.artifact, where)
        recorded = [properties(found) for found in (model, artifact)]
        uri, variables = located(self._service, artifact, recorded[0] | recorded[1], where)
        metadata = {
            "source": self._source,
            **facts(model, *_FACTS),
            "labels": labels(model),
            "modelProperties": recorded[0],
            "artifactProperties": recorded[1],
        }
        return Resolution(
            uri=uri,
            registry=self.name,
            model=name,
            digests=recorded_digests(where, *recorded),
            metadata={key: value for key, value in metadata.items() if value},
            variables=Variables(variables),
            considered=((text(artifact, "name") or "the model", "the only model artifact"),),
        )

    def _nothing(self, api: Api, name: str) -> NotFound:
        query = {"source": self._source}
        names = [found["name"] for found in api.list("/models", query, what="the models")]
        return NoSuchModel(
            f"registry {printable(self.name)} has no model {printable(name)!r} in its source {printable(self._source)}",
            hint=near_hint(name, names),
        )
