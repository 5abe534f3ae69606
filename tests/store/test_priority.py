"""A warm-up of the store gives way while a pod waits for another model, and not for ever."""

import fcntl
from contextlib import ExitStack

import pytest

from fakes import nfs_client
from fakes.faulty_http import Resource, reads
from fakes.trees import content, read_tree
from lading.deliver import deliver_to_store
from lading.events import GivingWay
from lading.retry import Run
from lading.settings.store import StoreSettings
from lading.store.store import Store

WEIGHTS = content(200_000)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(StoreSettings(path=str(tmp_path / "store"), high="100%", low="100%"))


@pytest.fixture
def warm_up(server, store, new_session):
    """Bring a model to the store, which nobody waits for."""
    uri = server.put("/warm.bin", WEIGHTS)

    def bring(listener=lambda _: None, store=store):
        return deliver_to_store(uri, "agent/warm", new_session(store=store.settings, listener=listener))

    return bring


@pytest.fixture
def run(new_session) -> Run:
    return new_session().run


@pytest.fixture
def waiting(store, run):
    """A pod waits; closing it ends that."""
    with ExitStack() as pod:
        pod.enter_context(store.priority.taken(run))
        yield pod


def test_a_warm_up_waits_for_a_pod_and_goes_on_after_it(server, store, warm_up, waiting, events):
    def end(event) -> None:
        if isinstance(event, GivingWay):
            assert server.asked_bytes == 0
            waiting.close()

    warm_up(end)
    assert [event.uri for event in events if isinstance(event, GivingWay)] == [server.url + "/warm.bin"]
    (model,) = store.models()
    assert read_tree(model.folder) == {"warm.bin": WEIGHTS}


def test_on_nfs_a_warm_up_waits_for_a_pod_too(store, warm_up, waiting, events, monkeypatch):
    nfs_client.behave(monkeypatch)
    warm_up(lambda event: waiting.close() if isinstance(event, GivingWay) else None)
    assert [event for event in events if isinstance(event, GivingWay)]


def test_whoever_holds_it_for_ever_delays_a_warm_up_by_ten_minutes(store, warm_up, waiting, clock):
    warm_up()
    assert len(store.models()) == 1
    assert 600 <= clock.seconds < 601


@pytest.mark.parametrize("looks", [1, 4])
def test_other_warm_ups_that_look_at_the_same_moment_are_no_pod(store, warm_up, events, clock, monkeypatch, looks):
    with (store.root / "first").open("r+") as others:

        def look_once_less(stop, seconds) -> bool:
            clock.waits.append(seconds)
            if len(clock.waits) == looks:
                fcntl.flock(others, fcntl.LOCK_UN)
            return False

        monkeypatch.setattr(clock, "wait", look_once_less)
        fcntl.flock(others, fcntl.LOCK_EX)
        warm_up()
    assert len(clock.waits) == looks
    assert not any(isinstance(event, GivingWay) for event in events)
    assert len(store.models()) == 1


def test_a_model_that_somebody_needs_by_now_does_not_give_way(store, warm_up, run, events):
    warm_up()
    (key,) = store.keys()
    store.references.release("agent/warm")
    store.remove(key)
    with store.priority.taken(run), store.lease(key):
        warm_up()
    assert not any(isinstance(event, GivingWay) for event in events)
    assert store.keys() == [key]


@pytest.mark.parametrize("writable", [True, False], ids=["by the store", "past a read-only one"])
def test_a_pod_has_priority_while_it_fetches(server, store, run, pull, tmp_path, monkeypatch, writable):
    if not writable:
        monkeypatch.setattr("os.access", lambda path, mode: path != store.root)
    taken = []

    def answer(request):
        # Before the answer: once its last byte is there, the pod may have all it needs and let go.
        if reads(request):
            taken.append(store.priority.is_taken(run))
        return Resource(WEIGHTS).answer(request)

    server.routes["/pod.bin"] = answer
    pull(server.url + "/pod.bin", tmp_path / "model", store=store.settings)
    assert taken
    assert all(taken)
    assert not store.priority.is_taken(run)


def test_without_locks_nobody_gives_way(store, warm_up, waiting, events):
    warm_up(store=Store(store.settings._replace(locks=False)))
    assert not any(isinstance(event, GivingWay) for event in events)
