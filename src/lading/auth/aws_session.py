"""Keys for one directory bucket of S3 Express One Zone, which hold for five minutes.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateSession.html
"""

from urllib.parse import urlsplit

from lading.auth.authorizer import RefreshingCredential
from lading.auth.aws import AwsCredentials, xml_text
from lading.auth.aws_endpoints import Address
from lading.auth.aws_signature import sign
from lading.errors import NotAllowed
from lading.network.answer import status_error
from lading.network.client import HttpClient
from lading.secret import AwsKeys, Secret, unix_time
from lading.text.printable import printable

_LIMIT_BYTES = 64 * 1024
# Enough to list and to read, and what a policy for readers allows.
_READ_ONLY = ("x-amz-create-session-mode", "ReadOnly")


class DirectoryBucketSession(RefreshingCredential[AwsKeys]):
    """In the place of ``AwsCredentials``, whose keys ask for those of the session.  Safe from any thread."""

    def __init__(self, credentials: AwsCredentials, http: HttpClient, address: Address) -> None:
        super().__init__(http.retry.run.clock.now, first_may_be_old=True)
        self._credentials = credentials
        self._http = http
        self._address = address

    def _fetch(self) -> AwsKeys | None:
        keys = self._credentials.get()
        if keys is None:
            return None
        base, path, region, service = self._address
        headers = sign(
            keys,
            method="GET",
            host=urlsplit(base).netloc,
            path=path,
            query="session=",
            headers=[_READ_ONLY],
            region=region,
            service=service,
        )
        what = f"the session for {base}{path}"
        head, body = self._http.fetch(
            "GET", f"{base}{path}?session=", headers, what=what, limit_bytes=_LIMIT_BYTES, redirects=0
        )
        if head.status in (400, 403):
            code = printable(xml_text(body, "Code"))
            raise NotAllowed(
                f"{what} is refused ({head.status} {code})".replace(" )", ")"),
                hint="these credentials need s3express:CreateSession, or they are wrong",
            )
        if head.status != 200:
            raise status_error(head, what)
        return AwsKeys(
            xml_text(body, "AccessKeyId"),
            Secret(xml_text(body, "SecretAccessKey")),
            Secret(xml_text(body, "SessionToken")),
            keys.kind,
            unix_time(xml_text(body, "Expiration")),
            session_header="X-Amz-S3session-Token",
        )
