"""All that configures a run, read once: environment, KServe's storage JSON, the configuration file.

The only package that reads the environment, and nothing writes to it.  An order of precedence
holds for every value: command line, credentials for a URI's prefix, ``STORAGE_OVERRIDE_CONFIG``,
``STORAGE_CONFIG``, environment, configuration file, default.  Variables that KServe injects keep
KServe's names and meanings (docs/kserve.md lists them).

What only some sources need stays in ``Settings.variables`` until the module of its family reads it.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from lading.errors import UsageError
from lading.settings.credentials import CredentialRule, read_credentials, rule_for
from lading.settings.registries import RegistryEntry, read_registries
from lading.settings.storage import with_storage_json
from lading.settings.store import StoreSettings, read_store
from lading.settings.variables import Variables, parse_rate
from lading.uri import ModelURI

VerifyMode = Literal["auto", "strict", "off"]
VERIFY_MODES: tuple[VerifyMode, ...] = ("auto", "strict", "off")
LogFormat = Literal["text", "json"]
Offline = Literal["refuse", "last-known"]
Word = TypeVar("Word", bound=str)

DEFAULT_CONFIG_PATH = "/etc/lading/lading.yaml"
DEFAULT_TERMINATION_LOG = "/dev/termination-log"


class Limits(NamedTuple):
    """Bounds of one run.  Zero means "none" for the deadline and the rate, and "found by the transfer" for workers."""

    deadline_s: float = 0.0
    stall_s: float = 20.0
    connect_s: float = 10.0
    attempts: int = 6
    workers: int = 0
    max_rate_bytes_s: float = 0.0
    # A guard against archive bombs, far above any model: the largest open ones are about 1.5 TB.
    unpack_bytes: int = 4 << 40
    unpack_members: int = 1_000_000


class Network(NamedTuple):
    """How to reach any host: certificates and proxies.

    The client's own certificate and key are files of PEM text, loaded anew when they are rotated.
    """

    ca_files: tuple[str, ...] = ()
    verify_tls: bool = True
    client_certificate: str = ""
    client_key: str = ""
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: tuple[str, ...] = ()


class Settings(NamedTuple):
    """Everything that a run may be told, with a default for all of it."""

    limits: Limits = Limits()
    network: Network = Network()
    variables: Variables = Variables()
    credentials: tuple[CredentialRule, ...] = ()
    registries: tuple[RegistryEntry, ...] = ()
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    verify: VerifyMode = "auto"
    lock: str = ""
    store: StoreSettings = StoreSettings()
    # What to do about a name when no registry that may answer is available.
    offline: Offline = "refuse"
    # As the configuration has them; settings.agent reads them.
    deliveries: tuple[Mapping[str, Any], ...] = ()
    agent: Mapping[str, Any] = MappingProxyType({})
    remove_strays: bool = False
    log_format: LogFormat = "text"
    termination_log: str = DEFAULT_TERMINATION_LOG
    # A folder near which a source may create temporary files (a delivery's destination); "" is the current one.
    scratch: str = ""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment (``os.environ`` by default) and the configuration file it names."""
        env = with_storage_json(Variables(os.environ if environ is None else environ))
        config = _read_config(env.get("LADING_CONFIG", ""), env.get("LADING_CONFIG_YAML", ""))
        return cls(
            limits=_limits(env, config),
            network=_network(env),
            variables=env,
            credentials=read_credentials(config),
            registries=read_registries(config, env),
            allow=_patterns(env, "STORAGE_ALLOW_PATTERNS"),
            ignore=_patterns(env, "STORAGE_IGNORE_PATTERNS"),
            verify=parse_verify(env.get("LADING_VERIFY") or config.get("verify", "auto")),
            lock=env.get("LADING_LOCK", ""),
            store=read_store(config, env),
            offline=_choice(
                "offline", env.get("LADING_OFFLINE") or config.get("offline", "refuse"), "refuse", "last-known"
            ),
            deliveries=_deliveries(config),
            agent=config.get("agent") or {},
            remove_strays=env.flag("LADING_REMOVE_STRAYS"),
            log_format=_choice("LADING_LOG_FORMAT", env.get("LADING_LOG_FORMAT") or "text", "text", "json"),
            termination_log=termination_log(env),
        )

    @property
    def patterns(self) -> tuple[str, ...]:
        """Those that choose files: ``+`` before one that allows, ``-`` before one that ignores."""
        return (*(f"+{pattern}" for pattern in self.allow), *(f"-{pattern}" for pattern in self.ignore))

    def for_uri(self, uri: ModelURI) -> "Settings":
        """These settings with the credentials for ``uri``, read anew: those of the longest prefix that covers it."""
        rule = rule_for(self.credentials, uri)
        return self.with_variables(rule.values_now(self.variables)) if rule else self

    def with_variables(self, values: Mapping[str, str]) -> "Settings":
        """These settings with ``values`` laid over the variables, for sources and for how hosts are reached."""
        if not values:
            return self
        variables = with_storage_json(self.variables.overlaid(values))
        return self._replace(variables=variables, network=_network(variables))

    def rotating(self) -> tuple[Variables, ...]:
        """What the rules for credentials say now: it changes when a mounted secret is rotated."""
        return tuple(Variables(rule.values_now(self.variables)) for rule in self.credentials)


def termination_log(environ: Mapping[str, str] | None = None) -> str:
    """Where the container leaves its last word; asked for alone, since the other settings may be what is wrong."""
    return (os.environ if environ is None else environ).get("LADING_TERMINATION_LOG", DEFAULT_TERMINATION_LOG)


def parse_verify(text: str) -> VerifyMode:
    """The verification mode called ``text``; ``UsageError`` for any other."""
    return _choice("the verification mode", text, *VERIFY_MODES)


def _choice(name: str, text: object, *allowed: Word) -> Word:
    for word in allowed:
        if word == text:
            return word
    raise UsageError(f"{name} is {text!r}", hint=f"use one of {', '.join(allowed)}")


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """Where the configuration file is, or would be."""
    return Path((os.environ if environ is None else environ).get("LADING_CONFIG") or DEFAULT_CONFIG_PATH)


def _read_config(path: str, text: str) -> dict[str, Any]:
    """The configuration: ``text`` itself, for containers that no file can be mounted into, or the file at ``path``."""
    if path and text:
        raise UsageError("LADING_CONFIG and LADING_CONFIG_YAML are both set", hint="one is a path, the other the text")
    file: Path | str = "LADING_CONFIG_YAML" if text else Path(path or DEFAULT_CONFIG_PATH)
    if isinstance(file, Path) and not path and not file.exists():
        return {}
    from lading.yaml_file import parse_yaml, read_yaml

    config = read_yaml(file) if isinstance(file, Path) else parse_yaml(text, file)
    if config.get("verify") is False:
        # YAML's word for false, and the name of a mode.
        config["verify"] = "off"
    for key, kind, noun in (
        ("registries", list, "list"),
        ("credentials", list, "list"),
        ("limits", dict, "mapping"),
        ("store", dict, "mapping"),
        ("deliveries", list, "list"),
        ("agent", dict, "mapping"),
    ):
        if not isinstance(config.get(key) or kind(), kind):
            raise UsageError(f"{file}: {key} is not a {noun}")
    known = ("registries", "credentials", "limits", "store", "verify", "offline", "deliveries", "agent")
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise UsageError(f"{file} has the unknown key {unknown[0]!r}", hint=f"known: {', '.join(known)}")
    return config


def _deliveries(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    items = config.get("deliveries") or []
    if not all(isinstance(item, dict) for item in items):
        raise UsageError("a delivery of the configuration is not a mapping", hint="write its name, uri and destination")
    return tuple(items)


def _limits(env: Mapping[str, str], config: Mapping[str, Any]) -> Limits:
    limits = Limits()
    given = config.get("limits") or {}
    known = set(Limits._fields)
    for key, value in given.items():
        if key not in known:
            raise UsageError(
                f"the configuration has the unknown limit {key!r}", hint=f"known: {', '.join(sorted(known))}"
            )
        limits = _with_number(limits, key, value, f"limits.{key}")
    for key, variable in (
        ("connect_s", "S3_CONNECT_TIMEOUT"),
        ("stall_s", "S3_READ_TIMEOUT"),
        ("attempts", "S3_MAX_ATTEMPTS"),
        ("workers", "S3_MAX_FILE_CONCURRENCY"),
        ("deadline_s", "LADING_DEADLINE_S"),
        ("stall_s", "LADING_STALL_S"),
    ):
        if env.get(variable):
            limits = _with_number(limits, key, env[variable], variable)
    if env.get("LADING_MAX_RATE"):
        limits = limits._replace(max_rate_bytes_s=parse_rate(env["LADING_MAX_RATE"]))
    return limits


def _with_number(limits: Limits, key: str, value: object, name: str) -> Limits:
    kind = type(getattr(limits, key))
    try:
        number = kind(str(value))
    except ValueError:
        number = -1
    least = 0 if key in ("deadline_s", "workers", "max_rate_bytes_s") else 1e-3 if kind is float else 1
    # The first comparison is also false for "nan".
    if not least <= number < float("inf"):
        raise UsageError(f"{name} is {value!r}", hint=f"use a number of at least {least:g}")
    return limits._replace(**{key: number})


def _network(env: Variables) -> Network:
    named = [env.get(name, "") for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")]
    if env.get("CA_BUNDLE_CONFIGMAP_NAME") or env.get("AWS_CA_BUNDLE_CONFIGMAP"):
        folder = env.get("CA_BUNDLE_VOLUME_MOUNT_POINT") or "/etc/ssl/custom-certs"
        # A ConfigMap that KServe mounts for AWS_CA_BUNDLE stands where that variable says.
        if env.get("CA_BUNDLE_CONFIGMAP_NAME") or not env.get("AWS_CA_BUNDLE"):
            named.append(f"{folder}/cabundle.crt")
    no_proxy = env.either_case("no_proxy")
    return Network(
        ca_files=tuple(dict.fromkeys(name for name in named if name)),
        http_proxy=env.either_case("http_proxy") or env.either_case("all_proxy"),
        https_proxy=env.either_case("https_proxy") or env.either_case("all_proxy"),
        no_proxy=tuple(part.strip() for part in no_proxy.split(",") if part.strip()),
    )


def _patterns(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    """A JSON array, a JSON string or a comma list."""
    text = env.get(name, "").strip()
    if text[:1] in ("[", '"'):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{name} is not valid JSON", hint='write ["*.json"] or *.json,*.txt') from error
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in items):
            raise UsageError(f"{name} holds something that is not a string")
        return tuple(item.strip() for item in items if item.strip())
    return tuple(item.strip() for item in text.split(",") if item.strip())
