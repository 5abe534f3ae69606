"""What S3 declares, and what its keys mean: by moto and rclone where they can, else by the fake."""

import base64
import hashlib

import pytest

from fakes.fake_s3 import FakeS3, composite
from fakes.faulty_http import ALWAYS, FaultyServer, wrong_byte
from fakes.real_s3 import BUCKET, client, moto, rclone, s3_anonymous, s3_settings
from fakes.trees import MIB, content, read_tree, whole_manifest, write_tree
from lading.errors import IntegrityError, NotAllowed, NotFound, Unsupported
from lading.events import Unverified
from lading.model.checksums import new_hash
from lading.model.digest import Digest

ALGORITHMS = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]
PART_BYTES = 5 * MIB
DATA = content(2 * PART_BYTES + 12_345)
PARTS = [DATA[:PART_BYTES], DATA[PART_BYTES : 2 * PART_BYTES], DATA[2 * PART_BYTES :]]
PART_SIZES = tuple(map(len, PARTS))
RANGE_BYTES = 3 * MIB
RANGES = pytest.mark.parametrize("range_bytes", [RANGE_BYTES, len(DATA)], ids=["ranges", "whole"])


@pytest.fixture(scope="module")
def endpoint():
    with moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def s3(endpoint):
    return client(endpoint)


@pytest.fixture
def fake():
    with FaultyServer() as server:
        yield FakeS3(server)


@pytest.fixture
def anonymous(fake):
    return s3_anonymous(fake.server.url)


def hexdigest(algorithm: str, data: bytes = DATA) -> str:
    running = new_hash(algorithm)
    running.update(memoryview(data))
    return running.hexdigest()


def checksum(algorithm: str, data: bytes = DATA) -> dict[str, str]:
    """The header of a full-object checksum."""
    value = base64.b64encode(bytes.fromhex(hexdigest(algorithm, data))).decode()
    return {f"x-amz-checksum-{algorithm}": value, "x-amz-checksum-type": "FULL_OBJECT"}


@RANGES
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checksum_that_boto3_uploaded_is_what_verifies_the_file(endpoint, s3, tmp_path, pull, algorithm, range_bytes):
    key = f"checksums/{algorithm}-{range_bytes}"
    # The ETag of an object that is encrypted with a KMS key is no MD5: the checksum is all there is.
    s3.put_object(Bucket=BUCKET, Key=key, Body=DATA, ChecksumAlgorithm=algorithm, ServerSideEncryption="aws:kms")
    manifest = pull(f"s3://{BUCKET}/{key}", tmp_path / "out", range_bytes=range_bytes, **s3_settings(endpoint))
    assert manifest.files[0].verified == (Digest(algorithm.lower(), hexdigest(algorithm.lower())),)
    assert read_tree(tmp_path / "out") == {key.rpartition("/")[2]: DATA}


@RANGES
@pytest.mark.parametrize("coding", ["gzip", "aws-chunked", "aws-chunked,gzip", "utf-8", "br"])
def test_bytes_come_as_they_are_stored_and_verified_whatever_their_coding_is_called(
    endpoint, s3, tmp_path, pull, coding, range_bytes
):
    s3.put_object(
        Bucket=BUCKET,
        Key="coded/model.bin",
        Body=DATA,
        ContentEncoding=coding,
        ChecksumAlgorithm="SHA256",
        ServerSideEncryption="aws:kms",
    )
    manifest = pull(
        f"s3://{BUCKET}/coded", tmp_path / "out", range_bytes=range_bytes, verify="strict", **s3_settings(endpoint)
    )
    assert manifest.files[0].verified == (Digest("sha256", hexdigest("sha256")),)
    assert read_tree(tmp_path / "out") == {"model.bin": DATA}


@RANGES
@pytest.mark.parametrize("algorithm", ["crc32", "crc32c", "crc64nvme"])
def test_a_full_object_checksum_of_a_multipart_upload_verifies_the_file(
    fake, anonymous, tmp_path, pull, algorithm, range_bytes
):
    # moto answers with the composite value under the name of the full one.
    fake.put("model.bin", DATA, part_sizes=PART_SIZES, checksums=checksum(algorithm))
    manifest = pull("s3://models/model.bin", tmp_path / "out", range_bytes=range_bytes, **anonymous)
    assert manifest.files[0].verified == (Digest(algorithm, hexdigest(algorithm)),)


@RANGES
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_composite_checksum_verifies_the_file(fake, anonymous, tmp_path, pull, algorithm, range_bytes):
    fake.put("model.bin", DATA, part_sizes=PART_SIZES, checksums=composite(algorithm, PARTS))
    manifest = pull("s3://models/model.bin", tmp_path / "out", range_bytes=range_bytes, verify="strict", **anonymous)
    (verified,) = manifest.files[0].verified
    assert (verified.algorithm, verified.part_sizes_bytes) == (algorithm, PART_SIZES)
    assert read_tree(tmp_path / "out") == {"model.bin": DATA}


@pytest.mark.parametrize("sizes", [(MIB, 2 * MIB, MIB), (MIB,), (MIB, MIB)])
def test_the_parts_of_a_composite_checksum_may_have_any_sizes(fake, anonymous, tmp_path, pull, sizes):
    data = DATA[: sum(sizes)]
    parts = [data[sum(sizes[:n]) : sum(sizes[: n + 1])] for n in range(len(sizes))]
    fake.put("model.bin", data, part_sizes=sizes, checksums=composite("sha256", parts))
    manifest = pull("s3://models/model.bin", tmp_path / "out", **anonymous)
    assert manifest.files[0].verified[0].part_sizes_bytes == sizes


@RANGES
@pytest.mark.parametrize("kind", ["full", "composite", "etag"])
def test_bytes_that_do_not_match_the_checksum_are_refused(fake, anonymous, tmp_path, pull, kind, range_bytes):
    about = {
        "full": {"part_sizes": PART_SIZES, "checksums": checksum("crc64nvme")},
        "composite": {"part_sizes": PART_SIZES, "checksums": composite("sha256", PARTS)},
        "etag": {},
    }[kind]
    fake.put("model.bin", DATA, **about)
    fake.server.misbehave("/models/model.bin", wrong_byte(len(DATA) - 1, times=ALWAYS))
    with pytest.raises(IntegrityError) as caught:
        pull("s3://models/model.bin", tmp_path / "out", range_bytes=range_bytes, **anonymous)
    assert caught.value.exit_code == 6
    assert read_tree(tmp_path / "out") == {}


def test_an_md5_etag_verifies_where_there_is_no_checksum(fake, anonymous, tmp_path, pull):
    fake.put("model/a", b"data")
    manifest = pull("s3://models/model", tmp_path / "out", verify="strict", **anonymous)
    assert manifest.files[0].verified == (Digest("md5", hashlib.md5(b"data").hexdigest()),)


def test_an_object_nobody_vouches_for_is_told_of_and_refused_when_strict(fake, anonymous, tmp_path, pull, events):
    fake.put("model.bin", DATA, part_sizes=PART_SIZES)
    with pytest.raises(Unsupported):
        pull("s3://models/model.bin", tmp_path / "out", verify="strict", **anonymous)
    assert read_tree(tmp_path / "out") == {}
    pull("s3://models/model.bin", tmp_path / "out", **anonymous)
    assert any(isinstance(event, Unverified) and event.example == "model.bin" for event in events)


def test_an_empty_file_does_not_stop_a_strict_delivery(fake, anonymous, tmp_path, pull):
    fake.put("model/empty", b"")
    fake.put("model/a", b"data")
    pull("s3://models/model", tmp_path / "out", verify="strict", **anonymous)
    assert read_tree(tmp_path / "out") == {"empty": b"", "a": b"data"}


def test_checksums_are_not_asked_for_when_verification_is_off(fake, anonymous, tmp_path, pull):
    fake.put("model.bin", DATA, checksums=checksum("crc32", b"another"))
    pull("s3://models/model.bin", tmp_path / "out", verify="off", **anonymous)
    assert read_tree(tmp_path / "out") == {"model.bin": DATA}
    assert not [request for request in fake.server.requests if "x-amz-checksum-mode" in request.headers]


@pytest.mark.parametrize("said", ["requester", "true"])
def test_a_bucket_whose_requester_pays_is_read_by_who_says_that_they_pay(fake, tmp_path, pull, said):
    fake.put("model.bin", DATA, part_sizes=PART_SIZES, checksums=composite("sha256", PARTS))
    fake.refuse = lambda request: None if request.headers.get("x-amz-request-payer") == "requester" else "AccessDenied"
    settings = s3_settings(fake.server.url)
    with pytest.raises(NotAllowed) as caught:
        pull("s3://models/model.bin", tmp_path / "out", **settings)
    assert "AWS_REQUEST_PAYER" in caught.value.hint
    assert not (tmp_path / "out").exists()
    pull("s3://models/model.bin", tmp_path / "out", **s3_settings(fake.server.url, AWS_REQUEST_PAYER=said))
    assert read_tree(tmp_path / "out") == {"model.bin": DATA}
    signed = {request.headers["authorization"] for request in fake.server.requests[1:]}
    assert all("x-amz-request-payer" in header for header in signed)


def test_the_newest_version_of_an_object_is_delivered(endpoint, s3, tmp_path, pull):
    s3.create_bucket(Bucket="versions")
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"one", b"two"):
        s3.put_object(Bucket="versions", Key="model/a", Body=body)
    s3.put_object(Bucket="versions", Key="model/gone", Body=b"gone")
    s3.delete_object(Bucket="versions", Key="model/gone")
    pull("s3://versions/model", tmp_path / "out", **s3_settings(endpoint))
    assert read_tree(tmp_path / "out") == {"a": b"two"}


@pytest.fixture(scope="module")
def by_rclone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rclone")
    files = {"model/a": b"a", "model/b/c": b"c", "model-v2/a": b"v2", "model.bin": b"bin", "other/x": b"x"}
    write_tree(folder / BUCKET, files)
    with rclone(folder) as endpoint:
        yield s3_settings(endpoint)


@pytest.mark.parametrize("uri", ["s3://models/model", "s3://models/model/"])
def test_a_prefix_ends_at_a_path_boundary(by_rclone, tmp_path, pull, uri):
    pull(uri, tmp_path / "out", **by_rclone)
    assert read_tree(tmp_path / "out") == {"a": b"a", "b/c": b"c"}


def test_a_single_object_lands_under_its_base_name(by_rclone, tmp_path, pull):
    pull("s3://models/model/b/c", tmp_path / "out", **by_rclone)
    whole_manifest(tmp_path / "out")
    assert read_tree(tmp_path / "out") == {"c": b"c"}


def test_a_whole_bucket_is_delivered(by_rclone, tmp_path, pull):
    pull("s3://models", tmp_path / "out", **by_rclone)
    assert sorted(read_tree(tmp_path / "out")) == ["model-v2/a", "model.bin", "model/a", "model/b/c", "other/x"]


def test_names_that_are_near_are_told_where_nothing_is_found(by_rclone, tmp_path, pull):
    with pytest.raises(NotFound) as caught:
        pull("s3://models/modl", tmp_path / "out", **by_rclone)
    assert caught.value.exit_code == 3
    assert "model/" in caught.value.hint
    assert "model-v2/" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_an_etag_of_rclone_is_what_verifies_the_file(by_rclone, tmp_path, pull):
    manifest = pull("s3://models/other", tmp_path / "out", verify="strict", **by_rclone)
    assert manifest.files[0].verified == (Digest("md5", hashlib.md5(b"x").hexdigest()),)


def test_a_bucket_that_does_not_exist_is_not_found(by_rclone, tmp_path, pull):
    with pytest.raises(NotFound, match="NoSuchBucket"):
        pull("s3://another/model", tmp_path / "out", **by_rclone)


def test_a_wrong_secret_is_not_allowed(by_rclone, tmp_path, pull):
    settings = s3_settings(by_rclone["variables"]["AWS_ENDPOINT_URL"], secret_access_key="x" * 40)
    with pytest.raises(NotAllowed) as caught:
        pull("s3://models/model", tmp_path / "out", **settings)
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out").exists()


def test_a_listing_of_many_pages_is_read_to_its_end(fake, anonymous, tmp_path, pull):
    fake.page_keys = 3
    for number in range(10):
        fake.put(f"model/{number}", b"%d" % number)
    pull("s3://models/model", tmp_path / "out", **anonymous)
    assert sorted(read_tree(tmp_path / "out")) == [str(number) for number in range(10)]
