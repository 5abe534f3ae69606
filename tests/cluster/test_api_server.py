"""lading's client and the API server itself: who owns a field, what a list and a watch tell, Leases, Events, tokens, roles.

No node is needed, and no image.  Faults on the way are in tests/kubernetes.
"""

import subprocess
import threading
from contextlib import suppress
from queue import SimpleQueue

import pytest

from cluster.api import named
from cluster.conftest import name_for
from cluster.place import Place
from cluster.test_rollouts import SERVICES
from lading.errors import Interrupted, NotAllowed, NotFound
from lading.events import ignore
from lading.kubernetes.api_server import ApiServer, Resource
from lading.kubernetes.follow import Followed, follow
from lading.kubernetes.leader import LEASES, Leader, Terms
from lading.kubernetes.recorder import EVENTS, record
from lading.kubernetes.refused import Conflict, Expired
from lading.session import Session
from lading.settings.kubernetes import read_access
from lading.settings.limits import Limits, Network
from lading.settings.settings import Settings
from lading.settings.variables import Variables

KEY = "lading.dev/lock"


@pytest.fixture
def place(cluster, api, request):
    """A namespace without pods, in whose network this test is."""
    request.getfixturevalue("kinds")
    with Place(cluster, api, name_for(request)) as place, cluster.within():
        yield place


@pytest.fixture
def session(new_session):
    return new_session()


@pytest.fixture
def client(cluster, session, place):
    return ApiServer(administrator(cluster), session.http)


def administrator(cluster):
    return read_access(Variables(), Network(), kubeconfig=str(cluster.pki / "admin.kubeconfig"))


@pytest.fixture
def iris(client, place):
    return client.create(SERVICES, service(place, "iris"))


def service(place, name, **annotations):
    predictor = {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/iris"}}
    predictor |= {"annotations": annotations} if annotations else {}
    about = {"name": name, "namespace": place.name}
    return {"apiVersion": SERVICES.api, "kind": SERVICES.kind, "metadata": about, "spec": {"predictor": predictor}}


def pin(text):
    return {"spec": {"predictor": {"annotations": {KEY: text}}}}


def pinned(client, place):
    return client.get(SERVICES, "iris", place.name)["spec"]["predictor"].get("annotations", {}).get(KEY)


# ---- who owns what -----------------------------------------------------------------------------


def test_one_key_is_owned_and_nothing_else_is_touched(client, place, iris):
    written = client.apply(SERVICES, iris, pin("v1"))
    assert written["spec"]["predictor"]["model"] == iris["spec"]["predictor"]["model"]
    (own,) = (each for each in written["metadata"]["managedFields"] if each["operation"] == "Apply")
    assert own["manager"] == "lading"
    assert own["fieldsV1"] == {"f:spec": {"f:predictor": {"f:annotations": {f"f:{KEY}": {}}}}}
    assert client.apply(SERVICES, written, pin("v2"))["spec"]["predictor"]["annotations"] == {KEY: "v2"}


def test_a_key_that_another_manager_owns_stays_and_the_conflict_names_it(api, client, place):
    api.apply(service(place, "iris", **{KEY: "of git"}))
    with pytest.raises(Conflict) as caught:
        client.apply(SERVICES, client.get(SERVICES, "iris", place.name), pin("v1"))
    assert caught.value.managers == ("tests",)
    assert KEY in caught.value.message
    assert pinned(client, place) == "of git"
    # The same value is no quarrel, and is owned by both then.
    client.apply(SERVICES, client.get(SERVICES, "iris", place.name), pin("of git"))


def test_whoever_applies_without_the_key_leaves_it(api, client, place):
    api.apply(service(place, "iris"))
    client.apply(SERVICES, client.get(SERVICES, "iris", place.name), pin("v1"))
    api.apply(service(place, "iris"))
    assert pinned(client, place) == "v1"


def test_an_object_that_has_gone_or_was_made_anew_is_not_made_and_not_changed(api, client, place, iris):
    api.delete(iris)
    api.until_gone(named("InferenceService", "iris", place.name, SERVICES.api))
    with pytest.raises((Conflict, NotFound)):
        client.apply(SERVICES, iris, pin("v1"))
    with pytest.raises(NotFound):
        client.get(SERVICES, "iris", place.name)
    client.create(SERVICES, service(place, "iris"))
    with pytest.raises(Conflict):
        client.apply(SERVICES, iris, pin("v1"))
    assert pinned(client, place) is None


def test_a_status_is_merged_and_a_version_that_is_not_the_last_is_a_conflict(client, place, iris):
    client.patch(SERVICES, iris, {"status": {"url": "http://iris"}}, subresource="status")
    found = client.get(SERVICES, "iris", place.name)
    assert (found["status"]["url"], found["spec"]) == ("http://iris", iris["spec"])
    old = {"metadata": {"resourceVersion": iris["metadata"]["resourceVersion"]}}
    with pytest.raises(Conflict):
        client.patch(SERVICES, iris, old | {"status": {"url": "http://other"}}, subresource="status")
    client.patch(SERVICES, found, {"status": {"url": None}}, subresource="status")
    assert "url" not in client.get(SERVICES, "iris", place.name).get("status", {})


# ---- lists and watches --------------------------------------------------------------------------


def test_a_list_comes_in_pages_and_by_labels(client, place, monkeypatch):
    monkeypatch.setattr("lading.kubernetes.api_server._PAGE_OBJECTS", 2)
    for number in range(5):
        thing = service(place, f"iris-{number}")
        thing["metadata"]["labels"] = {"odd": str(number % 2)}
        client.create(SERVICES, thing)
    pages = list(client.pages(SERVICES, place.name))
    assert [len(page.objects) for page in pages] == [2, 2, 1]
    assert len({page.version for page in pages}) == 1
    odd = client.list_all(SERVICES, place.name, labels="odd=1")
    assert [each["metadata"]["name"] for each in odd] == ["iris-1", "iris-3"]
    assert all((each["apiVersion"], each["kind"]) == (SERVICES.api, SERVICES.kind) for each in odd)


def test_a_version_that_the_server_no_longer_knows_is_said_to_be(client, place):
    with pytest.raises(Expired, match="too old resource version"):
        client.watch(SERVICES, place.name, "1", lambda change: None)


def test_a_kind_that_there_is_not(client, place):
    with pytest.raises(NotFound):
        client.list_all(Resource("serving.kserve.io/v1beta1", "services", "Service"), place.name)


def test_every_change_is_told(client, place, iris, session, cluster):
    told = []

    def note(*words: str) -> None:
        told.append(words)
        if words == ("", "listed"):
            done.set()
        if words == ("iris", "gone"):
            session.run.stop.set()

    def change() -> None:
        with cluster.within():
            done.wait(30)
            client.apply(SERVICES, iris, pin("v1"))
            client.create(SERVICES, service(place, "law"))
            place.api.delete(iris)

    done = threading.Event()
    changing = threading.Thread(target=change, name="changing")
    changing.start()
    followed = Followed(
        lambda key, thing: note(key.name, thing["spec"]["predictor"].get("annotations", {}).get(KEY, "")),
        lambda key: note(key.name, "gone"),
        lambda: note("", "listed"),
    )
    with pytest.raises(Interrupted):
        follow(client, SERVICES, place.name, followed)
    changing.join()
    assert told == [("iris", ""), ("", "listed"), ("iris", "v1"), ("law", ""), ("iris", "gone")]


class Following:
    """A thread that follows the services of a namespace by the machine's own clock, and what it is told."""

    def __init__(self, cluster, place) -> None:
        self._cluster, self._namespace = cluster, place.name
        self._session = Session(Settings(limits=Limits(stall_s=5.0, connect_s=5.0)), ignore)
        self._heard: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, url: str) -> None:
        server = ApiServer(administrator(self._cluster)._replace(server=url), self._session.http)
        self._thread = threading.Thread(target=self._follow, args=(server,), name="following")
        self._thread.start()

    def end(self) -> None:
        self._session.run.stop.set()
        self._session.http.interrupt()
        if self._thread:
            self._thread.join()
        self._session.http.close()

    def hear_until(self, *last: str) -> list[tuple[str, str]]:
        """What is told from now on, up to these words."""
        heard = []
        while last not in heard:
            heard.append(self._heard.get(timeout=120))
        return heard

    def _follow(self, server) -> None:
        followed = Followed(
            lambda key, thing: self._heard.put(
                (key.name, thing["spec"]["predictor"].get("annotations", {}).get(KEY, ""))
            ),
            lambda key: self._heard.put((key.name, "gone")),
            lambda: self._heard.put(("", "listed")),
        )
        with self._cluster.within(), suppress(Interrupted):
            follow(server, SERVICES, self._namespace, followed)


@pytest.fixture
def following(cluster, place):
    following = Following(cluster, place)
    yield following
    following.end()


def test_nothing_is_lost_if_etcd_is_compacted_while_the_api_server_is_away(cluster, api, place, client, following):
    """Without a cache, an API server knows as many versions as etcd does."""
    for name in ("ham", "iris", "law"):
        client.create(SERVICES, service(place, name))
    with cluster.another_api_server("--watch-cache=false") as url:
        following.begin(url)
        following.hear_until("", "listed")
        apply(client, place, "v1")
        following.hear_until("iris", "v1")
    apply(client, place, "v2")
    client.create(SERVICES, service(place, "egg"))
    api.delete(named("InferenceService", "law", place.name, SERVICES.api))
    cluster.compact()
    with cluster.another_api_server("--watch-cache=false"):
        listed = [("egg", ""), ("ham", ""), ("iris", "v2"), ("law", "gone"), ("", "listed")]
        assert following.hear_until("", "listed") == listed
        apply(client, place, "v3")
        assert following.hear_until("iris", "v3") == [("iris", "v3")]


def test_a_list_whose_version_is_compacted_between_two_pages_is_said_to_be(
    cluster, place, client, session, monkeypatch
):
    monkeypatch.setattr("lading.kubernetes.api_server._PAGE_OBJECTS", 1)
    for name in ("ham", "iris"):
        client.create(SERVICES, service(place, name))
    with cluster.another_api_server("--watch-cache=false") as url:
        pages = ApiServer(administrator(cluster)._replace(server=url), session.http).pages(SERVICES, place.name)
        assert [each["metadata"]["name"] for each in next(pages).objects] == ["ham"]
        client.create(SERVICES, service(place, "egg"))
        cluster.compact()
        with pytest.raises(Expired, match="too old"):
            next(pages)


def apply(client, place, text) -> None:
    client.apply(SERVICES, client.get(SERVICES, "iris", place.name), pin(text))


# ---- one writer ---------------------------------------------------------------------------------


def test_a_lease_is_held_renewed_let_go_and_taken_over(client, place, clock):
    terms = Terms(duration_s=60, renew_s=15, give_up_s=45)
    one, two = (Leader(client, "lading", place.name, name, terms) for name in ("one", "two"))
    assert one.ask()
    assert not two.ask()
    assert one.ask()
    assert place.kubectl("get", "lease", "lading", "-o", "jsonpath={.spec.holderIdentity}") == "one"
    one.release()
    assert two.ask()
    # It dies.
    assert not one.ask()
    clock.seconds += 61
    assert one.ask()
    assert not two.ask()
    assert client.get(LEASES, "lading", place.name)["spec"]["leaseTransitions"] == 2


# ---- events -------------------------------------------------------------------------------------


def test_an_event_is_what_kubectl_describe_shows_and_is_counted(client, place, iris):
    for _ in range(2):
        record(
            client,
            iris,
            reason="RolledBack",
            action="RollBack",
            note="v4 did not load",
            by="lading.dev/controller",
            instance="lading-0",
            type_="Warning",
        )
    (event,) = client.list_all(EVENTS, place.name)
    assert event["series"]["count"] == 2
    described = place.kubectl("describe", "inferenceservice", "iris")
    assert "RolledBack" in described
    assert "v4 did not load" in described


# ---- who asks -----------------------------------------------------------------------------------


@pytest.fixture
def pod(cluster, place, session, tmp_path):
    """The client of a pod with the ServiceAccount ``lading``; the files are where the kubelet would keep them."""
    place.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "lading"}})
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "namespace").write_text(place.name)
    (folder / "ca.crt").write_bytes((cluster.pki / "ca.crt").read_bytes())

    def write_token() -> None:
        (folder / "token").write_text(place.kubectl("create", "token", "lading"))

    write_token()
    host = {"KUBERNETES_SERVICE_HOST": "10.98.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    access = read_access(Variables(host), Network(), service_account=folder)
    pod = ApiServer(access, session.http)
    pod.write_token, pod.folder = write_token, folder
    return pod


def allow(place, *verbs):
    rule = {"apiGroups": ["serving.kserve.io"], "resources": ["inferenceservices"], "verbs": list(verbs)}
    about = {"name": "lading"}
    api = "rbac.authorization.k8s.io"
    place.apply(
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": about, "rules": [rule]},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": about,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "lading"},
            "subjects": [{"kind": "ServiceAccount", "name": "lading", "namespace": place.name}],
        },
    )
    user = f"--as=system:serviceaccount:{place.name}:lading"
    # The server learns of a role a moment later.
    for _ in range(100):
        asked = place.cluster.kubectl_command("auth", "can-i", verbs[0], "inferenceservices", user, "-n", place.name)
        if subprocess.run(asked, capture_output=True, text=True).stdout.strip() == "yes":
            return
    raise AssertionError("the role is not seen")


def test_a_pod_may_what_its_role_says_and_the_error_says_what_it_lacks(place, pod, iris):
    with pytest.raises(NotAllowed) as caught:
        pod.list_all(SERVICES, pod.namespace)
    user = f"system:serviceaccount:{place.name}:lading"
    assert f'User "{user}" cannot list resource "inferenceservices"' in caught.value.message
    assert "Role" in caught.value.hint
    allow(place, "list")
    assert [each["metadata"]["name"] for each in pod.list_all(SERVICES, pod.namespace)] == ["iris"]
    with pytest.raises(NotAllowed, match="cannot patch"):
        pod.apply(SERVICES, iris, pin("v1"))


def test_a_token_that_is_rotated_goes_on_and_one_that_is_wrong_is_never_printed(place, pod, iris):
    allow(place, "list")
    pod.list_all(SERVICES, pod.namespace)
    (pod.folder / "token").write_text("eyJ.s3cret.x")
    with pytest.raises(NotAllowed, match="Unauthorized") as caught:
        pod.list_all(SERVICES, pod.namespace)
    assert "s3cret" not in caught.value.message + caught.value.hint
    pod.write_token()
    assert pod.list_all(SERVICES, pod.namespace)
