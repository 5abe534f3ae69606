"""The state of many services as one."""

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from lading.rollout.conditions import conditions
from lading.rollout.state import Phase, State
from lading.rollout.together import ORDER, together
from rollout.simulated import CHANNEL, version

V1, V2 = version("v1"), version("v2")
NOW_S = 1000.0


def state(phase: Phase, **more) -> State:
    return State(CHANNEL, V1, phase=phase, **more)


def test_every_phase_has_its_place():
    assert sorted(ORDER) == sorted(get_args(Phase))


def test_the_service_that_needs_the_most_attention_gives_the_phase_and_the_reason():
    states = {
        "iris": state("Current"),
        "law": state("RolledBack", candidate=V2, seen_s=7.0, why="weights differ"),
        "ham": state("Rolling", candidate=V2, seen_s=5.0),
        "egg": state("Current"),
    }
    summed = together(states, State(), NOW_S)
    assert (summed.phase, summed.since_s) == ("RolledBack", NOW_S)
    assert summed.why == "4 services: 1 RolledBack, 1 Rolling, 2 Current; law: weights differ"
    assert (summed.channel, summed.current, summed.candidate, summed.seen_s) == (CHANNEL, V1, V2, 5.0)


def test_what_services_disagree_about_is_left_out():
    states = {"iris": state("Held", candidate=V1), "law": State("other", V2, V2, phase="Held")}
    summed = together(states, State(), NOW_S)
    assert (summed.channel, summed.current, summed.candidate) == ("", None, None)


def test_without_services_it_says_so():
    summed = together({}, State(), NOW_S)
    assert (summed.phase, summed.why) == ("NoTarget", "no service has these labels")


@given(st.dictionaries(st.text("abc", min_size=1), st.sampled_from(get_args(Phase)), min_size=1))
def test_it_is_ready_if_all_are_and_has_stalled_if_one_has(phases):
    states = {name: state(phase) for name, phase in phases.items()}
    told = [conditions(each, (), NOW_S) for each in (together(states, State(), NOW_S), *states.values())]
    (ready, stalled), *others = [
        [each.status == "True" for each in all_ if each.type in ("Ready", "Stalled")] for all_ in told
    ]
    assert ready == all(one for one, _ in others)
    assert stalled == any(one for _, one in others)
