"""Authorization at an OCI registry: none, Basic, or a bearer token of the service that it names.

https://distribution.github.io/distribution/spec/auth/token and …/oauth.  A registry says in the answer
401 what it wants.  A token is kept until the registry refuses it: whoever fetches a new one does it for all.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode, urlsplit

from lading.auth.docker_config import Login
from lading.auth.oauth import request_token
from lading.errors import NotAllowed, Unsupported
from lading.model.origin import Origin, split_url
from lading.model.uri import redact
from lading.network.answer import status_error
from lading.network.challenges import Challenge, parse_challenges
from lading.network.client import HttpClient
from lading.network.wire import Head
from lading.secret import Secret, basic
from lading.text.json_xml import read_json
from lading.text.printable import printable

_LIMIT_BYTES = 256 * 1024


class Authorization:
    """The header for one repository of one registry, which is at ``base``.  Safe from any thread.

    ``own`` is the client for the registry itself, ``http`` the one for a token service that is elsewhere:
    what is not checked of the registry is checked of that.
    """

    def __init__(self, http: HttpClient, own: HttpClient, base: str, repository: str, login: Login) -> None:
        self.login = login
        self._http = http
        self._own = own
        self._base = base
        self._origin, _ = split_url(base)
        self._repository = repository
        self._lock = threading.Lock()
        self._held: Secret | None = None
        self._accepted = False
        if login.registry_token is not None:
            self._refuse_in_clear(self._origin)
            self._held = Secret(f"Bearer {login.registry_token.reveal()}")

    def get(self) -> Secret | None:
        """The value of the header; None while none was asked for."""
        return self._held

    def accepted(self, shown: Secret | None) -> None:
        if shown is self._held:
            self._accepted = True

    def refused(self, shown: Secret | None, head: Head) -> bool:
        with self._lock:
            if shown is self._held:
                fresh = self._next(shown, parse_challenges(head.get("www-authenticate")))
                if fresh is None or fresh == shown:
                    return False
                self._held, self._accepted = fresh, False
        return True

    def refusal(self, what: str, status: int) -> NotAllowed:
        """The error of a registry that does not let this login read."""
        hint = "this login is not allowed to read it, or it does not exist"
        if self.login.helper:
            hint = f"its login is kept by {self.login.helper}, and lading runs no such program: put it into the configuration"
        elif self.login.is_anonymous and self.login.withheld:
            hint = self.login.withheld
        elif self.login.is_anonymous:
            hint = "it does not exist, or needs a login, and none was found: KSERVE_OCI_DOCKER_CONFIG names a file with logins"
        return NotAllowed(f"{what} answered {status} ({self.login.kind})", hint=hint)

    def _next(self, shown: Secret | None, challenges: Sequence[Challenge]) -> Secret | None:
        """The next credential after ``shown`` was refused; None if there is no other."""
        offered = {challenge.scheme: challenge.parameters for challenge in reversed(challenges)}
        # A token that was good has ended; any other that is refused would be refused again.
        if shown is None or (self._accepted and self.login.registry_token is None):
            return self._answer(offered)
        return self._basic() if "basic" in offered else None

    def _answer(self, offered: Mapping[str, Mapping[str, str]]) -> Secret | None:
        """A token where one is given out, else Basic: of several challenges the client takes the best that it knows."""
        if not self.login.is_anonymous:
            # Also where it goes to a token service: the token for it would go here.
            self._refuse_in_clear(self._origin)
        bearer = offered.get("bearer")
        # Without a realm, nobody says where tokens are given out.
        if bearer is not None and ("realm" in bearer or "basic" not in offered):
            return self._bearer(bearer)
        if offered and "basic" not in offered:
            raise Unsupported(
                f"{redact(self._base)} asks for an authorization that is neither Basic nor Bearer: "
                f"{printable(', '.join(offered))}"
            )
        return self._basic() if offered else None

    def _refuse_in_clear(self, origin: Origin) -> None:
        origin.refuse_in_clear(
            f"the login for {printable(str(self._origin))}", "use https, or a registry within the cluster"
        )

    def _basic(self) -> Secret | None:
        if self.login.password is None:
            return None
        return Secret(basic(self.login.username, self.login.password.reveal()))

    def _bearer(self, challenge: Mapping[str, str]) -> Secret:
        realm = challenge.get("realm", "")
        shown = redact(realm)
        try:
            scheme = urlsplit(realm).scheme
        except ValueError:
            scheme = ""
        if scheme != "https" and not (scheme == "http" and self._base.startswith("http://")):
            # A login, or the token for it, would travel where anybody reads it.
            raise NotAllowed(
                f"{redact(self._base)} names {shown} as its token service, which is not an https URL",
                hint="the registry's configuration is wrong, or this is not the registry",
            )
        service, _ = split_url(realm)
        http = self._own if service.bare == self._origin.bare else self._http
        if not self.login.is_anonymous:
            self._refuse_in_clear(service)
        form = {"service": challenge.get("service", ""), "scope": f"repository:{self._repository}:pull"}
        form = {name: value for name, value in form.items() if value}
        if self.login.identity_token is not None:
            form |= {
                "grant_type": "refresh_token",
                "client_id": "lading",
                "refresh_token": self.login.identity_token.reveal(),
            }
            token = request_token(http, realm, form, kind=self.login.kind, what=f"the token service {shown}")
            return Secret(f"Bearer {token.value.reveal()}")
        basic = self._basic()
        head, body = http.fetch(
            "GET",
            f"{realm}{'&' if '?' in realm else '?'}{urlencode(form)}",
            [("Authorization", basic.reveal())] if basic else [],
            what=f"the token service {shown}",
            limit_bytes=_LIMIT_BYTES,
            redirects=0,
        )
        if head.status in (400, 401, 403):
            raise self.refusal(f"the token service {shown}", head.status)
        if head.status != 200:
            raise status_error(head, f"the token service {shown}", quoted=False)
        return Secret(f"Bearer {_token(body, shown)}")


def _token(body: bytes, shown: str) -> str:
    try:
        answer = read_json(body)
    except ValueError:
        answer = None
    found = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
    # One that could end the header would begin another.
    if not isinstance(found, str) or not re.fullmatch(r"[\x21-\x7e]+", found):
        raise Unsupported(f"the token service {shown} does not answer with a token")
    return found
