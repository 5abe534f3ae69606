"""The same faults give the same errors, and leave the same destination, through every source.

To add a source, write a context manager that yields a ``Scene`` and put it into ``SCENES``.  The
scene's server is a ``FaultyServer``, with the source's fake on it; ``lists`` and ``reads`` say which
requests ask what there is, and which fetch the content of ``BIG``.
"""

import atexit
import hashlib
import json
import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest

from fakes.destination import OLD_MODEL, Destination
from fakes.fake_azure import FakeAzure, azure_settings
from fakes.fake_gcs import FakeGcs
from fakes.fake_google import FakeGoogle
from fakes.fake_hub import FakeHub
from fakes.fake_mlflow import BUCKET as MLFLOW_BUCKET
from fakes.fake_mlflow import PROXY, FakeMlflow
from fakes.fake_modelscope import FakeModelScope
from fakes.fake_oci import FakeRegistry, basic_only, tar
from fakes.fake_s3 import FakeS3
from fakes.fake_webhdfs import FakeWebHdfs, opens
from fakes.faulty_http import (
    ALWAYS,
    ANYWHERE,
    Fault,
    FaultyServer,
    Request,
    cut,
    labelled,
    probes,
    redirect,
    reset,
    stall,
    status,
    wrong_byte,
)
from fakes.git_server import PASSWORD, USER, GitServer, basic, new_repository
from fakes.real_s3 import ACCESS_KEY_ID, s3_settings
from fakes.trees import MIB, content, write_tree
from lading.errors import IntegrityError, LadingError, NotAllowed, NotFound, OriginChanged, Unavailable
from lading.settings.limits import Limits, Network
from lading.settings.registries import RegistryEntry

BIG = content(MIB, seed=1)
NEW = content(MIB, seed=2)
FILES = {"config.json": b"{}", "weights/big.bin": BIG}
SPAN_BYTES = 256 * 1024
LISTING_BYTES = 32 * 1024
SHORT = Limits(stall_s=0.3, connect_s=5.0, attempts=4, workers=1)


@dataclass
class Scene:
    """A model at its origin, and how to reach it there.

    ``files`` is the model, ``put(content)`` gives its large file another content.  ``secret`` is a text in the
    requests to the origin that no other host may see, "" if none goes out.  ``declares`` says that the origin
    vouches for the large file.
    """

    server: FaultyServer
    uri: str
    lists: Callable[[Request], bool]
    reads: Callable[[Request], bool]
    put: Callable[[bytes], object]
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    settings: dict[str, object] = field(default_factory=dict)
    secret: str = ""
    declares: bool = True
    limits: Limits = SHORT

    def misbehave(self, fault: Fault) -> None:
        self.server.misbehave(ANYWHERE, fault)

    def new_files(self) -> dict[str, bytes]:
        """The model after its large file was replaced by ``NEW``."""
        return {path: NEW if data is BIG else data for path, data in self.files.items()}


@contextmanager
def _http() -> Iterator[Scene]:
    with FaultyServer() as server:

        def put(data: bytes) -> str:
            sha256 = hashlib.sha256(data)
            digest = {"Repr-Digest": f"sha-256=:{b64encode(sha256.digest()).decode()}:"}
            return server.put("/big.bin", data, etag=f'"{sha256.hexdigest()}"', headers=digest)

        yield Scene(
            server,
            put(BIG),
            lists=probes,
            reads=lambda request: not probes(request),
            put=put,
            files={"big.bin": BIG},
            settings={"variables": {"127.0.0.1-headers": '{"X-Token": "se-cret"}'}},
            secret="se-cret",
        )


@contextmanager
def _s3() -> Iterator[Scene]:
    with FaultyServer() as server:
        bucket = FakeS3(server)
        for path, data in FILES.items():
            bucket.put(f"model/{path}", data)
        yield Scene(
            server,
            "s3://models/model",
            lists=lambda request: request.path == "/models/",
            reads=lambda request: request.path == "/models/model/weights/big.bin" and request.method == "GET",
            put=lambda data: bucket.put("model/weights/big.bin", data),
            settings=s3_settings(server.url),
            secret=ACCESS_KEY_ID,
        )


@contextmanager
def _gcs() -> Iterator[Scene]:
    with FaultyServer() as server:
        bucket, google = FakeGcs(server), FakeGoogle(server)
        for path, data in FILES.items():
            bucket.put(f"model/{path}", data)
        key = json.dumps(google.document("service_account"))
        yield Scene(
            server,
            "gs://models/model",
            lists=lambda request: request.path == bucket.listing,
            reads=lambda request: request.path == bucket.media("model/weights/big.bin"),
            put=lambda data: bucket.put("model/weights/big.bin", data),
            settings={"variables": {"API_ENDPOINT_OVERRIDE": server.url, "gcloud-application-credentials.json": key}},
            secret="se-cret-",
        )


@cache
def _git_repository(*, lfs: bool) -> Path:
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder)
    model = new_repository(folder, "model.git")
    model.commit(FILES | ({"weights/big.bin": model.pointer(BIG)} if lfs else {}))
    return folder


@contextmanager
def _git(*, lfs: bool) -> Iterator[Scene]:
    with FaultyServer() as server, TemporaryDirectory() as folder:
        origin = GitServer(server, Path(folder))
        origin.private = True
        model = origin.create(like=_git_repository(lfs=lfs))
        origin.keep(BIG)

        def put(data: bytes) -> None:
            origin.keep(data)
            model.commit({"weights/big.bin": model.pointer(data) if lfs else data})

        def reads(request: Request) -> bool:
            # The second time: the first only asks how large it is.
            wants_blob = b"command=fetch" in request.body and b"deepen" not in request.body
            return wants_blob and len([each for each in server.requests if each.body == request.body]) > 1

        def reads_object(request: Request) -> bool:
            return "/lfs-objects/" in request.path and not probes(request)

        fetches = reads_object if lfs else reads
        yield Scene(
            server,
            model.url,
            lists=lambda request: not fetches(request),
            reads=fetches,
            put=put,
            settings={"variables": {"GIT_USERNAME": USER, "GIT_PASSWORD": PASSWORD}},
            secret=basic(USER, PASSWORD),
            # A process answers, which takes its time on a busy machine.
            limits=SHORT._replace(stall_s=1.5),
        )


@contextmanager
def _hugging_face() -> Iterator[Scene]:
    with FaultyServer() as server:
        hub = FakeHub(server)
        # Large files come from another host, as they do.
        hub.content_url = server.url.replace("127.0.0.1", "localhost")
        model = hub.repository("owner/model", private=True, readers=frozenset({"hf_secret"}))
        model.commit(FILES)
        yield Scene(
            server,
            "hf://owner/model",
            lists=lambda request: request.path.startswith("/api/models/owner/model/"),
            reads=lambda request: request.path.startswith("/signed/"),
            put=lambda data: model.put("weights/big.bin", data),
            settings={"variables": {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_secret"}},
            secret="hf_secret",
        )


@contextmanager
def _modelscope() -> Iterator[Scene]:
    with FaultyServer() as server:
        scope = FakeModelScope(server)
        scope.content_url = server.url.replace("127.0.0.1", "localhost")
        model = scope.model("owner/model", readers=frozenset({"ms-secret"}))
        model.commit(FILES)
        yield Scene(
            server,
            "modelscope://owner/model",
            lists=lambda request: request.path.endswith("/repo/files"),
            reads=lambda request: request.path.startswith("/signed/"),
            put=lambda data: model.put("weights/big.bin", data),
            settings={"variables": {"MODELSCOPE_ENDPOINT": server.url, "MODELSCOPE_API_TOKEN": "ms-secret"}},
            secret="ms-secret",
        )


@contextmanager
def _azure(*, files: bool) -> Iterator[Scene]:
    with FaultyServer() as server:
        azure = FakeAzure(server)
        for path, data in FILES.items():
            azure.put(f"model/{path}", data)
        settings = azure_settings(server, AZURE_SERVICE_URL=f"{server.url}/lading")
        yield Scene(
            server,
            "http://lading.file.core.windows.net/models/model" if files else f"{server.url}/lading/models/model",
            lists=lambda request: "comp=list" in request.query,
            reads=lambda request: request.path.endswith("/model/weights/big.bin") and request.method == "GET",
            put=lambda data: azure.put("model/weights/big.bin", data),
            settings=settings if files else settings | {"network": Network()},
            secret="SharedKey",
        )


@contextmanager
def _oci(*, layers: bool) -> Iterator[Scene]:
    with FaultyServer() as server:
        registry = FakeRegistry(server)
        registry.authorize = basic_only

        def put(data: bytes) -> None:
            files = FILES | {"weights/big.bin": data}
            if layers:
                registry.put_image(*(tar((f"models/{path}", content)) for path, content in files.items()))
            else:
                registry.put_files(files)

        put(BIG)
        blobs = f"/v2/{registry.repository}/blobs/"
        login = {"OCI_USERNAME": "user", "OCI_PASSWORD": "password", "KSERVE_OCI_INSECURE_REGISTRY": "true"}
        yield Scene(
            server,
            registry.uri(),
            lists=lambda request: "/manifests/" in request.path,
            reads=lambda request: request.path.startswith(blobs) and not probes(request),
            put=put,
            settings={"variables": login},
            secret="dXNlcjpwYXNzd29yZA==",
        )


@contextmanager
def _hdfs() -> Iterator[Scene]:
    with FaultyServer() as server:
        cluster = FakeWebHdfs(server)
        for path, data in FILES.items():
            cluster.put(f"/models/{path}", data)
        yield Scene(
            server,
            "hdfs://models",
            lists=lambda request: "op=LISTSTATUS" in request.query,
            reads=lambda request: opens(request) and request.path.endswith("/big.bin"),
            put=lambda data: cluster.put("/models/weights/big.bin", data),
            settings={"variables": {"HDFS_NAMENODE": server.url, "HDFS_HEADERS": '{"X-Token": "se-cret"}'}},
            secret="se-cret",
        )


@contextmanager
def _mlflow(store: str) -> Iterator[Scene]:
    with FaultyServer() as server:
        fake = FakeMlflow(server, store=store)
        for path, data in FILES.items():
            fake.put(f"1/model/{path}", data)
        content = f"{PROXY if store == 'disk' else MLFLOW_BUCKET}/1/model/weights/big.bin"
        login = {"url": server.url, "login": {"token": "tok-en"}}
        yield Scene(
            server,
            "mlflow-artifacts:/1/model",
            lists=lambda request: request.path == PROXY,
            reads=lambda request: request.path == content and not probes(request),
            put=lambda data: fake.put("1/model/weights/big.bin", data),
            settings={
                # The server by an entry of the configuration, and by the variables that make one.
                "registries": (RegistryEntry("prod", "mlflow", login),),
                "variables": {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_TRACKING_TOKEN": "tok-en"},
            },
            secret="tok-en",
            declares=store == "s3",
        )


SCENES = {
    "azure-blob": partial(_azure, files=False),
    "azure-files": partial(_azure, files=True),
    "git": partial(_git, lfs=False),
    "git-lfs": partial(_git, lfs=True),
    "http": _http,
    "s3": _s3,
    "gcs": _gcs,
    "hdfs": _hdfs,
    "hugging-face": _hugging_face,
    "oci-files": partial(_oci, layers=False),
    "oci-layers": partial(_oci, layers=True),
    "modelscope": _modelscope,
    "mlflow-disk": partial(_mlflow, store="disk"),
    "mlflow-s3": partial(_mlflow, store="s3"),
}


@pytest.fixture(params=SCENES.values(), ids=SCENES)
def scene(request) -> Iterator[Scene]:
    with request.param() as scene:
        yield scene


@pytest.fixture
def destination(tmp_path, pull) -> Destination:
    pull(str(write_tree(tmp_path / "old", OLD_MODEL)), tmp_path / "destination" / "model")
    return Destination(tmp_path / "destination" / "model")


@pytest.fixture
def deliver(scene, destination, pull) -> Callable[[], object]:
    return partial(pull, scene.uri, destination.path, span_bytes=SPAN_BYTES, limits=scene.limits, **scene.settings)


def where(scene: Scene, name: str) -> Callable[[Request], bool]:
    return {"listing": scene.lists, "reading": scene.reads}[name]


EVERYWHERE = pytest.mark.parametrize("place", ["listing", "reading"])


@EVERYWHERE
@pytest.mark.parametrize(
    ("code", "kind", "exit_code"), [(404, NotFound, 3), (401, NotAllowed, 4), (403, NotAllowed, 4)]
)
def test_a_lasting_refusal_ends_the_delivery(scene, destination, deliver, place, code, kind, exit_code):
    scene.misbehave(status(code, times=ALWAYS, on=where(scene, place)))
    with pytest.raises(kind) as caught:
        deliver()
    assert caught.value.exit_code == exit_code
    destination.assert_untouched()


@EVERYWHERE
@pytest.mark.parametrize("code", [500, 503])
def test_a_burst_of_server_errors_is_waited_out(scene, destination, deliver, place, code):
    scene.misbehave(status(code, b"a proxy's page", times=3, on=where(scene, place)))
    deliver()
    destination.assert_holds(scene.files)


@EVERYWHERE
def test_retry_after_is_waited(scene, destination, deliver, clock, place):
    scene.misbehave(status(429, headers={"Retry-After": "7"}, on=where(scene, place)))
    deliver()
    destination.assert_holds(scene.files)
    assert 7 <= max(clock.waits) < 7.5


@EVERYWHERE
def test_a_server_that_stays_down_ends_the_delivery(scene, destination, deliver, place):
    scene.misbehave(status(503, times=ALWAYS, on=where(scene, place)))
    with pytest.raises(Unavailable) as caught:
        deliver()
    assert caught.value.exit_code == 5
    destination.assert_untouched()


@EVERYWHERE
@pytest.mark.parametrize("broken", [reset, cut, stall])
def test_a_body_that_breaks_off_is_fetched_anew_or_continued(scene, destination, deliver, place, broken):
    scene.misbehave(broken(at=10 if place == "listing" else 100_000, on=where(scene, place)))
    deliver()
    destination.assert_holds(scene.files)


@pytest.mark.parametrize("broken", [reset, cut])
def test_a_body_that_never_begins_ends_the_delivery(scene, destination, deliver, broken):
    scene.misbehave(broken(at=0, times=ALWAYS, on=scene.reads))
    with pytest.raises(Unavailable) as caught:
        deliver()
    assert caught.value.exit_code == 5
    destination.assert_untouched()


def test_what_an_interrupted_delivery_brought_is_not_fetched_again(scene, destination, deliver):
    scene.misbehave(reset(at=0, after=2, times=ALWAYS, on=scene.reads))
    # What comes in one piece has come by then.
    with suppress(Unavailable):
        deliver()
        destination.assert_holds(scene.files)
    landed = destination.landed_bytes()
    scene.server.behave()
    deliver()
    destination.assert_holds(scene.files)
    assert scene.server.sent_bytes <= sum(map(len, scene.files.values())) - landed + LISTING_BYTES


@pytest.mark.parametrize("after", [0, 1], ids=["before-reading", "between-ranges"])
def test_versions_are_never_mixed(scene, destination, deliver, after):
    scene.misbehave(scene.server.before(lambda: scene.put(NEW), after=after, on=scene.reads))
    try:
        deliver()
    except OriginChanged:
        destination.assert_untouched()
    else:
        # Where a version stays readable after it was replaced, the listed one is right as well.
        destination.assert_holds_one_of(scene.new_files(), scene.files)


def test_a_wrong_byte_every_time_is_refused(scene, destination, deliver):
    if not scene.declares:
        pytest.skip("this origin declares no digest")
    scene.misbehave(wrong_byte(500_000, times=ALWAYS, on=scene.reads))
    with pytest.raises(IntegrityError) as caught:
        deliver()
    assert caught.value.exit_code == 6
    destination.assert_untouched()


@pytest.mark.parametrize("word", ["aws-chunked", "utf-8"])
def test_a_content_coding_that_is_none_changes_nothing(scene, destination, deliver, word):
    scene.misbehave(labelled(word))
    deliver(verify="strict" if scene.declares else "auto")
    destination.assert_holds(scene.files)


@EVERYWHERE
@pytest.mark.parametrize("code", [302, 307])
def test_no_credential_follows_a_redirect_to_another_host(scene, destination, deliver, place, code):
    with FaultyServer(host="localhost") as elsewhere:
        elsewhere.routes["/"] = scene.server.correct_answer

        def lead_away(request, answer):
            return redirect(elsewhere.url + request.target, code).change(request, answer)

        scene.misbehave(Fault(lead_away, times=ALWAYS, on=where(scene, place)))
        try:
            deliver()
        except LadingError:
            destination.assert_untouched()
        else:
            destination.assert_holds(scene.files)
    # An OCI registry is told who asks only after it has asked itself.
    told = not (scene.uri.startswith("oci") and place == "listing")
    assert not (scene.secret and told) or scene.secret in repr(scene.server.requests)
    assert not scene.secret or scene.secret not in repr(elsewhere.requests)
