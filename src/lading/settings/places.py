"""Places in normal form: rules of trust are found by prefixes, and no other spelling of a place may escape its rule."""

import os
import re
from urllib.parse import unquote

from lading.errors import UsageError
from lading.model.uri import ModelURI
from lading.settings.oci import DOCKER_HUB, canonical_host

_HUBS = frozenset({"hf", "modelscope", "ms"})
_HDFS = frozenset({"hdfs", "webhdfs", "swebhdfs"})
_OF_DOCKER_HUB = re.compile(rf"/{re.escape(DOCKER_HUB)}/(?:library/)?(?P<name>[^/]+)")
# Other schemes for the same place, and schemes whose names may end in a revision, tag or digest.
_SAME = {"ms": "modelscope", "oci+fetch": "oci"}
_REVISED = frozenset({"hf", "modelscope", "oci", "git+https", "git+http", "git+file"})


def places_of(uri: ModelURI) -> tuple[ModelURI, ...]:
    """The normal forms of a place, by which prefixes are compared with it; ``UsageError`` as ``refuse_dots``.

    There is one, but of an official image of Docker Hub, whose name may begin with "library/" or not.
    """
    refuse_dots(uri)
    place = spelled(uri)
    found = _OF_DOCKER_HUB.fullmatch(place.path) if place.scheme == "oci" else None
    if found is None:
        return (place,)
    return tuple(place._replace(path=f"/{DOCKER_HUB}/{folder}{found['name']}") for folder in ("", "library/"))


def spelled(uri: ModelURI) -> ModelURI:
    """The normal form of a place, without a revision: by another spelling, a URI could escape its rule."""
    if uri.scheme.lower() in ("", "file"):
        return ModelURI("file", "", os.path.realpath(unquote(uri.path) if uri.scheme else uri.path))
    uri = uri.canonical()
    scheme, authority = uri.scheme.lower(), uri.authority or ""
    path = "/".join(("", *filter(None, unquote(uri.path).split("/"))))
    if scheme in ("https", "git+https") and path.endswith(".git"):
        scheme, path = "git+https", path.removesuffix(".git")
    if scheme in _HUBS:
        # The authority is the first part of a name; names ignore case.
        name = f"{authority}{path}"
        authority, path = "", f"/{name.removeprefix('models/') if scheme == 'hf' else name}".lower()
    if scheme in _HDFS and ":" not in authority:
        # The path begins there.
        scheme, authority, path = "hdfs", "", f"/{authority}{path}" if authority else path
    scheme = _SAME.get(scheme, scheme)
    if scheme in _REVISED:
        path = re.split("[@:]", path, maxsplit=1)[0].removesuffix(".git")
    if scheme == "oci":
        # oci:// alone covers every registry.
        authority, path = "", f"/{canonical_host(authority).removesuffix(':443')}{path}"
    return ModelURI(scheme, authority, path)


def refuse_dots(uri: ModelURI) -> None:
    """Raise for a URI with "." or ".." in its path, since a server may resolve it to another folder."""
    # Some servers take a backslash for a slash, and what follows a semicolon for a parameter (RFC 3986, 3.3).
    segments = {segment.partition(";")[0] for segment in re.split(r"[/\\]", unquote(uri.path))}
    if uri.scheme.lower() not in ("", "file") and {".", ".."} & segments:
        raise UsageError(
            f"{uri.redacted()} has a '.' or '..' in its path, and rules of trust go by prefixes",
            hint="write the path without it",
        )
