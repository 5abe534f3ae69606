"""What every test has: an environment with nothing in it, a clock that never waits, and deliveries in this process."""

import os
import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.fake_s3 import FakeS3
from fakes.faulty_http import FaultyServer
from lading.deliver import deliver
from lading.delivery.request import Request
from lading.events import Event, Listener, ignore
from lading.model.digest import Digest
from lading.model.manifest import Manifest
from lading.session import Session
from lading.settings.limits import Limits, Network
from lading.settings.settings import Settings
from lading.settings.variables import Variables

_CONFIGURATION = (
    "AWS_",
    "AZURE_",
    "GOOGLE_",
    "GCE_",
    "CLOUDSDK_",
    "API_ENDPOINT_",
    "AZ_",
    "HDFS_",
    "HADOOP_USER_NAME",
    "HF_",
    "HUGGING_FACE_",
    "MODELSCOPE_",
    "MLFLOW_",
    "MODEL_REGISTRY_",
    "XDG_CACHE_HOME",
    "STORAGE_",
    "LADING_",
    "S3_",
    "CA_BUNDLE",
    "CONFIDENTIAL_",
    "CDH_ADDR",
    "KUBECONFIG",
    "KUBERNETES_",
    "OTEL_",
    "TRACE",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_",
    "awsAnonymous",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path_factory):
    """Nothing that this machine is configured with reaches a test."""
    for name in os.environ:
        if name.startswith(_CONFIGURATION) or name.lower().endswith(("_proxy", "-headers")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:1")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their parameter: two processes that collect must agree, and gzip writes the time into its head."""
    return argname if isinstance(val, bytes) else None


@dataclass
class FakeClock:
    """Time that passes only by waiting, and waiting that takes none; ``waits`` are the seconds asked for."""

    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.seconds

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.seconds += seconds
        self.waits.append(seconds)
        return stop.is_set()


def pytest_addoption(parser):
    parser.addoption("--order", metavar="SEED", help="the files in a random order, and the tests of each")


def pytest_collection_modifyitems(config, items):
    """The tests of one file share servers and stay together."""
    if config.option.order:
        chance = random.Random(config.option.order)
        files = {path: chance.random() for path in dict.fromkeys(item.path for item in items)}
        items.sort(key=lambda item: (files[item.path], chance.random()))


# What is run when it is named, and what installs what it needs.
_APART = {
    "real": "whose servers are no Python packages (make test-servers)",
    "cluster": "which starts Kubernetes (make test-cluster)",
    "dragonfly": "which starts Dragonfly (make test-dragonfly)",
    "nfs": "which boots a Linux with NFS (make test-nfs)",
}


def _is_asked_for(config, name) -> bool:
    return any(name in Path(argument.partition("::")[0]).parts for argument in config.args)


def pytest_ignore_collect(collection_path, config):
    name = collection_path.name
    return True if name in _APART and not _is_asked_for(config, name) else None


def pytest_terminal_summary(terminalreporter, config):
    """Nothing is left out silently, and an order can be had again."""
    if config.option.order:
        terminalreporter.write_line(f"in the order of --order={config.option.order}")
    for name, why in _APART.items():
        if not _is_asked_for(config, name):
            terminalreporter.write_line(f"not run: tests/{name}, {why}")


@pytest.fixture(params=["openssl", "rustls"])
def each_tls(request, monkeypatch) -> str:
    """The test is done by each of the two that speak TLS; rustls is used for every connection, the first one too."""
    if request.param == "rustls":
        pytest.importorskip("lading_native", reason="lading-native is not installed (make native)")
    monkeypatch.setenv("LADING_TLS", request.param)
    *others, _ = Network.__new__.__defaults__
    monkeypatch.setattr(Network.__new__, "__defaults__", (*others, request.param))
    return request.param


@pytest.fixture
def server():
    with FaultyServer() as server:
        yield server


@pytest.fixture
def bucket(server):
    return FakeS3(server)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def events() -> list[Event]:
    """What the deliveries of ``new_session`` told."""
    return []


@pytest.fixture
def new_session(clock, events):
    """Make sessions with the fake clock, from settings as keywords; ``Limits`` of a test are short."""
    sessions = ExitStack()

    def make(*, listener: Listener = ignore, **settings) -> Session:
        def tell(event: Event) -> None:
            events.append(event)
            listener(event)

        settings["variables"] = Variables(settings.get("variables"))
        settings.setdefault("limits", Limits(stall_s=5.0, connect_s=5.0, attempts=4, workers=4))
        return sessions.enter_context(Session(Settings(**settings), tell, clock))

    with sessions:
        yield make


@pytest.fixture
def pull(new_session) -> Callable[..., Manifest]:
    """Deliver in this process: ``pull(uri, destination, digest=…, range_bytes=…, listener=…, **settings)``."""

    def call(uri: str, destination: Path, *, digest: str = "", range_bytes: int = 0, **settings) -> Manifest:
        session = new_session(**settings)
        if range_bytes:
            session.bounds = session.bounds._replace(range_bytes=range_bytes)
        request = Request(uri, destination, Digest.parse(digest) if digest else None)
        return deliver([request], session)[0]

    return call
