"""One writer: a Lease is taken, renewed, let go, and taken over when it has expired."""

import pytest

from fakes.faulty_http import ALWAYS, ANYWHERE, anything, status
from lading.errors import NotAllowed
from lading.kubernetes.leader import Leader, Terms

COLLECTION = "apis/coordination.k8s.io/v1/leases"
TERMS = Terms(duration_s=60, renew_s=15, give_up_s=45)


@pytest.fixture
def leader(api):
    return lambda identity: Leader(api, "lading", "team-a", identity, TERMS)


def lease(cluster) -> dict:
    return cluster.objects[f"/{COLLECTION}/team-a/lading"]["spec"]


def test_the_first_one_has_it_and_the_second_waits_until_it_is_let_go(cluster, leader):
    first, second = leader("one"), leader("two")
    assert first.ask()
    assert not second.ask()
    assert (first.holds(), second.holds()) == (True, False)
    first.release()
    assert not first.holds()
    assert second.ask()
    assert (lease(cluster)["holderIdentity"], lease(cluster)["leaseTransitions"]) == ("two", 1)


def test_it_is_held_for_as_long_as_it_is_renewed(cluster, leader, clock):
    first, second = leader("one"), leader("two")
    for _ in range(10):
        assert first.ask()
        acquired = lease(cluster)["acquireTime"]
        assert not second.ask()
        clock.seconds += TERMS.renew_s
    assert lease(cluster)["acquireTime"] == acquired
    assert lease(cluster)["leaseTransitions"] == 0


def test_the_lease_of_one_that_died_is_taken_when_it_has_expired_and_not_before(leader, clock):
    first, second = leader("one"), leader("two")
    first.ask()
    second.ask()
    clock.seconds += 59
    assert not second.ask()
    clock.seconds += 1
    assert second.ask()
    assert not first.ask()


def test_a_holder_that_cannot_renew_stops_before_another_may_begin(server, leader, clock):
    first = leader("one")
    first.ask()
    server.misbehave(ANYWHERE, status(503, times=ALWAYS, on=anything))
    clock.seconds = 30
    assert first.ask()
    clock.seconds = 45
    assert not first.ask()
    assert not first.holds()


def test_a_holder_outlives_a_refusal_and_ends_with_its_time_if_that_lasts(server, leader, clock):
    server.misbehave(ANYWHERE, status(403, times=1, on=anything))
    first = leader("one")
    with pytest.raises(NotAllowed):
        first.ask()
    first.ask()
    server.misbehave(ANYWHERE, status(403, times=2, on=anything))
    clock.seconds = 15
    assert first.ask()
    clock.seconds = 45
    with pytest.raises(NotAllowed):
        first.ask()
    assert not first.holds()
    assert first.ask()


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_of_two_that_take_it_at_once_one_gets_it(cluster, server, leader, method):
    if method == "PUT":
        cluster.put(COLLECTION, "lading", spec={"holderIdentity": ""})

    def take_it() -> None:
        cluster.put(COLLECTION, "lading", spec={"holderIdentity": "one", "leaseDurationSeconds": 60})

    # Between the second one's look and its write.
    server.misbehave(ANYWHERE, server.before(take_it, on=lambda request: request.method == method))
    assert not leader("two").ask()
    assert lease(cluster)["holderIdentity"] == "one"


def test_whoever_does_not_hold_it_cannot_let_it_go(cluster, leader):
    first, second = leader("one"), leader("two")
    first.ask()
    second.release()
    assert lease(cluster)["holderIdentity"] == "one"
