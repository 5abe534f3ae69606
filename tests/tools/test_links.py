"""The check of links: what is dead is found, and what is none is passed over."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def faults(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "tools")
    links = importlib.import_module("links")
    (tmp_path / "there.md").write_text("# A `key`, twice\n\n## Twice\n\n```\n# not a heading\n```\n\n## Twice\n")
    (tmp_path / "there.html").write_text('<p id="part">')

    def run(name, text):
        file = tmp_path / name
        file.write_text(text)
        return list(links.faults(file))

    return run


@pytest.mark.parametrize(
    "link",
    ["there.md", "there.md#a-key-twice", "there.md#twice-1", "#here", "https://example.com/gone", "there.html#part"],
)
def test_a_link_to_what_is_there_is_alive(faults, link):
    assert faults("a.md", f"# Here\n\nSee [it]({link}).") == []


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("gone.md", "no such file"),
        ("there.md#gone", "no such heading"),
        ("there.md#not-a-heading", "no such heading"),
        ("there.md#twice-2", "no such heading"),
        ("#gone", "no such heading"),
        ("there.html#gone", "no such heading"),
    ],
)
def test_a_link_to_what_is_not_there_is_dead(faults, link, said):
    assert faults("a.md", f"# Here\n\nSee [it]({link}).") == [f"links to {link}: {said}"]
    assert faults("a.html", f'<p id="here"><a href="{link}">') == [f"links to {link}: {said}"]


def test_code_has_no_links(faults):
    assert faults("a.md", "`[a](gone.md)` and\n\n```\n[b](gone.md)\n```\n") == []


@pytest.mark.parametrize(
    "loads",
    [
        '<script src="https://cdn.example.com/a.js">',
        '<img src="//cdn.example.com/a.png">',
        '<link rel="stylesheet" href="https://fonts.example.com/a.css">',
    ],
)
def test_a_page_that_loads_from_elsewhere_is_found(faults, loads):
    (fault,) = faults("a.html", loads)
    assert fault.startswith("loads ")
    assert "example.com" in fault


def test_so_is_a_style_sheet(faults):
    assert faults("a.css", "a {background: url(data:x)} @font-face {src: url('https://fonts.example.com/a')}") == [
        "loads https://fonts.example.com/a"
    ]


def test_a_file_that_a_page_loads_must_be_there(faults):
    assert faults("b.html", '<script src="there.html">') == []
    assert faults("a.html", '<script src="gone.js">') == ["links to gone.js: no such file"]
