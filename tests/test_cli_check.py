import http.server
import os

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
