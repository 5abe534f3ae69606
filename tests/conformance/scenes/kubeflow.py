"""Kubeflow's Model Registry."""

from contextlib import contextmanager

from conformance.scene import BESIDE, says
from fakes.fake_kubeflow import API, FakeKubeflow
from fakes.faulty_http import ALWAYS, status
from fakes.registry_entries import registry_entry


@contextmanager
def empty(server):
    registry = FakeKubeflow(server)
    model = registry.model("iris")
    for name in ("model", BESIDE):
        registry.version(model, name)
    # Its search and its list do not agree.
    lists = f"{API}/registered_models/{model}/versions"
    server.misbehave(lists, says({"items": [], "size": 0, "pageSize": 500, "nextPageToken": ""}))
    server.misbehave(f"{API}/model_version", status(404, times=ALWAYS))
    yield ["model-registry://iris/model"], {"registries": (registry_entry("prod", "kubeflow", url=server.url),)}


EMPTY = {"kubeflow": empty}
