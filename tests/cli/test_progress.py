"""What is shown while bytes move: lines, JSON, and a bar on a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios

import pytest

from command_line import ENVIRONMENT, LADING, Slow, contents, lading, serve, write_model
from lading.cli.reporters import JsonReporter, LineReporter, reporter_of_outages
from lading.events import (
    Backslashes,
    FileFailed,
    NotRecorded,
    Progress,
    Recorded,
    Resolved,
    Resumed,
    Retried,
    Unverified,
    Waiting,
)
from lading.telemetry.messages import sentence
from lading.text.units import count, duration, size

MIB = 1 << 20


def progress(elapsed_s, done=0, total=100 * MIB, files=(0, 2)):
    return Progress(done, total, *files, elapsed_s)


def test_elsewhere_a_line_comes_every_ten_seconds(capsys):
    tell = LineReporter()
    for tenth in range(350):
        tell(progress(tenth / 10, done=tenth * MIB // 10))
    assert capsys.readouterr().err == (
        "10.0 MiB of 100.0 MiB (10 %), 0 of 2 files, 1.0 MiB/s, 1 min 30 s left\n"
        "20.0 MiB of 100.0 MiB (20 %), 0 of 2 files, 1.0 MiB/s, 1 min 20 s left\n"
        "30.0 MiB of 100.0 MiB (30 %), 0 of 2 files, 1.0 MiB/s, 1 min 10 s left\n"
    )


def test_a_transfer_that_begins_anew_is_told_every_ten_seconds_too(capsys):
    tell = LineReporter()
    for elapsed_s in (0, 10, 19, 0, 9, 10):
        tell(progress(elapsed_s))
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_json_progress_comes_every_ten_seconds(capsys):
    tell = JsonReporter()
    for second in range(25):
        tell(progress(second, done=second * MIB))
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["event"], first["done_bytes"], first["elapsed_s"]) == ("Progress", 10 * MIB, 10)
    assert second["elapsed_s"] == 20


def test_other_events_are_told_at_once_and_without_control_characters(capsys):
    tell = LineReporter()
    tell(Waiting("/mnt/\x1b[2Jmodels"))
    tell(Resumed(3 * MIB))
    assert capsys.readouterr().err == (
        "waiting: another process delivers to /mnt/\\x1b[2Jmodels\nresumed: 3.0 MiB had been received already\n"
    )


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Unverified(1, "a"), "not verified, since the origin declares no digest: a"),
        (Unverified(3, "a"), "not verified, since the origin declares no digest: a and 2 more"),
        (
            Backslashes("m.zip", 2, "m\\a", "m/a"),
            "warning: names in m.zip have backslashes (m\\a and 1 more), which are taken for slashes: m/a",
        ),
        (
            Backslashes("m.zip", 1, "m\\a", "m\\a"),
            "warning: names in m.zip have backslashes (m\\a), which are kept as a part of them",
        ),
        (Retried("a.bin", "a.bin ends early", 1.25), "trying again in 1.2 s: a.bin ends early"),
        (Retried("a.bin", "connection reset", 0.0), "trying again: a.bin: connection reset"),
        (Retried("a.bin", "connection reset", 1.25, 2, 6), "trying again (2 of 6) in 1.2 s: a.bin: connection reset"),
        (Retried("a.bin", f"a.bin has md5:{'ab' * 16}", 0.0), "trying again: a.bin has md5:abababababab…"),
        (FileFailed("a.bin", "a.bin has md5:ab"), "warning: a.bin has md5:ab; going on with the other files"),
        (FileFailed("a.bin", "no such key"), "warning: a.bin: no such key; going on with the other files"),
        (Resolved("m", "s3://b/m", "r", "v1"), "m is s3://b/m (registry r, version v1)"),
        (Resolved("m", "s3://b/m", "r", ""), "m is s3://b/m (registry r)"),
        (Recorded("r", "team-a", "shop"), "recorded in registry r: shop in team-a has it"),
        (NotRecorded("r", "no"), "warning: this delivery is not recorded in registry r: no"),
        (progress(0.0, total=0), "0 B, 0 of 2 files, 0 B/s"),
        (progress(2.0, done=100 * MIB, files=(2, 2)), "100.0 MiB of 100.0 MiB (100 %), 2 of 2 files, 50.0 MiB/s"),
    ],
)
def test_events_in_words(event, said):
    assert sentence(event) == said


def test_sizes_times_and_counts_in_words():
    assert [size(n) for n in (0, 1, 1023, 1024, MIB - 1, MIB, 5 << 40, 5000 << 40)] == [
        *("0 B", "1 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.0 MiB", "5.0 TiB", "5000.0 TiB")
    ]
    assert [duration(s) for s in (0.0, 0.0304, 0.9999, 9.94, 9.99, 59.6, 3599.4, 3600, 90000)] == [
        *("0 ms", "30 ms", "1.0 s", "9.9 s", "10 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "25 h 0 min")
    ]
    assert [count(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


def test_of_what_never_ends_an_outage_is_told_once_a_minute(capsys):
    now_s = 1000.0
    tell = reporter_of_outages(lambda: now_s)
    for attempt in range(2, 7):
        tell(Retried("reading leases", "connection refused", 2.0, attempt, 6))
    tell(Resumed(1))
    assert capsys.readouterr().err == "trying again in 2.0 s: reading leases: connection refused\n"
    now_s += 60
    tell(Retried("reading pods", "connection refused", 2.0, 3, 6))
    tell(Retried("reading pods", "connection refused", 2.0, 9, 10**9))
    assert capsys.readouterr().err == "trying again in 2.0 s: reading pods: connection refused\n"


class Terminal:
    """A pseudo-terminal of ``columns`` that a command's standard error is."""

    def __init__(self, columns: int) -> None:
        self.master, self.side = pty.openpty()
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", 24 if columns else 0, columns, 0, 0))
        self.seen = ""

    def run(self, *argv) -> subprocess.Popen:
        process = subprocess.Popen(
            [*LADING, *map(str, argv)], stdout=subprocess.PIPE, stderr=self.side, env={**ENVIRONMENT, "TERM": "xterm"}
        )
        os.close(self.side)
        return process

    def read_until(self, pattern: str = "(?!)") -> str:
        """Read until ``pattern`` has been shown, or to the end."""
        while not re.search(pattern, self.seen):
            assert select.select([self.master], [], [], 30)[0], f"nothing more after {self.seen!r}"
            try:
                piece = os.read(self.master, 65536)
            except OSError:
                break
            if not piece:
                break
            self.seen += piece.decode()
        return self.seen


def pull_on_terminal(tmp_path, columns):
    """Pull 8 MiB that stop half-way until the bar has been seen there; gives all that was shown."""
    slow, terminal = Slow(), Terminal(columns)
    with serve(tmp_path, slow.handler()) as address:
        process = terminal.run("pull", f"{address}/model.bin", tmp_path / "dest")
        # Twice, so that a transfer that moves nothing is seen to be alive.
        terminal.read_until(r"(\r *[1-9]\d %[^%]*){2}")
        slow.go_on.set()
        terminal.read_until()
        assert process.wait(30) == 0, terminal.seen
    process.stdout.close()
    os.close(terminal.master)
    assert (tmp_path / "dest/model.bin").stat().st_size == Slow.SIZE
    return terminal.seen


BYTES = r"\d\.\d MiB of 8\.0 MiB"
RATE = r"[\d.]+ [KM]?i?B/s"


@pytest.mark.parametrize(
    ("columns", "beside"),
    [
        # Some terminals do not know how wide they are.
        (0, rf"{BYTES}, 0 of 1 file, {RATE}, \d+ m?s left"),
        (20, ""),
        (40, BYTES),
        (50, f"{BYTES}, {RATE}"),
        (80, rf"{BYTES}, 0 of 1 file, {RATE}, \d+ m?s left"),
        (200, rf"{BYTES}, 0 of 1 file, {RATE}, \d+ m?s left"),
    ],
)
def test_a_terminal_gets_a_bar_beside_it_what_has_room_and_nothing_is_cut(tmp_path, columns, beside):
    seen = pull_on_terminal(tmp_path, columns)
    bars = [line for line in re.split(r"[\r\n]+", seen) if re.match(r" *[1-9]\d %", line)]
    assert re.fullmatch(rf" [1-5]\d %\|#+ +\| {beside} *", bars[0]), bars[0]
    assert bars[0].index("| ") - bars[0].index("|") > 8
    assert max(map(len, bars)) <= (columns or 80)


def test_the_bar_goes_when_the_bytes_have_come_and_lines_are_whole(tmp_path):
    seen = pull_on_terminal(tmp_path, 100)
    # What a carriage return is followed by is written over.
    left = [line.rpartition("\r")[2] for line in seen.replace("\r\n", "\n").rstrip("\n").split("\n")]
    assert [line.partition(":")[0].partition(" 1 file")[0] for line in left] == [
        "http",
        "not verified, since the origin declares no digest",
        "delivered",
    ]


def test_an_error_after_a_bar_begins_on_a_line_of_its_own(tmp_path):
    slow, terminal = Slow(), Terminal(100)
    with serve(tmp_path, slow.handler()) as address:
        process = terminal.run("pull", f"{address}/model.bin", tmp_path / "dest", "--digest", f"md5:{'0' * 32}")
        terminal.read_until(r"\r *[1-9]\d %")
        process.terminate()
        terminal.read_until()
        slow.go_on.set()
        assert process.wait(30) == 143
    process.stdout.close()
    os.close(terminal.master)
    assert re.search(r"[\r\n]error\[interrupted\]: stopped by a signal\r\n", terminal.seen)
    assert contents(tmp_path / "dest") == {}


def test_a_small_model_on_a_terminal_needs_no_bar(tmp_path):
    terminal = Terminal(100)
    process = terminal.run("pull", write_model(tmp_path / "model"), tmp_path / "dest")
    seen = terminal.read_until()
    assert process.wait(30) == 0
    process.stdout.close()
    os.close(terminal.master)
    assert "delivered 3 files" in seen
    assert "%" not in seen


@pytest.mark.parametrize("command", [["pull", "dest"], ["resolve"], ["check", "dest"], ["lock", "-o", "lading.lock"]])
def test_a_terminal_shows_who_is_asked_until_something_happens(tmp_path, command):
    terminal, model = Terminal(300), write_model(tmp_path / "model")
    process = terminal.run(command[0], model, *(word if word == "-o" else tmp_path / word for word in command[1:]))
    seen = terminal.read_until()
    assert process.wait(30) == 0
    process.stdout.close()
    os.close(terminal.master)
    asked = f"asking {model}"
    assert seen.startswith(f"\r{asked}\r{' ' * len(asked)}\r")


def test_standard_output_stays_clean_when_the_bar_is_shown(tmp_path):
    terminal = Terminal(100)
    process = terminal.run("pull", write_model(tmp_path / "model"), tmp_path / "dest", "--json")
    terminal.read_until()
    out, _ = process.communicate(timeout=30)
    os.close(terminal.master)
    assert json.loads(out)["total_files"] == 3


def test_a_pipe_gets_no_bar_and_no_escape_codes(tmp_path):
    outcome = lading("pull", write_model(tmp_path / "model"), tmp_path / "dest")
    assert "\r" not in outcome.err
    assert "\x1b" not in outcome.err
