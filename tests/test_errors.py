"""An error in other words, and what is said of one that nobody foresaw."""

import json
import re
import threading

from lading.errors import LadingError, Stalled, Unavailable, internal_error
from lading.retry import Retry, Run


def test_an_error_in_other_words_is_of_its_kind_and_as_retryable_and_the_first_one_stays():
    first = Stalled("nothing came", hint="wait", retry_after_s=3.0)
    other = first.rephrased(message="a host: nothing came")
    assert (type(other), str(other), other.hint, other.retry_after_s) == (Stalled, "a host: nothing came", "wait", 3.0)
    assert str(first) == "nothing came"
    other.retryable = False
    last = other.rephrased(hint="check the host")
    assert (str(last), last.hint, last.retryable) == ("a host: nothing came", "check the host", False)
    assert Unavailable.retryable
    assert first.retryable


def of(failing) -> LadingError:
    try:
        Retry(Run(threading.Event())).call(failing, what="it")
    except (ValueError, RecursionError) as error:
        return internal_error(error)
    raise AssertionError("it did not fail")


def test_a_defect_tells_where_lading_was_and_not_the_errors_message():
    told = of(lambda: json.loads("secret: hunter2"))
    assert re.fullmatch(r"JSONDecodeError at retry\.py:\d+", told.message)
    assert (told.code, told.exit_code) == ("internal", 1)
    assert "report it" in told.hint


def test_its_places_are_innermost_first_and_few():
    retry = Retry(Run(threading.Event()))

    def deeper(left: int) -> None:
        if not left:
            raise RecursionError
        retry.call(lambda: deeper(left - 1), what="it")

    places = of(lambda: retry.run.check(what=deeper(3))).message.partition(" at ")[2].split(", ")
    assert len(places) == 4
    assert len(of(lambda: deeper(50)).message.split(", ")) == 12


def test_a_defect_outside_of_lading_has_no_place():
    assert internal_error(KeyError("secret")).message == "KeyError"
