"""Listings that come in pages: read to their end, which must come."""

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from lading.errors import IntegrityError, LadingError, NotFound, Unsupported
from lading.near import near_hint
from lading.settings import Limits

_MOST_BARREN_PAGES = 100

Page = TypeVar("Page", bound=Sized)


class Listing:
    """What one source lists, in one run of pages or in one for each folder; ``what`` it is goes into errors.

    A server decides how long it goes on: all of it together may have as many entries as an archive.
    """

    def __init__(self, what: str, limits: Limits) -> None:
        self._what = what
        self._most = limits.unpack_members
        self._seen = 0

    def pages(self, ask: Callable[[str], tuple[Page, str]]) -> Iterator[Page]:
        """Every page; ``ask`` gives the one that a token stands for ("": the first), and the next one's token."""
        token, barren = "", 0
        while True:
            page, following = ask(token)
            self._seen += len(page)
            if self._seen > self._most:
                raise Unsupported(
                    f"{self._what} has more than {self._most} entries",
                    hint="name a folder of it, or raise limits.unpack_members in lading.yaml",
                )
            yield page
            if not following:
                return
            barren = 0 if len(page) else barren + 1
            if following == token or barren > _MOST_BARREN_PAGES:
                raise IntegrityError(f"the listing of {self._what} does not end")
            token = following


def nothing_below(shown: str, name: str, names_in: Callable[[str], Iterable[str]]) -> NotFound:
    """The error for a bucket that has nothing called ``name``; ``names_in`` gives the whole names in a prefix, one level of it."""
    parent = name.rstrip("/").rpartition("/")[0]
    prefix = f"{parent}/" if parent else ""
    try:
        names = [found[len(prefix) :] for found in names_in(prefix) if found != prefix]
    except LadingError:
        names = []
    return NotFound(f"{shown} has no files", hint=near_hint(name[len(prefix) :], names))
