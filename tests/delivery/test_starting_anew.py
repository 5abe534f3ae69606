"""Of what cannot be resumed nobody says that it will be, and a run that starts anew says so."""

import pytest

from fakes.faulty_http import ALWAYS, cut, stall
from fakes.trees import MIB, content, read_tree
from lading import events as told
from lading.errors import DeadlineExceeded, Interrupted, LadingError, Unavailable
from lading.settings.limits import Limits

MODEL = content(6 * MIB)
WAYS = {
    "no ranges": {"ranges": False},
    "no validator": {"etag": ""},
    "a weak validator": {"etag": 'W/"v1"'},
}
ANEW = "run it again: it starts from the beginning, since nothing that was received can be used again"


@pytest.fixture(params=WAYS)
def uri(request, server) -> str:
    return server.put("/model.bin", MODEL, **WAYS[request.param])


def anew(events) -> list[told.Restarted]:
    return [event for event in events if isinstance(event, told.Restarted)]


@pytest.fixture
def stop(uri, server, pull, tmp_path):
    """Let a delivery end with this error, half-way."""
    server.misbehave("/model.bin", stall(5 * MIB, times=ALWAYS))

    def call(error: BaseException) -> None:
        def listener(event: told.Event) -> None:
            if isinstance(event, told.Progress) and event.done_bytes > MIB:
                raise error

        pull(uri, tmp_path / "model", listener=listener)

    return call


def test_a_run_that_cannot_go_on_says_so_and_only_then(uri, server, pull, tmp_path, events):
    server.misbehave("/model.bin", cut(5 * MIB, times=ALWAYS))
    with pytest.raises(Unavailable) as caught:
        pull(uri, tmp_path / "model")
    assert caught.value.hint == ANEW
    assert anew(events) == []
    server.behave()
    pull(uri, tmp_path / "model")
    [event] = anew(events)
    assert event.destination == str(tmp_path / "model")
    assert event.why.startswith("its origin cannot send a part of a file")
    assert read_tree(tmp_path / "model") == {"model.bin": MODEL}
    pull(uri, tmp_path / "model")
    assert len(anew(events)) == 1


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (Interrupted("stopped by a signal", hint="run it again to resume"), ANEW),
        (
            DeadlineExceeded("the time is over", hint="run again to resume"),
            ANEW.replace("run it again", "raise the deadline"),
        ),
        (Unavailable("a hint of its own", hint="look there"), "look there"),
    ],
)
def test_no_error_promises_what_does_not_hold(stop, error, hint):
    with pytest.raises(type(error)) as caught:
        stop(error)
    assert caught.value.hint == hint


def test_nor_does_a_stop_from_the_keyboard(stop):
    with pytest.raises(KeyboardInterrupt, match=ANEW):
        stop(KeyboardInterrupt())


def test_what_is_resumed_does_not_start_anew(server, pull, tmp_path, events):
    uri = server.put("/model.bin", MODEL)
    server.misbehave("/model.bin", cut(5 * MIB, times=ALWAYS))
    with pytest.raises(Unavailable) as caught:
        pull(uri, tmp_path / "model", limits=Limits(attempts=1))
    assert caught.value.hint == ""
    server.behave()
    pull(uri, tmp_path / "model")
    assert anew(events) == []
    assert any(isinstance(event, told.Resumed) for event in events)


def test_another_version_starts_anew(server, pull, tmp_path, events):
    uri = server.put("/model.bin", MODEL)
    server.misbehave("/model.bin", cut(5 * MIB, times=ALWAYS))
    with pytest.raises(LadingError):
        pull(uri, tmp_path / "model", limits=Limits(attempts=1))
    server.behave()
    server.put("/model.bin", MODEL[::-1], etag='"v2"')
    pull(uri, tmp_path / "model")
    assert anew(events) == [told.Restarted(str(tmp_path / "model"), "")]
