"""Credentials for the URIs below a prefix: ``credentials`` of the configuration file."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lading.errors import UsageError
from lading.model.origin import host_and_port
from lading.model.uri import ModelURI
from lading.settings.section import errors_name, refuse_unknown
from lading.settings.storage import check_value, rule_values
from lading.settings.variables import Variables
from lading.text.printable import printable

_EXAMPLE = "{prefix: s3://team-a/, folder: /etc/lading/team-a}"


class CredentialRule(NamedTuple):
    """Variables for every URI below ``prefix``: written out, or each a file of ``folder`` (a mounted Secret).

    A value is a text, or a mapping of ``file`` or ``env`` to where the text is.
    """

    prefix: ModelURI
    folder: str = ""
    values: Mapping[str, Any] = MappingProxyType({})

    def __repr__(self) -> str:
        return f"<credentials for {self.prefix.redacted()}>"

    def values_now(self, variables: Variables) -> dict[str, str]:
        """What it says now: files are read anew, and the names of variables looked up in ``variables``."""
        return rule_values(self.folder, self.values, variables)


def read_credentials(config: Mapping[str, Any]) -> tuple[CredentialRule, ...]:
    """The rules of the configuration file.  What they hold may be secrets, and is not quoted."""
    return tuple(_rule(item, number) for number, item in enumerate(config.get("credentials") or (), 1))


def _rule(item: object, number: int) -> CredentialRule:
    where = f"credentials, entry {number}"
    text = item.get("prefix") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(text, str):
        raise UsageError(f"{where} has no prefix", hint=f"write {_EXAMPLE}")
    with errors_name(where):
        prefix = ModelURI.parse(text)
        prefix.canonical()
    if not prefix.scheme:
        raise UsageError(f"{where}: the prefix {printable(text)!r} has no scheme", hint=f"write {_EXAMPLE}")
    where = f"{where} ({printable(prefix.redacted())})"
    refuse_unknown(item, ("prefix", "folder", "variables"), where)
    check_rule(item, where)
    return CredentialRule(prefix, item.get("folder") or "", item.get("variables") or {})


def check_rule(item: Mapping[str, Any], where: str) -> None:
    """Raise for a rule that says neither by a ``folder`` nor by ``variables`` what the variables are."""
    folder, variables = item.get("folder") or "", item.get("variables") or {}
    if not isinstance(folder, str) or not isinstance(variables, dict) or not (folder or variables):
        raise UsageError(
            f"{where} needs a folder or variables",
            hint="write folder: /etc/lading/team-a, or variables: {HF_TOKEN: {file: /etc/lading/token}}",
        )
    for name, value in variables.items():
        check_value(f"{where}: {name}", value)


def _covers(prefix: ModelURI, uri: ModelURI) -> bool:
    """Whether ``uri`` is ``prefix`` or below it: a prefix ends at a path boundary, and never within a host's name."""
    prefix, uri = prefix.canonical(), uri.canonical()
    if (prefix.scheme.lower(), _host(prefix)) != (uri.scheme.lower(), _host(uri)):
        return False
    folder = prefix.path.rstrip("/")
    return not folder or uri.path == folder or uri.path.startswith(f"{folder}/")


def _host(uri: ModelURI) -> tuple[str, int | None]:
    host, port = host_and_port(uri.authority or "")
    default = 80 if uri.scheme.lower().endswith("http") else 443
    return host, None if port == default else port


def rule_for(rules: tuple[CredentialRule, ...], uri: ModelURI) -> CredentialRule | None:
    """The rule of the longest prefix that covers ``uri``."""
    covering = [rule for rule in rules if _covers(rule.prefix, uri)]
    return max(covering, key=lambda rule: len(rule.prefix.path)) if covering else None
