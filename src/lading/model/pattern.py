"""Patterns that choose files by path: ``--allow`` and ``--ignore``."""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

# What stands for other characters in a pattern.
_WILDCARD = re.compile(r"[*?[]")


def chooser(allow: Sequence[str], ignore: Sequence[str]) -> Callable[[str], bool]:
    """What says of a path whether it matches a pattern of ``allow`` (or that is empty) and none of ``ignore``.

    Patterns are those of ``fnmatch`` on the whole path, so that ``*`` crosses ``/``; a pattern
    that ends in ``/`` means everything below that folder.
    """
    wanted = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in allow]
    refused = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in ignore]

    def is_wanted(path: str) -> bool:
        return (not wanted or any(_selects(pattern, path) for pattern in wanted)) and not any(
            fnmatchcase(path, pattern) for pattern in refused
        )

    return is_wanted


def _selects(pattern: str, path: str) -> bool:
    """Whether the pattern matches the path or, of a folder that was not looked into, could match anything in it."""
    if not path.endswith("/"):
        return fnmatchcase(path, pattern)
    begins = _WILDCARD.split(pattern, maxsplit=1)[0]
    return begins.startswith(path) or (begins != pattern and path.startswith(begins))


def exact_pattern(path: str) -> str:
    """The pattern that matches this path, whatever characters it holds."""
    escaped = _WILDCARD.sub(lambda found: f"[{found[0]}]", path)
    # What a terminal does not show, and what would be an option.
    seen = "".join(character if character.isprintable() else "?" for character in escaped)
    return f"[-]{seen[1:]}" if seen.startswith("-") else seen
