"""The hint of every "not found"."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.near import known_hint, near_hint


@pytest.mark.parametrize(
    ("wanted", "names", "hint"),
    [
        ("llama", [], ""),
        ("llama", ["llama-3/"], "did you mean llama-3/?"),
        ("llama", ["llama-3/", "llama-guard/"], "did you mean llama-3/ or llama-guard/?"),
        ("llama", ["llama-1", "llama-2", "llama-3", "llama-4"], "did you mean llama-1, llama-2 or llama-3?"),
        ("Llama/", ["llama-3"], "did you mean llama-3?"),
        ("irsi", ["iris", "bert"], "did you mean iris?"),
        ("zzz", ["iris"], "there is iris"),
        ("zzz", ["b", "a", "c", "a"], "there is a, b, c"),
        ("zzz", ["b", "a", "c", "d"], "there is a, b, c and more"),
        ("", ["a", "b"], "there is a, b"),
        ("model", ["model\x1b[2J"], "did you mean model\\x1b[2J?"),
    ],
)
def test_a_hint_names_what_is_near(wanted: str, names: list[str], hint: str) -> None:
    assert near_hint(wanted, names) == hint


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=10))
def test_a_hint_never_holds_a_control_character(wanted: str, names: list[str]) -> None:
    assert not any(ord(character) < 32 for character in near_hint(wanted, names))


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("pul", "did you mean pull?"),
        ("pus", "did you mean push?"),
        ("zzz", "known: pull, push"),
        ("", "known: pull, push"),
    ],
)
def test_a_word_that_is_not_known_has_a_near_one_or_all(wanted: str, hint: str) -> None:
    assert known_hint(wanted, ["pull", "push"]) == hint
