"""The loop: which delivery is due, a configuration that changes, and a day of it."""

import gc
import os
import re
import threading
from pathlib import Path

import pytest
import yaml

from fakes.fake_s3 import FakeS3
from fakes.faulty_http import ALWAYS, ANYWHERE, anything, reads, status
from fakes.oms_signer import Signer
from fakes.trees import read_tree, write_tree
from lading.agent.cycle import Cycle
from lading.agent.loop import Agent
from lading.agent.page import Deliveries
from lading.agent.reconcile import Outcome
from lading.deliver import deliver
from lading.delivery.request import Request
from lading.errors import Interrupted, Unsupported, UsageError
from lading.events import (
    Delivered,
    Evicted,
    Failed,
    Materialized,
    NotReconfigured,
    Progress,
    Reconfigured,
    SetAside,
    Switched,
    ignore,
)
from lading.session import Session
from lading.settings.agent import Delivery
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings
from lading.store.store import Store


class TurnsFirst:
    """A clock for the loop of an agent: time passes only while no cycle is on its way, and a day of it has one course."""

    def __init__(self, clock) -> None:
        self._clock = clock
        self.now = clock.now

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        if threading.current_thread() is threading.main_thread():
            while any(thread.name.startswith("lading-cycle-") for thread in threading.enumerate()):
                stop.wait(0.01)
                if stop.is_set():
                    break
            if stop.is_set():
                return True
        return self._clock.wait(stop, seconds)


class World:
    """A configuration file, and an agent that reads it."""

    def __init__(self, folder: Path, clock) -> None:
        self.folder, self.clock = folder, TurnsFirst(clock)
        self.config = folder / "lading.yaml"
        self.environ = {"LADING_CONFIG": str(self.config), "S3_MAX_ATTEMPTS": "2"}
        self.events: list = []

    def write(self, *deliveries: dict, **others) -> None:
        self.config.write_text(yaml.safe_dump({"deliveries": list(deliveries), **others}))

    def delivery(self, name: str, **others) -> dict:
        origin = write_tree(self.folder / f"origin-{name}", {"answer": name.encode()})
        return {"name": name, "uri": str(origin), "destination": str(self.folder / "models" / name), **others}

    def agent(self) -> Agent:
        return Agent(
            lambda: Settings.load(self.environ),
            lambda delivery: self.events.append,
            self.environ,
            clock=self.clock,
            unix_time=lambda: 1_800_000_000.0 + self.clock.now(),
            host="here",
        )

    def cycle(self, agent: Agent) -> None:
        """Let every cycle that is due begin and end."""
        agent.tick()
        while agent._cycles:
            agent._wake.wait()
            agent.tick()

    def pass_s(self, agent: Agent, seconds: float) -> None:
        until_s = self.clock.now() + seconds
        agent.run(stop=lambda: self.clock.now() >= until_s)

    def on_digests(self, kind) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def world(tmp_path, clock):
    return World(tmp_path, clock)


def test_each_delivery_has_its_cycle_at_its_own_interval_with_jitter(world):
    world.write(world.delivery("often", every_s=60), world.delivery("seldom", every_s=600, jitter=0))
    agent = world.agent()
    world.pass_s(agent, 3600)
    text = agent.metrics.text()
    often = int(text.partition('lading_polls_total{delivery="often",outcome="unchanged"} ')[2].partition("\n")[0])
    assert 50 <= often <= 62
    assert 'lading_polls_total{delivery="seldom",outcome="unchanged"} 5' in text


def test_a_failure_of_one_delivery_is_told_and_the_others_go_on(world):
    bad = {"name": "bad", "uri": "/nowhere/at/all", "destination": str(world.folder / "models" / "bad")}
    world.write(bad, world.delivery("good"))
    agent = world.agent()
    world.cycle(agent)
    assert [event.code for event in world.on_digests(Failed)] == ["not-found"]
    assert {state.name: state.ready for state in agent.status.states()} == {"bad": False, "good": True}
    assert agent.status.is_started
    assert not agent.status.is_ready
    write_tree(world.folder / "origin-bad", {"a": b""})
    world.write({**bad, "uri": str(world.folder / "origin-bad")}, world.delivery("good"))
    world.cycle(agent)
    assert agent.status.is_ready
    assert not any(state.error for state in agent.status.states())


def test_what_an_earlier_process_put_in_place_counts_while_the_origin_is_away(world):
    delivery = world.delivery("one")
    world.write(delivery)
    world.cycle(world.agent())
    (world.folder / "origin-one").rename(world.folder / "away")
    agent = world.agent()
    assert not agent.status.is_ready
    world.cycle(agent)
    assert agent.status.is_ready
    assert agent.status.states()[0].error


def test_a_changed_configuration_holds_from_the_next_look_on(world):
    world.write(world.delivery("one"))
    agent = world.agent()
    world.cycle(agent)
    world.write(world.delivery("one"), world.delivery("two"))
    world.cycle(agent)
    assert [event.deliveries for event in world.on_digests(Reconfigured)] == [2]
    assert read_tree(world.folder / "models" / "two") == {"answer": b"two"}
    world.write(world.delivery("two"))
    world.cycle(agent)
    assert [state.name for state in agent.status.states()] == ["two"]
    assert 'delivery="one"' not in agent.metrics.text()
    # What was delivered stays: somebody may read it.
    assert (world.folder / "models" / "one" / "answer").exists()


def test_a_config_map_is_read_anew_when_its_link_is_switched(world):
    # As the kubelet does it: files are links through ..data, which is replaced by a rename.
    mount = world.folder / "mount"
    for number, names in enumerate((["one"], ["one", "two"])):
        place = mount / f"..{number}" / "lading.yaml"
        place.parent.mkdir(parents=True)
        place.write_text(yaml.safe_dump({"deliveries": [world.delivery(name) for name in names]}))
    (mount / "..data").symlink_to("..0")
    (mount / "lading.yaml").symlink_to("..data/lading.yaml")
    world.config = mount / "lading.yaml"
    world.environ["LADING_CONFIG"] = str(world.config)
    agent = world.agent()
    (mount / "..new").symlink_to("..1")
    os.replace(mount / "..new", mount / "..data")
    world.cycle(agent)
    assert [state.name for state in agent.status.states()] == ["one", "two"]


def test_who_signed_is_shown_and_another_key_counts_from_the_next_look_on(world):
    ours, theirs = Signer(), Signer()
    key = world.folder / "models.pub"
    key.write_bytes(ours.public_pem)
    one = world.delivery("one")
    write_tree(world.folder / "origin-one", {"model.sig": ours.sign({"answer": b"one"})})
    world.write(one, trust=[{"signature": {"key": str(key)}}])
    agent = world.agent()
    world.cycle(agent)
    [signer] = [state.signer for state in agent.status.states()]
    assert f'lading_signer_info{{delivery="one",signer="{signer}"}} 1' in agent.metrics.text()
    key.write_bytes(theirs.public_pem)
    world.cycle(agent)
    assert len(world.on_digests(Reconfigured)) == 1
    world.pass_s(agent, 120)
    assert world.on_digests(Failed)[0].code == "untrusted"
    assert len(world.on_digests(Reconfigured)) == 1
    assert 'lading_verification_failures_total{delivery="one"}' in agent.metrics.text()
    # It stays until somebody decides: a server may be serving it.
    assert read_tree(world.folder / "models" / "one")["answer"] == b"one"


@pytest.mark.parametrize("text", ["deliveries: [", "deliveries: [{name: x}]", "unknown: 1", ""])
def test_a_broken_configuration_leaves_the_one_before(world, text):
    world.write(world.delivery("one"))
    agent = world.agent()
    world.cycle(agent)
    world.config.write_text(text) if text else world.config.unlink()
    world.pass_s(agent, 600)
    assert len(world.on_digests(NotReconfigured)) == 1
    assert [state.name for state in agent.status.states()] == ["one"]
    assert "lading_configuration_ok 0" in agent.metrics.text()
    assert agent.status.configuration_error
    world.write(world.delivery("one"))
    world.cycle(agent)
    assert "lading_configuration_ok 1" in agent.metrics.text()
    assert not agent.status.configuration_error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "no name"),
        ({"name": "a b"}, "another name"),
        ({"uri": ""}, "no uri"),
        ({"destination": ""}, "has the destination ''"),
        ({"on_change": {"touch": "/x", "token_file": "/t"}}, "no load or post"),
        ({"destination": "models"}, "has the destination"),
        ({"destination": "/models/.."}, "has the destination"),
        ({"every": 5}, "unknown key 'every'"),
        ({"every_s": 0}, "delivery one: every_s is 0"),
        ({"every_s": True}, "delivery one: every_s is true"),
        ({"every_s": "5m"}, "lading.yaml: delivery one: every_s is '5m'"),
        ({"jitter": 2}, "jitter is 2"),
        ({"uri": "s4://b/m"}, "delivery one: lading does not read s4://"),
        ({"uri": "a\x01b"}, "delivery one: the URI .* control character"),
        ({"uri": "model-registry://m", "range": "1.x"}, "delivery one: '1.x' is not a range of versions"),
        ({"range": ">=1"}, "delivery one: .* is not a name in a registry"),
        ({"keep": -1}, "keep is -1"),
        ({"layout": "pile"}, "layout"),
        ({"verify": "maybe"}, "delivery one: verify is 'maybe'"),
        ({"canary": {"share": 2}}, "canary share"),
        ({"canary": 5}, "delivery one: canary is 5"),
        ({"on_change": {}}, "needs one of"),
        ({"on_change": {"touch": "/x", "exit": 1}}, "needs one of"),
        ({"on_change": {"load": "ftp://x", "model": "m"}}, "URL"),
        ({"on_change": {"load": "http://x"}}, "needs model"),
        ({"on_change": {"exit": 200}}, "exit is 200"),
        ({"allow": "x"}, "allow is 'x'"),
    ],
)
def test_a_wrong_first_configuration_is_an_error_that_says_where(world, change, said):
    world.write({**world.delivery("one"), **change})
    with pytest.raises((UsageError, Unsupported), match=said):
        world.agent()


def test_each_delivery_has_a_name_and_a_place_of_its_own(world):
    one, two = world.delivery("one"), world.delivery("two")
    world.write(one, one)
    with pytest.raises(UsageError, match="two deliveries are called one"):
        world.agent()
    for place in ("", "/", "/x/..", "/below"):
        world.write(one, {**two, "destination": one["destination"] + place})
        with pytest.raises(UsageError, match="one lies within the other"):
            world.agent()
    world.write(one, {**two, "destination": one["destination"] + "-more"})
    world.agent()


def test_a_hint_makes_every_cycle_come_now(world, tmp_path):
    import base64
    import hashlib
    import hmac

    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    world.write(world.delivery("one", every_s=86400), agent={"mlflow_secret_file": str(secret)})
    agent = world.agent()
    world.cycle(agent)
    write_tree(world.folder / "origin-one", {"answer": b"another"})
    world.cycle(agent)
    assert (world.folder / "models/one/answer").read_bytes() == b"one"
    moment = str(int(1_800_000_000 + world.clock.now()))
    signature = base64.b64encode(hmac.digest(b"s3cret", f"id.{moment}.{{}}".encode(), hashlib.sha256)).decode()
    headers = {"x-mlflow-delivery-id": "id", "x-mlflow-timestamp": moment, "x-mlflow-signature": f"v1,{signature}"}
    assert not agent.take_webhook({**headers, "x-mlflow-signature": "v1,"}, b"{}")
    world.cycle(agent)
    assert (world.folder / "models/one/answer").read_bytes() == b"one"
    assert agent.take_webhook(headers, b"{}")
    world.cycle(agent)
    assert (world.folder / "models/one/answer").read_bytes() == b"another"


def test_a_day_of_polls_rotations_and_outages_leaks_nothing(world, server):
    bucket = FakeS3(server, "bucket")
    keys = world.folder / "keys"
    write_tree(keys, {"AWS_ACCESS_KEY_ID": b"a", "AWS_SECRET_ACCESS_KEY": b"b"})
    catalog = world.folder / "catalog.yaml"
    world.environ |= {"AWS_ENDPOINT_URL": server.url, "AWS_REGION": "us-east-1", "S3_MAX_FILE_CONCURRENCY": "2"}

    def offer(number: int) -> None:
        bucket.put("model/answer", b"%d" % number)
        bucket.put("model/weights", b"%d" % number * 1000)
        versions = {f"v{number}": {"uri": "s3://bucket/model"}}
        catalog.write_text(yaml.safe_dump({"models": {"iris": {"versions": versions}}}))

    offer(0)
    models = world.folder / "models"
    world.write(
        {"name": "named", "uri": "model-registry://iris", "destination": str(models / "named"), "every_s": 1800},
        {"name": "bucket", "uri": "s3://bucket/model", "destination": str(models / "bucket"), "every_s": 2400},
        world.delivery("local", every_s=7200),
        {"name": "warm", "uri": "s3://bucket/model", "every_s": 3000},
        registries=[{"name": "catalog", "kind": "catalog", "path": str(catalog)}],
        store={"path": str(world.folder / "store"), "high": "200kB", "low": "100kB"},
        credentials=[{"prefix": "s3://bucket/", "folder": str(keys)}],
    )
    agent = world.agent()

    def facts() -> tuple[int, int, int]:
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return len(os.listdir("/proc/self/fd")), threading.active_count(), resident

    for hour in range(24):
        offer(hour + 1)
        write_tree(keys, {"AWS_ACCESS_KEY_ID": b"a%d" % hour})
        if hour % 6 == 3:
            # An hour in which nothing answers: what is in place stays.
            server.misbehave(ANYWHERE, status(503, on=anything, times=ALWAYS))
            before = read_tree(models / "bucket")
            world.pass_s(agent, 3600)
            assert read_tree(models / "bucket") == before
            assert agent.status.is_ready
            server._faults.clear()
        world.pass_s(agent, 3600)
        server.requests.clear()
        if hour == 3:
            early = facts()
    late = facts()
    for name in ("named", "bucket"):
        assert read_tree(models / name)["answer"] == b"24"
        # The one in place and the one before it.
        assert len(list((models / f".{name}.versions").glob("*/answer"))) == 2
    assert kept(Store(StoreSettings(path=str(world.folder / "store"))))["agent/warm"] == b"24"
    assert len(world.on_digests(Switched)) >= 49
    assert {event.code for event in world.on_digests(Failed)} == {"unavailable"}
    assert late[0] <= early[0] + 2
    assert late[1] <= early[1] + 1
    assert late[2] < early[2] + (8 << 20)
    assert agent.metrics.text().partition("lading_store_evictions_total ")[2] > "1"


# ---- beside each other ------------------------------------------------------------------------


class Gate:
    """An HTTP origin that stops within each file until ``go_on``; ``most`` is how many it held back at a time."""

    def __init__(self, server) -> None:
        self._server = server
        self.arrived = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.most = 0
        self._held: set[str] = set()
        server.on_sent = self._hold

    def delivery(self, world: World, name: str, **others) -> dict:
        uri = self._server.put(f"/{name}/model.bin", name.encode() * (1 << 20))
        return {"name": name, "uri": uri, "destination": str(world.folder / "models" / name), **others}

    def _hold(self, request, _: int) -> None:
        if request.method == "GET" and reads(request) and not self.go_on.is_set() and request.path not in self._held:
            self._held.add(request.path)
            self.most = max(self.most, len(self._held))
            self.arrived.release()
            self.go_on.wait(30)
            self._held.remove(request.path)


@pytest.fixture
def gate(server):
    gate = Gate(server)
    yield gate
    gate.go_on.set()


def finish(world: World, agent: Agent, gate: Gate) -> None:
    gate.go_on.set()
    world.cycle(agent)


def test_a_slow_delivery_blocks_no_other(world, gate):
    world.write(gate.delivery(world, "slow"), world.delivery("quick", every_s=60, jitter=0))
    agent = world.agent()
    for _ in range(3):
        agent.tick()
        while sum(cycle.delivery.name == "quick" for cycle in agent._cycles):
            agent._wake.wait()
            agent.tick()
        world.clock._clock.seconds += 60
    assert 'lading_polls_total{delivery="quick",outcome="unchanged"} 2' in agent.metrics.text()
    states = {state.name: (state.ready, state.doing) for state in agent.status.states()}
    assert states["quick"] == (True, "waiting")
    assert states["slow"] == (False, "delivering")
    finish(world, agent, gate)
    assert agent.status.is_ready


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_as_many_have_their_cycles_at_a_time_as_may_be(world, gate, parallel):
    world.write(*(gate.delivery(world, name) for name in "abcd"), agent={"parallel": parallel})
    agent = world.agent()
    agent.tick()
    for _ in range(parallel):
        assert gate.arrived.acquire(timeout=20)
    agent.tick()
    assert len(agent._cycles) == parallel
    finish(world, agent, gate)
    assert gate.most <= parallel
    assert agent.status.is_ready
    assert not agent._cycles


def test_a_hint_during_a_cycle_brings_another_one_after_it_and_never_beside_it(world, gate):
    world.write(gate.delivery(world, "one", every_s=86400), agent={"parallel": 4})
    agent = world.agent()
    agent.tick()
    assert gate.arrived.acquire(timeout=20)
    agent._hinted.set()
    agent.tick()
    assert len(agent._cycles) == 1
    finish(world, agent, gate)
    assert 'outcome="updated"} 1' in agent.metrics.text()
    assert 'outcome="unchanged"} 1' in agent.metrics.text()


def test_what_is_no_longer_declared_so_is_stopped_and_its_place_waits_for_that(world, gate):
    slow = gate.delivery(world, "slow")
    world.write(slow)
    agent = world.agent()
    agent.tick()
    assert gate.arrived.acquire(timeout=20)
    renamed = {**world.delivery("renamed"), "destination": slow["destination"]}
    world.write(renamed)
    before = agent._cycles[0]
    agent.tick()
    # The same place, under another name.
    assert before.is_stopped
    assert before.is_over or agent._cycles == [before]
    world.cycle(agent)
    assert read_tree(world.folder / "models" / "slow") == {"answer": b"renamed"}
    assert [state.name for state in agent.status.states()] == ["renamed"]
    assert 'delivery="slow"' not in agent.metrics.text()
    assert not world.on_digests(Failed)
    assert not gate.go_on.is_set()


def test_the_end_of_the_agent_ends_every_cycle_and_the_next_process_resumes(world, gate):
    world.write(gate.delivery(world, "a"), gate.delivery(world, "b"))
    agent = world.agent()
    agent.tick()

    def signal() -> bool:
        assert gate.arrived.acquire(timeout=20)
        assert gate.arrived.acquire(timeout=20)
        raise Interrupted("stopped by a signal")

    with pytest.raises(Interrupted):
        agent.run(stop=signal)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lading-t")]
    assert not world.on_digests(Failed)
    gate.go_on.set()
    world.cycle(world.agent())
    assert (world.folder / "models/b/model.bin").exists()


@pytest.mark.parametrize("busy_with", ["loop.prune", "loop.release", "loop.in_place", "configuration.read_agent"])
def test_a_signal_ends_the_agent_whatever_the_loop_is_at(world, monkeypatch, busy_with):
    # The handler raises it in the main thread, and no second signal is heard.
    world.write(world.delivery("one"), store={"path": str(world.folder / "store")})
    agent = world.agent()
    world.cycle(agent)
    (world.folder / "origin-one").rename(world.folder / "away")
    world.write(world.delivery("two") | {"uri": "/nowhere"}, store={"path": str(world.folder / "store")})

    def signal(*_):
        raise Interrupted("stopped by a signal")

    monkeypatch.setattr(f"lading.agent.{busy_with}", signal)
    with pytest.raises(Interrupted):
        world.pass_s(agent, 600)


def test_a_cycle_that_cannot_be_stopped_is_left_behind(world, monkeypatch):
    stuck, begun = threading.Event(), threading.Event()

    def hang(*_, **__):
        begun.set()
        stuck.wait(30)
        return Outcome("updated", None)

    monkeypatch.setattr("lading.agent.loop.reconcile", hang)
    monkeypatch.setattr("lading.agent.loop._PATIENCE_S", 0.05)
    world.write(world.delivery("one"))
    agent = world.agent()
    agent.tick()
    assert begun.wait(20)
    (cycle,) = agent._cycles
    assert agent.run(stop=lambda: True) == 0
    assert not cycle.is_over
    # Nothing that it does from now on is told, nor does the interpreter wait for it.
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("lading-cycle-"))
    stuck.set()
    world.cycle(agent)
    assert 'outcome="updated"} 1' in agent.metrics.text()


def test_one_that_ends_the_process_stops_the_others(world, gate):
    world.write(gate.delivery(world, "slow"), world.delivery("quick", on_change={"exit": 10}))
    agent = world.agent()
    assert agent.run() == 10
    assert (world.folder / "models/quick/answer").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lading-t")]


def test_deliveries_at_a_time_share_the_rate_and_the_memory(world, monkeypatch):
    made = []

    class Noted(Session):
        def __init__(self, settings, *others, sessions, **more) -> None:
            super().__init__(settings, *others, sessions=sessions, **more)
            made.append((sessions, settings.limits.max_rate_bytes_s))

    monkeypatch.setattr("lading.agent.loop.Session", Noted)
    world.environ["LADING_MAX_RATE"] = "1000000"
    world.write(world.delivery("one"))
    world.cycle(world.agent())
    world.write(*(world.delivery(name) for name in ("one", "two", "three")))
    world.cycle(world.agent())
    assert made == [(1, 1_000_000.0)] + [(2, 500_000.0)] * 3


# ---- in the store alone -----------------------------------------------------------------------


@pytest.fixture
def stored(world):
    """Writes a configuration with a store and these deliveries, which have no destination."""

    def write(*names: str, more=(), **store) -> Store:
        deliveries = [world.delivery(name, every_s=60, jitter=0) for name in names]
        for delivery in deliveries:
            del delivery["destination"]
        path = str(world.folder / "store")
        world.write(*deliveries, *more, store={"path": path, "high": "100%", "low": "100%", **store})
        return Store(StoreSettings(path=path))

    return write


def kept(store: Store) -> dict[str, bytes]:
    """What is kept, by the names that keep it."""
    references = store.references.by_key()
    return {name: (store.folder(key) / "answer").read_bytes() for key, names in references.items() for name in names}


def test_without_a_destination_a_model_is_kept_in_the_store_verified(world, stored):
    store = stored("one", "two")
    agent = world.agent()
    assert not agent.status.is_ready
    world.cycle(agent)
    assert agent.status.is_ready
    assert kept(store) == {"agent/one": b"one", "agent/two": b"two"}
    assert all(file.verified or file.size_bytes for model in store.models() for file in store.find(model.key).files)
    assert not (world.folder / "models").exists()
    assert 'lading_ready{delivery="one"} 1' in agent.metrics.text()
    assert [event.files for event in world.on_digests(Delivered)] == [1, 1]
    # Nothing has changed, and a next process sees it.
    world.cycle(world.agent())
    world.pass_s(agent, 300)
    assert len(world.on_digests(Switched)) == 2
    assert len(world.on_digests(Delivered)) == 2
    # Whoever delivers it here fetches nothing.
    world.events.clear()
    place = {"name": "one", "uri": str(world.folder / "origin-one"), "destination": str(world.folder / "models/one")}
    world.write(place, store={"path": str(store.root)})
    world.cycle(world.agent())
    assert len(world.on_digests(Materialized)) == 1
    assert not world.on_digests(Progress)


def test_a_model_that_rotted_in_the_store_is_fetched_again_at_once_and_the_page_names_it(world, stored):
    store = stored("one", scrub_bytes_s=0)
    agent = world.agent()
    world.cycle(agent)
    [blob] = store.blobs.all()
    blob.chmod(0o644)
    blob.write_bytes(b"eno")
    os.utime(store.root / "format", (0, 0))
    agent.scrubber().look()
    assert store.keys() == []
    world.cycle(agent)
    assert kept(store) == {"agent/one": b"one"}
    assert [event.example for event in world.on_digests(SetAside)] == ["answer"]
    page, _ = Deliveries(agent.status, lambda: store.settings).page(2e9)
    assert "origin-one was damaged in the store, and set aside " in page


def test_a_newer_version_takes_the_place_of_the_one_before_which_may_go_then(world, stored):
    store = stored("one", high="0B", low="0B")
    agent = world.agent()
    world.cycle(agent)
    assert kept(store) == {"agent/one": b"one"}
    write_tree(world.folder / "origin-one", {"answer": b"another"})
    world.pass_s(agent, 600)
    assert kept(store) == {"agent/one": b"another"}
    assert len(store.models()) == 1
    assert [event.why for event in world.on_digests(Evicted)] == ["used longest ago"]
    assert "lading_store_evictions_total 1\n" in agent.metrics.text()
    assert agent.status.is_ready


def test_what_is_no_longer_declared_is_let_go(world, stored):
    store = stored("one", "two")
    agent = world.agent()
    world.cycle(agent)
    assert sorted(os.listdir(store.root / "agent")) == ["one.json", "two.json"]
    store.references.keep("somebody", store.models()[0].key)
    stored("two")
    world.cycle(agent)
    assert kept(store).keys() == {"agent/two", "somebody"}
    assert os.listdir(store.root / "agent") == ["two.json"]
    # Also where that was said while no agent ran; and a delivery with a destination keeps nothing.
    stored(more=[world.delivery("two")])
    world.cycle(world.agent())
    assert kept(store).keys() == {"somebody"}


def test_another_store_takes_over_and_the_one_before_is_let_go(world, stored):
    store = stored("one")
    agent = world.agent()
    world.cycle(agent)
    stored("one", path=str(world.folder / "other"))
    world.pass_s(agent, 120)
    assert kept(store) == {}
    assert kept(Store(StoreSettings(path=str(world.folder / "other")))) == {"agent/one": b"one"}


def test_what_has_gone_from_the_store_is_brought_again(world, stored):
    store = stored("one")
    agent = world.agent()
    world.cycle(agent)
    store.put_aside(store.models()[0].key)
    world.pass_s(agent, 120)
    assert kept(store) == {"agent/one": b"one"}
    assert agent.status.is_ready


def test_other_patterns_keep_other_files(world, stored):
    store = stored("one")
    write_tree(world.folder / "origin-one", {"config.json": b"{}"})
    agent = world.agent()
    world.cycle(agent)
    assert len(store.find(store.models()[0].key).files) == 2
    world.environ["STORAGE_IGNORE_PATTERNS"] = "config.json"
    agent = world.agent()
    world.cycle(agent)
    (key,) = store.references.by_key()
    assert [file.path for file in store.find(key).files] == ["answer"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layout": "link"}, "cannot have layout"),
        ({"keep": 1}, "cannot have keep"),
        ({"on_change": {"exit": 1}}, "cannot have on_change"),
    ],
)
def test_what_is_about_a_destination_is_refused_without_one(world, change, said):
    delivery = {"name": "one", "uri": "/one", **change}
    world.write(delivery, store={"path": "/store"})
    with pytest.raises(UsageError, match=said):
        world.agent()
    world.write({"name": "one", "uri": "/one"})
    with pytest.raises(UsageError, match="no store is configured that could keep it"):
        world.agent()


def test_the_marks_of_the_store_are_kept_though_nothing_is_delivered(world, stored):
    store = stored("one")
    agent = world.agent()
    world.cycle(agent)
    for name in ("x", "y"):
        # By another process, which knows no marks.
        folder = write_tree(world.folder / name, {"answer": name.encode() * 5000})
        session = Session(Settings(store=store.settings._replace(high="100%", low="100%")), ignore)
        deliver([Request(str(folder), world.folder / f"{name}-placed")], session)
    assert len(store.models()) == 3
    stored("one", high="10B", low="10B")
    world.pass_s(agent, 10)
    assert kept(store) == {"agent/one": b"one"}
    assert len(store.models()) == 1
    assert len(world.on_digests(Evicted)) == 2
    assert "lading_store_evictions_total 2\n" in agent.metrics.text()
    assert "lading_store_models 1\n" in agent.metrics.text()


def test_a_store_that_cannot_be_looked_at_is_told_and_ends_nothing(world, stored):
    store = stored("one")
    agent = world.agent()
    (store.root / "format").write_text("{}")
    world.cycle(agent)
    assert {(event.delivery, event.code) for event in world.on_digests(Failed)} == {
        ("", "integrity"),
        ("one", "integrity"),
    }
    assert not agent.status.is_ready
    (store.root / "format").unlink()
    world.pass_s(agent, 120)
    assert agent.status.is_ready


def test_age_evicts_what_nobody_declares(world, stored):
    store = stored("one")
    agent = world.agent()
    world.cycle(agent)
    os.utime(store.root / "uses" / store.models()[0].key, (1, 1))
    stored("one", max_age_s=3600)
    world.pass_s(agent, 600)
    assert len(store.models()) == 1
    stored(more=[world.delivery("other")], max_age_s=3600)
    world.pass_s(agent, 600)
    assert [event.why for event in world.on_digests(Evicted)] == ["not used for so long"]


def test_a_defect_in_a_cycle_is_its_error_and_tells_its_place():
    over = threading.Event()
    cycle = Cycle(Delivery("iris", "/iris", "/models/iris"), Session(Settings(), ignore), {}.popitem, over.set)
    cycle.begin()
    assert over.wait(30)
    assert cycle.is_over
    assert re.fullmatch(r"KeyError at agent/cycle\.py:\d+", cycle.error.message)
