"""What nodes keep in their stores."""

from typing import get_args

import pytest

from lading.rollout.in_status import status_of
from lading.rollout.on_nodes import wanted_on_nodes
from lading.rollout.state import Phase, State, Version
from rollout.simulated import CHANNEL, version

V1, V2, V3 = version("v1"), version("v2"), version("v3")
# In all others, the candidate does not come by itself.
COMING = {"AwaitingApproval", "Held", "WindowClosed", "Queued", "Canary", "Paused", "Rolling", "Idle"}


# What no schema allows.
ODD = {"phase": "Current", "phaseSince": "2026-11-29T10:00:00Z", "recorded": "v1"}


def status(phase: Phase, current: Version | None = V1, candidate: Version | None = V2) -> dict:
    return status_of(State(CHANNEL, current, candidate, phase=phase), (), 1)


@pytest.mark.parametrize("phase", get_args(Phase))
def test_the_present_version_is_kept_and_one_that_may_come(phase):
    assert wanted_on_nodes([status(phase)]) == [V1.pin, V2.pin][: 2 if phase in COMING else 1]


def test_a_version_of_many_services_is_kept_once():
    statuses = [status("Held"), status("Current", candidate=None), status("Held", candidate=V3)]
    assert wanted_on_nodes(statuses) == [V1.pin, V2.pin, V3.pin]


def test_each_model_of_a_service_is_kept():
    assert wanted_on_nodes([status("Current", Version.of([V1, V3]))]) == [V1.pin, V3.pin]


@pytest.mark.parametrize(
    "pin",
    [
        f"file:///etc?pin=sha256:{'0' * 64}",
        f"/etc?pin=sha256:{'0' * 64}",
        f"http://metadata/latest?pin=sha256:{'0' * 64}",
        "s3://models/iris",
        "",
        "\0",
    ],
)
def test_a_status_makes_no_node_read_files_or_ask_hosts(pin):
    assert wanted_on_nodes([status("Current", Version(pin)), {"phase": 7}, {}, ODD]) == []
