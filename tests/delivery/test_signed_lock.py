"""A lock file may name who signed a model: no delivery by it takes another signer, whatever the rules allow."""

import json
from pathlib import Path

import pytest

from command_line import Outcome, contents, lading, write_model
from fakes.fake_kubeflow import FakeKubeflow
from fakes.faulty_http import ALWAYS, ANYWHERE, anything, status
from fakes.oms_signer import Signer
from lading.agent.find_if_changed import find_if_changed
from lading.deliver import deliver
from lading.delivery.request import Request
from lading.errors import Untrusted
from lading.settings.trust import read_trust
from lading.trust.public_key import read_public_keys

OURS, THEIRS = Signer(), Signer()
FILES = {"config.json": b"{}", "weights.bin": b"weights"}


def named(signer: Signer) -> str:
    return f"key sha256:{read_public_keys(signer.public_pem)[0].fingerprint}"


class Place:
    """A signed model, a rule that trusts two keys, and a lock file."""

    def __init__(self, folder: Path) -> None:
        self.model, self.dest, self.file = write_model(folder / "model", **FILES), folder / "dest", folder / "lock"
        (folder / "keys").write_bytes(OURS.public_pem + THEIRS.public_pem)
        self.rule = {"signature": {"key": str(folder / "keys")}}
        self.sign(OURS)

    def sign(self, signer: Signer) -> None:
        (self.model / "model.sig").write_bytes(signer.sign(FILES))

    def run(self, *words: object, rules: bool = True, environ: dict[str, str] | None = None, **rule: object) -> Outcome:
        config = {"trust": [self.rule | rule]} if rules else {}
        return lading(*map(str, words), environ={"LADING_CONFIG_YAML": json.dumps(config), **(environ or {})})

    def lock(self, *words: str, **rule: object) -> Outcome:
        return self.run("lock", *words, self.model, "-o", self.file, **rule)

    def pull(self, **how: object) -> Outcome:
        return self.run("pull", self.model, self.dest, "--locked", self.file, **how)

    def change(self, change) -> None:
        """Change the entry of the lock file."""
        data = json.loads(self.file.read_text())
        change(data["models"][str(self.model)])
        self.file.write_text(json.dumps(data))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_who_signed_is_written_down_and_a_delivery_demands_it(place):
    locked = place.lock("--signed")
    assert locked.code == 0
    assert f", signed by {named(OURS)}\n" in locked.out
    entry = json.loads(place.file.read_text())["models"][str(place.model)]
    assert (entry["signature"]["signer"], entry["signature"]["rule"]) == (named(OURS), "")
    assert place.pull().code == 0
    place.change(lambda entry: entry["signature"].update(signer=named(THEIRS)))
    refused = place.pull()
    assert refused.code == 6
    assert f"is locked to the signature of {named(THEIRS)}, and is signed by {named(OURS)}\n" in refused.err


def test_a_rule_that_asks_for_nobody_or_only_warns_does_not_lift_it(place):
    place.lock("--signed")
    for how in ({"rules": False}, {"mode": "warn", "signature": {"key": place.rule["signature"]["key"], "file": "x"}}):
        refused = place.pull(**how)
        assert refused.code == 6
        assert "and no rule of trust has found who signed it\n" in refused.err
        assert not place.dest.exists()
    assert place.pull(mode="warn").code == 0


def test_it_widens_nothing_that_a_rule_refuses(place, tmp_path):
    place.lock("--signed")
    (tmp_path / "keys").write_bytes(THEIRS.public_pem)
    assert "is not signed by a key that is trusted" in place.pull().err


def test_its_text_in_a_variable_is_as_good(place):
    place.lock("--signed")
    place.change(lambda entry: entry["signature"].update(signer="somebody"))
    environ = {"LADING_LOCK_TEXT": place.file.read_text()}
    assert "is locked to the signature of somebody" in place.run("init", place.model, place.dest, environ=environ).err


def test_a_model_that_nobody_signed_cannot_be_locked_to_a_signer(place):
    for how in ({"rules": False}, {"unsigned": "allow"}):
        (place.model / "model.sig").unlink(missing_ok=True)
        refused = place.lock("--signed", **how)
        assert (refused.code, place.file.exists()) == (6, False)
        assert "there is nobody to lock it to" in refused.err
    assert place.lock(rules=False).code == 0


@pytest.mark.parametrize("signature", [None, {}, "key", [], {"name": "a"}])
def test_a_signature_that_cannot_be_read_is_no_lock(place, signature):
    place.lock("--signed")
    place.change(lambda entry: entry.update(signature=signature))
    refused = place.pull()
    assert (refused.code, refused.err.splitlines()[0]) == (2, f"error[usage]: {place.file} is not a lock file")
    place.change(lambda entry: entry.update(signature={"signer": 5}))
    assert place.pull().err.startswith(f"error[usage]: {place.file} is not a lock file of format 1\n")


def test_a_model_that_is_in_place_is_refused_when_its_lock_names_another_signer(place):
    place.lock("--signed")
    assert place.pull().code == 0
    place.change(lambda entry: entry["signature"].update(signer="somebody"))
    assert place.pull().code == 6
    assert contents(place.dest).keys() == {*FILES, "model.sig"}


def test_what_is_last_known_is_held_to_it(place, server):
    registry = FakeKubeflow(server)
    registry.register("iris", "v1", f"file://{place.model}")
    entry = {"name": "kf", "kind": "kubeflow", "url": registry.url, "folders": [str(place.model)]}
    name = "model-registry://iris"

    def run(*words: object, **more: object) -> Outcome:
        config = {"registries": [entry], "trust": [place.rule], "offline": "last-known"} | more
        return lading(*map(str, words), environ={"LADING_CONFIG_YAML": json.dumps(config)})

    assert run("lock", "--signed", name, "-o", place.file).code == 0
    pull = ("pull", name, place.dest, "--locked", place.file)
    assert run(*pull).code == 0
    server.misbehave(ANYWHERE, status(503, on=anything, times=ALWAYS))
    assert run(*pull).code == 0
    assert "no rule of trust has found who signed it" in run(*pull, trust=[]).err
    place.file.write_text(place.file.read_text().replace(named(OURS), named(THEIRS)))
    assert f"is locked to the signature of {named(THEIRS)}" in run(*pull).err


def test_an_agent_looks_again_when_the_lock_names_another_signer(place, new_session):
    place.lock("--signed")
    request = Request(str(place.model), place.dest)
    session = new_session(trust=read_trust({"trust": [place.rule]}), lock=str(place.file))
    [delivered] = deliver([request], session)
    assert find_if_changed(request, delivered, session) is None
    place.change(lambda entry: entry["signature"].update(signer="somebody"))
    with pytest.raises(Untrusted, match="is locked to the signature of somebody"):
        find_if_changed(request, delivered, session)
