"""A system that refuses threads: the transfer goes on with those that there are."""

import io
import os
import resource
import tarfile
import tempfile
import threading
import zipfile
from pathlib import Path

import pytest

import lading
from fakes.killer import run_and_kill_at
from fakes.trees import MIB, content, read_tree, write_tree
from lading import events as told
from lading.agent.cycle import Cycle
from lading.agent.http_server import Endpoint
from lading.agent.metrics import Metrics
from lading.agent.page import Deliveries
from lading.agent.status import Status
from lading.deliver import deliver
from lading.delivery.request import Request
from lading.errors import Unavailable
from lading.settings.agent import AgentSettings, Delivery
from lading.settings.limits import Network
from lading.settings.store import StoreSettings
from lading.settings.traces import Traces
from lading.telemetry.otlp import sending

FILES = {f"file-{number}": content(1000, seed=number) for number in range(20)} | {"big": content(3 * MIB)}


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch):
    """Let no more than so many of lading's threads be alive at a time."""
    real = threading.Thread.start

    def limit(most: int) -> None:
        def start(self: threading.Thread) -> None:
            if self.name.startswith("lading-"):
                alive = [thread for thread in threading.enumerate() if thread.name.startswith("lading-")]
                if len(alive) >= most:
                    raise RuntimeError("can't start new thread")
            real(self)

        monkeypatch.setattr(threading.Thread, "start", start)

    return limit


def packed(place: Path) -> Path:
    if place.suffix == ".zip":
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as bundle:
            for path, data in FILES.items():
                bundle.writestr(path, data)
    else:
        with tarfile.open(place, "w:gz") as tar:
            for path, data in FILES.items():
                member = tarfile.TarInfo(path)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return place


def offers(folder: Path) -> dict[str, list[Path]]:
    tree = write_tree(folder / "tree", FILES)
    tars = [packed(folder / f"{name}.tar.gz") for name in "abc"]
    return {"a folder": [tree], "a tar": tars[:1], "a zip": [packed(folder / "a.zip")], "several": [tree, *tars]}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("most", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["a folder", "a tar", "a zip", "several"])
def test_a_delivery_goes_on_with_as_many_threads_as_there_are(
    tmp_path: Path, new_session, events, allow, kind: str, most: int
) -> None:
    models = offers(tmp_path)[kind]
    requests = [Request(str(model), tmp_path / f"to-{model.name}") for model in models]
    session = new_session()
    session.bounds = session.bounds._replace(most_workers=8, first_workers=8, range_bytes=256 * 1024, cpus=2.0)
    allow(most)
    deliver(requests, session)
    assert all(read_tree(request.destination) == FILES for request in requests)
    told_once = [event for event in events if isinstance(event, told.FewThreads)]
    assert len(told_once) == 1
    assert 1 <= told_once[0].workers <= most


@pytest.mark.parametrize("kind", ["a folder", "a tar", "a zip", "several"])
def test_without_any_thread_the_limit_is_named_and_the_destination_stays(
    tmp_path: Path, new_session, allow, kind: str
) -> None:
    models = offers(tmp_path)[kind]
    requests = [Request(str(model), tmp_path / f"to-{model.name}") for model in models]
    allow(0)
    with pytest.raises(Unavailable, match="refuses to start a thread") as caught:
        deliver(requests, new_session())
    assert "podPidsLimit" in caught.value.hint
    assert not any(request.destination.exists() for request in requests)


@pytest.mark.skipif(os.geteuid() != 0, reason="the limit is for all of a user's threads: needs a user of its own")
@pytest.mark.parametrize("most", [1, 2, 4])
def test_the_limit_of_a_user_is_kept(pull, most: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        source = packed(write_tree(folder, {"x": b""}) / "model.tar.gz")
        # All that a delivery loads: that user may not be able to read this Python's files.
        pull(str(source), folder / "before", store=StoreSettings())

        def act() -> None:
            # One that nobody else has: the limit counts all that its user runs.
            user = 1_000_000 + os.getpid()
            os.setgid(user)
            os.setuid(user)
            resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
            if most > 1:
                lading.pull(str(source), folder / "model")
                return
            with pytest.raises(Unavailable) as caught:
                lading.pull(str(source), folder / "model")
            assert "ulimit -u is 1" in caught.value.hint

        assert run_and_kill_at(1 << 60, act)
        assert read_tree(folder / "model") == (FILES if most > 1 else {})


def test_an_agent_without_a_thread_for_a_turn_fails_that_turn(tmp_path: Path, new_session, allow) -> None:
    ended = threading.Event()
    cycle = Cycle(
        Delivery("m", str(tmp_path), str(tmp_path / "to")), new_session(), lambda: pytest.fail("begun"), ended.set
    )
    allow(0)
    cycle.begin()
    assert ended.is_set()
    assert cycle.is_over
    assert isinstance(cycle.error, Unavailable)
    assert "podPidsLimit" in cycle.error.hint


def test_an_endpoint_without_a_thread_names_the_limit_and_lets_its_port_go(allow) -> None:
    def endpoint(port: int) -> Endpoint:
        settings = AgentSettings()._replace(listen="127.0.0.1", port=port)
        return Endpoint(settings, Deliveries(Status(Metrics()), StoreSettings), take_webhook=lambda *_: False)

    first = endpoint(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", _refuse)
        with pytest.raises(Unavailable, match="refuses to start a thread"):
            first.__enter__()
    with endpoint(first.port) as second:
        assert second.port == first.port


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_trace_without_a_thread_is_told_and_the_delivery_goes_on(allow) -> None:
    heard: list[told.Event] = []
    allow(0)
    with sending(Traces("http://127.0.0.1:1"), heard.append, {}, Network()):
        pass
    [event] = heard
    assert isinstance(event, told.NotTraced)
    assert "thread" in event.why
