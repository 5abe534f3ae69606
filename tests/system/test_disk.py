"""What lading asks of a file system beyond ``os``."""

import errno
import os
from pathlib import Path

import pytest

from lading.errors import LadingError
from lading.system.disk import (
    _unescaped,
    disk_error,
    existing_ancestor,
    free_bytes,
    is_mount_point,
    sync_file_system,
    write_whole,
)


@pytest.mark.parametrize(
    ("number", "code", "exit_code"),
    [
        (errno.ENOSPC, "no-space", 7),
        (errno.EDQUOT, "no-space", 7),
        (errno.EFBIG, "no-space", 7),
        (errno.EACCES, "not-allowed", 4),
        (errno.EPERM, "not-allowed", 4),
        (errno.EROFS, "not-allowed", 4),
        (errno.ENOENT, "not-found", 3),
        (errno.ENOTDIR, "not-found", 3),
        (errno.EIO, "unavailable", 5),
        (errno.ESTALE, "unavailable", 5),
        (errno.EISDIR, "usage", 2),
        (errno.ENAMETOOLONG, "usage", 2),
        (errno.ELOOP, "usage", 2),
        (errno.EMFILE, "internal", 1),
        (None, "internal", 1),
    ],
)
def test_a_refusal_of_the_system_has_a_code_and_names_the_place(number: int | None, code: str, exit_code: int) -> None:
    error = disk_error(OSError(number, "why") if number else OSError("why"), "/a/pla\x1bce")
    assert (error.code, error.exit_code) == (code, exit_code)
    assert "why" in str(error)
    assert "/a/pla\\x1bce" in str(error)


def test_the_hint_of_a_refusal_is_about_that_refusal() -> None:
    hints = {
        number: disk_error(OSError(number, "why"), "/a").hint for number in (errno.EACCES, errno.EROFS, errno.ELOOP)
    }
    assert "accessible to user" in hints[errno.EACCES]
    assert "read-only" in hints[errno.EROFS]
    assert "links" in hints[errno.ELOOP]


def test_root_is_told_what_nfs_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for user, told in ((0, True), (1000, False)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        hint = disk_error(PermissionError(errno.EACCES, "Permission denied"), "/store").hint
        assert ("root_squash" in hint) == told


def test_free_space_is_that_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    there, not_there = free_bytes(tmp_path), free_bytes(tmp_path / "a" / "b")
    assert there > 0
    assert abs(there - not_there) < 1 << 30
    (tmp_path / "file").touch()
    assert free_bytes(tmp_path / "file" / "below") > 0
    (tmp_path / "loose").symlink_to("nowhere")
    assert existing_ancestor(tmp_path / "loose" / "below") == tmp_path
    for ask in (existing_ancestor, free_bytes):
        with pytest.raises(LadingError, match="too long"):
            ask(tmp_path / ("n" * 300))


@pytest.mark.parametrize(
    ("text", "path"),
    [("/a", "/a"), (r"/a\040b", "/a b"), (r"/a\011\012\134b", "/a\t\n\\b"), ("/ü", "/ü"), (r"/a\04", r"/a\04")],
)
def test_mount_points_are_unescaped_as_the_kernel_escapes_them(text: str, path: str) -> None:
    assert _unescaped(text) == path


@pytest.mark.skipif(not os.path.exists("/proc/self/mountinfo"), reason="needs Linux")
def test_a_folder_is_a_mount_point_if_something_is_mounted_on_it_or_below_it(tmp_path: Path) -> None:
    assert is_mount_point(Path("/proc"))
    assert is_mount_point(Path("/"))
    assert not is_mount_point(tmp_path)
    (tmp_path / "link").symlink_to("/proc")
    assert is_mount_point(tmp_path / "link")
    mounted = [_unescaped(line.split(" ")[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    above = {os.path.dirname(place) for place in mounted} - set(mounted)
    assert all(is_mount_point(Path(place)) for place in above)
    # A name that begins alike is another folder.
    assert not is_mount_point(Path("/pro"))


def test_what_is_written_can_be_made_durable(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    sync_file_system(tmp_path)
    with pytest.raises(OSError, match="nowhere"):
        sync_file_system(tmp_path / "nowhere")


def test_a_file_that_cannot_be_written_whole_stays_as_it_was_and_nothing_is_beside_it(tmp_path):
    def torn():
        yield "new\n"
        raise OSError(errno.ENOSPC, "No space left on device")

    place = tmp_path / "file"
    write_whole(place, ["old\n"])
    with pytest.raises(OSError, match="No space"):
        write_whole(place, torn())
    assert place.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [place]
