"""Settings for encrypted models: KServe's variables, and the address of the Confidential Data Hub.

https://github.com/confidential-containers/guest-components/tree/main/confidential-data-hub
"""

import re
from typing import NamedTuple

from lading.errors import UsageError
from lading.settings.variables import Variables

# Names as KServe takes them; nothing in them can change the path of the request for the key.
_RESOURCE = re.compile(r"kbs:///([\w.-]+)/([\w.-]+)/([\w.-]+)", re.ASCII)


class Confidential(NamedTuple):
    """The resource that holds the key, ``kbs:///repository/type/tag``, and the address of the hub that serves it."""

    resource: str
    address: str = "http://127.0.0.1:8006"

    @property
    def url(self) -> str:
        """The URL from which the key is fetched."""
        return f"{self.address}/cdh/resource/{self.resource.removeprefix('kbs:///')}"


def read_confidential(variables: Variables) -> Confidential | None:
    """Read where the key of the model's files is; None if they are not encrypted."""
    if not variables.flag("CONFIDENTIAL_ENABLED"):
        return None
    resource = variables.get("CONFIDENTIAL_RESOURCE_ID", "").strip()
    match = _RESOURCE.fullmatch(resource)
    if match is None or {".", ".."} & set(match.groups()):
        raise UsageError(
            f"CONFIDENTIAL_RESOURCE_ID is {resource!r}" if resource else "CONFIDENTIAL_RESOURCE_ID is not set",
            hint="with CONFIDENTIAL_ENABLED it names the key: kbs:///repository/type/tag",
        )
    address = variables.get("CDH_ADDR", "").rstrip("/") or Confidential("").address
    if not address.startswith(("http://", "https://")):
        raise UsageError(f"CDH_ADDR is {address!r}", hint="write http://host:port")
    return Confidential(resource, address)
