"""MLflow's proxy of artifacts, and its registry."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from conformance.scene import BESIDE, FILES, MODEL, Scene, says
from fakes.fake_mlflow import BUCKET as MLFLOW_BUCKET
from fakes.fake_mlflow import PROXY, FakeMlflow
from fakes.faulty_http import ALWAYS, FaultyServer, probes, status
from fakes.registry_entries import registry_entry


@contextmanager
def faults(server: FaultyServer, store: str) -> Iterator[Scene]:
    fake = FakeMlflow(server, store=store)
    for path, data in FILES.items():
        fake.put(f"1/model/{path}", data)
    content = f"{PROXY if store == 'disk' else MLFLOW_BUCKET}/1/model/weights/big.bin"
    login = {"url": server.url, "login": {"token": "tok-en"}}
    yield Scene(
        server,
        "mlflow-artifacts:/1/model",
        lists=lambda request: request.path == PROXY,
        reads=lambda request: request.path == content and not probes(request),
        put=lambda data: fake.put("1/model/weights/big.bin", data),
        settings={
            # The server by an entry of the configuration, and by the variables that make one.
            "registries": (registry_entry("prod", "mlflow", **login),),
            "variables": {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_TRACKING_TOKEN": "tok-en"},
        },
        secret="tok-en",
        declares=store == "s3",
    )


@contextmanager
def strays(server, tmp_path, stray):
    mlflow = FakeMlflow(server)
    for path in (*MODEL, stray):
        mlflow.put(f"1/llm/{path}", MODEL.get(path, b"stray"))
    registries = (registry_entry("prod", "mlflow", url=server.url),)
    yield "mlflow-artifacts:/1/llm", {"registries": registries}, f"1/llm/{stray}"


@contextmanager
def empty(server):
    mlflow = FakeMlflow(server)
    mlflow.put(f"1/{BESIDE}/a", b"a")
    listed = {"files": [{"path": "model", "is_dir": True}, {"path": BESIDE, "is_dir": True}]}
    server.misbehave("/api/2.0/mlflow-artifacts/artifacts", says(listed, on=lambda request: request.query == "path=1"))
    registries = (registry_entry("prod", "mlflow", url=server.url),)
    yield ["mlflow-artifacts:/1/model"], {"registries": registries}


@contextmanager
def empty_model(server):
    registry = FakeMlflow(server)
    for name in ("model", BESIDE):
        registry.add(name, {"a": b"a"})
    absent = status(404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}', times=ALWAYS)
    server.misbehave("/api/2.0/mlflow/registered-models/get", absent)
    yield ["models:/model/1"], {"registries": (registry_entry("prod", "mlflow", url=server.url),)}


FAULTS = {"mlflow-disk": partial(faults, store="disk"), "mlflow-s3": partial(faults, store="s3")}
STRAY_NAMES = {"mlflow": strays}
EMPTY = {"mlflow-artifacts": empty, "mlflow-model": empty_model}
