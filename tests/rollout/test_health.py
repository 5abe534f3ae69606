"""How the pods of a service are with a pin."""

import pytest

from lading.rollout.health import Pod, Service, health

NEW, OLD = "s3://m?pin=sha256:2", "s3://m?pin=sha256:1"


def word(*pods: Pod, ready: bool = True, transition: str = "", failure: str = "") -> str:
    return health(Service(ready, pods, transition, failure), NEW).word


def test_all_pods_serve_it():
    assert word(Pod(NEW, True), Pod(NEW, True)) == "serving"


@pytest.mark.parametrize(
    "pods",
    [[Pod(NEW, True), Pod(OLD, True)], [Pod(NEW, True), Pod(NEW, False)], [Pod(OLD, True)], [Pod("", True)]],
    ids=["an old pod is there", "one is not ready", "none has it", "none has a pin"],
)
def test_pods_are_still_coming(pods):
    assert word(*pods) == "coming"


def test_a_service_that_is_not_ready_does_not_serve_it():
    assert word(Pod(NEW, True), ready=False) == "coming"


def test_a_service_without_pods_is_not_healthy():
    assert word() == "idle"


@pytest.mark.parametrize("exit_code", [2, 3, 6, 8])
def test_what_the_storage_container_says_of_a_model_is_final(exit_code):
    found = health(Service(True, (Pod(OLD, True), Pod(NEW, False, exit_code, "error[integrity]: …"))), NEW)
    assert found[:2] == ("failed", "error[integrity]: …")


@pytest.mark.parametrize("exit_code", [1, 4, 5, 7, 137, 143])
def test_what_may_be_well_again_is_waited_for(exit_code):
    found = health(Service(True, (Pod(OLD, True), Pod(NEW, False, exit_code, "error[unavailable]: …"))), NEW)
    assert found[:2] == ("coming", "error[unavailable]: …")


def test_an_old_pod_that_failed_says_nothing_of_the_new_pin():
    assert word(Pod(OLD, False, 6), Pod(NEW, True)) == "coming"


@pytest.mark.parametrize("transition", ["BlockedByFailedLoad", "InvalidSpec"])
def test_the_server_says_that_it_cannot_load_it(transition):
    found = health(Service(False, (Pod(NEW, False),), transition, "ModelLoadFailed: no such format"), NEW)
    assert found[:2] == ("failed", "ModelLoadFailed: no such format")


def test_what_kserve_says_is_of_another_pin_while_no_pod_has_this_one():
    assert word(Pod(OLD, False), transition="BlockedByFailedLoad") == "coming"
    assert word(Pod(NEW, True), Pod(OLD, True), transition="BlockedByFailedLoad") == "coming"
