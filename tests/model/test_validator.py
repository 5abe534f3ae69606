"""Validators: how they are written and compared, and which of two listings shows that an origin contradicts itself."""

import pytest

from lading.errors import OriginChanged
from lading.model.listing import ListedFile, Listing
from lading.model.validator import Contradictions, entity_tag, is_same, is_weak


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ('"abc-2"', '"abc-2"'),
        ("abc-2", '"abc-2"'),
        ('"abc-2', '"abc-2"'),
        ('""abc""', '"abc"'),
        (' "abc" ', '"abc"'),
        ('W/"abc"', 'W/"abc"'),
        ('w/"abc"', 'W/"abc"'),
        ("W/abc", 'W/"abc"'),
        ('"W/abc"', '"W/abc"'),
        ('"a/b+c=="', '"a/b+c=="'),
        ("", ""),
        ('""', ""),
        ('W/""', ""),
        ('"a b"', ""),
        ('"a"b"', ""),
        ('"a\r\nX-Evil: 1"', ""),
        ('"\u00e4"', ""),
        ('"' * 100_000, ""),
    ],
)
def test_an_etag_is_written_as_rfc_9110_has_it_or_is_none(text: str, tag: str) -> None:
    assert entity_tag(text) == tag
    assert entity_tag(tag) == tag


# RFC 9110, 8.8.3.2: its own table.
@pytest.mark.parametrize(
    ("one", "other", "strong", "weak"),
    [
        ('W/"1"', 'W/"1"', False, True),
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', '"1"', True, True),
    ],
)
def test_two_etags_are_compared_as_rfc_9110_says(one: str, other: str, strong: bool, weak: bool) -> None:
    assert is_same(one, other) is weak
    assert (one == other and not is_weak(one)) is strong


def listed(validator: str | None) -> Listing:
    return Listing.of([ListedFile("f", 9, validator), ListedFile("other", 9, "v")])._replace(origin="o")


def read_as(listed: Listing) -> str:
    file = listed.by_path()["f"]
    return "as listed" if not file.answers_differ else "as answered" if file.ranged else "in one stream"


# The listed validator and that of the answer, "" for one that is not told, again and again; then how the last listing is read.
@pytest.mark.parametrize(
    ("history", "how"),
    [
        ([], "as listed"),
        # Replaced: the listing says then what the answer said, or something new at least.
        ([("1", "2"), ("2", "3"), ("3", "4"), ("4", "")], "as listed"),
        ([("1", ""), ("2", ""), ("3", "")], "as listed"),
        ([("1", 'W/"2"'), ('"2"', "")], "as listed"),
        # The listing stays as it was, or says what was refuted before, or what no answer said.
        ([("1", "2"), ("1", "")], "as answered"),
        ([("1", ""), ("1", "")], "as answered"),
        ([("1", "2"), ("2", "1"), ("1", "")], "as answered"),
        ([("1", ""), ("2", ""), ("1", "")], "as answered"),
        ([("1", "2"), ("3", "")], "as answered"),
        # And then not even the answers agree.
        ([("1", "2"), ("1", "3"), ("1", "")], "in one stream"),
        ([("1", "2"), ("1", "3"), ("4", "")], "in one stream"),
    ],
)
def test_a_second_listing_tells_what_was_replaced_from_what_contradicts_itself(
    history: list[tuple[str, str]], how: str
) -> None:
    contradictions = Contradictions()
    now = contradictions.settled(listed("0"))
    for validator, answered in history:
        now = contradictions.settled(listed(validator))
        error = OriginChanged("f changed while it was read")
        error.origin, error.path, error.listed, error.answered = "o", "f", validator, answered
        contradictions.note(error)
    assert read_as(now) == how
    # Another origin of the same delivery has nothing to do with it.
    assert read_as(contradictions.settled(listed("1")._replace(origin="another"))) == "as listed"


def test_an_object_that_is_gone_was_no_contradiction() -> None:
    contradictions = Contradictions()
    error = OriginChanged("f changed while it was read")
    error.origin, error.path, error.listed = "o", "f", "1"
    contradictions.note(error)
    rest = Listing.of([ListedFile("other", 9, "v")])._replace(origin="o")
    assert contradictions.settled(rest) == rest
