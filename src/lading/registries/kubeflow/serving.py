"""Which services have which versions, as the Model Registry keeps it.

ServingEnvironment   the namespace
InferenceService     one for each model of a service: which version it should have now, and whether it is deployed
ServeModel           one for each delivery, and for each rollout that ended: the API cannot change it later
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from lading.errors import LadingError, NotFound, Unsupported
from lading.registries.kubeflow.artifacts import facts
from lading.registries.kubeflow.rest_api import Api, Entity, entity, identifier, text
from lading.registries.registry import Deployment, Resolution


def record(api: Api, resolution: Resolution, deployment: Deployment) -> None:
    """Say it with as few calls as it takes; nothing of others is changed."""
    model, version = (str(resolution.metadata.get(key, "")) for key in ("registeredModelId", "modelVersionId"))
    if not model or not version:
        raise Unsupported("the registry gave no ids for the delivered model")
    what = f"the inference service {deployment.service}"
    # A service may have several models, and the model of an InferenceService is for ever.
    name = f"{deployment.service}/{quote(resolution.model, safe='')}"
    if deployment.state == "UNDEPLOYED":
        _say_gone(api, name, version, deployment.environment, what)
        return
    environment = _found_or_made(
        api,
        ("/serving_environment", {"name": deployment.environment}),
        ("/serving_environments", {"name": deployment.environment}),
        f"the environment {deployment.environment}",
    )
    wanted = {"modelVersionId": version, "desiredState": "DEPLOYED"}
    parent = {"servingEnvironmentId": identifier(environment), "registeredModelId": model}
    served = _found_or_made(
        api,
        ("/inference_service", {"name": name, "parentResourceId": identifier(environment)}),
        ("/inference_services", {"name": name, **parent, **wanted}),
        what,
    )
    if deployment.state == "COMPLETE":
        _change(api, served, wanted, what)
    _say_served(api, f"/inference_services/{identifier(served)}/serves", version, resolution, deployment)


def _say_gone(api: Api, name: str, version: str, environment: str, what: str) -> None:
    """The service has this version no longer; nothing is made, and another version that it has stays as it is."""
    try:
        parent = identifier(entity(api.get("/serving_environment", {"name": environment}, what=what), what))
        query = {"name": name, "parentResourceId": parent}
        served = entity(api.get("/inference_service", query, what=what), what)
    except NotFound:
        return
    if text(served, "modelVersionId") == version:
        _change(api, served, {"modelVersionId": version, "desiredState": "UNDEPLOYED"}, what)


def _change(api: Api, served: Entity, wanted: Mapping[str, str], what: str) -> None:
    if any(served.get(key) != value for key, value in wanted.items()):
        # Some servers forget what such a change does not say again.
        kept = facts(served, "customProperties", "description", "externalId", "runtime")
        api.send("PATCH", f"/inference_services/{identifier(served)}", {**kept, **wanted}, what=what)


def _say_served(api: Api, path: str, version: str, resolution: Resolution, deployment: Deployment) -> None:
    # Its name makes it the same for every replica that delivers the same.
    name = f"{version}:{deployment.identity}"
    what = f"what was served by {deployment.service}"
    if any(text(served, "name") == name for served in api.list(path, what=what, named=False)):
        return
    said = {"uri": resolution.uri.redacted(), **deployment.facts}
    document = {
        "name": name,
        "modelVersionId": version,
        "lastKnownState": deployment.state,
        "customProperties": {
            key: {"metadataType": "MetadataStringValue", "string_value": value} for key, value in said.items()
        },
    }
    try:
        api.send("POST", path, document, what=what)
    except LadingError:
        # Another replica may have said it between the two calls.
        if not any(text(served, "name") == name for served in api.list(path, what=what, named=False)):
            raise


def _found_or_made(
    api: Api, find: tuple[str, Mapping[str, str]], make: tuple[str, Mapping[str, Any]], what: str
) -> Entity:
    try:
        return entity(api.get(*find, what=what), what)
    except NotFound:
        pass
    try:
        return entity(api.send("POST", *make, what=what), what)
    except LadingError as refused:
        # Another process may have made it between the two calls.
        try:
            return entity(api.get(*find, what=what), what)
        except NotFound:
            raise refused from None
