"""The documentation site in a real browser, headless Chromium, opened as files and without a network."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHONE_PX = 390
# Each page in a frame as wide as a phone; the title tells which of them is wider than its frame.
MEASURE = """<script>
const wide = [];
let left = {pages}.length;
for (const page of {pages}) {{
  const frame = document.createElement("iframe");
  frame.style = "width:{width}px;height:800px;border:0";
  frame.onload = () => {{
    const all = frame.contentDocument.documentElement;
    if (all.scrollWidth > {width} || !all.querySelector("article")) wide.push(page);
    if (--left == 0) document.title = JSON.stringify(wide);
  }};
  frame.src = page;
  document.documentElement.append(frame);
}}
</script>"""


@pytest.fixture(scope="module")
def site():
    """What ``make docs`` builds, which ends with an error if a link is dead."""
    subprocess.run(["make", "-C", ROOT, "docs"], check=True)
    return ROOT / "build/site"


@pytest.fixture
def browse(program, tmp_path):
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=20000"]

    def run(url, *options):
        command = [program("chromium"), *flags, *offline, *options, "--dump-dom", url]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout

    return run


def test_the_front_leads_to_what_lading_is_for_and_how_it_is_called(site, browse):
    document = browse((site / "index.html").as_uri())
    assert "lading pull s3://models/llm /mnt/models" in re.sub("<.*?>", "", document)
    assert 'href="sources.html"' in document


def test_a_search_finds_a_variable_of_the_configuration(site, browse):
    document = browse((site / "development/search.html").as_uri() + "?q=LADING_MAX_RATE")
    (found,) = re.findall('<ul [^>]*class="search">.*?</ul>', document, re.DOTALL)
    assert 'href="docs/configuration.html' in found


def test_the_reference_has_every_public_name(site):
    import lading

    page = (site / "development/docs/api.html").read_text()
    public = [name for name in lading.__all__ if name != "__version__"]
    assert [name for name in public if not re.search(f'id="(module-)?lading.{name}"', page)] == []


def test_every_page_fits_a_phone(site, browse, tmp_path):
    pages = [path.as_uri() for path in (site / "development").rglob("*.html") if path.name != "genindex.html"]
    measure = tmp_path / "measure.html"
    measure.write_text(MEASURE.format(pages=json.dumps(pages), width=PHONE_PX))
    wide = re.search("<title>(.*?)</title>", browse(measure.as_uri(), "--allow-file-access-from-files"))
    assert wide, "not all pages were loaded"
    assert json.loads(wide[1]) == []
