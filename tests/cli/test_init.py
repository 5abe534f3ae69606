import json
import signal
import subprocess

import pytest

from command_line import CATALOG, ENVIRONMENT, LADING, Slow, contents, lading, serve, sha256, write_model


@pytest.fixture
def models(tmp_path):
    return [
        write_model(tmp_path / "models/one"),
        write_model(tmp_path / "models/two", **{"other.bin": b"12345"}),
    ]


@pytest.fixture
def log(tmp_path):
    """A termination log as the kubelet makes it: there, and holding what the container wrote before."""
    path = tmp_path / "termination-log"
    path.write_text("the last word of an earlier attempt, which was longer than what comes now" * 10)
    return path


def test_several_pairs_are_delivered(models, tmp_path):
    outcome = lading("init", models[0], tmp_path / "a", models[1], tmp_path / "b", "--json")
    assert outcome.code == 0, outcome.err
    assert contents(tmp_path / "a") == contents(models[0])
    assert contents(tmp_path / "b") == contents(models[1])
    assert [manifest["resolved"] for manifest in outcome.json] == [str(model) for model in models]


@pytest.mark.parametrize("prefix", ["store+", "token+"])
def test_a_prefix_that_only_chose_the_container_is_no_part_of_the_uri(models, tmp_path, prefix):
    outcome = lading("init", f"{prefix}file://{models[0]}", tmp_path / "a", "--json")
    assert outcome.code == 0, outcome.err
    assert contents(tmp_path / "a") == contents(models[0])
    assert [manifest["resolved"] for manifest in outcome.json] == [f"file://{models[0]}"]


def test_any_other_prefix_is_part_of_the_scheme(models, tmp_path):
    for prefix in ("shop+", "store+token+", "Store+"):
        outcome = lading("init", f"{prefix}file://{models[0]}", tmp_path / "a")
        assert outcome.code == 8, outcome.err


def test_folders_that_are_missing_on_the_way_are_made(models, tmp_path):
    assert lading("init", models[0], tmp_path / "mnt/models/deep").code == 0
    assert contents(tmp_path / "mnt/models/deep") == contents(models[0])


def test_when_one_of_several_fails_none_appears(models, tmp_path):
    outcome = lading("init", models[0], tmp_path / "a", tmp_path / "nothing", tmp_path / "b")
    assert outcome.code == 3
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_when_one_of_several_fails_while_it_lands_none_appears(models, tmp_path):
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(
        "models: {wrong: {versions: {v1: {uri: models/two, digests: {other.bin: 'sha256:" + "0" * 64 + "'}}}}}"
    )
    outcome = lading("init", models[0], tmp_path / "a", "model-registry://wrong", tmp_path / "b", "--catalog", catalog)
    assert outcome.code == 6
    assert not (tmp_path / "a/config.json").exists()
    assert not (tmp_path / "a/.lading.manifest").exists()
    assert not (tmp_path / "b/other.bin").exists()


def test_two_pairs_with_one_destination_are_refused(models, tmp_path):
    outcome = lading("init", models[0], tmp_path / "a", models[1], tmp_path / "a/../a")
    assert outcome.code == 2
    assert "two models are to be delivered to" in outcome.err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("count", "said"), [(1, "1 argument was given"), (3, "3 arguments were given")])
def test_an_odd_number_of_arguments_is_refused(models, tmp_path, log, count, said):
    pairs = [models[0], tmp_path / "a", models[1]][:count]
    outcome = lading("init", *pairs, environ={"LADING_TERMINATION_LOG": str(log)})
    assert outcome.code == 2
    assert outcome.err == (f"error[usage]: init takes pairs, and {said}\nhint: lading init SRC DEST [SRC DEST …]\n")
    assert log.read_text().startswith("error[usage]: init takes pairs")
    assert not (tmp_path / "a").exists()


def test_one_digest_for_several_models_is_refused(models, tmp_path):
    digest = f"sha256:{'0' * 64}"
    outcome = lading("init", models[0], tmp_path / "a", models[1], tmp_path / "b", "--digest", digest)
    assert outcome.code == 2
    assert "one digest is given for 2 models" in outcome.err


def test_the_digest_that_kserve_names_must_hold(tmp_path):
    place = tmp_path / "model.bin"
    place.write_bytes(b"model")

    def init(digest: str, *options: str):
        return lading("init", place, tmp_path / "dest", *options, environ={"VERIFICATION_DIGEST": digest})

    refused = init(f"sha256:{'0' * 64}")
    assert (refused.code, refused.err.count("is expected")) == (6, 2)
    assert not (tmp_path / "dest/model.bin").exists()
    assert init(f"sha256:{'0' * 64}", "--digest", sha256(b"model")).code == 0
    assert init(sha256(b"model")).code == 0
    wrong = init("0123")
    assert wrong.code == 2
    assert wrong.err.startswith("error[usage]: VERIFICATION_DIGEST: '0123' is not a digest\n")


def test_one_digest_of_kserves_for_several_models_is_refused(models, tmp_path):
    environ = {"VERIFICATION_DIGEST": f"sha256:{'0' * 64}"}
    outcome = lading("init", models[0], tmp_path / "a", models[1], tmp_path / "b", environ=environ)
    assert outcome.code == 2
    assert "VERIFICATION_DIGEST: one digest is given for 2 models" in outcome.err


def test_success_leaves_json_in_the_termination_log(tmp_path, log):
    outcome = lading(
        "init",
        "model-registry://iris@champion",
        tmp_path / "a",
        "--catalog",
        CATALOG,
        "--json",
        environ={"LADING_TERMINATION_LOG": str(log)},
    )
    assert outcome.code == 0, outcome.err
    facts = json.loads(log.read_text())
    (manifest,) = outcome.json
    assert facts == {
        "uri": manifest["resolved"],
        "registry": "catalog",
        "version": "v1",
        "files": 5,
        "bytes": manifest["total_bytes"],
        "seconds": manifest["seconds"],
        "digest": manifest["digest"],
    }


def test_the_seconds_are_those_of_this_run_also_where_the_model_was_in_place(models, tmp_path, log):
    environ = {"LADING_TERMINATION_LOG": str(log)}
    lading("init", models[0], tmp_path / "a", environ=environ)
    manifest = tmp_path / "a/.lading.manifest"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**told, "seconds": 9999.0}))
    lading("init", models[0], tmp_path / "a", environ=environ)
    assert json.loads(manifest.read_text())["seconds"] == 9999.0, "it was delivered again"
    assert 0 < json.loads(log.read_text())["seconds"] < 9999.0


def test_success_of_several_leaves_them_all_in_their_order(models, tmp_path, log):
    lading("init", models[1], tmp_path / "b", models[0], tmp_path / "a", environ={"LADING_TERMINATION_LOG": str(log)})
    facts = json.loads(log.read_text())
    assert [(fact["files"], fact["bytes"]) for fact in facts] == [(1, 5), (3, 1008)]


def test_so_many_models_that_the_log_cannot_hold_them_still_leave_json(tmp_path, log):
    model = write_model(tmp_path / ("m" * 200), a=b"1")
    pairs = [place for number in range(20) for place in (model, tmp_path / f"dest-{number}")]
    assert lading("init", *pairs, environ={"LADING_TERMINATION_LOG": str(log)}).code == 0
    facts = json.loads(log.read_text())
    assert (facts["models"], facts["files"], facts["bytes"]) == (20, 20, 20)


def test_failure_leaves_one_line_with_its_hint_in_the_termination_log(models, tmp_path, log):
    outcome = lading("init", tmp_path / "models/won", tmp_path / "a", environ={"LADING_TERMINATION_LOG": str(log)})
    assert outcome.code == 3
    assert log.read_text() == (
        f"error[not-found]: there is no file or folder {tmp_path}/models/won (did you mean two or one?)"
    )


def test_settings_that_are_wrong_are_told_in_the_termination_log_without_the_secret(models, tmp_path, log):
    environ = {"LADING_TERMINATION_LOG": str(log), "STORAGE_CONFIG": '{"secret_access_key": "hunter2"'}
    outcome = lading("init", models[0], tmp_path / "a", environ=environ)
    assert outcome.code == 2
    assert log.read_text().startswith("error[usage]: STORAGE_CONFIG is not a JSON object")
    assert "hunter2" not in log.read_text() + outcome.err


def test_a_long_failure_is_cut_to_what_the_kubelet_keeps(tmp_path, log):
    outcome = lading("init", "x" * 6000, tmp_path / "a", environ={"LADING_TERMINATION_LOG": str(log)})
    assert outcome.code != 0
    assert len(log.read_bytes()) == 4096


def test_a_long_failure_is_not_cut_within_a_character(tmp_path, log):
    """Two bytes each: whatever stands before them, one of the two runs would end in the middle of one."""
    for name in ("ö" * 3000, "x" + "ö" * 3000):
        lading("init", name, tmp_path / "a", environ={"LADING_TERMINATION_LOG": str(log)})
        assert 4095 <= len(log.read_bytes()) <= 4096
        assert log.read_text(encoding="utf-8").endswith("ö")


def test_a_termination_log_that_is_not_there_is_not_made(models, tmp_path):
    environ = {"LADING_TERMINATION_LOG": str(tmp_path / "log")}
    assert lading("init", models[0], tmp_path / "a", environ=environ).code == 0
    assert lading("init", "nothing", tmp_path / "b", environ=environ).code == 3
    assert not (tmp_path / "log").exists()


def test_a_signal_ends_it_and_is_told_in_the_termination_log(tmp_path, log):
    slow = Slow()
    with serve(tmp_path, slow.handler()) as address:
        process = subprocess.Popen(
            [*LADING, "init", f"{address}/model.bin", tmp_path / "a"],
            env={**ENVIRONMENT, "LADING_TERMINATION_LOG": str(log)},
            stderr=subprocess.PIPE,
        )
        assert slow.begun.wait(30)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=5)
        slow.go_on.set()
    assert process.returncode == 143
    # This origin has no ranges: nothing is promised that does not hold.
    hint = "run it again: it starts from the beginning, since nothing that was received can be used again"
    assert err.decode().endswith(f"error[interrupted]: stopped by a signal\nhint: {hint}\n")
    assert log.read_text() == f"error[interrupted]: stopped by a signal ({hint})"
    assert contents(tmp_path / "a") == {}
