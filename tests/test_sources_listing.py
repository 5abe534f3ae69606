"""Listings in pages: each page once, and an end to those that have none."""

from itertools import count

import pytest

from lading.errors import IntegrityError, Interrupted, Unsupported
from lading.settings import Limits
from lading.sources.listing import Listing, nothing_below


def test_every_page_is_asked_for_by_the_token_of_the_one_before() -> None:
    told = {"": (["a", "b"], "t1"), "t1": ([], "t2"), "t2": (["c"], "")}
    assert list(Listing("s3://b", Limits()).pages(told.__getitem__)) == [["a", "b"], [], ["c"]]


def test_a_token_that_is_given_again_ends_it() -> None:
    with pytest.raises(IntegrityError, match="s3://b does not end"):
        list(Listing("s3://b", Limits()).pages(lambda _: (["a"], "again")))


def test_empty_pages_without_end_end_it() -> None:
    tokens = map(str, count())
    with pytest.raises(IntegrityError, match="does not end"):
        list(Listing("s3://b", Limits()).pages(lambda _: ([], next(tokens))))


def test_ever_new_entries_end_it_however_many_runs_of_pages_they_are_in() -> None:
    tokens = map(str, count())
    listing = Listing("s3://b", Limits(unpack_members=100))
    assert len(list(listing.pages(lambda _: (["a"] * 50, "")))) == 1
    with pytest.raises(Unsupported, match="more than 100 entries") as caught:
        list(listing.pages(lambda _: (["a"], next(tokens))))
    assert "unpack_members" in caught.value.hint


def test_a_signal_is_not_taken_for_a_hint_that_cannot_be_had():
    def names_in(prefix):
        raise Interrupted("stopped by a signal")

    with pytest.raises(Interrupted):
        nothing_below("s3://bucket/model", "model", names_in)
