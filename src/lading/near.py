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


def did_you_mean(wanted: str, known: Sequence[str]) -> str:
    """``did you mean a, b or c?`` for those of ``known`` that are close to ``wanted``; "" if none is."""
    from difflib import get_close_matches

    stem = wanted.rstrip("/").lower()
    starts = [name for name in known if name.lower().startswith(stem)] if stem else []
    close = [printable(name) for name in dict.fromkeys([*starts, *get_close_matches(wanted, known, _SHOWN)])][:_SHOWN]
    if not close:
        return ""
    return "did you mean " + (f"{', '.join(close[:-1])} or {close[-1]}?" if len(close) > 1 else f"{close[0]}?")
