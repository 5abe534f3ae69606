"""What a registry is told about a service, and what it is not told again."""

from lading.rollout.record import Record, report
from lading.rollout.state import Past, Recorded, State
from rollout.simulated import version

V1, V2, V3 = version("v1"), version("v2"), version("v3")
PINNED = Past(V1, 100.0, "Pinned")


def told(state: State) -> list[tuple[str, str]]:
    """The records of the report, in order."""
    found = report(state)
    return [(each.version.name, each.ended) for each in found.records] if found else []


def test_the_first_version_is_told_once():
    state = State(current=V1, history=(PINNED,))
    assert report(state).records == (Record(V1, "COMPLETE", 100.0),)
    assert report(state._replace(recorded=report(state).recorded)) is None


def test_of_a_version_that_was_replaced_it_is_told_that_the_service_does_not_have_it():
    state = State(current=V2, history=(Past(V2, 200.0, "Succeeded"), PINNED), recorded=Recorded(V1, 100.0))
    assert told(state) == [("v1", "UNDEPLOYED"), ("v2", "COMPLETE")]


def test_of_a_version_that_was_rolled_back_why_and_what_the_service_has_is_told_again():
    state = State(current=V1, history=(Past(V2, 200.0, "RolledBack", "damaged"), PINNED), recorded=Recorded(V1, 100.0))
    assert report(state).records == (Record(V2, "FAILED", 200.0, "damaged"), Record(V1, "COMPLETE", 100.0))


def test_a_second_failure_of_the_same_version_is_another_entry():
    first, second = (Past(V2, at_s, "RolledBack", "damaged") for at_s in (200.0, 300.0))
    state = State(current=V1, history=(second, first, PINNED), recorded=Recorded(V1, 200.0))
    assert [each.at_s for each in report(state).records] == [300.0, 100.0]


def test_a_registry_that_was_away_is_told_everything_later():
    history = (Past(V3, 400.0, "Withdrawn"), Past(V2, 200.0, "Succeeded"), PINNED)
    assert told(State(current=V2, history=history)) == [
        ("v1", "COMPLETE"), ("v3", "CANCELED"), ("v1", "UNDEPLOYED"), ("v2", "COMPLETE"),
    ]  # fmt: skip


def test_of_a_service_that_is_gone_its_version_is_undeployed():
    state = State(history=(PINNED,), recorded=Recorded(V1, 100.0))
    assert told(state) == [("v1", "UNDEPLOYED")]
    assert told(state._replace(recorded=report(state).recorded)) == []


def test_while_a_candidate_is_rolled_out_nothing_is_told():
    state = State(current=V1, candidate=V2, phase="Rolling", history=(PINNED,), recorded=Recorded(V1, 100.0))
    assert told(state) == []
