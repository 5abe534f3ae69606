"""Variables: a mapping of names to texts, like an environment, and functions that read the texts.

They are a copy of the environment with KServe's storage JSON and the credentials of one URI laid over it.
The module of each family of sources reads its own variables (``settings.aws``, ``settings.google``, …), so
that a delivery loads only the families it uses.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from lading.errors import UsageError
from lading.model.origin import host_and_port
from lading.secret import Secret
from lading.settings.families import DEPENDENTS, HOSTED
from lading.text.printable import printable

# lading's own; docs/configuration.md says what each means.
OWN = (
    "LADING_CATALOG",
    "LADING_CONFIG",
    "LADING_CONFIG_YAML",
    "LADING_DEADLINE_S",
    "LADING_LOCK",
    "LADING_LOCK_TEXT",
    "LADING_LOG_FORMAT",
    "LADING_MAX_RATE",
    "LADING_OFFLINE",
    "LADING_REMOVE_STRAYS",
    "LADING_STALL_S",
    "LADING_STORE",
    "LADING_TERMINATION_LOG",
    "LADING_TLS",
    "LADING_VERIFY",
)
# Variables that Kubernetes sets in every pod for a Service that is called lading, or lading-something
# (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
_OF_A_SERVICE = r"LADING_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"

MOST_PORT = 65535
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# A host name that no host has, for a login that must not be sent.
_NOBODY = "-"


class Variables(Mapping[str, str]):
    """An immutable mapping of names to texts, any of which may be a secret: its values are never printed."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = dict(values or {})

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<{len(self)} variables>"

    def overlaid(self, values: Mapping[str, str]) -> "Variables":
        """These variables, replaced and completed by ``values``; dependents of a replaced variable are dropped."""
        if not values:
            return self
        gone = {name for key in values for name in DEPENDENTS.get(key, ())}
        return Variables({name: text for name, text in self._values.items() if name not in gone} | dict(values))

    def without_unscoped_logins(self) -> "Variables":
        """These variables without logins that name no host: for a URI that somebody else chose."""
        open_to_any = (host for host, names in HOSTED.items() if self.first(*names) and not self.get(host))
        return self.overlaid(dict.fromkeys(open_to_any, _NOBODY))

    def secret(self, *names: str) -> Secret | None:
        """The value of the first of ``names`` that is not empty, checked as ``exact`` does; None if there is none."""
        return Secret(text) if (text := self.exact(*names)) else None

    def document(self, name: str) -> Secret | None:
        """A secret whose outer white space has no meaning, such as JSON; None if it is empty or missing."""
        return Secret(text) if (text := self.get(name, "").strip()) else None

    def exact(self, *names: str) -> str:
        """The first value that is not empty, or ""; ``UsageError`` for stray white space, as it is sent unchanged."""
        name = next((name for name in names if self.get(name)), "")
        return exact(self.get(name, ""), name)

    def first(self, *names: str) -> str:
        """The first value that is not empty, or ""."""
        return next((text for name in names if (text := self.get(name))), "")

    def either_case(self, name: str) -> str:
        """The value of ``name``, in lower case or in capitals."""
        return self.first(name, name.upper())

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Whether the value means yes; ``UsageError`` when it means neither yes nor no."""
        text = self.get(name)
        return is_true(text, name) if text else default


def not_understood(names: Iterable[str]) -> list[str]:
    """The ``names`` that look like lading's own variables but are not known, such as LADING_VERFIY."""
    return [
        name
        for name in names
        if name.startswith("LADING_") and name not in OWN and not re.fullmatch(_OF_A_SERVICE, name)
    ]


def exact(text: str, name: str) -> str:
    """``text`` itself; ``UsageError``, which names ``name``, if white space or a line end came with it."""
    if text != text.strip() or _CONTROL.search(text):
        raise UsageError(
            f"{printable(name)} begins or ends with white space, or holds a line break",
            hint="echo adds a line end: create the Secret with printf or with kubectl's --from-literal",
        )
    return text


def is_true(text: str, name: str) -> bool:
    """Whether ``text`` means yes; ``UsageError``, which names ``name``, when it means neither yes nor no."""
    if text.strip().lower() in ("1", "true", "yes", "on"):
        return True
    if text.strip().lower() in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"{name} is {text!r}", hint="use true or false")


def is_for(named: str, authority: str, default_port: int) -> bool:
    """Whether ``named`` (``host`` or ``host:port``; "" is any) covers ``authority``, the ``host[:port]`` of a URI."""
    host, port = host_and_port(named)
    found, found_port = host_and_port(authority)
    return not named or (host == found and port in (None, found_port or default_port))


def why_withheld(family: str, host: str) -> str:
    """The hint why the login of ``family`` was not sent; ``host`` is the value of its variable for the host."""
    login = f"{family}_USERNAME and {family}_PASSWORD"
    if host == _NOBODY:
        return f"{login} are not sent where a registry leads: say in {family}_HOST for which host they are, or in credentials for which prefix"
    return f"{login} are for {printable(host)} alone, as {family}_HOST says"


def parse_port(text: str) -> int:
    """A port, read from digits; 0 means any that is free.  ``UsageError`` for anything else."""
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > MOST_PORT:
        raise UsageError(f"{printable(text)!r} is not a port", hint=f"write a number up to {MOST_PORT}")
    return int(text)


def parse_rate(text: str) -> float:
    """Bytes per second, read from a text like ``50MiB``, ``1.5G`` or ``300000``; ``UsageError`` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?)(i?)B?(?:/s)?", text.strip())
    if match is None:
        raise UsageError(f"{printable(text)!r} is not a rate", hint="write bytes per second: 50MiB, 1.5G, 300000")
    number, prefix, binary = match.groups()
    return float(number) * (1024.0 if binary else 1000.0) ** " kMGT".index(prefix or " ")
