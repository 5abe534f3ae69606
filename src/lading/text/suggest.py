"""Suggestions for a misspelled name: the hint of every "not found" and of every unknown word.

No hint suggests the name that was asked for, or a folder of that name: that one has been searched already.
"""

from collections.abc import Iterable, Sequence

from lading.text.printable import printable

_SHOWN = 3


def suggest(wanted: str, names: Iterable[str]) -> str:
    """``did you mean a, b or c?`` for the names closest to ``wanted``; else some of the names; "" for no names."""
    known = sorted(_others(wanted, set(names)))
    if not known:
        return ""
    if close := did_you_mean(wanted, known):
        return close
    telling = sorted(known, key=lambda name: name.startswith("."))
    some = ", ".join(_shown(name, wanted) for name in telling[:_SHOWN])
    return f"there is {some}" + (" and more" if len(known) > _SHOWN else "")


def suggest_word(wanted: str, words: Iterable[str]) -> str:
    """``did you mean a?`` for the closest of a few fixed words, such as the keys of a section; else all of them."""
    others = _others(wanted, words)
    return did_you_mean(wanted, others) or (f"known: {', '.join(others)}" if others else "")


def did_you_mean(wanted: str, known: Sequence[str], *, after: str = "") -> str:
    """``did you mean a, b or c?`` for the names in ``known`` that are close to ``wanted``; "" if none is.

    Names are compared without the prefix ``after``, which all of them have.
    """
    from difflib import get_close_matches

    known = _others(wanted, known)
    wanted, rests = wanted.removeprefix(after), [name.removeprefix(after) for name in known]
    stem = wanted.rstrip("/").lower()
    starts = [rest for rest in rests if rest.lower().startswith(stem)] if stem else []
    close = list(dict.fromkeys([*starts, *get_close_matches(wanted, rests, _SHOWN)]))[:_SHOWN]
    if not close:
        return ""
    shown = [_shown(after + rest, after + wanted) for rest in close]
    return "did you mean " + (f"{', '.join(shown[:-1])} or {shown[-1]}?" if len(shown) > 1 else f"{shown[0]}?")


def _shown(name: str, wanted: str) -> str:
    """A name in a form that differs visibly from ``wanted``: outer blanks and decomposed accents are escaped."""
    return ascii(name) if _is_misread(name) or _is_misread(wanted) else printable(name)


def _is_misread(name: str) -> bool:
    import unicodedata

    return name != unicodedata.normalize("NFC", name.strip())


def _others(wanted: str, names: Iterable[str]) -> list[str]:
    """The names without the one that was asked for, compared as people see them."""
    asked = printable(wanted)
    return [name for name in names if printable(name) not in (asked, f"{asked}/")]
