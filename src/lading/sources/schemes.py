"""Which source reads a URI: by its scheme, and of https by its host."""

from collections.abc import Callable, Iterator
from importlib import import_module

from lading.errors import Unsupported
from lading.model.origin import host_and_port
from lading.model.reference import SCHEMES as NAMES
from lading.model.uri import ALIASES, AZURE_CLOUDS, HADOOP_AZURE, ModelURI, redact
from lading.network.client import HttpClient
from lading.settings.families import SCHEMES
from lading.settings.settings import Settings
from lading.sources.source import Source
from lading.text.printable import printable
from lading.text.suggest import did_you_mean

_Open = Callable[[ModelURI, Settings, HttpClient], Source]

# Other spellings of places that the sources of other schemes read.
_SPELLINGS = ALIASES.keys() | HADOOP_AZURE
# What is met in names and configurations, and is read by no source.
_REFUSED = {
    "pvc": "KServe mounts it: name the folder in which the volume is mounted",
    "dbfs": "only Databricks reads its file system: copy the model to an object store, and name that",
}


_AZURE_BLOB, _AZURE_FILES = "lading.sources.azure:AzureBlobSource", "lading.sources.azure:AzureFilesSource"

# Suffixes of hosts whose https URLs lead to more than one file.
_HOSTS = {
    f".{service}.{cloud}": dotted_name
    for service, dotted_name in (("blob", _AZURE_BLOB), ("file", _AZURE_FILES))
    for cloud in AZURE_CLOUDS
}


def open_source(uri: ModelURI, settings: Settings, http: HttpClient) -> Source:
    """The source behind ``uri`` with the credentials for it; sends nothing yet, but to ask where a run of MLflow has its files.

    ``Unsupported`` for a scheme that is not known.
    """
    refuse_unknown(uri)
    uri = uri.canonical()
    settings = settings.for_uri(uri)
    module, _, name = _dotted_name(uri, settings).partition(":")
    open_scheme: _Open = getattr(import_module(module), name)
    return open_scheme(uri, settings, http.reaching(settings.network))


def refuse_unknown(uri: ModelURI, *, hint: str = "") -> None:
    """Raise ``Unsupported`` for a scheme that is not known; ``hint`` where its user did not write it."""
    if uri.scheme.lower() not in SCHEMES.keys() | _SPELLINGS:
        raise Unsupported(
            f"lading does not read {printable(uri.scheme)}:// ({printable(uri.redacted())})",
            hint=_REFUSED.get(uri.scheme.lower()) or hint or _hint(uri.scheme),
        )


def meant(path: str) -> str:
    """``did you mean s3://foo?`` for a path that looks like a URI whose slashes were left out; "" for any other."""
    scheme, _, rest = path.partition(":")
    begins = {begin.partition(":")[0]: begin for begin in _begins()}.get(scheme.lower())
    return f"did you mean {printable(redact(begins + rest))}?" if begins and rest else ""


def _hint(scheme: str) -> str:
    """The hint for an unknown scheme: similar ones, or all."""
    begins = list(_begins())
    near = did_you_mean(scheme.lower(), [begin.partition(":")[0] for begin in begins])
    return near or f"known are local paths, {', '.join(begins[:-1])} and {begins[-1]}"


def _begins() -> Iterator[str]:
    """How URIs begin."""
    # One scheme is known only to be refused in words of its own.
    for scheme in (*SCHEMES, *NAMES):
        if scheme not in ("", "oci+native"):
            yield f"{scheme}:/" if scheme in ("models", "runs") else f"{scheme}://"


def _dotted_name(uri: ModelURI, settings: Settings) -> str:
    """The dotted name of the source for ``uri``: by its scheme, and for some hosts and paths of https."""
    scheme = uri.scheme.lower()
    if scheme in ("http", "https"):
        host, _ = host_and_port(uri.authority or "")
        found = next((dotted for suffix, dotted in _HOSTS.items() if host.endswith(suffix)), None)
        if found is not None:
            return found
        if settings.variables.first("AZURE_SERVICE_URL", "AZ_SERVICE_URL"):
            from lading.settings.azure import service_url

            service = service_url(uri, settings.variables)
            if service:
                return _AZURE_FILES if ".file." in service else _AZURE_BLOB
    if scheme == "https" and uri.path.endswith(".git"):
        return SCHEMES["git+https"]
    return SCHEMES[scheme]
