"""The store of a node: ``store`` of the configuration file, and where variables say it is."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lading.errors import UsageError
from lading.settings.variables import Variables, parse_rate


class StoreSettings(NamedTuple):
    """A folder that deliveries share; none without a ``path``.

    A mark is a number of bytes of the store's own, or a percentage of its volume that is used; above ``high``
    models are evicted until it is below ``low``.  ``max_age_s`` of zero is no limit.  ``hard_links`` lets
    destinations share files with the store where blocks cannot be: only if nobody can write there.
    """

    path: str = ""
    high: str = "90%"
    low: str = "80%"
    max_age_s: float = 0.0
    hard_links: bool = False
    locks: bool = True


def read_store(config: Mapping[str, Any], env: Variables) -> StoreSettings:
    """What is configured; ``UsageError`` for anything in it that is not understood."""
    given = dict(config.get("store") or {})
    store = StoreSettings()
    for key, value in given.items():
        if key not in StoreSettings._fields:
            known = ", ".join(StoreSettings._fields)
            raise UsageError(f"the configuration has the unknown key store.{key}", hint=f"known: {known}")
        default = getattr(store, key)
        if isinstance(default, bool):
            good = isinstance(value, bool)
        elif isinstance(default, float):
            good = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        elif key in ("high", "low"):
            value = _mark(f"store.{key}", str(value))
            good = True
        else:
            good = isinstance(value, str)
        if not good:
            raise UsageError(f"store.{key} is {value!r}", hint=f"write for example {default!r}")
        store = store._replace(**{key: value})
    if env.get("LADING_STORE"):
        store = store._replace(path=env["LADING_STORE"])
    high, low = store.high, store.low
    if high.endswith("%") == low.endswith("%") and float(low.rstrip("%")) > float(high.rstrip("%")):
        raise UsageError(f"store.low is {low}, above store.high, which is {high}")
    return store


def _mark(name: str, text: str) -> str:
    """A watermark: a percentage, or bytes, which may be written as a rate is."""
    if re.fullmatch(r"(\d{1,2}(\.\d+)?|100)%", text):
        return text
    try:
        return str(int(parse_rate(text)))
    except UsageError as error:
        raise UsageError(f"{name} is {text!r}", hint="write 80% or a size such as 500GiB") from error
