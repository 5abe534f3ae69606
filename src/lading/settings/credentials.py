"""Credentials for the URIs below a prefix: ``credentials`` of the configuration file."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lading.errors import UsageError
from lading.settings.storage import rule_values
from lading.settings.variables import Variables
from lading.uri import ModelURI, printable


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
    """The rules of the configuration file."""
    rules = []
    for item in config.get("credentials") or ():
        known = (
            isinstance(item, dict) and isinstance(item.get("prefix"), str) and isinstance(item.get("folder", ""), str)
        )
        if (
            not known
            or not isinstance(item.get("variables") or {}, dict)
            or set(item) - {"prefix", "folder", "variables"}
        ):
            raise UsageError(
                "every entry of credentials needs a prefix, and a folder or variables",
                hint="for example {prefix: s3://team-a/, folder: /etc/lading/team-a}",
            )
        prefix = ModelURI.parse(item["prefix"])
        if not prefix.scheme:
            raise UsageError(f"the prefix {printable(item['prefix'])!r} of credentials has no scheme")
        rules.append(CredentialRule(prefix, item.get("folder", ""), item.get("variables") or {}))
    return tuple(rules)


def _covers(prefix: ModelURI, uri: ModelURI) -> bool:
    """Whether ``uri`` is ``prefix`` or below it: a prefix ends at a path boundary, and never within a host's name."""
    if (prefix.scheme.lower(), _host(prefix)) != (uri.scheme.lower(), _host(uri)):
        return False
    folder = prefix.path.rstrip("/")
    return not folder or uri.path == folder or uri.path.startswith(f"{folder}/")


def _host(uri: ModelURI) -> str:
    return (uri.authority or "").rpartition("@")[2].lower()


def rule_for(rules: tuple[CredentialRule, ...], uri: ModelURI) -> CredentialRule | None:
    """The rule of the longest prefix that covers ``uri``."""
    covering = [rule for rule in rules if _covers(rule.prefix, uri)]
    return max(covering, key=lambda rule: len(rule.prefix.path)) if covering else None
