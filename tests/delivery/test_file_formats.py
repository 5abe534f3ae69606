"""By a rule of trust, files are judged by their content before a server sees them."""

import json
from pathlib import Path

import pytest

from command_line import Outcome, contents, lading
from formats import files

SAFE = {"model.safetensors": files.safetensors(), "config.json": b"{}"}
UNSAFE = SAFE | {"pytorch_model.bin": files.zipped({"archive/data.pkl": files.pickled(2)})}


class Place:
    def __init__(self, folder: Path) -> None:
        self.model, self.dest, self.store = folder / "model", folder / "dest", folder / "store"

    def write(self, model: dict[str, bytes]) -> None:
        for path, data in model.items():
            (self.model / path).parent.mkdir(parents=True, exist_ok=True)
            (self.model / path).write_bytes(data)

    def run(self, *words: object, store: bool = False, **rule: object) -> Outcome:
        config = {"trust": [{"prefix": f"file://{self.model}", "formats": {}} | rule]}
        environ = {"LADING_CONFIG_YAML": json.dumps(config)} | ({"LADING_STORE": str(self.store)} if store else {})
        return lading(*map(str, words), environ=environ)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(params=[False, True], ids=["no-store", "store"])
def store(request) -> bool:
    return request.param


def test_files_that_run_nothing_are_delivered(place, store):
    place.write(SAFE)
    assert place.run("pull", place.model, place.dest, store=store).code == 0
    assert contents(place.dest) == SAFE


def test_code_is_refused_by_name_and_nothing_appears(place, store):
    place.write(UNSAFE)
    outcome = place.run("pull", place.model, place.dest, store=store)
    assert outcome.code == 6
    assert "error[untrusted]: the rule for file://" in outcome.err
    assert (
        "refuses code that runs when the model is loaded: pytorch_model.bin holds a pickle, in archive/data.pkl\nhint: "
        in (outcome.err)
    )
    assert {path.name for path in place.dest.glob("*")} <= {".lading"}


def test_damaged_files_are_refused_by_name(place, store):
    place.write({"model.safetensors": SAFE["model.safetensors"][:-1], "config.json": b"{"})
    outcome = place.run("pull", place.model, place.dest, store=store)
    assert outcome.code == 6
    assert "config.json is no whole JSON: " in outcome.err
    assert (
        "model.safetensors is no whole safetensors: its tensors take 24 bytes, and 23 follow the header" in outcome.err
    )


def test_what_was_delivered_before_is_judged_by_the_rule_of_today(place, store):
    place.write(UNSAFE)
    assert place.run("pull", place.model, place.dest, store=store, formats={"code": "allow"}).code == 0
    assert place.run("verify", place.dest, formats={"code": "allow"}).code == 0
    assert place.run("pull", place.model, place.dest, store=store).code == 6
    assert place.run("pull", place.model, place.dest.with_name("other"), store=store).code == 6
    assert place.run("verify", place.dest).code == 6


def test_a_rule_that_warns_tells_and_delivers(place, store):
    place.write(UNSAFE)
    outcome = place.run("pull", place.model, place.dest, store=store, mode="warn")
    assert outcome.code == 0
    assert "warning: " in outcome.err
    assert "pytorch_model.bin holds a pickle" in outcome.err
    assert contents(place.dest) == UNSAFE


def test_scanned_pickles_pass_or_are_named(place):
    place.write(SAFE | {"harmless.pkl": files.pickled(4, [1, 2])})
    assert place.run("pull", place.model, place.dest, formats={"code": "scan"}).code == 0
    place.write({"model.pkl": files.pickled(4)})
    outcome = place.run("pull", place.model, place.dest, formats={"code": "scan"})
    assert outcome.code == 6
    assert "model.pkl holds a pickle that names posix system" in outcome.err


def test_an_archive_is_judged_by_what_is_in_it(place):
    place.write({"model.zip": files.zipped({"model.pkl": files.pickled(4)})})
    outcome = place.run("pull", place.model / "model.zip", place.dest)
    assert outcome.code == 6
    assert "model.pkl holds a pickle" in outcome.err


def test_a_long_list_is_cut(place):
    place.write({f"{number:02}.pkl": files.pickled(4) for number in range(12)})
    outcome = place.run("pull", place.model, place.dest)
    assert "09.pkl holds a pickle; and 2 more\n" in outcome.err


def test_explain_says_what_would_be_judged(place):
    place.write(SAFE)
    outcome = place.run("resolve", "--explain", place.model)
    assert ", mode enforce: formats by content (code: refuse, damaged: refuse, hub_scan: ignore)" in outcome.out
