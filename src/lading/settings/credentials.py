"""Credentials for the URIs below a prefix: ``credentials`` of the configuration file."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from lading.model.origin import host_and_port
from lading.model.uri import ModelURI
from lading.settings.section import read_prefix, read_section, refuse_unknown, without_empty
from lading.settings.value import ValuesByName
from lading.text.printable import printable

_EXAMPLE = "{prefix: s3://team-a/, folder: /etc/lading/team-a}"


class HasPrefix(Protocol):
    """A rule for every URI below its prefix."""

    @property
    def prefix(self) -> ModelURI: ...


R = TypeVar("R", bound=HasPrefix)


class CredentialRule(NamedTuple):
    """Variables for every URI below ``prefix``."""

    prefix: ModelURI
    values: ValuesByName

    def __repr__(self) -> str:
        return f"<credentials for {self.prefix.redacted()}>"


def read_credentials(config: Mapping[str, Any]) -> tuple[CredentialRule, ...]:
    """Read the rules of the configuration file.  Errors do not quote their values, which may be secrets."""
    return tuple(_rule(item, number) for number, item in enumerate(config.get("credentials") or (), 1))


def _rule(item: object, number: int) -> CredentialRule:
    where = f"credentials, entry {number}"
    item, prefix = read_prefix(item, where, _EXAMPLE)
    where = f"{where} ({printable(prefix.redacted())})"
    refuse_unknown(item, ("prefix", *ValuesByName._fields), where)
    values = {key: value for key, value in without_empty(item).items() if key != "prefix"}
    rule = CredentialRule(prefix, read_section(ValuesByName, values, where, quoted=False))
    rule.values.check(where)
    return rule


def covers(prefix: ModelURI, uri: ModelURI) -> bool:
    """Whether ``uri`` is ``prefix`` or below it: a prefix matches whole path segments and the whole host name."""
    prefix, uri = prefix.canonical(), uri.canonical()
    if (prefix.scheme.lower(), _host(prefix)) != (uri.scheme.lower(), _host(uri)):
        return False
    folder = prefix.path.rstrip("/")
    return not folder or uri.path == folder or uri.path.startswith(f"{folder}/")


def _host(uri: ModelURI) -> tuple[str, int | None]:
    host, port = host_and_port(uri.authority or "")
    default = 80 if uri.scheme.lower().endswith("http") else 443
    return host, None if port == default else port


def rule_for(rules: tuple[R, ...], uri: ModelURI) -> R | None:
    """The rule of the longest prefix that covers ``uri``."""
    covering = [rule for rule in rules if covers(rule.prefix, uri)]
    return max(covering, key=lambda rule: len(rule.prefix.path)) if covering else None
