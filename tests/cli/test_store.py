"""``lading store``."""

import os
from pathlib import Path

import pytest

from command_line import lading, write_model
from lading.settings.store import StoreSettings
from lading.store.store import Store


@pytest.fixture
def environ(tmp_path):
    """Nothing is evicted for the disk of this machine, however full it is."""
    return {"LADING_STORE": str(tmp_path / "store"), "LADING_CONFIG_YAML": "store: {high: 100%, low: 100%}"}


@pytest.fixture
def uri(tmp_path, environ):
    """A model that the store has."""
    uri = write_model(tmp_path / "model")
    assert lading("pull", uri, tmp_path / "dest", environ=environ).code == 0
    return str(uri)


@pytest.fixture
def run(uri, environ):
    return lambda *arguments: lading("store", *arguments, environ=environ)


def test_ls_tells_each_model_its_sizes_and_its_last_use(run, uri, tmp_path):
    outcome = run("ls")
    assert outcome.code == 0, outcome.err
    head, model, total = outcome.out.splitlines()
    assert head.split("  ")[0] == "KEY"
    assert model.endswith(f"  {uri}")
    assert " 1008 B      1008 B " in model
    assert total.startswith("1 model, ")
    assert str(tmp_path / "store") in total
    [facts] = run("ls", "--json").json["models"]
    assert (facts["requested"], facts["bytes"], facts["own_bytes"], facts["kept_by"]) == (uri, 1008, 1008, [])
    assert os.path.isdir(facts["path"])


def test_path_is_where_the_store_or_a_model_is(run, uri, tmp_path):
    assert run("path").out == f"{tmp_path / 'store'}\n"
    folder = Path(run("path", uri).out.strip())
    assert (folder / "config.json").read_bytes() == b'{"a": 1}'
    assert run("path", folder.name[:8]).out == f"{folder}\n"
    assert run("path", uri, "--json").json == {"path": str(folder)}


def test_what_is_kept_is_neither_removed_nor_pruned(run, uri):
    assert run("keep", uri, "nightly").code == 0
    assert "(kept by nightly)" in run("ls").out
    outcome = run("rm", uri)
    assert outcome.code == 2
    assert "is kept by nightly" in outcome.err
    assert run("unkeep", "nigtly").code == 3
    assert run("unkeep", "nightly").code == 0
    outcome = run("rm", uri)
    assert (outcome.code, outcome.out) == (0, f"removed {uri}, 1008 B\n")
    assert run("ls", "--json").json["models"] == []


def test_prune_says_what_went(run, uri, tmp_path, environ):
    assert run("prune").out == "nothing to do\n"
    environ["LADING_CONFIG_YAML"] = "store: {high: 10B, low: 0B}"
    assert run("prune").out == f"evicted {uri}, 1008 B: used longest ago\n"
    assert run("prune", "--json").json == {"gone": [], "swept_bytes": 0}


def test_verify_names_what_has_rotted_and_puts_it_aside(run, uri, tmp_path):
    assert run("verify").out == "ok: 1 model, 1008 B\n"
    victim = Path(run("path", uri).out.strip()) / "config.json"
    victim.chmod(0o644)
    victim.write_bytes(b'{"a": 2}')
    outcome = run("verify", "--json")
    assert outcome.code == 6
    assert outcome.json["rotten"][0]["paths"] == ["config.json"]
    assert f"{uri}: config.json" in outcome.err
    assert run("verify", "--json").json == {"ok": True, "models": 0, "bytes": 0, "rotten": []}


@pytest.mark.parametrize("command", [["ls"], ["prune"], ["path"]])
def test_no_store_is_an_error_and_none_is_made(tmp_path, command):
    outcome = lading("store", *command)
    assert (outcome.code, "set LADING_STORE" in outcome.err) == (2, True)
    outcome = lading("store", *command, environ={"LADING_STORE": str(tmp_path / "nowhere")})
    assert outcome.code == 3
    assert not (tmp_path / "nowhere").exists()


def test_a_model_that_is_not_there_is_told_with_one_that_is_near(run, uri):
    outcome = run("rm", f"{uri}x")
    assert outcome.code == 3
    assert uri in outcome.err.splitlines()[1]


def test_a_name_that_is_several_models_asks_for_a_key(run, uri, tmp_path, environ):
    (tmp_path / "model/config.json").write_bytes(b'{"a": 3}')
    assert lading("pull", uri, tmp_path / "other", environ=environ).code == 0
    outcome = run("rm", uri)
    assert outcome.code == 2
    keys = [model.key[:12] for model in Store(StoreSettings(path=environ["LADING_STORE"])).models()]
    assert f"name one of them: {', '.join(keys)}" in outcome.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_what_changes_the_store_needs_to_write_there(run, tmp_path):
    (tmp_path / "store").chmod(0o555)
    assert run("ls").code == 0
    assert run("prune").code == 4
    (tmp_path / "store").chmod(0o755)
