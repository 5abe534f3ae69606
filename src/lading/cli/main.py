"""The entry point: the commands, signals, and how an error ends the process."""

import argparse
import gc
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn, TextIO

from lading import __version__
from lading.errors import Interrupted, LadingError, internal_error
from lading.model.uri import redact
from lading.text.printable import printable
from lading.text.suggest import did_you_mean

# Each command is the module of its name in this package, and is loaded only when it is used.
_COMMANDS = {
    "pull": "deliver a model to a folder",
    "resolve": "show what would be delivered",
    "check": "find out in seconds whether a delivery will work",
    "verify": "check that a folder still holds what was delivered",
    "lock": "write the pins of URIs to a lock file, for pull --locked",
    "init": "deliver one or more models as KServe's storage initializer",
    "store": "list, verify and prune the store that deliveries share",
    "agent": "keep models current; serve health, metrics and a status page",
    "health": "ask a running agent for its state",
    "controller": "let a cluster's services follow names of models, and roll back",
    "rollout": "look at a cluster's rollouts; approve, pause, resume, go back",
}

_EPILOG = """\
examples:
  lading pull s3://models/iris /mnt/models
  lading pull model-registry://iris@champion ./iris --catalog catalog.yaml
  lading verify ./iris

exit codes:
  0 delivered    3 not found                 6 integrity
  1 internal     4 not allowed               7 no space
  2 usage        5 unavailable: try again    8 unsupported
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors have lading's form.  ``module`` adds the arguments, just before they are parsed."""

    def __init__(self, *, module: str = "", **options: Any) -> None:
        # An abbreviation that works today may be ambiguous when an option is added.
        super().__init__(allow_abbrev=False, **options)
        self._hint = f"see {self.prog} --help"
        self._module = module

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            words = [str(choice) for choice in action.choices]
            # Of lading help, say: --help.
            options = [option for option in self._option_string_actions if option == f"--{value}"]
            near = did_you_mean(str(value), options, after="--") or did_you_mean(str(value), words)
            self._hint = near or self._hint
        super()._check_value(action, value)

    def parse_known_args(self, *words: Any, **options: Any) -> tuple[Any, list[str]]:
        if self._module:
            import_module(self._module).add_arguments(self)
        found, unknown = super().parse_known_args(*words, **options)
        if unknown:
            # Here, and not in the parser above, so that the hint is this command's.
            if unknown[0].startswith("--"):
                known = [option for option in self._option_string_actions if option.startswith("--")]
                self._hint = did_you_mean(unknown[0].partition("=")[0], known, after="--") or self._hint
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        # An argument may hold a URI with a password, in quotes or after an option's name.
        shown = re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://\S*", lambda match: redact(match[0]), message)
        print(f"error[usage]: {printable(shown)}\nhint: {self._hint}", file=sys.stderr)
        sys.exit(2)


class _Version(argparse.Action):
    """Show the version.  Not argparse's own action, which needs the text at once: to find it out takes long."""

    def __call__(self, *_: object) -> NoReturn:
        from lading.network.native import told
        from lading.settings.settings import Settings

        print(f"lading {__version__} (TLS by {told(Settings.load().network)})")
        sys.exit(0)


def parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line, without loading any command."""
    top = _Parser(
        prog="lading",
        description="Bring a model, by URI or by registry name, to a folder: verified, resumable, whole or not at all.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="show the version, and which implementations do TLS")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, help_ in _COMMANDS.items():
        commands.add_parser(name, help=help_, module=f"{__package__}.{name}")
    return top


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command; returns the exit code.  ``environ`` stands for the process's own environment."""
    _open_streams()
    try:
        return _run(argv, environ)
    finally:
        _settle_streams()
        if argv is None:
            # The process ends.  A last collection of cycles would take 7 % of a small delivery.
            gc.freeze()


def _run(argv: Sequence[str] | None, environ: Mapping[str, str] | None) -> int:
    arguments = argparse.Namespace(environ=environ)
    if argv is None:
        # Modules stay loaded: collecting cycles in them takes 4 % of a small delivery, and more of a large one.
        gc.disable()
    try:
        parser().parse_args(argv, arguments)
        if argv is None:
            gc.freeze()
            gc.enable()
        # Here, and not above: it loads threads, which the help does not need.
        from lading.system.signals import Sigterm

        with Sigterm() as sigterm:
            if argv is None:
                sigterm.insist()
            code: int = arguments.run(arguments)
        return code
    except (LadingError, Interrupted) as error:
        return _fail(arguments, error, error.exit_code)
    except KeyboardInterrupt as error:
        hint = str(error) or "run it again to resume"
        return _fail(arguments, Interrupted("stopped from the keyboard", hint=hint), 130)
    except Exception as error:  # noqa: BLE001 - the last place that can say anything
        return _fail(arguments, internal_error(error), LadingError.exit_code)


def _open_streams() -> None:
    """Make both streams safe to write to, even if the caller closed them, or a text is not valid Unicode."""
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _settle_streams() -> None:
    """Discard output that a stream refuses: the interpreter would try again at exit, and end with its own code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(arguments: argparse.Namespace, error: LadingError | Interrupted, code: int) -> int:
    # Here, and not above: it loads JSON, which a run that succeeds may not need.
    from lading.cli.output import print_error

    print_error(error)
    if hasattr(arguments, "failed"):
        arguments.failed(arguments, error)
    return code
