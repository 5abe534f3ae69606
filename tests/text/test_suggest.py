"""The hint of every "not found"."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lading
from lading.text.printable import printable
from lading.text.suggest import did_you_mean, suggest, suggest_word


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
        ("empty", ["empty/"], ""),
        ("empty/", ["empty/"], ""),
        ("empty/", ["empty"], "did you mean empty?"),
        ("empty", ["empty/", "empty-2/"], "did you mean empty-2/?"),
        ("zzz", ["zzz", "iris"], "there is iris"),
        ("a\x01", ["a\\x01"], ""),
        ("model", ["model "], "did you mean 'model '?"),
        ("model ", ["model/a"], "did you mean 'model/a'?"),
        ("caf\u00e9", ["cafe\u0301/a"], "there is 'cafe\\u0301/a'"),
        ("cafe\u0301", ["caf\u00e9"], "did you mean 'caf\\xe9'?"),
    ],
)
def test_a_hint_names_what_is_near(wanted: str, names: list[str], hint: str) -> None:
    assert suggest(wanted, names) == hint


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=10))
def test_a_hint_never_holds_a_control_character(wanted: str, names: list[str]) -> None:
    assert not any(ord(character) < 32 for character in suggest(wanted, names))


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
    assert suggest_word(wanted, ["pull", "push"]) == hint


_WORDS = st.text("ab/ Ä\x01", max_size=6)


def offered(hint: str) -> set[str]:
    """The names in a hint; those of these tests hold none of its own words."""
    for own in ("did you mean ", "there is ", "known: "):
        hint = hint.removeprefix(own)
    return set(re.split(r", | or |\?$| and more$", hint))


@given(_WORDS, st.lists(_WORDS, max_size=6), st.data())
def test_no_hint_ever_offers_what_was_asked_for(wanted: str, names: list[str], data: st.DataObject) -> None:
    names = data.draw(st.permutations([*names, wanted, f"{wanted}/"]))
    asked = {printable(wanted), printable(f"{wanted}/")} - {""}
    for hint in (suggest(wanted, names), suggest_word(wanted, names), did_you_mean(wanted, names)):
        assert not asked & offered(hint), hint
    whole = [f"LADING_{name}" for name in names]
    hint = did_you_mean(f"LADING_{wanted}", whole, after="LADING_")
    assert not {f"LADING_{name}" for name in asked} & offered(hint), hint


def test_only_near_makes_up_what_was_perhaps_meant() -> None:
    root = Path(lading.__file__).parent
    writers = {str(module.relative_to(root)) for module in root.rglob("*.py") if "did you mean" in module.read_text()}
    # A path is no URI, and a mapping's key is no key that it lacks: neither can be offered for itself.
    assert writers == {"text/suggest.py", "sources/schemes.py", "registries/catalog.py"}
