"""Lists in pages: each page once, and an end only where the protocol says that it is one."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.errors import IntegrityError, Unsupported
from lading.network.paging import Page, PagedList


def listing(most: int = 1000) -> PagedList[str]:
    return PagedList("s3://b", most, str, hint="name a folder of it")


def test_every_page_is_asked_for_by_what_the_one_before_says() -> None:
    told = {"": Page(["a", "b"], "t1"), "t1": Page([], "t2"), "t2": Page(["c"])}
    assert list(listing().pages(told.__getitem__)) == [["a", "b"], [], ["c"]]


def test_a_folder_may_hold_what_another_one_holds() -> None:
    tree = listing()
    for _ in range(2):
        assert list(tree.pages(lambda _: Page(["a"]))) == [["a"]]


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        ([Page(["a"], "1"), Page(["b"], "1")], "does not end"),
        ([Page(["a"], "1"), Page(["b"], "2"), Page(["c"], "1")], "does not end"),
        ([Page(["a", "b"], "1"), Page(["a", "b"], "2")], "has 'a' twice"),
        ([Page(["a", "b"], "1"), Page(["b", "c"])], "has 'b' twice"),
        ([Page(["a", "\x1b", "\x1b"])], r"has '\\\\x1b' twice"),
        ([Page(["a", "b"], counted=3)], "has 2 entries where it says 3"),
        ([Page(["a", "b"], counted=0)], "has 2 entries where it says 0"),
        ([Page(["a", "b"], "1", counted=1), Page(["c"], counted=1)], "has 2 entries where it says 1"),
        ([Page(["a", "b"], "1", counted=4), Page(["c"], counted=4)], "has 1 entries where it says 4"),
    ],
)
def test_a_listing_that_contradicts_itself_is_refused(pages: list[Page[str]], why: str) -> None:
    told = iter(pages)
    with pytest.raises(IntegrityError, match=why) as caught:
        list(listing().pages(lambda _: next(told)))
    assert "contradicts itself" in caught.value.hint


@pytest.mark.parametrize("counts", [(2, 1), (3, 3), (None, None), (2, 3)])
def test_a_page_may_count_its_own_entries_or_all(counts: tuple[int | None, int | None]) -> None:
    told = {"": Page(["a", "b"], "1", counts[0]), "1": Page(["c"], "", counts[1])}
    assert list(listing().pages(told.__getitem__)) == [["a", "b"], ["c"]]


def test_empty_pages_without_end_end_it() -> None:
    tokens = map(str, count(1))
    with pytest.raises(IntegrityError, match="does not end"):
        list(listing().pages(lambda _: Page([], next(tokens))))


def test_ever_new_entries_end_it_however_many_runs_of_pages_they_are_in() -> None:
    numbers = count(1)
    tree = listing(100)
    assert len(list(tree.pages(lambda _: Page([str(next(numbers)) for _ in range(50)])))) == 1
    with pytest.raises(Unsupported, match="more than 100 entries") as caught:
        list(tree.pages(lambda _: Page([str(next(numbers))], str(next(numbers)))))
    assert caught.value.hint == "name a folder of it"


@given(st.sets(st.text(min_size=1, max_size=3)), st.lists(st.integers(0, 3), max_size=20), st.data())
def test_pages_of_any_size_are_all_of_it_and_with_one_page_told_twice_nothing(
    names: set[str], sizes: list[int], data: st.DataObject
) -> None:
    left, pages = sorted(names), []
    for size in sizes:
        pages.append(left[:size])
        left = left[size:]
    pages.append(left)

    def told(entries: list[list[str]]) -> list[str]:
        numbered = {str(at or ""): Page(page, str(at + 1)) for at, page in enumerate(entries)}
        numbered[str(len(entries) - 1 or "")] = Page(entries[-1])
        return [name for page in listing().pages(numbered.__getitem__) for name in page]

    assert told(pages) == sorted(names)
    again = data.draw(st.sampled_from(pages))
    if again:
        pages.insert(data.draw(st.integers(0, len(pages))), again)
        with pytest.raises(IntegrityError, match="twice"):
            told(pages)
