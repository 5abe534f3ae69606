"""The entry point: the commands, signals, and how an error ends the process."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from lading import __version__
from lading.cli import check, demo, init, pull, resolve, verify
from lading.errors import Interrupted, LadingError

_COMMANDS = (pull, resolve, check, verify, init, demo)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error[usage]: {message}\nhint: {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """The whole command line, without loading anything that moves bytes."""
    top = _Parser(
        prog="lading",
        description="Bring a model, by URI or by registry name, to a folder: verified, resumable, whole or not at all.",
        epilog="Exit codes: 0 delivered, 1 internal, 2 usage, 3 not found, 4 not allowed, 5 unavailable (try again), "
        "6 integrity, 7 no space, 8 unsupported.",
    )
    top.add_argument("--version", action="version", version=f"lading {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for command in _COMMANDS:
        command.add_to(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except LadingError as error:
        _report(error)
        return error.exit_code
    except KeyboardInterrupt:
        _report(Interrupted("stopped from the keyboard", hint="run it again to resume"))
        return 130
    except Exception as error:  # noqa: BLE001 - the last place that can say anything
        # The message of an error that nobody foresaw could hold anything, a secret included.
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(where.filename)}:{where.lineno}"
        _report(LadingError(f"{type(error).__name__} at {place}", hint="this is a defect of lading: please report it"))
        return 1
    return code


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # Once: a second signal must not break into the clean-up.
    signal.signal(number, signal.SIG_IGN)
    raise Interrupted("stopped by a signal", hint="run it again to resume")


def _report(error: LadingError) -> None:
    from lading.cli.output import print_error

    print_error(error)
