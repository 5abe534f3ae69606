"""The settings of a run, read once: environment, KServe's storage JSON, the configuration file.

No other package reads the environment, and nothing writes to it.  One order of precedence
holds for every value: command line, credentials for a URI's prefix, ``STORAGE_OVERRIDE_CONFIG``,
``STORAGE_CONFIG``, environment, configuration file, default.  Variables that KServe injects keep
KServe's names and meanings (docs/kserve.md lists them).

Variables of one family of sources stay in ``Settings.variables`` until that family's module reads them.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from lading.errors import UsageError
from lading.model.checks import VERIFY_MODES, VerifyMode
from lading.model.uri import ModelURI
from lading.settings.credentials import CredentialRule, read_credentials, rule_for
from lading.settings.limits import Limits, Network
from lading.settings.proxies import ProxyRule, read_proxies
from lading.settings.registries import RegistryEntry, read_registries
from lading.settings.section import errors_name, refuse_unknown, shown
from lading.settings.storage import with_storage_json
from lading.settings.store import StoreSettings, read_store
from lading.settings.variables import Variables, parse_rate
from lading.text.printable import printable
from lading.text.suggest import did_you_mean

if TYPE_CHECKING:
    # Loaded where there are rules.
    from lading.settings.trust import TrustRule

LogFormat = Literal["text", "json"]
Offline = Literal["refuse", "last-known"]
Word = TypeVar("Word", bound=str)

# The sections of the configuration file and their types; besides them it may hold two words.
_SECTIONS: dict[str, type[list[Any] | dict[str, Any]]] = {
    "registries": list,
    "trust": list,
    "credentials": list,
    "proxies": list,
    "limits": dict,
    "store": dict,
    "deliveries": list,
    "agent": dict,
    "controller": dict,
}
# A later one wins over an earlier one.
_LIMIT_VARIABLES = (
    ("connect_s", "S3_CONNECT_TIMEOUT"),
    ("stall_s", "S3_READ_TIMEOUT"),
    ("attempts", "S3_MAX_ATTEMPTS"),
    ("workers", "S3_MAX_FILE_CONCURRENCY"),
    ("deadline_s", "LADING_DEADLINE_S"),
    ("stall_s", "LADING_STALL_S"),
)
# Limits for which zero says that there is none.
_ZERO_IS_NONE = ("deadline_s", "workers", "max_rate_bytes_s", "requests_per_s")
_NUMBERS = {
    "deadline_s": "seconds, for example 3600",
    "stall_s": "seconds, for example 20",
    "connect_s": "seconds, for example 10",
    "attempts": "a whole number, at least 1, for example 6",
    "workers": "a whole number, at least 0, for example 8",
    "max_rate_bytes_s": "bytes per second, for example 50000000",
    "requests_per_s": "requests per second, for example 10",
    "unpack_bytes": "a whole number, at least 1, for example 1000000000000",
    "unpack_members": "a whole number, at least 1, for example 1000000",
}
_PATTERNS = 'write ["*.json"] or *.json,*.txt'
_S3_ONLY = {"AWS_ENDPOINT_URL": "AWS_ENDPOINT_URL_S3"}
DEFAULT_CONFIG_PATH = "/etc/lading/lading.yaml"
DEFAULT_TERMINATION_LOG = "/dev/termination-log"


class Settings(NamedTuple):
    """All settings of a run; every one has a default."""

    limits: Limits = Limits()
    network: Network = Network()
    variables: Variables = Variables()
    credentials: tuple[CredentialRule, ...] = ()
    proxies: tuple[ProxyRule, ...] = ()
    registries: tuple[RegistryEntry[Any], ...] = ()
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    verify: VerifyMode = "auto"
    # The path of a lock file, or its text.
    lock: str = ""
    lock_text: str = ""
    store: StoreSettings = StoreSettings()
    trust: "tuple[TrustRule, ...]" = ()
    # What to do about a name when no registry that may answer is available.
    offline: Offline = "refuse"
    # As they are written in the configuration; settings.agent reads them.
    deliveries: tuple[Mapping[str, Any], ...] = ()
    agent: Mapping[str, Any] = MappingProxyType({})
    controller: Mapping[str, Any] = MappingProxyType({})
    # The name of the configuration in errors: a path, LADING_CONFIG_YAML or "".
    file: str = ""
    remove_strays: bool = False
    log_format: LogFormat = "text"
    termination_log: str = DEFAULT_TERMINATION_LOG
    # A folder near which a source may create temporary files (a delivery's destination); "" is the current one.
    scratch: str = ""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment (``os.environ`` by default) and the configuration file it names."""
        env = with_storage_json(Variables(os.environ if environ is None else environ))
        file, config = _read_config(env.get("LADING_CONFIG", ""), env.get("LADING_CONFIG_YAML", ""))
        with errors_name(file):
            # The whole file, also values that a variable overrides: a wrong file is an error everywhere.
            limits = _file_limits(config)
            credentials = read_credentials(config)
            proxies = read_proxies(config, env)
            registries = read_registries(config, env)
            verify = parse_verify(config.get("verify", "auto"), "verify")
            store = read_store(config, env)
            trust = _trust(config)
            offline = _choice("offline", config.get("offline", "refuse"), "refuse", "last-known")
            deliveries = _deliveries(config)
        return cls(
            limits=_limits(env, limits),
            network=_network(env),
            variables=env,
            credentials=credentials,
            proxies=proxies,
            registries=registries,
            allow=_patterns(env, "STORAGE_ALLOW_PATTERNS"),
            ignore=_patterns(env, "STORAGE_IGNORE_PATTERNS"),
            verify=parse_verify(env.get("LADING_VERIFY") or verify, "LADING_VERIFY"),
            lock=env.get("LADING_LOCK", ""),
            lock_text=_lock_text(env),
            store=store,
            trust=trust,
            offline=_choice("LADING_OFFLINE", env.get("LADING_OFFLINE") or offline, "refuse", "last-known"),
            deliveries=deliveries,
            agent=config.get("agent") or {},
            controller=config.get("controller") or {},
            file=file,
            remove_strays=env.flag("LADING_REMOVE_STRAYS"),
            log_format=_choice("LADING_LOG_FORMAT", env.get("LADING_LOG_FORMAT") or "text", "text", "json"),
            termination_log=termination_log(env),
        )

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns that choose files: ``+`` before one that allows, ``-`` before one that ignores."""
        return (*(f"+{pattern}" for pattern in self.allow), *(f"-{pattern}" for pattern in self.ignore))

    def for_uri(self, uri: ModelURI) -> "Settings":
        """These settings with the credentials and the proxy of the longest prefixes that cover ``uri``.

        The credentials are read again at each call.
        """
        rule, proxy = rule_for(self.credentials, uri), rule_for(self.proxies, uri)
        settings = self.with_variables(rule.values.read(self.variables)) if rule else self
        if proxy is None or proxy.dragonfly:
            return settings
        network = settings.network._replace(http_proxy=proxy.url, https_proxy=proxy.url, no_proxy=())
        return settings._replace(network=network)

    def relay_for(self, uri: ModelURI) -> ProxyRule | None:
        """The rule by which large files of ``uri`` may come from peers, if there is one."""
        proxy = rule_for(self.proxies, uri)
        return proxy if proxy and proxy.dragonfly else None

    def with_variables(self, values: Mapping[str, str]) -> "Settings":
        """These settings with ``values`` over the variables; they count for sources and for the network."""
        if not values:
            return self
        variables = with_storage_json(self.variables.overlaid(values))
        return self._replace(variables=variables, network=_network(variables))

    def for_registry(self, values: Mapping[str, str]) -> "Settings":
        """``with_variables`` for a URI from a registry: a registry must not choose to which host a login is sent."""
        if "AWS_ENDPOINT_URL" in values:
            # Only for S3: STS receives the web identity's token.
            values = {_S3_ONLY.get(name, name): value for name, value in values.items()}
        settings = self.with_variables(values)
        return settings._replace(variables=settings.variables.without_unscoped_logins())

    def rotating(self) -> tuple[Variables, ...]:
        """The present values of the rules for credentials; they change when a mounted secret is rotated."""
        return tuple(Variables(rule.values.read(self.variables)) for rule in self.credentials)


def termination_log(environ: Mapping[str, str] | None = None) -> str:
    """The path of the container's termination message; read separately, since other settings may be wrong."""
    return (os.environ if environ is None else environ).get("LADING_TERMINATION_LOG", DEFAULT_TERMINATION_LOG)


def parse_verify(text: object, name: str = "verify") -> VerifyMode:
    """The verification mode ``text``, where YAML's false means "off"; ``UsageError`` for any other."""
    return _choice(name, "off" if text is False else text, *VERIFY_MODES)


def _choice(name: str, text: object, *allowed: Word) -> Word:
    for word in allowed:
        if word == text:
            return word
    hint = did_you_mean(text, allowed) if isinstance(text, str) else ""
    raise UsageError(f"{name} is {shown(text)}", hint=hint or f"use one of {', '.join(allowed)}")


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """Where the configuration file is, or would be."""
    return Path((os.environ if environ is None else environ).get("LADING_CONFIG") or DEFAULT_CONFIG_PATH)


def _read_config(path: str, text: str) -> tuple[str, dict[str, Any]]:
    """Name and content of the configuration: of ``text``, if no file can be mounted, or of the file ``path``."""
    if path and text:
        raise UsageError(
            "LADING_CONFIG and LADING_CONFIG_YAML are both set",
            hint="the first is a path, the second the text itself: set only one of them",
        )
    file: Path | str = "LADING_CONFIG_YAML" if text else Path(path or DEFAULT_CONFIG_PATH)
    if isinstance(file, Path) and not path and not file.exists():
        return "", {}
    from lading.text.strict_yaml import parse_yaml, read_yaml

    if isinstance(file, Path):
        with errors_name("LADING_CONFIG" if path else ""):
            config = read_yaml(file)
    else:
        config = parse_yaml(text, file)
    refuse_unknown(config, (*_SECTIONS, "verify", "offline"), printable(str(file)))
    for key, kind in _SECTIONS.items():
        if not isinstance(config.get(key) or kind(), kind):
            noun, example = ("list", "a dash before each entry") if kind is list else ("mapping", "lines of key: value")
            raise UsageError(f"{printable(str(file))}: {key} is not a {noun}", hint=f"write {example} below {key}:")
    return str(file), config


def _lock_text(env: Mapping[str, str]) -> str:
    """The text of a lock file, which a pod may have in an annotation; "" for none."""
    text = env.get("LADING_LOCK_TEXT", "")
    if text and env.get("LADING_LOCK"):
        raise UsageError(
            "LADING_LOCK and LADING_LOCK_TEXT are both set",
            hint="the first is a path, the second the text itself: set only one of them",
        )
    return text


def _trust(config: Mapping[str, Any]) -> "tuple[TrustRule, ...]":
    if not config.get("trust"):
        return ()
    # Here, and not above: most configurations have none.
    from lading.settings.trust import read_trust

    return read_trust(config)


def _deliveries(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    items = config.get("deliveries") or []
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise UsageError(f"deliveries, entry {number} is not a mapping", hint="write its name, uri and destination")
    return tuple(items)


def _file_limits(config: Mapping[str, Any]) -> Limits:
    limits = Limits()
    given = config.get("limits") or {}
    refuse_unknown(given, Limits._fields, "limits")
    for key, value in given.items():
        limits = _with_number(limits, key, value, f"limits.{key}")
    return limits


def _limits(env: Mapping[str, str], limits: Limits) -> Limits:
    for key, variable in _LIMIT_VARIABLES:
        if env.get(variable):
            limits = _with_number(limits, key, env[variable], variable)
    if env.get("LADING_MAX_RATE"):
        with errors_name("LADING_MAX_RATE"):
            limits = limits._replace(max_rate_bytes_s=parse_rate(env["LADING_MAX_RATE"]))
    return limits


def _with_number(limits: Limits, key: str, value: object, name: str) -> Limits:
    kind = type(getattr(Limits(), key))
    least = 0 if key in _ZERO_IS_NONE else 1e-3 if kind is float else 1
    try:
        number = kind(str(value))
    except ValueError:
        number = -1
    # The first comparison is also false for "nan".
    if not least <= number < float("inf"):
        raise UsageError(f"{name} is {shown(value)}", hint=f"write {_NUMBERS[key]}")
    return limits._replace(**{key: number})


def _network(env: Variables) -> Network:
    named = [env.get(name, "") for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")]
    if env.get("CA_BUNDLE_CONFIGMAP_NAME") or env.get("AWS_CA_BUNDLE_CONFIGMAP"):
        folder = env.get("CA_BUNDLE_VOLUME_MOUNT_POINT") or "/etc/ssl/custom-certs"
        # If KServe mounts a ConfigMap for AWS_CA_BUNDLE, that variable has its path.
        if env.get("CA_BUNDLE_CONFIGMAP_NAME") or not env.get("AWS_CA_BUNDLE"):
            named.append(f"{folder}/cabundle.crt")
    no_proxy = env.either_case("no_proxy")
    return Network(
        ca_files=tuple(dict.fromkeys(name for name in named if name)),
        http_proxy=env.either_case("http_proxy") or env.either_case("all_proxy"),
        https_proxy=env.either_case("https_proxy") or env.either_case("all_proxy"),
        no_proxy=tuple(part.strip() for part in no_proxy.split(",") if part.strip()),
        tls=_choice("LADING_TLS", env.get("LADING_TLS") or "auto", "auto", "openssl", "rustls"),
    )


def _patterns(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    """A JSON array, a JSON string or a comma list."""
    text = env.get(name, "").strip()
    if text[:1] in ("[", '"'):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{name} is not valid JSON", hint=_PATTERNS) from error
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in items):
            raise UsageError(f"{name} holds something that is not a string", hint=_PATTERNS)
        return tuple(item.strip() for item in items if item.strip())
    return tuple(item.strip() for item in text.split(",") if item.strip())
