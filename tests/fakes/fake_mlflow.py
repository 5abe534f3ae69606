"""As much of an MLflow server as lading asks for, on the faulty server: the registry and the proxy of artifacts.

Its answers are those of MLflow 3.17; ``real/test_mlflow.py`` compares their shapes with the real server's.
"""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from fakes.faulty_http import Answer, FaultyServer, Request, Resource

API = "/api/2.0/mlflow"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
PRESIGNED = "/api/2.0/mlflow-artifacts/presigned"
SERVER_INFO = "/api/3.0/mlflow/server-info"
BUCKET = "/bucket"
_TIME = 1795329652530
_RUN = "150eda2c4bed451b8e96932d35e4477b"
_EXPERIMENT = "1"
WRONG_HOST = b"Invalid Host header - possible DNS rebinding attack detected"


@dataclass
class Version:
    """A version of a model; its files are below ``location`` in the proxy, unless that leads elsewhere."""

    model: str
    number: int
    location: str
    stage: str = "None"
    status: str = "READY"
    status_message: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    run_id: str = _RUN

    def document(self) -> dict[str, object]:
        about = {
            "name": self.model,
            "version": str(self.number),
            "creation_timestamp": _TIME + self.number,
            "last_updated_timestamp": _TIME + self.number,
            "current_stage": self.stage,
            "description": "",
            "source": f"models:/m-{self.number:032x}",
            "run_id": self.run_id,
            "status": self.status,
            "status_message": self.status_message,
            "tags": _pairs(self.tags),
            "run_link": "",
        }
        return {name: value for name, value in about.items() if value or name in ("description", "run_link")}


class FakeMlflow:
    """One server.

    ``store`` says where its files are: on its own "disk", in "s3", or "elsewhere", from where it
    fetches them itself; "elsewhere-flask" is the same behind Flask alone, which makes a new ETag each time.
    ``page_versions`` bounds the pages of a search.  ``refuse`` looks at each request and gives an answer, or nothing.
    """

    def __init__(self, server: FaultyServer, *, store: str = "disk", prefix: str = "") -> None:
        self.server = server
        self.store = store
        self.url = server.url + prefix
        self.models: dict[str, dict[int, Version]] = {}
        self.aliases: dict[str, dict[str, int]] = {}
        self.model_tags: dict[str, dict[str, str]] = {}
        self.logged: dict[str, tuple[str, str]] = {}
        # Which run made a logged model, and under which name, if not _RUN as "model".
        self.logged_by: dict[str, tuple[str, str]] = {}
        # Where the artifacts of a run are.
        self.runs: dict[str, str] = {}
        # Before version 3, a server knows no logged models.
        self.logs_models = True
        self.files: dict[str, Resource] = {}
        self.page_versions = 1000
        self.refuse: Callable[[Request], Answer | None] = lambda request: None
        self.signatures = count(1)
        self.ended: set[str] = set()
        self._writes = count(1)
        for path, answer in (
            (f"{API}/", self._registry),
            (PROXY, self._proxy),
            (PRESIGNED, self._presign),
            (SERVER_INFO, self._server_info),
            (BUCKET, self._bucket),
        ):
            server.routes[prefix + path] = self._refusing(prefix, answer)

    def add(self, model: str, files: dict[str, bytes], *, location: str = "", **about: Any) -> Version:
        """A new version of ``model`` with these files."""
        versions = self.models.setdefault(model, {})
        number = max(versions, default=0) + 1
        path = f"1/models/m-{len(self.files):08x}/artifacts"
        for name, content in files.items():
            self.put(f"{path}/{name}", content)
        versions[number] = Version(model, number, location or f"mlflow-artifacts:/{path}", **about)
        return versions[number]

    def put(self, path: str, content: bytes | memoryview) -> None:
        """A file of the artifacts; a new one of that name has a new ETag."""
        if self.store == "s3":
            etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        else:
            etag = hashlib.md5(f"{next(self._writes)}-{len(content)}".encode(), usedforsecurity=False).hexdigest()
        self.files[path] = Resource(content, f'"{etag}"', conditions=self.store == "s3")

    def path(self, version: Version) -> str:
        return version.location.removeprefix("mlflow-artifacts:/")

    def _refusing(self, prefix: str, answer: Callable[[Request, str], Answer]) -> Callable[[Request], Answer]:
        def route(request: Request) -> Answer:
            return self.refuse(request) or answer(request, request.path.removeprefix(prefix))

        return route

    # ---- the registry ----

    def _registry(self, request: Request, path: str) -> Answer:
        query = {name: values[0] for name, values in parse_qs(request.query, keep_blank_values=True).items()}
        call = path.removeprefix(f"{API}/")
        if call == "logged-models/search" and self.logs_models:
            return self._search_logged(json.loads(request.body))
        if call.startswith("logged-models/") and request.method == "GET":
            return self._logged_model(unquote(call.removeprefix("logged-models/")))
        answers: dict[str, Callable[[dict[str, str]], Answer]] = {
            "runs/get": self._run,
            "artifacts/list": self._run_artifacts,
            "registered-models/get": self._model,
            "registered-models/search": self._models,
            "model-versions/get": lambda query: _json({"model_version": self._document(query)}),
            "model-versions/get-download-uri": lambda query: _json({"artifact_uri": self._version(query).location}),
            "model-versions/search": self._search,
            "model-versions/set-tag": lambda query: self._set_tag(json.loads(request.body)),
        }
        if call not in answers:
            return _page(404)
        try:
            return answers[call](query)
        except LookupError as error:
            return _error(404, "RESOURCE_DOES_NOT_EXIST", str(error.args[0]))
        except ValueError as error:
            return _error(400, "INVALID_PARAMETER_VALUE", str(error))

    def _model(self, query: dict[str, str]) -> Answer:
        name = query["name"]
        if name not in self.models:
            raise LookupError(f"Registered Model with name={name} not found")
        return _json({"registered_model": self._model_document(name)})

    def _model_document(self, name: str) -> dict[str, object]:
        newest = {version.stage: version.document() for version in self.models[name].values()}
        about = {
            "name": name,
            "creation_timestamp": _TIME,
            "last_updated_timestamp": _TIME,
            "description": f"about {name}",
            "latest_versions": list(newest.values()),
            "tags": _pairs(self.model_tags.get(name, {})),
            "aliases": [{"alias": a, "version": str(v)} for a, v in self.aliases.get(name, {}).items()],
        }
        return {key: value for key, value in about.items() if value}

    def _models(self, query: dict[str, str]) -> Answer:
        names = sorted(self.models)[: int(query["max_results"])]
        return _json({"registered_models": [self._model_document(name) for name in names]} if names else {})

    def _version(self, query: dict[str, str]) -> Version:
        name, number = query["name"], query["version"]
        if not number.isdigit():
            raise ValueError(f"Parameter 'version' must be an integer, got '{number}'.")
        if int(number) not in self.models.get(name, {}):
            raise LookupError(f"Model Version (name={name}, version={number}) not found")
        return self.models[name][int(number)]

    def _document(self, query: dict[str, str]) -> dict[str, object]:
        version = self._version(query)
        aliases = [alias for alias, number in self.aliases.get(version.model, {}).items() if number == version.number]
        return version.document() | ({"aliases": aliases} if aliases else {})

    def _search(self, query: dict[str, str]) -> Answer:
        condition, mark = query["filter"].removeprefix("name="), query["filter"][-1]
        if not (condition.startswith(mark) and mark in "'\"") or query["order_by"] != "version_number DESC":
            raise ValueError("Invalid filter string")
        found = sorted(self.models.get(condition[1:-1], {}).values(), key=lambda version: -version.number)
        start = json.loads(b64decode(query["page_token"]))["offset"] if query.get("page_token") else 0
        end = start + min(int(query["max_results"]), self.page_versions)
        token = b64encode(json.dumps({"offset": end}).encode()).decode() if end < len(found) else ""
        page = {"model_versions": [version.document() for version in found[start:end]], "next_page_token": token}
        return _json({key: value for key, value in page.items() if value})

    def _set_tag(self, document: dict[str, str]) -> Answer:
        self._version(document).tags[document["key"]] = document["value"]
        return _json({})

    def _logged_model(self, model_id: str) -> Answer:
        if model_id not in self.logged:
            return _error(404, "RESOURCE_DOES_NOT_EXIST", f"Logged model with ID '{model_id}' not found.")
        return _json({"model": self._logged_document(model_id)})

    def _logged_document(self, model_id: str) -> dict[str, object]:
        location, status = self.logged[model_id]
        run_id, name = self.logged_by.get(model_id, (_RUN, "model"))
        info = {
            "model_id": model_id,
            "experiment_id": _EXPERIMENT,
            "name": name,
            "creation_timestamp_ms": _TIME,
            "last_updated_timestamp_ms": _TIME,
            "artifact_uri": location,
            "status": status,
            "model_type": "",
            "source_run_id": run_id,
            "tags": _pairs({"mlflow.user": "somebody"}),
        }
        return {"info": info, "data": {}}

    def _search_logged(self, asked: dict[str, Any]) -> Answer:
        """Of all runs of the experiments, the newest first."""
        ids = [
            model_id
            for model_id in reversed(self.logged)
            if f"name = '{self.logged_by.get(model_id, (_RUN, 'model'))[1]}'" == asked["filter"]
            and _EXPERIMENT in asked["experiment_ids"]
        ]
        start = int(asked.get("page_token") or 0)
        end = start + self.page_versions
        page = {
            "models": [self._logged_document(model_id) for model_id in ids[start:end]],
            "next_page_token": str(end) if end < len(ids) else "",
        }
        return _json({key: value for key, value in page.items() if value})

    def _run(self, query: dict[str, str]) -> Answer:
        run_id = query["run_id"]
        if not run_id:
            raise ValueError("Missing value for required parameter 'run_id'.")
        if run_id not in self.runs:
            raise LookupError(f"Run with id={run_id} not found")
        info = {
            "run_id": run_id,
            "run_uuid": run_id,
            "run_name": "angry-moth-1",
            "experiment_id": _EXPERIMENT,
            "user_id": "somebody",
            "status": "FINISHED",
            "start_time": _TIME,
            "end_time": _TIME,
            "artifact_uri": self.runs[run_id],
            "lifecycle_stage": "active",
        }
        run = {"info": info, "data": {"tags": _pairs({"mlflow.user": "somebody"})}, "inputs": {}}
        made = [{"model_id": model_id, "step": 0} for model_id, (by, _) in self.logged_by.items() if by == run_id]
        return _json({"run": run | ({"outputs": {"model_outputs": made}} if made else {})})

    def _run_artifacts(self, query: dict[str, str]) -> Answer:
        """What is directly below a path of the run, with names relative to the run."""
        root = self.runs[query["run_id"]]
        folder = f"{root.removeprefix('mlflow-artifacts:/')}/{query['path']}"
        found = [{**item, "path": f"{query['path']}/{item['path']}"} for item in self._items(folder)]
        return _json({"root_uri": root} | ({"files": found} if found else {}))

    # ---- the artifacts ----

    def _proxy(self, request: Request, path: str) -> Answer:
        name = unquote(path.removeprefix(PROXY)).removeprefix("/")
        if not name:
            return self._listing(parse_qs(request.query).get("path", [""])[0])
        # The server decodes once more than it should.
        found = self.files.get(unquote(name))
        if found is None:
            return _error(404, "RESOURCE_DOES_NOT_EXIST", f"No such artifact: {name!r}")
        if self.store == "disk":
            answer = found.answer(request)
            if request.method == "HEAD":
                return answer.with_headers(ETag=f'"{_TIME}-{len(found.content)}-1941444536"')
            return answer
        if self.store == "elsewhere-flask":
            return Resource(found.content, f'"{_TIME}.{next(self._writes)}-1"', conditions=False).answer(request)
        return Answer(200, {"Content-Type": "application/octet-stream"}, found.content, framing="chunked")

    def _listing(self, folder: str) -> Answer:
        items = self._items(folder)
        return _json({"files": items} if items else {})

    def _items(self, folder: str) -> list[dict[str, object]]:
        start = f"{folder}/" if folder else ""
        items: dict[str, dict[str, object]] = {}
        for path, resource in self.files.items():
            if path.startswith(start):
                name, slash, _ = path[len(start) :].partition("/")
                size = len(resource.content)
                # protobuf: what is zero is left out.
                told = {} if slash or not size else {"file_size": size}
                items[name] = {"path": name, "is_dir": bool(slash), **told}
        return [items[name] for name in sorted(items)]

    def _server_info(self, request: Request, path: str) -> Answer:
        return _json(
            {
                "store_type": "SqlStore",
                "workspaces_enabled": False,
                "trace_archival_enabled": False,
                "multipart_uploads_enabled": self.store == "s3",
                "multipart_downloads_enabled": self.store == "s3",
                "presigned_upload_run_id_supported": True,
                "presigned_upload_model_id_supported": True,
                "features_enabled": {"gateway": True},
            }
        )

    def _presign(self, request: Request, path: str) -> Answer:
        if self.store != "s3":
            message = "Multipart download is not supported for the current artifact repository"
            return _json({"error_code": "NOT_IMPLEMENTED", "message": message}, 501)
        name = unquote(path.removeprefix(f"{PRESIGNED}/"))
        url = f"{self.server.url}{BUCKET}/{quote(name, safe='/~')}?X-Amz-Signature=se-cret-{next(self.signatures)}"
        return _json({"url": url, "headers": {}, "file_size": len(self.files[name].content)})

    def _bucket(self, request: Request, path: str) -> Answer:
        signature = request.query.partition("=")[2]
        if not signature.startswith("se-cret-") or signature in self.ended or "authorization" in request.headers:
            return Answer(403, {}, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
        return self.files[unquote(request.path.partition(f"{BUCKET}/")[2])].answer(request)


def _pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _json(document: object, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(document, indent=2).encode())


def _error(status: int, code: str, message: str) -> Answer:
    about = {"error_code": code, "message": message, "sqlstate": "KAM00", "error_class": code}
    return _json(about, status)


def _page(status: int) -> Answer:
    return Answer(status, {"Content-Type": "text/html; charset=utf-8"}, b"<!doctype html>\n<title>Not Found</title>")
