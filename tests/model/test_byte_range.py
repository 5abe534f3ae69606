"""Ranges as sets of numbers, which is what they stand for."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lading.model.byte_range import joined

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12)


@given(RANGES)
def test_ranges_that_are_joined_hold_the_same_numbers_and_none_touch(added):
    ranges, numbers = [], set()
    for start, length in added:
        ranges = joined(ranges, start, start + length)
        numbers |= set(range(start, start + length))
    assert sorted(number for start, end in ranges for number in range(start, end)) == sorted(numbers)
    assert all(before[1] < after[0] for before, after in pairwise(sorted(ranges)))
