"""Requests to an API server, and what its answers mean."""

import base64
import json
from pathlib import Path

import pytest

from fakes.certificates import Authority
from fakes.fake_api_server import COLLECTION, SERVICES, FakeApiServer, refusal
from fakes.faulty_http import ANYWHERE, FaultyServer, anything, redirect, status
from lading.errors import IntegrityError, NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.kubernetes.api_server import ApiServer, Resource
from lading.kubernetes.recorder import record
from lading.kubernetes.refused import Conflict, Expired
from lading.secret import Secret
from lading.settings.kubernetes import Access, read_access
from lading.settings.limits import Network
from lading.settings.variables import Variables


def refuse(server, code: int, message: str, **fields) -> None:
    answer = refusal(code, message, **fields)
    server.misbehave(ANYWHERE, status(code, answer.body, headers=answer.headers, on=anything, times=9))


@pytest.mark.parametrize(
    ("resource", "place", "path"),
    [
        (Resource("v1", "pods", "Pod"), ("team-a",), "/api/v1/namespaces/team-a/pods"),
        (Resource("v1", "nodes", "Node"), (), "/api/v1/nodes"),
        (SERVICES, ("team-a", "iris"), "/apis/serving.kserve.io/v1beta1/namespaces/team-a/inferenceservices/iris"),
        (
            SERVICES,
            ("a/b", "../c", "status"),
            "/apis/serving.kserve.io/v1beta1/namespaces/a%2Fb/inferenceservices/..%2Fc/status",
        ),
    ],
)
def test_where_objects_are(resource, place, path):
    assert resource.path(*place) == path


def test_an_object_is_read_made_and_written_with_its_version(cluster, api):
    thing = {"apiVersion": SERVICES.api, "kind": SERVICES.kind, "metadata": {"name": "iris", "namespace": "team-a"}}
    made = api.create(SERVICES, thing)
    assert api.get(SERVICES, "iris", "team-a") == made
    written = api.replace(SERVICES, made | {"spec": 1})
    assert written["spec"] == 1
    with pytest.raises(Conflict, match="has been modified"):
        api.replace(SERVICES, made)
    with pytest.raises(Conflict, match=r"creating inferenceservices of team-a: .*already exists"):
        api.create(SERVICES, thing)
    assert api.patch(SERVICES, written, {"spec": 2})["spec"] == 2


def test_what_is_applied_is_of_the_object_that_was_read_and_nobody_is_forced(server, cluster, api):
    found = cluster.put(COLLECTION, "iris")
    api.apply(SERVICES, found, {"spec": {"predictor": {"annotations": {"lading.dev/lock": "x"}}}})
    request = server.requests[-1]
    assert request.headers["content-type"] == "application/apply-patch+yaml"
    assert request.query == "fieldManager=lading&fieldValidation=Strict"
    body = json.loads(request.body)
    assert body["metadata"] == {"name": "iris", "namespace": "team-a", "uid": "uid-of-iris"}


def test_an_object_without_a_uid_is_made_by_its_first_apply(cluster, api):
    about = {"metadata": {"name": "iris", "namespace": "team-a"}}
    made = api.apply(SERVICES, about, {"metadata": {"labels": {"tier": "gold"}}, "spec": {"a": 1}})
    assert (made["metadata"]["labels"], made["spec"]) == ({"tier": "gold"}, {"a": 1})
    assert api.apply(SERVICES, made, {"spec": {"a": 2}})["spec"] == {"a": 2}


def test_an_object_is_deleted_if_it_is_the_one_that_was_read(cluster, api):
    found = cluster.put(COLLECTION, "iris")
    with pytest.raises(Conflict, match=r"deleting inferenceservices team-a/iris"):
        api.delete(SERVICES, found | {"metadata": found["metadata"] | {"uid": "another"}})
    api.delete(SERVICES, found)
    with pytest.raises(NotFound):
        api.delete(SERVICES, found)


def test_a_conflict_names_the_other_manager(server, cluster, api):
    causes = [
        {"reason": "FieldManagerConflict", "message": 'conflict with "argocd\x1b" using v1beta1', "field": ".spec.x"},
        {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl" using v1beta1', "field": ".spec.y"},
    ]
    found = cluster.put(COLLECTION, "iris")
    refuse(server, 409, "Apply failed with 2 conflicts", reason="Conflict", details={"causes": causes})
    with pytest.raises(Conflict, match="changing inferenceservices team-a/iris: Apply failed") as caught:
        api.apply(SERVICES, found, {"spec": {}})
    assert caught.value.managers == ("argocd\\x1b", "kubectl")
    assert len(server.requests) == 1


def test_an_object_that_was_made_anew_is_a_conflict(server, cluster, api):
    found = cluster.put(COLLECTION, "iris")
    causes = [{"reason": "FieldValueInvalid", "message": "field is immutable", "field": "metadata.uid"}]
    refuse(server, 422, "metadata.uid: field is immutable", reason="Invalid", details={"causes": causes})
    with pytest.raises(Conflict):
        api.apply(SERVICES, found, {"spec": {}})


@pytest.mark.parametrize(
    ("code", "kind"),
    [(400, UsageError), (401, NotAllowed), (403, NotAllowed), (404, NotFound), (410, Expired), (422, UsageError)],
)
def test_what_the_server_refuses_is_told_in_its_words_and_not_tried_again(server, api, code, kind):
    refuse(server, code, 'User "x" cannot\nget')
    with pytest.raises(kind) as caught:
        api.get(SERVICES, "iris", "team-a")
    assert caught.value.message == 'reading inferenceservices team-a/iris: User "x" cannot\\x0aget'
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again_when_it_says(server, cluster, api, clock):
    cluster.put(COLLECTION, "iris")
    server.misbehave(ANYWHERE, status(429, headers={"Retry-After": "7"}, on=anything))
    api.get(SERVICES, "iris", "team-a")
    assert 7 <= clock.seconds < 8


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'"x"', b"[" * 100_000])
def test_an_answer_that_is_none_of_an_api_server_is_said_to_be(server, api, body):
    server.put(SERVICES.path("team-a", "iris"), body)
    server.routes.clear()
    with pytest.raises(Unsupported, match="reading inferenceservices team-a/iris: the answer is not"):
        api.get(SERVICES, "iris", "team-a")


@pytest.mark.parametrize("body", [b"{}", b'{"metadata": 1}', b'{"metadata": {"resourceVersion": "1"}, "items": [1]}'])
def test_a_list_that_is_none_is_refused(server, api, body):
    server.put(SERVICES.path("team-a"), body)
    with pytest.raises(Unsupported, match="reading inferenceservices: the answer is not a list"):
        api.list_all(SERVICES, "team-a")


@pytest.mark.parametrize("status", [b"1", b"{}", b'{"code": "x"}', b'{"code": 503, "message": "busy"}'])
def test_an_error_that_ends_a_watch_may_be_waited_for(server, api, status):
    server.put(SERVICES.path("team-a"), b'{"type": "ERROR", "object": ' + status + b"}\n")
    with pytest.raises(Unavailable):
        api.watch(SERVICES, "team-a", "1", lambda change: None)


@pytest.mark.parametrize("line", [b"<html>", b"{}", b'{"type": "ADDED", "object": {}}', b"[1]"])
def test_a_watch_of_something_else_is_refused(server, api, line):
    server.put(SERVICES.path("team-a"), line + b"\n")
    with pytest.raises(Unsupported, match="watching inferenceservices of team-a"):
        api.watch(SERVICES, "team-a", "1", lambda change: None)


def test_a_line_of_a_watch_is_bounded(server, api, monkeypatch):
    monkeypatch.setattr("lading.kubernetes.api_server._MOST_OBJECT_BYTES", 1000)
    server.put(SERVICES.path("team-a"), b"x" * 2000)
    with pytest.raises(IntegrityError, match="more than 1000 bytes"):
        api.watch(SERVICES, "team-a", "1", lambda change: None)


def test_a_redirect_is_not_followed(server, api):
    server.misbehave(ANYWHERE, redirect("http://elsewhere/"))
    with pytest.raises(Unsupported, match="302"):
        api.get(SERVICES, "iris", "team-a")


def test_a_token_is_not_sent_in_the_clear_to_another_machine(session):
    access = Access("http://kubernetes.example.com", "", Network(), token=Secret("t0ken"))
    with pytest.raises(UsageError, match="unencrypted") as caught:
        ApiServer(access, session.http).get(SERVICES, "iris", "team-a")
    assert "t0ken" not in caught.value.message


def test_a_token_that_is_rotated_is_read_anew(server, cluster, session, tmp_path):
    cluster.put(COLLECTION, "iris")
    file = tmp_path / "token"
    api = ApiServer(Access(cluster.url, "", Network(), token_file=str(file)), session.http)
    for token in ("one", "two"):
        file.write_text(f"{token}\n")
        api.get(SERVICES, "iris", "team-a")
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer one", "Bearer two"]


def test_an_event_that_is_told_again_is_one_with_a_count(cluster, api):
    iris = cluster.put(COLLECTION, "iris", apiVersion=SERVICES.api, kind=SERVICES.kind)
    words = {"reason": "RolloutStarted", "action": "Roll", "by": "lading.dev/controller", "instance": "one"}
    for _ in range(3):
        record(api, iris, note="v3 \x1b follows v2", **words)
    record(api, iris, note="v4", **words)
    first, second = (thing for path, thing in cluster.objects.items() if "/events/" in path)
    assert (first["note"], first["series"]["count"]) == ("v3 \\x1b follows v2", 3)
    assert "series" not in second
    assert first["regarding"]["uid"] == "uid-of-iris"


@pytest.fixture
def kubeconfig(tmp_path):
    """Writes one that has ``authority`` and the certificate of a client of it in its text."""

    def write(url: str, authority: Authority) -> Access:
        certificate, key = (
            base64.b64encode(Path(name).read_bytes()) for name in authority.write_client(tmp_path, "me")
        )
        user = {"client-certificate-data": certificate.decode(), "client-key-data": key.decode()}
        data = base64.b64encode(Path(authority.bundle).read_bytes()).decode()
        document = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority-data": data}}],
            "users": [{"name": "u", "user": user}],
        }
        (tmp_path / "config").write_text(json.dumps(document))
        return read_access(Variables(), Network(), kubeconfig=str(tmp_path / "config"))

    return write


@pytest.fixture
def authorities(tmp_path):
    for name in ("one", "another"):
        (tmp_path / name).mkdir()
    return Authority(tmp_path / "one"), Authority(tmp_path / "another")


def test_a_certificate_that_is_written_in_the_kubeconfig_is_shown(authorities, kubeconfig, session):
    authority, _ = authorities
    context = authority.demand_certificates(authority.server_context("127.0.0.1"))
    with FaultyServer(context) as server:
        iris = FakeApiServer(server).put(COLLECTION, "iris")
        api = ApiServer(kubeconfig(server.url, authority), session.http)
        assert api.get(SERVICES, "iris", "team-a") == iris


def test_the_authorities_of_the_machine_have_no_say_about_an_api_server(authorities, kubeconfig, session, monkeypatch):
    authority, of_the_machine = authorities
    monkeypatch.setenv("SSL_CERT_FILE", of_the_machine.bundle)
    with FaultyServer(of_the_machine.server_context("127.0.0.1")) as server:
        api = ApiServer(kubeconfig(server.url, authority), session.http)
        with pytest.raises(NotAllowed, match="is not trusted"):
            api.get(SERVICES, "iris", "team-a")
        # It would be believed without an authority of the cluster's own.
        session.http.fetch("GET", server.url)
