"""The hint of every "not found": what is there that was perhaps meant."""

from collections.abc import Iterable

from lading.uri import printable

_SHOWN = 3


def near_hint(wanted: str, names: Iterable[str]) -> str:
    """``did you mean a, b or c?`` for the names closest to ``wanted``, or what there is, or ""."""
    from difflib import get_close_matches

    known = sorted(set(names))
    if not known:
        return ""
    stem = wanted.rstrip("/").lower()
    starts = [name for name in known if name.lower().startswith(stem)] if stem else []
    close = list(dict.fromkeys([*starts, *get_close_matches(wanted, known, _SHOWN)]))[:_SHOWN]
    if not close:
        telling = sorted(known, key=lambda name: name.startswith("."))
        some = ", ".join(printable(name) for name in telling[:_SHOWN])
        return f"there is {some}" + (" and more" if len(known) > _SHOWN else "")
    shown = [printable(name) for name in close]
    return "did you mean " + (f"{', '.join(shown[:-1])} or {shown[-1]}?" if len(shown) > 1 else f"{shown[0]}?")
