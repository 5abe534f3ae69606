"""A service with several models has one version: the pins of all of them."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.controller.service import lock_text, locked
from lading.errors import UsageError
from lading.rollout.decide import Observed, decide
from lading.rollout.health import Service
from lading.rollout.in_spec import read_policy
from lading.rollout.in_status import read_state, status_of
from lading.rollout.policy import Policy
from lading.rollout.state import State, Version
from rollout.simulated import version

V1, V2 = version("v1"), version("v2")
ADAPTER = Version(f"hf://example/law?pin=sha256:{'a' * 64}")
BOTH = Version.of([V1, ADAPTER])
CHANNELS = ("model-registry://iris@champion", "hf://example/law")
CHANNEL = "\n".join(CHANNELS)

NAMES = st.text("v0123.-", max_size=5).filter(lambda name: name != "-")


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_version_is_made_of_those_of_its_models(names):
    parts = [Version(f"s3://models/{number}?pin=sha256:{'0' * 64}", name) for number, name in enumerate(names)]
    whole = Version.of(parts)
    assert whole.parts == parts
    assert re.fullmatch("sha256:[0-9a-f]{64}", whole.digest)


def test_one_model_is_as_it_was():
    assert Version.of([V1]) == V1
    assert (V1.parts, V1.digest) == ([V1], f"sha256:{'1' * 64}")


def test_one_lock_text_has_all_pins_and_a_text_without_one_of_them_has_none():
    text = lock_text(CHANNELS, BOTH)
    assert locked(text, CHANNELS) == BOTH
    assert locked(text, CHANNELS[1:]) == ADAPTER
    assert locked(text, (*CHANNELS, "s3://models/other")) is None


def test_each_model_has_its_signer_and_all_of_them_must_be_allowed():
    signed = Version.of([V1._replace(signer="ann"), ADAPTER._replace(signer="ben")])
    assert [part.signer for part in signed.parts] == ["ann", "ben"]
    entries = json.loads(lock_text(CHANNELS, signed, signed=True))["models"].values()
    assert [entry["signature"]["signer"] for entry in entries] == ["ben", "ann"]
    assert locked(lock_text(CHANNELS, signed, signed=True), CHANNELS) == signed
    before = State(CHANNEL, Version.of([V2, ADAPTER]), phase="Current")
    observed = Observed(CHANNEL, signed, Service(True), has=before.current, is_locked=True)
    for allowed, phase in ((("ann",), "NotAllowed"), (("ann", "ben"), "Rolling")):
        assert decide(Policy(hold_s=0, signed_by=allowed), before, observed, 0.0).state.phase == phase


def test_the_status_keeps_it():
    state = State(CHANNEL, BOTH, Version.of([V2, ADAPTER]), 5.0, "Held", 5.0)
    assert read_state(status_of(state, (), 1)) == state


def test_another_version_of_one_model_is_another_version_with_another_digest():
    assert Version.of([V2, ADAPTER]).digest != BOTH.digest


def test_a_range_is_for_the_models_that_have_a_version():
    before = State(CHANNEL, BOTH, phase="Current")
    observed = Observed(CHANNEL, Version.of([V2, ADAPTER]), Service(True), has=BOTH, is_locked=True)
    phases = [decide(Policy(hold_s=0, versions=each), before, observed, 0.0).state.phase for each in ("<2", "<3")]
    assert phases == ["NotAllowed", "Rolling"]


def test_a_pin_of_the_owner_has_a_line_for_each_model():
    assert read_policy({"pin": BOTH.pin}).pin == Version(BOTH.pin)
    with pytest.raises(UsageError, match="has no pin"):
        read_policy({"pin": f"{V1.pin}\nhf://example/law"})
