"""What a store does with files, whatever they are: whole writes, and looks at what others may change meanwhile."""

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path


def write_whole(place: Path, lines: Iterable[str]) -> None:
    """Write a file that is there with all of these lines, or as it was: also after a power cut."""
    new = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        new.replace(place)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing if it is not there."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def files_below(folder: Path) -> Iterator[os.stat_result]:
    """What stat(2) says of every file below a folder, which others may change meanwhile."""
    for below, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield os.lstat(os.path.join(below, name))


def has_size(place: Path, size_bytes: int | None) -> bool:
    """Whether there is a file of that size."""
    try:
        return place.lstat().st_size == size_bytes
    except (FileNotFoundError, NotADirectoryError):
        return False


def remove_links(stage: Path) -> None:
    """Remove what an earlier attempt was supplied with: as files of the store they may not be written."""
    for folder, _, names in os.walk(stage):
        for name in names:
            place = os.path.join(folder, name)
            status = os.lstat(place)
            if status.st_nlink > 1 or not status.st_mode & 0o200:
                os.unlink(place)
