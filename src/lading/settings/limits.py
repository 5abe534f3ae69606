"""Limits of a delivery, and how the network is reached."""

from typing import Literal, NamedTuple


class Limits(NamedTuple):
    """Limits of one run.  Zero means no deadline, no limit of the rate or of requests, and that the transfer chooses the workers."""

    deadline_s: float = 0.0
    stall_s: float = 20.0
    connect_s: float = 10.0
    attempts: int = 6
    workers: int = 0
    max_rate_bytes_s: float = 0.0
    # To each origin, of all processes that share a store.
    requests_per_s: float = 0.0
    # A guard against archive bombs, far above any model: the largest open ones are about 1.5 TB.
    unpack_bytes: int = 4 << 40
    unpack_members: int = 1_000_000


# "auto": OpenSSL verifies a host first, then rustls is used, if it is installed; "rustls": for every connection.
Tls = Literal["auto", "openssl", "rustls"]


class Network(NamedTuple):
    """How to reach any host: certificates and proxies.

    The client's own certificate and key are files of PEM text, loaded again when they are rotated.
    """

    ca_files: tuple[str, ...] = ()
    # Whether the machine's own authorities are left out.
    only_ca_files: bool = False
    verify_tls: bool = True
    client_certificate: str = ""
    client_key: str = ""
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: tuple[str, ...] = ()
    tls: Tls = "auto"
