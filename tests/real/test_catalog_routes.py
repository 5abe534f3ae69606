"""The fake catalog decodes names as the router of the real one does: the same library, with the same routes."""

import json
import subprocess
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.fake_kubeflow import CATALOG_V1, routed_to

PROGRAM = Path(__file__).parents[2] / ".servers/bin/catalog-routes"
PIECES = [
    "a",
    "/",
    "%41",
    "%2F",
    "%zz",
    "%",
    " ",
    "ü",
    "/artifacts",
    "artifacts",
    "/performance",
    "?#",
    "~.",
    "$&+,:;=@",
    "!*'()",
]
NAMES = st.lists(st.sampled_from(PIECES) | st.characters(codec="utf-8"), min_size=1, max_size=4).map("".join)
ENCODINGS = {
    "as Go": lambda text: quote(text, safe="$&+,:;=@"),
    "once": lambda text: quote(text, safe=""),
    "with slashes": quote,
    "twice": lambda text: "".join(f"%25{byte:02X}" for byte in text.encode()),
}


@pytest.fixture(scope="module")
def routes():
    assert PROGRAM.exists(), "the routes of the catalog are not built: run make test-servers"
    with subprocess.Popen([PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        connection = HTTPConnection(process.stdout.readline().strip())
        yield connection
        connection.close()
        process.kill()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=1000)
@given(NAMES, NAMES, st.sampled_from([*ENCODINGS]), st.sampled_from([*ENCODINGS]), st.sampled_from(["", "/artifacts"]))
def test_the_fake_routes_as_the_router_does(routes, source, name, of_source, of_name, ending):
    path = f"{CATALOG_V1}/sources/{ENCODINGS[of_source](source)}/models/{ENCODINGS[of_name](name)}{ending}"
    routes.request("GET", path)
    answer = routes.getresponse()
    body = answer.read()
    assert routed_to(path) == (tuple(json.loads(body)) if answer.status == 200 else None)
