"""One name that cannot be delivered blocks a model only for who wants it, and the hint says how not to: every source."""

import shlex
import socket
import subprocess
import tarfile
from dataclasses import replace

import pytest

from conformance.scene import MODEL, scenes
from conformance.scenes import mlflow, s3
from fakes.fake_oci import FakeRegistry, tar
from fakes.fake_s3 import FakeS3
from fakes.git_server import GitServer
from fakes.real_s3 import BUCKET, client, moto, s3_settings
from fakes.trees import read_tree, write_tree
from lading.errors import IntegrityError, LadingError, Unsupported
from lading.settings.limits import Limits

LONG = "n" * 300
# What keys of flat stores can be; "//" in the front and in the middle, a file that is also a folder, dots, control
# characters, and what lading keeps for itself.
KEYS = [
    "/tmp.log",
    "deep//tmp.log",
    "onnx",
    "../x",
    "./x",
    "a/../b",
    LONG,
    f"deep/{LONG}/x",
    "\x00",
    ".lading.manifest",
    ".lading/x",
]
# What can be in a folder: a name is one segment there.
NAMES = [LONG, f"deep/{LONG}/x", ".lading.manifest", ".lading/x"]


FLAT = scenes("STRAY_KEYS")
FOLDERS = scenes("STRAY_NAMES")


def strays():
    for kind, names in ((FLAT, KEYS), (FOLDERS, NAMES)):
        for source, served in kind.items():
            # An annotation may say that its path begins here.
            possible = [name for name in names if source != "oci" or name != "./x"]
            yield from (pytest.param(served, name, id=f"{source}-{name[:20]!a}") for name in possible)


def patterns_of(hint: str) -> tuple[str, ...]:
    """The patterns that a hint names, as a shell reads them."""
    words = shlex.split(hint.partition("--ignore ")[2])
    return tuple(words[: words.index("delivers")])


@pytest.mark.parametrize(("served", "stray"), list(strays()))
def test_a_stray_name_blocks_only_who_wants_it(served, stray, server, tmp_path, pull):
    with served(server, tmp_path, stray) as (uri, settings, name):
        with pytest.raises(IntegrityError) as caught:
            pull(uri, tmp_path / "model", **settings)
        assert not [path for path in read_tree(tmp_path) if not path.startswith("model/.lading/")]
        shown = name.replace("\0", r"\x00")
        assert repr(shown) in caught.value.message
        patterns = patterns_of(caught.value.hint)
        pull(uri, tmp_path / "model", ignore=patterns, **settings)
        assert read_tree(tmp_path / "model") == MODEL
        pull(uri, tmp_path / "one", allow=("config.json",), **settings)
        assert read_tree(tmp_path / "one") == {"config.json": b"{}"}
        assert set(read_tree(tmp_path)) - set(read_tree(tmp_path / "model")) <= {
            f"{folder}/{path}" for folder in ("model", "one") for path in (*MODEL, ".lading.manifest")
        }


def test_stray_keys_in_a_bucket_of_another_server_are_no_different(tmp_path, pull):
    with moto() as endpoint:
        for number, stray in enumerate(["/tmp.log", "deep//tmp.log", "onnx", LONG, ".lading.manifest"]):
            for path in (*MODEL, stray):
                client(endpoint).put_object(Bucket=BUCKET, Key=f"{number}/{path}", Body=MODEL.get(path, b""))
            uri, settings = f"s3://{BUCKET}/{number}", s3_settings(endpoint)
            blocked(pull, uri, tmp_path / str(number), IntegrityError, f"{number}/{stray}", settings=settings)


def blocked(pull, uri, tmp_path, kind, *words, settings=None):
    """What a delivery of everything is refused for; that of the rest, by the hint, must be whole."""
    with pytest.raises(kind) as caught:
        pull(uri, tmp_path / "dest", **(settings or {}))
    for word in words:
        assert word in caught.value.message
    pull(uri, tmp_path / "dest", ignore=patterns_of(caught.value.hint), **(settings or {}))
    assert read_tree(tmp_path / "dest") == MODEL
    pull(uri, tmp_path / "one", allow=("config.json",), **(settings or {}))
    assert read_tree(tmp_path / "one") == {"config.json": b"{}"}


@pytest.mark.parametrize(
    ("stray", "why"),
    [
        (lambda place: (place / "link").symlink_to("nowhere"), "leads nowhere"),
        (lambda place: (place / "link").symlink_to("link"), "leads nowhere"),
        (lambda place: (place / "link").symlink_to("."), "links to a folder that holds it"),
        (lambda place: subprocess.run(["mkfifo", place / "link"], check=True), "neither a file nor a folder"),
        (lambda place: open(bytes(place) + b"/\xff\x1b*", "wb").close(), "not valid Unicode"),
    ],
    ids=["nowhere", "itself", "around", "pipe", "bytes"],
)
def test_what_is_no_file_in_a_folder_of_this_machine_can_be_left_out(stray, why, tmp_path, pull):
    source = write_tree(tmp_path / "source", MODEL)
    stray(source)
    blocked(pull, str(source), tmp_path, LadingError, why)


def test_a_socket_can_be_left_out(tmp_path, pull):
    source = write_tree(tmp_path / "source", MODEL)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
        blocked(pull, str(source), tmp_path, Unsupported, "socket")


def test_what_is_no_file_in_a_repository_can_be_left_out(server, tmp_path, pull):
    model = GitServer(server, tmp_path).create()
    (model.work / "onnx").mkdir()
    (model.work / "link").symlink_to("nowhere")
    model.commit(MODEL)
    blocked(pull, model.url, tmp_path, Unsupported, "link is a link that leads nowhere")


@pytest.mark.parametrize("stray", [".lading.manifest", ".lading/x"])
def test_a_reserved_name_in_a_repository_can_be_left_out(stray, server, tmp_path, pull):
    model = GitServer(server, tmp_path).create()
    model.commit(MODEL | {stray: b"stray"})
    blocked(pull, model.url, tmp_path, IntegrityError, repr(stray))


@pytest.mark.parametrize(
    ("kind", "target", "error", "message"),
    [
        (tarfile.CHRTYPE, "", Unsupported, "a device"),
        (tarfile.SYMTYPE, "nowhere", IntegrityError, "leads nowhere"),
        (tarfile.SYMTYPE, "/opt/weights", IntegrityError, "leads out of it"),
        (tarfile.LNKTYPE, "models/nowhere", IntegrityError, "leads nowhere"),
    ],
)
def test_a_member_of_an_image_that_is_no_file_can_be_left_out(server, tmp_path, pull, kind, target, error, message):
    stray = tarfile.TarInfo("models/stray")
    stray.type, stray.linkname = kind, target
    registry = FakeRegistry(server)
    registry.put_image(tar(stray, *((f"models/{path}", data) for path, data in MODEL.items())))
    settings = {"variables": {"KSERVE_OCI_INSECURE_REGISTRY": "true"}}
    blocked(pull, registry.uri(), tmp_path, error, message, settings=settings)
    assert read_tree(tmp_path / "dest") == MODEL


def test_a_name_that_an_mlflow_server_cannot_send_can_be_left_out(server, tmp_path, pull):
    with mlflow.strays(server, tmp_path, "50%25.log") as (uri, settings, _):
        blocked(pull, uri, tmp_path, Unsupported, "cannot send a file that is called", settings=settings)


def test_a_key_that_is_no_utf8_can_be_left_out(server, tmp_path, pull):
    with s3.strays(server, tmp_path, "stray") as (uri, settings, _):
        bucket_answer = server.routes["/models"]

        def answer(request):
            found = bucket_answer(request)
            return found if "list-type" not in request.query else _with_body(found, b"llm/stray", b"llm/%FF.log")

        server.routes["/models"] = answer
        blocked(pull, uri, tmp_path, IntegrityError, r"llm/\\udcff.log", "not valid Unicode", settings=settings)


def _with_body(answer, old, new):
    return replace(answer, body=bytes(answer.body).replace(old, new))


def test_ten_thousand_strays_are_one_error(server, tmp_path, pull):
    bucket = FakeS3(server)
    bucket.put("llm/config.json", b"{}")
    for number in range(10_000):
        bucket.put(f"llm//{number:05}", b"")
    settings = {"variables": {"AWS_ENDPOINT_URL": server.url, "awsAnonymousCredential": "true"}}
    settings["limits"] = Limits(attempts=1)
    with pytest.raises(IntegrityError) as caught:
        pull("s3://models/llm", tmp_path / "dest", **settings)
    assert "and more" in caught.value.message
    assert len(caught.value.message + caught.value.hint) < 500
    pull("s3://models/llm", tmp_path / "dest", ignore=("/*",), **settings)
    assert read_tree(tmp_path / "dest") == {"config.json": b"{}"}
