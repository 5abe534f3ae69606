import pytest

from command_line import lading, write_model


@pytest.fixture
def dest(tmp_path):
    write_model(tmp_path / "model")
    assert lading("pull", tmp_path / "model", tmp_path / "dest").code == 0
    return tmp_path / "dest"


def test_a_folder_that_is_as_delivered_is_ok(dest):
    outcome = lading("verify", dest)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"ok: 3 files, 1008 B, as delivered from {dest.parent / 'model'}\n    sha256:")


def test_the_result_as_json_is_clean(dest):
    result = lading("verify", dest, "--json").json
    assert result["ok"] is True
    assert result["missing"] == result["extra"] == result["changed"] == []
    assert (result["total_files"], result["total_bytes"]) == (3, 1008)
    assert result["digest"].startswith("sha256:")


def damage(dest):
    (dest / "config.json").write_bytes(b'{"a": 2}')
    (dest / "weights/part-1.bin").unlink()
    (dest / "weights/stray").touch()


def test_every_file_that_is_wrong_is_named(dest):
    damage(dest)
    outcome = lading("verify", dest)
    assert outcome.code == 6
    assert outcome.out == ""
    assert outcome.err == (
        f"error[integrity]: {dest} is not as delivered: missing weights/part-1.bin; extra weights/stray; changed config.json\n"
        "hint: pull again; --remove-strays removes the extra files\n"
    )


def test_what_is_wrong_is_in_the_json_too(dest):
    damage(dest)
    outcome = lading("verify", dest, "--json")
    assert outcome.code == 6
    assert outcome.json["ok"] is False
    assert outcome.json["missing"] == ["weights/part-1.bin"]
    assert outcome.json["extra"] == ["weights/stray"]
    assert outcome.json["changed"] == ["config.json"]


def test_following_the_hint_repairs_the_folder(dest):
    damage(dest)
    assert lading("pull", dest.parent / "model", dest, "--remove-strays").code == 0
    assert lading("verify", dest).code == 0


def test_what_is_extra_stays_and_is_told_of_at_each_pull(dest):
    (dest / "mine").touch()
    (dest / "weights/mine").touch()
    warning = (
        f"warning: {dest} also holds files that lading did not deliver: mine and 1 more "
        "(--remove-strays removes everything that is not part of the model)\n"
    )
    assert lading("pull", dest.parent / "model", dest).err.endswith(
        f"already holds the model; nothing to do\n{warning}"
    )
    (dest / "config.json").unlink()
    outcome = lading("pull", dest.parent / "model", dest)
    assert outcome.err.endswith(warning)
    assert "delivered 3 files" in outcome.err
    assert lading("verify", dest).code == 6


def test_another_delivery_within_the_folder_is_not_extra(dest):
    model = dest.parent / "model"
    outcome = lading("init", model, dest, model / "weights", dest / "weights/more")
    assert outcome.code == 0
    assert "warning" not in outcome.err
    assert [lading("verify", place).code for place in (dest, dest / "weights/more")] == [0, 0]
    (dest / "weights/more/mine").touch()
    assert [lading("verify", place).code for place in (dest, dest / "weights/more")] == [0, 6]


def test_a_folder_that_lading_did_not_deliver_is_not_found(tmp_path):
    outcome = lading("verify", tmp_path)
    assert outcome.code == 3
    assert outcome.err.startswith(f"error[not-found]: {tmp_path} has no .lading.manifest\nhint: ")


@pytest.mark.parametrize("name", ["nowhere", "model/config.json"])
def test_what_is_no_folder_is_not_found(dest, name):
    place = dest.parent / name
    outcome = lading("verify", place)
    assert outcome.code == 3
    assert (
        outcome.err == f"error[not-found]: there is no folder {place}\nhint: name the folder that lading delivered to\n"
    )


def test_the_environment_chooses_the_format_of_its_errors(dest):
    damage(dest)
    outcome = lading("verify", dest, environ={"LADING_LOG_FORMAT": "json"})
    assert [line["code"] for line in outcome.logs] == ["integrity"]


def test_a_manifest_that_was_edited_is_refused(dest):
    manifest = dest / ".lading.manifest"
    manifest.write_text(manifest.read_text().replace('"size": 8', '"size": 9'))
    outcome = lading("verify", dest)
    assert outcome.code == 6
    assert ".lading.manifest does not match its own digest" in outcome.err
