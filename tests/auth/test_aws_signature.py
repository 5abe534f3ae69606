"""Signatures, against the ones of the official SDK."""

from datetime import UTC, datetime
from unittest.mock import patch
from urllib.parse import quote

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lading.auth.aws_signature import sign
from lading.secret import AwsKeys, Secret

MOMENT = datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)
# Inner runs of spaces are folded by both.
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
NAMES = st.sampled_from(["Range", "If-Match", "x-amz-checksum-mode", "X-Amz-Custom", "Accept-Encoding", "Content-Type"])


def theirs(keys: AwsKeys, method: str, url: str, headers: list[tuple[str, str]], region: str) -> str:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    token = keys.session_token.reveal() if keys.session_token else None
    signer = S3SigV4Auth(Credentials(keys.access_key_id, keys.secret_access_key.reveal(), token), "s3", region)
    request = AWSRequest(method, url, dict(headers))
    with patch("botocore.auth.get_current_datetime", lambda *_, **__: MOMENT):
        signer.add_auth(request)
    return str(request.headers["Authorization"])


@settings(deadline=None, max_examples=300)
@given(
    key=TEXTS,
    query=st.dictionaries(
        st.sampled_from(["list-type", "prefix", "max-keys", "continuation-token", "partNumber"]), TEXTS
    ),
    headers=st.dictionaries(NAMES, VALUES),
    secret=ASCII,
    token=st.none() | ASCII,
    method=st.sampled_from(["GET", "HEAD"]),
    host=st.sampled_from(["bucket.s3.eu-west-1.amazonaws.com", "127.0.0.1:9000", "minio", "s3.example.com:8443"]),
    region=st.sampled_from(["us-east-1", "cn-north-1", "eu-central-2"]),
)
@example("", {}, {}, "s", None, "GET", "minio", "us-east-1")
@example("a//b/../c/./d", {"prefix": "a b+c&=/~"}, {"Range": "bytes=0-1"}, "s", "t", "GET", "minio", "us-east-1")
@example(
    "größe/模型 1+1=2%.bin", {"prefix": "größe/"}, {"If-Match": '"x  y"'}, "s/+=", "t/+=", "HEAD", "minio", "us-east-1"
)
def test_requests_are_signed_as_the_official_sdk_signs_them(
    key: str,
    query: dict[str, str],
    headers: dict[str, str],
    secret: str,
    token: str | None,
    method: str,
    host: str,
    region: str,
) -> None:
    keys = AwsKeys("AKIDEXAMPLE", Secret(secret), Secret(token) if token else None, "test")
    path = "/bucket/" + quote(key, safe="/~")
    text = "&".join(f"{name}={quote(value, safe='~')}" for name, value in sorted(query.items()))
    ours = sign(
        keys,
        method=method,
        host=host,
        path=path,
        query=text,
        headers=list(headers.items()),
        region=region,
        service="s3",
        at_s=MOMENT.timestamp(),
    )
    url = f"https://{host}{path}" + (f"?{text}" if text else "")
    # The SDK signs all that it sends; what a cache in between may change is sent unsigned.
    signed = [(name, value) for name, value in headers.items() if name.lower().startswith(("x-amz-", "content-type"))]
    assert dict(ours)["Authorization"] == theirs(keys, method, url, signed, region)
    assert set(headers.items()) <= set(ours)


def test_the_token_is_sent_and_signed_and_the_secret_is_neither_sent_nor_shown() -> None:
    keys = AwsKeys("AK", Secret("the-secret"), Secret("the-token"), "test")
    sent = sign(keys, method="GET", host="h", path="/", query="", headers=[], region="r", service="s3")
    assert ("X-Amz-Security-Token", "the-token") in sent
    assert "x-amz-security-token" in dict(sent)["Authorization"]
    assert "the-secret" not in str(sent)
    assert "the-secret" not in repr(keys)
    assert "the-token" not in repr(keys)


def test_another_day_region_or_secret_is_another_signature() -> None:
    def signature(secret: str = "s", region: str = "r", at_s: float = 0.0) -> str:
        keys = AwsKeys("AK", Secret(secret), None, "test")
        options = {"method": "GET", "host": "h", "path": "/", "query": "", "headers": [], "service": "s3"}
        return dict(sign(keys, region=region, at_s=at_s, **options))["Authorization"]

    assert signature() == signature()
    assert len({signature(), signature("t"), signature(region="q"), signature(at_s=86_400.0), signature(at_s=1.0)}) == 5
