"""The one retry loop, on a clock that never sleeps."""

import threading
from collections.abc import Callable

import pytest

from lading.errors import (
    DeadlineExceeded,
    IntegrityError,
    Interrupted,
    LadingError,
    NoSpace,
    NotAllowed,
    NotFound,
    OriginChanged,
    Stalled,
    Unavailable,
    Unsupported,
    UsageError,
)
from lading.events import Event, Retried, ignore
from lading.retry import Retry, Run


class Origin:
    """Fails with each of these errors in turn, then answers."""

    def __init__(self, *errors: LadingError) -> None:
        self.errors = list(errors)
        self.asked = 0

    def __call__(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.fixture
def retry(clock) -> Callable[..., Retry]:
    """Make one on the fake clock."""

    def make(*, stop: threading.Event | None = None, deadline_s: float | None = None, listener=ignore, **how) -> Retry:
        return Retry(Run(stop or threading.Event(), clock, deadline_s, listener), **how)

    return make


def test_an_answer_at_once_waits_for_nothing(retry, clock) -> None:
    assert retry().call(Origin(), what="x") == "answer"
    assert clock.waits == []


@pytest.mark.parametrize("kind", [Unavailable, Stalled])
def test_what_may_work_later_is_tried_again(retry, clock, kind: type[LadingError]) -> None:
    heard = list[Event]()
    origin = Origin(kind("one"), kind("two"))
    assert retry(listener=heard.append).call(origin, what="x") == "answer"
    assert origin.asked == 3
    assert heard == [Retried("x", "one", clock.waits[0], 2, 6), Retried("x", "two", clock.waits[1], 3, 6)]


@pytest.mark.parametrize(
    "kind",
    [LadingError, UsageError, NotFound, NotAllowed, OriginChanged, IntegrityError, NoSpace, Unsupported, Interrupted],
)
def test_what_is_final_is_not_tried_again(retry, clock, kind: type[LadingError]) -> None:
    origin = Origin(kind("no"))
    with pytest.raises(kind, match="no"):
        retry().call(origin, what="x")
    assert (origin.asked, clock.waits) == (1, [])


def test_an_error_that_is_not_ladings_is_not_tried_again(retry) -> None:
    def attempt() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        retry().call(attempt, what="x")


def test_after_the_last_attempt_the_last_error_is_raised(retry, clock) -> None:
    origin = Origin(*(Unavailable(str(n)) for n in range(10)))
    with pytest.raises(Unavailable, match="3"):
        retry(attempts=4).call(origin, what="x")
    assert origin.asked == 4
    assert len(clock.waits) == 3


def test_one_attempt_means_one(retry) -> None:
    origin = Origin(Unavailable("no"))
    with pytest.raises(Unavailable):
        retry(attempts=1).call(origin, what="x")
    assert origin.asked == 1


def test_waits_grow_up_to_a_cap_with_full_jitter(retry, clock) -> None:
    bounds = [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    seen: list[list[float]] = [[] for _ in bounds]
    for _ in range(60):
        clock.waits.clear()
        with pytest.raises(Unavailable):
            retry(attempts=8, base_s=0.25, cap_s=5.0).call(Origin(*[Unavailable("")] * 8), what="x")
        for waits, wait in zip(seen, clock.waits, strict=True):
            waits.append(wait)
    for waits, bound in zip(seen, bounds, strict=True):
        assert 0 <= min(waits) < bound * 0.3
        assert bound * 0.7 < max(waits) <= bound


def test_whoever_waits_for_ever_is_waited_for_and_not_counted_out(retry, clock) -> None:
    origin = Origin(*(Unavailable("away") for _ in range(2000)))
    assert retry(attempts=1_000_000, cap_s=20.0).call(origin, what="x") == "answer"
    assert max(clock.waits) <= 20.0


def test_the_origins_wish_is_a_lower_bound(retry, clock) -> None:
    retry().call(Origin(Unavailable("slow down", retry_after_s=42.0)), what="x")
    assert 42.0 <= clock.waits[0] <= 46.2


def test_progress_begins_the_count_of_attempts_anew(retry, clock) -> None:
    gained = [0]

    def attempt() -> str:
        if gained[0] == 30:
            return "whole"
        gained[0] += 1
        raise Unavailable("reset")

    assert retry(attempts=3).call(attempt, what="x", progress=lambda: gained[0]) == "whole"
    assert len(clock.waits) == 30


def test_without_progress_the_attempts_run_out(retry) -> None:
    gained = iter([0, 1, 1, 1, 1, 1, 1, 1])
    last = [0]

    def progress() -> int:
        last[0] = next(gained, 1)
        return last[0]

    origin = Origin(*[Unavailable("reset")] * 10)
    with pytest.raises(Unavailable):
        retry(attempts=3).call(origin, what="x", progress=progress)
    assert origin.asked <= 5


def test_a_wait_that_would_pass_the_deadline_is_not_begun(retry, clock) -> None:
    origin = Origin(Unavailable("busy", retry_after_s=100.0))
    with pytest.raises(DeadlineExceeded, match="busy"):
        retry(deadline_s=50.0).call(origin, what="x")
    assert clock.waits == []


def test_nothing_is_begun_after_the_deadline(retry, clock) -> None:
    origin = Origin()
    clock.seconds = 2000.0
    with pytest.raises(DeadlineExceeded):
        retry(deadline_s=1999.0).call(origin, what="x")
    assert origin.asked == 0


def test_who_was_stopped_begins_nothing(retry) -> None:
    stop, origin = threading.Event(), Origin()
    stop.set()
    with pytest.raises(Interrupted):
        retry(stop=stop).call(origin, what="x")
    assert origin.asked == 0


def test_a_stop_ends_the_wait(retry) -> None:
    stop = threading.Event()
    heard: list[Event] = []

    def listener(event: Event) -> None:
        heard.append(event)
        stop.set()

    origin = Origin(Unavailable("busy"))
    with pytest.raises(Interrupted):
        retry(stop=stop, listener=listener).call(origin, what="x")
    assert origin.asked == 1
    assert len(heard) == 1


def test_tries_within_tries_do_not_multiply(retry) -> None:
    within, origin = retry(attempts=3), Origin(*(Unavailable("busy") for _ in range(100)))
    with pytest.raises(Unavailable, match="busy"):
        retry(attempts=3).call(lambda: within.call(origin, what="a token"), what="a file")
    assert origin.asked == 3
