"""MLflow's model registry, by its REST API: ``mlflow://iris/2``, ``models:/iris@champion``, ``models:/m-…``.

https://mlflow.org/docs/latest/rest-api.html.  Options of an entry, beside those of every server:

    artifacts_url: https://tracking.example.com   # the server that has runs and artifacts, if it is another one
    workspace: team-a                             # or {file: …}: sent as X-MLFLOW-WORKSPACE

Where a version's files are is asked by ``get-download-uri``: its ``source`` is what somebody wrote down.  The answer may
be a name itself, ``runs:/RUN/PATH`` or ``models:/…``, which leads on as it does for MLflow's own client.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from lading.errors import LadingError, NotAllowed, NotFound, Unsupported, UsageError
from lading.model.listing import GeneratedFile
from lading.model.origin import split_url
from lading.model.reference import Reference, parse_reference
from lading.model.uri import ModelURI, redact
from lading.network.client import HttpClient
from lading.network.paging import Page, PagedList
from lading.network.wire import Head
from lading.registries.digests import recorded_digests
from lading.registries.registry import Deployment, NoSuchModel, Resolution
from lading.registries.server import RegistryServer
from lading.registries.tracking import (
    API,
    Tracking,
    artifact_uri,
    check_identity,
    items,
    part,
    text,
    unready,
    wrong_form,
)
from lading.settings.mlflow import MlflowSettings
from lading.settings.registries import RegistryEntry
from lading.settings.settings import Settings
from lading.text.json_xml import read_json
from lading.text.printable import printable
from lading.text.suggest import suggest

# Which registry a source should ask for artifacts; a host may be that of several, one for each workspace.
REGISTRY_VARIABLE = "LADING_REGISTRY"
ARTIFACTS_SCHEME = "mlflow-artifacts"
_RUNS = "runs"
# What a version may be said to be, that is no place yet.
_NAMES = (_RUNS, "models")
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
# What a server's security middleware says to a Host header that is not in its list (mlflow.server.security_utils).
_WRONG_HOST = b"Invalid Host header"
# The stages a version can be in, deprecated and still in use.
_STAGES = {stage.lower(): stage for stage in ("None", "Staging", "Production", "Archived")}
_LATEST = "latest"
_PAGE_VERSIONS = 200
_MOST_VERSIONS = 20_000
_MOST_SHOWN = 20
# A version that was made of another one, which was made of a run: more is a circle.
_MOST_STEPS = 4
# A version's number in its database is of 32 bits in some of them.
_MOST_DIGITS = 9
_NUMBER = re.compile(rf"[0-9]{{1,{_MOST_DIGITS}}}")
_OF_A_VERSION = ("description", "current_stage", "status", "run_id", "creation_timestamp", "last_updated_timestamp")
_OF_A_LOGGED_MODEL = (
    "name",
    "status",
    "model_type",
    "source_run_id",
    "experiment_id",
    "creation_timestamp_ms",
    "last_updated_timestamp_ms",
)


class MlflowServer(RegistryServer):
    """An MLflow server: where its entry says, or for ``artifacts`` the one whose proxy has them."""

    def __init__(
        self, entry: RegistryEntry[MlflowSettings], settings: Settings, http: HttpClient, *, artifacts: bool = False
    ) -> None:
        if artifacts:
            entry = entry._replace(server=entry.server._replace(url=artifacts_url(entry)))
        workspace = entry.options.workspace.read(settings.variables).strip()
        headers = [("X-MLFLOW-WORKSPACE", workspace)] if workspace else []
        super().__init__(entry, settings, http, headers=headers)
        self._artifacts = artifacts

    def _error(self, head: Head, body: bytes, shown: str) -> LadingError:
        if head.status == 403 and body.startswith(_WRONG_HOST):
            return NotAllowed(
                f"{shown}: the MLflow server does not answer to the name {self.origin.authority}",
                hint=f"start it with --allowed-hosts {self.origin.authority} (and the names it has now), "
                "or ask it by one that it allows",
            )
        error = super()._error(head, body, shown)
        if isinstance(error, NotFound) and not self._artifacts and not _is_absence(body):
            # Of a gateway without a route: not "there is no such model", for which the next registry is asked.  Files
            # are asked for after the model was found.
            return Unsupported(
                f"{shown}: {self.origin} answers {head.status}, and not as MLflow does",
                hint=f"is {printable(redact(self.url))} the address of this registry's API?",
            )
        return error


class MlflowRegistry:
    """The registry of one MLflow server."""

    def __init__(self, entry: RegistryEntry[MlflowSettings], settings: Settings, http: HttpClient) -> None:
        self.name = entry.name
        self._server = MlflowServer(entry, settings, http)
        split = bool(entry.options.artifacts_url)
        self._tracking = Tracking(MlflowServer(entry, settings, http, artifacts=True) if split else self._server)
        self._artifacts = split_url(artifacts_url(entry))[0].authority
        self._s3_endpoint = settings.variables.get("MLFLOW_S3_ENDPOINT_URL", "")

    def resolve(self, reference: Reference) -> Resolution:
        if reference.artifact:
            raise UsageError(f"{printable(str(reference))}: a version in MLflow has one artifact, which has no name")
        if _is_logged(reference.model, reference.version):
            return self._logged_model(reference.model)
        name = reference.model
        model = self._model(name)
        version, passed_over = self._version(reference, model)
        number, tags = str(version.get("version")), self._tags(version)
        aliases = [alias for alias, named in self._aliases(model).items() if named == number]
        about = {
            "model_description": model.get("description"),
            "model_tags": self._tags(model),
            "aliases": aliases,
            "tags": tags,
            **{key: version.get(key) for key in _OF_A_VERSION},
        }
        found = self._resolution(self._location(name, number), name, number, tags, about)
        return found._replace(considered=(*passed_over, (number, "taken")))

    def versions(self, reference: Reference) -> list[str]:
        self._model(reference.model)
        return [str(version["version"]) for version in self._versions(reference.model)]

    def record(self, resolution: Resolution, deployment: Deployment) -> None:
        """Write a tag of the version: what was delivered for a service, or how its rollout ended there."""
        if _is_logged(resolution.model, resolution.version):
            raise Unsupported("only deliveries of registered versions can be recorded, not those of logged models")
        tag = {
            "name": resolution.model,
            "version": resolution.version,
            "key": f"lading.{deployment.topic}.{deployment.environment}.{deployment.service}",
            "value": deployment.summary,
        }
        self._server.call("POST", f"{API}/model-versions/set-tag", document=tag, what="the tag of a delivery")

    def _model(self, name: str) -> dict[str, Any]:
        what = f"model {printable(name)!r}"
        try:
            answer = self._server.get(f"{API}/registered-models/get", {"name": name}, what=what)
        except NotFound as error:
            raise NoSuchModel(
                f"registry {printable(self.name)} has no {what}", hint=suggest(name, self._names())
            ) from error
        model = part(answer, "registered_model", what, self._server)
        found = text(model, "name", what, self._server)
        if found != name and found.casefold() == name.casefold():
            # A database may take Iris for iris.
            raise NoSuchModel(f"registry {printable(self.name)} has no {what}", hint=suggest(name, [found]))
        check_identity(model, "name", name, what, self._server)
        return model

    def _names(self) -> list[str]:
        """Some names of models, for a hint."""
        try:
            answer = self._server.get(f"{API}/registered-models/search", {"max_results": "100"}, what="the models")
            return [str(model["name"]) for model in answer["registered_models"]]
        except (LadingError, KeyError, TypeError):
            return []

    def _version(self, reference: Reference, model: dict[str, Any]) -> tuple[dict[str, Any], Sequence[tuple[str, str]]]:
        """The version that is meant, and those that were passed over for it, each with why."""
        name, wanted = reference.model, reference.version or reference.alias
        if not wanted or wanted.lower() == _LATEST:
            return self._newest(name, "")
        if reference.alias:
            aliases = self._aliases(model)
            if wanted not in aliases:
                raise NotFound(
                    f"model {printable(name)!r} has no alias {printable(wanted)!r}", hint=suggest(wanted, aliases)
                )
            wanted = aliases[wanted]
        elif wanted.lower() in _STAGES:
            return self._newest(name, _STAGES[wanted.lower()])
        what = f"version {printable(wanted)!r} of model {printable(name)!r}"
        try:
            if not _NUMBER.fullmatch(wanted):
                raise NotFound(wanted)
            answer = self._server.get(
                f"{API}/model-versions/get", {"name": name, "version": str(int(wanted))}, what=what
            )
        except NotFound as error:
            raise NotFound(
                f"model {printable(name)!r} has no version {printable(wanted)!r}",
                hint=suggest(wanted, self._numbers(name)),
            ) from error
        version = part(answer, "model_version", what, self._server)
        check_identity(version, "name", name, what, self._server)
        check_identity(version, "version", str(int(wanted)), what, self._server)
        if why := unready(version, what, self._server):
            raise NotFound(f"{what} {why}", hint="ask again when it is ready, or for another version")
        return version, ()

    def _newest(self, name: str, stage: str) -> tuple[dict[str, Any], Sequence[tuple[str, str]]]:
        """The newest version that is ready: in ``stage``, or without one in any but Archived.

        ``latest`` as MLflow itself answers it may be an archived version.
        """
        passed_over: list[tuple[str, str]] = []
        for version in self._versions(name):
            what = f"version {printable(str(version.get('version')))} of {printable(name)!r}"
            found = text(version, "current_stage", what, self._server) or "None"
            out = found == "Archived" if not stage else found != stage
            why = unready(version, what, self._server) or (f"is in the stage {printable(found)}" if out else "")
            if not why:
                return version, passed_over
            if len(passed_over) < _MOST_SHOWN:
                passed_over.append((str(version.get("version")), why))
        wanted = f"that is ready in the stage {stage}" if stage else "that is ready and not archived"
        raise NotFound(
            f"model {printable(name)!r} has no version {wanted}",
            hint="; ".join(f"version {number} {why}" for number, why in passed_over[:3]),
        )

    def _versions(self, name: str) -> Iterator[dict[str, Any]]:
        """Every version, newest first."""
        what = f"the versions of {printable(name)!r}"
        mark = '"' if "'" in name else "'"
        if mark in name:
            raise Unsupported(f"{what}: a name with both kinds of quotes cannot be searched for", hint="name a version")
        query = {
            "filter": f"name={mark}{name}{mark}",
            "order_by": "version_number DESC",
            "max_results": str(_PAGE_VERSIONS),
        }

        def page(token: str) -> Page[dict[str, Any]]:
            answer = self._server.get(
                f"{API}/model-versions/search", query | ({"page_token": token} if token else {}), what=what
            )
            versions = items(answer, "model_versions", what, self._server)
            # What is empty is left out.
            following = answer.get("next_page_token", "")
            if not isinstance(following, str):
                raise wrong_form(what, self._server)
            return Page(versions, following)

        listing = PagedList[dict[str, Any]](what, _MOST_VERSIONS, lambda version: str(version.get("version", "")))
        before = 10**_MOST_DIGITS
        for version in chain.from_iterable(listing.pages(page)):
            number = version.get("version")
            if version.get("name") != name or not isinstance(number, str) or not _NUMBER.fullmatch(number):
                raise wrong_form(what, self._server)
            if int(number) >= before:
                raise listing.contradiction("is not from the newest to the oldest")
            before = int(number)
            yield version

    def _numbers(self, name: str) -> list[str]:
        """The numbers of the newest versions, for a hint."""
        try:
            return [str(version["version"]) for version in islice(self._versions(name), 3)]
        except LadingError:
            return []

    def _location(self, name: str, number: str) -> str:
        what = f"version {number} of {printable(name)!r}"
        try:
            answer = self._server.get(
                f"{API}/model-versions/get-download-uri", {"name": name, "version": number}, what=what
            )
        except NotFound as error:
            raise NotFound(f"{what} was deleted while it was looked up", hint="run again") from error
        return artifact_uri(answer, what)

    def _followed(self, location: str, where: str) -> ModelURI:
        """``location``, or where the run, logged model or version is that it names."""
        for _ in range(_MOST_STEPS):
            uri = self._server.parsed_uri(location, where)
            if uri.scheme.lower() not in _NAMES:
                return self._server.source_uri(location, where)
            try:
                location = self._named(uri)
            except (NotFound, UsageError, Unsupported) as error:
                # Whoever asks wrote none of it, and the model that they named is there.
                kind = NotFound if isinstance(error, NotFound) else Unsupported
                hint = f"check that version in registry {printable(self.name)}"
                raise kind(f"{where} points to {printable(uri.redacted())}: {error.message}", hint=hint) from error
        raise Unsupported(f"{where} is a chain of names that does not end")

    def _named(self, uri: ModelURI) -> str:
        """The URI of the artifacts of the run, logged model or version that ``uri`` names."""
        if uri.authority:
            raise Unsupported("lading does not follow a name to another server, such as Databricks")
        if uri.scheme.lower() == _RUNS:
            run_id, _, path = uri.path.lstrip("/").partition("/")
            return self._tracking.artifacts_of(run_id, path.strip("/"))
        _, reference = parse_reference(uri, ())
        if _is_logged(reference.model, reference.version):
            what = _logged(reference.model)
            return artifact_uri(self._tracking.logged_model(reference.model, what), what)
        version, _ = self._version(reference, self._model(reference.model))
        return self._location(reference.model, str(version.get("version")))

    def _tags(self, entity: Mapping[str, Any]) -> dict[str, str]:
        return self._pairs(entity, "tags", "key", "value")

    def _aliases(self, model: Mapping[str, Any]) -> dict[str, str]:
        """The number of the version that each alias names."""
        return self._pairs(model, "aliases", "alias", "version")

    def _pairs(self, entity: Mapping[str, Any], key: str, name: str, value: str) -> dict[str, str]:
        """What ``entity`` lists under ``key``: a text by its name."""
        listed = items(entity, key, key, self._server)
        return {text(one, name, key, self._server): text(one, value, key, self._server) for one in listed}

    def _logged_model(self, model_id: str) -> Resolution:
        """A model as a run logged it, by its id; its files are what a version that was made of it has."""
        what = _logged(model_id)
        info = self._tracking.logged_model(model_id, what)
        tags = self._tags(info)
        about = {"tags": tags, **{key: info.get(key) for key in _OF_A_LOGGED_MODEL}}
        return self._resolution(artifact_uri(info, what), model_id, model_id, tags, about)

    def _resolution(
        self, location: str, model: str, version: str, tags: Mapping[str, str], about: Mapping[str, Any]
    ) -> Resolution:
        where = f"version {version} of {printable(model)!r}"
        uri, variables = self.reached(self._followed(location, where))
        return Resolution(
            uri=uri,
            registry=self.name,
            model=model,
            version=version,
            digests=recorded_digests(where, tags),
            metadata={key: value for key, value in about.items() if value},
            variables=variables,
            generated=(_meta_file(model, version),),
        )

    def reached(self, uri: ModelURI) -> tuple[ModelURI, dict[str, str]]:
        """The URI from which MLflow's own client would read, and the variables that its source needs."""
        if uri.scheme.lower() in ("http", "https") and _ARTIFACTS in uri.path:
            uri = ModelURI(ARTIFACTS_SCHEME, uri.authority, f"/{uri.path.partition(_ARTIFACTS)[2]}")
        if uri.scheme.lower() == ARTIFACTS_SCHEME:
            return uri._replace(authority=uri.authority or self._artifacts), {REGISTRY_VARIABLE: self.name}
        if uri.canonical().scheme.lower() == "s3" and self._s3_endpoint:
            return uri, {"AWS_ENDPOINT_URL": self._s3_endpoint}
        return uri, {}


def _is_absence(body: bytes) -> bool:
    """Whether an answer 404 says that a thing is not there (mlflow.protos.databricks_pb2.ErrorCode)."""
    try:
        return read_json(body)["error_code"] in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
    except (ValueError, KeyError, TypeError):
        return False


def artifacts_url(entry: RegistryEntry[MlflowSettings]) -> str:
    """The server whose proxy has the artifacts of this registry."""
    return entry.options.artifacts_url or entry.server.url


def _logged(model_id: str) -> str:
    return f"the logged model {printable(model_id)!r}"


def _is_logged(model: str, version: str) -> bool:
    """Whether this is a logged model, whose id stands for both: a version is a number, a stage or a word."""
    return model == version and model.startswith("m-")


def _meta_file(model: str, version: str) -> GeneratedFile:
    """The file that MLflow's client adds to a model, for those who load it (ModelsArtifactRepository)."""
    import yaml

    registered = not _is_logged(model, version)
    facts = {"model_name": model if registered else None, "model_version": version if registered else None}
    text = yaml.safe_dump(facts, default_flow_style=False, allow_unicode=True)
    return GeneratedFile("registered_model_meta", text.encode(), beside="MLmodel")
