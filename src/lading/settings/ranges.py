"""Ranges of versions as the configuration writes them: ``>=1.2, <2`` (https://semver.org)."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from lading.errors import UsageError
from lading.text.printable import printable

# https://semver.org; a "v" may stand before it, as in tags, and the minor and patch number may be missing.
_VERSION = re.compile(
    r"v?(0|[1-9]\d{0,17})(?:\.(0|[1-9]\d{0,17}))?(?:\.(0|[1-9]\d{0,17}))?(?:-([0-9A-Za-z.-]{1,200}))?(?:\+[0-9A-Za-z.-]{1,200})?"
)
_COMPARATOR = re.compile(r"(>=|<=|>|<|=)\s*(\S+)")


class Semver(NamedTuple):
    """A version, ordered by semver.org's precedence (section 11): a pre-release comes before its release."""

    numbers: tuple[int, int, int]
    release: bool
    pre: tuple[tuple[bool, int, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Semver | None":
        """The version called ``text``; None if it is no semantic version."""
        match = _VERSION.fullmatch(text)
        if match is None:
            return None
        major, minor, patch, pre = match.groups()
        parts = pre.split(".") if pre else []
        # Numbers come before words; they are compared by value.
        order = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts)
        return cls((int(major), int(minor or 0), int(patch or 0)), not pre, order)


def parse_range(text: str) -> list[tuple[str, Semver]]:
    """The bounds of a range, each with its operator; ``UsageError`` if ``text`` is not a range."""
    bounds = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _COMPARATOR.fullmatch(part)
        version = match and Semver.parse(match[2])
        if match is None or version is None:
            raise UsageError(f"{printable(text)!r} is not a range of versions", hint="for example: >=1.2, <2")
        bounds.append((match[1], version))
    return bounds


def in_range(text: str, names: Iterable[str]) -> list[str]:
    """The ``names`` that are versions in the range ``text`` (``>=1.2, <2``), the highest first.

    Pre-releases are left out unless a bound of the range is a pre-release.
    """
    bounds = parse_range(text)
    allowed = any(not bound.release for _, bound in bounds)
    found = [(version, name) for name in names if (version := Semver.parse(name)) is not None]
    return [
        name
        for version, name in sorted(found, reverse=True)
        if (version.release or allowed) and all(_holds(version, operator, bound) for operator, bound in bounds)
    ]


def _holds(version: Semver, operator: str, bound: Semver) -> bool:
    if operator == ">=":
        return version >= bound
    if operator == "<=":
        return version <= bound
    if operator == ">":
        return version > bound
    return version < bound if operator == "<" else version == bound
