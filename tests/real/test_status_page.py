"""The status page in a real browser: headless Chromium.  ``docs/status-page.png`` is what it shows."""

import re
import struct
import subprocess
import time
from pathlib import Path

import pytest

from lading.agent.http_server import Endpoint
from lading.agent.metrics import Metrics
from lading.agent.page import Deliveries
from lading.agent.status import Status
from lading.settings.agent import AgentSettings, Delivery
from lading.settings.store import StoreSettings

DOCS = Path(__file__).parents[2] / "docs"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
PIN = "sha256:" + "8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"


@pytest.fixture
def url(tmp_path, pull, monkeypatch):
    """A page with a bit of everything."""
    monkeypatch.chdir(tmp_path)
    for name in ("iris", "llama-3-8b"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "weights.bin").write_bytes(name.encode() * 300_000)
        pull(f"models/{name}", tmp_path / f"{name}-placed", store=StoreSettings(path=str(tmp_path / "store")))
    status = Status(Metrics())
    status.configure(
        [
            Delivery("iris", "model-registry://iris@champion", "/mnt/models/iris"),
            Delivery("llama", "hf://meta-llama/Llama-3.1-8B-Instruct", "/mnt/models/llama"),
            Delivery("reranker", "s3://models/reranker", "/mnt/models/reranker"),
            Delivery("stranger", "s3://models/" + "very-long-name-" * 12, "/mnt/models/stranger"),
        ]
    )
    now_s = time.time()
    place = f"model-registry://prod/iris/v3?pin={PIN}"
    done = {"checked_s": now_s - 12, "succeeded_s": now_s - 12, "since_s": now_s - 7300}
    status.change("iris", ready=True, version="v3", pin=place, files=9, size_bytes=4 << 30, **done)
    status.change(
        "iris", waits="v4 was refused (the server answers loading with 400), and is tried again in 4 min 58 s"
    )
    status.change("llama", doing="delivering", checked_s=now_s - 40, done_bytes=11 << 30, total_bytes=15 << 30)
    status.change(
        "reranker", checked_s=now_s - 5, code="not-found", error=f"s3://models/reranker{HOSTILE} has no files"
    )
    status.change("reranker", hint="did you mean reranker-v2/?")
    settings = AgentSettings(port=0)
    store = StoreSettings(path=str(tmp_path / "store"))
    with Endpoint(settings, Deliveries(status, lambda: store), take_webhook=lambda *_: False) as endpoint:
        yield f"http://127.0.0.1:{endpoint.port}/"


@pytest.fixture
def browse(program, tmp_path):
    def run(*options: str) -> str:
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={tmp_path}/profile",
        ]
        command = [program("chromium"), *flags, *options]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    return run


def png_size(place: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", place.read_bytes()[16:24])
    return width, height


def test_a_browser_shows_it_and_runs_nothing_in_it(url, browse, tmp_path):
    document = browse("--dump-dom", url)
    assert "1 of 4 models in place" in document
    assert "Store: 2 models" in document
    assert "owned" not in re.search("<title>(.*?)</title>", document)[1]
    assert "&lt;script&gt;" in document
    place = tmp_path / "page.png"
    browse(f"--screenshot={place}", "--window-size=900,900", url)
    assert png_size(place) == (900, 900)
    shown = png_size(DOCS / "status-page.png")
    assert shown == (900, 900), "docs/status-page.png is of another size: take a new one"


def test_it_fits_a_phone(url, browse, tmp_path):
    import urllib.request

    text = urllib.request.urlopen(url).read().decode()
    # A copy that may run a script, which measures it in a frame as wide as a phone.
    (tmp_path / "copy.html").write_text(text, encoding="utf-8")
    frame = (
        "<iframe src=copy.html style='width:375px;height:800px;border:0' onload="
        "'document.title=this.contentDocument.documentElement.scrollWidth'></iframe>"
    )
    (tmp_path / "phone.html").write_text(frame)
    shown = browse("--allow-file-access-from-files", "--dump-dom", f"file://{tmp_path}/phone.html")
    assert re.search("<title>(.*?)</title>", shown)[1] == "375"
