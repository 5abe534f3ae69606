"""Validators, which name the version of a file: comparing them, and deciding what to do if they contradict each other.

Decisions only.  RFC 9110, 8.8 defines those of HTTP; any other text that is constant for a version is one, too.
"""

import re
from collections import Counter

from lading.errors import OriginChanged
from lading.model.listing import Listing

# RFC 9110, 8.8.3; some servers leave out one or both quotes.
_ENTITY_TAG = re.compile(r'([Ww]/)?+"*+([!#-~]+?)"*')
_WEAK = "W/"
_IN_ONE_STREAM = 2


def entity_tag(text: str) -> str:
    """An ETag, quoted or not, in the form of RFC 9110: ``"…"`` or ``W/"…"``; "" if it is none, or empty."""
    match = _ENTITY_TAG.fullmatch(text.strip())
    return f'{_WEAK if match[1] else ""}"{match[2]}"' if match else ""


def is_weak(validator: str) -> bool:
    """Whether two versions whose bytes differ may share this validator (RFC 9110, 8.8.1)."""
    return validator.startswith(_WEAK)


def is_same(one: str, other: str) -> bool:
    """The weak comparison of RFC 9110, 8.8.3.2: whether both name one version, by a weak validator or a strong one."""
    return one.removeprefix(_WEAK) == other.removeprefix(_WEAK)


class Contradictions:
    """The origins in one delivery whose responses have another validator than their listing.

    An object that was replaced looks the same at first, but a second listing names its new version.  If not, the
    origin contradicts itself: then the validators of its responses count, which must agree with each other.  If even
    they differ, a file is read in one stream, since one response has one version.
    """

    def __init__(self) -> None:
        self._failed: dict[str, OriginChanged] = {}
        self._refuted: set[tuple[str, str, str]] = set()
        self._levels: Counter[str] = Counter()

    def note(self, error: OriginChanged) -> None:
        """Note that a response had another version than the listing."""
        self._failed[error.origin] = error
        self._refuted.add((error.origin, error.path, error.listed))

    def settled(self, listed: Listing) -> Listing:
        """The new listing, with its files marked for the way in which they must be read."""
        error = self._failed.pop(listed.origin, None)
        if error is not None and (self._levels[listed.origin] or not self._was_replaced(error, listed)):
            self._levels[listed.origin] += 1
        level = self._levels[listed.origin]
        if not level:
            return listed
        files = (
            file._replace(answers_differ=True, ranged=file.ranged and level < _IN_ONE_STREAM) for file in listed.files
        )
        return listed._replace(files=tuple(files))

    def explain(self, error: OriginChanged) -> None:
        """Add to an error that ends the delivery that the origin contradicts itself, if it does."""
        if self._levels[error.origin]:
            error.message += ", or so it seems: its origin contradicts itself"
            error.hint = "its listing and its answers differ each time: check the server and any proxy before it"

    def _was_replaced(self, error: OriginChanged, listed: Listing) -> bool:
        """Whether the listing now names the version of the response, and none that a response has contradicted."""
        now = next((file for file in listed.files if file.path == error.path), None)
        if now is None:
            return True
        validator = now.validator or ""
        if (error.origin, error.path, validator) in self._refuted:
            return False
        return not error.answered or is_same(validator, error.answered)
