"""Lists that come in pages: read to the end that their protocol names, or refused.

A list that was cut looks like one that is whole: what is delivered of it would be a part of a model, without a word.
So every contradiction is an error: a page that comes again, an entry that is listed twice, a count that is
not what was listed.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from lading.errors import IntegrityError, Unsupported
from lading.text.printable import printable

_MOST_BARREN_PAGES = 100
CONTRADICTS = "the server, or something in front of it, contradicts itself: check the endpoint"

Entry = TypeVar("Entry")


class Page(NamedTuple, Generic[Entry]):
    """Entries, and what ``following`` page to ask for; "" only where the protocol says that this is the last one.

    ``counted`` is how many entries the answer says there are, None if it does not: some servers count those of the page,
    some all of them.
    """

    entries: Sequence[Entry]
    following: str = ""
    counted: int | None = None


class PagedList(Generic[Entry]):
    """A listing in one run of pages or, for a tree, in one run for each folder; ``what`` names it in errors.

    ``name`` is what tells an entry from others; "" tells nothing.  A server decides how long it goes on: all of it
    together may have ``most`` entries, and the hint says what to do about more.
    """

    def __init__(self, what: str, most: int, name: Callable[[Entry], str], *, hint: str = "") -> None:
        self._what = what
        self._most = most
        self._name = name
        self._hint = hint
        self._listed = 0

    def pages(self, ask: Callable[[str], Page[Entry]]) -> Iterator[Sequence[Entry]]:
        """The entries of every page; ``ask`` gives the page that the one before names, and for "" the first."""
        asked: set[str] = set()
        names: set[str] = set()
        before, barren, following = self._listed, 0, ""
        while following not in asked and barren <= _MOST_BARREN_PAGES:
            asked.add(following)
            page = ask(following)
            self._add(page.entries, names)
            self._check_count(page, self._listed - before)
            yield page.entries
            following = page.following
            if not following:
                return
            barren = 0 if len(page.entries) else barren + 1
        raise self.contradiction("does not end")

    def contradiction(self, what: str) -> IntegrityError:
        """The error of a listing that ``what`` is wrong with."""
        return IntegrityError(f"the listing of {self._what} {what}", hint=CONTRADICTS)

    def _add(self, entries: Sequence[Entry], names: set[str]) -> None:
        self._listed += len(entries)
        if self._listed > self._most:
            raise Unsupported(f"{self._what} has more than {self._most} entries", hint=self._hint)
        for name in filter(None, map(self._name, entries)):
            if name in names:
                raise self.contradiction(f"has {printable(name)!r} twice")
            names.add(name)

    def _check_count(self, page: Page[Entry], listed: int) -> None:
        """Check the number of entries against the count that the page gives, for itself or for the whole listing so far."""
        counted, own = page.counted, len(page.entries)
        if counted in (None, own, listed) or (page.following and counted is not None and counted > listed):
            return
        raise self.contradiction(f"has {own} entries where it says {counted}")
