"""As Kubernetes runs it: any user, no home, nothing writable but the destination."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from command_line import CATALOG, ENVIRONMENT, EXAMPLES, LADING, contents, write_model
from fakes.faulty_http import FaultyServer
from fakes.git_server import GitServer

USER = 12345


@pytest.fixture
def shared():
    """A folder that every user can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="lading-confined-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def run(argv, **options):
    return subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def as_stranger():
    """What to put before a command, so that it runs as a user that this machine has never heard of."""
    if os.geteuid() != 0:
        # Already not root; that there is no HOME is all that can be arranged.
        return []
    # It may read, since the interpreter may lie in root's home; it may not write more than others.
    caps = "-all,+dac_read_search"
    user = ["--reuid", USER, "--regid", USER, "--clear-groups"]
    prefix = ["setpriv", *user, "--bounding-set", caps, "--inh-caps", caps, "--ambient-caps", caps]
    if shutil.which("setpriv") is None or run([*prefix, sys.executable, "-c", "import lading"]).returncode:
        pytest.skip("needs setpriv(1)")
    return prefix


@pytest.fixture
def dest(shared):
    folder = shared / "mnt"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_an_unknown_user_without_a_home_can_deliver(shared, dest, as_stranger):
    model = write_model(shared / "model")
    done = run([*as_stranger, *LADING, "init", model, dest], env=ENVIRONMENT, cwd="/")
    assert done.returncode == 0, done.stderr
    assert contents(dest) == contents(model)
    assert (dest / ".lading.manifest").stat().st_uid == (USER if as_stranger else os.geteuid())


def test_s3_credentials_are_looked_for_without_a_home(dest, as_stranger):
    # Port 1 of loopback: nobody listens there, and nothing is sent before there are credentials.
    environ = {**ENVIRONMENT, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    done = run([*as_stranger, *LADING, "pull", "s3://bucket/model", dest], env=environ, cwd="/")
    assert done.returncode in (4, 5)
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


def test_a_destination_of_somebody_else_is_not_allowed(dest, as_stranger):
    if not as_stranger:
        pytest.skip("needs root, to be another user")
    dest.chmod(0o755)
    done = run([*as_stranger, *LADING, "init", EXAMPLES / "iris/v1", dest], env=ENVIRONMENT, cwd="/")
    assert done.returncode == 4, done.stderr
    assert f"hint: it must be accessible to user {USER}\n" in done.stderr
    assert os.listdir(dest) == []


def test_check_says_that_a_destination_of_somebody_else_may_not_be_written(dest, as_stranger):
    if not as_stranger:
        pytest.skip("needs root, to be another user")
    dest.chmod(0o755)
    argv = [*as_stranger, *LADING, "check", EXAMPLES / "iris/v1", dest / "models"]
    done = run(argv, env=ENVIRONMENT, cwd="/")
    assert done.returncode == 4, done.stderr
    assert done.stderr == (f"error[not-allowed]: {dest} cannot be written\nhint: it must be writable by user {USER}\n")


READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,bind,ro / || exit 99
for mount in /tmp /dev/shm /run; do mount -o remount,bind,ro "$mount" 2>/dev/null; done
shift
exec "$@"
"""


def test_a_read_only_file_system_needs_only_its_destination(dest, as_stranger):
    if not as_stranger or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare(1)")
    argv = [*as_stranger, *LADING, "init", "model-registry://iris@champion", dest, "--catalog", CATALOG]
    done = run(["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", dest, *argv], env=ENVIRONMENT, cwd="/")
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("this machine lets nobody mount")
    assert done.returncode == 0, done.stderr
    assert contents(dest) == contents(EXAMPLES / "iris/v1")


@pytest.mark.parametrize("filters", ["true", "false"])
def test_a_read_only_file_system_needs_no_other_place_for_a_repository(dest, as_stranger, tmp_path, filters):
    if not as_stranger or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare(1)")
    with FaultyServer() as server:
        model = GitServer(server, tmp_path).create()
        model.commit({"config.json": b"{}", "big.bin": bytes(3 << 20)})
        model.configure("uploadpack.allowFilter", filters)
        argv = [*as_stranger, *LADING, "init", model.url, dest]
        done = run(["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", dest, *argv], env=ENVIRONMENT, cwd="/")
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("this machine lets nobody mount")
    assert done.returncode == 0, done.stderr
    assert contents(dest) == {"config.json": b"{}", "big.bin": bytes(3 << 20)}
    assert sorted(path.name for path in dest.iterdir()) == [".lading.manifest", "big.bin", "config.json"]


def test_a_destination_that_is_read_only_is_not_allowed(dest):
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare(1)")
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99; shift; exec "$@"'
    argv = [*LADING, "init", EXAMPLES / "iris/v1", dest]
    done = run(["unshare", "--mount", "sh", "-c", script, "sh", dest, *argv], env=ENVIRONMENT)
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip("this machine lets nobody mount")
    assert done.returncode == 4
    assert f"error[not-allowed]: {dest}: Read-only file system" in done.stderr


WATCH = """
import os, sys
from lading.cli.main import main

def absolute(path, descriptor=-1):
    folder = os.readlink(f"/proc/self/fd/{descriptor}") if descriptor != -1 else os.getcwd()
    return os.path.normpath(os.path.join(folder, os.fsdecode(path)))

def watch(event, arguments):
    # Names of files that are made, opened for writing, renamed or removed.
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, (str, bytes, os.PathLike)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            print(absolute(path))
    elif event in ("os.remove", "os.rmdir"):
        print(absolute(*arguments))
    elif event == "os.mkdir":
        print(absolute(arguments[0], arguments[2]))
    elif event in ("os.rename", "os.link"):
        print(absolute(arguments[0], arguments[2]), absolute(arguments[1], arguments[3]), sep="\\n")
    elif event in ("os.symlink", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        print("/unexpected", event)

sys.addaudithook(watch)
sys.exit(main(sys.argv[1:]))
"""


def test_nothing_is_touched_but_the_destination(shared):
    model, dest = write_model(shared / "model"), shared / "mnt/models"
    (shared / "mnt").mkdir()
    argv = [sys.executable, "-B", "-c", WATCH, "init", model, dest]
    done = run(argv, env={**ENVIRONMENT, "LADING_TERMINATION_LOG": "/dev/null"}, cwd=shared)
    assert done.returncode == 0, done.stderr
    touched = {path for path in done.stdout.splitlines() if path != "/dev/null"}
    assert any(path.startswith(f"{dest}/") for path in touched)
    beside = str(dest.with_name(".models.lading"))
    # Opened in a folder that is named by its descriptor, of which this event says nothing.
    touched.discard(str(shared / "lock"))
    assert not (shared / "lock").exists()
    assert {path for path in touched if not f"{path}/".startswith((f"{dest}/", f"{beside}/"))} == set()
