"""Variables: names with text, as an environment has them, and how their texts are read.

A copy of the environment with KServe's storage JSON and the credentials of one URI laid over it.  Each
family of sources reads its own from here (``settings.aws``, ``settings.google``, …), so that a delivery
loads only the families it uses.
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
# What Kubernetes tells every pod of a Service that is called lading, or lading-something
# (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
_OF_A_SERVICE = r"LADING_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# The host of a login that is for none.
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
        """These variables with ``values`` in the place of, or beside, what they name."""
        if not values:
            return self
        gone = {name for key in values for name in DEPENDENTS.get(key, ())}
        return Variables({name: text for name, text in self._values.items() if name not in gone} | dict(values))

    def without_unscoped_logins(self) -> "Variables":
        """These without the logins that do not say for which host they are: for a URI that somebody else chose."""
        open_to_any = (host for host, names in HOSTED.items() if self.first(*names) and not self.get(host))
        return self.overlaid(dict.fromkeys(open_to_any, _NOBODY))

    def secret(self, *names: str) -> Secret | None:
        """The first value that is not empty as a secret, which must be ``exact``; None if there is none."""
        return Secret(text) if (text := self.exact(*names)) else None

    def document(self, name: str) -> Secret | None:
        """A text whose white space means nothing, such as JSON, as a secret; None if it is empty or not there."""
        return Secret(text) if (text := self.get(name, "").strip()) else None

    def exact(self, *names: str) -> str:
        """The first value that is not empty, or ""; it goes to servers as it is, and must be as it was meant."""
        name = next((name for name in names if self.get(name)), "")
        return exact(self.get(name, ""), name)

    def first(self, *names: str) -> str:
        """The first value that is not empty, or ""."""
        return next((text for name in names if (text := self.get(name))), "")

    def either_case(self, name: str) -> str:
        """The value of ``name``, written small or in capitals."""
        return self.first(name, name.upper())

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Whether the value means yes; ``UsageError`` when it means neither yes nor no."""
        text = self.get(name)
        return is_true(text, name) if text else default


def not_understood(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that look like lading's own variables and are none, such as LADING_VERFIY."""
    return [
        name
        for name in names
        if name.startswith("LADING_") and name not in OWN and not re.fullmatch(_OF_A_SERVICE, name)
    ]


def exact(text: str, name: str) -> str:
    """``text``, unless a line's end or a blank came with it, with which a server would refuse it; ``name`` is said then."""
    if text != text.strip() or _CONTROL.search(text):
        raise UsageError(
            f"{printable(name)} begins or ends with white space, or holds a line break",
            hint="echo adds a line end: create the Secret with printf or with kubectl's --from-literal",
        )
    return text


def is_true(text: str, name: str) -> bool:
    """Whether ``text`` means yes; ``UsageError``, which says ``name``, when it means neither yes nor no."""
    if text.strip().lower() in ("1", "true", "yes", "on"):
        return True
    if text.strip().lower() in ("0", "false", "no", "off"):
        return False
    raise UsageError(f"{name} is {text!r}", hint="use true or false")


def is_for(named: str, authority: str, default_port: int) -> bool:
    """Whether ``named`` (``host``, ``host:port``; "" is any) covers the host of a URI, ``host`` or ``host:port``."""
    host, port = host_and_port(named)
    found, found_port = host_and_port(authority)
    return not named or (host == found and port in (None, found_port or default_port))


def why_withheld(family: str, host: str) -> str:
    """A hint: why the login of ``family``, whose variable of the host says ``host``, was not sent."""
    login = f"{family}_USERNAME and {family}_PASSWORD"
    if host == _NOBODY:
        return f"{login} are not sent where a registry leads: say in {family}_HOST for which host they are, or in credentials for which prefix"
    return f"{login} are for {printable(host)} alone, as {family}_HOST says"


def parse_rate(text: str) -> float:
    """Bytes per second of, for example, ``50MiB``, ``1.5G`` or ``300000``; ``UsageError`` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?)(i?)B?(?:/s)?", text.strip())
    if match is None:
        raise UsageError(f"{printable(text)!r} is not a rate", hint="write bytes per second: 50MiB, 1.5G, 300000")
    number, prefix, binary = match.groups()
    return float(number) * (1024.0 if binary else 1000.0) ** " kMGT".index(prefix or " ")
