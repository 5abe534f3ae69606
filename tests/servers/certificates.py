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

    def demand_certificates(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """The same, for a server that lets in only clients with a certificate of this authority."""
        context.verify_mode = ssl.CERT_REQUIRED
        self._ca.configure_trust(context)
        return context

    def write_client(self, folder: Path, name: str) -> tuple[str, str]:
        """The files of a client's certificate and key, written in the place of those that are there."""
        certificate = self._ca.issue_cert(name)
        places = (folder / "client.pem", folder / "client.key")
        for place, blob in zip(places, (certificate.cert_chain_pems[0], certificate.private_key_pem), strict=True):
            place.write_bytes(blob.bytes())
        return str(places[0]), str(places[1])
