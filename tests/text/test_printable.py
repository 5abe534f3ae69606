"""Text from outside as it is printed: nobody can hide a part of a name, or turn it round."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.text.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x9b", "a\\x1b[31mb\\x9b"),
        ("exe.\u202egnp", "exe.\\u202egnp"),
        ("\u200fmodel\u061c", "\\u200fmodel\\u061c"),
        ("mo\u200bdel\u2060\ufeff", "mo\\u200bdel\\u2060\\ufeff"),
        ("gr\u00fc\u00dfe-\u6a21-\U0001f469\u200d\U0001f52c-\u0645\u06cc\u200c\u062e", None),
    ],
    ids=["terminal", "override", "marks", "no width", "words"],
)
def test_what_cannot_be_seen_is_escaped_and_words_of_any_script_are_not(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)


@given(st.text())
def test_what_is_printed_has_no_control_character_and_no_mark_of_direction(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.bidirectional(each) for each in shown} & {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI"}
    assert not any(unicodedata.category(each) == "Cc" for each in shown)
    assert printable(shown) == shown
