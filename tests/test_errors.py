"""What is said of an error that nobody foresaw."""

import json
import re
import threading

from lading.errors import LadingError, defect
from lading.retry import Retry


def of(failing) -> LadingError:
    try:
        Retry(threading.Event()).call(failing, what="it")
    except (ValueError, RecursionError) as error:
        return defect(error)
    raise AssertionError("it did not fail")


def test_a_defect_tells_where_lading_was_and_not_the_errors_message():
    told = of(lambda: json.loads("secret: hunter2"))
    assert re.fullmatch(r"JSONDecodeError at retry\.py:\d+", told.message)
    assert (told.code, told.exit_code) == ("internal", 1)
    assert "report it" in told.hint


def test_its_places_are_innermost_first_and_few():
    retry = Retry(threading.Event())

    def deeper(left: int) -> None:
        if not left:
            raise RecursionError
        retry.call(lambda: deeper(left - 1), what="it")

    places = of(lambda: retry.check(what=deeper(3))).message.partition(" at ")[2].split(", ")
    assert len(places) == 4
    assert len(of(lambda: deeper(50)).message.split(", ")) == 12


def test_a_defect_outside_of_lading_has_no_place():
    assert defect(KeyError("secret")).message == "KeyError"
