"""A registry that goes away: what was last delivered for a name is served, if that is allowed, and said."""

import json

import pytest

from command_line import lading, sha256
from fakes.fake_kubeflow import FakeKubeflow
from fakes.faulty_http import ALWAYS, ANYWHERE, FaultyServer, anything, status
from fakes.registry_entries import registry_entry
from fakes.trees import read_tree, whole_manifest
from lading import events as told
from lading.errors import LadingError, Unavailable, UsageError
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings
from lading.settings.variables import Variables

URI = "model-registry://iris"
MODEL = {"model.bin": b"model"}


@pytest.fixture
def registry():
    with FaultyServer() as server:
        yield FakeKubeflow(server)


@pytest.fixture
def origin(server, registry):
    registry.register("iris", "v1", server.put("/model.bin", b"model"))
    return server


def go_away(registry) -> None:
    registry.server.misbehave(ANYWHERE, status(503, on=anything, times=ALWAYS))


@pytest.fixture
def pull_by(pull, registry, tmp_path):
    """Deliver by the registry and the store; what is last known may be used."""
    entry = registry_entry("kf", "kubeflow", url=registry.url)
    defaults = {
        "registries": (entry,),
        "offline": "last-known",
        "store": StoreSettings(path=str(tmp_path / "store")),
    }
    return lambda destination, **settings: pull(settings.pop("uri", URI), destination, **{**defaults, **settings})


def test_what_was_last_delivered_comes_out_of_the_store_and_says_so(origin, registry, tmp_path, pull_by, events):
    before = pull_by(tmp_path / "a")
    go_away(registry)
    origin.asked_bytes = 0
    manifest = pull_by(tmp_path / "b")
    assert read_tree(tmp_path / "b") == MODEL
    assert origin.asked_bytes == 0
    assert whole_manifest(tmp_path / "b").last_known == manifest.last_known != ""
    assert (manifest.registry, manifest.version, manifest.pin) == (before.registry, before.version, before.pin)
    [event] = [event for event in events if isinstance(event, told.LastKnown)]
    assert (event.requested, event.known_at) == (URI, manifest.last_known)
    assert "503" in event.why


def test_by_default_it_is_refused(origin, registry, tmp_path, pull_by):
    pull_by(tmp_path / "a")
    go_away(registry)
    with pytest.raises(Unavailable):
        pull_by(tmp_path / "b", offline="refuse")
    assert not (tmp_path / "b").exists()


def test_without_a_store_the_destination_itself_is_what_is_known(origin, registry, tmp_path, pull_by, events):
    none = StoreSettings()
    pull_by(tmp_path / "a", store=none)
    text = (tmp_path / "a/.lading.manifest").read_text()
    go_away(registry)
    manifest = pull_by(tmp_path / "a", store=none)
    assert manifest.last_known
    assert (tmp_path / "a/.lading.manifest").read_text() == text
    assert [type(event) for event in events[-2:]] == [told.LastKnown, told.AlreadyDelivered]
    with pytest.raises(Unavailable) as caught:
        pull_by(tmp_path / "b", store=none)
    assert "nothing that was delivered for this name before" in caught.value.hint
    (tmp_path / "a/model.bin").write_bytes(b"cut")
    with pytest.raises(Unavailable):
        pull_by(tmp_path / "a", store=none)


def test_another_question_has_another_answer(origin, registry, tmp_path, pull_by):
    pull_by(tmp_path / "a")
    go_away(registry)
    for change in ({"uri": f"{URI}/v1"}, {"allow": ("*.bin",)}, {"verify": "strict"}, {"digest": f"sha256:{'0' * 64}"}):
        with pytest.raises(Unavailable):
            pull_by(tmp_path / "b", **change)
    assert not (tmp_path / "b").exists()


def test_the_newest_answer_is_the_one_that_is_known(origin, registry, tmp_path, pull_by):
    pull_by(tmp_path / "a")
    registry.register("iris", "v2", origin.put("/v2/model.bin", b"newer"))
    pull_by(tmp_path / "b")
    go_away(registry)
    assert pull_by(tmp_path / "c").version == "v2"
    assert read_tree(tmp_path / "c") == {"model.bin": b"newer"}
    # Also where the destination holds what was known before.
    assert pull_by(tmp_path / "a").version == "v2"
    assert read_tree(tmp_path / "a") == {"model.bin": b"newer"}


def test_the_registry_is_asked_again_when_it_is_back(origin, registry, tmp_path, pull_by):
    pull_by(tmp_path / "a")
    go_away(registry)
    assert pull_by(tmp_path / "b").last_known
    registry.server.behave()
    registry.register("iris", "v2", origin.put("/v2/model.bin", b"newer"))
    manifest = pull_by(tmp_path / "b")
    assert (manifest.version, manifest.last_known) == ("v2", "")


def test_a_registry_that_refuses_has_answered(origin, registry, tmp_path, pull_by):
    pull_by(tmp_path / "a")
    registry.server.misbehave(ANYWHERE, status(404, on=anything, times=ALWAYS))
    with pytest.raises(LadingError) as caught:
        pull_by(tmp_path / "b")
    assert not isinstance(caught.value, Unavailable)
    assert not (tmp_path / "b").exists()


def test_what_was_evicted_is_not_known_any_more(origin, registry, tmp_path, pull_by):
    from lading.store.store import Store

    pull_by(tmp_path / "a")
    store = Store(StoreSettings(path=str(tmp_path / "store")))
    store.remove(store.models()[0].key)
    go_away(registry)
    with pytest.raises(Unavailable):
        pull_by(tmp_path / "b")


def test_the_command_says_it_in_the_log_and_where_kubernetes_looks(origin, registry, tmp_path):
    log = tmp_path / "termination-log"
    log.touch()
    environ = {
        "MODEL_REGISTRY_BASE_URL": registry.url,
        "LADING_STORE": str(tmp_path / "store"),
        "LADING_OFFLINE": "last-known",
        "LADING_TERMINATION_LOG": str(log),
    }
    assert lading("init", URI, tmp_path / "a", environ=environ).code == 0
    assert "last_known" not in json.loads(log.read_text())
    go_away(registry)
    outcome = lading("init", URI, tmp_path / "b", environ=environ)
    assert outcome.code == 0, outcome.err
    assert f"warning: {URI} cannot be resolved now" in outcome.err
    assert json.loads(log.read_text())["last_known"]
    assert read_tree(tmp_path / "b") == MODEL


def test_the_policy_is_one_of_two_words():
    assert Settings.load({}).offline == "refuse"
    assert Settings.load({"LADING_OFFLINE": "last-known"}).offline == "last-known"
    with pytest.raises(UsageError, match="LADING_OFFLINE"):
        Settings.load({"LADING_OFFLINE": "yes"})


@pytest.mark.parametrize("kept", ["store", "destination"])
def test_what_was_not_verified_by_a_digest_of_today_is_not_served(origin, registry, tmp_path, pull_by, kept):
    options = {} if kept == "store" else {"store": StoreSettings()}
    uri = pull_by(tmp_path / "a", **options).resolved
    go_away(registry)

    def stored(digest: str) -> Variables:
        return Settings.load({"STORAGE_CONFIG": json.dumps({"digests": {uri: digest}})}).variables

    with pytest.raises(Unavailable):
        pull_by(tmp_path / "a", variables=stored(sha256(b"another")), **options)
    assert read_tree(tmp_path / "a") == MODEL
