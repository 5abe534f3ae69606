"""The versions of a cluster's rollouts, kept in the store of a node."""

import pytest

from agent.test_loop import kept, stored, world  # noqa: F401 - fixtures
from fakes.fake_api_server import FakeApiServer
from lading.agent.prefetch import Prefetching
from lading.kubernetes.api_server import ApiServer
from lading.rollout.in_status import status_of
from lading.rollout.state import State, Version
from lading.secret import Secret
from lading.settings.agent import Delivery, Prefetch
from lading.settings.kubernetes import Access
from lading.settings.limits import Network

COLLECTION = "apis/lading.dev/v1alpha1/modelrollouts"
V1, V2 = (Version(f"s3://models/iris/{name}?pin=sha256:{name[-1] * 64}", name) for name in ("v1", "v2"))
HELD = status_of(State("s3://models/iris", V1, V2, phase="Held"), (), 1)


@pytest.fixture
def cluster(server):
    return FakeApiServer(server)


@pytest.fixture
def prefetching(cluster, new_session):
    """Follows rollouts; each ``run`` brings what there is now, and ends."""
    session = new_session()
    api = ApiServer(Access(cluster.url, "lading", Network(), token=Secret("t0ken")), session.http)
    changed = []

    class Once(Prefetching):
        def run(self) -> None:
            stop = cluster.server.before(session.run.stop.set, on=lambda one: "watch=1" in one.query)
            cluster.server.misbehave(f"/{COLLECTION}", stop)
            super().run()
            session.run.stop.clear()

    prefetching = Once(Prefetch(labels="pool=gpu"), api, changed=lambda: changed.append(1), failed=changed.append)
    prefetching.changed = changed
    return prefetching


def test_the_present_version_and_the_candidate_of_each_rollout_are_deliveries(cluster, prefetching):
    cluster.put(COLLECTION, "iris", status=HELD)
    cluster.put(COLLECTION, "new")
    assert prefetching.deliveries() is None
    prefetching.run()
    assert [delivery.uri for delivery in prefetching.deliveries()] == [V1.pin, V2.pin]
    assert prefetching.changed == [1, 1]
    assert all("labelSelector=pool%3Dgpu" in request.query for request in cluster.server.requests)


def test_the_same_version_keeps_its_name_and_one_that_nobody_wants_goes(cluster, prefetching):
    cluster.put(COLLECTION, "iris", status=HELD)
    prefetching.run()
    (_, before) = prefetching.deliveries()
    cluster.put(COLLECTION, "iris", status=status_of(State("s3://models/iris", V2, phase="Current"), (), 1))
    prefetching.run()
    assert prefetching.deliveries() == (before,)


def test_no_more_than_a_hundred_are_kept(cluster, prefetching):
    for number in range(120):
        version = Version(f"s3://models/{number}?pin=sha256:{'0' * 64}")
        cluster.put(COLLECTION, f"iris-{number}", status=status_of(State("", version, phase="Current"), (), 1))
    prefetching.run()
    assert len(prefetching.deliveries()) == 100


def wanted(world, *names: str) -> tuple[Delivery, ...]:  # noqa: F811 - the fixture's value
    return tuple(Delivery(f"rollout-{name}", world.delivery(name)["uri"]) for name in names)


def test_what_rollouts_want_is_kept_in_the_store_until_they_no_longer_do(world, stored):  # noqa: F811
    store = stored("one")
    now = wanted(world, "two", "three")
    agent = world.agent()
    agent.follow_rollouts(lambda: now)
    world.cycle(agent)
    assert kept(store) == {"agent/one": b"one", "agent/rollout-two": b"two", "agent/rollout-three": b"three"}
    now = wanted(world, "three")
    world.cycle(agent)
    assert kept(store).keys() == {"agent/one", "agent/rollout-three"}


def test_nothing_is_released_before_the_rollouts_are_known(world, stored):  # noqa: F811
    store = stored("one")
    agent = world.agent()
    agent.follow_rollouts(lambda: wanted(world, "two"))
    world.cycle(agent)
    # The next process cannot ask the API server yet.
    agent = world.agent()
    agent.follow_rollouts(lambda: None)
    world.pass_s(agent, 1200)
    assert kept(store).keys() == {"agent/one", "agent/rollout-two"}


def test_the_agent_is_ready_without_what_rollouts_want(world, stored):  # noqa: F811
    stored("one")
    agent = world.agent()
    agent.follow_rollouts(lambda: (Delivery("rollout-none", "/nowhere/at/all"),))
    world.cycle(agent)
    assert agent.status.is_started
    assert agent.status.is_ready
    assert {state.name: state.ready for state in agent.status.states()} == {"one": True, "rollout-none": False}
