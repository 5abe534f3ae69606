"""What a cycle costs where nothing has changed: sources that can tell it without a listing are not asked for one."""

import hashlib

import pytest

from fakes.fake_hub import FakeHub
from fakes.fake_kubeflow import FakeKubeflow, text_properties
from fakes.fake_oci import FakeRegistry
from fakes.fake_s3 import FakeS3
from fakes.faulty_http import ALWAYS, Answer, Fault, FaultyServer, anything, status
from fakes.git_server import GitServer
from fakes.oms_signer import Signer
from fakes.real_s3 import s3_anonymous
from fakes.registry_entries import registry_entry
from fakes.trees import read_tree
from lading.agent.reconcile import reconcile
from lading.delivery.request import Request
from lading.delivery.resolve import find
from lading.errors import IntegrityError, NotFound, Unavailable, Untrusted, UsageError
from lading.settings.agent import Delivery
from lading.settings.trust import TrustRule
from lading.trust.public_key import read_public_keys

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
def kubeflow():
    """A registry, on a server of its own."""
    with FaultyServer() as server:
        yield FakeKubeflow(server)


@pytest.fixture
def cycle(origin, kubeflow, new_session, tmp_path):
    uri, variables, _ = origin
    delivery = Delivery("m", uri, str(tmp_path / "model"))
    entry = registry_entry("kf", "kubeflow", url=kubeflow.url)

    def take(*trust: TrustRule, **changes):
        given = delivery._replace(**changes)
        session = new_session(variables=variables, registries=(entry,), trust=trust)
        session.settings = given.settings(session.settings)
        return reconcile(given, session, unix_time=lambda: 1e9, host="here", doing=lambda word: None).word

    return take


def test_an_unchanged_channel_is_looked_up_and_not_listed(origin, cycle, server, tmp_path):
    assert cycle() == "updated"
    listed = len(server.requests)
    server.behave()
    assert cycle() == "unchanged"
    assert len(server.requests) < listed
    assert len(server.requests) <= 3
    assert server.sent_bytes < 20_000
    _, _, change = origin
    change()
    assert cycle() == "updated"
    assert read_tree(tmp_path / "model") == SECOND
    assert cycle() == "unchanged"


def test_other_patterns_are_asked_for_all_the_same(cycle, tmp_path):
    cycle()
    assert cycle(ignore=("a.json",)) == "updated"
    assert read_tree(tmp_path / "model") == {"b": b"first"}


def test_an_origin_that_is_away_is_told(origin, cycle, server, tmp_path):
    cycle()
    server.misbehave("", status(503, on=anything, times=ALWAYS))
    with pytest.raises(Unavailable):
        cycle()
    server._faults.clear()
    server.misbehave("", status(404, on=anything, times=ALWAYS))
    with pytest.raises(NotFound):
        cycle()
    assert read_tree(tmp_path / "model") == FIRST


def test_a_pinned_channel_whose_other_files_are_wanted_now_is_asked_for_them(origin, cycle, new_session, tmp_path):
    uri, variables, _ = origin
    pin = find(Request(uri, tmp_path / "model"), new_session(variables=variables)).listed.pin
    assert [cycle(uri=pin), cycle(uri=pin), cycle(uri=pin, ignore=("a.json",))] == ["updated", "unchanged", "updated"]
    assert read_tree(tmp_path / "model") == {"b": b"first"}


def test_what_is_in_place_is_judged_by_a_rule_of_trust_that_came_later(origin, cycle, new_session, tmp_path):
    uri, variables, _ = origin
    pin = find(Request(uri, tmp_path / "model"), new_session(variables=variables)).listed.pin
    rule = TrustRule(None, read_public_keys(Signer().public_pem))
    for asked in (uri, pin):
        assert cycle(uri=asked) in ("updated", "unchanged")
        with pytest.raises(Untrusted, match="is not signed"):
            cycle(rule, uri=asked)
        assert cycle(rule._replace(mode="off"), uri=asked) == "unchanged"
    assert read_tree(tmp_path / "model") == FIRST


# ---- behind a name -----------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{}, {"range": ">=1"}], ids=["newest", "range"])
def test_an_unchanged_name_is_looked_up_and_its_channel_not_listed(origin, cycle, kubeflow, server, tmp_path, asked):
    uri, _, change = origin
    cycle()
    server.behave()
    assert cycle() == "unchanged"
    looks = len(server.requests)
    kubeflow.register("iris", "v1", uri)
    asked = {"uri": "model-registry://iris", **asked}
    assert cycle(**asked) == "updated"
    server.behave()
    kubeflow.server.behave()
    assert cycle(**asked) == "unchanged"
    assert len(server.requests) == looks
    assert len(kubeflow.server.requests) <= 5
    change()
    assert [cycle(**asked), cycle(**asked)] == ["updated", "unchanged"]
    assert read_tree(tmp_path / "model") == SECOND
    kubeflow.register("iris", "v2", uri)
    assert [cycle(**asked), cycle(**asked)] == ["updated", "unchanged"]


def hub_of_a_thousand(server, tmp_path):
    hub = FakeHub(server)
    hub.page_entries = 100
    hub.repository("owner/model").commit({f"{number}.json": b"{}" for number in range(1000)})
    yield "hf://owner/model", {"HF_ENDPOINT": server.url}, None


def bucket_of_a_thousand(server, tmp_path):
    bucket = FakeS3(server)
    for number in range(1000):
        bucket.put(f"model/{number}.json", b"{}")
    yield "s3://models/model", s3_anonymous(server.url)["variables"], None


@pytest.mark.parametrize("origin", [hub_of_a_thousand, bucket_of_a_thousand], indirect=True)
def test_a_thousand_files_behind_a_name_are_one_request_to_their_origin(origin, cycle, kubeflow, server):
    kubeflow.register("iris", "v1", origin[0])
    assert cycle(uri="model-registry://iris") == "updated"
    server.behave()
    kubeflow.server.behave()
    assert cycle(uri="model-registry://iris") == "unchanged"
    assert (len(server.requests), len(kubeflow.server.requests)) == (1, 3)


@pytest.mark.parametrize("path", ["b", ""])
def test_a_digest_that_the_registry_records_later_is_checked(origin, cycle, kubeflow, tmp_path, path):
    version = kubeflow.register("iris", "v1", origin[0])
    asked = {"uri": "model-registry://iris", "ignore": ("a.json",)}
    assert cycle(**asked) == "updated"
    recorded = {f"digest.{path}" if path else "sha256": "0" * 64}
    kubeflow.change("model_version", version, customProperties=text_properties(**recorded))
    with pytest.raises(IntegrityError if path else UsageError):
        cycle(**asked)
    assert read_tree(tmp_path / "model") == {"b": b"first"}


def test_digests_that_the_registry_records_are_no_reason_to_list(origin, cycle, kubeflow, server):
    digests = {f"digest.{path}": f"sha256:{hashlib.sha256(data).hexdigest()}" for path, data in FIRST.items()}
    version = kubeflow.register("iris", "v1", origin[0])
    kubeflow.change("model_version", version, customProperties=text_properties(**digests))
    for asked in ({}, {"ignore": ("a.json",)}):
        assert cycle(uri="model-registry://iris", **asked) == "updated"
        server.behave()
        assert cycle(uri="model-registry://iris", **asked) == "unchanged"
        assert len(server.requests) <= 3


def test_a_registry_that_is_away_is_told_and_what_is_in_place_stays(origin, cycle, kubeflow, tmp_path):
    kubeflow.register("iris", "v1", origin[0])
    cycle(uri="model-registry://iris")
    kubeflow.server.misbehave("", status(503, on=anything, times=ALWAYS))
    with pytest.raises(Unavailable):
        cycle(uri="model-registry://iris")
    assert read_tree(tmp_path / "model") == FIRST


# ---- how they are asked ------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [registry], indirect=True)
def test_a_registry_is_asked_by_head_and_one_that_knows_none_by_get(cycle, server):
    cycle()
    server.behave()
    cycle()
    assert {request.method for request in server.requests if "/manifests/" in request.path} == {"HEAD"}
    for answer in (Answer(405), Answer(200)):

        def change(request, correct, answer=answer):
            return answer if request.method == "HEAD" else correct

        server.behave()
        server.misbehave("", Fault(change, times=ALWAYS, on=anything))
        assert cycle() == "unchanged"
        assert "GET" in {request.method for request in server.requests if "/manifests/" in request.path}
