"""A day of one rollout: what is written when, and what is told."""

from datetime import UTC, datetime

from lading.rollout.policy import Approved, Policy, Step
from lading.rollout.schedule import Cron, Window, time_zone
from lading.rollout.verdict import HttpCheck, Verdict
from rollout.simulated import World, Write, version

HOUR = 3600.0
POLICY = Policy(
    hold_s=600,
    window=Window(Cron.parse("0 8-17 * * 1-5"), HOUR, time_zone("Europe/Berlin")),
    versions="<5",
    deadline_s=1800,
    quarantine_s=2 * HOUR,
)


def course(world: World) -> dict[str, object]:
    """What happens outside, by the time (UTC; Berlin is an hour ahead)."""
    v1, v2, v3, v4, v5 = (version(f"v{number}") for number in range(1, 6))

    def name(found) -> None:
        world.names = found

    def scale(replicas: int) -> None:
        world.replicas = replicas

    def own(owner: str) -> None:
        world.owner = owner

    flapping = {f"01:{minute:02}": (name, v3 if minute % 10 else v2) for minute in range(0, 60, 5)}
    return {
        "00:30": (name, v2),  # at night: held, then it waits for the window
        **flapping,
        "02:00": (name, v2),
        "03:00": (name, None),  # the registry is away, until the window has opened
        "07:20": (name, v2),
        "08:00": (name, v3),  # damaged
        "08:40": (name, v2),  # for five minutes only
        "08:45": (name, v3),  # in quarantine
        "11:30": (name, v4),  # its server hangs
        "12:50": (name, v5),  # out of the range
        "13:30": (name, v1),  # somebody goes back
        "14:00": (scale, 0),
        "14:10": (name, v2),
        "15:00": (scale, 2),
        "16:00": (own, "argocd-controller"),
        "16:10": (name, v3),
        "16:30": (own, ""),
        "16:50": (name, v1),  # too late for today
    }


DAY = """\
00:00 RolloutPinned
00:00 write v1
00:30 ModelHeld
00:40 ModelWaits
01:05 ModelHeld
01:10 ModelHeld
01:15 ModelHeld
01:20 ModelHeld
01:25 ModelHeld
01:30 ModelHeld
01:35 ModelHeld
01:40 ModelHeld
01:45 ModelHeld
01:50 ModelHeld
01:55 ModelHeld
02:00 ModelHeld
02:10 ModelWaits
03:00 RegistryUnreachable
07:20 RolloutStarted
07:20 write v2
07:22 RolloutSucceeded
08:00 ModelHeld
08:10 RolloutStarted
08:10 write v3
08:10 RolledBack
08:10 write v2
08:45 ModelQuarantined
10:10 RolloutStarted
10:10 write v3
10:10 RolledBack
10:10 write v2
11:30 ModelHeld
11:40 RolloutStarted
11:40 write v4
12:10 RolledBack
12:10 write v2
12:50 ModelNotAllowed
13:30 ModelHeld
13:40 RolloutStarted
13:40 write v1
13:42 RolloutSucceeded
14:10 ModelHeld
14:20 RolloutStarted
14:20 write v2
15:00 RolloutSucceeded
16:00 TargetConflict
16:30 ModelHeld
16:40 RolloutStarted
16:40 write v3
16:40 RolledBack
16:40 write v2
16:50 ModelHeld
17:00 ModelWaits
"""


def clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M")


CANARY = Policy(
    hold_s=600,
    deadline_s=1800,
    quarantine_s=8 * HOUR,
    checks=(HttpCheck("ready", path="/ready"),),
    steps=(Step(10, 1800), Step(50, None)),
)


def canary_course(world: World) -> dict[str, object]:
    """The same, for canaries of which the second step waits for a person."""
    v1, v2, v3, v4, v5 = (version(f"v{number}") for number in range(1, 6))

    def name(found) -> None:
        world.names = found

    def approve(found) -> None:
        world.policy = world.policy._replace(approved=Approved(found.digest, 2))

    def pin(found) -> None:
        world.policy = world.policy._replace(pin=found)

    def check(word) -> None:
        world.verdicts[v5.pin] = Verdict(word, "check ready: 503")

    return {
        "00:30": (name, v2),  # for a moment
        "00:35": (name, v1),
        "01:00": (name, v2),
        "01:20": (name, None),  # the registry is away, which does not stop the canary
        "02:00": (name, v2),
        "03:00": (approve, v2),
        "04:00": (name, v3),  # damaged
        "05:00": (name, v4),  # its server hangs
        "06:00": (name, v5),
        "06:11": (check, "unknown"),  # Prometheus is away, as the canary comes
        "06:20": (check, "passed"),
        "06:55": (check, "failed"),  # at its second step
        "07:00": (check, "passed"),
        "15:00": (name, v1),  # while v5 is tried again: it waits for the end of that
        "15:30": (pin, v5),  # a person knows better, and waits for no step
        "16:00": (pin, None),
        "17:00": (name, v5),  # nobody wants the canary of v1 any more
    }


CANARY_DAY = """\
00:00 RolloutPinned
00:00 write v1
00:30 ModelHeld
01:00 ModelHeld
01:10 CanaryStep
01:10 write v1 with 10 % beside it
01:12 CanaryPaused
01:20 RegistryUnreachable
01:42 CanaryStep
01:42 write v1 with 50 % beside it
01:42 CanaryPaused
03:00 RolloutStarted
03:00 write v2 with 50 % beside it
03:02 RolloutSucceeded
03:02 write v2
04:00 ModelHeld
04:10 CanaryStep
04:10 write v2 with 10 % beside it
04:10 RolledBack
04:10 write v2
05:00 ModelHeld
05:10 CanaryStep
05:10 write v2 with 10 % beside it
05:40 RolledBack
05:40 write v2
06:00 ModelHeld
06:10 CanaryStep
06:10 write v2 with 10 % beside it
06:20 CanaryPaused
06:50 CanaryStep
06:50 write v2 with 50 % beside it
06:50 CanaryPaused
06:55 RolledBack
06:55 write v2
14:55 CanaryStep
14:55 write v2 with 10 % beside it
14:57 CanaryPaused
15:27 CanaryStep
15:27 write v2 with 50 % beside it
15:27 CanaryPaused
15:30 RolloutStarted
15:30 write v5 with 50 % beside it
15:32 RolloutSucceeded
15:32 write v5
16:00 ModelHeld
16:10 CanaryStep
16:10 write v5 with 10 % beside it
16:12 CanaryPaused
16:42 CanaryStep
16:42 write v5 with 50 % beside it
16:42 CanaryPaused
17:00 RolloutWithdrawn
17:00 write v5
"""


def played(policy: Policy, course) -> list[str]:
    world = World(policy)
    world.damaged, world.hanging = {version("v3").pin}, {version("v4").pin}
    start_s, steps = world.now_s, course(world)
    for moment, (change, value) in sorted(steps.items()):
        hours, minutes = moment.split(":")
        world.run(start_s + int(hours) * HOUR + int(minutes) * 60 - world.now_s)
        change(value)
    world.run(start_s + 24 * HOUR - world.now_s)
    lines = [(write.at_s, 1, f"write {written(write)}") for write in world.writes]
    lines += [(at_s, 0, reason) for at_s, reason in world.told]
    return [f"{clock(at_s)} {text}" for at_s, _, text in sorted(lines)]


def written(write: Write) -> str:
    """The version, and what a canary gets beside it."""
    name = write.pin.partition("iris/")[2].partition("?")[0]
    return f"{name} with {write.percent} % beside it" if write.percent else name


def test_a_day():
    assert "\n".join(played(POLICY, course)) + "\n" == DAY


def test_a_day_of_canaries():
    assert "\n".join(played(CANARY, canary_course)) + "\n" == CANARY_DAY
