"""What was perhaps meant: the hint of every "not found" and of every unknown word."""

from collections.abc import Iterable, Sequence

from lading.uri import printable

_SHOWN = 3


def near_hint(wanted: str, names: Iterable[str]) -> str:
    """``did you mean a, b or c?`` for the names closest to ``wanted``, or what there is, or ""."""
    known = sorted(set(names))
    if not known:
        return ""
    if close := did_you_mean(wanted, known):
        return close
    telling = sorted(known, key=lambda name: name.startswith("."))
    some = ", ".join(printable(name) for name in telling[:_SHOWN])
    return f"there is {some}" + (" and more" if len(known) > _SHOWN else "")


def known_hint(wanted: str, words: Iterable[str]) -> str:
    """``did you mean a?`` for the closest of a few fixed words, such as the keys of a section; else all of them."""
    words = list(words)
    return did_you_mean(wanted, words) or f"known: {', '.join(words)}"


def did_you_mean(wanted: str, known: Sequence[str], *, after: str = "") -> str:
    """``did you mean a, b or c?`` for those of ``known`` that are close to ``wanted``; "" if none is.

    They are compared by what stands ``after`` a beginning that all have.
    """
    from difflib import get_close_matches

    wanted, rests = wanted.removeprefix(after), [name.removeprefix(after) for name in known]
    stem = wanted.rstrip("/").lower()
    starts = [rest for rest in rests if rest.lower().startswith(stem)] if stem else []
    close = list(dict.fromkeys([*starts, *get_close_matches(wanted, rests, _SHOWN)]))[:_SHOWN]
    if not close:
        return ""
    shown = [printable(after + rest) for rest in close]
    return "did you mean " + (f"{', '.join(shown[:-1])} or {shown[-1]}?" if len(shown) > 1 else f"{shown[0]}?")
