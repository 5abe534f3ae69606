"""git: the variables of KServe."""

from typing import NamedTuple

from lading.credentials import Secret
from lading.settings.variables import Variables

# The keys of storage JSON of type git, and the variable that each stands for.
STORAGE_KEYS = {"username": "GIT_USERNAME", "password": "GIT_PASSWORD"}


class Git(NamedTuple):
    """Who asks a git server; the password may be a token."""

    username: str = ""
    password: Secret | None = None
    kind: str = "GIT_USERNAME and GIT_PASSWORD"


def read_git(variables: Variables) -> Git:
    """Who asks a git server, by the variables of KServe."""
    return Git(variables.get("GIT_USERNAME", ""), variables.secret("GIT_PASSWORD"))
