"""A private certificate authority and what it has signed."""

import ssl
from pathlib import Path

import trustme


class Authority:
    """A CA made for one test; ``bundle`` is its certificate as a file."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.bundle = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.bundle)

    def server_context(self, *names: str, **certificate) -> ssl.SSLContext:
        """What a server with a certificate for ``names`` needs."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names, **certificate).configure_cert(context)
        return context
