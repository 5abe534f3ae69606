"""Find dead links, in this repository's Markdown files or in the pages of a site.  Asks no server.

    links.py                 in every Markdown file that git has or would add
    links.py build/site      in every page below the folder, which may load nothing from elsewhere

A link is dead if it leads to no file, or to no heading of that name in it.  Links to other hosts are passed over.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
_FENCE = re.compile(r"^( *)(```+|~~~+).*?^\1\2", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\]\(<?([^()\s<>]+)>?\)|^\[[^\]]+\]: (\S+)", re.MULTILINE)
_HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)
_ANCHOR = re.compile(r"<[^>]+ (?:id|name)=\"([^\"]+)\"")
_IN_CSS = re.compile(r"(?:url\(|@import) *[\"']?((?:https?:)?//[^\"')]+)")


class Page(NamedTuple):
    """What a file links to, what it loads, and the anchors that it has."""

    anchors: frozenset[str]
    links: frozenset[str]
    loads: frozenset[str] = frozenset()


def _slugs(headings: Iterable[str]) -> Iterator[str]:
    """The anchors that forges give to headings: small letters, hyphens for spaces, a number where one is there already."""
    seen: dict[str, int] = {}
    for heading in headings:
        words = re.sub(r"\[(.+?)\]\(.+?\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        seen[slug] = seen.get(slug, -1) + 1
        yield f"{slug}-{seen[slug]}" if seen[slug] else slug


def _markdown(text: str) -> Page:
    prose = _FENCE.sub("", text)
    anchors = {*_slugs(_HEADING.findall(prose)), *_ANCHOR.findall(prose)}
    links = {inline or reference for inline, reference in _LINK.findall(_CODE.sub("", prose))}
    return Page(frozenset(anchors), frozenset(links))


class _Html(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loads: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "author"):
            self.loads.add(given.get("href", ""))
        elif "src" in given:
            self.loads.add(given["src"])


def _html(text: str) -> Page:
    parser = _Html()
    parser.feed(text)
    return Page(*map(frozenset, (parser.anchors, parser.links, parser.loads)))


def _css(text: str) -> Page:
    return Page(frozenset(), frozenset(), frozenset(_IN_CSS.findall(text)))


_READERS = {".md": _markdown, ".html": _html, ".css": _css}


@cache
def read(file: Path) -> Page:
    """What is in a file of one of the kinds that have links."""
    return _READERS[file.suffix](file.read_text(encoding="utf-8"))


def faults(file: Path) -> Iterator[str]:
    """What is wrong with the links of ``file``."""
    page = read(file)
    for link in sorted(page.links | page.loads):
        place = urlsplit(link)
        if place.scheme or place.netloc:
            if link in page.loads and place.scheme != "data":
                yield f"loads {link}"
            continue
        target = (file.parent / unquote(place.path)).resolve() if place.path else file
        if not target.exists():
            yield f"links to {link}: no such file"
        elif place.fragment and target.suffix in _READERS and unquote(place.fragment) not in read(target).anchors:
            yield f"links to {link}: no such heading"


def _files(folders: list[str]) -> list[Path]:
    if folders:
        return [path for folder in folders for path in Path(folder).resolve().rglob("*") if path.suffix in _READERS]
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).exists()]


def main() -> int:
    """Print every dead link; 1 if there is one, or nothing to look at."""
    files = _files(sys.argv[1:])
    found = [f"{file}: {fault}" for file in sorted(files) for fault in faults(file)]
    print(*found, f"{len(files)} files, {len(found)} dead links", sep="\n")
    return int(bool(found) or not files)


if __name__ == "__main__":
    sys.exit(main())
