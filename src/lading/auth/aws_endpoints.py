"""The hosts of S3 and of STS: by region, FIPS, dual stack and kind of bucket, as the rules of AWS's SDKs have them.

Source: botocore's ``partitions.json`` and its ``endpoint-rule-set-1.json`` of s3 and sts, against which
``tests/auth/test_aws_endpoints.py`` checks every region.  https://docs.aws.amazon.com/sdkref/latest/guide/feature-endpoints.html
"""

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from lading.errors import Unsupported, UsageError
from lading.model.origin import endpoint_origin
from lading.model.uri import redact
from lading.settings.aws import Endpoints
from lading.text.printable import printable

# What requests to directory buckets are signed for.
EXPRESS = "s3express"


class Address(NamedTuple):
    """The address of a bucket, and the region and service for which its requests are signed.

    ``base`` is the scheme and the host; ``path`` stands before a key.
    """

    base: str
    path: str
    region: str
    service: str = "s3"


class _Partition(NamedTuple):
    """A part of AWS with accounts and host names of its own: how its regions' names begin, and how its hosts' names end."""

    name: str
    begins: str
    suffix: str
    dual_stack_suffix: str


_PARTITIONS = (
    _Partition("aws-cn", "cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    _Partition("aws-eusc", "eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    _Partition("aws-iso", "us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    _Partition("aws-iso-b", "us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    _Partition("aws-iso-e", "eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    _Partition("aws-iso-f", "us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    _Partition("aws-us-gov", "us-gov-", "amazonaws.com", "api.aws"),
    _Partition("aws", "", "amazonaws.com", "api.aws"),
)
_SUFFIXES = "|".join(sorted({re.escape(partition.suffix) for partition in _PARTITIONS}))
# What few endpoints and regions need is compiled when it is: that takes as long as a tenth of a tiny delivery's imports.
_OF_AWS = rf"(?i:https?://(?:[^/@]*\.)?(?:{_SUFFIXES})(?::[0-9]+)?/?)"
# Also as it was written once, s3-eu-west-1.amazonaws.com.
_S3_OF_AWS = re.compile(
    r"https://s3(?P<kind>-fips|-accelerate)?(?P<dual_stack>\.dualstack)?"
    rf"(?:[.-](?P<region>[a-z]+(?:-[a-z]+)+-[0-9]+))?\.(?:{_SUFFIXES})",
    re.IGNORECASE,
)
# Regions that had the one global host of STS before there were regional ones.
_GLOBAL_STS = r"ap-(?:northeast|south)-1|ap-southeast-[12]|ca-central-1|eu-(?:central|north)-1|eu-west-[123]|sa-east-1|us-(?:east|west)-[12]"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_REGION = rf"(?ai:{_LABEL})"
_LABELS = rf"{_LABEL}(?:\.{_LABEL})*"
_ACCESS_POINT = (
    r"arn:aws[a-z-]*:(?P<service>s3|s3-outposts|s3-object-lambda):(?P<region>[a-z0-9-]*):(?P<account>[0-9]{12}):"
    r"(?:outpost[:/](?P<outpost>[A-Za-z0-9-]{1,63})[:/])?accesspoint[:/](?P<name>[A-Za-z0-9.-]{1,63})"
)
# Of S3 Express One Zone: BUCKET--ZONE--x-s3, and ACCESSPOINT--ZONE--xa-s3.
_DIRECTORY_BUCKET = re.compile(r"[a-z0-9-]+--(?P<zone>[a-z0-9-]+)--xa?-s3")


def at_aws(endpoints: Endpoints) -> tuple[Endpoints, str]:
    """The endpoints, where an address of AWS's own for S3 is what its name says, and the region in that name.

    KServe's users rely on this: the global endpoint with a region means the regional one.
    """
    named = _S3_OF_AWS.fullmatch(endpoints.s3)
    if named is None:
        return endpoints, ""
    kind = named["kind"]
    said = Endpoints(
        fips=kind == "-fips" or None,
        dual_stack=bool(named["dual_stack"]) or None,
        accelerate=kind == "-accelerate" or None,
    )
    return said.or_else(endpoints._replace(s3="")), named["region"] or ""


def sts_url(endpoints: Endpoints, region: str) -> str:
    """The URL of STS, where a web identity is exchanged for keys."""
    # No host of AWS is both: one endpoint for all services is that of S3, as KServe has it.
    if endpoints.sts and not (endpoints.sts == endpoints.s3 and re.fullmatch(_OF_AWS, endpoints.sts)):
        return endpoints.sts
    partition = _partition(region)
    if not endpoints.fips and not endpoints.dual_stack:
        if region == "aws-global" or (endpoints.global_sts and re.fullmatch(_GLOBAL_STS, region)):
            return "https://sts.amazonaws.com"
        return f"https://sts.{region}.{partition.suffix}"
    if endpoints.dual_stack:
        return f"https://sts{'-fips' if endpoints.fips else ''}.{region}.{partition.dual_stack_suffix}"
    # What is called "sts" there is FIPS.
    name = "sts" if partition.name == "aws-us-gov" else "sts-fips"
    return f"https://{name}.{region}.{partition.suffix}"


def s3_address(bucket: str, endpoints: Endpoints, region: str, *, virtual_host: bool | None = None) -> Address:
    """The address of a bucket, which may be the ARN of an access point.

    AWS is addressed by virtual host wherever the bucket's name can be one's; other servers by path, unless
    ``virtual_host`` says otherwise.
    """
    region = "us-east-1" if region == "aws-global" else region
    if bucket.startswith("arn:"):
        return _access_point(bucket, endpoints)
    if (directory := _DIRECTORY_BUCKET.fullmatch(bucket)) is not None:
        return _directory_bucket(bucket, directory["zone"], endpoints, region)
    if endpoints.accelerate:
        return _accelerated(bucket, endpoints, region)
    url = _endpoint("s3", endpoints, region)
    virtual = not endpoints.s3 if virtual_host is None else virtual_host
    # A certificate for *.HOST is not for names with another dot.
    names = _LABEL if url.scheme == "https" else _LABELS
    if virtual and re.fullmatch(names, bucket) and not _is_ip(url.hostname or ""):
        return _virtual(bucket, url, region)
    return Address(_base(url), f"{url.path}/{bucket}/", region)


def _partition(region: str) -> _Partition:
    if not re.fullmatch(_REGION, region):
        # It would become a part of a host's name, and lead to another host.
        raise UsageError(
            f"{printable(region)!r} is not the name of an AWS region", hint="check AWS_DEFAULT_REGION and AWS_REGION"
        )
    return next(partition for partition in _PARTITIONS if region.startswith(partition.begins))


def _endpoint(service: str, endpoints: Endpoints, region: str, zone: str = "") -> SplitResult:
    """The URL that is configured, or that of ``service`` in the region."""
    if endpoints.s3:
        endpoint_origin(endpoints.s3, "AWS_ENDPOINT_URL and S3_ENDPOINT")
        return urlsplit(endpoints.s3)
    partition = _partition(region)
    if endpoints.fips and partition.name == "aws-cn":
        raise UsageError(f"S3 has no FIPS endpoint in {printable(region)}", hint="unset AWS_USE_FIPS_ENDPOINT")
    fips, dual_stack = "-fips" if endpoints.fips else "", ".dualstack" if endpoints.dual_stack else ""
    return urlsplit(f"https://{service}{fips}{zone}{dual_stack}.{region}.{partition.suffix}")


def _base(url: SplitResult, before: str = "") -> str:
    # Signed requests have no use for a user and password, and would send them to anybody.
    return f"{url.scheme}://{before}{url.netloc.rpartition('@')[2]}"


def _virtual(label: str, url: SplitResult, region: str, service: str = "s3") -> Address:
    return Address(_base(url, f"{label}."), f"{url.path}/", region, service)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _accelerated(bucket: str, endpoints: Endpoints, region: str) -> Address:
    partition = _partition(region)
    if endpoints.s3:
        # Requests that are signed for one server would go to another.
        raise UsageError(
            f"S3 acceleration exists only at AWS; the endpoint is {redact(endpoints.s3)}", hint="unset one of the two"
        )
    if endpoints.fips or partition.name == "aws-cn":
        where = "with FIPS" if endpoints.fips else f"in {printable(region)}"
        raise UsageError(f"there is no S3 acceleration {where}", hint="unset S3_USE_ACCELERATE")
    if not re.fullmatch(_LABEL, bucket):
        raise UsageError(
            f"S3 acceleration needs a bucket name without dots; {printable(bucket)} has one",
            hint="unset S3_USE_ACCELERATE",
        )
    dual_stack = ".dualstack" if endpoints.dual_stack else ""
    return Address(f"https://{bucket}.s3-accelerate{dual_stack}.{partition.suffix}", "/", region)


def _access_point(arn: str, endpoints: Endpoints) -> Address:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-points-naming.html."""
    point = re.fullmatch(_ACCESS_POINT, arn)
    if point is None or (point["service"] == "s3-outposts") != bool(point["outpost"]):
        raise UsageError(
            f"{printable(arn)} is not the ARN of an access point of S3",
            hint="write s3://arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME/KEY-OR-PREFIX",
        )
    service, region, outpost = point["service"], point["region"], point["outpost"]
    if not region:
        raise Unsupported(
            f"lading does not read multi-region access points ({printable(arn)})",
            hint="name one of its buckets, or an access point in one region",
        )
    if service == "s3-object-lambda":
        raise Unsupported(
            f"lading does not read Object Lambda access points ({printable(arn)}): they send other bytes than they list",
            hint="name the bucket, or the access point behind it",
        )
    label = f"{point['name']}-{point['account']}"
    if outpost is None:
        return _virtual(label, _endpoint("s3-accesspoint", endpoints, region), region)
    if not endpoints.s3 and (endpoints.fips or endpoints.dual_stack):
        raise UsageError(
            f"S3 on Outposts has neither FIPS nor dual-stack endpoints ({printable(arn)})",
            hint="unset AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT",
        )
    return _virtual(f"{label}.{outpost}", _endpoint(service, endpoints, region), region, service)


def _directory_bucket(bucket: str, zone: str, endpoints: Endpoints, region: str) -> Address:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-express-endpoints.html."""
    if endpoints.accelerate:
        raise UsageError(
            f"S3 acceleration does not work with the directory bucket {bucket}", hint="unset S3_USE_ACCELERATE"
        )
    url = _endpoint("s3express", endpoints, region, f"-{zone}")
    if _is_ip(url.hostname or ""):
        return Address(_base(url), f"{url.path}/{bucket}/", region, EXPRESS)
    return _virtual(bucket, url, region, EXPRESS)
