"""git: the variables of KServe."""

from typing import NamedTuple

from lading.secret import Secret
from lading.settings.variables import Variables, is_for, why_withheld

# The keys of storage JSON of type git, and the variable that each stands for.
STORAGE_KEYS = {"username": "GIT_USERNAME", "password": "GIT_PASSWORD", "host": "GIT_HOST"}


class Git(NamedTuple):
    """The login for a git server; the password may be a token.  ``withheld`` is why a configured login is not sent."""

    username: str = ""
    password: Secret | None = None
    kind: str = "GIT_USERNAME and GIT_PASSWORD"
    withheld: str = ""


def read_git(variables: Variables, authority: str, default_port: int) -> Git:
    """Read the login for the git server at ``authority`` from the variables of KServe and ``GIT_HOST``."""
    host = variables.exact("GIT_HOST")
    if not is_for(host, authority, default_port):
        return Git(withheld=why_withheld("GIT", host))
    return Git(variables.exact("GIT_USERNAME"), variables.secret("GIT_PASSWORD"))
