"""Kerberos: what a request carries so that a server knows its principal (SPNEGO, RFC 4559).

Needs the extra ``kerberos`` (python-gssapi).  libkrb5 itself reads krb5.conf, or the file that KRB5_CONFIG names.
"""

from functools import cache
from importlib import import_module
from typing import Any

from lading.errors import NotAllowed, Unavailable, Unsupported
from lading.text.printable import printable

_SPNEGO = "1.3.6.1.5.5.2"
# No KDC answers, or none is known where DNS does not answer; krb5.h: KRB5_KDC_UNREACH, KRB5_REALM_CANT_RESOLVE.
_UNREACHED = {-1765328228 % (1 << 32), -1765328164 % (1 << 32)}


@cache
def _gssapi() -> Any:
    try:
        return import_module("gssapi")
    except ImportError as error:
        raise Unsupported("Kerberos needs the extra kerberos", hint="pip install 'lading[kerberos]'") from error


class Kerberos:
    """Requests of one principal, whose key is in a keytab file.  Safe from any thread.

    libkrb5 fetches tickets when they are needed, keeps them in memory and renews them in time.
    """

    def __init__(self, principal: str, keytab: str) -> None:
        self._principal = principal
        self._store = {"client_keytab": keytab, "ccache": f"MEMORY:lading-{principal}-{keytab}"}
        _gssapi()

    def authorization(self, host: str) -> tuple[str, str]:
        """The header for one request to ``host``: an authenticator is good for a single one."""
        import base64

        gssapi = _gssapi()
        try:
            name = gssapi.Name(self._principal, gssapi.NameType.kerberos_principal)
            context = gssapi.SecurityContext(
                name=gssapi.Name(f"HTTP@{host}", gssapi.NameType.hostbased_service),
                creds=gssapi.Credentials(usage="initiate", name=name, store=self._store),
                mech=gssapi.OID.from_int_seq(_SPNEGO),
                usage="initiate",
            )
            token: bytes = context.step()
        except gssapi.exceptions.GSSError as error:
            who = f"Kerberos gives {printable(self._principal)} no ticket for HTTP@{printable(host)}"
            why = printable(error.get_all_statuses(error.min_code, False)[0] if error.min_code else str(error))
            kind = Unavailable if error.min_code in _UNREACHED else NotAllowed
            raise kind(f"{who}: {why}", hint="check the principal, the keytab, krb5.conf and the clock") from error
        return "Authorization", f"Negotiate {base64.b64encode(token).decode()}"
