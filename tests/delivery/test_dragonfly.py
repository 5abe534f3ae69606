"""Large files by the dfdaemon of a node: the origin is read once, and who lies or is away costs only time.

By a fake here; ``tests/dragonfly`` has the real one.
"""

import base64
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from fakes.certificates import Authority
from fakes.dragonfly_origins import ORIGINS, WEIGHTS, Origin, hub, plain, signed_s3
from fakes.fake_dfdaemon import FakeDfdaemon, Swarm
from fakes.fake_oci import FakeRegistry, tar
from fakes.fake_s3 import FakeS3
from fakes.faulty_http import (
    ALWAYS,
    ANYWHERE,
    Answer,
    Fault,
    FaultyServer,
    Request,
    cut,
    gzipped,
    labelled,
    probes,
    redirect,
    reset,
    stall,
    status,
    wrong_byte,
)
from fakes.nginx import free_port
from fakes.real_s3 import s3_settings
from fakes.trees import MIB, content, read_tree
from lading import events as told
from lading.errors import NotAllowed
from lading.model.uri import ModelURI
from lading.network import client
from lading.settings.limits import Limits, Network
from lading.settings.proxies import ProxyRule

BIG = content(9 * MIB)
# In pieces of 4 MiB.
PIECES = 3


@pytest.fixture
def swarm() -> Swarm:
    return Swarm()


@pytest.fixture
def node(swarm) -> Iterator[Callable[[], FakeDfdaemon]]:
    """Start the dfdaemon of another node."""
    with ExitStack() as stack:
        yield lambda: FakeDfdaemon(stack.enter_context(FaultyServer()), swarm)


@pytest.fixture
def bring(pull, tmp_path):
    """Deliver a model by a dfdaemon, and look at what has come."""
    numbers = iter(range(100))

    def call(origin: Origin, url: str, *, prefix: str = "", crc: str = "refuse", **options: Any) -> None:
        rule = ProxyRule(ModelURI.parse(prefix or origin.uri), url, True, crc)
        folder = tmp_path / f"node-{next(numbers)}" / "model"
        pull(origin.uri, folder, **({"range_bytes": 4 * MIB} | origin.settings | options), proxies=(rule,))
        assert read_tree(folder) == origin.files

    return call


def by_dragonfly(request: Request) -> bool:
    return "x-dragonfly-use-p2p" in request.headers


def reads_itself(request: Request) -> bool:
    """Whether it is lading, and not a dfdaemon, that asks the origin for content."""
    return request.method == "GET" and not by_dragonfly(request) and not probes(request)


@pytest.mark.parametrize("make", ORIGINS)
def test_several_nodes_read_a_model_from_its_origin_once(make, server, swarm, node, bring):
    origin = make(server, BIG)
    nodes = [node() for _ in range(3)]
    for each in nodes:
        bring(origin, each.url)
    assert len(swarm.fetched) == PIECES
    # What is small, listings and questions about files are for the origin.
    asked = [request for each in nodes for request in each.server.requests]
    [path] = {request.path for request in asked}
    assert [request.method for request in asked] == ["GET"] * 3
    assert not [request for request in server.requests_for(path) if reads_itself(request)]


def test_the_same_bytes_have_one_name_and_a_file_that_is_replaced_has_another(server, swarm, node, bring):
    origin = signed_s3(server, BIG)
    bring(origin, node().url)
    bring(plain(server, BIG), node().url)
    assert len(swarm.tasks()) == 2, "one by its MD5, one by its SHA-256"
    bring(hub(server, BIG), node().url)
    assert len(swarm.tasks()) == 2
    other = content(9 * MIB, seed=1)
    bring(plain(server, other), node().url)
    assert len(swarm.tasks()) == 3


def test_an_https_origin_is_asked_for_in_plain_text_by_the_proxy_alone(tmp_path, swarm, node, bring):
    authority = Authority(tmp_path)
    dfdaemon = node()
    with FaultyServer(authority.server_context("localhost"), "localhost") as secure:
        settings = {"network": Network(ca_files=(authority.bundle,))}
        bring(Origin(plain(secure, BIG).uri, {WEIGHTS: BIG}, settings), dfdaemon.url)
    assert {request.target for request in dfdaemon.server.requests} == {f"{secure.url}/weights.bin"}
    assert len(swarm.fetched) == PIECES


@pytest.mark.parametrize("make", ORIGINS)
def test_without_dfdaemon_the_origin_is_read_and_that_is_told_once(make, server, bring, events):
    origin = make(server, BIG)
    bring(origin, f"http://127.0.0.1:{free_port()}")
    [failed] = [event for event in events if isinstance(event, told.RelayFailed)]
    assert "cannot connect" in failed.why


@pytest.mark.parametrize(
    "fault",
    [
        status(500, times=ALWAYS),
        status(404, times=ALWAYS),
        status(407, times=ALWAYS),
        reset(at=0, times=ALWAYS),
        cut(at=0, times=ALWAYS),
        stall(at=0, times=ALWAYS),
        reset(at=MIB),
    ],
    ids=["500", "404", "407", "reset", "cut", "stall", "killed half way"],
)
def test_a_dfdaemon_that_answers_badly_costs_only_time(fault, server, node, bring, monkeypatch):
    monkeypatch.setattr(client, "_RELAY_STALL_S", 0.2)
    origin, dfdaemon = signed_s3(server, BIG), node()
    dfdaemon.server.misbehave(ANYWHERE, fault)
    bring(origin, dfdaemon.url, limits=Limits(stall_s=0.2, connect_s=5.0, attempts=4, workers=2))


def own_ranges(server: FaultyServer) -> list[tuple[int, int]]:
    """The ranges of the weights that lading itself has asked the origin for."""
    asked = [request.byte_range(len(BIG)) for request in server.requests if reads_itself(request)]
    return sorted(each for each in asked if each is not None)


@pytest.mark.parametrize("make", ORIGINS)
def test_what_no_dfdaemon_gives_is_asked_of_the_origin_in_ranges(make, server, bring):
    origin = make(server, BIG)
    bring(origin, f"http://127.0.0.1:{free_port()}")
    # A request that is redirected is there twice.
    assert sorted(set(own_ranges(server))) == [(0, 4 * MIB), (4 * MIB, 8 * MIB), (8 * MIB, 9 * MIB)]


def test_so_is_the_rest_of_a_file_whose_dfdaemon_is_killed_half_way(server, node, bring):
    dfdaemon = node()
    dfdaemon.server.misbehave(ANYWHERE, cut(at=MIB), status(503, times=ALWAYS, after=1))
    bring(signed_s3(server, BIG), dfdaemon.url)
    assert own_ranges(server) == [(MIB, 5 * MIB), (5 * MIB, 9 * MIB)]


def test_a_dfdaemon_that_gives_a_little_each_time_is_asked_once(server, node, bring):
    dfdaemon = node()
    dfdaemon.server.misbehave(ANYWHERE, cut(at=MIB, times=ALWAYS))
    bring(signed_s3(server, BIG), dfdaemon.url)
    assert len(dfdaemon.server.requests) == 1


def test_a_dfdaemon_that_gives_pieces_is_asked_for_the_rest(server, node, bring):
    dfdaemon = node()
    dfdaemon.server.misbehave(ANYWHERE, cut(at=5 * MIB))
    bring(signed_s3(server, BIG), dfdaemon.url)
    assert len(dfdaemon.server.requests) == 2
    assert not own_ranges(server)


def part(asked: str) -> Fault:
    """An answer with right bytes that it calls others."""
    return Fault(lambda _, answer: replace(answer, status=206).with_headers(Content_Range=asked), times=ALWAYS)


def other_size(size_bytes: int, framing: str) -> Fault:
    """A whole body of another size."""
    return Fault(lambda *_: Answer(200, {"ETag": '"v1"'}, content(size_bytes), framing=framing), times=ALWAYS)


@pytest.mark.parametrize("make", [plain, signed_s3])
@pytest.mark.parametrize(
    "fault",
    [
        other_size(MIB, "length"),
        other_size(MIB, "chunked"),
        other_size(0, "length"),
        other_size(10 * MIB, "length"),
        other_size(10 * MIB, "closed"),
        part(f"bytes 0-{9 * MIB - 1}/{10 * MIB}"),
        part(f"bytes 1-{9 * MIB}/{9 * MIB + 1}"),
        part("bytes 0-9/10"),
        part("none of your business"),
        status(206, BIG, times=ALWAYS),
        wrong_byte(at=5 * MIB, times=ALWAYS),
        gzipped(),
        labelled("br"),
        labelled("gzip"),
    ],
    ids=[
        "shorter",
        "shorter, and does not say so",
        "empty",
        "longer",
        "longer, and does not say so",
        "of a larger file",
        "another part",
        "of another file",
        "no part",
        "a part of nothing",
        "a wrong byte",
        "gzip",
        "brotli",
        "no gzip",
    ],
)
def test_a_hostile_dfdaemon_costs_only_time(fault, make, server, node, bring):
    origin, dfdaemon = make(server, BIG), node()
    dfdaemon.server.misbehave(ANYWHERE, fault)
    bring(origin, dfdaemon.url)


def ask_for_login(url: str) -> Fault:
    """Anybody who wants a file is to show a login at ``url``."""
    return status(401, headers={"WWW-Authenticate": f'Bearer realm="{url}",service="registry"'}, times=ALWAYS)


@pytest.mark.parametrize("make", ORIGINS)
@pytest.mark.parametrize("lead", [redirect, ask_for_login])
def test_nobody_follows_a_dfdaemon_elsewhere_and_no_login_goes_there(lead, make, server, node, bring):
    with FaultyServer() as elsewhere:
        dfdaemon = node()
        dfdaemon.server.misbehave(ANYWHERE, lead(f"{elsewhere.url}/token"))
        bring(make(server, BIG), dfdaemon.url)
        assert dfdaemon.server.requests
        assert not elsewhere.requests


@pytest.mark.parametrize(("name", "is_relayed"), [("Authorization", True), ("X-Token", False)])
def test_a_header_that_a_redirected_dfdaemon_would_carry_on_is_not_shown_to_it(name, is_relayed, server, node, bring):
    with FaultyServer() as storage:
        kept = plain(storage, BIG)
        server.routes["/"] = lambda _: Answer(302, {"Location": kept.uri})
        headers = {"127.0.0.1-headers": json.dumps({name: "s3cret"})}
        dfdaemon = node()
        bring(Origin(f"{server.url}/{WEIGHTS}", kept.files, {"variables": headers}), dfdaemon.url)
        assert bool(dfdaemon.server.requests) == is_relayed
        assert all(request.headers[name.lower()] == "s3cret" for request in server.requests)
        assert "s3cret" not in repr(storage.requests)


def test_a_file_that_dfdaemon_has_of_a_mirror_is_taken_whatever_its_etag(server, swarm, node, bring):
    first, dfdaemon = plain(server, BIG), node()
    bring(first, dfdaemon.url)
    with FaultyServer() as mirror:
        again = plain(mirror, BIG)
        mirror.resources[f"/{WEIGHTS}"] = replace(mirror.resources[f"/{WEIGHTS}"], etag='"another"')
        bring(again, dfdaemon.url)
        # For its listing, which is not doubted.
        assert len(mirror.requests) == 1
    assert len(swarm.tasks()) == 1


def test_a_dfdaemon_that_was_away_is_asked_again_after_a_while(server, swarm, node, bring, clock, events):
    bucket, dfdaemon = FakeS3(server), node()
    origin = Origin("s3://models/llm", {"1.bin": BIG, "2.bin": BIG, "3.bin": BIG}, s3_settings(server.url))
    for path, data in origin.files.items():
        bucket.put(f"llm/{path}", data)
    dfdaemon.server.misbehave(ANYWHERE, status(503))
    # The first is refused; meanwhile the second is not asked for; the third is.
    later = server.before(lambda: clock.wait(threading.Event(), 31.0), on=reads_itself)
    server.misbehave(bucket.path("llm/2.bin"), later)
    bring(origin, dfdaemon.url, limits=Limits(stall_s=5.0, connect_s=5.0, workers=1))
    assert [request.path for request in dfdaemon.server.requests] == [
        bucket.path("llm/1.bin"),
        bucket.path("llm/3.bin"),
    ]
    assert len([event for event in events if isinstance(event, told.RelayFailed)]) == 1


def test_what_the_origin_refuses_is_not_the_proxys_fault(server, node, pull, tmp_path, events):
    origin, dfdaemon = plain(server, BIG), node()
    server.misbehave("/weights.bin", status(403, times=ALWAYS))
    rule = ProxyRule(ModelURI.parse(origin.uri), dfdaemon.url, True)
    with pytest.raises(NotAllowed):
        pull(origin.uri, tmp_path / "model", proxies=(rule,))
    assert not [event for event in events if isinstance(event, told.RelayFailed)]
    assert not (tmp_path / "model/weights.bin").exists()


@pytest.mark.parametrize(("pauses", "is_relayed"), [(1, True), (2, True), (3, False)])
def test_after_a_pause_that_the_origin_wants_peers_are_asked_again(pauses, is_relayed, server, swarm, node, bring):
    server.misbehave("/weights.bin", status(429, headers={"Retry-After": "5"}, times=pauses, on=by_dragonfly))
    bring(plain(server, BIG), node().url)
    assert bool(swarm.fetched) == is_relayed


def lie(swarm: Swarm) -> None:
    """A peer has another byte in each piece."""
    for place, piece in swarm.pieces.items():
        swarm.pieces[place] = bytes([piece[0] ^ 1]) + piece[1:]


@pytest.mark.parametrize("make", ORIGINS)
def test_a_peer_that_lies_is_told_and_the_bytes_come_from_the_origin(make, server, swarm, node, bring, events):
    origin = make(server, BIG)
    bring(origin, node().url)
    lie(swarm)
    dfdaemon = node()
    bring(origin, dfdaemon.url)
    [refuted] = [event for event in events if isinstance(event, told.RelayRefuted)]
    assert (refuted.relay, refuted.path) == (dfdaemon.url, "weights.bin")
    assert [request for request in server.requests if "x-dragonfly-use-p2p" not in request.headers]


def test_a_layer_is_not_unpacked_before_it_is_known_to_be_right(server, swarm, node, bring, events):
    fake = FakeRegistry(server)
    fake.put_image(tar(("models/weights.bin", BIG)))
    origin = Origin(fake.uri(), {WEIGHTS: BIG}, {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}})
    bring(origin, node().url)
    lie(swarm)
    bring(origin, node().url)
    assert len([event for event in events if isinstance(event, told.RelayRefuted)]) == 1


def test_what_peers_can_forge_comes_from_the_origin_unless_that_is_allowed(server, swarm, node, bring):
    bucket = FakeS3(server)
    crc = base64.b64encode(zlib.crc32(BIG).to_bytes(4)).decode()
    bucket.put("llm/weights.bin", BIG, part_sizes=(8 * MIB, MIB), checksums={"x-amz-checksum-crc32": crc})
    origin = Origin("s3://models/llm", {WEIGHTS: BIG}, s3_settings(server.url))
    bring(origin, node().url)
    assert not swarm.fetched
    bring(origin, node().url, crc="allow")
    assert len(swarm.fetched) == PIECES


@pytest.mark.parametrize("settings", [{}, {"verify": "off"}])
def test_what_nothing_verifies_never_comes_from_peers(settings, server, swarm, node, bring):
    origin = plain(server, BIG) if settings else Origin(server.put(f"/{WEIGHTS}", BIG), {WEIGHTS: BIG})
    bring(origin, node().url, **settings)
    assert not swarm.fetched


def test_only_what_is_below_the_rules_prefix_is_shown_to_the_proxy(server, node, bring):
    dfdaemon = node()
    bring(signed_s3(server, BIG), dfdaemon.url, prefix="s3://models/ll")
    bring(hub(server, BIG), dfdaemon.url, prefix="s3://models")
    assert not dfdaemon.server.requests
