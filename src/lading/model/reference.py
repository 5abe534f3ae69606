"""Names in registries: reading the URI of a name into a registry, a model and a version.

    model-registry://iris                     the newest live version
    model-registry://iris/v2                  this version
    model-registry://iris@champion            what the alias names
    model-registry://prod/iris/v2             the same in the registry "prod", or at the host "prod"
    model-registry://iris/v2?namespace=team   in the registry of a namespace
    model-registry://iris/v2?artifact=onnx    one of several artifacts

``mlflow://`` has the same forms and asks MLflow servers only.  Each part may be percent-encoded.  MLflow's own:

    models:/iris/2   models:/iris/Staging   models:/iris/latest   models:/iris@champion
    models:/m-…                               the logged model with this id, registered or not
    models://prod/iris/2                      one of the above in the registry "prod"

(https://mlflow.org/docs/latest/ml/model-registry/).  The id of a logged model stands for model and version.
"""

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote

from lading.errors import Unsupported, UsageError
from lading.model.uri import ModelURI
from lading.text.printable import printable

SCHEME = "model-registry"
# Each scheme of names, and the kind of registry to which it is limited; "" for any.
SCHEMES = {SCHEME: "", "mlflow": "mlflow", "models": "mlflow"}
_QUERY = ("namespace", "artifact")


class Reference(NamedTuple):
    """A name in a registry.  Without a version and an alias it means the newest live version.

    ``namespace`` chooses the registry of a namespace, ``artifact`` one of several artifacts of a version.
    """

    model: str
    version: str = ""
    alias: str = ""
    namespace: str = ""
    artifact: str = ""

    def __str__(self) -> str:
        return self.model + (f"/{self.version}" if self.version else "") + (f"@{self.alias}" if self.alias else "")


def exact_reference(registry: str, model: str, version: str, requested: ModelURI) -> ModelURI:
    """The URI of one version in one registry, with the query of the ``requested`` URI."""
    path = f"/{quote(model, safe='')}/{quote(version, safe='')}"
    return ModelURI(SCHEME, quote(registry, safe=""), path, requested.query)


def parse_reference(uri: ModelURI, registries: Iterable[str]) -> tuple[str, Reference]:
    """The registry that the URI names, or "", and the name in it.

    ``registries`` are the names and hosts of known registries.  If the first part of a path is one of them, it is
    never a model's name; if not, it is never a host, so no unknown server is asked.
    """
    try:
        unquote(f"{uri.authority or ''}{uri.path}?{uri.query or ''}", errors="strict")
    except UnicodeDecodeError as error:
        # Each such byte would be read as the same character: another name might be found.
        raise UsageError(f"{uri.redacted()} holds percent-encoded bytes that are not UTF-8") from error
    query = dict(parse_qsl(uri.query or "", keep_blank_values=True))
    if uri.fragment is not None or len(query) != len((uri.query or "").split("&") if uri.query else ()):
        raise UsageError(f"{uri.redacted()} may have no fragment, and each query key only once")
    if set(query) - set(_QUERY) or not all(query.values()):
        raise UsageError(f"{uri.redacted()} has an unknown query key", hint=f"known: {', '.join(_QUERY)}")
    parts = (
        f"{uri.authority or ''}{uri.path}".removeprefix("/" if uri.authority is None else "")
        .removesuffix("/")
        .split("/")
    )
    named = ""
    own = uri.scheme.lower() == "models"
    # The first part of "models:/iris/2" is always a model's name, even if a registry has the same name.
    if len(parts) > 1 and not (own and uri.authority is None) and unquote(parts[0]) in set(registries):
        named = unquote(parts.pop(0))
    elif own and (uri.authority or "").rpartition("@")[2] == "databricks":
        raise Unsupported(f"lading does not support the registry of Databricks ({uri.redacted()})")
    last, at, alias = parts[-1].rpartition("@") if "@" in parts[-1] else (parts[-1], "", "")
    parts[-1] = last
    texts = [unquote(part) for part in (*parts, alias)]
    if len(parts) > 2 or not all(texts[: len(parts)]) or (at and (not alias or len(parts) > 1)):
        raise UsageError(f"{uri.redacted()} is not a registry name", hint=_hint(uri, parts))
    *names, decoded_alias = texts
    if own and len(names) == 1 and not decoded_alias:
        if not names[0].startswith("m-"):
            raise UsageError(
                f"{uri.redacted()} names no version: MLflow reads a single part as the id of a logged model (m-…)",
                hint=f"write {printable(f'models:/{parts[0]}')}/latest for the newest version, or /2, or @alias",
            )
        names *= 2
    version = names[1] if len(names) > 1 else ""
    return named, Reference(names[0], version, decoded_alias, query.get("namespace", ""), query.get("artifact", ""))


def _hint(uri: ModelURI, parts: list[str]) -> str:
    scheme = uri.scheme.lower()
    if len(parts) == 3 and scheme != "models":
        return "its first part is neither a registry's name nor a configured host; see docs/registries.md"
    start = "models:/" if scheme == "models" else f"{scheme}://"
    return f"write {start}model, {start}model/version or {start}model@alias"
