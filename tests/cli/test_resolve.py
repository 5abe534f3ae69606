import os

from command_line import CATALOG, EXAMPLES, lading, sha256, write_model

CHAMPION = "model-registry://iris@champion"


def test_a_name_is_resolved_to_its_pin_with_digests():
    outcome = lading("resolve", CHAMPION, "--catalog", CATALOG, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    told = outcome.json
    assert told["requested"] == CHAMPION
    assert told["resolved"] == str(EXAMPLES / "iris/v1")
    assert (told["registry"], told["version"]) == ("catalog", "v1")
    assert told["credential"] == "file permissions"
    assert told["metadata"]["format"] == "onnx"
    model = (EXAMPLES / "iris/v1/model.onnx").read_bytes()
    file = next(file for file in told["files"] if file["path"] == "model.onnx")
    assert (file["size"], file["digests"]) == (len(model), [sha256(model)])
    assert told["total_files"] == len(told["files"]) == 5
    assert told["total_bytes"] == told["needed_bytes"] == sum(file["size"] for file in told["files"])
    assert told["fits"] is True
    assert told["free_bytes"] > told["needed_bytes"]


def test_a_name_without_version_is_the_newest_live_version():
    assert lading("resolve", "model-registry://iris", "--catalog", CATALOG, "--json").json["version"] == "v2"


def test_people_see_facts_and_short_digests():
    outcome = lading("resolve", CHAMPION, "--catalog", CATALOG)
    digest = sha256((EXAMPLES / "iris/v1/labels.txt").read_bytes())
    lines = outcome.out.splitlines()
    assert f"requested   {CHAMPION}" in lines
    assert "version     v1" in lines
    assert "metadata    accuracy: 0.96" in lines
    assert f"        28 B  labels.txt                 {digest[:19]}…" in lines
    assert all(line == line.rstrip() for line in lines)


def test_a_long_listing_is_cut_for_people_and_whole_in_json(tmp_path):
    write_model(tmp_path, **{f"part-{number:02}": b"x" for number in range(25)})
    assert lading("resolve", tmp_path).out.splitlines()[-1] == "and 5 more (--json shows all)"
    assert len(lading("resolve", tmp_path, "--json").json["files"]) == 25


def test_what_does_not_fit_is_said_and_is_not_an_error(tmp_path):
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with (tmp_path / "model.bin").open("wb") as file:
        file.truncate(free + (10 << 30))
    outcome = lading("resolve", tmp_path / "model.bin", tmp_path, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["fits"] is False
    text = lading("resolve", tmp_path / "model.bin", tmp_path).out
    assert "fits        no: " in text


def test_nothing_is_written(tmp_path):
    write_model(tmp_path / "model")
    assert lading("resolve", tmp_path / "model", tmp_path / "dest").code == 0
    assert os.listdir(tmp_path) == ["model"]
