"""Which of a host's addresses is connected to: one that answers, soon, whatever the others do."""

import socket
import threading
import time
from contextlib import ExitStack

import pytest

from fakes.dead_addresses import Resolver, silent
from fakes.faulty_http import Answer, FaultyServer
from lading.errors import Unavailable
from lading.network.addresses import Addresses
from lading.network.client import HttpClient
from lading.retry import Retry, Run
from lading.settings.limits import Limits, Network

LIVE = "127.0.0.1"
# RFC 6666: packets for it are discarded, or there is no way to it at all.
NOWHERE = "100::1"


@pytest.fixture
def server():
    with FaultyServer() as server:
        server.routes["/"] = lambda request: Answer(body=b"hello")
        yield server


@pytest.fixture
def port(server) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.fixture
def resolve(monkeypatch):
    """Give the host hub.example these addresses."""

    def give(*addresses: str) -> Resolver:
        resolver = Resolver(hub_example=addresses)
        monkeypatch.setattr(socket, "getaddrinfo", resolver)
        return resolver

    return give


@pytest.fixture
def client():
    with ExitStack() as stack:

        def make(connect_s: float = 10.0, **network: str) -> HttpClient:
            retry = Retry(Run(threading.Event()), attempts=1)
            http = HttpClient(Network(**network), Limits(connect_s=connect_s, stall_s=5.0), retry)
            stack.callback(http.close)
            return http

        yield make


def seconds(call) -> float:
    begun = time.monotonic()
    call()
    return time.monotonic() - begun


def test_four_addresses_that_swallow_packets_cost_a_second_and_not_forty(port, resolve, client):
    with silent(port, 4) as dead:
        resolve(*dead, LIVE)
        assert seconds(lambda: client().fetch("GET", f"http://hub.example:{port}/")) < 4


def test_the_address_that_answered_is_tried_first_from_then_on(port, resolve):
    with silent(port, 4) as dead:
        resolve(*dead, LIVE)
        addresses = Addresses(10.0)
        addresses.connect("hub.example", port).close()
        # Without a memory, each of them would wait for four starts of 0.25 s.
        assert seconds(lambda: [addresses.connect("hub.example", port).close() for _ in range(10)]) < 3


def test_what_answered_once_and_is_gone_is_no_hindrance(port, resolve):
    with silent(port, 2) as dead:
        resolver = resolve(dead[0], LIVE)
        addresses = Addresses(10.0)
        addresses.connect("hub.example", port).close()
        resolver.addresses["hub.example"] = [dead[1], LIVE]
        with addresses.connect("hub.example", port) as sock:
            assert sock.getpeername()[0] == LIVE
        resolver.addresses["hub.example"] = ["127.0.0.9", LIVE]
        with addresses.connect("hub.example", port) as sock:
            assert sock.getpeername()[0] == LIVE


def test_a_name_of_many_servers_spreads_the_connections_over_all_of_them(resolve):
    with ExitStack() as stack:
        first = stack.enter_context(socket.create_server((LIVE, 0)))
        port = first.getsockname()[1]
        stack.enter_context(socket.create_server(("127.0.0.2", port)))
        addresses = Addresses(10.0)
        reached = []
        for order in [(LIVE, "127.0.0.2"), ("127.0.0.2", LIVE)] * 2:
            resolve(*order)
            with addresses.connect("hub.example", port) as sock:
                reached.append(sock.getpeername()[0])
    assert reached == [LIVE, "127.0.0.2"] * 2


@pytest.mark.parametrize("refusing", [1, 30])
def test_addresses_that_refuse_are_not_waited_for(port, resolve, refusing):
    resolve(*[f"127.0.2.{number}" for number in range(1, refusing + 1)], LIVE)
    assert seconds(lambda: Addresses(10.0).connect("hub.example", port).close()) < 2


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("kind", ["silent", "refusing", "nowhere", "no such family"])
def test_one_that_answers_is_found_wherever_it_stands(port, resolve, monkeypatch, kind, place):
    with silent(port, 3) as dead:
        others = {
            "silent": dead,
            "refusing": ["127.0.2.1", "127.0.2.2", "127.0.2.3"],
            "nowhere": [NOWHERE, "100::2", "100::3"],
            "no such family": [NOWHERE, "100::2", "100::3"],
        }[kind]
        if kind == "no such family":
            monkeypatch.setattr(socket, "AF_INET6", 12345)
        resolve(*others[:place], LIVE, *others[place:])
        with Addresses(5.0).connect("hub.example", port) as sock:
            assert sock.getpeername()[0] == LIVE


def test_with_little_time_every_address_still_gets_some_of_it(port, resolve):
    with silent(port, 8) as dead:
        resolve(*dead, LIVE)
        Addresses(1.0).connect("hub.example", port).close()


def test_the_other_family_has_its_turn_second(port, resolve, monkeypatch):
    monkeypatch.setattr("lading.network.addresses._START_S", 60.0)
    resolve(NOWHERE, "100::2", "100::3", LIVE, "127.0.0.2")
    tried = [address.sockaddr[0] for address in Addresses(5.0)._in_order("hub.example", port)]
    assert tried == [NOWHERE, LIVE, "100::2", "127.0.0.2", "100::3"]


def test_a_name_with_more_addresses_than_anybody_has_opens_no_more_sockets_than_some(port, resolve):
    resolve(*[f"127.1.{number // 250}.{number % 250 + 1}" for number in range(5000)], LIVE)
    with pytest.raises(OSError, match="refused"):
        Addresses(10.0).connect("hub.example", port)


def test_when_nothing_answers_the_time_out_is_that_of_one_address(port, resolve, client):
    with silent(port, 4) as dead:
        resolve(*dead)
        http = client(connect_s=0.6)
        with pytest.raises(Unavailable, match=r"does not answer within 0\.6 s"):
            http.fetch("GET", f"http://hub.example:{port}/")


def test_when_all_refuse_each_reason_is_told_once(resolve, client):
    with socket.socket() as free:
        free.bind((LIVE, 0))
        port = free.getsockname()[1]
    resolve("127.0.2.1", "127.0.2.2")
    with pytest.raises(Unavailable, match=r"cannot connect to hub\.example:\d+: Connection refused$"):
        client().fetch("GET", f"http://hub.example:{port}/")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_with_dead_addresses_is_reached_as_soon(port, resolve, client, server, scheme):
    with silent(port, 3) as dead:
        resolve(*dead, LIVE)
        http = client(**{f"{scheme}_proxy": f"http://hub.example:{port}"})
        server.routes["http://models.test/"] = lambda request: Answer(body=b"by proxy")

        def ask() -> None:
            try:
                http.fetch("GET", f"{scheme}://models.test/")
            except Unavailable as error:
                # No proxy for https, and so it has been asked.
                assert "refuses to connect" in str(error)  # noqa: PT017

        assert seconds(ask) < 4
    assert len(server.requests) == 1
