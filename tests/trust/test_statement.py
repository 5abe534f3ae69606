"""What was signed, also by a signer whose program is wrong, or who means harm."""

import hashlib
import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.oms_signer import statement_of
from lading.errors import Untrusted
from lading.model.checksums import SequentialHash
from lading.model.digest import Digest
from lading.model.paths import why_unsafe
from lading.trust.statement import Statement, read_statement

FILES = {"config.json": b"{}", "weights/a.bin": b"0123456789" * 10, "weights/empty": b""}


def read(document: Any) -> Statement:
    return read_statement(json.dumps(document).encode(), "model.sig")


def rooted(document: dict[str, Any]) -> dict[str, Any]:
    """With the digest of its subject computed again."""
    values = [bytes.fromhex(each["digest"]) for each in document["predicate"]["resources"]]
    document["subject"][0]["digest"]["sha256"] = hashlib.sha256(b"".join(values)).hexdigest()
    return document


def computed(data: bytes, digest: Digest) -> Digest:
    running = SequentialHash(digest, len(data))
    running.update(memoryview(data))
    return running.digest()


@pytest.mark.parametrize("hash_type", ["sha256", "blake2b", "blake3"])
@pytest.mark.parametrize("shard_bytes", [0, 1, 7, 33, 100, 1000])
def test_each_file_has_the_digest_that_is_computed_while_it_lands(hash_type: str, shard_bytes: int) -> None:
    statement = read(statement_of(FILES, hash_type=hash_type, shard_bytes=shard_bytes))
    named = {path: data for path, data in FILES.items() if data or not shard_bytes}
    assert statement.files.keys() == named.keys()
    for path, data in named.items():
        signed = statement.files[path]
        assert computed(data, signed.digest) == signed.digest
        assert computed(data[:-1] + b"x", signed.digest) != signed.digest
        assert signed.size_bytes in (None, len(data))
    assert statement.names_empty_files == (shard_bytes == 0)


def test_what_the_signer_left_out_is_known_by_path_and_by_folder() -> None:
    statement = read(statement_of(FILES, ignore_paths=["logs/", "a"]))
    assert [
        path for path in ("a", "a/b", "ab", "logs/x", ".git/config", ".gitx", "x/a") if statement.ignores(path)
    ] == [
        "a",
        "a/b",
        "logs/x",
        ".git/config",
    ]


def renamed(name: str) -> dict[str, Any]:
    document = statement_of({"a": b"1", "b": b"2"})
    document["predicate"]["resources"][1]["name"] = name
    return document


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../b",
        "/b",
        "b/../c",
        "b//c",
        "./b",
        "b/",
        "a",
        "a/c",
        "b\0",
        ".lading/x",
        ".lading.manifest",
        "x" * 300,
        "\ud800",
    ],
)
def test_a_name_that_is_no_place_within_the_model_is_refused(name: str) -> None:
    with pytest.raises(Untrusted, match=r"model\.sig cannot be used"):
        read(renamed(name))


def shards(*names: str) -> dict[str, Any]:
    document = statement_of({"a": b"x" * 20}, shard_bytes=10)
    first = document["predicate"]["resources"][0]
    document["predicate"]["resources"] = [{**first, "name": name} for name in names]
    return rooted(document)


@pytest.mark.parametrize(
    "names",
    [
        ("a:0:10", "a:0:10"),
        ("a:0:10", "a:5:15"),
        ("a:0:10", "a:11:20"),
        ("a:0:10", "a:20:30"),
        ("a:10:20",),
        ("a:0:11",),
        ("a:0:5", "a:5:15"),
        ("a:0:0",),
        ("a:5:0",),
        ("a:-1:10",),
        ("a:00:10",),
        ("a:0:1e1",),
        ("a:0:10:20",),
        ("a",),
        (":0:10",),
        ("../a:0:10",),
        ("a:0:\u0665",),
        ("a:0:9999999999999999999",),
    ],
)
def test_shards_that_leave_gaps_or_overlap_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(Untrusted):
        read(shards(*names))


def test_shards_may_stand_in_any_order() -> None:
    document = statement_of({"a": b"0123456789abcdefghijABC"}, shard_bytes=10)
    document["predicate"]["resources"].reverse()
    [signed] = read(rooted(document)).files.values()
    assert (signed.size_bytes, signed.digest.part_sizes_bytes) == (23, (10, 10, 3))


def test_the_path_of_a_shard_may_have_colons() -> None:
    files = {"a:b": b"x" * 25, "a:0:10": b"y" * 5}
    statement = read(statement_of(files, shard_bytes=10))
    assert {path: signed.size_bytes for path, signed in statement.files.items()} == {"a:b": 25, "a:0:10": 5}


@pytest.mark.parametrize("size", [0, -1, 0.5, True, None, "10", 1e300, 2**64])
def test_a_shard_of_an_impossible_size_is_refused(size: object) -> None:
    document = statement_of({"a": b"x"}, shard_bytes=10)
    document["predicate"]["serialization"]["shard_size"] = size
    with pytest.raises(Untrusted):
        read(document)


def test_a_digest_by_another_algorithm_than_the_statement_says_is_refused() -> None:
    document = statement_of(FILES)
    document["predicate"]["resources"][0]["algorithm"] = "md5"
    with pytest.raises(Untrusted):
        read(document)


def test_a_subject_that_is_not_of_these_files_is_refused() -> None:
    document = statement_of(FILES)
    document["predicate"]["resources"].pop()
    with pytest.raises(Untrusted, match="not that of its files"):
        read(document)


@pytest.mark.parametrize("hash_type", ["blake4", "md5", "sha1", "crc32", 7, None])
def test_a_hash_that_is_not_computed_is_named(hash_type: object) -> None:
    document = statement_of(FILES)
    document["predicate"]["serialization"]["hash_type"] = hash_type
    with pytest.raises(Untrusted, match="signs digests by") as refused:
        read(document)
    assert "sha256 and blake2b" in refused.value.hint


def test_a_statement_of_before_the_specification_is_told_apart() -> None:
    document = statement_of(FILES)
    document["predicateType"] = "https://model_signing/Digests/v0.1"
    with pytest.raises(Untrusted, match="before 1"):
        read(document)


def test_a_statement_of_something_else_is_refused() -> None:
    document = statement_of(FILES)
    document["predicateType"] = "https://slsa.dev/provenance/v1"
    with pytest.raises(Untrusted, match="something else"):
        read(document)


def test_a_single_file_without_a_name_says_what_to_sign() -> None:
    with pytest.raises(Untrusted, match="sign the folder"):
        read(renamed("."))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def leaves(document: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [*([way] if way else []), *(found for key, value in items for found in leaves(value, (*way, key)))]


@given(st.data(), values, st.sampled_from([0, 10]))
@settings(max_examples=400, deadline=None)
def test_whatever_a_signer_writes_names_files_of_the_model_or_is_refused(
    data: Any, value: Any, shard_bytes: int
) -> None:
    document = statement_of(FILES, shard_bytes=shard_bytes)
    way = data.draw(st.sampled_from(leaves(document)))
    within = document
    for step in way[:-1]:
        within = within[step]
    within[way[-1]] = value
    try:
        statement = read(document)
    except Untrusted:
        return
    assert not any(map(why_unsafe, statement.files))


@given(values | st.binary(max_size=50))
def test_anything_else_is_no_statement(value: Any) -> None:
    with pytest.raises(Untrusted):
        read_statement(value if isinstance(value, bytes) else json.dumps(value).encode(), "model.sig")


def test_blake3_needs_an_extra_and_that_is_said_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    document = statement_of(FILES, hash_type="blake3")
    assert read(document).files.keys() == FILES.keys()
    monkeypatch.setitem(sys.modules, "blake3", None)
    with pytest.raises(Untrusted, match="signs digests by blake3") as refused:
        read(document)
    assert refused.value.hint == "pip install 'lading[blake3]'"
