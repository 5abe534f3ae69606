"""How a bucket is addressed: by host or by path, at AWS or elsewhere.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
"""

import pytest

from lading.errors import UsageError
from lading.events import ignore
from lading.model.uri import ModelURI
from lading.session import Session
from lading.settings.settings import Settings
from lading.sources.s3 import S3Source


def address(uri: str, **environment: str) -> str:
    settings = Settings.load({"AWS_EC2_METADATA_DISABLED": "true", "LADING_CONFIG": "", **environment})
    session = Session(settings, ignore)
    source = S3Source(ModelURI.parse(uri), settings, session.http)
    return source._address.base + source._address.path


@pytest.mark.parametrize(
    ("environment", "begins"),
    [
        ({}, "https://models.s3.us-east-1.amazonaws.com/"),
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "https://models.s3.eu-west-1.amazonaws.com/"),
        ({"AWS_REGION": "eu-west-1"}, "https://models.s3.eu-west-1.amazonaws.com/"),
        ({"AWS_DEFAULT_REGION": "cn-north-1"}, "https://models.s3.cn-north-1.amazonaws.com.cn/"),
        # KServe's special case: the global endpoint and a region mean the regional one, by host.
        (
            {"AWS_ENDPOINT_URL": "https://s3.amazonaws.com", "AWS_DEFAULT_REGION": "eu-west-1"},
            "https://models.s3.eu-west-1.amazonaws.com/",
        ),
        (
            {"AWS_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com"},
            "https://models.s3.eu-west-1.amazonaws.com/",
        ),
        ({"S3_USE_ACCELERATE": "true"}, "https://models.s3-accelerate.amazonaws.com/"),
        ({"AWS_ENDPOINT_URL": "http://minio.example:9000"}, "http://minio.example:9000/models/"),
        ({"AWS_ENDPOINT_URL": "http://minio.example:9000/"}, "http://minio.example:9000/models/"),
        ({"AWS_ENDPOINT_URL": "https://gate.example/s3"}, "https://gate.example/s3/models/"),
        ({"S3_ENDPOINT": "minio.example:9000", "S3_USE_HTTPS": "0"}, "http://minio.example:9000/models/"),
        ({"S3_ENDPOINT": "minio.example"}, "https://minio.example/models/"),
        (
            {"AWS_ENDPOINT_URL": "http://minio.example:9000", "S3_USER_VIRTUAL_BUCKET": "true"},
            "http://models.minio.example:9000/",
        ),
        (
            {"AWS_ENDPOINT_URL": "http://minio.example:9000", "S3_USE_VIRTUAL_BUCKET": "1"},
            "http://models.minio.example:9000/",
        ),
    ],
)
def test_a_bucket_is_addressed_as_the_environment_says(environment: dict[str, str], begins: str) -> None:
    assert address("s3://models/iris", **environment) == begins


@pytest.mark.parametrize("bucket", ["my.models", "My-Models", "a_b_c"])
def test_a_bucket_whose_name_is_no_host_is_addressed_by_path(bucket: str) -> None:
    assert address(f"s3://{bucket}/iris") == f"https://s3.us-east-1.amazonaws.com/{bucket}/"


def test_acceleration_of_another_server_is_refused() -> None:
    with pytest.raises(UsageError, match=r"minio\.example"):
        address("s3://models/iris", S3_USE_ACCELERATE="true", AWS_ENDPOINT_URL="http://minio.example:9000")


def test_acceleration_of_a_bucket_with_dots_is_refused() -> None:
    with pytest.raises(UsageError, match=r"my\.models"):
        address("s3://my.models/iris", S3_USE_ACCELERATE="true")


@pytest.mark.parametrize(
    "uri", ["s3:///iris", "s3://models/iris?versionId=1", "s3://mod els/iris", "s3://a/iris", "s3:/models/iris"]
)
def test_what_is_no_s3_uri_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        address(uri)
