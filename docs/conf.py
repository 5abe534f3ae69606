"""The documentation site, which ``make docs`` builds.

The source folder is the repository, so that a link from one Markdown file to another is the same link on the site.
A link to any other file (a manifest, a schema) offers it as a download.
"""

import os
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

import lading  # noqa: E402

# What is public loads on first use, and would be shown where it is defined.
for _name in lading.__all__:
    setattr(lading, _name, getattr(lading, _name))
    if hasattr(getattr(lading, _name), "__module__"):
        getattr(lading, _name).__module__ = "lading"

project = "lading"
copyright = "the authors of lading; Apache-2.0"  # noqa: A001, Sphinx names it so
# tools/site.py sets both: the version of this tree, and every version that the site has, newest first.
version = os.environ.get("DOCS_VERSION", "development")
html_context = {"versions": os.environ.get("DOCS_VERSIONS", version).split()}

root_doc = "docs/index"
include_patterns = [
    "*.md", "docs/**", "benchmarks/results/**", "changes/README.md", "compat/README.md", "examples/README.md",
]  # fmt: skip
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4  # the anchors that a forge gives to headings
suppress_warnings = [
    "misc.highlighting_failure",  # examples say "…"
    "toc.not_included",  # figures are reached from the pages that they are of
]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
python_display_short_literal_types = True
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "lading"
html_copy_source = False
html_static_path = ["site/style.css"]
html_css_files = ["style.css"]
templates_path = ["site"]
html_sidebars = {
    "**": [
        "sidebar/brand.html", "sidebar/search.html", "sidebar/scroll-start.html", "sidebar/navigation.html",
        "versions.html", "sidebar/scroll-end.html",
    ]
}  # fmt: skip

# Pages whose list items are the site's navigation.
_CONTENTS = ("docs/index", "docs/adr/README")
_SECTION = re.compile(r"^## (.+)\n((?:(?!^## ).*\n?)*)", re.MULTILINE)
_ITEM = re.compile(r"^(?:-|\d+\.) \[(.+?)\]\((\S+)\.md\)", re.MULTILINE)


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Make a tree of contents of the pages that the list items of ``page`` link to, with its headings as captions."""
    if page in _CONTENTS:
        for caption, text in _SECTION.findall(source[0]) or [("Contents", source[0])]:
            pages = "\n".join(f"{title} <{place}>" for title, place in _ITEM.findall(text))
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def skip(app: Sphinx, what: str, name: str, member: object, skipped: bool, options: object) -> bool:
    """Leave out what a NamedTuple says of each field, which is only its number."""
    return skipped or (getattr(member, "__doc__", None) or "").startswith("Alias for field number")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_navigation)
    app.connect("autodoc-skip-member", skip)
