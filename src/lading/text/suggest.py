"""What was perhaps meant: the hint of every "not found" and of every unknown word.

No hint offers what was asked for, nor a folder of that very name: it was looked into, and would send people in a circle.
"""

from collections.abc import Iterable, Sequence

from lading.text.printable import printable

_SHOWN = 3


def suggest(wanted: str, names: Iterable[str]) -> str:
    """``did you mean a, b or c?`` for the names closest to ``wanted``, or what there is, or ""."""
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
    """``did you mean a, b or c?`` for those of ``known`` that are close to ``wanted``; "" if none is.

    They are compared by what stands ``after`` a beginning that all have.
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
    """A name as people can tell it from ``wanted``: with blanks at its ends, or accents of their own, in escapes."""
    return ascii(name) if _is_misread(name) or _is_misread(wanted) else printable(name)


def _is_misread(name: str) -> bool:
    import unicodedata

    return name != unicodedata.normalize("NFC", name.strip())


def _others(wanted: str, names: Iterable[str]) -> list[str]:
    """The names that are not the one that was asked for, as people see them."""
    asked = printable(wanted)
    return [name for name in names if printable(name) not in (asked, f"{asked}/")]
