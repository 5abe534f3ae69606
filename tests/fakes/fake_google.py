"""Who Google is to those who ask for a token: token endpoint, STS, IAM and the metadata server, on the faulty server.

It is checked with google-auth, Google's own library, in ``test_fake_gcs.py``.
"""

import json
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from typing import Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from fakes.faulty_http import Answer, FaultyServer, Request

ACCOUNT = "reader@project.iam.gserviceaccount.com"
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def private_key() -> str:
    """The account's key, as key files have it."""
    plain = serialization.NoEncryption()
    return _key().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain).decode()


class FakeGoogle:
    """Grants tokens ``se-cret-1``, ``se-cret-2``, … to who brings what ``document`` gives.

    ``granted`` holds, for each token, what it was given for.  ``has_account`` says whether the machine has an
    identity.  ``lasts_s`` is how long each token says that it holds.
    """

    def __init__(self, server: FaultyServer) -> None:
        self.server = server
        self.granted: dict[str, dict[str, Any]] = {}
        self.has_account = True
        self.lasts_s = 3600
        self.metadata_host = server.url.removeprefix("http://")
        self._numbers = count(1)
        server.routes["/oauth/token"] = self._token
        server.routes["/sts/token"] = self._exchange
        server.routes["/iam/"] = self._impersonate
        server.routes["/computeMetadata/v1/"] = self._metadata

    def document(self, kind: str, **fields: object) -> dict[str, Any]:
        """Credentials of this kind, as Google hands them out."""
        url = self.server.url
        documents: dict[str, dict[str, Any]] = {
            "service_account": {
                "project_id": "project",
                "private_key_id": "key-1",
                "private_key": private_key(),
                "client_email": ACCOUNT,
                "client_id": "1",
                "token_uri": f"{url}/oauth/token",
                "universe_domain": "googleapis.com",
            },
            "authorized_user": {
                "client_id": "client",
                "client_secret": "se-cret-client",
                "refresh_token": "se-cret-refresh",
                "token_uri": f"{url}/oauth/token",
            },
            "external_account": {
                "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": f"{url}/sts/token",
            },
            "impersonated_service_account": {
                "service_account_impersonation_url": self.impersonation_url,
                "delegates": ["between@project.iam.gserviceaccount.com"],
            },
        }
        return {"type": kind} | documents[kind] | fields

    @property
    def impersonation_url(self) -> str:
        return f"{self.server.url}/iam/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"

    def _grant(self, **why: object) -> str:
        token = f"se-cret-{next(self._numbers)}"
        self.granted[token] = why
        return token

    def _answer(self, **why: object) -> Answer:
        token = self._grant(**why)
        return _json({"access_token": token, "expires_in": self.lasts_s, "token_type": "Bearer"})

    def _token(self, request: Request) -> Answer:
        form = _form(request)
        if form["grant_type"] == "refresh_token":
            known = form["refresh_token"], form["client_id"], form["client_secret"]
            good = known == ("se-cret-refresh", "client", "se-cret-client")
            return self._answer(kind="refresh") if good else _json({"error": "invalid_grant"}, 400)
        assert form["grant_type"] == _JWT_GRANT
        text, _, signature = form["assertion"].rpartition(".")
        header, claims = (json.loads(_decoded(part)) for part in text.split("."))
        try:
            _key().public_key().verify(_decoded(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return _json({"error": "invalid_grant", "error_description": form["assertion"]}, 400)
        now_s = datetime.now(UTC).timestamp()
        assert header == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
        assert claims["aud"] == "https://oauth2.googleapis.com/token"
        assert claims["iat"] <= now_s < claims["exp"] <= claims["iat"] + 3600
        return self._answer(kind="key", account=claims["iss"], scope=claims["scope"])

    def _exchange(self, request: Request) -> Answer:
        form = _form(request)
        assert form["grant_type"] == _EXCHANGE_GRANT
        assert form["requested_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
        if form["subject_token"] != "se-cret-subject":
            return _json({"error": "invalid_grant", "error_description": form["subject_token"]}, 400)
        return self._answer(kind="exchange", audience=form["audience"], scope=form["scope"])

    def _impersonate(self, request: Request) -> Answer:
        by = self.granted.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if by is None or not request.path.endswith(f"{ACCOUNT}:generateAccessToken"):
            return _json({"error": {"code": 403, "message": "se-cret", "status": "PERMISSION_DENIED"}}, 403)
        wanted = json.loads(request.body)
        assert wanted["lifetime"].endswith("s")
        token = self._grant(kind="impersonation", by=by, **wanted)
        end = datetime.now(UTC) + timedelta(seconds=self.lasts_s)
        return _json({"accessToken": token, "expireTime": end.strftime("%Y-%m-%dT%H:%M:%SZ")})

    def _metadata(self, request: Request) -> Answer:
        if request.headers.get("metadata-flavor") != "Google":
            return Answer(403, {}, b"Missing Metadata-Flavor:Google header.")
        about = {"Metadata-Flavor": "Google"}
        if not self.has_account:
            return Answer(404, about, b"not found")
        if request.path.endswith("/token"):
            answer = self._answer(kind="metadata")
            return Answer(200, about | answer.headers, answer.body)
        email = {"email": ACCOUNT, "scopes": ["https://www.googleapis.com/auth/devstorage.read_only"], "aliases": []}
        return Answer(200, about | {"Content-Type": "application/json"}, json.dumps(email).encode())


def _form(request: Request) -> dict[str, str]:
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}


def _decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())
