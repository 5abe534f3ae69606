"""Rules of the whole source tree, read from the tree itself."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import lading
from lading.settings.families import FAMILIES

ROOT = Path(lading.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
PACKAGES = [module for module in MODULES if module.name == "__init__.py"]
TREE = Path(__file__).parent.parent
TESTS = sorted((TREE / "tests").rglob("*.py"))
PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())
SDKS = (
    "boto3",
    "botocore",
    "awscrt",
    "google",
    "azure",
    "requests",
    "urllib3",
    "httpx",
    "aiohttp",
    "yaml",
    "opentelemetry",
)


def name_of(module: Path) -> str:
    return str(module.relative_to(ROOT))


@cache
def tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text())


def used_names(module: Path) -> Iterator[str]:
    """Every dotted name that the module uses or imports."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls_in(module: Path) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(tree(module)) if isinstance(node, ast.Call))


def users_of(*names: str) -> set[str]:
    return {name_of(module) for module in MODULES if set(used_names(module)) & set(names)}


def test_the_rules_look_at_the_whole_tree() -> None:
    assert {"deliver.py", "transfer/scheduler.py", "sources/s3.py", "cli/main.py"} <= set(map(name_of, MODULES))
    assert users_of("os") >= {"settings/settings.py", "system/disk.py"}


def test_the_drawing_of_the_layers_is_what_the_check_holds() -> None:
    [contract] = [each for each in PROJECT["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    [drawing] = re.findall(r"```\n(cli .*?)```", (TREE / "ARCHITECTURE.md").read_text(), re.DOTALL)
    drawn = [line.split("  ")[0] for line in drawing.splitlines()]
    assert ["__main__", *drawn] == contract["layers"]


def test_no_package_keeps_its_main_noun_in_its_init() -> None:
    """There a package says what belongs into it, and what it has for others; all that it defines has a file's name."""
    assert len(PACKAGES) > 10
    for package in PACKAGES:
        kinds = {type(node) for node in tree(package).body}
        if package != ROOT / "__init__.py":  # whose names are loaded when they are asked for
            assert kinds <= {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign}, name_of(package)


def test_the_modules_that_a_package_draws_are_those_that_it_has() -> None:
    drawings = 0
    for package in PACKAGES:
        for paragraph in (ast.get_docstring(tree(package)) or "").split("\n\n"):
            if len(re.findall(r"^ *\w+ {2,}\S", paragraph, re.MULTILINE)) > 1:
                drawings += 1
                drawn = {line.split()[0] for line in paragraph.splitlines()}
                assert drawn == {path.stem for path in package.parent.iterdir() if is_module(path)}, name_of(package)
    assert drawings


def is_module(path: Path) -> bool:
    return not path.name.startswith("__")


# A file for each provider or command, named after it, whatever else has that name.
ROOMS = {"auth", "cli", "registries", "settings", "sources"}


def test_no_file_has_the_name_of_another_one() -> None:
    others = [module.stem for module in MODULES if is_module(module) and module.parent.name not in ROOMS]
    assert not {stem for stem in others if others.count(stem) > 1}
    for room in ROOMS:
        inside = [module.stem for module in (ROOT / room).rglob("*.py") if is_module(module)]
        assert len(inside) == len(set(inside)), room


def test_no_two_values_have_the_same_fields() -> None:
    """They would be one thing under two names; an event is told from others by its name alone."""
    seen: dict[frozenset[str], str] = {}
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef) and "NamedTuple" in map(ast.unparse, node.bases):
                fields = [each.target.id for each in node.body if isinstance(each, ast.AnnAssign)]
                twin = seen.setdefault(frozenset(fields), f"{name_of(module)}: {node.name}")
                own = f"{name_of(module)}: {node.name}"
                assert twin == own or name_of(module) == "events.py" or len(fields) == 1, (twin, own)
    assert len(seen) > 50


def test_every_source_has_a_scene_for_the_conformance_suites() -> None:
    sources = {path.stem for path in (ROOT / "sources").iterdir() if is_module(path)}
    opened = {target.partition(":")[0].split(".")[2] for family in FAMILIES for target in family.schemes.values()}
    assert opened <= sources
    scenes = {path.stem for path in (TREE / "tests/conformance/scenes").iterdir()}
    assert sources - scenes == {"source", "schemes", "paged_list"}


def test_sources_do_not_know_each_other() -> None:
    shared = {"lading.sources.source", "lading.sources.schemes", "lading.sources.paged_list"}
    siblings = {f"lading.sources.{path.stem}" for path in (ROOT / "sources").iterdir()} - shared
    assert "lading.sources.git" in siblings
    for module in MODULES:
        if name_of(module).startswith("sources/") and name_of(module) != "sources/schemes.py":
            own = f"lading.sources.{module.relative_to(ROOT / 'sources').parts[0].removesuffix('.py')}"
            used = {".".join(name.split(".")[:3]) for name in used_names(module)}
            assert used & siblings <= {own}, name_of(module)


def test_only_settings_reads_the_environment() -> None:
    assert users_of("os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv") == {"settings/settings.py"}


def test_who_starts_threads() -> None:
    starters = users_of(
        "threading.Thread",
        "threading.Timer",
        "concurrent.futures",
        "concurrent.futures.ThreadPoolExecutor",
        "multiprocessing",
        "asyncio",
        "_thread",
        "os.fork",
        "http.server",
        "http.server.ThreadingHTTPServer",
        "socketserver.ThreadingTCPServer",
    )
    assert "transfer/scheduler.py" in starters
    # A probe must be answered while a delivery takes hours, and so in a thread of its own; so has each delivery.
    servers = ("agent/http_server.py", "agent/cycle.py", "telemetry/otlp.py", "system/")
    assert {name for name in starters if not name.startswith(("transfer/", *servers))} == set()


def test_every_thread_has_a_name() -> None:
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "threading.Thread":
                assert "name" in {keyword.arg for keyword in node.keywords}, f"{name_of(module)}:{node.lineno}"


def test_there_is_one_http_client_and_one_place_that_opens_sockets() -> None:
    assert users_of("http.client", "urllib.request", "requests", "httpx", "urllib3", "aiohttp") == set()
    # The endpoint of the agent handles sockets that have come to it.
    assert users_of("socket.create_connection", "socket.socket") <= {
        "network/addresses.py",
        "network/dial.py",
        "network/wire.py",
        # It takes what was connected there.
        "network/native.py",
        "agent/http_server.py",
    }


def test_no_source_retries() -> None:
    """One attempt each: how often, and how patiently, is for the client to say, and for the transfer."""
    sources = [module for module in MODULES if name_of(module).startswith("sources/")]
    attributes = {node.attr for module in sources for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)}
    assert "ask" in attributes
    assert "retry" not in attributes
    assert not {"lading.retry"} & {name for module in sources for name in used_names(module)}


def test_no_shell_is_run_and_nobody_sleeps() -> None:
    assert users_of("os.system", "os.popen", "time.sleep", "pickle", "marshal", "shelve", "subprocess") == set()


def test_only_the_edge_prints() -> None:
    for module in MODULES:
        if not name_of(module).startswith("cli/"):
            calls = [node.func for node in ast.walk(tree(module)) if isinstance(node, ast.Call)]
            assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}, name_of(module)
            assert not {"sys.stdout", "sys.stderr"} & set(used_names(module)), name_of(module)


def loaded_by(code: str) -> set[str]:
    code += "\nimport sys\nprint(' '.join(sys.modules))"
    environment = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nowhere"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import lading",
        "import lading.cli.main; lading.cli.main.parser()",
        "from lading.settings.settings import Settings; Settings.load()",
        "import lading; lading.pull; lading.resolve",
    ],
)
def test_importing_lading_loads_no_sdk_and_nothing_that_only_some_deliveries_need(code: str) -> None:
    loaded = loaded_by(code)
    assert "lading" in loaded
    assert {name for name in loaded if name.partition(".")[0] in SDKS} == set()


def test_a_delivery_of_a_folder_loads_no_other_source(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_text("a")
    loaded = loaded_by(f"import lading; lading.pull({str(tmp_path / 'source')!r}, {str(tmp_path / 'dest')!r})")
    assert "lading.sources.local" in loaded
    assert (
        not {"lading.sources.s3", "lading.sources.http", "lading.unpack.archive", "awscrt", "yaml", "botocore"} & loaded
    )


def test_every_test_that_is_left_out_says_why() -> None:
    skips = 0
    for module in TESTS:
        for call in calls_in(module):
            name = ast.unparse(call.func)
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            if name in ("pytest.mark.skip", "pytest.mark.skipif", "pytest.importorskip"):
                assert "reason" in given, f"{module.name}:{call.lineno}"
            elif name == "pytest.skip":
                assert call.args or "reason" in given, f"{module.name}:{call.lineno}"
            skips += "skip" in name
            assert not name.endswith(".xfail"), f"{module.name}:{call.lineno}: what fails is mended, or is no test"
    assert skips > 20


def test_the_name_of_a_failed_test_fits_a_line() -> None:
    """Of this width: pytest cuts what is longer, at the end, where the sentence says what is wanted."""
    width = PROJECT["tool"]["ruff"]["line-length"]
    for module in TESTS:
        for node in tree(module).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                line = f"FAILED {module.relative_to(TREE)}::{node.name}"
                assert len(line) <= width, line


# Seconds to import, each: the tests that ask one import it themselves.
OFFICIAL_CLIENTS = (
    *("azure", "boto3", "botocore", "dulwich", "google.auth", "google.cloud", "hdfs", "huggingface_hub", "kubernetes"),
    *("mlflow", "model_registry", "modelscope_hub", "moto", "opentelemetry.sdk", "oras", "requests", "urllib3"),
)


def test_to_collect_the_tests_imports_no_official_client() -> None:
    used_within = set()
    for module in TESTS:
        if module.parent.name in ("real", "cluster") or module.name == "mlflow_client.py":  # which run apart
            continue
        at_once = set(imported(tree(module).body))
        used_within |= {name for name in used_names(module) if name.startswith(OFFICIAL_CLIENTS)} - at_once
        assert not {name for name in at_once if f"{name}.".startswith(tuple(f"{c}." for c in OFFICIAL_CLIENTS))}, module
    assert {"boto3", "huggingface_hub", "model_registry"} <= used_within


def imported(nodes: list[ast.stmt]) -> Iterator[str]:
    """What these statements import, at once and not when they are called."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
