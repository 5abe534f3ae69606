"""What is set wrong is refused: by its name, with a reason and without a secret; and the page says what is right."""

import pkgutil
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml

from command_line import lading
from fakes.oms_signer import Signer
from lading.errors import LadingError, NotFound, Unsupported, UsageError
from lading.settings.agent import AgentSettings, Canary, Delivery, OnChange, Prefetch, read_agent
from lading.settings.aws import read_aws, read_s3
from lading.settings.controller import ControllerSettings, read_controller
from lading.settings.limits import Limits
from lading.settings.registries import KINDS, Kind, RegistryEntry
from lading.settings.server import ServerSettings
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings
from lading.settings.variables import OWN, not_understood

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/configuration.md").read_text()
FULL = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[-1]
SECTIONS = {
    "limits": Limits,
    "store": StoreSettings,
    "deliveries": Delivery,
    "canary": Canary,
    "on_change": OnChange,
    "agent": AgentSettings,
    "controller": ControllerSettings,
    "prefetch": Prefetch,
}
PUBLIC_KEY = Signer().public_pem


def full() -> dict[str, Any]:
    return yaml.safe_load(FULL)


def load(tmp_path: Path, config: dict[str, Any]) -> Settings:
    """As the agent and the controller read it, which read all of it."""
    path = tmp_path / "lading.yaml"
    (tmp_path / "models.pub").write_bytes(PUBLIC_KEY)
    path.write_text(yaml.safe_dump(config, sort_keys=False).replace("/etc/lading/models.pub", f"{tmp_path}/models.pub"))
    settings = Settings.load({"LADING_CONFIG": str(path)})
    read_agent(settings)
    read_controller(settings)
    return settings


def places(config: dict[str, Any]) -> list[tuple[str | int, ...]]:
    """Every mapping of the configuration whose keys are fixed, as the way to it."""
    found: list[tuple[str | int, ...]] = [(), ("limits",), ("store",), ("agent",), ("controller",)]
    for name in ("registries", "credentials", "proxies", "deliveries", "trust"):
        found += [(name, index) for index in range(len(config[name]))]
    found += [("deliveries", 0, key) for key in ("canary", "on_change")]
    found.append(("trust", 0, "signature"))
    return [*found, ("registries", 0, "tls"), ("registries", 0, "storage", "minio"), ("registries", 1, "login", "oidc")]


def at(config: Any, way: tuple[str | int, ...]) -> Any:
    for step in way:
        config = config[step]
    return config


KEYS = [(*way, key) for way in places(full()) for key in at(full(), way)]
# What a person might write instead, by the type that is right.
WRONG: dict[type, list[Any]] = {
    str: [3, [], {}],
    int: ["many", True, None, -1, []],
    float: ["5m", True, None, -1, []],
    bool: ["yes, please", 1, None],
    list: ["text", 5, {"a": 1}],
    dict: ["text", 5, [1]],
}
# A text that is as good as what the key is for, and numbers that are texts of their own.
RIGHT = [
    (("registries", 1, "login", "oidc", key), 3)
    for key in ("issuer", "client_id", "client_secret", "scope", "audience")
]
RIGHT += [(("registries", 1, "workspace"), 3), (("credentials", 0, "folder"), []), (("credentials", 0, "folder"), {})]
RIGHT += [
    (("registries", 0, "record"), 1),
    (("registries", 1, "login", "oidc", "client_secret"), "text"),
    (("registries", 1, "login", "oidc", "client_secret"), 5),
]


def section_of(heading: str) -> dict[str, list[str]]:
    """The rows of the first table below a heading, by what is in code in their first cell."""
    text = re.split(rf"^#+ `?{heading}`?\n", PAGE, flags=re.MULTILINE)[1]
    text = re.split(r"^#", text, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == len(dict(rows))
    return {key: [cell.strip() for cell in cells.split("|")] for key, cells in rows}


def shown(way: tuple[str | int, ...]) -> str:
    return ".".join(map(str, way))


def test_the_example_on_the_page_is_understood_and_has_every_key(tmp_path):
    config = full()
    settings = load(tmp_path, config)
    assert (settings.limits.workers, len(settings.registries), len(settings.credentials)) == (16, 4, 2)
    assert len(read_agent(settings).deliveries) == 2
    for name, kind in SECTIONS.items():
        example = config["deliveries"][0]
        written = {**config, **config["agent"], **example, "deliveries": example}[name]
        lacking = set(kind._fields) - set(written)
        assert lacking == (
            {"touch", "post", "exit"} if name == "on_change" else {"deliveries"} if name == "agent" else set()
        )
    for entry in config["registries"]:
        if entry["kind"] != "mlflow":
            assert keys_of(KINDS[entry["kind"]]) <= {*entry, *keys_of(KINDS["kubeflow"])}
    assert set(config) == set(section_of("Configuration"))


@pytest.mark.parametrize("way", KEYS, ids=shown)
def test_a_value_of_a_wrong_type_is_refused_with_file_key_and_what_to_write(tmp_path, way):
    config = full()
    inside, key = at(config, way[:-1]), way[-1]
    for wrong in WRONG[type(inside[key])]:
        if any(way == right and wrong == value for right, value in RIGHT) or (not wrong and is_nothing(way, wrong)):
            continue
        with pytest.raises(LadingError) as caught:
            load(tmp_path, change(full(), way, wrong))
        said = f"{caught.value.message} | {caught.value.hint}"
        assert caught.value.message.startswith(f"{tmp_path}/lading.yaml: "), said
        assert str(key) in said, said
        assert caught.value.hint, said


def is_nothing(way: tuple[str | int, ...], wrong: object) -> bool:
    """Whether an empty value stands for a key that is left out, as ``login:`` without anything does."""
    return way[0] in ("registries", "credentials") or len(way) == 1


def change(config: dict[str, Any], way: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    at(config, way[:-1])[way[-1]] = value
    return config


@pytest.mark.parametrize("way", places(full()), ids=shown)
def test_a_key_too_many_is_refused_with_the_near_one_or_all(tmp_path, way):
    for key in at(full(), way):
        with pytest.raises(UsageError) as caught:
            load(tmp_path, change(full(), (*way, f"{key}x"), 1))
        assert f"unknown key '{key}x'" in caught.value.message
        assert caught.value.message.startswith(f"{tmp_path}/lading.yaml")
        assert f"did you mean {key}" in caught.value.hint or f"or {key}?" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        load(tmp_path, change(full(), (*way, "zzzz"), 1))
    assert caught.value.hint.startswith("known: ")


# ---- what is set wrong ---------------------------------------------------------------------

LIMITS = {
    "S3_CONNECT_TIMEOUT": (
        "0",
        "-1",
        "soon",
    ),
    "S3_READ_TIMEOUT": (
        "nan",
        "inf",
        "0",
    ),
    "S3_MAX_ATTEMPTS": (
        "0",
        "1.5",
        "-3",
    ),
    "S3_MAX_FILE_CONCURRENCY": (
        "-1",
        "many",
    ),
    "LADING_DEADLINE_S": (
        "-1",
        "1h",
    ),
    "LADING_STALL_S": ("1e999",),
}
YES_OR_NO = (
    *("S3_USE_HTTPS", "S3_VERIFY_SSL", "awsAnonymousCredential", "S3_USER_VIRTUAL_BUCKET"),
    *("S3_USE_ACCELERATE", "AWS_EC2_METADATA_DISABLED"),
)
NO_OBJECTS = ("{", "[]", '"s3cret"', "5", "null", '{"secret_access_key": "s3cret"', "s3cret")
NO_PATTERNS = ('["*.json"', '["*.json", 5]', "[null]", '"*.json', '[["a"]]')
VARIABLES = [
    *(({name: text}, name) for name, texts in LIMITS.items() for text in texts),
    *(({name: "maybe", "S3_ENDPOINT": "minio"}, name) for name in YES_OR_NO),
    *(({name: text}, name) for name in ("STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG") for text in NO_OBJECTS),
    *(({"STORAGE_ALLOW_PATTERNS": text}, "STORAGE_ALLOW_PATTERNS") for text in NO_PATTERNS),
    ({"LADING_VERIFY": "maybe"}, "maybe"),
    ({"LADING_LOG_FORMAT": "xml"}, "xml"),
]
FILES = [
    ("registry: []", "unknown key 'registry'"),
    ("registries: []\nregistries: []", "line 2: the key 'registries' is given twice"),
    ("limits: {attempts: 1, attempts: 2}", "given twice"),
    ("limits: {speed: 5}", "limits has the unknown key 'speed'"),
    ("limits: {attempts: many}", "limits.attempts"),
    ("limits: {attempts: true}", "limits.attempts"),
    ("limits: {attempts: [1]}", "limits.attempts"),
    ("limits: {attempts: null}", "limits.attempts"),
    ("limits: [1]", "limits"),
    ("limits: 5", "limits"),
    ("registries: 5", "registr"),
    ("registries: {name: a}", "registries is not a list"),
    ("registries: [{name: a}]", "needs a name and a kind"),
    ("registries: [{name: 5, kind: catalog}]", "needs a name and a kind"),
    ("registries: [catalog]", "needs a name and a kind"),
    ("registries: [{name: a, kind: catalog, path: x}, {name: a, kind: catalog, path: y}]", "same name"),
    ("registries: [{name: a, kind: foo}]", "lading.yaml: registry a is of the unknown kind 'foo'"),
    ("registries: [{name: a, kind: catalog}]", "registry a needs path"),
    ("registries: [{name: a, kind: catalog, path: 5}]", "registry a: path is not understood"),
    ("registries: [{name: a, kind: catalog, path: [x, 5]}]", "registry a: path is not understood"),
    ("registries: [{name: a, kind: catalog, path: [x, '']}]", "registry a: path is not understood"),
    ("registries: [{name: a, kind: catalog, path: x, pth: y}]", "registry a has the unknown key 'pth'"),
    ("registries: [{name: a, kind: catalog, path: x, url: https://h}]", "registry a has the unknown key 'url'"),
    ("registries: [{name: a, kind: kubeflow-catalog, url: https://h}]", "registry a needs source"),
    ("registries: [{name: a, kind: kubeflow}]", "registry a needs url"),
    (
        "registries: [{name: a, kind: mlflow, url: 'http://h.test', login: {token: t}}]",
        "its login would be sent unencr",
    ),
    ("registries: [{name: a, kind: mlflow, url: ''}]", "registry a needs url"),
    ("registries: [{name: a, kind: kubeflow, url: ftp://h}]", "registry a needs as url an http or https URL"),
    (
        "registries: [{name: a, kind: kubeflow, url: 'https://u:p@h'}]",
        "registry a needs as url an http or https URL",
    ),
    ("registries: [{name: a, kind: kubeflow, url: https://h, login: foo}]", "registry a: login is not understood"),
    (
        "registries: [{name: a, kind: kubeflow, url: https://h, login: {tokn: x}}]",
        "registry a: login has the unknown key 'tokn'",
    ),
    (
        "registries: [{name: a, kind: kubeflow, url: https://h, login: {user: u}}]",
        "registry a: login is not understood",
    ),
    (
        "registries: [{name: a, kind: kubeflow, url: https://h, login: {aws: {region: r}}}]",
        "login.aws needs service",
    ),
    (
        "registries: [{name: a, kind: kubeflow, url: https://h, login: {oidc: {client_id: c}}}]",
        "login.oidc needs either",
    ),
    (
        "registries: [{name: a, kind: kubeflow, url: https://h, login: {token: [x]}}]",
        "login.token is neither a text",
    ),
    ("registries: [{name: a, kind: kubeflow, url: https://h, tls: {cert: x}}]", "tls has the unknown key 'cert'"),
    (
        "registries: [{name: a, kind: kubeflow, url: https://h, attempts: 2.5}]",
        "registry a: attempts is not understood",
    ),
    ("registries: [{name: a, kind: mlflow, url: 'sqlite:///x'}]", "not a store of its client"),
    (
        "registries: [{name: a, kind: catalog, path: x, metadata_file: ../x}]",
        "metadata_file is not a path within",
    ),
    ("credentials: [{prefix: s3://x}]", "credentials, entry 1 (s3://x) needs a folder or variables"),
    (
        "credentials: [{prefix: s3://x, variables: {A: [b]}}]",
        "credentials, entry 1 (s3://x): variables.A is neither a text",
    ),
    ("deliveries: [x]", "deliveries, entry 1 is not a mapping"),
    ("limits: {attempts: 2.5}", "limits.attempts is 2.5"),
    ("verify: maybe", "lading.yaml: verify is 'maybe'"),
    ("verify: [off]", "verify is [False]"),
    ("verify: true", "verify is true"),
    ("- a list", "does not hold a mapping"),
    ("5: x", "mapping with text keys"),
    ("just text", "does not hold a mapping"),
    ("a: b: c", "line 1"),
    ("\n\nlimits: {", ", line "),
    ("a: !!python/object/apply:os.system ['true']", "line 1"),
    ("a: *nowhere", "line 1"),
    ("a\tb: c\n\t- d", "lading.yaml"),
    ("--- {}\n--- {}", "lading.yaml"),
    ("[" * 5000, "lading.yaml"),
    ("credentials: s3cret", "credentials"),
    ("credentials: [s3://a]", "credentials"),
    ("credentials: [{folder: /a}]", "credentials"),
    ("credentials: [{prefix: /a, folder: /a}]", "credentials"),
    ("credentials: [{prefix: s3://a, folder: /a, password: s3cret}]", "credentials"),
    ("credentials: [{prefix: s3://a, variables: [s3cret]}]", "credentials"),
]


def quotes_a_secret(error: LadingError) -> bool:
    return "s3cret" in f"{error.message} {error.hint}"


@pytest.mark.parametrize(("env", "says"), VARIABLES, ids=str)
def test_a_wrong_variable_is_refused_by_its_name_and_without_its_secret(env, says):
    with pytest.raises(UsageError, match=says) as caught:
        read_s3(Settings.load(env).variables), read_aws(Settings.load(env).variables)
    assert not quotes_a_secret(caught.value)


@pytest.mark.parametrize(("text", "says"), FILES, ids=lambda text: text[:60])
def test_a_wrong_file_is_refused_with_its_reason_and_without_its_secret(tmp_path, text, says):
    (tmp_path / "lading.yaml").write_text(text)
    with pytest.raises((UsageError, Unsupported), match=r"lading\.yaml") as caught:
        Settings.load({"LADING_CONFIG": str(tmp_path / "lading.yaml")})
    assert says in caught.value.message
    assert not quotes_a_secret(caught.value)


def test_a_file_that_is_named_must_be_there_and_readable(tmp_path):
    def load_from(name: str) -> Settings:
        return Settings.load({"LADING_CONFIG": str(tmp_path / name)})

    with pytest.raises(NotFound, match=r"nothing\.yaml"):
        load_from("nothing.yaml")
    with pytest.raises(UsageError, match=r"LADING_CONFIG: .* is a folder, not a file"):
        load_from("")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        load_from("binary.yaml")


# ---- the page ------------------------------------------------------------------------------


def type_of(key: str, kind: object) -> str:
    """A type in the page's words."""
    if key in ("high", "low"):
        return "percentage or size"
    if get_origin(kind) is Literal:
        *words, last = get_args(kind)
        return f"{', '.join(words)} or {last}"
    if get_origin(kind) is tuple:
        return "list of texts"
    named = {
        int: "whole number",
        float: "seconds" if key.endswith("_s") and not key.endswith(("bytes_s", "per_s")) else "number",
        str: "text",
    }
    named[bool] = "true or false"
    if isinstance(kind, type) and kind in named:
        return named[kind]
    return type_of(key, get_args(kind)[0]) if key == "verify" else "mapping"


def default_of(kind: Any, key: str) -> str:
    """A default as the page has it."""
    if key not in kind._field_defaults:
        return "(needed)"
    default = kind._field_defaults[key]
    if kind is Delivery and key in ("verify", "allow", "ignore"):
        return "as for all"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, str) and default:
        return f"`{default}`"
    return str(default) if isinstance(default, int) else ""


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_page_lists_every_key_with_its_type_and_default(heading):
    kind = SECTIONS[heading]
    types = get_type_hints(kind)
    wanted = {
        key: [type_of(key, types[key]), default_of(kind, key)]
        for key in kind._fields
        if (kind, key) != (AgentSettings, "deliveries")
    }
    assert {key: cells[:2] for key, cells in section_of(heading).items()} == wanted


def keys_of(kind: Kind) -> set[str]:
    """The keys that only some kinds of registries have, of which this is one."""
    return {*pkgutil.resolve_name(kind.options)._fields, *(ServerSettings._fields if kind.served else ())}


def test_the_page_lists_every_key_of_each_kind_of_registry():
    rows = section_of("registries")
    of_all = [key for key in RegistryEntry._fields if key not in ("options", "server")]
    assert {key for key, cells in rows.items() if cells[0] == "all"} == set(of_all)
    for name, kind in KINDS.items():
        told = {key for key, cells in rows.items() if cells[0] == f"`{name}`"}
        served = {key for key, cells in rows.items() if cells[0] == "all others"}
        assert told | (served if kind.served else set()) == keys_of(kind)


def test_the_page_lists_every_variable_and_the_code_reads_no_other():
    assert list(section_of("Variables")) == sorted(OWN)
    read = {
        name
        for path in (ROOT / "src/lading/settings").glob("*.py")
        for name in re.findall(r'"(LADING_[A-Z_]+)"', path.read_text())
    }
    assert read == set(OWN)


# ---- variables -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "LADING_SERVICE_HOST",
        "LADING_SERVICE_PORT",
        "LADING_SERVICE_PORT_HTTP",
        "LADING_PORT",
        "LADING_PORT_9090_TCP",
        "LADING_PORT_9090_TCP_PROTO",
        "LADING_PORT_9090_TCP_PORT",
        "LADING_PORT_9090_TCP_ADDR",
        "LADING_STORE_SERVICE_HOST",
        "LADING_CATALOG_PORT_80_TCP",
    ],
)
def test_what_kubernetes_sets_for_a_service_of_that_name_is_passed_over(name):
    assert not_understood([name, "PATH", *OWN]) == []


def test_a_variable_that_is_written_wrong_is_told_once_and_ends_nothing(tmp_path):
    (tmp_path / "model").write_text("x")
    wrong = {"LADING_VERFIY": "strict", "LADING_IMAGE_TAG": "1", "LADING_PORT": "tcp://10.0.0.1:9090"}
    outcome = lading("pull", "model", "dest", environ=wrong, cwd=tmp_path)
    assert outcome.code == 0
    warnings = [line for line in outcome.err.splitlines() if line.startswith("warning: LADING")]
    assert warnings == [
        "warning: LADING_VERFIY is not a variable of lading's, and changes nothing (did you mean LADING_VERIFY?)",
        "warning: LADING_IMAGE_TAG is not a variable of lading's, and changes nothing (docs/configuration.md lists them)",
    ]
    outcome = lading("pull", "model", "dest", "--log-format", "json", environ=wrong, cwd=tmp_path)
    assert [line["level"] for line in outcome.logs[:2]] == ["warning", "warning"]
