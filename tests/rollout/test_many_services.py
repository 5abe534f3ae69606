"""Many services that follow one name: how many of them change at a time, and how many a bad version reaches."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading.rollout.policy import Policy
from rollout.simulated import World, version

V2, V3 = version("v2"), version("v3")


class Fleet:
    """Services with one policy, and the most that were changing to one version at a time, or had failed with it."""

    def __init__(self, size: int, most: int, **policy) -> None:
        self.worlds = [World(Policy(hold_s=0, max_concurrent=most, **policy)) for _ in range(size)]
        self.most_beside = 0
        self.run(60)

    def name(self, found) -> None:
        for world in self.worlds:
            world.names = found

    def run(self, seconds: float) -> None:
        """Cycles every ten seconds, one service after the other."""
        for _ in range(int(seconds // 10)):
            for world in self.worlds:
                world.beside = self.trying(world.names, world)
                world.cycle()
            for world in self.worlds:
                world.now_s += 10
            self.most_beside = max(self.most_beside, self.trying(self.worlds[0].names))

    def trying(self, found, but: World | None = None) -> int:
        others = [world for world in self.worlds if found and world is not but]
        return sum(world.state.tries(found.pin, world.now_s) for world in others)

    @property
    def served(self) -> list[str]:
        return [world.carries.name for world in self.worlds]

    @property
    def phases(self) -> list[str]:
        return [world.state.phase for world in self.worlds]

    def reached(self, found) -> int:
        return sum(any(write.pin == found.pin for write in world.writes) for world in self.worlds)


def test_services_change_one_after_the_other_and_the_others_wait():
    fleet = Fleet(3, 1)
    fleet.name(V2)
    fleet.run(20)
    assert fleet.phases == ["Rolling", "Queued", "Queued"]
    assert [world.condition("Ready") for world in fleet.worlds] == ["False", "True", "True"]
    fleet.run(140)
    assert (fleet.served, fleet.phases) == (["v2", "v2", "v1"], ["Current", "Rolling", "Queued"])
    fleet.run(140)
    assert fleet.phases[2] == "Rolling"
    fleet.run(140)
    assert fleet.phases == ["Current"] * 3


def test_a_bad_version_reaches_as_many_services_as_may_change_at_a_time():
    fleet = Fleet(5, 2, quarantine_s=3600)
    for world in fleet.worlds:
        world.damaged = {V2.pin}
    fleet.name(V2)
    fleet.run(1800)
    assert (fleet.reached(V2), fleet.served) == (2, ["v1"] * 5)
    assert fleet.phases == ["RolledBack", "RolledBack", "Queued", "Queued", "Queued"]
    fleet.name(V3)
    fleet.run(1800)
    assert fleet.served == ["v3"] * 5


def test_a_service_without_pods_keeps_no_other_one_waiting():
    fleet = Fleet(3, 1)
    fleet.worlds[0].replicas = 0
    fleet.name(V2)
    fleet.run(600)
    assert fleet.phases == ["Idle", "Current", "Current"]


def test_a_pin_of_the_owner_waits_for_nobody():
    fleet = Fleet(3, 1)
    for world in fleet.worlds:
        world.policy = world.policy._replace(pin=V3)
    fleet.run(20)
    assert fleet.served == ["v3"] * 3


def test_what_a_waiting_service_says_does_not_change_while_it_waits():
    fleet = Fleet(9, 4)
    fleet.name(V2)
    fleet.run(20)
    waiting = fleet.worlds[-1]
    before = waiting.state
    fleet.run(100)
    assert waiting.state == before


@pytest.mark.parametrize("most", [1, 2, 4])
@given(
    st.lists(st.sampled_from(["v2", "v3", "v4", "v1"]), min_size=1, max_size=4),
    st.sets(st.sampled_from([V2.pin, V3.pin])),
    st.sets(st.sampled_from([V2.pin, V3.pin])),
)
@settings(max_examples=15, deadline=None)
def test_no_more_services_try_a_version_than_may_and_a_good_one_reaches_all(most, course, damaged, hanging):
    fleet = Fleet(4, most, deadline_s=300, quarantine_s=24 * 3600)
    for world in fleet.worlds:
        world.damaged, world.hanging = damaged, hanging
    for name in course:
        fleet.name(version(name))
        fleet.run(400)
    fleet.name(version("v5"))
    fleet.run(1800)
    assert fleet.served == ["v5"] * 4
    assert fleet.most_beside <= most
    assert all(fleet.reached(found) <= most for found in (V2, V3) if found.pin in damaged)
