"""HTTP: the variables of KServe, and its Secret of the kind https."""

from lading.errors import UsageError
from lading.secret import basic
from lading.settings.variables import Variables, exact
from lading.text.json_xml import read_json
from lading.text.printable import printable

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
            return _parsed(text, f"{name}-headers")
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
    found = _parsed(text, "headers") if text else []
    if user or password:
        found.append(("Authorization", basic(user, password)))
    return found


def _parsed(text: str, name: str) -> list[tuple[str, str]]:
    try:
        headers = [(str(key), str(value)) for key, value in read_json(text).items()]
    except (ValueError, AttributeError) as error:
        raise UsageError(
            f"the variable {printable(name)} is not a JSON object", hint='write {"Authorization": "Bearer …"}'
        ) from error
    return [(key, exact(value, f"{key} of the variable {name}")) for key, value in headers]
