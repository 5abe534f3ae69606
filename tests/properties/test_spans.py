"""Range arithmetic against sets of bytes."""

from hypothesis import given
from hypothesis import strategies as st

from lading.spans import Span, missing, split


def bytes_of(span: Span) -> set[int]:
    assert span.end is not None
    return set(range(span.start, span.end))


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 60))
def test_a_split_covers_every_byte_once_in_order_and_in_bounds(start: int, length: int, most: int) -> None:
    spans = split(start, start + length, most)
    assert [at for span in spans for at in sorted(bytes_of(span))] == list(range(start, start + length))
    assert all(0 < len(bytes_of(span)) <= most for span in spans)
    assert all(len(bytes_of(span)) == most for span in spans[:-1])


DONE = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)).map(lambda pair: (pair[0], pair[0] + pair[1])))


@given(st.integers(0, 300), DONE, st.integers(1, 60))
def test_what_is_missing_is_every_byte_that_is_not_done_once(size: int, done: list[tuple[int, int]], most: int) -> None:
    spans = missing(size, done, most)
    have = {at for start, end in done for at in range(start, end)}
    assert [at for span in spans for at in sorted(bytes_of(span))] == sorted(set(range(size)) - have)
    assert all(0 < len(bytes_of(span)) <= most for span in spans)


@given(st.integers(0, 300), DONE, st.integers(1, 60))
def test_nothing_is_missing_when_what_was_missing_is_done(size: int, done: list[tuple[int, int]], most: int) -> None:
    fetched = [(span.start, span.end) for span in missing(size, done, most) if span.end is not None]
    assert missing(size, [*done, *fetched], most) == []


def test_a_span_prints_as_a_range_request_counts() -> None:
    assert str(Span(0, 10)) == "bytes 0-9"
    assert str(Span(5, None)) == "bytes 5-"
