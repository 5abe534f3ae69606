"""Traces of rollouts: what is sent of a day in a simulated cluster."""

import pytest

from lading.rollout.policy import Policy
from lading.rollout.policy import Step as CanaryStep
from lading.rollout.schedule import Cron, Window, time_zone
from lading.telemetry.otlp import Step
from lading.telemetry.rolls import Rolls
from rollout.simulated import LOAD_S, Killed, World, version

MINUTE, HOUR = 60.0, 3600.0


class Traced(World):
    """A cluster whose rollout is traced."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.sent: list[Step] = []
        self.trace()

    def trace(self) -> None:
        """A process that has seen nothing yet."""
        self.rolls = Rolls(self.sent.append)

    def cycle(self, **options):
        before = self.state
        try:
            return super().cycle(**options)
        finally:
            self.rolls.follow("team-a/iris", before, self.state)


def traced(**policy) -> Traced:
    """A service that has v1, and a channel that names v2 now."""
    world = Traced(Policy(**policy))
    world.run(HOUR)
    world.names = version("v2")
    return world


def seconds(trace: Step) -> dict[str, float]:
    return {step.name: (step.end_ns - step.start_ns) / 1e9 for step in trace.children}


def without_gaps(trace: Step) -> bool:
    ends = [trace.start_ns, *(step.end_ns for step in trace.children)]
    begins = [*(step.start_ns for step in trace.children), trace.end_ns]
    return ends == begins


def test_a_rollout_is_a_trace_with_its_steps():
    world = traced(hold_s=10 * MINUTE)
    world.run(HOUR)
    (trace,) = world.sent
    assert trace.name == "rollout"
    assert list(seconds(trace)) == ["hold", "judge"]
    assert seconds(trace)["hold"] == 10 * MINUTE
    assert LOAD_S <= seconds(trace)["judge"] <= LOAD_S + 20
    assert without_gaps(trace)
    assert trace.error_type == ""
    assert trace.attributes == {
        "lading.rollout": "team-a/iris",
        "lading.channel": "model-registry://iris@champion",
        "lading.pin": version("v2").pin,
        "lading.version": "v2",
        "lading.before": "v1",
        "lading.result": "Succeeded",
    }


def test_each_try_of_a_version_that_fails_is_a_trace_with_its_error():
    world = traced(hold_s=0.0, quarantine_s=HOUR)
    world.damaged.add(version("v2").pin)
    world.run(90 * MINUTE)
    first, second = world.sent
    assert list(seconds(first)) == ["judge"]
    assert list(seconds(second)) == ["quarantine", "judge"]
    assert second.start_ns == first.end_ns
    for trace in (first, second):
        assert (trace.error_type, trace.error) == ("rolled-back", "error[integrity]: weights differ")
        assert trace.children[-1].error == trace.error
        assert without_gaps(trace)


def test_what_a_version_waited_for_is_a_step():
    world = traced(hold_s=MINUTE, window=Window(Cron.parse("0 4 * * *"), HOUR, time_zone("UTC")))
    world.run(4 * HOUR)
    (trace,) = world.sent
    assert list(seconds(trace)) == ["hold", "window", "judge"]
    assert without_gaps(trace)


def test_each_step_of_a_canary_and_its_pause_is_a_step():
    world = traced(hold_s=0.0, steps=(CanaryStep(10, 5 * MINUTE), CanaryStep(50, MINUTE)))
    world.run(HOUR)
    (trace,) = world.sent
    told = [(step.name, step.attributes.get("lading.step")) for step in trace.children]
    assert told == [("canary", 1), ("pause", 1), ("canary", 2), ("pause", 2), ("judge", None)]
    assert without_gaps(trace)


def test_a_version_that_was_never_rolled_out_has_no_trace():
    world = traced(hold_s=HOUR)
    world.run(10 * MINUTE)
    world.names = version("v3")
    world.run(10 * MINUTE)
    world.names = version("v1")
    world.run(2 * HOUR)
    assert world.sent == []


@pytest.mark.parametrize("lost", [lambda world: world.trace(), lambda world: world.rolls.keep(set())])
def test_a_process_that_takes_over_sends_the_rest(lost):
    world = traced(hold_s=10 * MINUTE)
    world.run(11 * MINUTE)
    assert world.state.phase == "Rolling"
    lost(world)
    world.run(HOUR)
    (trace,) = world.sent
    assert list(seconds(trace)) == ["judge"]
    assert without_gaps(trace)


def test_a_pin_that_cannot_be_written_at_once_is_a_step():
    world = traced(hold_s=0.0)
    with pytest.raises(Killed):
        world.cycle(killed_before="write")
    world.now_s += MINUTE
    world.run(HOUR)
    (trace,) = world.sent
    assert seconds(trace)["write"] == MINUTE
    assert without_gaps(trace)
