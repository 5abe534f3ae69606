"""The journal's own corners; its recovery from damage is in test_journal_recovery.py."""

import contextlib
import json
import os
import resource
from pathlib import Path

import pytest

from lading.errors import LadingError, NoSpace
from lading.transfer.journal import Journal, Received, read_journal

NOTE = Received("a", 10, "v", 0, 10, 1)


def test_a_missing_journal_is_empty(tmp_path: Path) -> None:
    assert list(read_journal(tmp_path / "nothing", "o")) == []


@pytest.mark.parametrize(
    "line",
    [
        ["a", 10, "v", 5, 5, 0],
        ["a", 10, "v", 6, 5, 0],
        ["a", 10, "v", 0, 11, 0],
        ["a", 10, "v", -1, 5, 0],
        ["a", 10, None, 0, 5, 0],
        ["a", "10", "v", 0, 5, 0],
        ["a", 10.0, "v", 0, 5, 0],
        ["a", True, "v", 0, 1, 0],
        ["a", 10, "v", 0, 5],
        ["a", 10, "v", 0, 5, 0, 0],
        [1, 10, "v", 0, 5, 0],
        [],
        None,
    ],
)
def test_a_line_that_makes_no_sense_ends_the_journal(tmp_path: Path, line: object) -> None:
    path = tmp_path / "journal"
    lines = [{"journal": 1, "origin": "o"}, NOTE, line, NOTE]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert list(read_journal(path, "o")) == [NOTE]


@pytest.mark.parametrize(
    "header", [{"journal": 2, "origin": "o"}, {"journal": 1}, {"journal": 1, "origin": "p"}, [1], "o", None]
)
def test_a_journal_of_another_kind_or_origin_is_empty(tmp_path: Path, header: object) -> None:
    path = tmp_path / "journal"
    path.write_text(json.dumps(header) + "\n" + json.dumps(NOTE) + "\n")
    assert list(read_journal(path, "o")) == []


def test_what_is_flushed_is_there_after_a_kill(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", "o")
    journal.append(NOTE)
    journal.flush()
    # Nothing is closed: as a kill leaves it.
    assert list(read_journal(tmp_path / "journal", "o")) == [NOTE]
    journal.close()


def test_a_kill_while_the_journal_is_rewritten_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal", "o")
    journal.append(NOTE)
    journal.close()

    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        with pytest.raises(KilledError):
            Journal(tmp_path / "journal", "o")
    with contextlib.closing(Journal(tmp_path / "journal", "o")) as journal:
        assert journal.earlier == {"a": [NOTE]}


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(NoSpace):
            Journal(tmp_path / "journal", "o")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_folder_that_is_not_there_is_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(LadingError):
        Journal(tmp_path / "nowhere" / "journal", "o")
