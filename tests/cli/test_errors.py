"""Every way in which a command refuses, as its user sees it: exit code, error, hint, and nothing left behind."""

import os
import signal
import socket
import subprocess
from functools import partial

import pytest

from command_line import CATALOG, ENVIRONMENT, LADING, Slow, contents, lading, serve, sha256, write_model

COMMANDS = ("pull", "resolve", "check", "verify", "init")


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "dest"


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def assert_refused(outcome, code: int, name: str, message: str, hint: str | None) -> None:
    lines = outcome.err.splitlines()
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    errors = [line for line in lines if line.startswith("error[")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error[{name}]: ")
    assert message in errors[0]
    if hint is None:
        assert lines[-1] == errors[0]
    else:
        assert lines[-1].startswith("hint: ")
        assert hint in lines[-1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["brign"], "invalid choice: 'brign'"),
        (["pull"], "the following arguments are required: URI, DEST"),
        (["pull", "a"], "the following arguments are required: DEST"),
        (["pull", "a", "b", "c"], "unrecognized arguments: c"),
        (["pull", "a", "b", "--verify", "always"], "invalid choice: 'always'"),
        (["pull", "a", "b", "--zzz", "x"], "unrecognized arguments: --zzz"),
        (["init"], "the following arguments are required: SRC DEST"),
        (["store", "ls", "--foo"], "unrecognized arguments: --foo"),
        (["verify"], "the following arguments are required: DEST"),
    ],
)
def test_a_command_line_that_is_wrong_is_a_usage_error(argv, message):
    outcome = lading(*argv)
    command = f"{argv[0]} " if argv[:1] in (["pull"], ["init"], ["verify"], ["store"]) else ""
    assert_refused(outcome, 2, "usage", message, f"see lading {command}")
    assert outcome.err.endswith(" --help\n")
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["pul", "a", "b"], "did you mean pull?"),
        (["stor"], "did you mean store?"),
        (["store", "lst"], "did you mean ls?"),
        (["pull", "a", "b", "--verify", "strickt"], "did you mean strict?"),
        (["zzz"], "see lading --help"),
        (["help"], "did you mean --help?"),
        (["version"], "did you mean --version?"),
        (["pull", "a", "b", "--dig=x"], "did you mean --digest?"),
        (["pull", "a", "b", "--alow", "x"], "did you mean --allow?"),
        (["health", "--port", "65536"], "write a number up to 65535"),
        (["init", "a", "b", "--health-port", "-1"], "write a number up to 65535"),
    ],
)
def test_a_word_of_the_command_line_that_is_not_known_has_a_near_one(argv, hint):
    outcome = lading(*argv)
    assert_refused(outcome, 2, "usage", "", hint)
    assert outcome.err.endswith(f"hint: {hint}\n")


@pytest.mark.parametrize(
    ("argv", "environ", "message", "hint"),
    [
        (["", "dest"], {}, "the URI is empty", "for example s3://bucket/model"),
        (["model", ""], {}, "the destination is an empty string", "name a folder"),
        (["model", "model/inside"], {}, "one lies within the other", "deliver to a folder elsewhere"),
        (["model", "model/config.json/x"], {}, "one lies within the other", ""),
        (["model", "dest", "--digest", "sha256:12"], {}, "'sha256:12' is not a sha256 digest", "64 hexadecimal digits"),
        (["model", "dest", "--digest", "abc"], {}, "'abc' is not a digest", "write ALGORITHM:HEX"),
        (["model", "dest", "--digest", sha256(b"")], {}, "one digest is given for the 3 files", "a model of one file"),
        (["model-registry://iris", "dest"], {}, "needs a registry", "give --catalog FILE, set LADING_CATALOG"),
        (["model-registry://a/b/c/d", "dest", "--catalog", CATALOG], {}, "is not a registry name", "model@alias"),
        (["model", "dest"], {"LADING_VERIFY": "maybe"}, "LADING_VERIFY is 'maybe'", "auto, strict, off"),
        (["model", "dest"], {"LADING_LOG_FORMAT": "xml"}, "LADING_LOG_FORMAT is 'xml'", "text, json"),
        (["model", "dest"], {"S3_MAX_ATTEMPTS": "none"}, "S3_MAX_ATTEMPTS is 'none'", "a whole number, at least 1"),
        (["model", "dest"], {"STORAGE_ALLOW_PATTERNS": "[1"}, "STORAGE_ALLOW_PATTERNS is not valid JSON", "*.txt"),
    ],
)
def test_what_is_asked_for_wrongly_is_a_usage_error(model, tmp_path, argv, environ, message, hint):
    outcome = lading("pull", *argv, environ=environ, cwd=tmp_path)
    assert_refused(outcome, 2, "usage", message, hint)
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("command", [["resolve"], ["check", "dest"], ["lock", "-o", "lading.lock"]])
def test_a_command_that_only_asks_says_what_it_waits_for(tmp_path, command):
    place = f"http://127.0.0.1:{closed_port()}/model"
    outcome = lading(command[0], place, *command[1:], environ={"S3_MAX_ATTEMPTS": "2"}, cwd=tmp_path)
    assert_refused(outcome, 5, "unavailable", "Connection refused", "is the address right")
    assert outcome.err.startswith("trying again (2 of 2) in ")
    assert os.listdir(tmp_path) == []


NOWHERE = "nowhere.invalid"


@pytest.mark.parametrize(
    ("uri", "environ"),
    [
        (f"https://{NOWHERE}/model.bin", {}),
        (f"oci://{NOWHERE}/models/iris:v1", {}),
        (f"git+https://{NOWHERE}/models", {}),
        ("s3://bucket/model", {"AWS_ENDPOINT_URL": f"https://{NOWHERE}", "awsAnonymousCredential": "true"}),
        ("gs://bucket/model", {"API_ENDPOINT_OVERRIDE": f"https://{NOWHERE}", "NO_GCE_CHECK": "true"}),
        ("hf://owner/model", {"HF_ENDPOINT": f"https://{NOWHERE}"}),
        ("modelscope://owner/model", {"MODELSCOPE_ENDPOINT": f"https://{NOWHERE}"}),
    ],
)
def test_a_host_that_cannot_be_found_says_nothing_about_the_model(tmp_path, uri, environ):
    outcome = lading("resolve", uri, environ=environ, cwd=tmp_path)
    assert_refused(
        outcome, 3, "not-found", "", "check the URI and the endpoint, and whether names can be looked up here"
    )
    assert outcome.err.splitlines()[0].endswith(f": there is no host called {NOWHERE}")


LONG = "n" * 300


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["pull", "model", LONG], "File name too long"),
        (["check", "model", LONG], "File name too long"),
        (["pull", LONG, "dest"], "File name too long"),
        (["verify", LONG], "File name too long"),
        (["pull", "model-registry://iris", "dest", "--catalog", LONG], "File name too long"),
        (["lock", "model", "-o", LONG], "File name too long"),
        (["pull", "model", "dest", "--locked", LONG], "File name too long"),
        (["lock", "model", "-o", "model"], "model: Is a directory"),
        (["pull", "model", "dest", "--locked", "model"], "model: Is a directory"),
        (["pull", "model", "circle"], "Too many levels of symbolic links"),
    ],
)
def test_a_name_that_the_file_system_refuses_is_a_usage_error(model, tmp_path, argv, message):
    (tmp_path / "circle").symlink_to("circle")
    outcome = lading(*argv, cwd=tmp_path)
    assert outcome.code == 2, outcome.err
    assert message in outcome.err
    assert sorted(os.listdir(tmp_path)) == ["circle", "model"]


@pytest.mark.parametrize(
    ("uri", "message", "hint"),
    [
        ("modle", "there is no file or folder modle", "did you mean model?"),
        ("s3:bucket/model", "there is no file or folder s3:bucket/model", "did you mean s3://bucket/model?"),
        ("HTTPS:u:pw@h/m?sig=x", "there is no file or folder ", "did you mean https://***@h/m?sig=***?"),
        ("model-registry:iris", "there is no file or folder model", "did you mean model-registry://iris?"),
        ("models:iris/2", "there is no file or folder models:iris/2", "did you mean models:/iris/2?"),
        ("model:v2", "there is no file or folder model:v2", "did you mean model?"),
        ("model-registry://irs", "registry catalog has no model 'irs'", "did you mean iris?"),
        ("model-registry://iris/v3", "model 'iris' has no version 'v3'", "there is v0, v1, v2"),
        ("model-registry://iris@champ", "model 'iris' has no alias 'champ'", "did you mean champion"),
        ("model-registry://iris/v0", "version 'v0' of 'iris' is archived", "the newest live one is"),
    ],
)
def test_what_is_not_there_is_not_found_and_what_is_near_is_named(model, tmp_path, uri, message, hint):
    outcome = lading("pull", uri, "dest", "--catalog", CATALOG, cwd=tmp_path)
    assert_refused(outcome, 3, "not-found", message, hint)
    assert os.listdir(tmp_path) == ["model"]


def test_a_catalog_that_is_not_there_is_not_found(dest):
    outcome = lading("pull", "model-registry://iris", dest, "--catalog", "/nowhere/catalog.yaml")
    assert_refused(outcome, 3, "not-found", "there is no file /nowhere/catalog.yaml", None)


def test_patterns_that_leave_nothing_are_not_found(model, dest):
    outcome = lading("pull", model, dest, "--allow", "*.onnx")
    assert_refused(outcome, 3, "not-found", "is selected, of 3", "the patterns leave out, for example, config.json")
    assert not dest.exists()


@pytest.mark.parametrize(
    ("status", "code", "name"),
    [(401, 4, "not-allowed"), (403, 4, "not-allowed"), (404, 3, "not-found"), (503, 5, "unavailable")],
)
def test_what_a_server_answers_decides_the_exit_code(tmp_path, dest, status, code, name):
    with serve(tmp_path) as address:
        outcome = lading("pull", f"{address}/status/{status}/model.bin", dest)
    assert outcome.code == code
    assert f"error[{name}]: {address}/status/{status}/model.bin" in outcome.err
    assert not dest.exists()


def test_a_server_that_is_down_is_unavailable(dest):
    outcome = lading("pull", f"http://127.0.0.1:{closed_port()}/model.bin", dest)
    assert_refused(outcome, 5, "unavailable", "Connection refused", "is the address right")
    assert not dest.exists()


def test_a_digest_that_does_not_match_is_an_integrity_error(tmp_path, dest):
    write_model(tmp_path, **{"model.bin": b"abc"})
    outcome = lading("pull", tmp_path / "model.bin", dest, "--digest", sha256(b"abd"))
    message = f"model.bin has {sha256(b'abc')}, but {sha256(b'abd')} is expected"
    assert_refused(outcome, 6, "integrity", message, "nothing was delivered")
    assert contents(dest) == {}
    assert not (dest / ".lading.manifest").exists()


def test_a_refused_delivery_leaves_the_one_before_untouched(tmp_path, dest):
    lading("pull", write_model(tmp_path / "old"), dest)
    before = (dest / ".lading.manifest").read_bytes()
    write_model(tmp_path, **{"model.bin": b"abc"})
    assert lading("pull", tmp_path / "model.bin", dest, "--digest", sha256(b"abd")).code == 6
    assert (dest / ".lading.manifest").read_bytes() == before
    assert contents(dest) == contents(tmp_path / "old")
    assert lading("verify", dest).code == 0


def test_a_model_larger_than_the_disk_is_refused_before_the_first_byte(tmp_path, dest):
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with (tmp_path / "model.bin").open("wb") as file:
        file.truncate(free + (10 << 30))
    outcome = lading("pull", tmp_path / "model.bin", dest)
    assert_refused(outcome, 7, "no-space", "more and has", "free some space")
    assert not dest.exists()


def test_a_scheme_that_nobody_reads_is_unsupported(dest):
    outcome = lading("pull", "ftp://127.0.0.1/model", dest)
    assert_refused(outcome, 8, "unsupported", "lading does not read ftp://", "known are local paths, file://")
    assert "oci://, oci+fetch://" in outcome.err
    assert outcome.err.endswith(" model-registry://, mlflow:// and models:/\n")
    assert "oci+native" not in outcome.err


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("gss://bucket/model", "did you mean gs?"),
        ("modelregistry://iris", "did you mean model-registry or "),
        ("pvc://claim/model", "KServe mounts it"),
        ("dbfs:/models/llm", "copy the model to an object store"),
    ],
)
def test_a_scheme_that_is_nearly_known_is_named(dest, uri, hint):
    assert_refused(
        lading("pull", uri, dest), 8, "unsupported", f"lading does not read {uri.partition(':')[0]}://", hint
    )


def test_strict_verification_refuses_what_nobody_vouches_for(model, dest):
    outcome = lading("pull", model, dest, "--verify", "strict")
    assert_refused(outcome, 8, "unsupported", "cannot be verified", "--digest or in the catalog")
    assert not dest.exists()


def test_an_error_is_one_json_object_where_logs_are_json(dest):
    outcome = lading("pull", "nothing", dest, "--log-format", "json")
    assert outcome.code == 3
    (line,) = outcome.logs
    assert (line["level"], line["code"]) == ("error", "not-found")
    assert line["message"] == "there is no file or folder nothing"
    assert line.keys() == {"time", "level", "code", "message", "hint"}


@pytest.mark.parametrize(
    ("path", "argv", "code"),
    [
        ("config.json", ["resolve", "URI"], 0),
        ("config.json", ["check", "URI", "dest"], 0),
        ("config.json", ["init", "URI", "dest"], 0),
        ("status/404", ["pull", "URI", "dest"], 3),
        ("config.json", ["pull", "a", "b", "URI"], 2),
        ("config.json", ["pull", "a", "b", "--from=URI"], 2),
        ("config.json", ["URI"], 2),
    ],
)
def test_a_password_in_a_uri_is_never_printed(model, tmp_path, path, argv, code):
    with serve(model) as address:
        host = address.removeprefix("http://")
        uri = f"http://user:hunter2@{host}/{path}?token=hunter3"
        outcome = lading(*(word.replace("URI", uri) for word in argv), "--json", cwd=tmp_path)
    assert outcome.code == code, outcome.err
    assert f"http://***@{host}/{path}?token=***" in outcome.err + outcome.out
    assert "hunter" not in outcome.err + outcome.out


@pytest.mark.parametrize("command", ["pull", "resolve", "check", "init"])
def test_control_characters_in_a_uri_are_escaped(tmp_path, dest, command):
    outcome = lading(command, "mo\x1b[31mdel\x9b", dest)
    assert outcome.code == 2
    assert "the URI mo\\x1b[31mdel\\x9b holds a control character" in outcome.err
    assert "\x1b" not in outcome.err


def test_control_characters_in_file_names_are_escaped(tmp_path, dest):
    name = "a\x1b[2J\x9b\u202e\n.bin"
    shown = "a\\x1b[2J\\x9b\\u202e\\x0a.bin"
    model = write_model(tmp_path / "model", **{name: b"1"})
    pulled = lading("pull", model, dest)
    assert pulled.code == 0, pulled.err
    assert f"declares no digest: {shown}\n" in pulled.err
    assert f"  {shown}" in lading("resolve", model).out
    os.unlink(dest / name)
    assert f"missing {shown}\n" in lading("verify", dest).err
    assert lading("verify", dest, "--json").json["missing"] == [name]


def test_a_name_that_is_not_text_is_shown_and_not_a_crash(tmp_path, dest):
    lading("pull", write_model(tmp_path / "model"), dest)
    (dest / os.fsdecode(b"caf\xe9")).touch()
    outcome = lading("verify", dest, "--json")
    assert outcome.code == 6
    assert outcome.out.count("caf\\udce9") == 1
    assert "extra caf\\udce9" in outcome.err


def test_names_survive_an_output_that_is_not_unicode(tmp_path):
    model = write_model(tmp_path / "model", **{"größe.bin": b"1"})
    outcome = lading("resolve", model, environ={"PYTHONIOENCODING": "ascii"})
    assert outcome.code == 0, outcome.err
    assert "gr\\xf6\\xdfe.bin" in outcome.out


def test_a_reader_that_leaves_early_does_not_fail_the_delivery(model, dest):
    reading, writing = os.pipe()
    os.close(reading)
    argv = [*LADING, "pull", str(model), str(dest), "--json"]
    done = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=60, check=False)
    os.close(writing)
    assert done.returncode == 0
    assert done.stderr.decode().splitlines()[-1].startswith("delivered 3 files")
    assert contents(dest) == contents(model)


def test_a_log_that_nobody_reads_does_not_stop_the_delivery(model, dest):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*LADING, "pull", str(model), str(dest)], stderr=writing, env=ENVIRONMENT, timeout=60, check=False
    )
    os.close(writing)
    assert done.returncode == 0
    assert contents(dest) == contents(model)


def test_help_may_be_read_by_half():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*LADING, "--help"], stdout=writing, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=60, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_are_closed_from_the_start_do_not_stop_the_delivery(model, dest, closed):
    script = f'exec "$@" {closed}'
    argv = ["sh", "-c", script, "sh", *LADING, "pull", str(model), str(dest), "--json"]
    done = subprocess.run(argv, capture_output=True, env=ENVIRONMENT, timeout=60, check=False)
    assert (done.returncode, contents(dest)) == (0, contents(model))
    assert "delivered" not in done.stdout.decode()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_answer_that_cannot_be_written_is_an_error(model):
    with open("/dev/full", "wb") as full:
        argv = [*LADING, "resolve", str(model)]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode == 7
    assert done.stderr.decode().startswith("error[no-space]: standard output: ")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 143, "stopped by a signal"), (signal.SIGINT, 130, "stopped from the keyboard")],
)
def test_a_signal_ends_a_delivery_and_nothing_is_promised_that_does_not_hold(tmp_path, dest, number, code, said):
    slow = Slow()
    with serve(tmp_path, slow.handler()) as address:
        process = subprocess.Popen(
            [*LADING, "pull", f"{address}/model.bin", dest],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            # Tests that a shell started in the background have SIGINT ignored, and so has what they start.
            preexec_fn=partial(signal.signal, number, signal.SIG_DFL),
        )
        assert slow.begun.wait(30)
        process.send_signal(number)
        _, err = process.communicate(timeout=5)
        slow.go_on.set()
    assert process.returncode == code
    # This origin has no ranges.
    hint = "run it again: it starts from the beginning, since nothing that was received can be used again"
    assert err.decode().endswith(f"error[interrupted]: {said}\nhint: {hint}\n")
    assert contents(dest) == {}
