"""What sources that list have in common: the next page of a Link header, and the error of a place with nothing in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.errors import IntegrityError, Interrupted
from lading.network.wire import Head
from lading.sources.paged_list import next_link, nothing_below


@pytest.mark.parametrize(
    ("header", "following"),
    [
        ("", ""),
        ('<https://h/a?b=1>; rel="next"', "https://h/a?b=1"),
        ("<u>; rel=next", "u"),
        ("<u>;REL=Next;title=x", "u"),
        ('<u>; rel="prev", <v>; foo; rel="last next"', "v"),
        ('<u>; title="a, <b>; rel=next"; rel=prev', ""),
        ("<u>; rel=nexty", ""),
        ("</style.css>; rel=preload; as=style, <u?cursor=a,b>; rel=next", "u?cursor=a,b"),
        (" , ", ""),
    ],
)
def test_the_next_page_is_where_a_link_says(header: str, following: str) -> None:
    assert next_link(Head(200, {"link": header}), "hf://m") == following


@pytest.mark.parametrize(
    "header", ["u; rel=next", "<u; rel=next", '<u>; rel="next', "<>; rel=next", "<u>; rel=prev, v", "<u>>; rel=next"]
)
def test_a_link_that_cannot_be_read_is_no_end(header: str) -> None:
    with pytest.raises(IntegrityError, match="the listing of hf://m"):
        next_link(Head(200, {"link": header}), "hf://m")


@given(st.text('<>;,="\\ relnxt', max_size=60))
def test_any_link_is_read_or_refused(header: str) -> None:
    try:
        found = next_link(Head(200, {"link": header}), "hf://m")
    except IntegrityError:
        return
    assert not found or f"<{found}>" in header


def test_a_signal_is_not_taken_for_a_hint_that_cannot_be_had():
    def names_in(prefix):
        raise Interrupted("stopped by a signal")

    with pytest.raises(Interrupted):
        nothing_below("s3://bucket/model", "model", names_in)
