"""Patterns that choose files by path: ``--allow`` and ``--ignore``."""

import re
from fnmatch import fnmatchcase

# What stands for other characters in a pattern.
_WILDCARD = re.compile(r"[*?[]")


def selects(pattern: str, path: str) -> bool:
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
