"""As much of AWS's security token service as lading asks for: a web identity is exchanged for keys.

The official SDK believes it, too (``test_aws.py``).
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

from fakes.faulty_http import Answer, Request


def sts(
    expires_in_s: float = 3600.0,
    status: int = 200,
    believes: Callable[[str], bool] = lambda token: not token.startswith("bad"),
) -> Callable[[Request], Answer]:
    """A route that gives keys ``AK1``, ``AK2``, … to who brings a token that it ``believes``."""
    issued = [0]

    def answer(request: Request) -> Answer:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        assert (request.method, form["Action"], form["Version"]) == ("POST", "AssumeRoleWithWebIdentity", "2011-06-15")
        if status != 200 or not believes(form["WebIdentityToken"]):
            return _xml(
                '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>AccessDenied</Code>'
                f"<Message>{form['WebIdentityToken']}</Message></Error></ErrorResponse>",
                status if status != 200 else 403,
            )
        issued[0] += 1
        return _xml(
            '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            "<AssumeRoleWithWebIdentityResult><Credentials>"
            f"<AccessKeyId>AK{issued[0]}</AccessKeyId><SecretAccessKey>SK of {form['WebIdentityToken']}</SecretAccessKey>"
            f"<SessionToken>ST of {form['RoleArn']}</SessionToken><Expiration>{in_seconds(expires_in_s)}</Expiration>"
            "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )

    return answer


def in_seconds(seconds: float) -> str:
    """That time from now, as AWS writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _xml(text: str, status: int = 200) -> Answer:
    return Answer(status, body=text.encode())
