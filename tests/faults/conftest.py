"""Destinations that are new or hold an older model, disks of their own, and whole processes to kill."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from fakes.destination import OLD_MODEL, Destination
from fakes.real_s3 import s3_anonymous
from fakes.trees import write_tree


@pytest.fixture(params=["absent", "older-model"])
def new_destination(request, tmp_path, pull):
    """Make destinations.  Every fault is met twice: by a first delivery, and by one that replaces an older model."""

    def make(path: Path) -> Destination:
        if request.param == "older-model":
            pull(str(write_tree(tmp_path / "old", OLD_MODEL)), path)
        return Destination(path)

    return make


@pytest.fixture
def destination(new_destination, tmp_path):
    (tmp_path / "destination").mkdir()
    return new_destination(tmp_path / "destination" / "model")


class Disk:
    """A file system of its own, which can be made larger or read-only."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", path]
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode != 0:
            pytest.skip("nothing may be mounted here")

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.path / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)


@pytest.fixture
def new_disk(tmp_path):
    """Make a ``Disk`` of so many bytes; skips where nothing may be mounted."""
    disks = []

    def make(size_bytes: int) -> Disk:
        disks.append(Disk(tmp_path / f"disk-{len(disks)}", size_bytes))
        return disks[-1]

    yield make
    for disk in disks:
        disk.unmount()


@pytest.fixture
def anonymous(server) -> dict[str, object]:
    """Settings, as keywords, for the bucket without credentials."""
    return s3_anonymous(server.url)


class Processes:
    """``lading`` as processes of their own."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen] = []

    def start(self, *arguments: str | Path, code: str = "", env: dict[str, str] | None = None) -> subprocess.Popen:
        """Start ``lading ARGUMENTS``; ``code`` is Python that runs first, ``env`` adds to the environment."""
        program = ["-c", f"{code}\nimport sys\nfrom lading.cli.main import main\nsys.exit(main())"]
        command = [sys.executable, *(program if code else ["-m", "lading"]), *map(str, arguments)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | (env or {}))
        self._running.append(process)
        return process

    def run(self, *arguments: str | Path, **options) -> subprocess.Popen:
        """The same, to its end."""
        process = self.start(*arguments, **options)
        process.communicate(timeout=60)
        return process

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def processes():
    processes = Processes()
    yield processes
    processes.end()
