"""The download job of KServe's LocalModelCache: a folder of a node that earlier attempts have left as they were killed.

KServe mounts ``models/<key>`` of a node's volume at /mnt/models, and runs the container with the arguments
``SRC /mnt/models``: up to seven times into the same folder, and again when a Job is gone.
"""

import os
import subprocess
from pathlib import Path

import pytest

from command_line import ENVIRONMENT, LADING, contents, lading, write_model
from fakes.faulty_http import stall
from fakes.trees import content, read_tree

JOB = {"LADING_REMOVE_STRAYS": "true"}
FILES = {"config.json": b"{}", "weights/part-1.bin": content(300_000), "weights/empty": b""}


@pytest.fixture
def environ(bucket):
    for path, data in FILES.items():
        bucket.put(f"llm/{path}", data)
    return {"AWS_ENDPOINT_URL": bucket.server.url, "awsAnonymousCredential": "true", **JOB}


@pytest.fixture
def destination(tmp_path):
    """A mount point where mounting is allowed, as in the job; else a folder with files that lading did not bring."""
    folder = tmp_path / "mnt/models"
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", folder], stderr=subprocess.DEVNULL)
    yield folder
    if mounted.returncode == 0:
        subprocess.run(["umount", "--lazy", folder], check=True)


def run(environ, destination, **more):
    return lading("init", "s3://models/llm", destination, environ={**environ, **more})


def leave_an_attempt_of_the_reference(folder: Path) -> None:
    """Files under their final names, one of them cut, another that the model has no more; the SDK's own; links."""
    write_model(folder, **{"weights/part-1.bin": b"cut", "old.bin": b"old", "weights/.part-2.bin.a1b2": b"piece"})
    write_model(folder / ".cache/huggingface/download", lock=b"")
    os.symlink("/etc", folder / "link")
    os.symlink("/etc/hostname", folder / "weights/link")
    (folder / "empty/deep").mkdir(parents=True)


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


WHOLE = [".lading.manifest", "config.json", "weights", "weights/empty", "weights/part-1.bin"]


def test_what_attempts_of_the_reference_left_goes(environ, destination):
    leave_an_attempt_of_the_reference(destination)
    outcome = run(environ, destination)
    assert outcome.code == 0, outcome.err
    assert everything(destination) == WHOLE
    assert read_tree(destination) == FILES
    assert f"removed from {destination} files that lading did not deliver: .cache and 4 more" in outcome.err
    assert os.path.exists("/etc/hostname")


def test_what_a_killed_attempt_of_lading_landed_is_used(environ, destination, server):
    server.put("/unused", b"")
    outcome = run(environ, destination, LADING_REMOVE_STRAYS="false")
    assert outcome.code == 0
    # As it is when it is killed while it publishes: everything has landed, and there is no manifest.
    next_manifest = (destination / ".lading.manifest").read_bytes()
    (destination / ".lading").mkdir()
    (destination / ".lading/next.json").write_bytes(next_manifest)
    (destination / ".lading.manifest").unlink()
    before = len(server.requests)
    leave = destination / "stray"
    leave.write_bytes(b"")
    outcome = run(environ, destination)
    assert outcome.code == 0, outcome.err
    assert everything(destination) == WHOLE
    assert [request.path for request in server.requests[before:] if "/llm/" in request.path] == []


def test_a_job_after_one_that_was_killed_fetches_what_is_missing(environ, destination, bucket, server):
    bucket.put("llm/large.bin", content(2_000_000))
    server.misbehave(bucket.path("llm/large.bin"), stall(1_000_000))
    command = [*LADING, "init", "s3://models/llm", str(destination)]
    with subprocess.Popen(command, env=ENVIRONMENT | environ, stderr=subprocess.DEVNULL) as killed:
        while sum(path.stat().st_size for path in destination.rglob("weights/part-1.bin")) < 300_000:
            assert killed.poll() is None
        killed.kill()
    server.behave()
    leave_an_attempt_of_the_reference(destination)
    outcome = run(environ, destination)
    assert outcome.code == 0, outcome.err
    assert read_tree(destination) == {**FILES, "large.bin": content(2_000_000)}


def test_a_job_on_a_complete_folder_makes_one_request(environ, destination, server):
    assert run(environ, destination).code == 0
    (destination / "weights/stray.bin").write_bytes(b"stray")
    changed = (destination / "weights/part-1.bin").stat()
    before = len(server.requests)
    outcome = run(environ, destination)
    assert outcome.code == 0
    assert "already holds the model" in outcome.err
    # The listing, and nothing else.
    assert [request.path for request in server.requests[before:]] == ["/models/"]
    assert everything(destination) == WHOLE
    assert (destination / "weights/part-1.bin").stat().st_mtime_ns == changed.st_mtime_ns


def test_strays_that_would_take_the_space_go_first(environ, destination, bucket):
    if not os.path.ismount(destination):
        pytest.skip("nothing may be mounted here")
    bucket.put("llm/large.bin", content(3_000_000))
    (destination / "large.bin").write_bytes(content(3_000_000, seed=1))
    refused = run(environ, destination, LADING_REMOVE_STRAYS="false")
    assert refused.code == 7
    outcome = run(environ, destination)
    assert outcome.code == 0, outcome.err
    assert read_tree(destination) == {**FILES, "large.bin": content(3_000_000)}


def test_a_volume_that_is_too_small_is_told_before_a_byte_is_read(environ, destination, bucket, server, tmp_path):
    if not os.path.ismount(destination):
        pytest.skip("nothing may be mounted here")
    bucket.put("llm/large.bin", content(5_000_000))
    log = tmp_path / "termination-log"
    log.write_text("")
    outcome = run(environ, destination, LADING_TERMINATION_LOG=str(log))
    assert outcome.code == 7
    assert log.read_text().startswith(f"error[no-space]: {destination} needs 5.1 MiB more and has ")
    assert [request.path for request in server.requests if "/llm/" in request.path] == []
    assert everything(destination) == []


def test_a_model_that_is_not_there_removes_nothing(environ, destination):
    leave_an_attempt_of_the_reference(destination)
    before = everything(destination)
    outcome = lading("init", "s3://models/lm", destination, environ=environ)
    assert outcome.code == 3
    assert everything(destination) == before


def test_a_new_version_leaves_nothing_of_the_old_one_and_of_strangers(environ, destination, bucket, server):
    assert run(environ, destination).code == 0
    write_model(destination, **{"config.json.bak": b"", "weights/part-2.bin/deep": b"a folder in the way"})
    bucket.put("llm/weights/part-2.bin", b"new")
    outcome = run(environ, destination)
    assert outcome.code == 0, outcome.err
    assert read_tree(destination) == {**FILES, "weights/part-2.bin": b"new"}


def test_without_being_asked_what_is_foreign_stays(environ, destination):
    write_model(destination, stranger=b"mine")
    assert run(environ, destination, LADING_REMOVE_STRAYS="").code == 0
    assert contents(destination) == {**FILES, "stranger": b"mine"}
    outcome = lading("pull", "s3://models/llm", destination, "--remove-strays", environ=environ)
    assert outcome.code == 0
    assert contents(destination) == FILES


def test_the_folder_that_mkfs_makes_stays(environ, destination):
    (destination / "lost+found").mkdir()
    assert run(environ, destination).code == 0
    assert everything(destination) == sorted(["lost+found", *WHOLE])


def test_nested_models_are_refused_where_one_would_be_a_stray_of_the_other(environ, tmp_path):
    model = write_model(tmp_path / "model")
    for one, other in ((tmp_path / "a", tmp_path / "a/b"), (tmp_path / "a/b", tmp_path / "a")):
        outcome = lading("init", model, one, model, other, environ=JOB)
        assert outcome.code == 2
        assert "contains another destination, or lies within one" in outcome.err
    assert not (tmp_path / "a").exists()


def test_strays_go_from_a_destination_that_a_store_fills(environ, destination, tmp_path):
    for _ in range(2):
        write_model(destination, stray=b"")
        outcome = run(environ, destination, LADING_STORE=str(tmp_path / "store"))
        assert outcome.code == 0, outcome.err
        assert everything(destination) == WHOLE


def test_strays_of_a_folder_that_a_link_names_go_and_the_link_stays(environ, tmp_path):
    write_model(tmp_path / "real", stray=b"")
    (tmp_path / "link").symlink_to("real")
    outcome = lading("init", "s3://models/llm", tmp_path / "link", environ=environ)
    assert outcome.code == 0, outcome.err
    assert read_tree(tmp_path / "real") == FILES
    assert (tmp_path / "link").is_symlink()
