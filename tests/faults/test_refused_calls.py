"""File systems that refuse what others do: SMB, 9p and object storage mounted by FUSE, or files of another owner."""

import errno
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

import lading
from fakes.trees import read_tree, write_tree
from lading import events as told
from lading.destination import publish
from lading.errors import LadingError
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings
from lading.system import disk

OLD = {"config.json": b"old", "same": b"same", "gone/x": b"x"}
NEW = {"config.json": b"new", "same": b"same", "deep/er/run.sh": b"#!/bin/sh", "deep/b.bin": b"B" * 100}
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


def refusing(number: int, only: Callable[[object], bool] = lambda _: True, real: Callable[..., object] | None = None):
    def call(place: object, *rest: object, **options: object) -> object:
        if not only(place) and real is not None:
            return real(place, *rest, **options)
        raise OSError(number, os.strerror(number), None if isinstance(place, int) else place)

    return call


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Let every call of this name fail so."""

    def start(name: str, number: int) -> None:
        if name == "rename of folders":
            monkeypatch.setattr(os, "rename", refusing(number, lambda at: os.path.isdir(str(at)), os.rename))
        elif name == "exchange":
            monkeypatch.setattr(publish, "exchange", lambda *_: False)
        elif name == "syncfs":
            monkeypatch.setattr(disk, "_libc", lambda: _NoSync(number))
        elif name == "everything":
            for each in ("chmod", "utime", "link", "fsync", "rename of folders", "exchange", "syncfs"):
                start(each, number)
            for each in ("chown", "copy_file_range", "sendfile", "ioctl"):
                start(each, number)
        else:
            monkeypatch.setattr(disk.fcntl if name == "ioctl" else os, name, refusing(number))

    return start


class _NoSync:
    """A libc whose syncfs(2) fails, and that has nothing else."""

    def __init__(self, number: int) -> None:
        self._number = number

    def syncfs(self, _: int) -> int:
        disk.ctypes.set_errno(self._number)
        return -1


def offers(folder: Path) -> Iterator[tuple[str, Callable[[dict[str, bytes]], str]]]:
    """Ways to offer a tree, in which the programs of an archive are marked as such."""

    def as_tar(tree: dict[str, bytes]) -> str:
        with tarfile.open(folder / "model.tar", "w") as tar:
            for path, data in tree.items():
                info = tarfile.TarInfo(path)
                info.size, info.mode = len(data), 0o755 if path.endswith(".sh") else 0o644
                tar.addfile(info, BytesIO(data))
        return str(folder / "model.tar")

    def as_zip(tree: dict[str, bytes]) -> str:
        with zipfile.ZipFile(folder / "model.zip", "w") as bundle:
            for path, data in tree.items():
                info = zipfile.ZipInfo(path)
                info.external_attr = (stat.S_IFREG | (0o755 if path.endswith(".sh") else 0o644)) << 16
                bundle.writestr(info, data)
        return str(folder / "model.zip")

    yield "a folder", lambda tree: str(write_tree(folder / f"{len(tree)} files", tree))
    yield "a tar", as_tar
    yield "a zip", as_zip


CALLS = ["chmod", "chown", "utime", "link", "fsync", "rename of folders", "exchange", "syncfs", "everything"]


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["a folder", "a tar", "a zip"])
def test_a_delivery_goes_on_where_a_call_is_refused(tmp_path: Path, refuse, kind: str, call: str, number: int) -> None:
    offer = dict(offers(tmp_path))[kind]
    destination = tmp_path / "model"
    lading.pull(offer(OLD), destination)
    # So that an exchange has a mode to set.
    destination.chmod(0o770)
    heard: list[told.Event] = []
    uri = offer(NEW)
    refuse(call, number)
    lading.pull(uri, destination, listener=heard.append)
    assert read_tree(destination) == NEW
    assert stat.S_IMODE(destination.stat().st_mode) == 0o770
    assert not (destination / ".lading").exists()
    assert (destination / ".lading.manifest").exists()
    refused = kind != "a folder" and call in ("chmod", "everything")
    assert [event for event in heard if isinstance(event, told.NotExecutable)] == (
        [told.NotExecutable(1, "deep/er/run.sh")] if refused else []
    )
    if kind != "a folder":
        assert os.access(destination / "deep/er/run.sh", os.X_OK) is not refused


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["chmod", "utime", "fsync", "syncfs", "copy_file_range", "sendfile", "ioctl", "chown"])
def test_a_store_serves_where_a_call_is_refused(tmp_path: Path, refuse, call: str, number: int) -> None:
    settings = Settings(store=StoreSettings(path=str(tmp_path / "store")))
    source = write_tree(tmp_path / "source", NEW)
    refuse("ioctl", errno.ENOTTY)
    if call == "sendfile":
        refuse("copy_file_range", number)
    refuse(call, number)
    for name in ("first", "second"):
        lading.pull(str(source), tmp_path / name, settings=settings)
        assert read_tree(tmp_path / name) == NEW


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.get)
def test_a_file_of_an_archive_with_two_names_keeps_its_mode_as_a_copy(tmp_path: Path, refuse, number: int) -> None:
    with tarfile.open(tmp_path / "model.tar", "w") as tar:
        program = tarfile.TarInfo("run.sh")
        program.size, program.mode = 4, 0o755
        tar.addfile(program, BytesIO(b"true"))
        further = tarfile.TarInfo("also.sh")
        further.type, further.linkname = tarfile.LNKTYPE, "run.sh"
        tar.addfile(further)
    refuse("link", number)
    lading.pull(str(tmp_path / "model.tar"), tmp_path / "model")
    assert read_tree(tmp_path / "model") == {"run.sh": b"true", "also.sh": b"true"}
    assert os.access(tmp_path / "model/also.sh", os.X_OK)


@pytest.mark.parametrize("call", ["chmod", "fsync", "syncfs"])
def test_what_is_no_refusal_ends_the_delivery(tmp_path: Path, refuse, call: str) -> None:
    destination = tmp_path / "model"
    destination.mkdir(mode=0o700)
    refuse(call, errno.EIO)
    with pytest.raises(LadingError, match="Input/output error"):
        lading.pull(str(write_tree(tmp_path / "source", NEW)), destination)
    assert not (destination / ".lading.manifest").exists()


def test_a_name_that_a_file_system_refuses_is_no_damage_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = dict(offers(tmp_path))["a tar"]({"a:b": b"x"})
    real = Path.open

    def refuse_colons(self: Path, *rest: object, **options: object) -> object:
        if ":" in self.name:
            raise OSError(errno.EINVAL, "Invalid argument", str(self))
        return real(self, *rest, **options)

    monkeypatch.setattr(Path, "open", refuse_colons)
    with pytest.raises(LadingError, match="a:b: Invalid argument"):
        lading.pull(uri, tmp_path / "model")
