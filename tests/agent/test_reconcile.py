"""One cycle of a delivery: what is in place after it, and what the server has."""

import contextlib
import json
import os
from pathlib import Path

import pytest
import yaml

from fakes.fake_v2 import BROKEN, MUTE, FakeV2
from fakes.faulty_http import ALWAYS, ANYWHERE, FaultyServer, anything, redirect, reset, status
from fakes.registry_entries import registry_entry
from fakes.told_registry import TOLD, ToldSettings
from fakes.trees import read_tree, write_tree
from lading.agent.history import read_record
from lading.agent.reconcile import reconcile, refuse_unreadable
from lading.agent.version_policy import is_canary
from lading.agent.versions import Versions
from lading.errors import (
    IntegrityError,
    Interrupted,
    LadingError,
    NotAllowed,
    NotFound,
    Unavailable,
    Unsupported,
    UsageError,
)
from lading.events import Loaded, Postponed, RolledBack, Switched
from lading.settings.agent import Canary, Delivery, OnChange
from lading.settings.registries import KINDS, RegistryEntry
from lading.settings.store import StoreSettings
from lading.store.store import Store


class World:
    """An origin, a delivery from it, and its cycles."""

    def __init__(self, folder: Path, new_session, events) -> None:
        self.origin = folder / "origin"
        self.destination = folder / "models" / "iris"
        self.delivery = Delivery("iris", str(self.origin), str(self.destination))
        self.events = events
        self.unix_s = 1_000_000.0
        self.settings: dict = {}
        self._new_session = new_session
        self.offer(b"one")

    def offer(self, answer: bytes) -> None:
        write_tree(self.origin, {"answer": answer, "config.json": b"{}"})
        # Within the resolution of a file system's clock, a change of the same size would not be seen.
        self.stamp = getattr(self, "stamp", 1_700_000_000) + 10
        os.utime(self.origin / "answer", (self.stamp, self.stamp))
        os.utime(self.origin / "config.json", (1, 1))

    def cycle(self, host: str = "here", doing=lambda word: None, **changes):
        """Take one; ``doing`` is called with the word for each step of it, before that begins."""
        self.delivery = self.delivery._replace(**changes)
        session = self._new_session(**self.settings)
        session.settings = self.delivery.settings(session.settings)
        return reconcile(self.delivery, session, unix_time=lambda: self.unix_s, host=host, doing=doing)

    @property
    def answer(self) -> bytes:
        return (self.destination / "answer").read_bytes()

    @property
    def kept(self) -> list[bytes]:
        folders = Versions(self.delivery).root.glob("*/answer")
        return sorted(place.read_bytes() for place in folders)

    def on_digests(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def world(tmp_path, new_session, events):
    return World(tmp_path, new_session, events)


@pytest.fixture
def v2(world, server):
    fake = FakeV2(server, world.destination)
    world.delivery = world.delivery._replace(on_change=OnChange(load=fake.url, model="iris", ready_s=30.0))
    return fake


def test_a_new_version_takes_the_place_of_the_old_one_by_one_link(world):
    assert world.cycle().word == "updated"
    first = os.readlink(world.destination)
    assert world.answer == b"one"
    assert world.cycle().word == "unchanged"
    world.offer(b"two")
    outcome = world.cycle()
    assert (outcome.word, world.answer) == ("updated", b"two")
    assert os.readlink(world.destination) != first
    assert not os.path.isabs(first)
    assert outcome.manifest is not None
    assert outcome.since_s == world.unix_s
    assert [event.before[:6] for event in world.on_digests(Switched)] == ["", "sha256"]


def test_old_versions_are_kept_as_many_as_were_asked_for(world):
    for answer in (b"one", b"two", b"three", b"four"):
        world.offer(answer)
        world.cycle(keep=2)
    assert world.kept == [b"four", b"three", b"two"]
    world.offer(b"five")
    world.cycle(keep=0)
    assert world.kept == [b"five"]


def test_going_back_to_a_version_that_is_kept_moves_no_byte(world):
    world.cycle()
    world.offer(b"two")
    world.cycle()
    inode = (world.destination.parent / ".iris.versions").glob("*/answer")
    before = {place.read_bytes(): place.stat().st_ino for place in inode}
    world.stamp -= 20
    world.offer(b"one")
    world.cycle()
    assert world.answer == b"one"
    assert (world.destination / "answer").stat().st_ino == before[b"one"]


def test_a_failure_leaves_what_is_in_place(world):
    world.cycle()
    world.origin.rename(world.origin.with_name("away"))
    with pytest.raises(NotFound):
        world.cycle()
    assert world.answer == b"one"


def test_a_folder_that_is_no_link_is_not_replaced(world):
    write_tree(world.destination, {"mine": b"1"})
    with pytest.raises(UsageError, match="is not a link"):
        world.cycle()
    assert read_tree(world.destination) == {"mine": b"1"}


def test_numbered_versions_rise_and_the_server_sees_only_whole_ones(world):
    for answer in (b"one", b"two", b"three"):
        world.offer(answer)
        world.cycle(layout="numbered")
    names = sorted(name for name in os.listdir(world.destination) if name.isdigit())
    assert names == ["2", "3"]
    assert (world.destination / "3" / "answer").read_bytes() == b"three"
    assert (world.destination / "2" / "answer").read_bytes() == b"two"


def test_a_number_that_somebody_else_brought_is_left_alone(world):
    write_tree(world.destination, {"7/mine": b"1"})
    world.cycle(layout="numbered")
    assert (world.destination / "8" / "answer").read_bytes() == b"one"
    assert (world.destination / "7" / "mine").read_bytes() == b"1"


def test_the_layout_folder_changes_the_folder_itself(world):
    world.cycle(layout="folder")
    assert not world.destination.is_symlink()
    world.offer(b"two")
    assert world.cycle().word == "updated"
    assert world.answer == b"two"
    assert world.cycle().word == "unchanged"


def test_other_patterns_are_another_version(world):
    world.cycle()
    world.cycle(ignore=("config.json",))
    assert read_tree(world.destination) == {"answer": b"one"}


def test_what_was_removed_from_the_version_in_place_is_brought_again(world):
    world.cycle()
    (world.destination / ".lading.manifest").unlink()
    (world.destination / "answer").unlink()
    assert world.cycle().word == "updated"
    assert world.answer == b"one"


def test_what_changes_while_it_is_delivered_is_taken_by_the_next_turn(world):
    world.cycle()
    world.offer(b"two")
    with pytest.raises(Unavailable, match="changed while"):
        world.cycle(doing=lambda word: world.offer(b"three") if word == "delivering" else None)
    assert world.answer == b"one"
    assert world.cycle().word == "updated"
    assert world.answer == b"three"


def test_with_nothing_in_place_and_no_registry_to_ask_a_store_remembers(world, tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, "told", TOLD)

    def saying(told: str) -> None:
        entry = RegistryEntry("prod", "told", ToldSettings({"iris": told}))
        world.settings["registries"] = (entry,)

    world.settings |= {"store": StoreSettings(path=str(tmp_path / "store")), "offline": "last-known"}
    saying(str(world.origin))
    world.cycle(uri="model-registry://iris")
    saying("!Unavailable")
    with pytest.raises(Unavailable):
        world.cycle()
    world.destination = tmp_path / "models" / "fresh"
    assert world.cycle(destination=str(world.destination)).word == "updated"
    assert world.answer == b"one"
    saying(str(world.origin))
    assert world.cycle().word == "unchanged"
    assert world.kept == [b"one"]


def test_a_pinned_model_is_not_asked_for_again(world, new_session):
    from lading.delivery.request import Request
    from lading.delivery.resolve import find

    pin = find(Request(str(world.origin), world.destination), new_session()).listed.pin
    world.cycle(uri=pin)
    world.origin.rename(world.origin.with_name("away"))
    assert world.cycle().word == "unchanged"


# ---- versions of a registry -----------------------------------------------------------------


def catalog(world, **states: str) -> None:
    versions = {name.replace("_", "."): {"uri": f"origin-{name}", "state": state} for name, state in states.items()}
    for name in states:
        write_tree(world.origin.with_name(f"origin-{name}"), {"answer": name.encode()})
    place = world.origin.with_name("catalog.yaml")
    place.write_text(yaml.safe_dump({"models": {"iris": {"versions": versions}}}, sort_keys=False))
    world.settings["registries"] = (registry_entry("catalog", "catalog", path=str(place)),)


def test_a_range_takes_the_highest_live_version_in_it(world):
    catalog(world, v1_0="live", v1_2="live", v1_3="archived", v2_0="live")
    outcome = world.cycle(uri="model-registry://iris", range=">=1, <2")
    assert (world.answer, outcome.manifest.version) == (b"v1_2", "v1.2")
    catalog(world, v1_0="live", v1_2="live", v1_3="live", v2_0="live")
    assert world.cycle().manifest.version == "v1.3"


def test_a_range_without_a_live_version_says_which_there_are(world):
    catalog(world, v2_0="live")
    with pytest.raises(NotFound, match="in the range") as caught:
        world.cycle(uri="model-registry://iris", range="<2")
    assert "v2.0" in caught.value.hint


def test_a_range_of_something_that_is_no_name_is_refused(world):
    with pytest.raises(UsageError, match=r"delivery iris: .* is not a name in a registry"):
        refuse_unreadable(Delivery("iris", "s3://b/m", range="<2"))


# ---- when it may be taken -------------------------------------------------------------------


def test_a_new_version_is_held_but_never_the_first(world):
    world.cycle(hold_s=600.0)
    assert world.answer == b"one"
    world.offer(b"two")
    outcome = world.cycle()
    assert (outcome.word, world.answer) == ("postponed", b"one")
    assert "held" in outcome.waits
    world.unix_s += 599
    world.cycle()
    assert world.answer == b"one"
    world.unix_s += 1
    assert world.cycle().word == "updated"
    assert world.answer == b"two"


def test_a_canary_goes_first(world):
    world.cycle(canary=Canary(0.5, 600.0))
    world.offer(b"two")
    hosts = sorted(map(str, range(20)), key=lambda host: is_canary(host, "iris", 0.5))
    assert world.cycle(host=hosts[0]).word == "postponed"
    assert world.cycle(host=hosts[-1]).word == "updated"


# ---- the server -----------------------------------------------------------------------------


def test_the_server_loads_what_is_in_place_once(world, v2):
    world.cycle()
    world.cycle()
    assert v2.loads == [b"one"]
    world.offer(b"two")
    v2.ready_after = 3
    world.cycle()
    world.cycle()
    assert (v2.loads, v2.serving) == ([b"one", b"two"], b"two")
    assert len(world.on_digests(Loaded)) == 2


def test_what_a_server_cannot_load_is_put_back_and_left_alone(world, v2):
    world.cycle()
    world.offer(BROKEN)
    outcome = world.cycle()
    assert (outcome.word, world.answer, v2.serving) == ("refused", b"one", b"one")
    assert v2.loads == [b"one", BROKEN, b"one"]
    event = world.on_digests(RolledBack)[0]
    assert "cannot be read" in event.why
    assert "\x1b" not in event.why
    # A next process knows it, too, and nothing is asked of the server meanwhile.
    assert world.cycle().word == "postponed"
    assert "was refused" in world.on_digests(Postponed)[0].why
    world.unix_s += 301
    assert world.cycle().word == "refused"
    assert "10 min" in world.cycle().waits
    world.offer(b"three")
    world.cycle()
    assert (world.answer, v2.serving) == (b"three", b"three")


def test_a_version_that_answers_no_probe_is_put_back(world, v2):
    world.delivery = world.delivery._replace(on_change=world.delivery.on_change._replace(probe={"inputs": []}))
    world.cycle()
    world.offer(MUTE)
    assert world.cycle().word == "refused"
    assert (world.answer, v2.serving) == (b"one", b"one")


def test_a_version_that_is_never_ready_is_put_back(world, v2, clock):
    world.cycle()
    world.offer(b"two")
    v2.ready_after = 1000
    assert world.cycle().word == "refused"
    assert world.answer == b"one"
    assert clock.seconds >= 30.0


def test_a_server_that_dies_of_a_version_gets_the_one_before(world, v2, server):
    world.cycle()
    world.offer(b"two")
    server.misbehave("/v2/repository/models/iris/load", reset(at=0, times=2))
    assert world.cycle().word == "refused"
    assert world.answer == b"one"
    # It did not take that one either: it is told again, while the other one is left alone.
    assert read_record(Versions(world.delivery).record).loaded == ""
    told = len(v2.loads)
    assert world.cycle().word == "postponed"
    assert v2.loads[told:] == [b"one"]
    assert v2.serving == b"one"


def test_nothing_is_switched_under_a_server_that_does_not_answer(world, v2):
    world.cycle()
    world.offer(b"two")
    v2.there = False
    assert world.cycle().word == "postponed"
    assert world.answer == b"one"
    v2.there = True
    assert world.cycle().word == "updated"
    assert v2.serving == b"two"


def test_a_server_that_starts_later_is_told_when_it_is_there(world, v2):
    v2.there = False
    assert world.cycle().word == "updated"
    assert world.answer == b"one"
    v2.there = True
    world.cycle()
    assert v2.loads == [b"one"]


def test_the_first_version_that_a_server_refuses_stays_and_is_tried_again_later(world, v2):
    world.offer(BROKEN)
    with pytest.raises(Unsupported):
        world.cycle()
    assert world.cycle().word == "postponed"
    assert v2.loads == [BROKEN]
    world.offer(b"two")
    world.cycle()
    assert v2.serving == b"two"


def test_a_process_killed_between_switch_and_load_goes_on_with_the_load(world, v2):
    world.cycle()
    world.offer(BROKEN)

    def killed(word: str) -> None:
        if word == "loading":
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        world.cycle(doing=killed)
    assert world.answer == BROKEN
    assert world.cycle().word == "refused"
    assert (world.answer, v2.serving) == (b"one", b"one")


def test_a_signal_file_says_what_is_in_place(world, tmp_path):
    place = tmp_path / "signals" / "iris"
    world.cycle(on_change=OnChange(touch=str(place)))
    facts = json.loads(place.read_text())
    assert facts["delivery"] == "iris"
    assert facts["destination"] == str(world.destination)
    assert "?pin=sha256:" in facts["pin"]


def test_a_webhook_that_refuses_rolls_back_and_one_that_is_away_is_called_again(world, server):
    calls = []

    def route(request):
        from fakes.faulty_http import Answer

        calls.append(json.loads(request.body))
        return Answer(200 if len(calls) != 2 else 400)

    server.routes["/changed"] = route
    world.cycle(on_change=OnChange(post=f"{server.url}/changed"))
    assert calls[0]["delivery"] == "iris"
    world.offer(b"two")
    assert world.cycle().word == "refused"
    assert world.answer == b"one"
    world.offer(b"three")
    with pytest.raises(Unavailable):
        world.cycle(on_change=OnChange(post="http://127.0.0.1:1/changed"))
    assert world.answer == b"three"
    world.cycle(on_change=OnChange(post=f"{server.url}/changed"))
    assert calls[-1]["version"] == world.cycle().manifest.pin.rpartition("pin=")[2][:19]


@pytest.fixture
def token(tmp_path):
    place = tmp_path / "token"
    place.write_text("s3cret-one\n")
    return place


def test_a_token_goes_with_every_request_as_its_file_is_now(world, v2, server, token):
    on_change = world.delivery.on_change._replace(token_file=str(token), probe={"inputs": []})
    world.cycle(on_change=on_change)
    assert v2.serving == b"one"
    assert {request.headers.get("authorization") for request in server.requests} == {"Bearer s3cret-one"}
    server.requests.clear()
    token.write_text("s3cret-two")
    world.offer(b"two")
    world.cycle()
    assert v2.serving == b"two"
    assert {request.headers.get("authorization") for request in server.requests} == {"Bearer s3cret-two"}


@pytest.mark.parametrize("kind", ["load", "post"])
def test_a_token_follows_no_redirect(world, server, token, kind):
    with FaultyServer() as elsewhere:
        server.misbehave(ANYWHERE, redirect(f"{elsewhere.url}/there", code=307, on=anything, times=ALWAYS))
        told = {"load": {"load": server.url, "model": "iris"}, "post": {"post": f"{server.url}/changed"}}[kind]
        with contextlib.suppress(Unsupported):
            world.cycle(on_change=OnChange(token_file=str(token), **told))
        assert server.requests
        assert elsewhere.requests == []


def test_a_redirect_of_the_call_says_where_it_leads(world, server):
    server.misbehave(ANYWHERE, redirect("/there?s3cret", code=308, on=anything, times=ALWAYS))
    with pytest.raises(Unsupported, match="answers the call with 308, to /there, which is not followed"):
        world.cycle(on_change=OnChange(post=f"{server.url}/changed"))


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("kind", ["load", "post"])
def test_a_token_that_is_refused_says_nothing_about_the_version(world, server, token, v2, kind, code):
    on_change = world.delivery.on_change if kind == "load" else OnChange(post=f"{server.url}/v2/health/live")
    world.cycle(on_change=on_change._replace(token_file=str(token)))
    world.offer(b"two")
    server.misbehave("/v2/health/live", status(code, b"s3cret-one", on=anything, times=ALWAYS))
    with pytest.raises(NotAllowed, match=str(code)) as caught:
        world.cycle()
    assert "s3cret" not in f"{caught.value.message}{caught.value.hint}"
    # Where it is asked before the switch, nothing is switched.
    assert world.answer == (b"one" if kind == "load" else b"two")
    server._faults.clear()
    world.cycle()
    assert world.answer == b"two"
    assert not world.on_digests(RolledBack)


@pytest.mark.parametrize("kind", ["load", "post"])
@pytest.mark.parametrize(("text", "said"), [(None, "token"), ("", "no bearer token"), ("a\nb", "no bearer token")])
def test_a_token_that_cannot_be_read_is_told_and_nothing_refused_for_it(world, v2, server, tmp_path, kind, text, said):
    place = tmp_path / "absent"
    if text is not None:
        place.write_text(text)
    on_change = world.delivery.on_change if kind == "load" else OnChange(post=f"{server.url}/v2/health/live")
    with pytest.raises(LadingError, match=said):
        world.cycle(on_change=on_change._replace(token_file=str(place)))
    assert world.answer == b"one"
    assert read_record(Versions(world.delivery).record).refused == {}
    place.write_text("good")
    assert world.cycle().word == "unchanged"
    assert read_record(Versions(world.delivery).record).loaded


@pytest.mark.parametrize(
    "told", [{"load": "http://models.example.com", "model": "iris"}, {"post": "http://192.88.99.1"}]
)
def test_a_token_does_not_travel_unencrypted_beyond_the_cluster(world, token, told):
    with pytest.raises(UsageError, match="would be sent unencrypted"):
        world.cycle(on_change=OnChange(token_file=str(token), **told))
    assert read_record(Versions(world.delivery).record).refused == {}


def test_a_server_that_says_the_token_back_is_not_quoted(world, v2, server, token):
    world.cycle(on_change=world.delivery.on_change._replace(token_file=str(token)))
    world.offer(b"two")
    server.misbehave(
        "/v2/repository/models/iris/load", status(500, b'{"error": "s3cret-one"}', on=anything, times=ALWAYS)
    )
    world.cycle()
    assert world.answer == b"one"
    assert "s3cret" not in repr(world.events)
    assert "s3cret" not in Versions(world.delivery).record.read_text()


def test_a_load_that_is_stopped_is_no_refusal(world, v2, new_session, monkeypatch):
    world.cycle()
    world.offer(b"two")
    sessions = []
    made = world._new_session

    def noted(**settings):
        sessions.append(made(**settings))
        return sessions[-1]

    world._new_session = noted
    load = v2._load

    def stop():
        sessions[-1].run.stop.set()
        sessions[-1].http.interrupt()
        return load()

    monkeypatch.setattr(v2, "_load", stop)
    with pytest.raises(Interrupted):
        world.cycle()
    assert read_record(Versions(world.delivery).record).refused == {}
    monkeypatch.setattr(v2, "_load", load)
    world.cycle()
    assert (world.answer, v2.serving) == (b"two", b"two")
    assert not world.on_digests(RolledBack)


def test_in_the_store_alone_what_does_not_verify_is_not_fetched_with_every_turn(world, server, tmp_path):
    world.settings["store"] = StoreSettings(path=str(tmp_path / "store"))
    catalog(world, v1="live")
    url = server.put("/model.bin", b"wrong")
    version = {"uri": url, "digest": f"sha256:{'0' * 64}"}
    world.origin.with_name("catalog.yaml").write_text(
        yaml.safe_dump({"models": {"iris": {"versions": {"v1": version}}}})
    )
    with pytest.raises(IntegrityError):
        world.cycle(uri="model-registry://iris", destination="")
    asked = server.asked_bytes
    with pytest.raises(Unavailable, match="was refused"):
        world.cycle()
    assert server.asked_bytes == asked
    assert Store(world.settings["store"]).references.by_key() == {}


def test_in_the_store_alone_a_newer_version_is_held_too(world, tmp_path):
    world.settings["store"] = StoreSettings(path=str(tmp_path / "store"))
    world.cycle(destination="", hold_s=600.0)
    world.offer(b"two")
    assert world.cycle().word == "postponed"
    world.unix_s += 600
    outcome = world.cycle()
    assert outcome.word == "updated"
    assert outcome.since_s == world.unix_s
    store = Store(world.settings["store"])
    assert [(store.folder(key) / "answer").read_bytes() for key in store.references.by_key()] == [b"two"]


def test_a_change_can_end_the_agent_once(world):
    assert world.cycle(on_change=OnChange(exit=10)).exit_code == 10
    assert world.cycle().exit_code == 0
    world.offer(b"two")
    assert world.cycle().exit_code == 10


def test_what_does_not_verify_is_not_fetched_with_every_turn(world, server):
    import hashlib

    url = server.put("/model.bin", b"wrong")
    catalog(world, v1="live")
    text = {
        "models": {"iris": {"versions": {"v1": {"uri": url, "digest": f"sha256:{hashlib.sha256(b'r').hexdigest()}"}}}}
    }
    world.origin.with_name("catalog.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(IntegrityError):
        world.cycle(uri="model-registry://iris")
    asked = server.asked_bytes
    with pytest.raises(Unavailable, match="was refused"):
        world.cycle()
    assert server.asked_bytes == asked
    assert not world.destination.exists()


def test_a_record_that_cannot_be_read_counts_as_none(world):
    world.cycle()
    place = Versions(world.delivery).record
    for text in ("", "{", "[]", '{"format": 2}', '{"format": 1, "loaded": ""}'):
        place.write_text(text)
        assert read_record(place).history == ()
        assert world.cycle().word == "unchanged"
    assert world.answer == b"one"
