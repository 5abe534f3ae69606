"""Patterns that choose files by path: ``--allow`` and ``--ignore``."""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

# The special characters of a pattern.
_WILDCARD = re.compile(r"[*?[]")


def chooser(allow: Sequence[str], ignore: Sequence[str]) -> Callable[[str], bool]:
    """A function: whether a path matches a pattern of ``allow`` (an empty one allows all) and none of ``ignore``.

    Patterns are those of ``fnmatch`` on the whole path, so ``*`` also matches ``/``; a pattern that ends in ``/``
    means everything below that folder.
    """
    wanted = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in allow]
    refused = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in ignore]

    def is_wanted(path: str) -> bool:
        return (not wanted or any(_selects(pattern, path) for pattern in wanted)) and not any(
            fnmatchcase(path, pattern) for pattern in refused
        )

    return is_wanted


def _selects(pattern: str, path: str) -> bool:
    """Whether the pattern matches the path; for a folder that was not listed: whether it could match a file in it."""
    if not path.endswith("/"):
        return fnmatchcase(path, pattern)
    begins = _WILDCARD.split(pattern, maxsplit=1)[0]
    return begins.startswith(path) or (begins != pattern and path.startswith(begins))


def exact_pattern(path: str) -> str:
    """A pattern that matches this path, whatever characters it contains."""
    escaped = _WILDCARD.sub(lambda found: f"[{found[0]}]", path)
    # What cannot be printed is named as what is no printable ASCII: a "?" would match other names, too.
    # A leading dash must not look like an option.
    seen = "".join(character if character.isprintable() else "[! -~]" for character in escaped)
    return f"[-]{seen[1:]}" if seen.startswith("-") else seen
