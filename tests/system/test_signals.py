"""SIGTERM ends what the main thread does, also where an exception is swallowed; it is raised once at a time."""

import signal
import subprocess
import sys

SWALLOWED = """\
import socket
from lading.errors import Interrupted
from lading.system.signals import Sigterm

silent, _other = socket.socketpair()
try:
    with Sigterm() as sigterm:
        sigterm.insist()
        try:
            print("ready", flush=True)
            silent.recv(1)
        except BaseException:
            print("swallowed", flush=True)
        silent.recv(1)
except Interrupted:
    print("heard", flush=True)
"""

CLEANING_UP = """\
import signal, sys
from lading.errors import Interrupted
from lading.system.signals import Sigterm

try:
    with Sigterm() as sigterm:
        sigterm.insist()
        try:
            print("ready", flush=True)
            signal.pause()
        finally:
            print("cleaning up", flush=True)
            sys.stdin.readline()
            print("clean", flush=True)
except Interrupted:
    sys.stdin.readline()
    print("told", flush=True)
"""


def lines_of(code: str, *, signals: int) -> list[str]:
    """What ``code`` prints; after each line it gets a SIGTERM, as long as there are ``signals``, and an empty line."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as process:
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if len(lines) <= signals:
                process.send_signal(signal.SIGTERM)
                process.stdin.write("\n")
                process.stdin.flush()
        assert process.wait(timeout=10) == 0
    return lines


def test_what_was_swallowed_is_raised_again():
    assert lines_of(SWALLOWED, signals=1) == ["ready", "swallowed", "heard"]


def test_clean_up_is_left_alone():
    assert lines_of(CLEANING_UP, signals=4) == ["ready", "cleaning up", "clean", "told"]
