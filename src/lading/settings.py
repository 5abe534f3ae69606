"""All that configures a run, read once: environment, KServe's storage JSON, the configuration file.

The only module that reads the environment, and nothing writes to it.  An order of precedence
holds for every value: command line, ``STORAGE_OVERRIDE_CONFIG``, ``STORAGE_CONFIG``, environment,
configuration file, default.  Variables that KServe injects keep KServe's names and meanings
(docs/kserve.md lists them).
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

from lading.credentials import Secret
from lading.errors import UsageError
from lading.uri import printable

VerifyMode = Literal["auto", "strict", "off"]
VERIFY_MODES: tuple[VerifyMode, ...] = ("auto", "strict", "off")
LogFormat = Literal["text", "json"]

DEFAULT_CONFIG_PATH = "/etc/lading/lading.yaml"
DEFAULT_TERMINATION_LOG = "/dev/termination-log"
INSTANCE_METADATA_URL = "http://169.254.169.254"

# KServe's storage-spec secret (type s3): each key and the variable that it stands for.
_STORAGE_SPEC = {
    "endpoint_url": "AWS_ENDPOINT_URL",
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
    "region": "AWS_DEFAULT_REGION",
    "ca_bundle": "AWS_CA_BUNDLE",
    "verify_ssl": "S3_VERIFY_SSL",
    "anonymous": "awsAnonymousCredential",
    "use_virtual_bucket": "S3_USER_VIRTUAL_BUCKET",
    "use_accelerate": "S3_USE_ACCELERATE",
}


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
    """How to reach any host: certificates and proxies."""

    ca_files: tuple[str, ...] = ()
    verify_tls: bool = True
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: tuple[str, ...] = ()


class Aws(NamedTuple):
    """Where AWS credentials may come from (the provider chain is in ``lading.aws.credentials``)."""

    access_key_id: str = ""
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    profile: str = "default"
    config_file: str = ""
    credentials_file: str = ""
    role_arn: str = ""
    role_session_name: str = ""
    web_identity_token_file: str = ""
    sts_endpoint: str = ""
    container_url: str = ""
    container_token: Secret | None = None
    container_token_file: str = ""
    metadata_url: str = INSTANCE_METADATA_URL
    metadata_disabled: bool = False


class S3(NamedTuple):
    """How to address S3.  ``virtual_host`` None: by the endpoint (AWS: yes, any other: no)."""

    endpoint: str = ""
    region: str = ""
    virtual_host: bool | None = None
    accelerate: bool = False
    anonymous: bool = False
    verify_tls: bool = True


class RegistryEntry(NamedTuple):
    """A registry of the configuration file: its name, its kind and the options of that kind."""

    name: str
    kind: str
    options: Mapping[str, Any] = MappingProxyType({})


class Settings(NamedTuple):
    """Everything that a run may be told, with a default for all of it."""

    limits: Limits = Limits()
    network: Network = Network()
    aws: Aws = Aws()
    s3: S3 = S3()
    registries: tuple[RegistryEntry, ...] = ()
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    verify: VerifyMode = "auto"
    host_headers: Mapping[str, Secret] = MappingProxyType({})
    log_format: LogFormat = "text"
    termination_log: str = DEFAULT_TERMINATION_LOG

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the environment (``os.environ`` by default) and the configuration file it names."""
        env = _with_storage_spec(os.environ if environ is None else environ)
        config = _read_config(env.get("LADING_CONFIG", ""))
        catalog = env.get("LADING_CATALOG")
        registries = _registries(config)
        if catalog:
            registries = (*registries, RegistryEntry("catalog", "catalog", {"path": catalog}))
        return cls(
            limits=_limits(env, config),
            network=_network(env),
            aws=_aws(env),
            s3=_s3(env),
            registries=registries,
            allow=_patterns(env, "STORAGE_ALLOW_PATTERNS"),
            ignore=_patterns(env, "STORAGE_IGNORE_PATTERNS"),
            verify=parse_verify(env.get("LADING_VERIFY") or config.get("verify", "auto")),
            # KServe names the variable after the host: "models.example.com-headers".
            host_headers={
                name.removesuffix("-headers"): Secret(value) for name, value in env.items() if name.endswith("-headers")
            },
            log_format=cast(
                LogFormat, _choice("LADING_LOG_FORMAT", env.get("LADING_LOG_FORMAT") or "text", "text", "json")
            ),
            termination_log=termination_log(env),
        )


def termination_log(environ: Mapping[str, str] | None = None) -> str:
    """Where the container leaves its last word; asked for alone, since the other settings may be what is wrong."""
    return (os.environ if environ is None else environ).get("LADING_TERMINATION_LOG", DEFAULT_TERMINATION_LOG)


def parse_verify(text: str) -> VerifyMode:
    """The verification mode called ``text``; ``UsageError`` for any other."""
    return cast(VerifyMode, _choice("the verification mode", text, *VERIFY_MODES))


def parse_rate(text: str) -> float:
    """Bytes per second of, for example, ``50MiB``, ``1.5G`` or ``300000``; ``UsageError`` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?)(i?)B?(?:/s)?", text.strip())
    if match is None:
        raise UsageError(f"{printable(text)!r} is not a rate", hint="write bytes per second: 50MiB, 1.5G, 300000")
    number, prefix, binary = match.groups()
    return float(number) * (1024.0 if binary else 1000.0) ** " kMGT".index(prefix or " ")


def _choice(name: str, text: str, *allowed: str) -> str:
    if text not in allowed:
        raise UsageError(f"{name} is {text!r}", hint=f"use one of {', '.join(allowed)}")
    return text


def _with_storage_spec(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment as KServe means it: storage JSON laid over the variables it stands for."""
    env = dict(environ)
    for name in ("STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"):
        text = env.get(name)
        if not text:
            continue
        try:
            spec = json.loads(text)
        except ValueError:
            spec = None
        if not isinstance(spec, dict):
            # The text is a secret: it is not quoted.
            raise UsageError(f"{name} is not a JSON object", hint="see docs/kserve.md for its keys")
        if spec.get("access_key_id"):
            # A token belongs to its keys: one from elsewhere would make these wrong.
            env.pop("AWS_SESSION_TOKEN", None)
        if spec.get("endpoint_url"):
            env.pop("AWS_ENDPOINT_URL_S3", None)
        for key, variable in _STORAGE_SPEC.items():
            value = spec.get(key)
            if value is None or value == "":
                continue
            env[variable] = ("true" if value else "false") if isinstance(value, bool) else str(value)
        if spec.get("cabundle_configmap"):
            env["AWS_CA_BUNDLE_CONFIGMAP"] = str(spec["cabundle_configmap"])
    return env


def _read_config(path: str) -> dict[str, Any]:
    file = Path(path or DEFAULT_CONFIG_PATH)
    if not path and not file.exists():
        return {}
    from lading.yaml_file import read_yaml

    config = read_yaml(file)
    if config.get("verify") is False:
        # YAML's word for false, and the name of a mode.
        config["verify"] = "off"
    for key, kind, noun in (("registries", list, "list"), ("limits", dict, "mapping")):
        if not isinstance(config.get(key) or kind(), kind):
            raise UsageError(f"{file}: {key} is not a {noun}")
    unknown = set(config) - {"registries", "limits", "verify"}
    if unknown:
        raise UsageError(f"{file} has the unknown key {sorted(unknown)[0]!r}", hint="known: registries, limits, verify")
    return config


def _registries(config: Mapping[str, Any]) -> tuple[RegistryEntry, ...]:
    entries = []
    for item in config.get("registries") or ():
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not isinstance(item.get("kind"), str):
            raise UsageError("every registry of the configuration needs a name and a kind")
        options = {key: value for key, value in item.items() if key not in ("name", "kind")}
        entries.append(RegistryEntry(item["name"], item["kind"], options))
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        raise UsageError("two registries of the configuration have the same name")
    return tuple(entries)


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
        raise UsageError(f"{name} is {value!r}", hint=f"it takes a number from {least:g}")
    return limits._replace(**{key: number})


def _network(env: Mapping[str, str]) -> Network:
    named = [env.get(name, "") for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")]
    if env.get("CA_BUNDLE_CONFIGMAP_NAME") or env.get("AWS_CA_BUNDLE_CONFIGMAP"):
        folder = env.get("CA_BUNDLE_VOLUME_MOUNT_POINT") or "/etc/ssl/custom-certs"
        # A ConfigMap that KServe mounts for AWS_CA_BUNDLE stands where that variable says.
        if env.get("CA_BUNDLE_CONFIGMAP_NAME") or not env.get("AWS_CA_BUNDLE"):
            named.append(f"{folder}/cabundle.crt")
    no_proxy = _either(env, "no_proxy")
    return Network(
        ca_files=tuple(dict.fromkeys(name for name in named if name)),
        http_proxy=_either(env, "http_proxy") or _either(env, "all_proxy"),
        https_proxy=_either(env, "https_proxy") or _either(env, "all_proxy"),
        no_proxy=tuple(part.strip() for part in no_proxy.split(",") if part.strip()),
    )


def _aws(env: Mapping[str, str]) -> Aws:
    relative = env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    home = env.get("HOME", "")
    return Aws(
        access_key_id=env.get("AWS_ACCESS_KEY_ID", ""),
        secret_access_key=_secret(env, "AWS_SECRET_ACCESS_KEY"),
        session_token=_secret(env, "AWS_SESSION_TOKEN"),
        profile=env.get("AWS_PROFILE") or env.get("AWS_DEFAULT_PROFILE") or "default",
        config_file=env.get("AWS_CONFIG_FILE") or (f"{home}/.aws/config" if home else ""),
        credentials_file=env.get("AWS_SHARED_CREDENTIALS_FILE") or (f"{home}/.aws/credentials" if home else ""),
        role_arn=env.get("AWS_ROLE_ARN", ""),
        role_session_name=env.get("AWS_ROLE_SESSION_NAME", ""),
        web_identity_token_file=env.get("AWS_WEB_IDENTITY_TOKEN_FILE", ""),
        sts_endpoint=env.get("AWS_ENDPOINT_URL_STS", ""),
        # The fixed address of the ECS agent:
        # https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
        container_url=f"http://169.254.170.2{relative}"
        if relative
        else env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", ""),
        container_token=_secret(env, "AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        container_token_file=env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", ""),
        metadata_url=env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or INSTANCE_METADATA_URL,
        metadata_disabled=_flag(env, "AWS_EC2_METADATA_DISABLED"),
    )


def _s3(env: Mapping[str, str]) -> S3:
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or env.get("S3_ENDPOINT", "")
    if endpoint and "://" not in endpoint:
        secure = _flag(env, "S3_USE_HTTPS", default=True)
        endpoint = f"{'https' if secure else 'http'}://{endpoint}"
    # KServe's variable has the R by mistake; both spellings are understood.
    virtual = env.get("S3_USER_VIRTUAL_BUCKET") or env.get("S3_USE_VIRTUAL_BUCKET")
    return S3(
        endpoint=endpoint.rstrip("/"),
        region=env.get("AWS_DEFAULT_REGION") or env.get("AWS_REGION", ""),
        virtual_host=True if virtual and _is_true(virtual, "S3_USER_VIRTUAL_BUCKET") else None,
        accelerate=_flag(env, "S3_USE_ACCELERATE"),
        anonymous=_flag(env, "awsAnonymousCredential"),
        verify_tls=_flag(env, "S3_VERIFY_SSL", default=True),
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


def _secret(env: Mapping[str, str], name: str) -> Secret | None:
    return Secret(env[name]) if env.get(name) else None


def _either(env: Mapping[str, str], name: str) -> str:
    return env.get(name) or env.get(name.upper(), "")


def _flag(env: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    text = env.get(name, "")
    return _is_true(text, name) if text else default


def _is_true(text: str, name: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"{name} is {text!r}", hint="use true or false")
