"""Rollouts that select services by labels."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.conftest import CHANNEL, MRO, SERVICES
from controller.test_controller import phases
from fakes.fake_api_server import refusal
from fakes.faulty_http import Fault
from lading.controller.selection import select
from lading.kubernetes.follow import Key

GOLD = {"tier": "gold"}


def fields(world, name: str) -> dict:
    """The spec of a rollout, without what the helper of all tests gives each."""
    return {key: value for key, value in world.one(MRO, name)["spec"].items() if key != "hold"}


@pytest.fixture
def fleet(world):
    """Two services with the label, one without it, and a rollout that selects them."""
    world.pods("")
    for name in ("iris", "law"):
        world.serve(name, labels={**GOLD, "team": name})
    world.serve("other", labels={"tier": "silver"})
    world.select("fleet", GOLD)
    world.tick(times=2)
    return world


def test_each_selected_service_gets_a_rollout_of_its_own_and_its_pin(fleet):
    assert rollouts(fleet) == ["fleet", "fleet.iris", "fleet.law"]
    assert fields(fleet, "fleet.law") == {"targetRef": {"kind": "InferenceService", "name": "law"}}
    (owner,) = fleet.one(MRO, "fleet.law")["metadata"]["ownerReferences"]
    assert (owner["name"], owner["uid"], owner["controller"]) == ("fleet", "uid-of-fleet", True)
    assert [has_lock(fleet, name) for name in ("iris", "law", "other")] == [True, True, False]


def test_the_status_has_the_sum_of_all_services(fleet):
    fleet.tick(10)
    status = fleet.one(MRO, "fleet")["status"]
    assert (status["phase"], status["message"]) == ("Current", "2 services: 2 Current")
    assert (status["channel"], status["current"]["version"]) == (CHANNEL, "v1")
    assert "InferenceService tier=gold" in fleet.controller.shown.page(fleet.unix_s)[0]


def test_what_is_changed_for_all_is_changed_for_each_and_what_one_has_alone_stays(fleet):
    alone = fleet.one(MRO, "fleet.iris")
    fleet.api.put(MRO, "fleet.iris", **{**alone, "spec": {**alone["spec"], "approve": "mine"}})
    fleet.select("fleet", GOLD, update="Approve", maxConcurrent=1)
    fleet.tick(times=2)
    own = {"update": "Approve", "maxConcurrent": 1}
    assert fields(fleet, "fleet.law") == {"targetRef": {"kind": "InferenceService", "name": "law"}, **own}
    assert fields(fleet, "fleet.iris")["approve"] == "mine"


def test_the_bound_holds_for_all_of_them(fleet):
    fleet.select("fleet", GOLD, maxConcurrent=1)
    fleet.tick(times=2)
    fleet.champion("v2")
    fleet.tick(70)
    fleet.tick(10)
    assert phases(fleet) == {"Rolling": 2, "Queued": 1}
    assert fleet.one(MRO, "fleet")["status"]["message"].startswith("2 services: 1 Rolling, 1 Queued")


@pytest.mark.parametrize("gone", ["label", "service"])
def test_a_service_that_is_no_longer_selected_loses_its_rollout_and_keeps_its_pin(fleet, gone):
    if gone == "label":
        fleet.serve("law", labels={"tier": "silver"})
    else:
        fleet.api.remove(SERVICES, "law")
    fleet.tick(times=2)
    assert rollouts(fleet) == ["fleet", "fleet.iris"]
    assert gone == "service" or has_lock(fleet, "law")


def test_a_service_that_comes_later_is_selected_too(fleet):
    fleet.serve("late", labels=GOLD)
    fleet.tick(times=2)
    assert has_lock(fleet, "late")


def test_a_service_that_a_rollout_names_is_left_to_that_one(fleet):
    fleet.roll_out("own", of="law")
    fleet.tick(times=3)
    assert rollouts(fleet) == ["fleet", "fleet.iris", "own"]
    assert fleet.one(MRO, "own")["status"]["phase"] == "Current"


def test_of_two_that_select_a_service_the_older_one_counts(fleet):
    fleet.select("second", {"team": "law"})
    fleet.tick(times=3)
    assert rollouts(fleet) == ["fleet", "fleet.iris", "fleet.law", "second"]
    assert fleet.one(MRO, "second")["status"]["message"] == "no service has these labels"


def test_a_rollout_of_somebody_else_with_that_name_is_not_touched(world):
    world.serve("law", labels=GOLD)
    world.serve("other")
    world.roll_out("fleet.law", of="other")
    world.select("fleet", GOLD)
    world.tick(times=2)
    assert fields(world, "fleet.law") == {"targetRef": {"kind": "InferenceService", "name": "other"}}
    assert "ReconcileFailed" in world.told
    message = world.one(MRO, "fleet")["status"]["message"]
    assert message == "no service has these labels; fleet.law belongs to nobody, or to another rollout"


def test_a_rollout_that_cannot_be_made_keeps_no_other_service_from_its_own(world):
    for name in ("iris", "law"):
        world.serve(name, labels=GOLD)
    world.select("fleet", GOLD)
    path = "/apis/lading.dev/v1alpha1/namespaces/team-a/modelrollouts/fleet.iris"
    too_long = Fault(
        lambda *_: refusal(422, "metadata.name is too long"), on=lambda one: one.method == "PATCH", times=3
    )
    world.server.misbehave(path, too_long)
    world.tick()
    assert "fleet.law" in rollouts(world)
    assert "metadata.name is too long" in world.one(MRO, "fleet")["status"]["message"]


def test_nothing_is_written_while_nothing_changes(fleet):
    fleet.tick(10)
    fleet.server.requests.clear()
    fleet.tick(60, times=5)
    assert {one.path.split("/")[-1] for one in fleet.server.requests if one.method != "GET"} == {"lading-controller"}


def rollouts(world) -> list[str]:
    return sorted(path.rpartition("/")[2] for path in world.api.objects if path.startswith(f"/{MRO}/"))


def has_lock(world, name: str) -> bool:
    return "annotations" in world.one(SERVICES, name)["spec"]["predictor"]


# ---- any services, any rollouts ---------------------------------------------------------------

NAMES = ["a", "b", "c", "d"]
LABELS = st.sampled_from([{"tier": "x"}, {"tier": "y"}, {"team": "x"}, {"tier": "x", "team": "x"}])
WORLDS = st.tuples(
    st.lists(st.tuples(st.sampled_from(NAMES), LABELS), max_size=6).map(dict),
    st.lists(st.tuples(st.sampled_from(["one", "two"]), LABELS), max_size=3).map(dict),
    st.sets(st.sampled_from(NAMES)),
)


def rollout(name: str, **spec) -> dict:
    about = {"name": name, "namespace": "team-a", "uid": name, "generation": 1, "creationTimestamp": name}
    return {"metadata": about, "spec": spec}


def settled(rollouts: dict, services: dict) -> dict:
    """The rollouts after all changes were made, which end: nothing is made only to be deleted."""
    for _ in range(3):
        selections = select(rollouts, {"InferenceService": services})
        changes = [(each.apply, each.delete) for each in selections.values() if each.apply or each.delete]
        if not changes:
            return rollouts
        for apply, delete in changes:
            rollouts = rollouts | {
                Key.of(each): {**each, "metadata": {"uid": "u", **each["metadata"]}} for each in apply
            }
            rollouts = {key: each for key, each in rollouts.items() if each not in delete}
    raise AssertionError("it does not end")


@given(st.lists(WORLDS, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_each_service_has_one_rollout_whatever_is_changed_in_whatever_order(worlds):
    owned: dict = {}
    for labels, selectors, named in worlds:
        services = {Key("team-a", name): {"metadata": {"labels": own}} for name, own in labels.items()}
        made = [rollout(f"own-{name}", targetRef={"kind": "InferenceService", "name": name}) for name in named]
        for name, own in selectors.items():
            made.append(rollout(name, selector={"kind": "InferenceService", "matchLabels": own}))
        by_hand = {Key.of(each): each for each in made}
        # Kubernetes has deleted those whose owner has gone.
        owned = {key: each for key, each in owned.items() if each["metadata"]["ownerReferences"][0]["uid"] in selectors}
        there = settled(by_hand | owned, services)
        owned = {key: each for key, each in there.items() if key not in by_hand}
        targets = Counter(each["spec"]["targetRef"]["name"] for each in owned.values())
        selected = {
            name for name, own in labels.items() if any(each.items() <= own.items() for each in selectors.values())
        }
        assert targets == Counter(selected - named)
