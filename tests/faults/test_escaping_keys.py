"""A listing is a stranger's input: what would leave the destination, or stand in its own way, is refused."""

import pytest

from fakes.trees import read_tree
from lading.errors import IntegrityError, LadingError

ESCAPING = {
    "parent": ["../escaped"],
    "parent-in-the-middle": ["a/../../escaped"],
    "absolute": ["/etc/escaped"],
    "here": ["./a"],
    "empty-segment": ["a//b"],
    "nul": ["a\0b"],
    "a-file-that-is-also-a-folder": ["a", "a/b"],
    "the-manifest": [".lading.manifest"],
    "the-workspace": [".lading/journal"],
    "a-name-too-long": ["n" * 256],
}


@pytest.mark.parametrize("keys", ESCAPING.values(), ids=ESCAPING.keys())
def test_keys_that_escape_are_refused_before_a_byte_is_fetched(server, bucket, anonymous, destination, pull, keys):
    around = read_tree(destination.path.parent)
    bucket.put("model/innocent", b"innocent")
    for key in keys:
        bucket.put(f"model/{key}", b"escaped")
    with pytest.raises(IntegrityError) as caught:
        pull("s3://models/model", destination.path, **anonymous)
    assert caught.value.exit_code == 6
    assert "\0" not in caught.value.message
    destination.assert_untouched()
    assert read_tree(destination.path.parent) == around
    assert {request.path for request in server.requests} == {"/models/"}


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2fescaped", "%2fetc%2fescaped", "a%00b", ".lading.manifest"])
def test_a_url_whose_name_escapes_is_refused(server, destination, pull, name):
    around = read_tree(destination.path.parent)
    uri = server.put(f"/models/{name}", b"escaped")
    with pytest.raises(LadingError) as caught:
        pull(uri, destination.path)
    assert caught.value.exit_code in (2, 6)
    destination.assert_untouched()
    assert read_tree(destination.path.parent) == around


@pytest.mark.parametrize("keys", ESCAPING.values(), ids=ESCAPING.keys())
def test_what_is_not_wanted_is_neither_fetched_nor_in_the_way(server, bucket, anonymous, destination, pull, keys):
    around = {path for path in read_tree(destination.path.parent) if not path.startswith("model/")}
    bucket.put("model/innocent", b"innocent")
    for key in keys:
        bucket.put(f"model/{key}", b"escaped")
    pull("s3://models/model", destination.path, allow=("innocent",), **anonymous)
    destination.assert_holds({"innocent": b"innocent"})
    assert {path for path in read_tree(destination.path.parent) if not path.startswith("model/")} == around
    assert {request.path for request in server.requests} == {"/models/", bucket.path("model/innocent")}
