import re
import subprocess
import sys

import pytest

from command_line import ENVIRONMENT, LADING, lading
from lading import __version__
from lading.errors import LadingError

COMMANDS = ("pull", "resolve", "check", "verify", "lock", "init", "agent", "health")


def test_help_names_every_command_and_every_exit_code():
    outcome = lading("--help")
    assert (outcome.code, outcome.err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^ +{command} +\w", outcome.out, re.MULTILINE)
    codes = set(map(int, re.findall(r"(?:^|  )(\d) [a-z]", outcome.out, re.MULTILINE)))
    assert codes == {0} | {error.exit_code for error in tree(LadingError) if error.exit_code < 128}


def tree(root):
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_explains_every_argument(command):
    outcome = lading(command, "--help", environ={"COLUMNS": "80"})
    assert (outcome.code, outcome.err) == (0, "")
    arguments = outcome.out.partition("positional arguments:")[2] or outcome.out.partition("options:")[2]
    for line in arguments.splitlines():
        if re.fullmatch(r"  \S.*", line) and len(line) < 24:
            assert re.search(r"\S {2,}\S", line) or followed_by_text(arguments, line), line
    assert all(len(line) <= 80 for line in outcome.out.splitlines())


def followed_by_text(text, line):
    return re.match(r"\n {20,}\S", text.partition(line)[2]) is not None


def test_the_version_is_the_package_s():
    assert re.fullmatch(rf"lading {re.escape(__version__)} \(TLS by .*OpenSSL 3.*\)\n", lading("--version").out)


def loaded_by(*argv):
    """The modules that a run of Python imports."""
    command = [sys.executable, "-X", "importtime", *argv]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}


# Each costs 5 ms or more; none is needed to say "wrong option".
HEAVY = {
    "lading.deliver",
    "lading.settings.settings",
    "pathlib",
    "json",
    "ssl",
    "yaml",
    "awscrt",
    "http.server",
    "ctypes",
}


def test_help_loads_nothing_that_moves_bytes():
    loaded = loaded_by(*LADING[1:], "--help")
    assert "lading.cli.main" in loaded
    assert loaded & HEAVY == set()


def test_importing_lading_loads_none_of_its_parts():
    loaded = loaded_by("-c", "import lading")
    assert {name for name in loaded if name.split(".")[0] == "lading"} == {"lading"}


def test_a_local_delivery_loads_no_network_stack(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"1")
    loaded = loaded_by(*LADING[1:], "pull", str(tmp_path / "model.bin"), str(tmp_path / "dest"))
    assert "lading.deliver" in loaded
    assert loaded & {"ssl", "yaml", "awscrt", "http.server", "lading.sources.s3", "lading.unpack.archive"} == set()


@pytest.mark.parametrize("option", ["--digest", "--verify"])
def test_what_checks_bytes_is_no_option_of_a_command_that_only_lists(option, tmp_path):
    outcome = lading("lock", option, "off", tmp_path)
    assert outcome.code == 2
    assert f"unrecognized arguments: {option}" in outcome.err


def test_the_help_names_every_scheme_that_is_read():
    shown = lading("pull", "--help").out
    for scheme in ("s3", "gs", "hf", "oci", "git+https", "hdfs", "mlflow", "model-registry", "https", "file"):
        assert f"{scheme}://" in shown
