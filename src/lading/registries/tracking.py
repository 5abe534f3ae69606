"""MLflow's tracking server: where the files are of what a run logged.

https://mlflow.org/docs/latest/rest-api.html.  A run has artifacts; since MLflow 3, ``log_model`` makes a logged model
instead, which is elsewhere and names its run.  ``runs:/RUN/PATH`` stands for both, as for MLflow's own client
(``RunsArtifactRepository``): the logged model whose name is the path's first part, and the run's artifacts.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from lading.errors import IntegrityError, NotFound, Unsupported
from lading.model.uri import ModelURI
from lading.network.paging import CONTRADICTS, Page, PagedList
from lading.registries.registry import NoSuchModel
from lading.registries.server import RegistryServer
from lading.text.printable import printable

API = "/api/2.0/mlflow"
_READY = ("READY", "LOGGED_MODEL_READY")
_MOST_MODELS = 10_000
_LOGGED_ID = re.compile(r"[\w-]{1,100}", re.ASCII)
# What the name of a logged model may be (mlflow.utils.validation): it goes into a filter, between quotes.
_LOGGED_NAME = re.compile(r"""[^/:.%"']+""")


class Tracking:
    """The runs and the logged models that a server knows."""

    def __init__(self, server: RegistryServer) -> None:
        self._server = server

    def logged_model(self, model_id: str, what: str) -> dict[str, Any]:
        """The facts of a logged model, which must be ready."""
        try:
            if not _LOGGED_ID.fullmatch(model_id):
                # Its server's router takes an encoded slash for one.
                raise NotFound(model_id)
            answer = self._server.get(f"{API}/logged-models/{model_id}", what=what)
        except NotFound as error:
            raise NoSuchModel(f"registry {printable(self._server.name)} does not have {what}") from error
        model = self._part(self._part(answer, "model", what), "info", what)
        check_identity(model, "model_id", model_id, what, self._server)
        if why := unready(model, what, self._server):
            raise NotFound(f"{what} {why}", hint="ask again when it is ready")
        return model

    def artifacts_of(self, run_id: str, path: str) -> str:
        """The URI of the artifacts at ``path`` of a run."""
        what = f"the run {printable(run_id)!r}"
        answer = self._server.get(f"{API}/runs/get", {"run_id": run_id}, what=what)
        run = self._part(self._part(answer, "run", what), "info", what)
        check_identity(run, "run_id", run_id, what, self._server)
        name, _, rest = path.partition("/")
        model_id = self._logged_by(run_id, str(run.get("experiment_id")), name)
        if not model_id:
            return _below(artifact_uri(run, what), path)
        if self._has_artifacts(run_id, path):
            raise Unsupported(
                f"{what} has both artifacts and the logged model {printable(model_id)} at {printable(path)!r}",
                hint=f"register one of them, such as models:/{printable(model_id)}: lading does not join them",
            )
        model = self.logged_model(model_id, f"the logged model {printable(model_id)!r}")
        return _below(artifact_uri(model, what), rest)

    def _logged_by(self, run_id: str, experiment_id: str, name: str) -> str:
        """The id of the first logged model of this name that the run has, or ""."""
        if not _LOGGED_NAME.fullmatch(name):
            return ""
        models = self._logged_models({"experiment_ids": [experiment_id], "filter": f"name = '{name}'"})
        return next((str(model["model_id"]) for model in models if model.get("source_run_id") == run_id), "")

    def _logged_models(self, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        what = "the logged models"

        def page(token: str) -> Page[dict[str, Any]]:
            asked = query | ({"page_token": token} if token else {})
            try:
                answer = self._server.call("POST", f"{API}/logged-models/search", document=asked, what=what)
            except (NotFound, Unsupported):
                if token:
                    raise
                # A server before version 3 has none.
                return Page([])
            models = [self._part(model, "info", what) for model in items(answer, "models", what, self._server)]
            following = answer.get("next_page_token", "")
            if not isinstance(following, str):
                raise wrong_form(what, self._server)
            return Page(models, following)

        listing = PagedList[dict[str, Any]](what, _MOST_MODELS, lambda model: str(model.get("model_id", "")))
        yield from chain.from_iterable(listing.pages(page))

    def _has_artifacts(self, run_id: str, path: str) -> bool:
        what = f"the artifacts of the run {printable(run_id)!r}"
        answer = self._server.get(f"{API}/artifacts/list", {"run_id": run_id, "path": path}, what=what)
        return bool(items(answer, "files", what, self._server))

    def _part(self, answer: object, key: str, what: str) -> dict[str, Any]:
        return part(answer, key, what, self._server)


def part(answer: object, key: str, what: str, server: RegistryServer) -> dict[str, Any]:
    """The object that an answer holds under ``key``."""
    found = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        raise wrong_form(what, server)
    return found


def items(answer: object, key: str, what: str, server: RegistryServer) -> list[dict[str, Any]]:
    """The objects of a list, which MLflow leaves out when it is empty."""
    found = answer.get(key, []) if isinstance(answer, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise wrong_form(what, server)
    return found


def text(entity: Mapping[str, Any], key: str, what: str, server: RegistryServer) -> str:
    """The text that ``key`` has, "" if it has none: another value must not count as none."""
    value = entity.get(key)
    if not isinstance(value, str | None):
        raise wrong_form(what, server)
    return value or ""


def check_identity(entity: Mapping[str, Any], key: str, asked: str, what: str, server: RegistryServer) -> None:
    """Raise ``IntegrityError`` for an answer about something else than was asked for."""
    answered = text(entity, key, what, server)
    if answered != asked:
        raise IntegrityError(
            f"{what}: registry {printable(server.name)} answers with {key.replace('_', ' ')} {printable(answered)[:100]!r}",
            hint=CONTRADICTS,
        )


def wrong_form(what: str, server: RegistryServer) -> Unsupported:
    """The error of an answer that is not MLflow's."""
    return Unsupported(
        f"{what} in registry {printable(server.name)}: the answer does not have MLflow's form",
        hint="check the url of this registry",
    )


def artifact_uri(answer: object, what: str) -> str:
    """The URI of the artifacts in an answer."""
    text = answer.get("artifact_uri") if isinstance(answer, dict) else None
    if not isinstance(text, str) or not text:
        raise NotFound(f"{what} has no artifacts")
    return text


def unready(entity: Mapping[str, Any], what: str, server: RegistryServer) -> str:
    """Why a version or a logged model cannot be delivered, or ""."""
    status, message = text(entity, "status", what, server) or "READY", entity.get("status_message")
    if status in _READY:
        return ""
    reason = f": {printable(str(message))[:200]}" if message else ""
    return f"is not ready ({printable(status)[:100]}{reason})"


def _below(uri: str, path: str) -> str:
    """``path`` below ``uri``, before its query (mlflow.utils.uri.append_to_uri_path)."""
    root = ModelURI.parse(uri)
    if root.scheme.lower() == "runs":
        # As for MLflow's client: whoever followed it might never come to an end.
        raise Unsupported(f"a run points to another run for its artifacts, {printable(root.redacted())}")
    return str(root._replace(path=f"{root.path.rstrip('/')}/{path}")) if path else uri
