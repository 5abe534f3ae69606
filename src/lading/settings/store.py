"""The store of a node: ``store`` of the configuration file, and ``LADING_STORE``."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lading.errors import UsageError
from lading.settings.section import read_section, shown
from lading.settings.variables import Variables, parse_rate
from lading.text.printable import printable

_EXAMPLES = {"path": "/var/lib/lading", "quotas": "{team-a: 500GiB}", "max_age_s": "604800 for a week"}
# A smaller number without a unit is a mistake.
_LEAST_BYTES = 1 << 20


class StoreSettings(NamedTuple):
    """A folder that deliveries share; none without a ``path``.

    Above the mark ``high``, models are evicted until usage is below ``low``.  A mark is either the size of the store
    in bytes, or the used percentage of its volume.  ``quotas`` are bytes by namespace, "*" for every other one.
    ``max_age_s`` zero means no limit.  ``hard_links`` makes files of
    destinations hard links into the store where the file system cannot share blocks: only for destinations that
    nobody can write to.  Within ``scrub_s`` seconds an agent hashes every file again, reading at most
    ``scrub_bytes_s``; zero means never, and no limit.
    """

    path: str = ""
    # Below the thresholds of a kubelet: it removes images at 85 %, and evicts pods at 90 %.
    high: str = "80%"
    low: str = "70%"
    max_age_s: float = 0.0
    hard_links: bool = False
    locks: bool = True
    scrub_s: float = 7 * 24 * 3600.0
    scrub_bytes_s: int = 20_000_000
    quotas: Mapping[str, str] = MappingProxyType({})

    def quota_bytes(self, namespace: str) -> int | None:
        """The most bytes that a namespace may use; None if there is no limit."""
        quota = self.quotas.get(namespace, self.quotas.get("*"))
        return None if quota is None else int(quota)


def read_store(config: Mapping[str, Any], env: Variables) -> StoreSettings:
    """Read the store's settings; ``UsageError`` for anything in them that is not understood."""
    given = dict(config.get("store") or {})
    given |= {key: _mark(f"store.{key}", given[key]) for key in ("high", "low") if key in given}
    if isinstance(quotas := given.get("quotas"), Mapping):
        given["quotas"] = {name: _size(f"store.quotas.{name}", text) for name, text in quotas.items()}
    store = read_section(StoreSettings, given, "store", examples=_EXAMPLES)
    high, low = store.high, store.low
    if high.endswith("%") == low.endswith("%") and float(low.rstrip("%")) > float(high.rstrip("%")):
        raise UsageError(
            f"store.low is {low}, above store.high, which is {high}", hint="eviction stops at the lower mark"
        )
    return store._replace(path=env.get("LADING_STORE") or store.path)


def _mark(name: str, value: object) -> str:
    """Read a mark: a percentage, or a number of bytes in the form of ``parse_rate``."""
    text = "" if isinstance(value, bool) else str(value)
    if re.fullmatch(r"(\d{1,2}(\.\d+)?|100)%", text):
        return text
    bare = re.fullmatch(r"\d+(\.\d+)?", text)
    if bare and float(text) < _LEAST_BYTES:
        # A share, or a percentage without its sign: it would evict every model but the newest.
        percent = float(text) * (100 if float(text) <= 1 else 1)
        meant = f"{percent:g}%" if 0 < percent <= 100 else "80%"
        raise UsageError(f"{name} is {shown(value)} bytes", hint=f"write {meant}, or a size such as 500GiB")
    return _size(name, value, "80%, or ")


def _size(name: str, value: object, or_else: str = "") -> str:
    """Read a number of bytes in the form of ``parse_rate``."""
    try:
        return str(int(parse_rate("" if isinstance(value, bool) else str(value))))
    except UsageError as error:
        raise UsageError(
            f"{printable(name)} is {shown(value)}", hint=f"write {or_else}a size such as 500GiB"
        ) from error
