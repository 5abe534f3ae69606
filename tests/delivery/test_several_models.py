"""Several models in one pod, as KServe's ``storageUris`` and LoRA adapters have them: one volume, one run, all or none."""

import os
import subprocess

import pytest

from command_line import contents, lading, write_model
from fakes.faulty_http import ALWAYS, wrong_byte
from fakes.trees import content

BASE = {"config.json": b"{}", "weights.bin": content(200_000)}
LAW = {"adapter.bin": content(1000, seed=1)}
MEDICINE = {"adapter.bin": content(1000, seed=2)}


@pytest.fixture
def environ(bucket):
    for prefix, files in (("llm", BASE), ("law", LAW), ("medicine", MEDICINE)):
        for path, data in files.items():
            bucket.put(f"{prefix}/{path}", data)
    return {"AWS_ENDPOINT_URL": bucket.server.url, "awsAnonymousCredential": "true"}


@pytest.fixture
def mnt(tmp_path):
    """The volume at the common parent of all paths, as KServe mounts it; a folder where nothing may be mounted."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", folder], stderr=subprocess.DEVNULL)
    yield folder
    if mounted.returncode == 0:
        subprocess.run(["umount", "--lazy", folder], check=True)


def pairs(mnt, **more):
    """A base model and two adapters, where LLMInferenceService puts them."""
    places = {"llm": mnt / "models", "law": mnt / "lora/law", "medicine": mnt / "lora/medicine", **more}
    return [argument for name, place in places.items() for argument in (f"s3://models/{name}", place)]


def test_a_base_model_and_its_adapters(environ, mnt):
    outcome = lading("init", *pairs(mnt), environ=environ)
    assert outcome.code == 0, outcome.err
    assert [contents(mnt / place) for place in ("models", "lora/law", "lora/medicine")] == [BASE, LAW, MEDICINE]
    assert sorted(os.listdir(mnt)) == ["lora", "models"]
    assert sorted(os.listdir(mnt / "lora")) == ["law", "medicine"]


def test_a_restarted_container_finds_all_of_them(environ, mnt, server):
    assert lading("init", *pairs(mnt), environ=environ).code == 0
    before = len(server.requests)
    outcome = lading("init", *pairs(mnt), environ=environ)
    assert outcome.code == 0
    assert outcome.err.count("already holds the model") == 3
    # A listing for each.
    assert len(server.requests) - before == 3


def test_a_model_within_the_folder_of_another(environ, mnt):
    places = ["s3://models/llm", mnt / "models", "s3://models/law", mnt / "models/adapters/law"]
    for _ in range(2):
        outcome = lading("init", *places, environ=environ)
        assert outcome.code == 0, outcome.err
        law = contents(mnt / "models/adapters/law")
        assert law == LAW
        found = {path: data for path, data in contents(mnt / "models").items() if not path.startswith("adapters/")}
        assert found == BASE


@pytest.mark.parametrize("order", [("none", "nothing"), ("nothing", "none")])
def test_of_several_that_are_absent_the_first_is_told_and_nothing_fetched(environ, mnt, server, order):
    places = {name: mnt / name for name in order}
    for _ in range(3):
        outcome = lading("init", *pairs(mnt, **places), environ=environ)
        assert outcome.code == 3
        assert outcome.err.splitlines()[-2 if "hint" in outcome.err else -1].startswith(
            f"error[not-found]: s3://models/{order[0]} "
        )
    assert {request.path for request in server.requests} == {"/models/"}
    assert [path for path in mnt.rglob("*") if path.is_file()] == []


def test_when_one_is_damaged_none_appears_and_the_others_are_not_fetched_again(environ, mnt, bucket, server):
    server.misbehave(bucket.path("law/adapter.bin"), wrong_byte(10, times=ALWAYS))
    outcome = lading("init", *pairs(mnt), environ=environ)
    assert outcome.code == 6
    assert "error[integrity]: s3://models/law: adapter.bin" in outcome.err
    for place in ("models", "lora/law", "lora/medicine"):
        assert contents(mnt / place) == {}
        assert not (mnt / place / ".lading.manifest").exists()
    server.behave()
    assert lading("init", *pairs(mnt), environ=environ).code == 0
    assert contents(mnt / "lora/law") == LAW
    assert contents(mnt / "models") == BASE


def test_models_that_fit_each_but_not_together_are_refused_before_a_read(environ, mnt, bucket, server):
    if not os.path.ismount(mnt):
        pytest.skip("nothing may be mounted here")
    for name in ("one", "two"):
        bucket.put(f"{name}/large.bin", content(5_000_000))
    outcome = lading("init", *pairs(mnt, one=mnt / "one", two=mnt / "two"), environ=environ)
    assert outcome.code == 7
    assert {request.path for request in server.requests} == {"/models/"}
    assert [path for path in mnt.rglob("*") if path.is_file()] == []


def test_it_is_said_of_which_model_nobody_vouches_for_the_files(tmp_path):
    places = [tmp_path / "a", tmp_path / "one", tmp_path / "b", tmp_path / "two"]
    for folder in places[::2]:
        write_model(folder, x=b"1", y=b"2")
    told = [line for line in lading("init", *places).err.splitlines() if "not verified" in line]
    assert told == [
        f"{folder}: not verified, since the origin declares no digest: x and 1 more" for folder in places[::2]
    ]
    (tmp_path / "a/x").write_bytes(b"new")
    assert "\nnot verified, since" in lading("pull", *places[:2]).err
