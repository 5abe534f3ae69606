"""Proxies for the URIs below a prefix: ``proxies`` of the configuration file."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from lading.errors import UsageError
from lading.model.origin import endpoint_origin
from lading.model.uri import ModelURI
from lading.settings.section import errors_name, read_prefix, read_section, refuse_unknown
from lading.settings.value import Value
from lading.settings.variables import Variables

_EXAMPLE = '{prefix: s3://models/, url: "http://127.0.0.1:4001", dragonfly: true}'
# Whose requests for files may be cut into pieces.  Azure's account keys sign ranges, HDFS has them in the query.
_BY_DRAGONFLY = ("s3", "gs", "http", "https", "hf", "modelscope", "ms", "oci", "oci+fetch")


class ProxyRule(NamedTuple):
    """The proxy for what is read below ``prefix``; its ``url`` may hold a login, unless it is a dfdaemon's.

    With ``dragonfly``, it is the node's dfdaemon, which is asked for large files alone; all else goes to the origin
    directly.  ``crc`` says whether it may be asked for files that only a CRC verifies, which a peer can forge.
    """

    prefix: ModelURI
    url: str
    dragonfly: bool = False
    crc: Literal["refuse", "allow"] = "refuse"

    def __repr__(self) -> str:
        return f"<proxy for {self.prefix.redacted()}>"


def read_proxies(config: Mapping[str, Any], variables: Variables) -> tuple[ProxyRule, ...]:
    """Read the rules of the configuration file; ``UsageError`` for one that could not hold."""
    return tuple(_rule(item, number, variables) for number, item in enumerate(config.get("proxies") or (), 1))


def _rule(item: object, number: int, variables: Variables) -> ProxyRule:
    where = f"proxies, entry {number}"
    item, prefix = read_prefix(item, where, _EXAMPLE)
    scheme = prefix.canonical().scheme.lower()
    refuse_unknown(item, ProxyRule._fields, where)
    if "url" not in item:
        raise UsageError(f"{where} needs url", hint=f"write {_EXAMPLE}")
    # Only Kubernetes knows the node's address, and tells it by a variable.
    url = Value.parse(item["url"], f"{where}: url").read(variables)
    others = {key: value for key, value in item.items() if key not in ("prefix", "url")}
    rule = read_section(ProxyRule, others, where, apart={"prefix": prefix, "url": url})
    with errors_name(where):
        origin = endpoint_origin(rule.url, "url")
        if not rule.dragonfly and "crc" in item:
            raise UsageError("crc is for peers, and there are none without dragonfly: true", hint="leave it out")
        if rule.dragonfly and scheme not in _BY_DRAGONFLY:
            raise UsageError(
                f"lading does not read {scheme}:// by Dragonfly", hint=f"it reads {', '.join(_BY_DRAGONFLY)}"
            )
        if rule.dragonfly:
            origin.refuse_in_clear("what is for the origin alone", "name the dfdaemon of this node")
            if "@" in urlsplit(rule.url).netloc:
                # It would hand Proxy-Authorization on to every origin, and takes its own login by Authorization, which is the origin's.
                raise UsageError(
                    "a dfdaemon takes no login for itself", hint="let it listen where only lading reaches it"
                )
    return rule
