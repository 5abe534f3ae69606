"""Places in normal form: rules of trust are found by prefixes, and no other spelling of a place may escape its rule."""

import os
import re
from urllib.parse import unquote

from lading.errors import UsageError
from lading.model.uri import ALIASES, HADOOP_AZURE, ModelURI
from lading.settings.credentials import covers
from lading.settings.families import SCHEMES
from lading.settings.oci import DOCKER_HUB, canonical_host
from lading.text.printable import printable

_HUBS = frozenset({"hf", "modelscope", "ms"})
_HDFS = frozenset({"hdfs", "webhdfs", "swebhdfs"})
# Their places may be below no host.
_WITHOUT_HOST = frozenset({"", "file", "mlflow-artifacts", "runs", *_HDFS})
_OF_DOCKER_HUB = re.compile(rf"/{re.escape(DOCKER_HUB)}/(?:library/)?(?P<name>[^/]+)")
# Other schemes for the same place, and schemes whose names may end in a revision, tag or digest.
_SAME = {"ms": "modelscope", "oci+fetch": "oci"}
_REVISED = frozenset({"hf", "modelscope", "oci", "git+https", "git+http", "git+file"})


def is_below(prefix: ModelURI, place: ModelURI) -> bool:
    """Whether a place is one of those that the prefix names; both are in normal form.  ``s3://`` alone names every bucket."""
    if not prefix.authority and prefix.path in ("", "/"):
        return prefix.scheme == place.scheme
    return covers(prefix, place)


def refuse_no_prefix(uri: ModelURI) -> None:
    """Raise for a prefix below which no place can be: its rule would never be asked."""
    refuse_dots(uri)
    if not uri.scheme and not uri.path.startswith("/"):
        raise UsageError(
            f"the prefix {printable(uri.path)!r} is neither a URI nor an absolute path",
            hint="write s3://bucket/folder/",
        )
    if uri.scheme.lower() not in SCHEMES.keys() | ALIASES.keys() | HADOOP_AZURE:
        raise UsageError(
            f"the prefix {printable(uri.redacted())} is no place of files",
            hint="a rule goes by where a name leads to: write the prefix of that place, such as s3://bucket/folder/",
        )
    if not uri.authority and uri.path.strip("/") and uri.scheme.lower() not in _WITHOUT_HOST:
        raise UsageError(
            f"the prefix {printable(uri.redacted())} names no host or bucket",
            hint=f"write {uri.scheme}://, with two slashes",
        )
    if (uri.authority or "").endswith("*") or uri.path.endswith("*"):
        raise UsageError(
            f"the prefix {printable(uri.redacted())} has a pattern",
            hint="leave it out: what is below a prefix is covered",
        )


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
        return ModelURI("file", "", os.path.realpath((unquote(uri.path) or "/") if uri.scheme else uri.path))
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
