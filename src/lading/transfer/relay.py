"""Which files are asked of a relay before their origin.  Decisions only; ``network/dragonfly.py`` asks."""

from collections.abc import Sequence

from lading.model.digest import Digest
from lading.model.listing import ListedFile, Relay
from lading.model.validator import is_weak
from lading.settings.proxies import ProxyRule

# Of each file dfdaemon asks the origin for its head, on every node: below this size that is most of the work.
_LEAST_BYTES = 1 << 20
# Its smallest piece.  One that breaks off again and again must not turn a file into millions of requests.
_LEAST_GIVEN_BYTES = 4 << 20


def relay_rule(rule: ProxyRule | None, file: ListedFile) -> ProxyRule | None:
    """``rule``, if the file is large enough for it."""
    return rule if file.content is None and (file.size_bytes or 0) >= _LEAST_BYTES else None


def may_go_on(given_bytes: int) -> bool:
    """Whether a relay that broke off is asked for the rest, by what it gave."""
    return given_bytes >= _LEAST_GIVEN_BYTES


def choose_relay(rule: ProxyRule, file: ListedFile, checks: Sequence[Digest]) -> Relay | None:
    """The relay of a file whose bytes are compared with ``checks``; None if a wrong byte of it could pass.

    The relay knows a file by a name that must stand for its exact bytes: by a digest, or else by a strong validator.
    """
    sound = [check for check in checks if not check.forgeable]
    if not sound and (not checks or rule.crc == "refuse"):
        return None
    whole = [check for check in sound if not check.part_sizes_bytes]
    if whole:
        return Relay(rule.url, str(max(whole, key=lambda check: check.strength)))
    has_version = bool(file.validator) and not is_weak(file.validator or "") and not file.answers_differ
    return Relay(rule.url) if has_version else None
