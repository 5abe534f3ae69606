"""The origin of a URL: scheme, host and port.  Every credential belongs to one origin."""

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from lading.errors import UsageError
from lading.model.uri import redact
from lading.text.printable import printable

# A URL without anything to decode or to quote: almost all are such, and the fast path saves a tenth of the
# cost of a small file.
_PLAIN_URL = re.compile(
    r"(https?)://([a-z0-9.-]+(?::[0-9]{1,4})?)"
    r"(/[A-Za-z0-9/%:@!$&'()*+,;=~._-]*(?:\?[A-Za-z0-9/%:@!$&'()*+,;=~._?-]+)?)"
)

# Suffixes of names that only the resolver of a cluster, a cloud network or this machine knows.
_PRIVATE_SUFFIXES = (".svc", ".local", ".localhost", ".internal")


class Origin(NamedTuple):
    """The scheme, host and port of a server; a credential belongs to one."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        # A zone has a meaning only on this machine (RFC 6874, 4).
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """The host as in certificates and rules: without a dot at the end and a zone, which are for the resolver."""
        return _named(self.host)

    @property
    def bare(self) -> "Origin":
        """The origin that logins belong to: ``minio.example.`` and ``minio.example`` are the same (RFC 6066, 3; RFC 6874, 4)."""
        return self._replace(host=self.name)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def refuse_in_clear(self, what: str, hint: str = "") -> None:
        """Raise ``UsageError`` if the credential ``what`` would be sent unencrypted over a public network.

        This is the one rule for passwords, tokens, headers and SAS, in requests and in responses: http is only for
        this machine and for the network of the cluster.  Keys that only sign requests are not sent.
        """
        if self.scheme == "http" and not _is_private_host(self.name):
            raise UsageError(
                f"{what} would be sent unencrypted to {printable(str(self))}",
                hint=hint or "use https, or a service within the cluster",
            )


def _is_private_host(host: str) -> bool:
    """Whether the host is this machine, or in a private network."""
    import ipaddress
    import socket

    try:
        # inet_aton, like the resolver: 2130706433 and 127.1 are addresses, too.
        address = ipaddress.ip_address(host if ":" in host else socket.inet_aton(host))
    except (OSError, ValueError):
        return "." not in host or host.endswith(_PRIVATE_SUFFIXES)
    return not (getattr(address, "ipv4_mapped", None) or address).is_global


@lru_cache(maxsize=256)
def _plain_origin(scheme: str, authority: str) -> Origin:
    host, _, port = authority.partition(":")
    return Origin(scheme, host, int(port or (443 if scheme == "https" else 80)))


def split_url(url: str) -> tuple[Origin, str]:
    """The origin and the request target of an http or https URL, without user information."""
    if (plain := _PLAIN_URL.fullmatch(url)) is not None:
        scheme, host, target = plain.groups()
        return _plain_origin(scheme, host), target
    try:
        parts = urlsplit(url)
        port = parts.port
        host = _spelled(parts.hostname or "")
    except ValueError as error:
        raise UsageError(f"{redact(url)} is not a URL") from error
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"{redact(url)} is not an http or https URL")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return Origin(parts.scheme, host, port or (443 if parts.scheme == "https" else 80)), target


def host_and_port(authority: str) -> tuple[str, int | None]:
    """The host and the port of an authority in normal form, for comparison: without a dot at the end.

    A text that is no host is only put in lower case.
    """
    text = authority.rpartition("@")[2].lower()
    host, colon, port = text.rpartition(":")
    # An IPv6 address has a port only after its brackets.
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, ""
    try:
        return _named(_spelled(host.removeprefix("[").removesuffix("]"))), int(port) if port else None
    except ValueError:
        return text, None


def _spelled(host: str) -> str:
    """The normal form of a host in lower case: names in ASCII (RFC 3490), IPv6 short; ``ValueError`` if it is none."""
    if not host.isascii():
        return host.encode("idna").decode()
    if ":" not in host:
        return host
    import ipaddress

    address, _, zone = host.partition("%")
    # RFC 6874, 2: in a URI, the percent sign before a zone is encoded.
    zone = zone.removeprefix("25") or zone
    return ipaddress.IPv6Address(address).compressed + (f"%{zone}" if zone else "")


def _named(host: str) -> str:
    return host.partition("%")[0] if ":" in host else host.removesuffix(".")


def endpoint_origin(url: str, variable: str) -> Origin:
    """The origin of an endpoint's URL; ``UsageError`` names the ``variable`` that configures it."""
    try:
        return split_url(url)[0]
    except UsageError as error:
        raise UsageError(f"the endpoint {redact(url)} is not an http or https URL", hint=f"check {variable}") from error
