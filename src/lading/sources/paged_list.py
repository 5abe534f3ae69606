"""The common part of listings: limits, the next page of a Link header, the error of an empty listing."""

import re
from collections.abc import Callable, Iterable

from lading.errors import IntegrityError, LadingError, NotFound
from lading.network.paging import CONTRADICTS, Entry, PagedList
from lading.network.wire import Head
from lading.settings.limits import Limits
from lading.text.suggest import suggest

# RFC 8288, 3: links with their parameters, apart by commas and semicolons outside of <…> and of quotes.
_QUOTED = r"\"(?:[^\"\\]|\\.)*\""
_LINKS = rf"(?:<[^<>]*>|{_QUOTED}|[^,<>\"])+"
_PARAMETERS = rf"(?:{_QUOTED}|[^;\"])+"


def paged_list(what: str, limits: Limits, name: Callable[[Entry], str]) -> PagedList[Entry]:
    """The listing of a model; all of it together may have as many entries as an archive."""
    hint = "name a folder of it, or raise limits.unpack_members in lading.yaml"
    return PagedList(what, limits.unpack_members, name, hint=hint)


def is_one_name(name: str) -> bool:
    """Whether this can be what something is called in its folder, and does not lead elsewhere."""
    return "/" not in name and name not in ("", ".", "..")


def next_link(head: Head, what: str) -> str:
    """The URL of the next page, by ``Link: <URL>; rel="next"`` (RFC 8288); "" if there is none."""
    header = head.text("link")
    links = list(filter(None, map(str.strip, re.findall(_LINKS, header))))
    if re.sub(_LINKS, "", header).strip(",") or not all(link.startswith("<") for link in links):
        raise IntegrityError(f"the listing of {what} has a Link header that cannot be read", hint=CONTRADICTS)
    for target, _, parameters in (link[1:].partition(">") for link in links):
        if "next" in _relations(parameters):
            if not target:
                raise IntegrityError(f"the listing of {what} goes on at no address", hint=CONTRADICTS)
            return target
    return ""


def _relations(parameters: str) -> list[str]:
    """The words of the first parameter ``rel``, in lower case."""
    for parameter in re.findall(_PARAMETERS, parameters):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "rel":
            return str(value).strip().strip('"').lower().split()
    return []


def nothing_below(shown: str, name: str, names_in: Callable[[str], Iterable[str]]) -> NotFound:
    """The error for a bucket that has nothing called ``name``; ``names_in`` gives the whole names in a prefix, one level of it."""
    parent = name.rstrip("/").rpartition("/")[0]
    prefix = f"{parent}/" if parent else ""
    try:
        names = [found[len(prefix) :] for found in names_in(prefix) if found != prefix]
    except LadingError:
        names = []
    return NotFound(f"{shown} has no files", hint=suggest(name[len(prefix) :], names))
