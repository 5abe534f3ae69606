"""Kubeflow Model Catalog: models that others publish, by REST v1alpha1 or v1.  It has no versions.

    registries:
      - {name: granite, kind: kubeflow-catalog, url: https://catalog.example.com, source: redhat_ai_models}

A model's name holds a slash, which a reference encodes: ``model-registry://granite/ibm-granite%2Fgranite-3.1-8b``.
https://github.com/kubeflow/model-registry/blob/main/api/openapi/catalog.yaml
"""

from collections.abc import Iterator
from urllib.parse import quote

from lading.errors import LadingError, NotFound, Unsupported
from lading.model.reference import Reference
from lading.network.client import HttpClient
from lading.registries.digests import recorded_digests
from lading.registries.kubeflow.artifacts import choose, facts, labels, located
from lading.registries.kubeflow.rest_api import Api, Entity, entity, properties, text
from lading.registries.registry import NoSuchModel, Resolution
from lading.registries.server import RegistryServer
from lading.settings.kubeflow import KubeflowCatalogSettings
from lading.settings.registries import RegistryEntry
from lading.settings.settings import Settings
from lading.settings.variables import Variables
from lading.text.printable import printable
from lading.text.suggest import suggest

_ROOTS = ("/api/model_catalog/v1alpha1", "/api/model_catalog/v1")
# What Go's net/url leaves as it is in a path, beside letters, digits and -._~.
_PLAIN = "$&+,:;=@"
_FACTS = ("description", "license", "provider", "maturity", "libraryName", "tasks", "language")


class KubeflowCatalog:
    """The models of the source that the entry names."""

    def __init__(self, entry: RegistryEntry[KubeflowCatalogSettings], settings: Settings, http: HttpClient) -> None:
        self.name = entry.name
        self._server = RegistryServer(entry, settings, http)
        self._source = entry.options.source

    def resolve(self, reference: Reference) -> Resolution:
        name = reference.model
        where = f"model {printable(name)!r}"
        if reference.version or reference.alias:
            raise NotFound(
                f"registry {printable(self.name)} is a catalog, whose models have no versions and no aliases",
                hint="name only the model; a slash in its name is written %2F",
            )
        api = Api(self._server, _ROOTS, "/sources")
        path, model = self._model(api, name, where)
        # Without the type, metrics come along.
        query = {"artifactType": "model-artifact"}
        listed = api.list(f"{path}/artifacts", query, what=f"the artifacts of {where}", named=False)
        artifact = choose(list(listed), reference.artifact, where)
        recorded = [properties(found) for found in (model, artifact)]
        uri, variables = located(self._server, artifact, recorded, where)
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

    def _model(self, api: Api, name: str, where: str) -> tuple[str, Entity]:
        """The path of the model below the API, and what is known of it."""
        failures: list[LadingError] = []
        for path in _paths(self._source, name):
            try:
                model = entity(api.get(path, what=where), where)
            except (NotFound, Unsupported) as error:
                failures.append(error)
                continue
            if model["name"] == name:
                return path, model
            failures.append(NotFound(f"{where}: the answer is about {printable(model['name'])!r}"))
        if all(isinstance(error, Unsupported) for error in failures):
            raise failures[0]
        raise self._nothing(api, name) from failures[0]

    def _nothing(self, api: Api, name: str) -> LadingError:
        within = f"in its source {printable(self._source)!r}"
        query = {"source": self._source}
        names = [found["name"] for found in api.list("/models", query, what="the models")]
        if name in names:
            return Unsupported(
                f"registry {printable(self.name)} lists the model {printable(name)!r} {within}, but does not return it",
                hint="its server finds no source whose id has a slash: give that source another id"
                if "/" in self._source
                else "something in front of its server may not let an encoded name through",
            )
        return NoSuchModel(
            f"registry {printable(self.name)} has no model {printable(name)!r} {within}", hint=suggest(name, names)
        )


def _paths(source: str, name: str) -> Iterator[str]:
    """Where a model may be: its server decodes a name once or twice, by what else is in the path.

    Its router (Go's net/url, chi) matches the decoded path where encoding that gives the same again, else the path
    as it was sent; the handler then decodes the name once more, and never the source, and takes a decoded path that
    ends in /artifacts for another question.  With each byte encoded twice, that server reads any name rightly, and any
    source without a slash; another server reads what is encoded once.
    """
    once = quote(name, safe=_PLAIN)
    twice = "".join(f"%25{byte:02X}" for byte in name.encode())
    for part in (once, twice):
        yield f"/sources/{quote(source, safe=_PLAIN)}/models/{part}"
