"""Following a resource: every object there is and every change, whatever happens to lists and watches."""

import socket

import pytest

from fakes.dead_addresses import Resolver
from fakes.fake_api_server import COLLECTION, SERVICES, lines
from fakes.faulty_http import ANYWHERE, anything, cut, reset, stall, status
from lading.errors import Interrupted, NotAllowed, NotFound
from lading.kubernetes import api_server
from lading.kubernetes.api_server import ApiServer
from lading.kubernetes.follow import Followed, Key, follow
from lading.kubernetes.watched import Watched
from lading.settings.kubernetes import Access
from lading.settings.limits import Network


class Told:
    """What was told; ends the run once ``enough`` has come."""

    def __init__(self, session, enough: int) -> None:
        self.told: list[tuple[str, str]] = []
        self._session = session
        self._enough = enough

    def followed(self) -> Followed:
        return Followed(
            lambda key, thing: self._note(key.name, str(thing.get("spec", "there"))),
            lambda key: self._note(key.name, "gone"),
            lambda: self._note("", "listed"),
        )

    def _note(self, *words: str) -> None:
        self.told.append(words)
        if len(self.told) == self._enough:
            self._session.run.stop.set()


@pytest.fixture
def told(api, session):
    def told(enough: int, resource=SERVICES) -> list[tuple[str, str]]:
        told = Told(session, enough)
        with pytest.raises(Interrupted):
            follow(api, resource, "", told.followed())
        return told.told

    return told


def watching(request) -> bool:
    return "watch=1" in request.query


def listing(request) -> bool:
    return not watching(request)


def change_when_watched(server, *changes) -> None:
    """Each of ``changes`` is made when the next watch is asked for."""
    for number, change in enumerate(changes):
        server.misbehave(f"/{COLLECTION}", server.before(change, on=watching, after=number))


def test_what_is_there_is_told_then_each_change(server, cluster, told):
    cluster.put(COLLECTION, "iris", spec="v1")
    change_when_watched(
        server,
        lambda: cluster.put(COLLECTION, "iris", spec="v2"),
        lambda: cluster.put(COLLECTION, "law", spec="v1"),
        lambda: cluster.remove(COLLECTION, "iris"),
    )
    assert told(5) == [("iris", "v1"), ("", "listed"), ("iris", "v2"), ("law", "v1"), ("iris", "gone")]
    assert all(request.headers["authorization"] == "Bearer t0ken" for request in server.requests)
    assert len([request for request in server.requests if listing(request)]) == 1


def test_a_list_comes_in_pages(cluster, told, monkeypatch):
    monkeypatch.setattr(api_server, "_PAGE_OBJECTS", 2)
    for number in range(5):
        cluster.put(COLLECTION, f"iris-{number}")
    assert [name for name, _ in told(6)] == [*(f"iris-{number}" for number in range(5)), ""]


def test_a_page_of_large_objects_is_asked_for_in_parts(server, cluster, told, monkeypatch):
    monkeypatch.setattr(api_server, "_MOST_PAGE_BYTES", 3000)
    for number in range(5):
        cluster.put(COLLECTION, f"iris-{number}", spec="x" * 2000)
    assert [name for name, _ in told(6)] == [*(f"iris-{number}" for number in range(5)), ""]
    assert [request.query for request in server.requests[:3]] == ["limit=100", "limit=12", "limit=1"]


def test_a_list_that_the_server_forgets_between_pages_begins_anew(server, cluster, told, monkeypatch):
    monkeypatch.setattr(api_server, "_PAGE_OBJECTS", 1)
    cluster.put(COLLECTION, "iris")
    cluster.put(COLLECTION, "law")

    def forget() -> None:
        cluster.put(COLLECTION, "law", spec="v2")
        cluster.forget()

    server.misbehave(f"/{COLLECTION}", server.before(forget, after=1, on=anything))
    assert told(4) == [("iris", "there"), ("iris", "there"), ("law", "v2"), ("", "listed")]


def test_a_watch_of_a_version_that_is_too_old_lists_anew_and_tells_who_has_gone(server, cluster, told):
    cluster.put(COLLECTION, "iris")
    cluster.put(COLLECTION, "law")

    def forget() -> None:
        cluster.remove(COLLECTION, "iris")
        cluster.forget()

    change_when_watched(server, forget)
    assert told(6)[3:] == [("law", "there"), ("iris", "gone"), ("", "listed")]


def test_410_as_the_answer_itself_lists_anew(server, cluster, told):
    cluster.put(COLLECTION, "iris")
    server.misbehave(f"/{COLLECTION}", status(410, on=watching))
    assert told(4) == [("iris", "there"), ("", "listed")] * 2


@pytest.mark.parametrize("fault", [reset, cut])
def test_a_watch_that_breaks_in_the_middle_of_an_event_goes_on_where_it_was(server, cluster, told, fault):
    cluster.put(COLLECTION, "iris")

    def change() -> None:
        cluster.put(COLLECTION, "law", spec="v1")
        cluster.put(COLLECTION, "law", spec="v2")

    change_when_watched(server, change)
    first = len(lines([{"type": "ADDED", "object": cluster.put(COLLECTION, "law", spec="v0")}]))
    cluster.remove(COLLECTION, "law")
    server.misbehave(f"/{COLLECTION}", fault(at=first + 20, on=watching))
    assert told(4)[2:] == [("law", "v1"), ("law", "v2")]
    assert len([request for request in server.requests if listing(request)]) == 1


@pytest.fixture
def short_silence(monkeypatch):
    monkeypatch.setattr(api_server, "_SILENCE_S", 0.2)


def test_a_watch_that_dies_without_a_word_is_noticed(short_silence, server, cluster, told):
    cluster.put(COLLECTION, "iris")
    change_when_watched(server, lambda: None, lambda: cluster.put(COLLECTION, "law"))
    server.misbehave(f"/{COLLECTION}", stall(at=0, on=watching))
    assert told(3)[2:] == [("law", "there")]


def test_a_busy_server_is_asked_when_it_says(server, cluster, told, clock):
    cluster.put(COLLECTION, "iris")
    server.misbehave(f"/{COLLECTION}", status(429, headers={"Retry-After": "17"}, on=anything))
    told(2)
    assert 17 <= clock.seconds < 19


def test_a_server_that_is_away_is_waited_for_however_long(server, cluster, told, clock):
    cluster.put(COLLECTION, "iris")
    server.misbehave(ANYWHERE, status(503, times=100, on=anything))
    assert told(2) == [("iris", "there"), ("", "listed")]
    assert len(server.requests) == 101


@pytest.mark.parametrize(("code", "kind"), [(403, NotAllowed), (404, NotFound)])
def test_what_waiting_does_not_mend_is_raised(server, cluster, api, session, code, kind):
    server.misbehave(ANYWHERE, status(code, on=anything))
    with pytest.raises(kind):
        follow(api, SERVICES, "", Told(session, 1).followed())


def test_the_key_of_an_object_without_a_namespace():
    assert Key.of({"metadata": {"name": "node1"}}) == ("", "node1")


def test_a_watch_that_waits_after_an_error_ends_with_the_run(server, api, session):
    server.misbehave(ANYWHERE, status(403, on=anything))
    failures = []

    def failed(error) -> None:
        failures.append(error)
        session.run.stop.set()

    Watched(lambda key: None).watch(api, SERVICES, "", failed)
    assert len(failures) == 1


def test_no_object_vanishes_while_the_name_of_the_server_is_not_known(server, cluster, session, monkeypatch):
    cluster.put(COLLECTION, "iris")
    server.misbehave(f"/{COLLECTION}", status(403, on=watching, headers={"Connection": "close"}))
    resolver = Resolver(api_test=["127.0.0.1"])
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    failures = []

    def failed(error) -> None:
        failures.append(error.code)
        resolver.addresses.clear()
        if len(failures) == 2:
            session.run.stop.set()

    watched = Watched(lambda key: None)
    api = ApiServer(Access(f"http://api.test:{server.url.rpartition(':')[2]}", "team-a", Network()), session.http)
    watched.watch(api, SERVICES, "", failed)
    assert failures == ["not-allowed", "not-found"]
    assert [key.name for key in watched.all()] == ["iris"]


def test_what_is_deleted_between_two_watches_is_no_longer_there(server, cluster, api, session):
    cluster.put(COLLECTION, "iris", spec="v1")
    change_when_watched(server, lambda: cluster.put(COLLECTION, "iris", spec="v2"))
    server.misbehave(f"/{COLLECTION}", status(403, on=watching, after=1, times=1))
    server.misbehave(f"/{COLLECTION}", server.before(session.run.stop.set, on=watching, after=2))
    watched = Watched(lambda key: None)
    failures = []

    def failed(error) -> None:
        failures.append(error)
        assert [thing["spec"] for thing in watched.all().values()] == ["v2"]
        cluster.remove(COLLECTION, "iris")

    watched.watch(api, SERVICES, "", failed)
    assert len(failures) == 1
    assert watched.all() == {}
