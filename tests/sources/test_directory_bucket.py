"""Directory buckets of S3 Express One Zone: a session for each, folders alone in a listing."""

import pytest

from fakes.fake_s3 import FakeDirectoryBucket, error
from fakes.faulty_http import FaultyServer
from fakes.real_s3 import client, s3_anonymous, s3_settings
from fakes.trees import read_tree
from lading.errors import NotAllowed, NotFound

NAME = "models--use1-az4--x-s3"
FILES = {"llm/a": b"a", "llm/b/c d+e%": b"c", "llm-v2/a": b"v2", "one.bin": b"one"}


@pytest.fixture
def bucket():
    with FaultyServer() as server:
        bucket = FakeDirectoryBucket(server, NAME)
        for key, content in FILES.items():
            bucket.put(key, content)
        yield bucket


@pytest.fixture
def keys(bucket):
    return s3_settings(bucket.server.url)


def test_boto3_reads_the_fake_as_a_directory_bucket(bucket):
    s3 = client(bucket.server.url)
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=NAME, Prefix="llm/")["Contents"]] == [
        "llm/a",
        "llm/b/c d+e%",
    ]
    assert s3.get_object(Bucket=NAME, Key="one.bin")["Body"].read() == b"one"
    with pytest.raises(s3.exceptions.ClientError):
        s3.list_objects_v2(Bucket=NAME, Prefix="llm")
    assert len(bucket.sessions) == 1


def test_what_is_below_a_prefix_is_read_with_the_keys_of_one_session(bucket, keys, tmp_path, pull):
    pull(f"s3://{NAME}/llm", tmp_path / "out", **keys)
    assert read_tree(tmp_path / "out") == {"a": b"a", "b/c d+e%": b"c"}
    assert len(bucket.sessions) == 1
    (created,) = [request for request in bucket.server.requests if "session" in request.query]
    assert created.headers["x-amz-create-session-mode"] == "ReadOnly"


def test_one_object_is_found_although_only_folders_can_be_listed(bucket, keys, tmp_path, pull):
    pull(f"s3://{NAME}/one.bin", tmp_path / "out", **keys)
    assert read_tree(tmp_path / "out") == {"one.bin": b"one"}


def test_what_is_not_there_is_not_found_and_names_what_is_near(bucket, keys, tmp_path, pull):
    with pytest.raises(NotFound) as caught:
        pull(f"s3://{NAME}/lm", tmp_path / "out", **keys)
    assert "llm/" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_session_that_has_ended_is_followed_by_another(bucket, keys, tmp_path, pull):
    def refuse(request):
        if request.path.endswith("/a") and len(bucket.sessions) == 1:
            bucket.sessions.append("another")
            return "ExpiredToken"
        return None

    bucket.refuse = refuse
    pull(f"s3://{NAME}/llm", tmp_path / "out", **keys)
    assert read_tree(tmp_path / "out") == {"a": b"a", "b/c d+e%": b"c"}
    assert len(bucket.sessions) == 3


def test_keys_that_may_create_no_session_are_named(bucket, keys, tmp_path, pull):
    bucket.server.routes = {f"/{NAME}": lambda request: error("AccessDenied")}
    with pytest.raises(NotAllowed, match="AccessDenied") as caught:
        pull(f"s3://{NAME}/llm", tmp_path / "out", **keys)
    assert "s3express:CreateSession" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_nobody_reads_it_without_credentials(bucket, tmp_path, pull):
    with pytest.raises(NotAllowed):
        pull(f"s3://{NAME}/llm", tmp_path / "out", **s3_anonymous(bucket.server.url))
