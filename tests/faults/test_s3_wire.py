"""What S3 servers answer when they are busy, elsewhere, or not S3."""

from dataclasses import replace

import pytest

from fakes.fake_s3 import error
from fakes.faulty_http import ALWAYS, Answer, Fault, anything, cut, reset, stall, status
from fakes.real_s3 import s3_settings
from fakes.trees import content
from lading.errors import IntegrityError, NotAllowed, Unavailable, Unsupported

URI = "s3://models/model"
LISTING = "/models/"
DATA = content(1_000_000)
FILES = {"a.bin": b"small", "b/c.bin": DATA}
RANGE_BYTES = 256 * 1024


@pytest.fixture(autouse=True)
def _filled(bucket):
    for path, data in FILES.items():
        bucket.put(f"model/{path}", data)


def answers(code: str, **when) -> Fault:
    return Fault(lambda *_: error(code), on=anything, **when)


@pytest.mark.parametrize("path", [LISTING, "/models/model/b/c.bin"], ids=["listing", "reading"])
@pytest.mark.parametrize(
    "fault",
    [
        lambda: answers("SlowDown", times=3),
        lambda: status(500, times=3, on=anything),
        lambda: status(503, b"a proxy's page " * 10_000, times=3, on=anything),
        lambda: reset(at=100, times=3, on=anything),
        lambda: cut(at=100, times=3, on=anything),
        lambda: stall(at=100, on=anything),
    ],
    ids=["slow-down", "500", "long-page", "reset", "truncated", "stalled"],
)
def test_a_passing_failure_is_waited_out(server, anonymous, destination, pull, new_session, path, fault):
    limits = new_session().settings.limits._replace(stall_s=0.3)
    server.misbehave(path, fault())
    pull(URI, destination.path, range_bytes=RANGE_BYTES, limits=limits, **anonymous)
    destination.assert_holds(FILES)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "no AWS credentials were found"),
        ({"awsAnonymousCredential": "true"}, "asked for without credentials"),
        ({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, "not allowed to read this"),
    ],
)
def test_a_refusal_says_whether_there_were_credentials(server, destination, pull, keys, said):
    server.misbehave(LISTING, status(403, on=anything))
    with pytest.raises(NotAllowed) as caught:
        pull(URI, destination.path, variables={"AWS_ENDPOINT_URL": server.url, **keys})
    assert said in caught.value.hint
    destination.assert_untouched()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "no AWS credentials were found"),
        ({"awsAnonymousCredential": "true"}, "asked for without credentials"),
    ],
)
def test_a_bad_request_without_credentials_lacks_them(server, destination, pull, variables, said):
    # "rclone serve s3" answers so.
    server.misbehave(LISTING, status(400, on=anything))
    with pytest.raises(NotAllowed, match="400 Bad Request") as caught:
        pull(URI, destination.path, variables={"AWS_ENDPOINT_URL": server.url, **variables})
    assert said in caught.value.hint
    destination.assert_untouched()


@pytest.mark.parametrize("path", [LISTING, "/models/model/b/c.bin"], ids=["listing", "reading"])
@pytest.mark.parametrize(("code", "kind", "exit_code"), [("SlowDown", Unavailable, 5), ("AccessDenied", NotAllowed, 4)])
def test_a_lasting_refusal_leaves_the_destination(server, anonymous, destination, pull, path, code, kind, exit_code):
    server.misbehave(path, answers(code, times=ALWAYS))
    with pytest.raises(kind, match=code) as caught:
        pull(URI, destination.path, **anonymous)
    assert caught.value.exit_code == exit_code
    destination.assert_untouched()
    if kind is NotAllowed:
        assert len(server.requests_for(path)) == 1


def test_a_wrong_byte_in_an_object_once_is_found_and_fetched_again(server, anonymous, destination, pull):
    def turn(_, answer: Answer) -> Answer:
        return replace(answer, body=b"smell")

    server.misbehave("/models/model/a.bin", Fault(turn))
    pull(URI, destination.path, **anonymous)
    destination.assert_holds(FILES)


def test_a_bucket_in_another_region_is_followed_there(server, bucket, destination, pull):
    def refuse(request) -> Answer | None:
        signed_for = request.headers["authorization"].split("/")[2]
        if signed_for != "eu-central-1":
            return Answer(400, {"x-amz-bucket-region": "eu-central-1"}, b"<Error><Code>Wrong</Code></Error>")
        return bucket.answer(request)

    server.routes["/models"] = refuse
    pull(URI, destination.path, **s3_settings(server.url))
    destination.assert_holds(FILES)


ELSEWHERE = b"<Error><Code>%s</Code><Endpoint>models.s3-eu-west-1.amazonaws.com</Endpoint></Error>"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            Answer(301, {"x-amz-bucket-region": "eu-west-1"}, ELSEWHERE % b"PermanentRedirect"),
            "PermanentRedirect, the bucket is at models.s3-eu-west-1.amazonaws.com in the region eu-west-1",
        ),
        (Answer(307, {}, ELSEWHERE % b"TemporaryRedirect"), "at models.s3-eu-west-1.amazonaws.com"),
        (Answer(301, {"x-amz-bucket-region": "eu-west-1"}), "301, the bucket is in the region eu-west-1"),
        (Answer(301, {"x-amz-bucket-region": "\x1b[2J"}), r"in the region \x1b[2J"),
        (
            Answer(301, {"Location": "https://s3.example/models?s3cret"}),
            "Moved Permanently, to https://s3.example/models",
        ),
    ],
)
def test_a_bucket_that_is_not_at_the_endpoint_is_told_with_where_it_is(
    server, anonymous, destination, pull, answer, says
):
    server.routes["/models"] = lambda request: answer
    with pytest.raises(Unsupported) as caught:
        pull(URI, destination.path, **anonymous)
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.hint
    destination.assert_untouched()


@pytest.mark.parametrize("text", [b"<html><p>Welcome</html>", b"{}", b"", b"<ListBucketResult><Contents><Key>x"])
def test_a_server_that_is_not_s3_ends_the_delivery(server, anonymous, destination, pull, text):
    server.misbehave(LISTING, status(200, text, times=ALWAYS, on=anything))
    with pytest.raises(Unsupported) as caught:
        pull(URI, destination.path, **anonymous)
    assert caught.value.exit_code == 8
    destination.assert_untouched()


def test_a_listing_without_end_ends_the_delivery(server, anonymous, destination, pull):
    page = (
        b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>'
        b"<NextContinuationToken>YWdhaW4=</NextContinuationToken></ListBucketResult>"
    )
    server.misbehave(LISTING, status(200, page, times=ALWAYS, on=anything))
    with pytest.raises(IntegrityError, match="does not end"):
        pull(URI, destination.path, **anonymous)
    destination.assert_untouched()
