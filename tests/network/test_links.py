"""Links that end: each is asked for anew by one thread, however many need it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from fakes.faulty_http import Answer
from lading.errors import TryAtOnce
from lading.network.client import HttpClient
from lading.network.links import Link, Links
from lading.retry import Retry, Run
from lading.settings.limits import Limits, Network

THREADS = 8


@pytest.fixture
def http():
    client = HttpClient(Network(), Limits(), Retry(Run(threading.Event())))
    yield client
    client.close()


def test_threads_whose_link_has_ended_ask_once_for_another(server, http):
    server.routes["/old/"] = lambda _: Answer(403)
    new = Link(server.put("/new/model.bin", b"weights"), ())
    where = server.put("/where", b"/new/model.bin")
    links, ready = Links(http), threading.Barrier(THREADS)
    links.keep({"model.bin": Link(f"{server.url}/old/model.bin", ())})

    def find() -> Link:
        http.fetch("GET", where, limit_bytes=100)
        return new

    def read(_: int) -> bytes:
        ready.wait()
        while True:
            with suppress(TryAtOnce), links.open("model.bin", find, (), what="the model") as answer:
                return answer.read(100)

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(read, range(THREADS))) == [b"weights"] * THREADS
    assert len(server.requests_for("/where")) == 1
