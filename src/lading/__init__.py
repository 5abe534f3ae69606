"""lading brings a model, named by a URI or a registry entry, to a folder: verified, whole or not at all.

What ``__all__`` names is public, and so are all names of its two modules, ``errors`` and ``events``;
docs/python.md says for how long they stay.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "Audit",
    "Digest",
    "File",
    "LadingError",
    "ListedFile",
    "Listing",
    "Manifest",
    "Request",
    "Settings",
    "__version__",
    "errors",
    "events",
    "pull",
    "pull_all",
    "redact",
    "resolve",
    "sentence",
    "verify",
]

if TYPE_CHECKING:
    from lading import errors, events
    from lading.api import pull, pull_all, redact, resolve, sentence, verify
    from lading.delivery.request import Request
    from lading.destination.audit import Audit
    from lading.errors import LadingError
    from lading.model.digest import Digest
    from lading.model.listing import ListedFile, Listing
    from lading.model.manifest import File, Manifest
    from lading.settings.settings import Settings

_MODULES = {
    "lading.api": ("pull", "pull_all", "redact", "resolve", "sentence", "verify"),
    "lading.delivery.request": ("Request",),
    "lading.destination.audit": ("Audit",),
    "lading.errors": ("LadingError",),
    "lading.model.digest": ("Digest",),
    "lading.model.listing": ("ListedFile", "Listing"),
    "lading.model.manifest": ("File", "Manifest"),
    "lading.settings.settings": ("Settings",),
}


def __getattr__(name: str) -> object:
    # On first use: lading --help loads nothing that moves bytes.
    if name in ("errors", "events"):
        return import_module(f"lading.{name}")
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'lading' has no attribute {name!r}")
