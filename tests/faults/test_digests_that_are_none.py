"""What an origin declares as a digest, and is none: an error that says so, with a way round; damage stays an error."""

import base64
import hashlib

import pytest

from fakes.faulty_http import ALWAYS, Fault, anything, wrong_byte
from fakes.trees import content
from lading.errors import IntegrityError

KEY = "model/model.bin"
DATA = content(1_000_000)
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
MD5_LIKE = '"9810707c8811be7b187e0d2acabb0cad"'
RANGES = pytest.mark.parametrize("range_bytes", [128 * 1024, 0], ids=["parts", "one-answer"])


@pytest.fixture
def tagged(server, bucket):
    """A bucket whose ETags have the form of an MD5, as those of gateways and of encrypted objects do."""

    def call(**about) -> None:
        bucket.put(KEY, DATA, **about)
        bucket.objects[KEY].__dict__["etag"] = MD5_LIKE

    return call


def encoded(algorithm: str, data: bytes) -> str:
    return base64.b64encode(hashlib.new(algorithm, data).digest()).decode()


@RANGES
def test_an_etag_that_is_no_md5_is_named_with_the_ways_round(tagged, anonymous, destination, pull, range_bytes):
    tagged()
    with pytest.raises(IntegrityError, match=r"each time it is read, but md5:9810.* by its ETag") as caught:
        pull("s3://models/model", destination.path, range_bytes=range_bytes, **anonymous)
    assert caught.value.exit_code == 6
    assert all(way in caught.value.hint for way in ("--verify=off", "--digest", "damaged"))
    destination.assert_untouched()


@RANGES
@pytest.mark.parametrize("way", [{"verify": "off"}, {"digest": SHA256}], ids=str)
def test_each_way_round_brings_the_file(tagged, anonymous, destination, pull, range_bytes, way):
    tagged()
    manifest = pull("s3://models/model", destination.path, range_bytes=range_bytes, **anonymous, **way)
    destination.assert_holds({"model.bin": DATA})
    assert [str(digest) for digest in manifest.files[0].verified] == ([SHA256] if "digest" in way else [])


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
@pytest.mark.parametrize("kind", ["full", "composite"])
@RANGES
def test_an_etag_is_not_looked_at_where_the_object_has_a_checksum(
    tagged, anonymous, destination, pull, range_bytes, algorithm, kind
):
    if kind == "full":
        about = {"checksums": {f"x-amz-checksum-{algorithm}": encoded(algorithm, DATA)}}
    else:
        parts = [DATA[:600_000], DATA[600_000:]]
        whole = encoded(algorithm, b"".join(hashlib.new(algorithm, part).digest() for part in parts))
        about = {"checksums": {f"x-amz-checksum-{algorithm}": f"{whole}-2"}, "part_sizes": (600_000, 400_000)}
    tagged(**about)
    manifest = pull("s3://models/model", destination.path, range_bytes=range_bytes, **anonymous)
    destination.assert_holds({"model.bin": DATA})
    assert [digest.algorithm for digest in manifest.files[0].verified] == [algorithm]


@RANGES
def test_an_etag_that_a_proxy_made_weak_still_tells_damage(server, bucket, anonymous, destination, pull, range_bytes):
    bucket.put(KEY, DATA)
    place = bucket.path(KEY)
    server.misbehave(
        place, Fault(lambda _, answer: answer.with_headers(ETag=f"W/{answer.headers['ETag']}"), times=ALWAYS)
    )
    [file] = pull("s3://models/model", destination.path, range_bytes=range_bytes, **anonymous).files
    assert [digest.algorithm for digest in file.verified] == ["md5"]
    server.misbehave(place, wrong_byte(500_000, times=ALWAYS))
    bucket.put("other/model.bin", DATA)
    server.misbehave(bucket.path("other/model.bin"), wrong_byte(500_000, times=ALWAYS))
    with pytest.raises(IntegrityError):
        pull("s3://models/other", destination.path, range_bytes=range_bytes, **anonymous)
    destination.assert_holds({"model.bin": DATA})


HEADERS = {
    "Content-MD5": encoded("md5", b"of something else"),
    "Digest": f"SHA-256={encoded('sha256', b'of something else')}",
    "Repr-Digest": f"sha-512=:{encoded('sha512', b'of something else')}:",
    "Content-Digest": f"sha-256=:{encoded('sha256', b'of something else')}:",
    "X-Goog-Hash": "crc32c=AAAAAA==",
    "X-Amz-Checksum-Crc32": "AAAAAA==",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_digest_of_a_proxy_or_an_old_upload_is_named_with_a_way_round(server, destination, pull, name):
    uri = server.put("/model.bin", DATA, headers={name: HEADERS[name]})
    with pytest.raises(IntegrityError, match=r"each time it is read, but .* by what its origin declares") as caught:
        pull(uri, destination.path)
    assert "--verify=off" in caught.value.hint
    destination.assert_untouched()
    # Of two of a kind that contradict each other, neither is taken.
    assert ("--digest" in caught.value.hint) == ("sha-256" not in HEADERS[name].lower())
    if "--digest" in caught.value.hint:
        manifest = pull(uri, destination.path, digest=SHA256)
        assert [str(digest) for digest in manifest.files[0].verified] == [SHA256]
    pull(uri, destination.path, verify="off")
    destination.assert_holds({"model.bin": DATA})


@pytest.mark.parametrize("name", HEADERS)
def test_bytes_that_differ_from_read_to_read_are_damage(server, destination, pull, name):
    uri = server.put("/model.bin", DATA, headers={name: HEADERS[name]})
    server.misbehave("/model.bin", wrong_byte(500_000))
    with pytest.raises(IntegrityError, match="is expected by") as caught:
        pull(uri, destination.path)
    assert "each time" not in caught.value.message
    assert "--verify=off" not in caught.value.hint
    destination.assert_untouched()


def test_damage_is_not_excused_by_a_digest_that_is_given(tagged, server, bucket, anonymous, destination, pull):
    tagged()
    server.misbehave(bucket.path(KEY), wrong_byte(500_000, times=ALWAYS, on=anything))
    with pytest.raises(IntegrityError) as caught:
        pull("s3://models/model", destination.path, digest=SHA256, **anonymous)
    assert caught.value.exit_code == 6
    destination.assert_untouched()


def test_the_hash_of_stored_bytes_is_not_that_of_decoded_ones(server, destination, pull):
    headers = {"X-Goog-Hash": "crc32c=AAAAAA==", "X-Goog-Stored-Content-Encoding": "gzip"}
    manifest = pull(server.put("/model.bin", DATA, headers=headers), destination.path)
    destination.assert_holds({"model.bin": DATA})
    assert manifest.files[0].verified == ()
