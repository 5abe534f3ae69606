"""What a turn costs where nothing has changed: sources that can tell it without a listing are not asked for one."""

import pytest

from lading.agent.update import update
from lading.errors import NotFound, Unavailable
from lading.settings.agent import Delivery
from servers.fake_hub import FakeHub
from servers.fake_oci import FakeRegistry
from servers.faulty_http import ALWAYS, Answer, Fault, FaultyServer, anything, status
from servers.git_server import GitServer
from servers.trees import read_tree

FIRST, SECOND = {"a.json": b"{}", "b": b"first"}, {"a.json": b"{}", "b": b"second"}


def hub(server, tmp_path):
    with FaultyServer() as cdn:
        model = FakeHub(server, cdn).repository("owner/model")
        model.commit(FIRST)
        yield "hf://owner/model", {"HF_ENDPOINT": server.url}, lambda: model.commit(SECOND)


def registry(server, tmp_path):
    fake = FakeRegistry(server)
    fake.put_files(FIRST)
    yield fake.uri(), {"KSERVE_OCI_INSECURE_REGISTRY": "true"}, lambda: fake.put_files(SECOND)


def repository(server, tmp_path):
    (tmp_path / "git").mkdir()
    model = GitServer(server, tmp_path / "git").create()
    model.commit(FIRST)
    yield model.url, {}, lambda: model.commit(SECOND)


@pytest.fixture(params=[hub, registry, repository])
def origin(request, server, tmp_path):
    """A URI, the variables for it, and how its content changes."""
    yield from request.param(server, tmp_path)


@pytest.fixture
def turn(origin, new_session, tmp_path):
    uri, variables, _ = origin
    delivery = Delivery("m", uri, str(tmp_path / "model"))

    def take(**changes):
        given = delivery._replace(**changes)
        session = new_session(variables=variables)
        session.settings = given.settings(session.settings)
        return update(given, session, unix_time=lambda: 1e9, host="here", doing=lambda word: None).word

    return take


def test_an_unchanged_channel_is_looked_up_and_not_listed(origin, turn, server, tmp_path):
    assert turn() == "updated"
    listed = len(server.requests)
    server.behave()
    assert turn() == "unchanged"
    assert len(server.requests) < listed
    assert len(server.requests) <= 3
    assert server.sent_bytes < 20_000
    _, _, change = origin
    change()
    assert turn() == "updated"
    assert read_tree(tmp_path / "model") == SECOND
    assert turn() == "unchanged"


def test_other_patterns_are_asked_for_all_the_same(turn, tmp_path):
    turn()
    assert turn(ignore=("a.json",)) == "updated"
    assert read_tree(tmp_path / "model") == {"b": b"first"}


def test_an_origin_that_is_away_is_told(origin, turn, server, tmp_path):
    turn()
    server.misbehave("", status(503, on=anything, times=ALWAYS))
    with pytest.raises(Unavailable):
        turn()
    server._faults.clear()
    server.misbehave("", status(404, on=anything, times=ALWAYS))
    with pytest.raises(NotFound):
        turn()
    assert read_tree(tmp_path / "model") == FIRST


@pytest.mark.parametrize("origin", [registry], indirect=True)
def test_a_registry_is_asked_by_head_and_one_that_knows_none_by_get(turn, server):
    turn()
    server.behave()
    turn()
    assert {request.method for request in server.requests if "/manifests/" in request.path} == {"HEAD"}
    for answer in (Answer(405), Answer(200)):

        def change(request, correct, answer=answer):
            return answer if request.method == "HEAD" else correct

        server.behave()
        server.misbehave("", Fault(change, times=ALWAYS, on=anything))
        assert turn() == "unchanged"
        assert "GET" in {request.method for request in server.requests if "/manifests/" in request.path}
