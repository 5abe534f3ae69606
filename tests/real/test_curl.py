"""curl takes and refuses the same certificates as lading."""

import subprocess

import pytest

from fakes.certificate_cases import BELIEVED, REFUSED
from fakes.faulty_http import Answer, FaultyServer

CASES = BELIEVED | {name: make for name, (make, _) in REFUSED.items()}


@pytest.mark.parametrize("name", CASES)
def test_curl_is_of_the_same_opinion(name, tmp_path, program):
    case = CASES[name](tmp_path)
    with FaultyServer(case.server, "localhost") as server:
        server.routes["/"] = lambda request: Answer(body=b"hello")
        curl = [program("curl"), "-sS", "--noproxy", "*", "--cacert", case.bundle, server.url]
        done = subprocess.run(curl, capture_output=True, text=True)
    assert (done.stdout == "hello") is (name in BELIEVED), done.stderr
