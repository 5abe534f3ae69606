"""The same faults give the same errors, and leave the same destination, through every source."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest

from conformance.scene import NEW, Scene, scenes
from fakes.destination import OLD_MODEL, Destination
from fakes.faulty_http import (
    ALWAYS,
    Fault,
    FaultyServer,
    Request,
    cut,
    labelled,
    redirect,
    reset,
    stall,
    status,
    wrong_byte,
)
from fakes.trees import write_tree
from lading.errors import IntegrityError, LadingError, NotAllowed, NotFound, OriginChanged, Unavailable

RANGE_BYTES = 256 * 1024
LISTING_BYTES = 32 * 1024


SCENES = scenes("FAULTS")


@pytest.fixture(params=SCENES.values(), ids=SCENES)
def scene(request, server) -> Iterator[Scene]:
    with request.param(server) as scene:
        yield scene


@pytest.fixture
def destination(tmp_path, pull) -> Destination:
    pull(str(write_tree(tmp_path / "old", OLD_MODEL)), tmp_path / "destination" / "model")
    return Destination(tmp_path / "destination" / "model")


@pytest.fixture
def deliver(scene, destination, pull) -> Callable[[], object]:
    # Where nothing stalls, a busy machine must not look like it.
    limits = scene.limits._replace(stall_s=10.0)
    return partial(pull, scene.uri, destination.path, range_bytes=RANGE_BYTES, limits=limits, **scene.settings)


def where(scene: Scene, name: str) -> Callable[[Request], bool]:
    return {"listing": scene.lists, "reading": scene.reads}[name]


EVERYWHERE = pytest.mark.parametrize("place", ["listing", "reading"])


@EVERYWHERE
@pytest.mark.parametrize(
    ("code", "kind", "exit_code"), [(404, NotFound, 3), (401, NotAllowed, 4), (403, NotAllowed, 4)]
)
def test_a_lasting_refusal_ends_the_delivery(scene, destination, deliver, place, code, kind, exit_code):
    scene.misbehave(status(code, times=ALWAYS, on=where(scene, place)))
    with pytest.raises(kind) as caught:
        deliver()
    assert caught.value.exit_code == exit_code
    destination.assert_untouched()


@EVERYWHERE
@pytest.mark.parametrize("code", [500, 503])
def test_a_burst_of_server_errors_is_waited_out(scene, destination, deliver, place, code):
    scene.misbehave(status(code, b"a proxy's page", times=3, on=where(scene, place)))
    deliver()
    destination.assert_holds(scene.files)


@EVERYWHERE
def test_retry_after_is_waited(scene, destination, deliver, clock, place):
    scene.misbehave(status(429, headers={"Retry-After": "7"}, on=where(scene, place)))
    deliver()
    destination.assert_holds(scene.files)
    assert 7 <= max(clock.waits) < 7.8


@EVERYWHERE
def test_a_server_that_stays_down_ends_the_delivery(scene, destination, deliver, place):
    scene.misbehave(status(503, times=ALWAYS, on=where(scene, place)))
    with pytest.raises(Unavailable) as caught:
        deliver()
    assert caught.value.exit_code == 5
    destination.assert_untouched()


@EVERYWHERE
@pytest.mark.parametrize("broken", [reset, cut, stall])
def test_a_body_that_breaks_off_is_fetched_anew_or_continued(scene, destination, deliver, place, broken):
    scene.misbehave(broken(at=10 if place == "listing" else 100_000, on=where(scene, place)))
    deliver(**({"limits": scene.limits} if broken is stall else {}))
    destination.assert_holds(scene.files)


@pytest.mark.parametrize("broken", [reset, cut])
def test_a_body_that_never_begins_ends_the_delivery(scene, destination, deliver, broken):
    scene.misbehave(broken(at=0, times=ALWAYS, on=scene.reads))
    with pytest.raises(Unavailable) as caught:
        deliver()
    assert caught.value.exit_code == 5
    destination.assert_untouched()


def test_what_an_interrupted_delivery_brought_is_not_fetched_again(scene, destination, deliver):
    scene.misbehave(reset(at=0, after=2, times=ALWAYS, on=scene.reads))
    # What comes in one piece has come by then.
    with suppress(Unavailable):
        deliver()
        destination.assert_holds(scene.files)
    received = destination.received_bytes()
    scene.server.behave()
    deliver()
    destination.assert_holds(scene.files)
    assert scene.server.sent_bytes <= sum(map(len, scene.files.values())) - received + LISTING_BYTES


@pytest.mark.parametrize("after", [0, 1], ids=["before-reading", "between-ranges"])
def test_versions_are_never_mixed(scene, destination, deliver, after):
    scene.misbehave(scene.server.before(lambda: scene.put(NEW), after=after, on=scene.reads))
    try:
        deliver()
    except OriginChanged:
        destination.assert_untouched()
    else:
        # Where a version stays readable after it was replaced, the listed one is right as well.
        destination.assert_holds_one_of(scene.new_files(), scene.files)


def test_a_wrong_byte_every_time_is_refused(scene, destination, deliver):
    if not scene.declares:
        pytest.skip("this origin declares no digest")
    scene.misbehave(wrong_byte(500_000, times=ALWAYS, on=scene.reads))
    with pytest.raises(IntegrityError) as caught:
        deliver()
    assert caught.value.exit_code == 6
    destination.assert_untouched()


@pytest.mark.parametrize("word", ["aws-chunked", "utf-8"])
def test_a_content_coding_that_is_none_changes_nothing(scene, destination, deliver, word):
    scene.misbehave(labelled(word))
    deliver(verify="strict" if scene.declares else "auto")
    destination.assert_holds(scene.files)


@EVERYWHERE
@pytest.mark.parametrize("code", [302, 307])
def test_no_credential_follows_a_redirect_to_another_host(scene, destination, deliver, place, code):
    with FaultyServer(host="localhost") as elsewhere:
        elsewhere.routes["/"] = scene.server.correct_answer

        def lead_away(request, answer):
            return redirect(elsewhere.url + request.target, code).change(request, answer)

        scene.misbehave(Fault(lead_away, times=ALWAYS, on=where(scene, place)))
        try:
            deliver()
        except LadingError:
            destination.assert_untouched()
        else:
            destination.assert_holds(scene.files)
    # An OCI registry is told who asks only after it has asked itself.
    told = not (scene.uri.startswith("oci") and place == "listing")
    assert not (scene.secret and told) or scene.secret in repr(scene.server.requests)
    assert not scene.secret or scene.secret not in repr(elsewhere.requests)
