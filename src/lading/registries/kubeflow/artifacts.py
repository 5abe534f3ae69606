"""What an artifact of either API says: where the bytes are, what they must be, and facts about them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote

from lading.errors import IntegrityError, LadingError, NotFound, Unsupported, UsageError
from lading.model.origin import split_url
from lading.model.uri import ModelURI, redact
from lading.registries.kubeflow.rest_api import Entity, properties, text
from lading.registries.server import RegistryServer
from lading.text.printable import printable
from lading.text.suggest import suggest

# Kubeflow's own client leaves the state of what it registers UNKNOWN, which is the default.
_USABLE = ("LIVE", "UNKNOWN")


def choose(artifacts: Sequence[Entity], wanted: str, where: str) -> Entity:
    """The one artifact that holds the model, by its name if ``wanted`` says one.

    ``NotFound`` when there is none that can be used, ``UsageError`` when there are several.
    """
    models = [found for found in artifacts if text(found, "artifactType") in ("", "model-artifact")]
    usable = [found for found in models if _state(found) in _USABLE and text(found, "uri")]
    if wanted:
        named = [found for found in usable if text(found, "name") == wanted]
        if not named:
            raise NotFound(
                f"{where} has no usable artifact {printable(wanted)!r}",
                hint=suggest(wanted, (text(found, "name") for found in usable)),
            )
        usable = named
    if not usable:
        states = ", ".join(f"{printable(text(found, 'name'))} is {printable(_state(found))}" for found in models[:3])
        raise NotFound(
            f"{where} has no usable model artifact" + (f": {states}" if states else ""),
            hint=f"a usable one has a uri and is {' or '.join(_USABLE)}",
        )
    if len(usable) > 1:
        names = [text(found, "name") or redact(text(found, "uri")) for found in usable]
        raise UsageError(
            f"{where} has {len(usable)} model artifacts: {printable(', '.join(names[:5]))}",
            hint=f"name one of them: ?artifact={quote(names[0])}" if text(usable[0], "name") else "",
        )
    return usable[0]


def _state(found: Entity) -> str:
    return text(found, "state") or "UNKNOWN"


def located(
    server: RegistryServer, artifact: Entity, recorded: Sequence[Mapping[str, Any]], where: str
) -> tuple[ModelURI, dict[str, str]]:
    """The URI of the bytes, and the variables that its query stands for.

    ``s3://bucket/path?endpoint=…&defaultRegion=…`` is what Kubeflow's client writes; each ``oci.digest`` that is
    ``recorded`` pins an image.
    """
    uri = server.source_uri(text(artifact, "uri"), where)
    scheme = uri.canonical().scheme.lower()
    if scheme == "s3" and uri.query is not None:
        return uri._replace(query=None), dict(_variables(uri.query, where))
    if scheme.startswith("oci"):
        for properties in recorded:
            if "oci.digest" in properties:
                uri = _pinned(uri, str(properties["oci.digest"]), where)
    return uri, {}


def _variables(query: str, where: str) -> Iterator[tuple[str, str]]:
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in _QUERY and not value:
            continue
        if key not in _QUERY or not _QUERY[key][1](value):
            raise Unsupported(
                f"{where} has an S3 URI whose {printable(key)!r} is not understood",
                hint="known are endpoint, a URL or a host, and defaultRegion",
            )
        yield _QUERY[key][0], value


def _is_endpoint(value: str) -> bool:
    url = value if "://" in value else f"https://{value}"
    try:
        return split_url(url)[0].scheme in ("http", "https") and not re.search("[@?#]", url)
    except LadingError:
        return False


def _is_region(value: str) -> bool:
    # It becomes a part of host names, also of those that a token is sent to.
    return re.fullmatch("[A-Za-z0-9-]{1,40}", value) is not None


_QUERY = {"endpoint": ("AWS_ENDPOINT_URL", _is_endpoint), "defaultRegion": ("AWS_DEFAULT_REGION", _is_region)}


def _pinned(uri: ModelURI, digest: str, where: str) -> ModelURI:
    """``uri`` of an image by its digest: a tag may be moved."""
    name, _, given = uri.path.partition("@")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest) or given not in ("", digest):
        raise IntegrityError(
            f"{where} records an oci.digest that is invalid, or not the one of its URI or of another record"
        )
    folder, slash, last = name.rpartition("/")
    return uri._replace(path=f"{folder}{slash}{last.partition(':')[0]}@{digest}")


def facts(found: Entity, *keys: str) -> dict[str, Any]:
    """Those of ``keys`` that say something."""
    return {key: found[key] for key in keys if found.get(key)}


def labels(*entities: Entity) -> list[str]:
    """Kubeflow's own page shows custom properties without a value as labels."""
    return sorted({name for found in entities for name, value in properties(found).items() if value == ""})
