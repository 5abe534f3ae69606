"""The loop: whose turn it is, a configuration that changes, and a day of it."""

import gc
import os
import threading
from pathlib import Path

import pytest
import yaml

from lading.agent.agent import Agent
from lading.errors import UsageError
from lading.events import Failed, NotReconfigured, Reconfigured, Switched
from lading.settings import Settings
from servers.fake_s3 import FakeS3
from servers.faulty_http import ALWAYS, ANYWHERE, anything, status
from servers.trees import read_tree, write_tree


class World:
    """A configuration file, and an agent that reads it."""

    def __init__(self, folder: Path, clock, monkeypatch) -> None:
        self.folder, self.clock = folder, clock
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
            self.environ,
            self.events.append,
            clock=self.clock,
            unix_time=lambda: 1_800_000_000.0 + self.clock.now(),
            host="here",
        )

    def pass_s(self, agent: Agent, seconds: float) -> None:
        until_s = self.clock.now() + seconds
        agent.run(stop=lambda: self.clock.now() >= until_s)

    def told(self, kind) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def world(tmp_path, clock, monkeypatch):
    return World(tmp_path, clock, monkeypatch)


def test_each_delivery_has_its_turn_at_its_own_interval_with_jitter(world):
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
    agent.tick()
    assert [event.code for event in world.told(Failed)] == ["not-found"]
    assert {state.name: state.ready for state in agent.status.states()} == {"bad": False, "good": True}
    assert agent.status.is_started
    assert not agent.status.is_ready
    write_tree(world.folder / "origin-bad", {"a": b""})
    world.write({**bad, "uri": str(world.folder / "origin-bad")}, world.delivery("good"))
    agent.tick()
    assert agent.status.is_ready
    assert not any(state.error for state in agent.status.states())


def test_what_an_earlier_process_put_in_place_counts_while_the_origin_is_away(world):
    delivery = world.delivery("one")
    world.write(delivery)
    world.agent().tick()
    (world.folder / "origin-one").rename(world.folder / "away")
    agent = world.agent()
    assert not agent.status.is_ready
    agent.tick()
    assert agent.status.is_ready
    assert agent.status.states()[0].error


def test_a_changed_configuration_holds_from_the_next_look_on(world):
    world.write(world.delivery("one"))
    agent = world.agent()
    agent.tick()
    world.write(world.delivery("one"), world.delivery("two"))
    agent.tick()
    assert [event.deliveries for event in world.told(Reconfigured)] == [2]
    assert read_tree(world.folder / "models" / "two") == {"answer": b"two"}
    world.write(world.delivery("two"))
    agent.tick()
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
    agent.tick()
    assert [state.name for state in agent.status.states()] == ["one", "two"]


@pytest.mark.parametrize("text", ["deliveries: [", "deliveries: [{name: x}]", "unknown: 1", ""])
def test_a_broken_configuration_leaves_the_one_before(world, text):
    world.write(world.delivery("one"))
    agent = world.agent()
    agent.tick()
    world.config.write_text(text) if text else world.config.unlink()
    world.pass_s(agent, 600)
    assert len(world.told(NotReconfigured)) == 1
    assert [state.name for state in agent.status.states()] == ["one"]
    assert "lading_configuration_ok 0" in agent.metrics.text()
    assert agent.status.configuration_error
    world.write(world.delivery("one"))
    agent.tick()
    assert "lading_configuration_ok 1" in agent.metrics.text()
    assert not agent.status.configuration_error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "no name"),
        ({"name": "a b"}, "another name"),
        ({"uri": ""}, "no uri"),
        ({"destination": "models"}, "has the destination"),
        ({"destination": "/models/.."}, "has the destination"),
        ({"every": 5}, "unknown key 'every'"),
        ({"every_s": 0}, "below 1"),
        ({"every_s": True}, "every_s is True"),
        ({"keep": -1}, "keep is -1"),
        ({"layout": "pile"}, "layout"),
        ({"verify": "maybe"}, "verification mode"),
        ({"canary": {"share": 2}}, "canary share"),
        ({"canary": 5}, "mappings"),
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
    with pytest.raises(UsageError, match=said):
        world.agent()


def test_each_delivery_has_a_name_and_a_place_of_its_own(world):
    one, two = world.delivery("one"), world.delivery("two")
    world.write(one, one)
    with pytest.raises(UsageError, match="two deliveries are called one"):
        world.agent()
    for place in ("", "/", "/x/..", "/below"):
        world.write(one, {**two, "destination": one["destination"] + place})
        with pytest.raises(UsageError, match="lie within each other"):
            world.agent()
    world.write(one, {**two, "destination": one["destination"] + "-more"})
    world.agent()


def test_a_hint_makes_every_turn_come_now(world, tmp_path):
    import base64
    import hashlib
    import hmac

    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    world.write(world.delivery("one", every_s=86400), agent={"mlflow_secret_file": str(secret)})
    agent = world.agent()
    agent.tick()
    write_tree(world.folder / "origin-one", {"answer": b"another"})
    agent.tick()
    assert (world.folder / "models/one/answer").read_bytes() == b"one"
    moment = str(int(1_800_000_000 + world.clock.now()))
    signature = base64.b64encode(hmac.digest(b"s3cret", f"id.{moment}.{{}}".encode(), hashlib.sha256)).decode()
    headers = {"x-mlflow-delivery-id": "id", "x-mlflow-timestamp": moment, "x-mlflow-signature": f"v1,{signature}"}
    assert not agent.hint({**headers, "x-mlflow-signature": "v1,"}, b"{}")
    agent.tick()
    assert (world.folder / "models/one/answer").read_bytes() == b"one"
    assert agent.hint(headers, b"{}")
    agent.tick()
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
        registries=[{"name": "catalog", "kind": "catalog", "path": str(catalog)}],
        store={"path": str(world.folder / "store"), "high": "200000", "low": "100000"},
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
    assert len(world.told(Switched)) >= 49
    assert {event.code for event in world.told(Failed)} == {"unavailable"}
    assert late[0] <= early[0] + 2
    assert late[1] <= early[1] + 1
    assert late[2] < early[2] + (8 << 20)
    assert agent.metrics.text().partition("lading_store_evictions_total ")[2] > "1"
