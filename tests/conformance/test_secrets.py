"""No secret is ever printed or written down: every way to fail is driven with marked secrets.

``test_unencrypted`` asks whether one is sent where others could read it.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from command_line import QuietServer
from conformance.scene import Scene, scenes
from fakes.faulty_http import ALWAYS, ANYWHERE, Answer, Fault, cut
from lading.cli.main import main

SCENES = scenes("FAULTS")
# The mark is in every secret there is; it must be nowhere in what comes out.
MARK = "s3cret"
BODY = b"model" * 1000

# A service that says the secrets back, and a principal whose secret it must not see.
AZURE = "http://127.0.0.1:{port}/bucket"
INSECURE = {"KSERVE_OCI_INSECURE_REGISTRY": "true"}
AZURE_PRINCIPAL = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s3cret"} | {
    "AZURE_AUTHORITY_HOST": "https://user:s3cret@127.0.0.1:{port}"
}


class Origin(BaseHTTPRequestHandler):
    """An origin that fails in many ways, and says the secrets back where it can."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        say = {
            "/redirect": (302, {"Location": f"ftp://user:{MARK}@h/?token={MARK}"}),
            "/loop": (302, {"Location": f"/loop?token={MARK}"}),
            "/denied": (403, {}),
            "/missing": (404, {}),
            "/expired": (401, {"WWW-Authenticate": MARK}),
            "/busy": (503, {"Retry-After": "0"}),
            "/odd": (418, {}),
        }.get(path)
        if say is None and path.startswith("/bucket"):
            text = f"<Error><Code>AccessDenied</Code><Message>{MARK}</Message><Resource>{MARK}</Resource></Error>"
            self.answer(403, {}, text.encode())
        elif say is not None:
            self.answer(*say, MARK.encode())
        elif path == "/short.bin":
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY) + 10))
            self.end_headers()
            self.wfile.write(BODY)
            self.close_connection = True
        elif path == "/garbage":
            self.wfile.write(f"{MARK} {MARK}\r\n{MARK}\r\n\r\n".encode())
            self.close_connection = True
        else:
            self.answer(200, {"ETag": '"1"'}, BODY)

    do_PUT = do_POST = do_HEAD = do_GET  # noqa: N815 - the names that http.server looks for

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = QuietServer(("127.0.0.1", 0), Origin)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def everything(folder: Path) -> str:
    """The content and the name of every file below this folder."""
    found = []
    for below, folders, names in os.walk(folder):
        found += folders
        for name in names:
            found += [name, (Path(below) / name).read_bytes().decode("latin-1")]
    return "\n".join(found)


def environment_of(folder: Path, env: dict[str, str]) -> dict[str, str]:
    """An environment full of secrets, with a termination log in ``folder``, and ``env``."""
    log = folder / "termination-log"
    log.touch()
    return {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:1",
        "LADING_TERMINATION_LOG": str(log),
        "S3_MAX_ATTEMPTS": "2",
        "AWS_ACCESS_KEY_ID": "AK",
        "AWS_SECRET_ACCESS_KEY": f"{MARK}-key",
        "AWS_SESSION_TOKEN": f"{MARK}-token",
        "localhost-headers": json.dumps({"Authorization": f"Bearer {MARK}", "X-Api-Key": MARK}),
        "STORAGE_CONFIG": json.dumps({"secret_access_key": f"{MARK}-config", "session_token": MARK}),
        **env,
    }


def run(folder: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """The exit code, and all that came out anywhere: standard output and error, files, termination log."""
    result = subprocess.run(
        [sys.executable, "-m", "lading", *arguments],
        capture_output=True,
        text=True,
        env=environment_of(folder, env),
        cwd=folder,
    )
    return result.returncode, result.stdout + result.stderr + everything(folder)


@pytest.fixture
def run_here(tmp_path, monkeypatch, capfd):
    """As ``run``, in this process: a Python that starts takes longer than most deliveries that fail."""

    def call(*arguments: str, **env: str) -> tuple[int, str]:
        monkeypatch.chdir(tmp_path)
        try:
            code = main(arguments, environment_of(tmp_path, env))
        except SystemExit as end:
            code = int(end.code)
        return code, "".join(capfd.readouterr()) + everything(tmp_path)

    return call


def docker_login(entry: dict[str, str]) -> str:
    return json.dumps({"auths": {"127.0.0.1:{port}": entry}})


def hdfs_failures() -> Iterator[dict[str, str]]:
    """Storage JSON of HDFS with secrets in all that can be one, for servers that refuse or are none."""
    headers = {"HEADERS": json.dumps({"Authorization": MARK})}
    for url in ("http://127.0.0.1:{port}/denied", "http://127.0.0.1:{port}/model.bin", "http://127.0.0.1:1"):
        for given in (headers, {"HDFS_DELEGATION_TOKEN": MARK}):
            yield {"STORAGE_CONFIG": json.dumps({"type": "hdfs", "HDFS_NAMENODE": url, **given})}
    for wrong in (
        {"HEADERS": MARK},
        {"TLS_CERT": f"{MARK}!"},
        {"TLS_CERT": "czNjcmV0", "TLS_KEY": "czNjcmV0", "HDFS_NAMENODE": "https://127.0.0.1:1"},
        {"KERBEROS_PRINCIPAL": "a@B", "KERBEROS_KEYTAB": f"{MARK}!"},
        {"HDFS_NAMENODE": f"https://user:{MARK}@h:9871"},
        {"HDFS_NAMENODE": "", "HEADERS": json.dumps({"Authorization": MARK})},
    ):
        yield {"STORAGE_CONFIG": json.dumps({"type": "hdfs", "HDFS_NAMENODE": "http://127.0.0.1:1", **wrong})}


def google_key() -> str:
    return json.dumps({"type": "service_account", "client_email": "a@b", "private_key": MARK})


def google_login(path: str) -> str:
    secrets = dict.fromkeys(("client_id", "client_secret", "refresh_token"), MARK)
    return json.dumps({"type": "authorized_user", "token_uri": f"http://127.0.0.1:{{port}}/{path}", **secrets})


def google_federation() -> str:
    source = {"url": f"http://127.0.0.1:{{port}}/denied?a={MARK}", "headers": {"Authorization": f"Bearer {MARK}"}}
    about = {"type": "external_account", "audience": "a", "subject_token_type": "jwt", "credential_source": source}
    return json.dumps(about)


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("command", ["pull", "init"])
@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("model.bin", 0),
        ("redirect", 8),
        ("loop", 8),
        ("denied", 4),
        ("missing", 3),
        ("expired", 4),
        ("busy", 5),
        ("odd", 8),
        ("short.bin", 5),
        ("garbage", 5),
    ],
)
def test_secrets_of_a_url_stay_secret_however_the_delivery_ends(
    tmp_path: Path, port: int, path: str, code: int, command: str, log_format: str
) -> None:
    uri = f"http://user:{MARK}@localhost:{port}/{path}?X-Amz-Signature={MARK}&token={MARK}"
    found, said = run(tmp_path, command, uri, "dest", LADING_LOG_FORMAT=log_format)
    assert MARK not in said
    assert found == code, said
    assert "localhost" in said


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["pull", "s3://bucket/model", "dest"], {"AWS_ENDPOINT_URL": "http://127.0.0.1:{port}"}),
        (["init", "s3://bucket/model", "dest"], {"AWS_ENDPOINT_URL": "http://127.0.0.1:{port}"}),
        (["pull", "s3://buckets/model", "dest"], {"AWS_ENDPOINT_URL": "http://user:s3cret@127.0.0.1:{port}/model.bin"}),
        (["pull", "s3://bucket/model", "dest"], {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}),
        (["pull", "s3://bucket/model?token=s3cret", "dest"], {}),
        (["pull", "s3://user:s3cret@bucket/model", "dest"], {}),
        (["pull", "gs://user:s3cret@bucket/model?token=s3cret", "dest"], {}),
        (["pull", "gs://bucket/m", "dest"], {"STORAGE_EMULATOR_HOST": "http://user:s3cret@127.0.0.1:{port}/denied"}),
        (["pull", "gs://bucket/m", "dest"], {"gcloud-application-credentials.json": "s3cret"}),
        (["pull", "gs://bucket/m", "dest"], {"gcloud-application-credentials.json": google_key()}),
        (["pull", "gs://bucket/m", "dest"], {"gcloud-application-credentials.json": google_login("denied")}),
        (["pull", "gs://bucket/m", "dest"], {"gcloud-application-credentials.json": google_login("model.bin")}),
        (["init", "gs://bucket/m", "dest"], {"gcloud-application-credentials.json": google_login("redirect")}),
        (["pull", "gs://bucket/m", "dest"], {"STORAGE_CONFIG": f'{{"type": "gs", "credentials": {google_key()}}}'}),
        (["pull", "gs://bucket/m", "dest"], {"gcloud-application-credentials.json": google_federation()}),
        (["pull", "https://user:s3cret@acc.blob.core.windows.net/models/m", "dest"], {}),
        (["pull", "https://acc.blob.core.windows.net/models/m?sig=s3cret&snapshot=s3cret", "dest"], {}),
        (["pull", f"{AZURE}/models/m?sv=1&sig=s3cret", "dest"], {"AZURE_SERVICE_URL": AZURE}),
        (["init", f"{AZURE}/models/m", "dest"], {"AZURE_SERVICE_URL": AZURE, "AZURE_STORAGE_ACCESS_KEY": "s3cret!"}),
        (["pull", f"{AZURE}/models/m", "dest"], {"AZURE_SERVICE_URL": AZURE, "AZURE_STORAGE_SAS_TOKEN": "sig=s3cret"}),
        (["pull", f"{AZURE}/models/m", "dest"], {"AZURE_SERVICE_URL": AZURE, "AZURE_ACCESS_TOKEN": "s3cret"}),
        (["pull", f"{AZURE}/models/m", "dest"], {"AZURE_SERVICE_URL": AZURE, **AZURE_PRINCIPAL}),
        (["pull", f"{AZURE}/models/m", "dest"], {"AZURE_SERVICE_URL": AZURE, "AZURE_CLIENT_ID": "client"}),
        (
            ["pull", "http://user:s3cret@127.0.0.1:{port}/a/models", "dest"],
            {"AZURE_SERVICE_URL": "http://user:s3cret@127.0.0.1:{port}/a"},
        ),
        *(
            (["pull", uri, "dest"], {"GIT_USERNAME": "u", "GIT_PASSWORD": "s3cret"})
            for uri in (
                "git+http://localhost:{port}/model.git",
                "git+http://user:s3cret@localhost:{port}/denied",
                "git+http://user:s3cret@127.0.0.1:1/model.git",
                "git+http://user:s3cret@h:port/model.git",
                "git+http://s3cret@localhost:{port}/model.git?token=s3cret",
                "git+http://user:s3cret@localhost:{port}/model.git#token=s3cret",
                "https://user:s3cret@localhost:{port}/model.git",
                "git+ssh://user:s3cret@localhost/model.git",
            )
        ),
        (["init", "git+http://localhost:{port}/m", "dest"], {"GIT_USERNAME": "u", "GIT_PASSWORD": "s3cret\r\nX: 1"}),
        (["pull", "model-registry://iris/v1?token=s3cret", "dest"], {"LADING_CATALOG": "/nowhere"}),
        (["pull", "model-registry://iris", "dest"], {"MODEL_REGISTRY_BASE_URL": "user:s3cret@127.0.0.1:{port}"}),
        (["pull", "model-registry://iris", "dest"], {"MODEL_REGISTRY_BASE_URL": "127.0.0.1:{port}/x?token=s3cret"}),
        (["pull", "oci://user:s3cret@127.0.0.1:{port}/a", "dest"], {}),
        (["pull", "oci://127.0.0.1:{port}/a?token=s3cret", "dest"], {}),
        (["pull", "oci://127.0.0.1:{port}/a", "dest"], {"OCI_USERNAME": "u", "OCI_PASSWORD": "s3cret"}),
        (["init", "oci://127.0.0.1:{port}/a", "dest"], {**INSECURE, "OCI_USERNAME": "u", "OCI_PASSWORD": "s3cret"}),
        (["pull", "oci://127.0.0.1:{port}/a", "dest"], {**INSECURE, ".dockerconfigjson": "s3cret"}),
        *(
            (["pull", "oci://127.0.0.1:{port}/a", "dest"], {**INSECURE, ".dockerconfigjson": docker_login(entry)})
            for entry in (
                {"auth": MARK},
                {"username": "u", "password": MARK},
                {"identitytoken": MARK},
                {"registrytoken": f"{MARK}\r\nX-Other: 1"},
                {"registrytoken": f"{MARK}\u6a21"},
            )
        ),
        (
            ["pull", "oci://127.0.0.1:{port}/a", "dest"],
            {**INSECURE, "STORAGE_CONFIG": '{"type": "oci", "username": "u", "password": "s3cret"}'},
        ),
        (["pull", "http://user:s3cret@h\x01ost/", "dest"], {}),
        (["pull", "http://user:s3cret@h:port/x", "dest"], {}),
        (["pull", "http://user:s3cret@localhost:{port}/folder/?token=s3cret", "dest"], {}),
        (["pull", "http://models.test/x", "dest"], {"http_proxy": "http://user:s3cret@127.0.0.1:1"}),
        (["pull", "http://models.test/x", "dest"], {"http_proxy": "http://user:s3cret@proxy:port"}),
        (["pull", "https://models.test/x", "dest"], {"https_proxy": "http://user:s3cret@127.0.0.1:{port}"}),
        (["pull", "http://localhost:{port}/model.bin", "dest"], {"localhost-headers": "s3cret"}),
        (["pull", "http://localhost:{port}/model.bin", "dest"], {"localhost-headers": '{"A": "s3cret\\r\\nB: 1"}'}),
        (["pull", "http://localhost:{port}/model.bin", "dest"], {"localhost-headers": '{"A": "s3cret\u6a21"}'}),
        (
            ["pull", "http://localhost:{port}/denied", "dest"],
            {"STORAGE_CONFIG": '{"type": "https", "headers": {"X-Token": "s3cret"}, "password": "s3cret"}'},
        ),
        (
            ["pull", "http://localhost:{port}/denied", "dest"],
            {
                "STORAGE_CONFIG": '{"type": "https", "host": "localhost", "headers": "s3cret", "password": "s3cret"}',
                "localhost-headers": "",
            },
        ),
        (["pull", "http://localhost:{port}/model.bin", "dest"], {"localhost:{port}-headers": '["s3cret"]'}),
        (["pull", "http://localhost:{port}/model.bin", "dest"], {"STORAGE_CONFIG": '{"secret_access_key": "s3cret"'}),
        (["init", "http://localhost:{port}/model.bin", "dest"], {"STORAGE_OVERRIDE_CONFIG": "s3cret"}),
        *(
            (["pull", uri, "dest"], {f"{family}_ENDPOINT": endpoint, token: "s3cret", "STORAGE_CONFIG": ""})
            for uri, family, token in (
                ("hf://owner/model", "HF", "HF_TOKEN"),
                ("modelscope://owner/model", "MODELSCOPE", "MODELSCOPE_API_TOKEN"),
            )
            for endpoint in (
                "http://user:s3cret@127.0.0.1:{port}/bucket",
                "http://127.0.0.1:{port}/x?token=s3cret",
                "http://user:s3cret@127.0.0.1:1",
                "http://user:s3cret@127.0.0.1:port",
            )
        ),
        (
            ["pull", "hf://owner/model", "dest"],
            {"HF_TOKEN": "s3cret\r\nX-Other: 1", "HF_ENDPOINT": "http://127.0.0.1:1"},
        ),
        (["pull", "hf://owner/model", "dest"], {"HF_TOKEN": "s3cret\u6a21", "HF_ENDPOINT": "http://127.0.0.1:{port}"}),
        (
            ["pull", "ms://o/m", "dest"],
            {"MODELSCOPE_API_TOKEN": "s3cret\r\nX: 1", "MODELSCOPE_ENDPOINT": "http://127.0.0.1:{port}"},
        ),
        (["pull", "hf://owner/model?token=s3cret", "dest"], {}),
        (["pull", "ms://owner/model?token=s3cret", "dest"], {}),
        *(
            (["pull", uri, "dest"], {"MLFLOW_TRACKING_URI": server, "MLFLOW_TRACKING_TOKEN": "s3cret"})
            for uri in ("mlflow://iris", "models:/m-1", "mlflow-artifacts:/1/m")
            for server in (
                "http://user:s3cret@127.0.0.1:{port}/denied",
                "http://127.0.0.1:{port}/x?token=s3cret",
                "http://user:s3cret@127.0.0.1:port",
                "http://user:s3cret@[::1",
                "postgresql://user:s3cret@db/mlflow",
            )
        ),
        (
            ["pull", "mlflow://iris", "dest"],
            {"MLFLOW_TRACKING_URI": "http://127.0.0.1:{port}", "MLFLOW_TRACKING_TOKEN": "s3cret\r\nX: 1"},
        ),
        (["pull", "mlflow-artifacts://user:s3cret@h/1", "dest"], {"MLFLOW_TRACKING_URI": "http://127.0.0.1:{port}"}),
        (["pull", "http://localhost:{port}/model.bin", "dest", "--digest", "crc32:00000000"], {}),
        (["pull", "http://localhost:{port}/model.bin?a=s3cret", "dest", "--verify", "strict"], {}),
        (["resolve", "http://u:s3cret@localhost:{port}/model.bin?a=s3cret"], {}),
        (["resolve", "--json", "http://u:s3cret@localhost:{port}/model.bin?a=s3cret"], {}),
        (["check", "http://u:s3cret@localhost:{port}/model.bin?a=s3cret", "dest"], {}),
        (["pull", "dest", "one", "too", "many", "http://u:s3cret@localhost/x?a=s3cret"], {}),
        (["init", "http://u:s3cret@localhost:{port}/model.bin?a=s3cret"], {}),
        (
            ["pull", "s3://bucket/m", "dest"],
            {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://elsewhere/",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN": "s3cret",
                "AWS_ACCESS_KEY_ID": "",
                "AWS_SECRET_ACCESS_KEY": "",
                "STORAGE_CONFIG": "",
            },
        ),
        (
            ["pull", "s3://bucket/m", "dest"],
            {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:{port}/denied?token=s3cret",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN": "s3cret",
                "AWS_ACCESS_KEY_ID": "",
                "AWS_SECRET_ACCESS_KEY": "",
                "STORAGE_CONFIG": "",
            },
        ),
        (
            ["pull", "s3://bucket/m", "dest"],
            {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:{port}/x",
                "AWS_ACCESS_KEY_ID": "",
                "AWS_SECRET_ACCESS_KEY": "",
                "STORAGE_CONFIG": "",
            },
        ),
        *((["pull", "hdfs://models/m", "dest"], variables) for variables in hdfs_failures()),
        (["pull", "webhdfs://user:s3cret@127.0.0.1:{port}/m", "dest"], {"STORAGE_CONFIG": ""}),
        (["pull", "webhdfs://127.0.0.1:{port}/m?delegation=s3cret", "dest"], {"STORAGE_CONFIG": ""}),
    ],
)
def test_no_other_failure_tells_a_secret(run_here, port: int, arguments: list[str], env: dict[str, str]) -> None:
    filled = [argument.replace("{port}", str(port)) for argument in arguments]
    env = {name.replace("{port}", str(port)): value.replace("{port}", str(port)) for name, value in env.items()}
    code, said = run_here(*filled, **env)
    assert MARK not in said
    assert code == 0 if arguments[0] in ("resolve", "check") else code not in (0, 1), said


@pytest.fixture(params=SCENES)
def name(request) -> str:
    return request.param


@pytest.fixture
def scene(name, server):
    with SCENES[name](server) as scene:
        yield scene


def echo(code: int) -> Fault:
    """An error that says back all that it was told, in every shape in which a source might read it."""

    def change(request, _) -> Answer:
        said = json.dumps({**request.headers, "target": request.target, "body": request.body.decode("latin-1")})
        body = {"error": {"code": said, "message": said, "errors": [said]}, "errors": [{"code": said, "message": said}]}
        text = json.dumps(body | {"error_description": said, "Message": said, "message": said})
        if (
            "xml" in request.headers.get("accept", "")
            or "x-ms-version" in request.headers
            or "x-amz-date" in request.headers
        ):
            text = f"<Error><Code>{said}</Code><Message>{said}</Message></Error>"
        headers = {
            "WWW-Authenticate": f'Bearer realm="{said[:500]}"',
            "X-Error-Message": said[:2000],
            "X-Error-Code": said[:2000],
        }
        return Answer(code, {key: value.replace('"', "'") for key, value in headers.items()}, text.encode())

    return Fault(change, times=ALWAYS)


def secrets_of(scene: Scene) -> set[str]:
    variables = scene.settings["variables"]
    named = {text for name, text in variables.items() if re.search("SECRET|TOKEN|PASSWORD|_KEY|headers|json", name)}
    keys = {json.loads(text)["private_key"][40:80] for text in named if "private_key" in text}
    # A word of the protocol, and one that an explanation may well use.
    return {text for text in named | keys | {scene.secret} if text not in ("SharedKey", "password")}


ENDINGS = {
    "delivered": None,
    "refused": lambda scene: echo(403),
    "unknown": lambda scene: echo(401),
    "odd": lambda scene: echo(418),
    "not listed": lambda scene: Fault(echo(400).change, times=ALWAYS, on=scene.lists),
    "not read": lambda scene: Fault(echo(403).change, times=ALWAYS, on=scene.reads),
    "broken off": lambda scene: cut(at=100_000, times=ALWAYS, on=scene.reads),
    "led away": lambda scene: Fault(
        lambda request, _: Answer(302, {"Location": f"ftp://{scene.secret}@h/?token={scene.secret}"}),
        times=ALWAYS,
        on=scene.reads,
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_secret_is_printed_or_written_however_a_delivery_ends(name, scene, ending, tmp_path, monkeypatch, capfd):
    destination = tmp_path / "destination"
    settings = scene.settings
    for variable, text in settings["variables"].items():
        monkeypatch.setenv(variable, text)
    if "network" in settings:
        monkeypatch.setenv("http_proxy", settings["network"].http_proxy)
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setenv("LADING_TERMINATION_LOG", str(log))
    monkeypatch.setenv("S3_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("LADING_LOG_FORMAT", "json")
    make = ENDINGS[ending]
    if make is not None:
        scene.server.misbehave(ANYWHERE, make(scene))
    code = main(["init", scene.uri, str(destination)])
    assert code in ((0,) if make is None else (3, 4, 5, 6, 8))
    said = "".join(capfd.readouterr()) + log.read_text()
    assert said
    # Of layers, what was read is in the tree already and is not kept.
    if ending == "broken off" and name != "oci-layers":
        assert (destination / ".lading/journal").exists()
    for place in destination.rglob("*"):
        said += place.name
        if place.is_file() and place.stat().st_size < 100_000:
            said += place.read_bytes().decode("latin-1")
    assert not [secret for secret in secrets_of(scene) if secret in said]
    assert secrets_of(scene) or scene.secret == "SharedKey"


def test_an_error_that_nobody_foresaw_does_not_tell_its_message(tmp_path: Path) -> None:
    code = (
        "import sys, lading.deliver, lading.cli.main as main\n"
        f"def fail(*a, **k): raise RuntimeError('{MARK}')\n"
        "lading.deliver.deliver = fail\n"
        "sys.exit(main.main(['pull', 'x', 'y']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={})
    assert result.returncode == 1
    assert "RuntimeError" in result.stderr
    assert MARK not in result.stdout + result.stderr


def test_the_mark_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text(f"x{MARK}y")
    assert MARK in everything(tmp_path)
