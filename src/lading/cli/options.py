"""Options that several commands share, and the settings and requests that are made of them."""

import argparse
from pathlib import Path

from lading.cli import output
from lading.delivery.request import Request
from lading.errors import UsageError
from lading.model.digest import Digest
from lading.settings.catalog import CatalogSettings
from lading.settings.registries import RegistryEntry
from lading.settings.settings import Settings
from lading.settings.variables import OWN, not_understood, parse_rate
from lading.text.suggest import did_you_mean

URI_HELP = (
    "s3://…, gs://…, https://…, hf://…, modelscope://…, oci://…, git+https://…, hdfs://…, file://… or a path; "
    "a name in a registry: model-registry://…, mlflow://…"
)


def add_choice_options(command: argparse.ArgumentParser) -> None:
    """Add the options that choose the catalog and the files."""
    command.add_argument("--catalog", metavar="FILE", help="a catalog that resolves model-registry:// names")
    command.add_argument(
        "--allow",
        action="append",
        metavar="PATTERN",
        help="deliver only paths like this (repeatable): '*.onnx' in any folder, or 'onnx/'",
    )
    command.add_argument("--ignore", action="append", metavar="PATTERN", help="leave out paths like this (repeatable)")


def add_verify_options(command: argparse.ArgumentParser) -> None:
    """Add the options for the verification of files."""
    command.add_argument(
        "--digest", metavar="ALG:HEX", help="the digest that a model of one file must have, e.g. sha256:…"
    )
    command.add_argument(
        "--verify",
        choices=("auto", "strict", "off"),
        help="check what the origin declares (auto, the default), refuse files without a digest (strict), "
        "or check only --digest and the catalog's digests (off)",
    )


def add_transfer_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--locked", metavar="FILE", help="deliver exactly the version that this lock file pins")
    command.add_argument(
        "--remove-strays", action="store_true", help="first remove from DEST every file that lading did not deliver"
    )
    command.add_argument("--max-rate", metavar="RATE", help="bytes per second at most, over all connections: 50MiB, 1G")


def add_output_options(command: argparse.ArgumentParser, json_help: str) -> None:
    command.add_argument("--json", action="store_true", help=json_help)
    command.add_argument("--log-format", choices=("text", "json"), help="how progress and errors are written")


def read_settings(arguments: argparse.Namespace) -> Settings:
    """The settings of the environment, with a warning of unknown variables; also sets the format of messages."""
    output.use_format(arguments.log_format)
    settings = Settings.load(arguments.environ)
    output.use_format(arguments.log_format or settings.log_format)
    for name in not_understood(settings.variables):
        # No error: others set variables, too, and an older lading may meet the variables of a newer one.
        hint = did_you_mean(name, OWN, after="LADING_") or "docs/configuration.md lists them"
        output.warn(f"{name} is not a variable of lading's, and changes nothing", hint)
    return settings


def load_settings(arguments: argparse.Namespace) -> Settings:
    """``read_settings`` with the options of the command line over them."""
    settings = read_settings(arguments)
    if arguments.catalog:
        settings = settings._replace(
            registries=(RegistryEntry("catalog", "catalog", CatalogSettings(arguments.catalog)),)
        )
    if getattr(arguments, "max_rate", None):
        rate = parse_rate(arguments.max_rate)
        settings = settings._replace(limits=settings.limits._replace(max_rate_bytes_s=rate))
    locked = getattr(arguments, "locked", None)
    return settings._replace(
        lock=locked or settings.lock,
        lock_text="" if locked else settings.lock_text,
        remove_strays=getattr(arguments, "remove_strays", False) or settings.remove_strays,
        allow=tuple(arguments.allow or settings.allow),
        ignore=tuple(arguments.ignore or settings.ignore),
        verify=getattr(arguments, "verify", None) or settings.verify,
    )


def request_for(arguments: argparse.Namespace, uri: str, destination: str) -> Request:
    """The request for one delivery by the command line."""
    if not destination:
        raise UsageError("the destination is an empty string", hint="name a folder")
    return Request(uri, Path(destination), Digest.parse(arguments.digest) if arguments.digest else None)
