"""Which hosts S3 and STS are asked at: as AWS's own SDK asks them, with the same settings and without a network."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lading.auth.aws import AwsCredentials
from lading.auth.aws_endpoints import s3_address, sts_url
from lading.errors import Unsupported, UsageError
from lading.events import ignore
from lading.model.uri import ModelURI
from lading.session import Session
from lading.settings.aws import Endpoints, read_aws, read_s3
from lading.settings.settings import Settings
from lading.sources.s3 import S3Source

ROLE = "arn:aws:iam::123456789012:role/reader"
KEYS = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "SK", "AWS_EC2_METADATA_DISABLED": "true"}
ACCOUNT = "123456789012"


@cache
def sdk_data():
    """What the SDK's files say about services, read once: a client takes half a second without it."""
    import botocore.session

    return botocore.session.Session().get_component("data_loader")


def sdk_regions() -> list[str]:
    partitions = sdk_data().load_data("partitions")["partitions"]
    return sorted(
        region for partition in partitions for region in partition["regions"] if not region.endswith("-global")
    )


class Asked(Exception):
    """Raised where the SDK would send its request."""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The variables of both, and the one shared file."""

    def make(*, shared: str = "", **variables: str) -> dict[str, str]:
        (tmp_path / "config").write_text(shared)
        files = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
        # lading asks the regional host of us-east-1, too.
        found = {**KEYS, **files, "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "regional", **variables}
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        return found

    return make


def theirs(service: str, bucket: str = "models", **s3: object) -> str | None:
    """The URL that boto3 asks, without its query; None where it refuses."""
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    seen: list[str] = []

    def stop(request, **about) -> None:
        seen.append(request.url.partition("?")[0].rstrip("/"))
        raise Asked

    try:
        session = botocore.session.Session()
        session.register_component("data_loader", sdk_data())
        client = boto3.Session(botocore_session=session).client(service, config=Config(s3=s3) if s3 else None)
        client.meta.events.register("before-send", stop)
        if service == "s3":
            client.list_objects_v2(Bucket=bucket)
        else:
            client.assume_role_with_web_identity(RoleArn=ROLE, RoleSessionName="me", WebIdentityToken="a token")
    except Asked:
        return seen[0]
    except BotoCoreError:
        return None
    raise AssertionError("boto3 asked nobody")


def ours(service: str, bucket: str = "models", **variables: str) -> str | None:
    settings = Settings.load({"LADING_CONFIG": "", **variables})
    with Session(settings, ignore) as session:
        try:
            if service == "sts":
                credentials = AwsCredentials(
                    read_aws(settings.variables), session.http, read_s3(settings.variables).region
                )
                return sts_url(credentials.endpoints, credentials.region)
            address = S3Source(ModelURI.parse(f"s3://{bucket}/llm"), settings, session.http)._address
        except (UsageError, Unsupported):
            return None
    return f"{address.base}{address.path}".rstrip("/")


FIPS, DUAL_STACK = {"AWS_USE_FIPS_ENDPOINT": "true"}, {"AWS_USE_DUALSTACK_ENDPOINT": "true"}
VARIANTS = pytest.mark.parametrize(
    "variant", [{}, FIPS, DUAL_STACK, FIPS | DUAL_STACK], ids=["plain", "fips", "dual-stack", "both"]
)


@VARIANTS
@pytest.mark.parametrize("service", ["s3", "sts"])
def test_in_every_region_the_same_host_is_asked_as_by_the_official_sdk(environment, service, variant) -> None:
    found = {}
    for region in [*sdk_regions(), "eu-north-9", "us-gov-north-1", "cn-south-1"]:
        variables = environment(AWS_DEFAULT_REGION=region, **variant)
        found[region] = (ours(service, **variables), theirs(service))
    differ = {region: both for region, both in found.items() if both[0] != both[1]}
    # Of partitions that have none yet, the SDK knows the rules and still refuses them.
    assert all(url is None and region.startswith(("us-isof-", "eu-isoe-")) for region, (_, url) in differ.items()), (
        differ
    )
    assert sum(url is not None for _, url in found.values()) > 30


BUCKETS = [
    "models",
    "my.models",
    "My_Models",
    "a--b",
    "models--use1-az4--x-s3",
    "models--usw2-lax1-az1--x-s3",
    "reader--use1-az4--xa-s3",
    f"arn:aws:s3:us-west-2:{ACCOUNT}:accesspoint/reader",
    f"arn:aws:s3:us-west-2:{ACCOUNT}:accesspoint:reader",
    f"arn:aws:s3-outposts:us-west-2:{ACCOUNT}:outpost/op-01ac5d28a6a232904/accesspoint/reader",
    f"arn:aws:s3-outposts:us-west-2:{ACCOUNT}:outpost:op-01ac5d28a6a232904:accesspoint:reader",
    "reader-hrzrlukc5m36ft7okagglf3gmwluquse1b-s3alias",
]


@VARIANTS
@pytest.mark.parametrize("region", ["us-west-2", "eusc-de-east-1"])
def test_every_kind_of_bucket_is_at_the_same_host_as_for_the_official_sdk(environment, region, variant) -> None:
    variables = environment(AWS_DEFAULT_REGION=region, **variant)
    buckets = [bucket.replace("us-west-2", region) for bucket in BUCKETS]
    found = {bucket: (ours("s3", bucket, **variables), theirs("s3", bucket)) for bucket in buckets}
    assert not {bucket: urls for bucket, urls in found.items() if urls[0] != urls[1]}


@pytest.mark.parametrize("style", ["auto", "virtual"])
@pytest.mark.parametrize(
    "endpoint",
    ["https://store.test:9000", "http://store.test/base", "https://127.0.0.1:9000", "http://[::1]:9000"],
)
def test_every_kind_of_bucket_of_another_server_is_addressed_as_by_the_official_sdk(
    environment, endpoint, style
) -> None:
    variables = environment(AWS_DEFAULT_REGION="us-west-2", AWS_ENDPOINT_URL=endpoint, **FIPS)
    virtual = {"S3_USER_VIRTUAL_BUCKET": "true"} if style == "virtual" else {}
    found = {
        bucket: (ours("s3", bucket, **variables, **virtual), theirs("s3", bucket, addressing_style=style))
        for bucket in BUCKETS
        # The SDK asks Outposts by https whatever the endpoint says, and a bucket with dots at http://my.models.[::1]/.
        if not (("outposts" in bucket and "http:" in endpoint) or (bucket == "my.models" and "[" in endpoint))
    }
    assert not {bucket: urls for bucket, urls in found.items() if urls[0] != urls[1]}


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "http://[::1]:9000", "http://10.0.0.7"])
@pytest.mark.parametrize("bucket", ["models", "my.models"])
def test_an_address_that_is_a_number_takes_the_path(environment, endpoint, bucket) -> None:
    variables = environment(AWS_ENDPOINT_URL=endpoint, S3_USER_VIRTUAL_BUCKET="true")
    assert ours("s3", bucket, **variables) == f"{endpoint}/{bucket}"


@pytest.mark.parametrize("region", ["eu-west-1", "cn-north-1", "eusc-de-east-1"])
@pytest.mark.parametrize("variant", [{}, DUAL_STACK, FIPS])
@pytest.mark.parametrize("bucket", ["models", "my.models"])
def test_acceleration_is_asked_for_where_the_official_sdk_does(environment, region, variant, bucket) -> None:
    variables = environment(AWS_DEFAULT_REGION=region, **variant)
    wanted = theirs("s3", bucket, use_accelerate_endpoint=True)
    found = ours("s3", bucket, **variables, S3_USE_ACCELERATE="true")
    # The SDK falls back to the path, without acceleration and without a word.
    assert found == (None if bucket == "my.models" else wanted)


SHARED = """
[default]
use_fips_endpoint = true
use_dualstack_endpoint = true
[profile served]
services = mine
endpoint_url = http://all.test
[profile all]
endpoint_url = http://all.test/base/
[profile legacy]
sts_regional_endpoints = legacy
[services mine]
s3 =
  endpoint_url = http://s3.test:9000
"""


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"AWS_USE_FIPS_ENDPOINT": "false"},
        {"AWS_USE_DUALSTACK_ENDPOINT": "false"},
        {"AWS_PROFILE": "served"},
        {"AWS_PROFILE": "served", "AWS_ENDPOINT_URL": "http://variable.test"},
        {"AWS_PROFILE": "served", "AWS_ENDPOINT_URL_STS": "http://sts.test"},
        {"AWS_PROFILE": "served", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        {"AWS_PROFILE": "all"},
        {"AWS_PROFILE": "all", "AWS_ENDPOINT_URL_S3": "http://variable.test"},
        {"AWS_PROFILE": "legacy"},
        {"AWS_PROFILE": "legacy", "AWS_STS_REGIONAL_ENDPOINTS": "regional"},
        {"AWS_PROFILE": "legacy", "AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_PROFILE": "all", "AWS_STS_REGIONAL_ENDPOINTS": "legacy"},
        {"AWS_PROFILE": "legacy", "AWS_ENDPOINT_URL": "http://a.test", "AWS_ENDPOINT_URL_S3": "http://b.test"},
        {
            "AWS_PROFILE": "legacy",
            "AWS_ENDPOINT_URL": "http://a.test",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        },
    ],
)
@pytest.mark.parametrize("service", ["s3", "sts"])
@pytest.mark.parametrize("region", ["eu-west-1", "eu-south-2"])
def test_the_variables_and_the_shared_file_are_heeded_as_by_the_official_sdk(
    environment, service, variables, region
) -> None:
    given = environment(shared=SHARED, AWS_DEFAULT_REGION=region, **variables)
    assert ours(service, **given) == theirs(service)


def test_a_services_section_that_is_not_there_is_told(environment) -> None:
    given = environment(shared="[default]\nservices = lost\n", AWS_DEFAULT_REGION="eu-west-1")
    with pytest.raises(Exception, match="services lost"):
        ours("s3", **given)


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("https://s3.dualstack.eu-west-1.amazonaws.com", "models.s3.dualstack.eu-west-1.amazonaws.com"),
        ("https://s3-fips.us-gov-west-1.amazonaws.com", "models.s3-fips.us-gov-west-1.amazonaws.com"),
        ("https://s3-eu-west-1.amazonaws.com", "models.s3.eu-west-1.amazonaws.com"),
        ("https://s3.eusc-de-east-1.amazonaws.eu", "models.s3.eusc-de-east-1.amazonaws.eu"),
        ("https://s3.us-iso-east-1.c2s.ic.gov", "models.s3.us-iso-east-1.c2s.ic.gov"),
        ("https://s3-accelerate.amazonaws.com", "models.s3-accelerate.amazonaws.com"),
        ("https://s3-accelerate.dualstack.amazonaws.com", "models.s3-accelerate.dualstack.amazonaws.com"),
        ("https://s3.amazonaws.com", "models.s3.us-east-1.amazonaws.com"),
        ("https://s3.amazonaws.com.evil.test", "s3.amazonaws.com.evil.test"),
        ("https://s3-external-1.amazonaws.com", "s3-external-1.amazonaws.com"),
    ],
)
def test_an_address_of_aws_s_own_says_its_region_and_its_kind(environment, endpoint, host) -> None:
    url = ours("s3", **environment(AWS_ENDPOINT_URL=endpoint))
    assert url is not None
    assert urlsplit(url).hostname == host


@pytest.mark.parametrize(
    "endpoint", ["https://s3.amazonaws.com", "https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com/"]
)
def test_one_endpoint_for_all_that_is_s3_s_own_is_not_asked_for_keys(environment, endpoint) -> None:
    variables = environment(AWS_ENDPOINT_URL=endpoint, AWS_DEFAULT_REGION="eu-west-1")
    assert ours("sts", **variables) == "https://sts.eu-west-1.amazonaws.com"


def test_an_endpoint_that_a_registry_names_gets_no_web_identity(environment) -> None:
    variables = environment(AWS_DEFAULT_REGION="eu-west-1")
    told = Settings.load(variables).for_registry({"AWS_ENDPOINT_URL": "https://evil.test"}).variables
    assert ours("s3", **told) == "https://evil.test/models"
    assert ours("sts", **told) == "https://sts.eu-west-1.amazonaws.com"


def test_an_endpoint_of_the_storage_json_holds_when_the_environments_are_ignored(environment) -> None:
    variables = environment(AWS_IGNORE_CONFIGURED_ENDPOINT_URLS="true", AWS_ENDPOINT_URL_S3="http://env.test")
    url = ours("s3", **variables, STORAGE_CONFIG='{"type": "s3", "endpoint_url": "http://json.test"}')
    assert url == "http://json.test/models"


@pytest.mark.parametrize(
    ("bucket", "named"),
    [
        (f"arn:aws:s3::{ACCOUNT}:accesspoint/mfzwi23gnjvgw.mrap", "multi-region access points"),
        (f"arn:aws:s3-object-lambda:us-west-2:{ACCOUNT}:accesspoint/reader", "Object Lambda"),
    ],
)
def test_access_points_that_lading_does_not_read_are_refused_by_name(environment, bucket, named) -> None:
    settings = Settings.load({"LADING_CONFIG": "", **environment(AWS_DEFAULT_REGION="us-west-2")})
    with Session(settings, ignore) as session, pytest.raises(Unsupported, match=named) as caught:
        S3Source(ModelURI.parse(f"s3://{bucket}/llm"), settings, session.http)
    assert caught.value.hint


@pytest.mark.parametrize(
    "bucket",
    [
        "arn:aws:s3:::models",
        f"arn:aws:s3:us-west-2:{ACCOUNT}:bucket/models",
        "arn:aws:s3:us-west-2::accesspoint/reader",
        f"arn:aws:s3:us_west_2:{ACCOUNT}:accesspoint/reader",
        f"arn:aws:s3:evil.test:{ACCOUNT}:accesspoint/reader",
        f"arn:aws:sqs:us-west-2:{ACCOUNT}:accesspoint/reader",
        f"arn:aws:s3-outposts:us-west-2:{ACCOUNT}:accesspoint/reader",
        f"arn:evil:s3:us-west-2:{ACCOUNT}:accesspoint/reader",
        f"arn:aws:s3:us-west-2:{ACCOUNT}:accesspoint/",
    ],
)
def test_what_is_no_arn_of_an_access_point_is_refused(environment, bucket) -> None:
    assert ours("s3", bucket, **environment(AWS_DEFAULT_REGION="us-west-2")) is None


@pytest.mark.parametrize(
    "region", ["us-east-1.other.example/", "other.example#", "a b", "-a", "us_east_1", "é", "a" * 64]
)
def test_what_is_no_region_never_becomes_a_part_of_a_host(region: str) -> None:
    for ask in (lambda: s3_address("bucket", Endpoints(), region), lambda: sts_url(Endpoints(), region)):
        with pytest.raises(UsageError, match="is not the name of an AWS region"):
            ask()
    # Other servers call their regions as they like.
    own = Endpoints(s3="https://minio.example")
    assert s3_address("bucket", own, region).base == "https://minio.example"


@pytest.mark.parametrize("region", ["us-newpart-1", "US-EAST-1", "aws-global", "x"])
def test_a_region_that_is_not_known_yet_is_taken(region: str) -> None:
    assert s3_address("bucket", Endpoints(), region).base.endswith(".amazonaws.com")
