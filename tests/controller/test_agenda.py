"""When names are due, and who works on them."""

import threading

import pytest

from lading.controller.agenda import Agenda


class Worked:
    """An agenda whose work is noted; ``meanwhile`` is done during the next work."""

    def __init__(self, clock) -> None:
        self.agenda = Agenda(self._work, clock.now, ("done",))
        self.names: list[str] = []
        self.meanwhile = lambda: None

    def _work(self, name: str) -> str:
        self.names.append(name)
        self.meanwhile()
        return "done" if name else ""

    def go_on(self) -> float:
        wait_s = self.agenda.begin()
        self.agenda.serve(forever=False)
        return wait_s


@pytest.fixture
def worked(clock):
    return Worked(clock)


def test_what_is_due_is_done_once(worked, clock):
    worked.agenda.put("now")
    worked.agenda.put("later", 10)
    assert worked.go_on() == 10
    assert worked.go_on() == 10
    clock.seconds = 10
    assert worked.go_on() == float("inf")
    assert worked.names == ["now", "later"]
    assert worked.agenda.ended == {"done": 2}


def test_the_sooner_time_counts(worked, clock):
    worked.agenda.put("iris", 10)
    worked.agenda.put("iris", 60)
    clock.seconds = 10
    worked.go_on()
    assert worked.names == ["iris"]


def test_what_is_put_while_it_is_done_is_done_again_and_not_by_two_at_a_time(worked):
    def hurry() -> None:
        worked.meanwhile = lambda: None
        worked.agenda.put("iris")
        assert worked.go_on() == float("inf")

    worked.meanwhile = hurry
    worked.agenda.put("iris")
    worked.go_on()
    assert worked.names == ["iris"]
    worked.go_on()
    assert worked.names == ["iris", "iris"]


def test_work_that_fails_is_no_longer_under_way(worked):
    worked.meanwhile = lambda: 1 / 0
    worked.agenda.put("iris")
    with pytest.raises(ZeroDivisionError):
        worked.go_on()
    worked.meanwhile = lambda: None
    worked.agenda.put("iris")
    worked.go_on()
    assert worked.names == ["iris", "iris"]


def test_threads_wait_for_work_for_ever(worked):
    done = threading.Event()
    worked.meanwhile = done.set
    threading.Thread(target=worked.agenda.serve, name="worker", daemon=True).start()
    worked.agenda.put("iris")
    worked.agenda.begin()
    assert done.wait(10)
