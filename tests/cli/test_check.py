import http.server
import os
import subprocess

import pytest

from command_line import CATALOG, lading, serve, write_model


def test_a_delivery_that_will_work_is_said_to_work(tmp_path):
    outcome = lading("check", "model-registry://iris", tmp_path / "dest", "--catalog", CATALOG)
    assert (outcome.code, outcome.err) == (0, "")
    assert "is readable (file permissions)\nok: " in outcome.out
    assert os.listdir(tmp_path) == []


def test_the_answer_as_json_holds_sizes_and_the_kind_of_credential(tmp_path):
    model = write_model(tmp_path / "model")
    outcome = lading("check", model, tmp_path / "dest", "--json")
    answer = outcome.json
    assert answer["ok"] is True
    assert answer["resolved"] == str(model)
    assert answer["credential"] == "file permissions"
    assert (answer["total_files"], answer["total_bytes"], answer["needed_bytes"]) == (3, 1008, 1008)
    assert answer["free_bytes"] > 0


def test_the_refusal_as_json_is_the_error_on_standard_error(tmp_path):
    outcome = lading("check", tmp_path / "nothing", tmp_path / "dest", "--json")
    assert outcome.code == 3
    answer = outcome.json
    assert (answer["ok"], answer["code"]) == (False, "not-found")
    assert f"error[not-found]: {answer['message']}\n" in outcome.err


def test_what_the_server_forbids_is_refused(tmp_path):
    model = write_model(tmp_path / "model")
    with serve(model) as address:
        assert lading("check", f"{address}/config.json", tmp_path / "dest").code == 0
        assert lading("check", f"{address}/status/403", tmp_path / "dest").code == 4


def test_what_may_be_listed_but_not_read_is_refused(tmp_path):
    asked = []

    class Fickle(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Range"])
            if len(asked) > 1:
                self.send_error(403)
                return
            self.send_response(206)
            self.send_header("Content-Range", "bytes 0-0/8")
            self.send_header("Content-Length", "1")
            self.end_headers()
            self.wfile.write(b"{")

        def log_message(self, *_):
            pass

    with serve(tmp_path, Fickle) as address:
        outcome = lading("check", f"{address}/config.json", tmp_path / "dest")
    assert outcome.code == 4, outcome.err
    assert asked == ["bytes=0-0", "bytes=0-0"]


def test_a_model_that_does_not_fit_is_refused(tmp_path):
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with (tmp_path / "model.bin").open("wb") as file:
        file.truncate(free + (10 << 30))
    outcome = lading("check", tmp_path / "model.bin", tmp_path / "dest")
    assert outcome.code == 7
    assert outcome.err.startswith(f"error[no-space]: {tmp_path / 'dest'} needs ")


def test_a_destination_that_is_a_file_is_refused(tmp_path):
    model = write_model(tmp_path / "model")
    outcome = lading("check", model, model / "config.json")
    assert outcome.code == 2
    assert "config.json is not a folder" in outcome.err


# ---- by way of a store -------------------------------------------------------------------------

MIB = 1 << 20


@pytest.fixture
def volume(tmp_path):
    """A small volume for the store and what is delivered; a folder where nothing may be mounted."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", folder], stderr=subprocess.DEVNULL)
    yield folder
    if mounted.returncode == 0:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def environ(volume, tmp_path):
    """Of a store whose files destinations share."""
    (tmp_path / "lading.yaml").write_text(f"store: {{path: {volume / 'store'}, hard_links: true}}")
    return {"LADING_CONFIG": str(tmp_path / "lading.yaml")}


def needs(model, destination, environ):
    outcome = lading("check", model, destination, "--json", environ=environ)
    assert outcome.code == 0, outcome.err
    return outcome.json["needed_bytes"]


def test_what_is_there_already_needs_no_room(tmp_path, volume):
    model = write_model(tmp_path / "model", a=os.urandom(5 * MIB))
    assert lading("pull", model, volume / "one").code == 0
    assert needs(model, volume / "one", {}) == 0
    assert lading("resolve", model, volume / "one", "--json").json["fits"] is True


def test_what_the_store_has_is_not_needed_again(tmp_path, volume, environ):
    model = write_model(tmp_path / "model", a=bytes(3 * MIB), b=bytes(2 * MIB), c=b"1")
    assert needs(model, volume / "one", environ) == 5 * MIB + 1
    # Nothing is made for a question.
    assert os.listdir(volume) == []
    assert lading("pull", model, volume / "one", environ=environ).code == 0
    # Beside it, there is no room for another.
    assert needs(model, volume / "two", environ) == 0
    (model / "c").write_bytes(b"22")
    assert needs(model, volume / "two", environ) == 2
    assert lading("pull", model, volume / "two", environ=environ).code == 0


def test_what_nobody_keeps_in_the_store_makes_room(tmp_path, volume, environ):
    first = write_model(tmp_path / "first", a=os.urandom(5 * MIB))
    second = write_model(tmp_path / "second", a=os.urandom(5 * MIB))
    assert lading("pull", first, volume / "one", environ=environ).code == 0
    # Whoever has it shares its bytes: as long, they are not free.
    for place in ("a", ".lading.manifest"):
        (volume / "one" / place).unlink()
    assert needs(second, volume / "two", environ) == 5 * MIB
    assert lading("pull", second, volume / "two", environ=environ).code == 0


def test_a_model_that_does_not_fit_into_the_store_is_refused(tmp_path, environ, volume):
    free = os.statvfs(volume).f_bavail * os.statvfs(volume).f_frsize
    with (tmp_path / "model.bin").open("wb") as file:
        file.truncate(free + MIB)
    outcome = lading("check", tmp_path / "model.bin", tmp_path / "dest", environ=environ)
    assert outcome.code == 7
    assert outcome.err.startswith(f"error[no-space]: {volume / 'store'} needs ")
    assert lading("resolve", tmp_path / "model.bin", tmp_path / "dest", "--json", environ=environ).json["fits"] is False


def test_what_is_copied_out_of_the_store_is_needed_twice(tmp_path, volume):
    model = write_model(tmp_path / "model", a=bytes(2 * MIB))
    environ = {"LADING_STORE": str(volume / "store")}
    # Where blocks can be shared, it is not.
    assert needs(model, volume / "one", environ) in (2 * MIB, 4 * MIB)
    assert lading("pull", model, volume / "one", environ=environ).code == 0
    assert needs(model, volume / "two", environ) in (0, 2 * MIB)


@pytest.mark.parametrize(
    ("store", "why"),
    [
        ("config.json/store", "config.json is not a folder"),
        ("config.json", "config.json is not a folder"),
        (".", "is not a store: it holds config.json"),
    ],
)
def test_a_store_that_cannot_be_one_is_told(tmp_path, store, why):
    model = write_model(tmp_path / "model")
    outcome = lading("check", model, tmp_path / "dest", environ={"LADING_STORE": str(model / store)})
    assert outcome.code == 2
    assert why in outcome.err
