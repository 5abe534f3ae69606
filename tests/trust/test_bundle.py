"""Bundles as a signer writes them, and as whoever can write to the origin may change them."""

import base64
import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.oms_signer import Signer
from lading.errors import Untrusted
from lading.trust.bundle import key_signer, read_bundle
from lading.trust.public_key import read_public_keys

OURS, THEIRS = Signer("P-256"), Signer("P-384")
FILES = {"config.json": b"{}", "weights/a.bin": b"abc"}
BUNDLE = json.loads(OURS.sign(FILES))
[KEY] = read_public_keys(OURS.public_pem)
[OTHER] = read_public_keys(THEIRS.public_pem)
# A bundle is as good with any of these: nobody reads them.
UNREAD = {("verificationMaterial", "tlogEntries"), ("dsseEnvelope", "signatures", 0, "keyid")}


def ways(document: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value of the document."""
    if way:
        yield way
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from ways(value, (*way, key))


def at(document: Any, way: tuple[Any, ...]) -> Any:
    for step in way:
        document = document[step]
    return document


def judged(document: Any) -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    bundle = read_bundle(text, "model.sig")
    key_signer(bundle, [KEY], "model.sig")
    return bundle.payload


def test_the_bundle_of_a_trusted_key_is_taken_and_says_which_key() -> None:
    bundle = read_bundle(json.dumps(BUNDLE).encode(), "model.sig")
    assert key_signer(bundle, [OTHER, KEY], "model.sig") == KEY
    assert json.loads(bundle.payload)["subject"][0]["name"] == "model"


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_keys_of_each_curve_sign(curve: str) -> None:
    who = Signer(curve)
    bundle = read_bundle(who.sign(FILES), "model.sig")
    assert key_signer(bundle, read_public_keys(who.public_pem), "model.sig").curve.name == curve


@pytest.mark.parametrize("way", sorted(ways(BUNDLE), key=str), ids=str)
@pytest.mark.parametrize(
    "other", [None, "", "x", 0, -1, 1.5, True, [], {}, ["x"], {"x": "y"}, "QQ==", "\x00"], ids=repr
)
def test_a_bundle_with_any_value_replaced_is_refused(way: tuple[Any, ...], other: object) -> None:
    changed = copy.deepcopy(BUNDLE)
    at(changed, way[:-1])[way[-1]] = other
    # A bundle need not say which key has signed.
    says_nothing = way == ("verificationMaterial", "publicKey", "hint") and other in (None, "")
    unread = way in UNREAD or (way == ("verificationMaterial", "publicKey") and other in ({}, {"x": "y"}))
    if says_nothing or unread:
        assert judged(changed) == judged(BUNDLE)
        return
    with pytest.raises(Untrusted):
        judged(changed)


@pytest.mark.parametrize("way", sorted(ways(BUNDLE), key=str), ids=str)
def test_a_bundle_without_a_value_is_refused(way: tuple[Any, ...]) -> None:
    changed = copy.deepcopy(BUNDLE)
    del at(changed, way[:-1])[way[-1]]
    if way in UNREAD or way[-1] == "hint":
        assert judged(changed) == judged(BUNDLE)
        return
    with pytest.raises(Untrusted):
        judged(changed)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_bundle_with_any_byte_changed_is_refused_or_says_the_same(data: st.DataObject) -> None:
    text = bytearray(json.dumps(BUNDLE).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(st.integers(0, 255))
    try:
        payload = judged(bytes(text))
    except Untrusted:
        return
    assert payload == judged(BUNDLE)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
@settings(max_examples=200)
def test_anything_else_is_no_bundle(document: Any) -> None:
    with pytest.raises(Untrusted, match="not a signature by OMS"):
        judged(document)


@pytest.mark.parametrize(
    "text",
    [b"[" * 200_000, b"[" + b"0," * 2_000_000 + b"0]", b"[" + b"{}," * 1_000_000 + b"{}]", b'{"a":' * 50_000],
)
def test_what_is_made_to_fill_the_memory_is_not_parsed(text: bytes) -> None:
    with pytest.raises(Untrusted, match="more members"):
        judged(text)


def test_a_member_that_stands_twice_is_refused() -> None:
    text = json.dumps(BUNDLE)[:-1] + ', "dsseEnvelope": ' + json.dumps(BUNDLE["dsseEnvelope"]) + "}"
    with pytest.raises(Untrusted, match="not such JSON"):
        judged(text.encode())


def test_a_second_signature_is_refused() -> None:
    changed = copy.deepcopy(BUNDLE)
    changed["dsseEnvelope"]["signatures"] *= 2
    with pytest.raises(Untrusted, match="not one signature"):
        judged(changed)


def test_a_bundle_by_another_key_names_both() -> None:
    with pytest.raises(Untrusted, match="not signed by a key that is trusted") as refused:
        judged(THEIRS.sign(FILES))
    assert OTHER.hint[:16] in refused.value.hint
    assert KEY.hint[:16] in refused.value.hint


def test_a_bundle_by_another_key_that_says_it_is_ours_is_refused() -> None:
    def lie(document: dict[str, Any]) -> None:
        document["verificationMaterial"] = BUNDLE["verificationMaterial"]

    with pytest.raises(Untrusted, match="changed after it was signed"):
        judged(THEIRS.sign(FILES, bundle=lie))


def test_a_statement_that_was_changed_after_it_was_signed_is_told_apart() -> None:
    changed = copy.deepcopy(BUNDLE)
    statement = base64.b64decode(changed["dsseEnvelope"]["payload"]).replace(b"config.json", b"konfig.json")
    changed["dsseEnvelope"]["payload"] = base64.b64encode(statement).decode()
    with pytest.raises(Untrusted, match="changed after it was signed"):
        judged(changed)


def test_a_bundle_says_by_one_method_how_it_is_signed() -> None:
    changed = copy.deepcopy(BUNDLE)
    changed["verificationMaterial"]["certificate"] = {}
    with pytest.raises(Untrusted, match="it does not say by one method who signed"):
        judged(changed)
    del changed["verificationMaterial"]["publicKey"]
    assert read_bundle(json.dumps(changed).encode(), "model.sig").method == "sigstore"
