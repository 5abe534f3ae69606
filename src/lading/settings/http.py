"""HTTP: the variables of KServe, and its Secret of the kind https."""

import re

from lading.errors import UsageError
from lading.secret import basic
from lading.settings.variables import Variables, exact
from lading.text.json_xml import read_unique_json
from lading.text.printable import printable

# RFC 9110, 5.6.2.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Where a request ends, and which part of a file it asks for, only lading knows.
_OWN = ("content-length", "transfer-encoding", "range")
_MOST_SHOWN = 100
# The keys of storage JSON of type https, and the variable that each stands for: the names of KServe's Secret
# (https://kserve.github.io/website/docs/model-serving/storage/providers/uri).
STORAGE_KEYS = {
    "host": "https-host",
    "https-host": "https-host",
    "headers": "headers",
    "username": "https-username",
    "password": "https-password",
}


def read_headers(variables: Variables, host: str, port: int | None) -> list[tuple[str, str]]:
    """The headers for exactly this host, with or without a dot at its end; a port that is configured must match, too.

    They are the JSON object ``<host>-headers``, as KServe has it; without one, ``headers``, ``https-username`` and
    ``https-password``, if ``https-host`` names this host.
    """
    bare = host.removesuffix(".")
    hosts = (bare, f"{bare}.")
    known = [f"{name}:{port}" for name in hosts if port] + list(hosts)
    for name in known:
        text = variables.get(f"{name}-headers")
        if text:
            return parse_headers(text, f"the variable {name}-headers")
    text, user, password = (
        variables.get("headers"),
        variables.exact("https-username"),
        variables.exact("https-password"),
    )
    for_host = variables.exact("https-host").lower()
    if not for_host and (text or user or password):
        raise UsageError("headers are configured without their host", hint="add the host (https-host)")
    if for_host not in known:
        return []
    found = parse_headers(text, "the variable headers") if text else []
    if user or password:
        found.append(("Authorization", basic(user, password)))
    return found


def parse_headers(text: str, where: str) -> list[tuple[str, str]]:
    """The headers in a JSON object of texts; ``UsageError``, which names ``where`` and quotes no value, for another one."""
    try:
        headers = read_unique_json(text)
    except ValueError:
        headers = None
    if not isinstance(headers, dict):
        raise UsageError(f"{printable(where)} is not a JSON object, or has a key twice", hint='write {"NAME": "text"}')
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or name.lower() in _OWN:
            raise UsageError(f"{printable(where)} names {printable(name)[:_MOST_SHOWN]!r}, which cannot be added")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UsageError(f"{name} of {printable(where)} is not a text", hint="put its value in quotes")
    return [(name, exact(str(value), f"{name} of {where}")) for name, value in headers.items()]
