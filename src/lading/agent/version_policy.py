"""Which version may be taken, and when.  Decisions only, no I/O."""

import hashlib

from lading.settings.agent import Delivery

# The pause after a refusal: five minutes, then ten, at most a day.
_REFUSED_S = 300.0
_MOST_REFUSED_S = 24 * 3600.0


def is_canary(host: str, delivery: str, share: float) -> bool:
    """Whether this host is in the ``share`` that takes new versions of the delivery first, always the same hosts."""
    digest = hashlib.sha256(f"{delivery}\0{host}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def held_s(delivery: Delivery, host: str, seen_s: float, now_s: float) -> float:
    """Seconds until a version that was first seen at ``seen_s`` may be taken; zero when it may."""
    hold_s = delivery.hold_s
    if delivery.canary is not None and not is_canary(host, delivery.name, delivery.canary.share):
        hold_s += delivery.canary.hold_s
    return max(seen_s + hold_s - now_s, 0.0)


def refused_s(times: int) -> float:
    """Seconds for which a version is not tried after it was refused ``times`` times."""
    return min(_REFUSED_S * 2.0 ** min(times - 1, 60), _MOST_REFUSED_S)
