"""Our own S3 is S3 to boto3, the official client: what lading is shown with it, it could meet."""

import base64
import hashlib

import pytest

from fakes.fake_s3 import FakeS3, composite
from fakes.faulty_http import FaultyServer
from fakes.real_s3 import client

KEYS = ["model/a", "model/b/c d+e", "model/b/\u6a21\u578b", "model-v2/a", "z"]


@pytest.fixture
def bucket():
    with FaultyServer() as server:
        bucket = FakeS3(server)
        for key in KEYS:
            bucket.put(key, key.encode())
        yield bucket


@pytest.fixture
def s3(bucket):
    return client(bucket.server.url)


def listed(s3, **parameters) -> list[dict]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket="models", **parameters)
    return [item for page in pages for item in [*page.get("Contents", []), *page.get("CommonPrefixes", [])]]


def test_boto3_lists_every_key_over_several_pages(bucket, s3):
    bucket.page_keys = 2
    found = listed(s3)
    assert [item["Key"] for item in found] == sorted(KEYS)
    assert {item["Key"]: item["Size"] for item in found} == {key: len(key.encode()) for key in KEYS}
    assert found[0]["ETag"] == s3.head_object(Bucket="models", Key=found[0]["Key"])["ETag"]


def test_boto3_lists_below_a_prefix_and_rolls_up_folders(s3):
    assert [item["Key"] for item in listed(s3, Prefix="model/b")] == ["model/b/c d+e", "model/b/\u6a21\u578b"]
    rolled = listed(s3, Prefix="mod", Delimiter="/")
    assert sorted(item["Prefix"] for item in rolled) == ["model-v2/", "model/"]


def test_boto3_reads_objects_and_ranges_of_them(s3):
    assert s3.get_object(Bucket="models", Key=KEYS[2])["Body"].read() == KEYS[2].encode()
    part = s3.get_object(Bucket="models", Key="model/a", Range="bytes=2-4")
    assert (part["Body"].read(), part["ContentRange"]) == (b"del", "bytes 2-4/7")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [({"Key": "no"}, "NoSuchKey"), ({"Key": "z", "IfMatch": '"another"'}, "PreconditionFailed")],
)
def test_boto3_understands_the_errors(s3, parameters, code):
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket="models", **parameters)
    assert caught.value.response["Error"]["Code"] == code


def test_boto3_is_refused_as_the_bucket_decides(bucket, s3):
    from botocore.exceptions import ClientError

    bucket.refuse = lambda request: "ExpiredToken"
    with pytest.raises(ClientError) as caught:
        s3.head_bucket(Bucket="models")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(ClientError, match="ExpiredToken"):
        s3.list_objects_v2(Bucket="models")


def test_boto3_verifies_a_full_object_checksum(bucket, s3):
    value = base64.b64encode(hashlib.sha256(b"data").digest()).decode()
    bucket.put("sum", b"data", checksums={"x-amz-checksum-sha256": value})
    # The client compares it while it reads.
    answer = s3.get_object(Bucket="models", Key="sum", ChecksumMode="ENABLED")
    assert (answer["ChecksumSHA256"], answer["Body"].read()) == (value, b"data")
    bucket.put("sum", b"evil", checksums={"x-amz-checksum-sha256": value})
    with pytest.raises(Exception, match="checksum"):
        s3.get_object(Bucket="models", Key="sum", ChecksumMode="ENABLED")["Body"].read()


def test_boto3_sees_the_parts_of_a_multipart_object(bucket, s3):
    parts = [b"a" * 10, b"b" * 10, b"c" * 3]
    bucket.put("parts", b"".join(parts), part_sizes=(10, 10, 3), checksums=composite("sha256", parts))
    head = s3.head_object(Bucket="models", Key="parts", ChecksumMode="ENABLED")
    assert head["ChecksumType"] == "COMPOSITE"
    assert head["ChecksumSHA256"].endswith("-3")
    assert head["ETag"].endswith('-3"')
    second = s3.head_object(Bucket="models", Key="parts", PartNumber=2)
    assert (second["ContentLength"], second["PartsCount"]) == (10, 3)
    last = s3.get_object(Bucket="models", Key="parts", PartNumber=3)
    assert last["Body"].read() == b"ccc"
