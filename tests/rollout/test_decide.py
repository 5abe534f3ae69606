"""What is written when: the decisions on a rollout, in a simulated cluster."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lading.rollout.decide import decide
from lading.rollout.policy import Approved, Policy, Step
from lading.rollout.schedule import Cron, Window, time_zone
from lading.rollout.state import Version
from lading.rollout.verdict import HttpCheck, Verdict
from rollout.simulated import Killed, World, version

MINUTE, HOUR = 60.0, 3600.0
V1, V2, V3 = version("v1"), version("v2"), version("v3")


def served(world: World) -> list[str]:
    """The versions that were written, in order."""
    return [write.pin.partition("iris/")[2].partition("?")[0] for write in world.writes]


@pytest.fixture
def world():
    """A service that has v1, and a channel that names it."""
    world = World(Policy(hold_s=5 * MINUTE))
    world.run(10 * MINUTE)
    world.told.clear()
    return world


def reasons(world: World) -> list[str]:
    return [reason for _, reason in world.told]


# ---- the first pin ----------------------------------------------------------------------------


def test_a_new_service_is_pinned_at_once():
    world = World(Policy(hold_s=HOUR))
    world.cycle()
    assert served(world) == ["v1"]
    assert (world.state.phase, world.state.current) == ("Current", V1)
    assert reasons(world) == ["RolloutPinned"]


def test_a_service_that_runs_is_not_restarted_to_pin_what_it_has():
    world = World(Policy())
    world.ready = True
    world.run(HOUR)
    assert served(world) == []
    assert world.state.current == V1
    assert world.state.history[0].result == "Adopted"


@pytest.mark.parametrize("policy", [Policy(), Policy(update="Notify"), Policy(signed_by=("key sha256:1",))])
@pytest.mark.parametrize("ready", [False, True])
def test_a_service_goes_to_the_pin_of_its_owner_whatever_else_the_policy_says(policy, ready):
    world = World(policy._replace(pin=V2._replace(name="")))
    world.ready = ready
    world.run(10 * MINUTE)
    assert served(world) == ["v2"]
    assert (world.state.phase, world.state.current.pin) == ("Frozen", V2.pin)


def test_a_service_behind_its_channel_follows_as_the_policy_says():
    world = World(Policy(hold_s=HOUR))
    world.ready = True
    world.cycle()
    world.names = V2
    world.run(HOUR - 1)
    assert served(world) == []
    world.run(10 * MINUTE)
    assert served(world) == ["v2"]


def test_a_failed_update_of_an_adopted_service_goes_back_by_writing_its_pin():
    world = World(Policy(hold_s=0))
    world.ready = True
    world.cycle()
    world.names, world.damaged = V2, {V2.pin}
    world.run(10 * MINUTE)
    assert served(world) == ["v2", "v1"]


def test_a_new_service_waits_for_a_registry_that_is_away():
    world = World(Policy())
    world.names = None
    world.run(10 * MINUTE)
    assert (world.state.phase, served(world), world.condition("Ready")) == ("Unresolved", [], "False")
    world.names = V1
    world.cycle()
    assert served(world) == ["v1"]


def test_a_pin_that_is_there_already_is_what_the_service_has():
    world = World(Policy(hold_s=0))
    world.carries = V2
    world.cycle()
    assert (world.state.current, served(world)) == (V2, [])


def test_another_model_is_pinned_at_once_as_its_pods_cannot_start_with_the_old_lock(world):
    observed = world.observed()._replace(channel="model-registry://other", has=None, is_locked=True, found=V3)
    decision = decide(world.policy, world.state, observed, world.now_s)
    assert decision.pin == V3.pin
    assert [past.version for past in decision.state.history] == [V3]


# ---- policy -----------------------------------------------------------------------------------


def test_a_version_is_rolled_out_after_its_hold(world):
    world.names = V2
    world.run(5 * MINUTE - 1)
    assert (world.state.phase, served(world)) == ("Held", ["v1"])
    assert world.condition("Ready") == "True"
    world.run(10)
    assert (world.state.phase, served(world)) == ("Rolling", ["v1", "v2"])
    assert (world.condition("Ready"), world.condition("Reconciling")) == ("False", "True")
    world.run(5 * MINUTE)
    assert (world.state.phase, world.state.current, world.state.candidate) == ("Current", V2, None)
    assert world.condition("Ready") == "True"
    assert reasons(world) == ["ModelHeld", "RolloutStarted", "RolloutSucceeded"]


def test_a_version_that_is_named_for_a_moment_is_never_written(world):
    for _ in range(100):
        world.names = V2 if world.names == V1 else V1
        world.run(4 * MINUTE)
    assert served(world) == ["v1"]


def test_a_window_keeps_versions_waiting(world):
    world.policy = world.policy._replace(window=Window(Cron.parse("0 2 * * *"), HOUR, time_zone("UTC")))
    world.names = V2
    world.run(1.5 * HOUR)
    assert (world.state.phase, served(world)) == ("WindowClosed", ["v1"])
    world.run(0.5 * HOUR)
    assert served(world) == ["v1", "v2"]
    assert reasons(world) == ["ModelHeld", "ModelWaits", "RolloutStarted", "RolloutSucceeded"]


def test_what_a_range_leaves_out_is_not_taken(world):
    world.policy = world.policy._replace(versions=">=1, <2")
    world.names = V2
    world.run(HOUR)
    assert (world.state.phase, served(world), reasons(world)) == ("NotAllowed", ["v1"], ["ModelNotAllowed"])
    world.policy = world.policy._replace(versions=">=2")
    world.run(HOUR)
    assert served(world) == ["v1", "v2"]


def test_a_version_waits_for_its_approval_and_no_other_one_is_approved_by_it(world):
    world.policy = world.policy._replace(update="Approve", approve=V3.digest)
    world.names = V2
    world.run(HOUR)
    assert (world.state.phase, served(world), reasons(world)) == ("AwaitingApproval", ["v1"], ["ModelAwaitsApproval"])
    world.policy = world.policy._replace(approve=V2.digest)
    world.run(HOUR)
    assert served(world) == ["v1", "v2"]


def test_a_newer_version_is_only_told(world):
    world.policy = world.policy._replace(update="Notify")
    world.names = V2
    world.run(HOUR)
    assert (world.state.phase, served(world), reasons(world)) == ("Available", ["v1"], ["ModelVersionFound"])


def test_nothing_is_written_to_a_service_whose_rollout_is_off(world):
    world.policy = world.policy._replace(update="Off")
    world.names, world.carries = V2, V3
    world.run(HOUR)
    assert (world.state.phase, world.state.current, served(world)) == ("Off", V3, ["v1"])


def test_a_pin_of_the_owner_comes_at_once_and_stays(world):
    world.policy = world.policy._replace(pin=V3, window=Window(Cron.parse("0 2 * * *"), 60, time_zone("UTC")))
    world.names = V2
    world.run(HOUR)
    assert (world.state.phase, served(world)) == ("Frozen", ["v1", "v3"])
    world.policy = world.policy._replace(pin=None, window=None)
    world.run(HOUR)
    assert served(world) == ["v1", "v3", "v2"]


def test_a_pin_of_the_owner_brings_the_version_before_back(world):
    world.names = V2
    world.run(HOUR)
    world.policy = world.policy._replace(pin=V1)
    world.run(HOUR)
    assert (world.state.phase, served(world)) == ("Frozen", ["v1", "v2", "v1"])


def test_a_pin_of_the_owner_is_called_what_the_history_calls_it(world):
    world.names = V2
    world.run(HOUR)
    world.policy = world.policy._replace(pin=Version(V1.pin))
    world.run(HOUR)
    assert world.state.current == V1


# ---- judgement --------------------------------------------------------------------------------


def test_a_damaged_version_is_rolled_back_and_says_why(world):
    world.names, world.damaged = V2, {V2.pin}
    world.run(6 * MINUTE)
    assert (world.state.phase, served(world)) == ("RolledBack", ["v1", "v2", "v1"])
    assert world.state.why == "error[integrity]: weights differ"
    assert world.writes[-1].at_s - world.writes[-2].at_s <= 10
    assert reasons(world) == ["ModelHeld", "RolloutStarted", "RolledBack"]
    assert (world.condition("Ready"), world.condition("Stalled")) == ("False", "True")


def test_a_version_that_is_never_ready_is_rolled_back_at_its_deadline(world):
    world.names, world.hanging = V2, {V2.pin}
    world.run(HOUR)
    start, back = world.writes[1:]
    assert 30 * MINUTE <= back.at_s - start.at_s <= 30 * MINUTE + 20
    assert world.state.refused[0].why.startswith("not all pods served it within 30 min")


def test_a_quarantined_version_is_tried_again_each_time_later(world):
    world.names, world.damaged = V2, {V2.pin}
    world.run(24 * HOUR)
    tries = [write.at_s for write in world.writes if write.pin == V2.pin]
    gaps = [round((after - before) / HOUR) for before, after in pairwise(tries)]
    assert gaps == [1, 2, 4, 8]


def test_the_end_of_a_quarantine_is_not_missed_by_a_channel_that_is_asked_once_a_day():
    world = World(Policy(hold_s=0, every_s=24 * HOUR))
    world.cycle()
    world.names, world.damaged = V2, {V2.pin}
    world.run(12 * HOUR)
    assert served(world) == ["v1", *["v2", "v1"] * 4]


@pytest.mark.parametrize("window", [None, Window(Cron.parse("0 2 * * *"), HOUR, time_zone("UTC"))])
def test_a_candidate_whose_time_comes_while_the_registry_is_away_waits_for_the_registry(window):
    world = World(Policy(hold_s=0 if window else HOUR, window=window))
    world.cycle()
    world.names = V2
    world.run(MINUTE)
    world.names = None
    # No cycle asks for the next one at once: see ``run``.
    world.run(2.5 * HOUR)
    assert (world.state.phase, served(world)) == ("WindowClosed" if window else "Held", ["v1"])
    world.names = V2
    world.run(2 * MINUTE)
    assert served(world) == ["v1", "v2"]


def test_a_newer_version_than_the_one_in_quarantine_is_taken(world):
    world.names, world.damaged = V2, {V2.pin}
    world.run(10 * MINUTE)
    world.names = V3
    world.run(10 * MINUTE)
    assert (world.state.current, world.condition("Stalled")) == (V3, "False")


def test_a_version_that_the_channel_takes_back_goes_at_once(world):
    world.names, world.hanging = V2, {V2.pin}
    world.run(6 * MINUTE)
    assert served(world) == ["v1", "v2"]
    world.names = V1
    world.run(20)
    assert served(world) == ["v1", "v2", "v1"]
    assert world.state.history[0].result == "Withdrawn"
    assert world.state.refused == ()


def test_a_service_without_pods_is_neither_healthy_nor_failed(world):
    world.replicas, world.names = 0, V2
    world.run(5 * HOUR)
    assert (world.state.phase, served(world)) == ("Idle", ["v1", "v2"])
    world.replicas = 1
    world.run(10 * MINUTE)
    assert (world.state.phase, world.state.current) == ("Current", V2)


def test_the_deadline_begins_anew_with_the_first_pod(world):
    world.replicas, world.names, world.hanging = 0, V2, {V2.pin}
    world.run(5 * HOUR)
    world.replicas = 1
    world.run(25 * MINUTE)
    assert world.state.phase == "Rolling"
    world.run(10 * MINUTE)
    assert world.state.phase == "RolledBack"


READY = HttpCheck("ready", path="/ready")


def test_a_version_that_is_served_waits_for_its_checks(world):
    world.policy, world.names = world.policy._replace(checks=(READY,)), V2
    world.verdicts[V2.pin] = Verdict("unknown", "check ready: 503")
    world.run(15 * MINUTE)
    assert (world.state.phase, world.state.why, served(world)) == ("Rolling", "check ready: 503", ["v1", "v2"])
    world.verdicts.clear()
    world.run(MINUTE)
    assert (world.state.phase, world.state.current) == ("Current", V2)


def test_a_version_that_fails_a_check_is_rolled_back_and_says_which(world):
    world.policy, world.names = world.policy._replace(checks=(READY,)), V2
    world.verdicts[V2.pin] = Verdict("failed", "check ready: 503")
    world.run(10 * MINUTE)
    assert (world.state.phase, world.state.why, served(world)) == ("RolledBack", "check ready: 503", ["v1", "v2", "v1"])
    (stalled,) = [each for each in world.known if each.type == "Stalled"]
    assert (stalled.status, stalled.reason, stalled.message) == ("True", "CheckFailed", "check ready: 503")


def test_checks_that_cannot_be_asked_are_waited_for_until_the_deadline(world):
    world.policy, world.names = world.policy._replace(checks=(READY,)), V2
    world.verdicts[V2.pin] = Verdict("unknown", "Prometheus is away")
    world.run(HOUR)
    start, back = world.writes[1:]
    assert 30 * MINUTE <= back.at_s - start.at_s <= 30 * MINUTE + 20
    assert world.state.refused[0][3:] == (
        "its checks did not pass within 30 min 0 s: Prometheus is away",
        "DeadlineExceeded",
    )


def test_pods_that_fail_are_rolled_back_without_asking_the_checks(world):
    world.policy, world.names = world.policy._replace(checks=(READY,)), V2
    world.damaged = {V2.pin}
    world.run(10 * MINUTE)
    assert (world.state.phase, world.state.cause) == ("RolledBack", "PodsFailed")


# ---- canaries ---------------------------------------------------------------------------------

STEPS = (Step(10, 10 * MINUTE), Step(50, 5 * MINUTE))


@pytest.fixture
def canary(world):
    """The same service, whose versions come in two steps."""
    world.policy = world.policy._replace(steps=STEPS, hold_s=0)
    world.names = V2
    return world


def shares(world: World) -> list[tuple[str, int]]:
    """The versions that were written, in order, each with the percentage of a canary beside it."""
    names = served(world)
    return [(name, write.percent) for name, write in zip(names, world.writes, strict=True)]


def test_a_canary_gets_more_step_by_step_and_then_all(canary):
    canary.run(HOUR)
    assert shares(canary) == [("v1", 0), ("v1", 10), ("v1", 50), ("v2", 50), ("v2", 0)]
    assert (canary.state.phase, canary.state.current, canary.state.canary) == ("Current", V2, None)
    assert reasons(canary) == [
        "CanaryStep", "CanaryPaused", "CanaryStep", "CanaryPaused", "RolloutStarted", "RolloutSucceeded",
    ]  # fmt: skip
    first, second, all_ = (write.at_s for write in canary.writes[1:4])
    assert second - first >= 12 * MINUTE
    assert all_ - second >= 5 * MINUTE


def test_a_canary_is_reconciling(canary):
    canary.run(5 * MINUTE)
    assert (canary.state.phase, canary.state.why) == ("Paused", "step 1 of 2, 10 % of the requests, for 10 min 0 s")
    assert (canary.condition("Ready"), canary.condition("Reconciling")) == ("False", "True")


def test_a_damaged_canary_goes_and_no_other_pod_was_touched(canary):
    canary.damaged = {V2.pin}
    canary.run(HOUR / 2)
    assert shares(canary) == [("v1", 0), ("v1", 10), ("v1", 0)]
    assert (canary.state.phase, canary.state.cause, canary.state.current) == ("RolledBack", "PodsFailed", V1)


def test_a_canary_that_is_never_ready_goes_at_its_deadline(canary):
    canary.hanging = {V2.pin}
    canary.run(HOUR)
    assert shares(canary) == [("v1", 0), ("v1", 10), ("v1", 0)]
    start, back = canary.writes[1:]
    assert 30 * MINUTE <= back.at_s - start.at_s <= 30 * MINUTE + 20
    assert canary.state.cause == "DeadlineExceeded"


def test_a_canary_that_fails_a_check_at_a_later_step_goes(canary):
    canary.policy = canary.policy._replace(checks=(READY,))
    canary.run(15 * MINUTE)
    assert canary.state.canary.step == 2
    canary.verdicts[V2.pin] = Verdict("failed", "check errors: 0.2 is more than 0.01")
    canary.run(MINUTE)
    assert shares(canary)[-2:] == [("v1", 50), ("v1", 0)]
    assert (canary.state.cause, canary.state.why) == ("CheckFailed", "check errors: 0.2 is more than 0.01")


def test_a_canary_that_is_not_served_for_a_while_does_not_go_on_meanwhile(canary):
    canary.run(10 * MINUTE)
    canary.hanging = {V2.pin}
    canary.run(10 * MINUTE)
    assert (canary.state.phase, canary.state.canary.step) == ("Canary", 1)
    canary.hanging = set()
    canary.run(MINUTE)
    assert canary.state.canary.step == 2
    assert reasons(canary) == ["CanaryStep", "CanaryPaused", "CanaryStep", "CanaryPaused"]


def test_a_step_waits_until_this_step_of_this_version_is_approved(canary):
    canary.policy = canary.policy._replace(steps=(Step(10, None), Step(50, None)))
    for approved in (None, Approved(V3.digest, 2), Approved(V2.digest, 0)):
        canary.policy = canary.policy._replace(approved=approved)
        canary.run(HOUR)
        assert (canary.state.phase, canary.state.canary.step) == ("Paused", 1)
    assert canary.state.why == "step 1 of 2, 10 % of the requests, until it is approved"
    canary.policy = canary.policy._replace(approved=Approved(V2.digest, 1))
    canary.run(HOUR)
    assert (canary.state.phase, canary.state.canary.step) == ("Paused", 2)
    canary.policy = canary.policy._replace(approved=Approved(V2.digest, 2))
    canary.run(HOUR)
    assert canary.state.current == V2


def test_a_canary_whose_version_is_taken_back_goes_at_once(canary):
    canary.run(5 * MINUTE)
    canary.names = V1
    canary.run(20)
    assert shares(canary) == [("v1", 0), ("v1", 10), ("v1", 0)]
    assert (canary.state.history[0].result, canary.state.refused) == ("Withdrawn", ())


def test_a_version_that_comes_during_a_canary_waits_for_its_end(canary):
    canary.run(5 * MINUTE)
    canary.names = V3
    canary.run(HOUR)
    assert [name for name, _ in shares(canary)] == ["v1", "v1", "v1", "v2", "v2", "v2", "v2", "v3", "v3"]


def test_a_pin_of_the_owner_ends_a_canary_at_once(canary):
    canary.run(5 * MINUTE)
    canary.policy = canary.policy._replace(pin=V3)
    canary.run(2 * MINUTE)
    assert shares(canary)[2:] == [("v1", 0), ("v3", 0)]


def test_a_pin_on_the_canarys_own_version_brings_it_to_all_pods(canary):
    canary.run(5 * MINUTE)
    canary.policy = canary.policy._replace(pin=V2)
    canary.run(10 * MINUTE)
    assert (shares(canary)[2:], canary.state.phase) == ([("v2", 10), ("v2", 0)], "Frozen")


def test_a_version_that_fails_when_all_pods_get_it_goes_and_its_canary_too(canary):
    canary.run(18 * MINUTE)
    assert (canary.state.phase, shares(canary)[-1]) == ("Rolling", ("v2", 50))
    canary.hanging = {V2.pin}
    canary.run(HOUR)
    assert shares(canary)[-2:] == [("v2", 50), ("v1", 0)]


def test_an_adopted_service_is_pinned_when_its_first_canary_begins():
    """Its other pods may be replaced meanwhile, and would come with the new version."""
    world = World(Policy(hold_s=0, steps=STEPS))
    world.ready = True
    world.cycle()
    world.names = V2
    world.run(2 * MINUTE)
    assert shares(world) == [("v1", 10)]


def test_a_service_that_can_have_no_canary_is_left_as_it_is(canary):
    canary.no_canary = "its deployment mode is Knative"
    canary.run(HOUR)
    assert (canary.state.phase, shares(canary)) == ("Invalid", [("v1", 0)])
    assert canary.state.why == "the service can have no canary: its deployment mode is Knative"
    assert (reasons(canary), canary.condition("Stalled")) == (["PolicyRefused"], "True")


def test_a_canary_that_the_api_server_refuses_is_not_tried_for_ever(canary):
    canary.cycle(killed_before="")
    canary.split, canary.refused = None, "unknown field spec.canary"
    canary.run(20)
    assert (canary.state.phase, canary.state.cause, canary.state.why) == (
        "RolledBack",
        "CanaryRefused",
        "unknown field spec.canary",
    )


def test_a_policy_with_fewer_steps_ends_the_present_one(canary):
    canary.run(15 * MINUTE)
    canary.policy = canary.policy._replace(steps=STEPS[:1])
    canary.run(20)
    assert canary.state.phase == "Rolling"


# ---- who else is there ------------------------------------------------------------------------


def test_a_pin_that_another_manager_owns_is_left_alone(world):
    world.owner, world.carries = "argocd-controller", V3
    world.names = V2
    world.run(HOUR)
    assert (world.state.phase, world.state.current, served(world)) == ("Blocked", V3, ["v1"])
    assert (reasons(world), world.condition("Stalled")) == (["TargetConflict"], "True")
    world.owner = ""
    world.run(HOUR)
    assert served(world) == ["v1", "v2"]


def test_a_registry_that_is_away_changes_nothing(world):
    world.names = None
    world.run(HOUR)
    assert (world.state.phase, served(world), world.condition("Ready")) == ("Current", ["v1"], "True")
    assert (reasons(world), world.condition("Resolved")) == (["RegistryUnreachable"], "False")


def test_a_registry_that_is_away_does_not_stop_a_roll_back(world):
    world.names, world.hanging = V2, {V2.pin}
    world.run(6 * MINUTE)
    world.names = None
    world.run(HOUR)
    assert served(world) == ["v1", "v2", "v1"]


def test_the_history_is_bounded(world):
    world.policy = world.policy._replace(hold_s=0, keep=2)
    for number in (2, 3, 4, 5, 1, 2):
        world.names = version(f"v{number}")
        world.run(10 * MINUTE)
    assert [past.version.name for past in world.state.history] == ["v2", "v1"]


# ---- any course of things ---------------------------------------------------------------------

NAMES = st.sampled_from(["v1", "v2", "v3", ""])
COURSE = st.lists(st.tuples(NAMES, st.floats(1, 3 * HOUR)), min_size=1, max_size=12)
FATES = st.sets(st.sampled_from([V2.pin, V3.pin]))
COURSES = settings(max_examples=60, deadline=None)


def played(world: World, course: list[tuple[str, float]]) -> World:
    for name, seconds in course:
        world.names = version(name) if name else None
        world.run(seconds)
    return world


@given(COURSE, FATES, FATES)
@COURSES
def test_a_pin_that_is_no_return_comes_a_hold_or_a_quarantine_after_the_one_before(course, damaged, hanging):
    world = World(Policy(hold_s=5 * MINUTE, quarantine_s=HOUR))
    world.damaged, world.hanging = damaged, hanging
    played(world, course)
    starts = [at_s for at_s, reason in world.told if reason in ("RolloutStarted", "RolloutPinned")]
    assert all(after - before >= 5 * MINUTE for before, after in pairwise(starts))
    assert len(world.writes) <= 2 * len(starts)


@given(COURSE, FATES)
@example([("v2", 1.0), ("v1", 1.0), ("v2", 1.0)], {V2.pin})
@COURSES
def test_a_quarantined_version_is_not_written_before_its_time(course, damaged):
    world = World(Policy(hold_s=0, quarantine_s=HOUR, keep=1000))
    world.damaged = damaged
    played(world, [("v1", HOUR), *course])
    # One that was taken back before it was judged is in no quarantine.
    for past in world.state.history:
        if past.result == "RolledBack":
            again = [write.at_s for write in world.writes if write.pin == past.version.pin and write.at_s > past.at_s]
            assert all(at_s - past.at_s >= HOUR for at_s in again)


@given(COURSE, FATES, FATES)
@COURSES
def test_no_version_comes_to_all_pods_before_its_canary_has_served_at_every_step(course, damaged, hanging):
    world = World(Policy(hold_s=0, quarantine_s=HOUR, steps=STEPS))
    world.damaged, world.hanging = damaged, hanging
    played(world, [("v1", MINUTE), *course])
    pauses_s = sum(step.pause_s for step in STEPS)
    for before, after in pairwise(world.writes):
        assert after.percent in (0, *(step.percent for step in STEPS))
        if after.pin != before.pin and before.percent:
            assert before.percent == after.percent or after.percent == 0
    starts = [write.at_s for write in world.writes if write.percent == STEPS[0].percent]
    for before, after in pairwise(world.writes):
        if after.pin != before.pin and after.percent:
            assert after.at_s - max(start for start in starts if start <= after.at_s) >= pauses_s
    assert world.state.is_moving or world.split is None


@given(st.sampled_from(["keep", "write"]), st.sets(st.integers(0, 400)), FATES, st.sampled_from([(), STEPS]))
@COURSES
def test_a_process_that_is_killed_between_any_two_steps_goes_on_to_the_same_end(step, kills, damaged, steps):
    ends = []
    for killed in (set(), kills):
        world = World(Policy(hold_s=5 * MINUTE, quarantine_s=9 * HOUR, steps=steps))
        world.damaged = damaged
        for cycle in range(500):
            world.names = version(f"v{1 + cycle // 200}")
            try:
                world.cycle(killed_before=step if cycle in killed else "")
            except Killed:
                # Another process, which knows nothing but what is kept.
                world.cycle()
            world.now_s += 10
        results = [(past.version.name, past.result) for past in world.state.history]
        ends.append((world.state.phase, world.state.current, world.carries, world.split, results))
    assert ends[0] == ends[1]


# ---- who has signed ----------------------------------------------------------------------------


def signed(name: str, signer: str) -> Version:
    return version(name)._replace(signer=signer)


def test_what_somebody_else_signed_is_not_taken():
    world = World(Policy(hold_s=0.0, signed_by=("key a", "key b")))
    world.names = signed("v1", "key b")
    world.run(10 * MINUTE)
    for signer in ("", "key c"):
        world.names = signed("v2", signer)
        world.run(HOUR)
        assert (world.state.phase, served(world)) == ("NotAllowed", ["v1"])
        assert world.state.why.endswith(f"is signed by {signer or 'nobody whom a rule of trust has found'}")
    world.names = signed("v2", "key a")
    world.run(HOUR)
    assert served(world) == ["v1", "v2"]
    assert world.state.current.signer == "key a"


def test_a_new_service_gets_no_pin_that_somebody_else_signed():
    world = World(Policy(signed_by=("key a",)))
    world.run(HOUR)
    assert (world.state.phase, world.state.current, served(world)) == ("NotAllowed", None, [])
    world.names = signed("v1", "key a")
    world.run(HOUR)
    assert (world.state.phase, world.state.candidate, served(world)) == ("Current", None, ["v1"])
