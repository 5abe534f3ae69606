"""Which versions a registry has of a model, by each kind of registry and by the first one that has it."""

import pytest

from fakes.fake_kubeflow import FakeKubeflow
from fakes.fake_mlflow import FakeMlflow
from fakes.faulty_http import ALWAYS, ANYWHERE, FaultyServer, anything, status
from fakes.registry_entries import registry_entry
from lading.errors import Unavailable, Unsupported
from lading.model.uri import ModelURI
from lading.registries import federation
from lading.registries.registry import NoSuchModel
from lading.settings.registries import RegistryEntry


@pytest.fixture
def versions(new_session):
    def ask(*entries: RegistryEntry, name: str = "iris"):
        session = new_session(registries=entries)
        return federation.versions(ModelURI.parse(f"model-registry://{name}"), session.settings, session.http)

    return ask


@pytest.fixture
def catalog(tmp_path):
    text = "models: {iris: {versions: {'1.0': {uri: s3://b/1}, '1.1': {uri: s3://b/2, state: archived}}}}"
    (tmp_path / "catalog.yaml").write_text(text)
    return registry_entry("catalog", "catalog", path=str(tmp_path / "catalog.yaml"))


def test_a_catalog_names_what_is_written_in_it(versions, catalog):
    assert versions(catalog) == ("catalog", "iris", ("1.0", "1.1"))
    with pytest.raises(NoSuchModel):
        versions(catalog, name="lilac")


def test_kubeflow_names_all_of_them_the_newest_first(versions, server):
    kubeflow = FakeKubeflow(server)
    kubeflow.register("iris", "v1", "s3://b/1")
    kubeflow.version("1", "v2", state="ARCHIVED")
    entry = registry_entry("kf", "kubeflow", url=server.url)
    assert set(versions(entry).names) == {"v1", "v2"}
    with pytest.raises(NoSuchModel):
        versions(entry, name="lilac")


def test_mlflow_names_their_numbers(versions, server):
    mlflow = FakeMlflow(server)
    for _ in range(3):
        mlflow.add("iris", {"MLmodel": b"x"})
    entry = registry_entry("ml", "mlflow", url=server.url)
    assert versions(entry).names == ("3", "2", "1")
    with pytest.raises(NoSuchModel):
        versions(entry, name="lilac")


def test_the_first_registry_with_the_model_answers_and_one_that_is_away_is_awaited(versions, server, catalog):
    FakeKubeflow(server)
    kubeflow = registry_entry("kf", "kubeflow", url=server.url)
    assert versions(kubeflow, catalog).registry == "catalog"
    with FaultyServer() as other:
        other.misbehave(ANYWHERE, status(503, on=anything, times=ALWAYS))
        away = registry_entry("away", "kubeflow", url=other.url)
        with pytest.raises(Unavailable):
            versions(away, catalog)


def test_a_registry_that_cannot_say_is_told_so(versions, server):
    entry = registry_entry("hub", "kubeflow-catalog", url=server.url, source="hf")
    with pytest.raises(Unsupported, match="does not say which versions"):
        versions(entry)
